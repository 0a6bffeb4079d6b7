//! How many facts a second the log takes, beside how many commits a second SQLite takes here.
//!
//! `cargo run --release -p courier --example courier_bench [SECONDS]` prints one JSON object: medians
//! of five rounds, in each of which every row has its SECONDS (one, unless said), in the same folder
//! (the current one; a temporary file in it). What counts as appended survives the death of the
//! process (`synchronous = NORMAL`).
//!
//! * `bare_commits_per_s`: one connection, one table with a key and a text of the same size, one row
//!   a commit, nothing else;
//! * `append_N_subscriber(s)_per_s`: 32 tasks that each wait for their own append before the next,
//!   while N subscribers handle every fact, each with its durable position;
//! * `single_writer_...`: the same with one such task, so that no commit can be shared by appends;
//! * `batched_per_s`: facts of batches of 1000, two batches at a time.
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::{collections::BTreeMap, path::Path, time::Duration};

use courier::{Batch, Courier, Embedded, NewFact, Options, Stream, Subscriber, rusqlite};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Tasks that append at the same time: a manager has about as many daemons.
const APPENDERS: u32 = 32;

/// A disk is faster in one second than in the next: what is compared takes turns.
const ROUNDS: u32 = 5;

fn main() -> Outcome<()> {
    let seconds = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 1.0,
    };
    let time = Duration::try_from_secs_f64(seconds)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(figures(time))?;
    println!("{figures:#}");
    Ok(())
}

async fn figures(time: Duration) -> Outcome<Value> {
    let mut measured: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut add = |name, rate: f64| measured.entry(name).or_default().push(rate.round());
        add("bare_commits_per_s", tokio::task::spawn_blocking(move || bare(time)).await??);
        let one = appends(time, APPENDERS, 1).await?;
        add("append_1_subscriber_per_s", one.appended);
        add("delivered_1_subscriber_per_s", one.delivered);
        let ten = appends(time, APPENDERS, 10).await?;
        add("append_10_subscribers_per_s", ten.appended);
        add("delivered_10_subscribers_per_s", ten.delivered);
        add("batched_per_s", batched(time).await?);
        add("single_writer_0_subscribers_per_s", appends(time, 1, 0).await?.appended);
        add("single_writer_1_subscriber_per_s", appends(time, 1, 1).await?.appended);
        add("single_writer_10_subscribers_per_s", appends(time, 1, 10).await?.appended);
    }
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    Ok(measured.into_iter().map(|(name, rates)| (name.to_owned(), json!(median(rates)))).collect())
}

/// A body of the size that facts of a pipeline have.
fn body(number: u64) -> Value {
    json!({
        "topic": "work.completed",
        "work": format!("item-{number:09}"),
        "seconds": 12.5,
        "reason": "it is a sentence as long as a sentence is when a person reads it",
    })
}

fn rate(count: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let count = count as f64;
    count / took.as_secs_f64()
}

fn bare(time: Duration) -> Outcome<f64> {
    let folder = tempfile::tempdir_in(".")?;
    let db = rusqlite::Connection::open(folder.path().join("bare.sqlite"))?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "normal")?;
    db.execute("CREATE TABLE fact (position INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT", [])?;
    let mut insert = db.prepare("INSERT INTO fact (body) VALUES (?1)")?;
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < time {
        insert.execute([body(count).to_string()])?;
        count += 1;
    }
    Ok(rate(count, began.elapsed()))
}

struct Rates {
    appended: f64,
    /// To all subscribers together.
    delivered: f64,
}

async fn appends(time: Duration, appenders: u32, subscribers: u32) -> Outcome<Rates> {
    let folder = tempfile::tempdir_in(".")?;
    let log = open(folder.path())?;
    let (over, is_over) = watch::channel(false);
    let mut hearing = JoinSet::new();
    for number in 0..subscribers {
        hearing.spawn(hear(log.clone(), number, is_over.clone()));
    }
    let (began, mut telling) = (Instant::now(), JoinSet::new());
    for number in 0..appenders {
        telling.spawn(append_one_by_one(log.clone(), number, began + time));
    }
    let mut count = 0;
    while let Some(appended) = telling.join_next().await {
        count += appended??;
    }
    let took = began.elapsed();
    over.send_replace(true);
    let mut handled = 0;
    while let Some(heard) = hearing.join_next().await {
        handled += heard??;
    }
    Ok(Rates { appended: rate(count, took), delivered: rate(handled, took) })
}

fn open(folder: &Path) -> Outcome<Courier> {
    Ok(Embedded::open(&folder.join("facts.sqlite"), Options::default())?)
}

async fn append_one_by_one(log: Courier, appender: u32, until: Instant) -> Outcome<u64> {
    let mut count = 0;
    while Instant::now() < until {
        let subject = format!("work.{appender}-{}", count % 100);
        let fact = NewFact::new(format!("{subject}/{count}"), subject, "bench", body(count));
        log.append(Stream::Pipeline, fact.into(), 1).await?;
        count += 1;
    }
    Ok(count)
}

/// Handles every fact until it is over.
async fn hear(log: Courier, number: u32, mut is_over: watch::Receiver<bool>) -> Outcome<u64> {
    let mut tail = log.tail(Stream::Pipeline);
    let mut subscriber = Subscriber::new(log, Stream::Pipeline, format!("s{number}"), "", 3);
    let mut count = 0;
    loop {
        tail.mark_unchanged();
        while let Some(delivery) = subscriber.next(1).await? {
            subscriber.done(delivery).await?;
            count += 1;
            if *is_over.borrow() {
                return Ok(count);
            }
        }
        tokio::select! {
            changed = tail.changed() => changed?,
            over = is_over.changed() => {
                over?;
                return Ok(count);
            }
        }
    }
}

async fn batched(time: Duration) -> Outcome<f64> {
    let folder = tempfile::tempdir_in(".")?;
    let log = open(folder.path())?;
    let began = Instant::now();
    let mut telling = JoinSet::new();
    for appender in 0..2_u32 {
        let log = log.clone();
        telling.spawn(async move {
            let mut count: u64 = 0;
            while began.elapsed() < time {
                let facts = (count..count + 1000).map(|number| {
                    let subject = format!("work.{appender}-{number:09}");
                    NewFact::new(format!("{subject}/0"), subject, "bench", body(number))
                });
                log.append(Stream::Pipeline, Batch::new(facts.collect()), 1).await?;
                count += 1000;
            }
            Outcome::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(appended) = telling.join_next().await {
        count += appended??;
    }
    Ok(rate(count, began.elapsed()))
}
