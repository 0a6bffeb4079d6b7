//! Facts a second by the engine, beside messages a second that bare `async-nats` gets acknowledged by the same
//! server. Both sides take turns of a tenth of the time, so that what else the machine does meets both. Both
//! expect the last message on their subject and give an id. The engine's turn ends when this node's replica shows
//! all that it appended.
//!
//! * `single`: one task that waits for each answer; the latency is what it waits, microseconds;
//! * `many`: 32 such tasks;
//! * `fenced`: one task whose facts carry a lease's fence as well; bare, there is no such thing.

use std::time::Duration;

use async_nats::jetstream::{Context, stream};
use courier::{Batch, Courier, Lease, NewFact, Stream};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use crate::Outcome;
use crate::servers::{Servers, busy};

/// Tasks that append at the same time: a manager has about as many daemons.
const APPENDERS: u32 = 32;

/// Turns of each side.
const TURNS: u32 = 10;

pub async fn figures(time: Duration) -> Outcome<Value> {
    let folder = tempfile::tempdir_in(".")?;
    let servers = Servers::start(folder.path(), 1)?;
    let log = servers.open("node").await?;
    let bare = async_nats::jetstream::new(async_nats::connect(servers.addresses()).await?);
    let config = stream::Config {
        name: "bare".to_owned(),
        subjects: vec!["bare.>".to_owned()],
        duplicate_window: Duration::from_mins(10),
        ..stream::Config::default()
    };
    bare.create_stream(config).await?;
    let lease = log.acquire("leader", "bench", Duration::from_hours(1), 0).await?;

    let mut sides = [Side::default(), Side::default(), Side::default()];
    let [bare_single, single, fenced] = &mut sides;
    for turn in 0..TURNS {
        let time = time / TURNS;
        let (s, f) = (format!("s{turn}"), format!("f{turn}"));
        bare_single.add(&servers, publish(&bare, &s, 1, time)).await?;
        single.add(&servers, append(&log, &s, None, 1, time)).await?;
        fenced.add(&servers, append(&log, &f, Some(&lease), 1, time)).await?;
    }
    let mut many = [Side::default(), Side::default()];
    let [bare_many, engine_many] = &mut many;
    for turn in 0..TURNS {
        let time = time / TURNS;
        let m = format!("m{turn}");
        bare_many.add(&servers, publish(&bare, &m, APPENDERS, time)).await?;
        engine_many.add(&servers, append(&log, &m, None, APPENDERS, time)).await?;
    }
    let figures = json!({
        "appenders": APPENDERS,
        "single": { "bare": bare_single.figures(), "engine": single.figures(),
            "engine_to_bare": single.rate() / bare_single.rate() },
        "fenced": { "engine": fenced.figures() },
        "many": { "bare": bare_many.figures(), "engine": engine_many.figures(),
            "engine_to_bare": engine_many.rate() / bare_many.rate() },
    });
    drop(log);
    Ok(figures)
}

/// What one side did in all its turns.
#[derive(Default)]
struct Side {
    waits: Vec<Duration>,
    time: Duration,
    /// Processor time of this program and of the server, milliseconds.
    busy: [u64; 2],
}

impl Side {
    /// Takes a turn.
    async fn add(
        &mut self,
        servers: &Servers,
        turn: impl Future<Output = Outcome<(Vec<Duration>, Duration)>>,
    ) -> Outcome<()> {
        let pids = [std::process::id(), servers.pid(0)];
        let before = pids.map(busy);
        let (waits, time) = turn.await?;
        for ((sum, pid), before) in self.busy.iter_mut().zip(pids).zip(before) {
            *sum += busy(pid)?.saturating_sub(before?);
        }
        self.waits.extend(waits);
        self.time += time;
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn rate(&self) -> f64 {
        self.waits.len() as f64 / self.time.as_secs_f64()
    }

    fn figures(&mut self) -> Value {
        self.waits.sort_unstable();
        let at = |part: usize| {
            let n = (self.waits.len() * part / 100).min(self.waits.len().saturating_sub(1));
            self.waits.get(n).map(Duration::as_micros)
        };
        let count = self.waits.len().max(1) as u64;
        let [here, server] = self.busy.map(|busy| busy * 1000 / count);
        json!({
            "per_s": self.rate().round(), "p50_us": at(50), "p99_us": at(99),
            "processor_us": { "here": here, "server": server },
        })
    }
}

/// A body of the size that facts of a pipeline have.
fn body(number: u64) -> Value {
    json!({ "number": number, "filling": "x".repeat(200) })
}

/// Runs so many tasks that do one step after the other; gives what each step took, and the time.
async fn run<F, S>(tasks: u32, time: Duration, step: F) -> Outcome<(Vec<Duration>, Duration)>
where
    F: Fn(u32, u64, u64) -> S + Clone + Send + 'static,
    S: Future<Output = Outcome<u64>> + Send,
{
    let began = Instant::now();
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let step = step.clone();
        running.spawn(async move {
            let mut waits = Vec::new();
            let (mut last, mut number) = (0, 0);
            while began.elapsed() < time {
                let called = Instant::now();
                last = step(task, number, last).await?;
                waits.push(called.elapsed());
                number += 1;
            }
            Outcome::Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(ended) = running.join_next().await {
        waits.extend(ended??);
    }
    Ok((waits, began.elapsed()))
}

async fn publish(
    bare: &Context,
    turn: &str,
    tasks: u32,
    time: Duration,
) -> Outcome<(Vec<Duration>, Duration)> {
    let (bare, turn) = (bare.clone(), turn.to_owned());
    run(tasks, time, move |task, number, last| {
        let bare = bare.clone();
        let subject = format!("bare.{turn}.{task}");
        async move {
            let mut headers = async_nats::HeaderMap::new();
            let expected = "Nats-Expected-Last-Subject-Sequence";
            headers.insert(expected, last.to_string());
            headers.insert("Nats-Msg-Id", format!("{subject}/{number}"));
            let payload = body(number).to_string();
            let taken = bare.publish_with_headers(subject, headers, payload.into()).await?;
            Ok(taken.await?.sequence)
        }
    })
    .await
}

async fn append(
    log: &Courier,
    turn: &str,
    lease: Option<&Lease>,
    tasks: u32,
    time: Duration,
) -> Outcome<(Vec<Duration>, Duration)> {
    let began = Instant::now();
    let (node, turn, lease) = (log.clone(), turn.to_owned(), lease.cloned());
    let (waits, _) = run(tasks, time, move |task, number, last| {
        let (log, lease) = (node.clone(), lease.clone());
        let subject = format!("work.{turn}.{task}");
        async move {
            let id = format!("{subject}/{number}");
            let fact = NewFact::new(id, subject, "bench", body(number)).after(last);
            let mut batch = Batch::from(fact);
            if let Some(lease) = &lease {
                batch = batch.fenced(lease);
            }
            Ok(log.append(Stream::Pipeline, batch, 1).await?[0])
        }
    })
    .await?;
    log.head(Stream::Pipeline).await?;
    Ok((waits, began.elapsed()))
}
