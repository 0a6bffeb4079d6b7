//! Histories of several nodes that compete for one subject and one lease, whatever the engine.

use std::sync::Arc;
use std::time::Duration;

use courier::{AppendError, Batch, Courier, Error, Fact, LeaseError, NewFact, Stream};
use serde_json::json;
use tokio::task::JoinSet;

use crate::history::History;
use crate::linear::{Appended, OneSubject, Operation, What, check, tally};

const STREAM: Stream = Stream::Pipeline;
const SUBJECT: &str = "state.x";
const LEASE: &str = "leader";
const NOW: i64 = 1_700_000_000_000;

/// Longer than the test: who is to lose the lease gives it back, or another life of him takes it.
const TTL: Duration = Duration::from_hours(1);

/// Lets two tasks of each node work on these logs, which are all the same one; then gives what they saw. The
/// seed makes the choices; when they meet each other is left to chance.
pub(crate) async fn record(nodes: &[Courier], seed: u64, steps: u32) -> Vec<Operation<What>> {
    let history = Arc::new(History::default());
    run(nodes, &history, &seed.to_string(), steps).await;
    let facts = nodes[0].read(STREAM, 0, 100_000).await.unwrap();
    resolve(Arc::into_inner(history).unwrap().into_operations(), &facts)
}

/// The same into a history that others read meanwhile.
pub(crate) async fn run(nodes: &[Courier], history: &Arc<History>, name: &str, steps: u32) {
    let mut tasks = JoinSet::new();
    for (n, log) in nodes.iter().enumerate() {
        for task in 0..2 {
            let (log, history) = (log.clone(), Arc::clone(history));
            let name = format!("{name}-{n}-{task}");
            tasks.spawn(async move {
                // Two nodes share a holder's name: each grant fences out the one before.
                let holder = format!("h{}", n % 2);
                compete(&log, &history, &name, &holder, steps).await;
            });
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// What has no answer is looked up in the log at the end: it never was, or it is at its position.
pub(crate) fn resolve(history: Vec<Operation<What>>, facts: &[Fact]) -> Vec<Operation<What>> {
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

async fn compete(log: &Courier, history: &History, name: &str, holder: &str, steps: u32) {
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
        match next(10) {
            0 => {
                let by = holder.to_owned();
                let called = history.call(Some(What::Acquired { by: by.clone(), epoch: None }));
                match log.acquire(LEASE, holder, TTL, NOW).await {
                    Ok(granted) => {
                        let epoch = Some(granted.epoch);
                        history.answer(called, Some(What::Acquired { by, epoch }));
                        lease = Some(granted);
                    }
                    Err(LeaseError::Held { by, .. }) => {
                        history.answer(called, Some(What::Held { by }));
                    }
                    Err(LeaseError::Failed(Error::Unavailable(_))) => lease = None,
                    Err(other) => panic!("{other}"),
                }
            }
            1 => {
                let Some(lease) = lease.take() else { continue };
                let what = What::Released { by: holder.to_owned(), epoch: lease.epoch };
                let called = history.call(Some(what.clone()));
                match log.release(&lease).await {
                    Ok(()) => history.answer(called, Some(what)),
                    Err(Error::Unavailable(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            2 => {
                let called = history.call(None);
                let found = log.lease(LEASE, NOW).await.ok();
                let found = found.map(|found| found.map(|lease| (lease.holder, lease.epoch)));
                history.answer(called, found.map(What::Holds));
            }
            3 => {
                let called = history.call(None);
                let found = log.last_on(STREAM, SUBJECT).await.ok();
                let found = found.map(|found| found.map_or(0, |fact| fact.position));
                last = found.unwrap_or(last);
                history.answer(called, found.map(What::Last));
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
                let append = |outcome| What::Append { id: id.clone(), after, fence, outcome };
                let called = history.call(Some(append(Appended::Fenced)));
                let outcome = match log.append(STREAM, batch, NOW).await {
                    Ok(positions) => {
                        last = positions[0];
                        Appended::At(last)
                    }
                    Err(AppendError::Conflict { actual, .. }) => {
                        last = actual;
                        Appended::Conflict(actual)
                    }
                    Err(AppendError::Fenced { .. }) => {
                        lease = None;
                        Appended::Fenced
                    }
                    Err(AppendError::Failed(Error::Unavailable(_))) => continue,
                    Err(other) => panic!("{other}"),
                };
                history.answer(called, Some(append(outcome)));
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
