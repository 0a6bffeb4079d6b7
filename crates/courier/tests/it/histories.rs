//! Histories of several nodes that compete for one subject and one lease, whatever the engine.

use std::sync::Arc;
use std::time::Duration;

use courier::{AppendError, Batch, Courier, Error, LeaseError, NewFact, Stream};
use serde_json::json;
use tokio::task::JoinSet;

use super::linear::{Appended, History, OneSubject, Operation, What, check, tally};

const STREAM: Stream = Stream::Pipeline;
const SUBJECT: &str = "state.x";
const LEASE: &str = "leader";
const NOW: i64 = 1_700_000_000_000;

/// Longer than the test: who is to lose the lease gives it back, or another life of him takes it.
const TTL: Duration = Duration::from_hours(1);

/// Lets so many tasks work on each of these logs, which are all the same one; then gives what they saw.
///
/// What has no answer is looked up in the log at the end: it never was, or it is at its position.
pub(crate) async fn record(nodes: &[Courier], steps: u32) -> Vec<Operation<What>> {
    let history = Arc::new(History::new());
    let mut tasks = JoinSet::new();
    for (n, log) in nodes.iter().enumerate() {
        for task in 0..2 {
            let (log, history) = (log.clone(), Arc::clone(&history));
            tasks.spawn(async move {
                // Two nodes share a holder's name: each grant fences out the one before.
                let holder = format!("h{}", n % 2);
                compete(&log, &history, &format!("{n}-{task}"), &holder, steps).await;
            });
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let facts = nodes[0].read(STREAM, 0, 100_000).await.unwrap();
    let history = Arc::into_inner(history).unwrap().into_operations();
    resolve(history, &facts)
}

fn resolve(history: Vec<Operation<What>>, facts: &[courier::Fact]) -> Vec<Operation<What>> {
    let at = |id: &str| facts.iter().find(|fact| fact.id == id).map(|fact| fact.position);
    history
        .into_iter()
        .filter_map(|mut operation| {
            if operation.answered.is_none()
                && let What::Append { id, outcome, .. } = &mut operation.what
            {
                *outcome = Appended::At(at(id)?);
            }
            Some(operation)
        })
        .collect()
}

async fn compete(log: &Courier, history: &History<What>, name: &str, holder: &str, steps: u32) {
    let mut random = fnv(name);
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut last = 0;
    let mut lease = None;
    for step in 0..steps {
        let called = history.now();
        match next(10) {
            0 => match log.acquire(LEASE, holder, TTL, NOW).await {
                Ok(granted) => {
                    let epoch = Some(granted.epoch);
                    let what = What::Acquired { by: holder.to_owned(), epoch };
                    history.add(called, Some(history.now()), what);
                    lease = Some(granted);
                }
                Err(LeaseError::Held { .. }) => {}
                Err(LeaseError::Failed(Error::Unavailable(_))) => {
                    let what = What::Acquired { by: holder.to_owned(), epoch: None };
                    history.add(called, None, what);
                    lease = None;
                }
                Err(other) => panic!("{other}"),
            },
            1 => {
                let Some(lease) = lease.take() else { continue };
                let what = What::Released { by: holder.to_owned(), epoch: lease.epoch };
                let answered = match log.release(&lease).await {
                    Ok(()) => Some(history.now()),
                    Err(Error::Unavailable(_)) => None,
                    Err(other) => panic!("{other}"),
                };
                history.add(called, answered, what);
            }
            2 => {
                if let Ok(found) = log.lease(LEASE, NOW).await {
                    let found = found.map(|lease| (lease.holder, lease.epoch));
                    history.add(called, Some(history.now()), What::Holds(found));
                }
            }
            3 => {
                if let Ok(found) = log.last_on(STREAM, SUBJECT).await {
                    last = found.map_or(0, |fact| fact.position);
                    history.add(called, Some(history.now()), What::Last(last));
                }
            }
            _ => {
                let id = format!("{name}-{step}");
                let fact = NewFact::new(&id, SUBJECT, name, json!({ "step": step })).after(last);
                let mut batch = Batch::from(fact);
                if let Some(lease) = &lease {
                    batch = batch.fenced(lease);
                }
                let fence = lease.as_ref().map(|lease| lease.epoch);
                let after = last;
                let outcome = match log.append(STREAM, batch, NOW).await {
                    Ok(positions) => {
                        last = positions[0];
                        Some(Appended::At(last))
                    }
                    Err(AppendError::Conflict { actual, .. }) => {
                        last = actual;
                        Some(Appended::Conflict(actual))
                    }
                    Err(AppendError::Fenced { .. }) => {
                        lease = None;
                        Some(Appended::Fenced)
                    }
                    Err(AppendError::Failed(Error::Unavailable(_))) => None,
                    Err(other) => panic!("{other}"),
                };
                let answered = outcome.is_some().then(|| history.now());
                let outcome = outcome.unwrap_or(Appended::Fenced);
                history.add(called, answered, What::Append { id, after, fence, outcome });
            }
        }
    }
}

fn fnv(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Ends the test unless the history could have happened one operation after the other.
pub(crate) fn judge(history: Vec<Operation<What>>) {
    let tally = tally(&history);
    println!("{tally}");
    if let Err(why) = check::<OneSubject>(history) {
        panic!("{tally}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_engine_is_linearizable() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    let log = courier::Embedded::open(&file, courier::Options::default()).unwrap();
    let nodes = vec![log; 4];
    judge(record(&nodes, 100).await);
}
