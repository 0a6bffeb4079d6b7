//! What is known of a batch before it is sent, by the replica and by what was appended here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::append::Job;
use super::replica::{self, Replica};
use super::wire::{Epoch, Source, Stored};
use crate::embedded::sql;
use crate::error::Error;
use crate::fact::Stream;

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
    /// Nearly in order.
    order: VecDeque<(u64, Arc<Stored>)>,
    by_id: HashMap<String, (u64, Arc<Stored>)>,
    last: HashMap<String, u64>,
}

impl Own {
    pub(super) fn add(&mut self, position: u64, fact: Arc<Stored>) {
        // Those that went out side by side are told of in any order.
        let last = self.last.entry(fact.subject.clone()).or_default();
        *last = position.max(*last);
        self.by_id.insert(fact.id.clone(), (position, Arc::clone(&fact)));
        self.order.push_back((position, fact));
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
        while let Some((position, fact)) = self.order.pop_front() {
            if position > applied {
                self.order.push_front((position, fact));
                return;
            }
            self.by_id.remove(&fact.id);
            if self.last.get(&fact.subject) == Some(&position) {
                self.last.remove(&fact.subject);
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

/// What one node knows of a stream when it appends.
#[derive(Default)]
pub(super) struct Knowledge {
    pub(super) own: Own,
    pub(super) glance: Glance,
}

/// One state of the replica, for a moment.
#[derive(Default)]
pub(super) struct Glance {
    db: Option<Connection>,
    /// The last message in it.
    applied: u64,
    /// Until when it is looked at, if there is one.
    until: watch::Sender<Option<Instant>>,
}

impl Glance {
    pub(super) fn is_over(&self) -> bool {
        self.until.borrow().is_none()
    }

    /// Lets the state go; the next question takes a new one.
    pub(super) fn end(&mut self) {
        if self.until.send_replace(None).is_some() {
            let ended = self.db.as_ref().map(|db| db.execute_batch("ROLLBACK"));
            // Another connection is in order.
            self.db = self.db.take().filter(|_| matches!(ended, Some(Ok(()))));
        }
    }

    fn is_old(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() >= until)
    }
}

impl Knowledge {
    /// Waits until a state was looked at for as long as one may be.
    pub(super) fn aged(&self) -> impl Future<Output = ()> + use<> {
        let mut until = self.glance.until.subscribe();
        async move {
            loop {
                let now = *until.borrow_and_update();
                match now {
                    Some(until) => return sleep_until(until).await,
                    // There is no other once the sender is gone.
                    None => {
                        if until.changed().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                }
            }
        }
    }

    /// Lets go a state that was looked at for so long.
    pub(super) fn let_go(&mut self) {
        if self.glance.is_old() {
            self.glance.end();
        }
    }

    /// What the replica and our own last appends say of batches.
    pub(super) fn know<'a>(
        &mut self,
        replica: &Replica,
        stream: Stream,
        jobs: impl IntoIterator<Item = &'a Job>,
        depth: Depth,
    ) -> Result<Vec<Known>, Error> {
        if self.own.of != replica.forgotten() {
            self.own = Own { of: replica.forgotten(), ..Own::default() };
            self.glance.end();
        }
        if self.glance.is_old() || self.own.order.len() > BEYOND {
            self.glance.end();
        }
        let answer = self.ask(replica, stream, jobs, depth);
        if answer.is_err() {
            self.glance.end();
        }
        answer
    }

    fn ask<'a>(
        &mut self,
        replica: &Replica,
        stream: Stream,
        jobs: impl IntoIterator<Item = &'a Job>,
        depth: Depth,
    ) -> Result<Vec<Known>, Error> {
        let failed = |error| replica.failed(error);
        let Self { own, glance } = self;
        let db = match glance.db.take() {
            Some(db) => db,
            None => replica.connection()?,
        };
        let db = glance.db.insert(db);
        if glance.until.borrow().is_none() {
            db.execute_batch("BEGIN").map_err(failed)?;
            glance.until.send_replace(Some(Instant::now() + GLANCE));
            let applied = replica::applied_to(db, Source::Facts(stream)).map_err(failed)?;
            glance.applied = applied.map_or(0, |applied| applied.sequence);
            own.prune(glance.applied);
        }
        let known =
            jobs.into_iter().map(|job| look_up(db, stream, own, job, glance.applied, depth));
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
            Some((position, own)) => Some((*position, own.subject.clone(), own.body == *body)),
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
    use crate::fact::NewFact;

    #[test]
    fn what_others_appended_in_between_is_not_known() {
        let mut own = Own::default();
        for position in [12, 11, 15, 16] {
            let fact = NewFact::new(position.to_string(), "s", "test", serde_json::Value::Null);
            own.add(position, Arc::new(Stored::of(&fact, "null", 0)));
        }
        for (applied, end) in [(9, 9), (10, 12), (12, 12), (13, 13), (14, 16), (20, 20)] {
            assert_eq!(own.end(applied), end, "{applied}");
        }
        own.prune(12);
        assert_eq!((own.end(10), own.by_id.len()), (10, 2));
    }
}
