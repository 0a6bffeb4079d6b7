//! For how long nothing can be written when the server dies that leads the log's stream, of three: seen by the
//! engine, and by bare `async-nats` on a stream beside it, each in its turn.
//!
//! Bare, each message is given up after a quarter of a second and sent again, as often as it takes.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use courier::{NewFact, Stream};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::Outcome;
use crate::servers::Servers;

/// Writes before the server is killed.
const BEFORE: Duration = Duration::from_secs(3);
/// A message without an answer is sent again after this.
const AGAIN: Duration = Duration::from_millis(250);
/// Writes after it.
const AFTER: Duration = Duration::from_secs(12);
/// Nothing takes longer.
const LIMIT: Duration = Duration::from_mins(1);
const TURNS: u32 = 6;

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Bare,
    Engine,
}

pub async fn figures() -> Outcome<Value> {
    let (mut bare, mut engine) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        bare.push(turn(Side::Bare).await?);
        engine.push(turn(Side::Engine).await?);
    }
    Ok(json!({ "seconds_without_a_write": { "bare": bare, "engine": engine } }))
}

/// One cluster, one death: the longest time between two writes that were acknowledged, seconds.
async fn turn(side: Side) -> Outcome<f64> {
    let folder = tempfile::tempdir_in(".")?;
    let mut servers = Servers::start(folder.path(), 3)?;
    let log = servers.open("node").await?;
    let addresses = servers.addresses();
    let addresses: Vec<&str> = addresses.split(',').collect();
    let client = async_nats::connect(addresses).await?;
    let bare = jetstream::new(client);
    let config = stream::Config {
        name: "bare".to_owned(),
        subjects: vec!["bare".to_owned()],
        num_replicas: 3,
        ..stream::Config::default()
    };
    let asked = Instant::now();
    // Servers that have just begun may not know each other yet.
    while let Err(error) = bare.create_stream(config.clone()).await {
        if asked.elapsed() > LIMIT {
            return Err(error.into());
        }
        sleep(AGAIN).await;
    }
    let name = if side == Side::Bare { "bare" } else { "bench_pipeline" };
    let stream = bare.get_stream(name).await?;
    let cluster = stream.cached_info().cluster.as_ref();
    let leader = cluster.and_then(|cluster| cluster.leader.as_deref()).ok_or("no leader")?;
    let leader: usize = leader.trim_start_matches('s').parse()?;

    let began = Instant::now();
    let (mut last, mut longest, mut killed, mut number) = (began, Duration::ZERO, None, 0);
    loop {
        number += 1;
        match side {
            Side::Bare => loop {
                let sent = async { bare.publish("bare", "x".into()).await?.await };
                if matches!(timeout(AGAIN, sent).await, Ok(Ok(_))) {
                    break;
                }
                if began.elapsed() > LIMIT {
                    return Err("nothing can be written any more".into());
                }
            },
            Side::Engine => {
                let fact = NewFact::new(number.to_string(), "work", "bench", json!({}));
                log.append(Stream::Pipeline, fact.into(), 1).await?;
            }
        }
        longest = longest.max(last.elapsed());
        last = Instant::now();
        match killed {
            None if began.elapsed() > BEFORE => {
                servers.kill(leader)?;
                killed = Some(Instant::now());
                longest = Duration::ZERO;
            }
            // Long after the others have a leader.
            Some(killed) if killed.elapsed() > AFTER => break,
            _ => sleep(Duration::from_millis(5)).await,
        }
    }
    Ok((longest.as_secs_f64() * 100.0).round() / 100.0)
}
