//! What is known of a batch before it is sent, by the replica and by what was appended here.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};
use tokio::time::{Instant, sleep_until};

use super::append::Job;
use super::replica::{self, Replica};
use super::wire::{Epoch, Source};
use crate::embedded::sql;
use crate::error::Error;
use crate::fact::{NewFact, Stream};

/// How long one state of the replica is looked at. What came since makes a batch come back from the
/// server or be looked at again, no more; but each new state empties SQLite's memory of the file, and an
/// old one keeps its write-ahead log from being used again.
const GLANCE: Duration = Duration::from_millis(100);

/// Own appends beyond the state that is looked at, after which a new one is taken.
const BEYOND: usize = 4096;

/// What we appended and the replica does not show yet.
#[derive(Default)]
pub(super) struct Own {
    /// How many replicas were forgotten before: what a stream lost was not appended.
    of: u64,
    /// Position, id and subject, nearly in order.
    order: VecDeque<(u64, String, String)>,
    by_id: HashMap<String, (u64, String, String)>,
    last: HashMap<String, u64>,
}

impl Own {
    pub(super) fn add(&mut self, position: u64, fact: &NewFact, body: &str) {
        self.order.push_back((position, fact.id.clone(), fact.subject.clone()));
        let stored = (position, fact.subject.clone(), body.to_owned());
        self.by_id.insert(fact.id.clone(), stored);
        // Those that went out side by side are told of in any order.
        let last = self.last.entry(fact.subject.clone()).or_default();
        *last = position.max(*last);
    }

    /// The last message of the stream up to which all is in the replica, which shows so much, or our own.
    pub(super) fn end(&self, applied: u64) -> u64 {
        let mut positions: Vec<u64> = self.order.iter().map(|(position, ..)| *position).collect();
        positions.sort_unstable();
        let beyond = positions.into_iter().filter(|position| *position > applied);
        beyond.fold(applied, |end, position| if position == end + 1 { position } else { end })
    }

    /// Drops what the replica shows by now.
    fn prune(&mut self, applied: u64) {
        while let Some((position, id, subject)) = self.order.pop_front() {
            if position > applied {
                self.order.push_front((position, id, subject));
                return;
            }
            self.by_id.remove(&id);
            if self.last.get(&subject) == Some(&position) {
                self.last.remove(&subject);
            }
        }
    }
}

/// What is known of a batch before it is sent.
pub(super) struct Known {
    /// Of each fact, where it is already, on which subject, and whether its body is the same.
    pub(super) facts: Vec<Option<(u64, String, bool)>>,
    /// The last position on the subject of each fact; none where that is left to the server.
    pub(super) last: Vec<Option<u64>>,
    /// The guard of the batch's lease and the message that set it.
    pub(super) guard: Option<(Epoch, u64)>,
    /// The last message that the replica shows.
    pub(super) applied: u64,
}

/// How much is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Ids, of which the server knows only the youngest; and where one batch is refused with others, subjects.
    Ids,
    /// All that a batch can be refused for.
    All,
}

/// One state of the replica, for a moment.
#[derive(Default)]
pub(super) struct Glance {
    db: Option<Connection>,
    /// Until when it is looked at, and the last message in it.
    taken: Option<(Instant, u64)>,
}

/// Waits until then; for ever if there is no such time.
pub(super) async fn past(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

impl Glance {
    /// Until when the state is looked at, if there is one.
    pub(super) fn until(&self) -> Option<Instant> {
        self.taken.map(|(until, _)| until)
    }

    pub(super) fn is_over(&self) -> bool {
        self.taken.is_none()
    }

    /// Lets the state go; the next question takes a new one.
    pub(super) fn end(&mut self) {
        if self.taken.take().is_some() {
            let ended = self.db.as_ref().map(|db| db.execute_batch("ROLLBACK"));
            // Another connection is in order.
            self.db = self.db.take().filter(|_| matches!(ended, Some(Ok(()))));
        }
    }

    /// What the replica and our own last appends say of batches.
    pub(super) fn know(
        &mut self,
        replica: &Replica,
        stream: Stream,
        own: &mut Own,
        jobs: &[Job],
        depth: Depth,
    ) -> Result<Vec<Known>, Error> {
        if own.of != replica.forgotten() {
            *own = Own { of: replica.forgotten(), ..Own::default() };
            self.end();
        }
        let is_old = self.taken.is_some_and(|(until, _)| Instant::now() >= until);
        if is_old || own.order.len() > BEYOND {
            self.end();
        }
        let answer = self.ask(replica, stream, own, jobs, depth);
        if answer.is_err() {
            self.end();
        }
        answer
    }

    fn ask(
        &mut self,
        replica: &Replica,
        stream: Stream,
        own: &mut Own,
        jobs: &[Job],
        depth: Depth,
    ) -> Result<Vec<Known>, Error> {
        let failed = |error| replica.failed(error);
        let db = match self.db.take() {
            Some(db) => db,
            None => replica.connection()?,
        };
        let db = self.db.insert(db);
        let applied = if let Some((_, applied)) = self.taken {
            applied
        } else {
            db.execute_batch("BEGIN").map_err(failed)?;
            self.taken = Some((Instant::now() + GLANCE, 0));
            let applied = replica::applied_to(db, Source::Facts(stream)).map_err(failed)?;
            let applied = applied.map_or(0, |applied| applied.sequence);
            self.taken = Some((Instant::now() + GLANCE, applied));
            applied
        };
        own.prune(applied);
        let known = jobs.iter().map(|job| look_up(db, stream, own, job, applied, depth));
        known.collect::<rusqlite::Result<_>>().map_err(failed)
    }
}

fn look_up(
    db: &Connection,
    stream: Stream,
    own: &Own,
    job: &Job,
    applied: u64,
    depth: Depth,
) -> rusqlite::Result<Known> {
    let mut by_id = db.prepare_cached(match stream {
        Stream::Pipeline => "SELECT position, subject, body = ?2 FROM pipeline WHERE id = ?1",
        Stream::Operational => "SELECT position, subject, body = ?2 FROM operational WHERE id = ?1",
    })?;
    let mut known = Known { facts: Vec::new(), last: Vec::new(), guard: None, applied };
    let is_alone = job.batch.facts.len() == 1;
    for (fact, body) in job.batch.facts.iter().zip(&job.bodies) {
        known.facts.push(match own.by_id.get(&fact.id) {
            Some((position, subject, same)) => Some((*position, subject.clone(), same == body)),
            None => by_id
                .query_row([&fact.id, body], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?,
        });
        // One alone is refused alone, and then looked at with all there is to know.
        known.last.push(if depth == Depth::Ids && is_alone {
            None
        } else {
            let last = sql::last_position_on(db, stream, &fact.subject)?;
            Some(own.last.get(&fact.subject).map_or(last, |own| last.max(*own)))
        });
    }
    if let Some(fence) = &job.batch.fence {
        known.guard = replica::guard(db, stream, &fence.lease)?;
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_appended_in_between_is_not_known() {
        let mut own = Own::default();
        for position in [12, 11, 15, 16] {
            let fact = NewFact::new(position.to_string(), "s", "test", serde_json::Value::Null);
            own.add(position, &fact, "null");
        }
        for (applied, end) in [(9, 9), (10, 12), (12, 12), (13, 13), (14, 16), (20, 20)] {
            assert_eq!(own.end(applied), end, "{applied}");
        }
        own.prune(12);
        assert_eq!((own.end(10), own.by_id.len()), (10, 2));
    }
}
