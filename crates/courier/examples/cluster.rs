//! How many facts a second the engine on `JetStream` takes, beside how many messages bare `async-nats`
//! gets acknowledged by the same server.
//!
//! `cargo run --release -p courier --features jetstream --example cluster_bench [SECONDS]` prints one JSON
//! object. The server is the program named by `NATS_SERVER`, or `nats-server` in `PATH`: a child with a
//! store in the current folder, alone. Both sides take turns of a tenth of the time, so that what else the
//! machine does meets both. Both expect the last message on their subject and give an id.
//!
//! * `single_*`: one task that waits for each answer; the latency is what it waits, microseconds;
//! * `many_*`: 32 such tasks;
//! * `fenced_*`: one task whose facts carry a lease's fence as well; bare, there is no such thing.
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::{Context, stream};
use courier::jetstream::{JetStream, Options};
use courier::{Batch, Courier, Lease, NewFact, Stream};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Tasks that append at the same time: a manager has about as many daemons.
const APPENDERS: u32 = 32;

/// Turns of each side.
const TURNS: u32 = 10;

fn main() -> Outcome<()> {
    let seconds = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 5.0,
    };
    let time = Duration::try_from_secs_f64(seconds)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(figures(time))?;
    println!("{figures:#}");
    Ok(())
}

/// The server, ended with the bench.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            println!("the server did not end: {error}");
        }
    }
}

impl Server {
    fn start(folder: &Path, port: u16) -> Outcome<Self> {
        let program = std::env::var_os("NATS_SERVER").map_or("nats-server".into(), PathBuf::from);
        let config = folder.join("server.conf");
        let store = folder.join("store");
        let text = format!(
            "listen: 127.0.0.1:{port}\nmax_payload: 8MB\njetstream {{ store_dir: {:?} }}\n",
            store.display().to_string()
        );
        fs_err::write(&config, text)?;
        let mut command = Command::new(&program);
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn();
        Ok(Self(child.map_err(|error| format!("start {}: {error}", program.display()))?))
    }
}

async fn figures(time: Duration) -> Outcome<Value> {
    let folder = tempfile::tempdir_in(".")?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let server = Server::start(folder.path(), port)?;
    let address = format!("nats://127.0.0.1:{port}");
    let options = Options::new(&address, "bench", folder.path().join("node"));
    let log = loop {
        match JetStream::open(options.clone()).await {
            Ok(log) => break log,
            // It has just begun.
            Err(courier::OpenError::Unreachable { .. }) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let bare = async_nats::jetstream::new(async_nats::connect(&address).await?);
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
        bare_single.add(publish(&bare, &format!("s{turn}"), 1, time).await?);
        single.add(append(&log, &format!("s{turn}"), None, 1, time).await?);
        fenced.add(append(&log, &format!("f{turn}"), Some(&lease), 1, time).await?);
    }
    let mut many = [Side::default(), Side::default()];
    let [bare_many, engine_many] = &mut many;
    for turn in 0..TURNS {
        let time = time / TURNS;
        bare_many.add(publish(&bare, &format!("m{turn}"), APPENDERS, time).await?);
        engine_many.add(append(&log, &format!("m{turn}"), None, APPENDERS, time).await?);
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
    drop(server);
    Ok(figures)
}

/// What one side did in all its turns.
#[derive(Default)]
struct Side {
    waits: Vec<Duration>,
    time: Duration,
}

impl Side {
    fn add(&mut self, (waits, time): (Vec<Duration>, Duration)) {
        self.waits.extend(waits);
        self.time += time;
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
        json!({ "per_s": self.rate().round(), "p50_us": at(50), "p99_us": at(99) })
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
    let (log, turn, lease) = (log.clone(), turn.to_owned(), lease.cloned());
    run(tasks, time, move |task, number, last| {
        let (log, lease) = (log.clone(), lease.clone());
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
    .await
}
