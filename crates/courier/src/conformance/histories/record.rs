//! Histories of several nodes that compete for one subject and one lease, whatever the engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::history::History;
use super::linear::{Appended, TTL_MS, Tally, What, is_in_order};
use super::search::Operation;
use crate::conformance::{NOW, Verdict, Violation};
use crate::courier::Courier;
use crate::error::{AppendError, Error, LeaseError};
use crate::fact::{Batch, Fact, NewFact, Stream};

const STREAM: Stream = Stream::Pipeline;
const SUBJECT: &str = "state.x";
const LEASE: &str = "leader";

/// More facts than a history has.
const ALL: usize = 1_000_000;

const TTL: Duration = Duration::from_millis(TTL_MS.cast_unsigned());

/// Of so many steps three let time pass, half of a lease's or more: now it is prolonged in time, now it is not.
const TIME_PASSES: u64 = 60;
const TIMES_MS: [i64; 3] = [TTL_MS / 2, TTL_MS, TTL_MS * 2];

/// Lets two tasks of each node work on these logs, which are all the same one; then gives what they saw. The
/// seed makes the choices; when they meet each other is left to chance.
///
/// # Errors
/// What no fault below an engine excuses.
pub async fn record(
    nodes: &[Courier],
    seed: u64,
    steps: u32,
) -> Result<Vec<Operation<What>>, Violation> {
    let history = Arc::new(History::default());
    run(nodes, &history, &seed.to_string(), steps).await?;
    let first = nodes.first().ok_or("a history of nobody")?;
    Ok(resolve(history.operations(), &facts(first).await?))
}

/// The same into a history that others read meanwhile.
///
/// # Errors
/// What no fault below an engine excuses.
pub async fn run(nodes: &[Courier], history: &Arc<History>, name: &str, steps: u32) -> Verdict {
    let mut tasks = JoinSet::new();
    for (n, log) in nodes.iter().enumerate() {
        let (log, history) = (log.clone(), Arc::clone(history));
        let mut node = Competitor::new(&format!("{name}-{n}"), n);
        node.steps = steps;
        tasks.spawn(async move { node.compete(&log, &history).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// The facts of a history, as a node knows them.
///
/// # Errors
/// When its log does not answer.
pub async fn facts(log: &Courier) -> Result<Vec<Fact>, Error> {
    log.read(STREAM, 0, ALL).await
}

/// What has no answer is looked up in the log at the end: it never was, or it is at its position.
pub fn resolve(history: Vec<Operation<What>>, facts: &[Fact]) -> Vec<Operation<What>> {
    let at: HashMap<&str, u64> =
        facts.iter().map(|fact| (fact.id.as_str(), fact.position)).collect();
    history
        .into_iter()
        .filter_map(|mut operation| {
            if operation.answered.is_none()
                && let What::Append { id, outcome, .. } = &mut operation.what
            {
                *outcome = Appended::At(*at.get(id.as_str())?);
            }
            Some(operation)
        })
        .collect()
}

/// Counts what the operations came to.
///
/// # Errors
/// Unless the history could have happened one operation after the other. It is kept in a file then, as JSON.
pub fn judge(history: Vec<Operation<What>>) -> Result<Tally, Violation> {
    let tally = Tally::of(&history);
    let written = serde_json::to_vec(&history)?;
    if let Err(why) = is_in_order(history) {
        let file = std::env::temp_dir().join(format!("history-{:016x}.json", fnv(&written)));
        fs_err::write(&file, written)?;
        return Err(format!("{tally}: {why}; kept in {}", file.display()).into());
    }
    Ok(tally)
}

/// A node that competes with others.
#[derive(Debug, Clone)]
pub struct Competitor {
    /// Begins the ids of its facts: nobody else has it, and no other life of this one.
    pub name: String,
    /// For whom it acquires the lease.
    pub holder: String,
    /// What each of its two tasks does, unless the history is closed before.
    pub steps: u32,
    /// The longest wait before each step.
    pub pause: Duration,
}

impl Competitor {
    /// A node of a number, which goes on until the history is closed.
    pub fn new(name: &str, number: usize) -> Self {
        // Two nodes share a holder's name: each grant fences out the one before.
        let holder = format!("h{}", number % 2);
        Self { name: name.to_owned(), holder, steps: u32::MAX, pause: Duration::ZERO }
    }

    /// Works on a log with two tasks.
    ///
    /// # Errors
    /// What no fault below an engine excuses.
    pub async fn compete(&self, log: &Courier, history: &Arc<History>) -> Verdict {
        let mut tasks = JoinSet::new();
        for task in 0..2 {
            let (node, log, history) = (self.clone(), log.clone(), Arc::clone(history));
            tasks.spawn(async move {
                let name = format!("{}-{task}", node.name);
                node.work(&log, &history, &name).await
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    async fn work(&self, log: &Courier, history: &History, name: &str) -> Verdict {
        let mut random = fnv(name.as_bytes());
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut last = 0;
        let mut lease = None;
        for step in 0..self.steps {
            if history.is_over() {
                break;
            }
            if !self.pause.is_zero() {
                let most = u64::try_from(self.pause.as_micros()).unwrap_or(u64::MAX - 1);
                sleep(Duration::from_micros(next(most + 1))).await;
            }
            let pass = usize::try_from(next(TIME_PASSES))?;
            history.pass(TIMES_MS.get(pass).copied().unwrap_or_default());
            let now_ms = history.now_ms();
            match next(12) {
                0 => {
                    let acquired =
                        |epoch| What::Acquired { by: self.holder.clone(), epoch, now_ms };
                    let called = history.call(Some(acquired(None)));
                    match log.acquire(LEASE, &self.holder, TTL, now_ms).await {
                        Ok(granted) => {
                            history.answer(called, Some(acquired(Some(granted.epoch))));
                            lease = Some(granted);
                        }
                        Err(LeaseError::Held { by, .. }) => {
                            history.answer(called, Some(What::Held { by, now_ms }));
                        }
                        Err(LeaseError::Failed(Error::Unavailable(_))) => lease = None,
                        Err(other) => return Err(other.into()),
                    }
                }
                1 => {
                    let Some(lease) = lease.take() else { continue };
                    let what = What::Released { by: self.holder.clone(), epoch: lease.epoch };
                    let called = history.call(Some(what.clone()));
                    match log.release(&lease).await {
                        Ok(()) => history.answer(called, Some(what)),
                        Err(Error::Unavailable(_)) => {}
                        Err(other) => return Err(other.into()),
                    }
                }
                2 => {
                    let called = history.call(None);
                    let found = answered(log.lease(LEASE, now_ms).await)?;
                    let holds = found.map(|found| What::Holds {
                        who: found.map(|lease| (lease.holder, lease.epoch)),
                        now_ms,
                    });
                    history.answer(called, holds);
                }
                3 => {
                    let called = history.call(None);
                    let found = answered(log.last_on(STREAM, SUBJECT).await)?;
                    let found = found.map(|found| found.map_or(0, |fact| fact.position));
                    last = found.unwrap_or(last);
                    history.answer(called, found.map(What::Last));
                }
                4 | 5 => {
                    let Some(held) = lease.take() else { continue };
                    let (by, epoch) = (self.holder.clone(), held.epoch);
                    let what = What::Renewed { by: by.clone(), epoch, now_ms };
                    let called = history.call(Some(what.clone()));
                    match log.renew(&held, TTL, now_ms).await {
                        Ok(renewed) => {
                            history.answer(called, Some(what));
                            lease = Some(renewed);
                        }
                        Err(LeaseError::Lost { .. }) => {
                            history.answer(called, Some(What::Lost { by, epoch, now_ms }));
                        }
                        Err(LeaseError::Failed(Error::Unavailable(_))) => lease = Some(held),
                        Err(other) => return Err(other.into()),
                    }
                }
                _ => {
                    let id = format!("{name}-{step}");
                    let fact =
                        NewFact::new(&id, SUBJECT, name, json!({ "step": step })).after(last);
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
                            last =
                                positions.first().copied().ok_or("an append without a position")?;
                            Appended::At(last)
                        }
                        Err(AppendError::Conflict { actual, .. }) => {
                            last = actual;
                            Appended::Conflict(actual)
                        }
                        Err(AppendError::Fenced(_)) => {
                            lease = None;
                            Appended::Fenced
                        }
                        Err(AppendError::Failed(Error::Unavailable(_))) => continue,
                        Err(other) => return Err(other.into()),
                    };
                    history.answer(called, Some(append(outcome)));
                }
            }
        }
        Ok(())
    }
}

/// None if no answer came.
fn answered<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::Unavailable(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
