//! Changes of the state stream: each key is compared and set, all keys of a change or none.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Error as JsonError;
use tokio::time::{Instant, sleep};

use super::replica::{last_lease, record};
use super::server::{Message, Published};
use super::wire::{Epoch, Record, Source, Written};
use super::{Shared, sync_again};
use crate::dead::{DeadLetter, LetterFilter, LetterState, NewLetter};
use crate::embedded::sql;
use crate::error::{Error, LeaseError};
use crate::fact::Stream;
use crate::lease::Lease;

/// What a change comes to, with the state as it is known.
pub(super) enum Plan<T, E> {
    /// Nothing is to be written.
    Done(Result<T, E>),
    /// These records, and what is answered once they are written.
    Write(Vec<Record>, T),
}

/// A change on its way.
struct Change<T> {
    /// Known again in the stream, if the answer does not come.
    by: String,
    /// What is answered if it was written without our hearing of it.
    answer: Option<T>,
    /// Whether the replica shows all that is in the stream. What is written holds where it lands,
    /// whatever was known here; that nothing is to be written must be so by all there is.
    is_known: bool,
}

/// What one try came to.
enum Step<T, E> {
    Done(Result<T, E>),
    /// Try again at once.
    Look,
    /// Try again in a while, for this reason.
    Again(String),
}

/// A plan, the last message under each of its keys, and whether we wrote one of those.
type Known<T, E> = (Plan<T, E>, Vec<u64>, bool);

fn know<T, E>(db: &Connection, plan: Plan<T, E>, by: &str) -> rusqlite::Result<Known<T, E>> {
    let Plan::Write(records, answer) = plan else { return Ok((plan, Vec::new(), false)) };
    let last: Vec<(u64, String)> =
        records.iter().map(|wanted| record(db, &wanted.key())).collect::<rusqlite::Result<_>>()?;
    let is_ours = last.iter().any(|(_, writer)| *writer == by);
    let last = last.into_iter().map(|(sequence, _)| sequence).collect();
    Ok((Plan::Write(records, answer), last, is_ours))
}

impl Shared {
    /// Makes a plan and writes it, again and again until nobody was faster.
    pub(super) async fn change<T, E>(
        self: &Arc<Self>,
        plan: impl Fn(&Connection) -> rusqlite::Result<Plan<T, E>> + Clone + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let until = self.deadline();
        let mut pause = Duration::from_millis(2);
        let mut change = Change { by: self.server.unique(), answer: None, is_known: false };
        loop {
            let why = match self.step(&mut change, plan.clone(), until).await? {
                Step::Done(outcome) => return outcome,
                Step::Look => continue,
                Step::Again(why) => why,
            };
            change.is_known = false;
            if Instant::now() + pause > until {
                return Err(Error::Unavailable(why).into());
            }
            sleep(pause).await;
            pause = sync_again(pause);
            match self.sync(Source::State, until).await {
                Ok(()) => change.is_known = true,
                Err(error) => self.note(&error.to_string()),
            }
        }
    }

    async fn step<T, E>(
        &self,
        change: &mut Change<T>,
        plan: impl Fn(&Connection) -> rusqlite::Result<Plan<T, E>> + Send + 'static,
        until: Instant,
    ) -> Result<Step<T, E>, Error>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let by = change.by.clone();
        let (plan, last, is_ours) = self.replica.read(move |db| know(db, plan(db)?, &by)).await?;
        if is_ours && let Some(answer) = change.answer.take() {
            return Ok(Step::Done(Ok(answer)));
        }
        match plan {
            Plan::Done(outcome) if change.is_known => Ok(Step::Done(outcome)),
            Plan::Done(_) => Ok(match self.sync(Source::State, until).await {
                Ok(()) => {
                    change.is_known = true;
                    Step::Look
                }
                Err(error) => Step::Again(error.to_string()),
            }),
            Plan::Write(records, answer) => {
                let messages = self.written(records, &last, &change.by)?;
                let connection = self.server.connection();
                match self.server.publish(messages).await {
                    Published::At(last) => {
                        self.replica.acknowledge(Source::State, connection, last, Vec::new());
                        self.arrive(Source::State, last, until).await?;
                        Ok(Step::Done(Ok(answer)))
                    }
                    Published::Unknown(why) => {
                        change.answer = Some(answer);
                        Ok(Step::Again(why))
                    }
                    other => Ok(Step::Again(other.why())),
                }
            }
        }
    }

    fn written(
        &self,
        records: Vec<Record>,
        known: &[u64],
        by: &str,
    ) -> Result<Vec<Message>, Error> {
        let written = records.into_iter().zip(known).map(|(record, sequence)| {
            let subject = self.server.names.record(&record.key());
            let payload = serde_json::to_vec(&Written { by: by.to_owned(), record })?;
            Ok(Message::new(subject, payload).after(*sequence))
        });
        let written: Result<_, JsonError> = written.collect();
        written.map_err(|error| Error::Unavailable(error.to_string()))
    }
}

type Planned<T, E = Error> = rusqlite::Result<Plan<T, E>>;

/// Writes what tells this log from others, unless somebody did.
pub(super) fn identity(db: &Connection) -> Planned<()> {
    let (sequence, _) = record(db, "identity")?;
    if sequence > 0 {
        return Ok(Plan::Done(Ok(())));
    }
    let id = sql::identity(db)?;
    Ok(Plan::Write(vec![Record::Identity { id }], ()))
}

fn subscriber(
    db: &Connection,
    stream: Stream,
    name: &str,
) -> rusqlite::Result<Option<(u64, u64, u32)>> {
    db.prepare_cached(
        "SELECT position, in_hand, attempts FROM subscriber WHERE stream = ?1 AND name = ?2",
    )?
    .query_row(params![stream.name(), name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
    .optional()
}

fn advanced(
    db: &Connection,
    stream: Stream,
    name: &str,
    to: u64,
) -> rusqlite::Result<Option<Record>> {
    let found = subscriber(db, stream, name)?;
    if found.is_some_and(|(position, ..)| position >= to) {
        return Ok(None);
    }
    let (_, in_hand, attempts) = found.unwrap_or_default();
    let name = name.to_owned();
    Ok(Some(Record::Subscriber { stream, name, position: to, in_hand, attempts }))
}

pub(super) fn advance(db: &Connection, stream: Stream, name: &str, to: u64) -> Planned<()> {
    Ok(match advanced(db, stream, name, to)? {
        Some(record) => Plan::Write(vec![record], ()),
        None => Plan::Done(Ok(())),
    })
}

pub(super) fn attempt(db: &Connection, stream: Stream, name: &str, at: u64) -> Planned<u32> {
    let (position, in_hand, attempts) = subscriber(db, stream, name)?.unwrap_or_default();
    let attempts = if in_hand == at { attempts + 1 } else { 1 };
    let name = name.to_owned();
    let record = Record::Subscriber { stream, name, position, in_hand: at, attempts };
    Ok(Plan::Write(vec![record], attempts))
}

pub(super) fn bury(db: &Connection, new: &NewLetter, now_ms: i64) -> Planned<u64> {
    let found = sql::read(db, new.stream, new.position.saturating_sub(1), 1)?;
    let Some(fact) = found.into_iter().find(|fact| fact.position == new.position) else {
        let (what, number) = ("fact", new.position);
        return Ok(Plan::Done(Err(Error::NotFound { what, number })));
    };
    let known: Option<u64> = db
        .prepare_cached(
            "SELECT id FROM letter WHERE subscriber = ?1 AND stream = ?2 AND position = ?3",
        )?
        .query_row(params![new.subscriber, new.stream.name(), new.position], |row| row.get(0))
        .optional()?;
    let mut records = Vec::new();
    let id = if let Some(known) = known {
        known
    } else {
        // Every new letter raises it, so there is no other one of this fact.
        let last: u64 = db.query_row("SELECT last FROM letters", [], |row| row.get(0))?;
        records.push(Record::Letters { last: last + 1 });
        last + 1
    };
    let retried_ms = match known {
        Some(id) => letter(db, id)?.and_then(|letter| letter.retried_ms),
        None => None,
    };
    records.push(Record::Letter(Box::new(DeadLetter {
        id,
        subscriber: new.subscriber.clone(),
        stream: new.stream,
        fact,
        error: new.error.clone(),
        attempts: new.attempts,
        buried_ms: now_ms,
        retried_ms,
        state: LetterState::Pending,
    })));
    records.extend(advanced(db, new.stream, &new.subscriber, new.position)?);
    Ok(Plan::Write(records, id))
}

fn letter(db: &Connection, id: u64) -> rusqlite::Result<Option<DeadLetter>> {
    let filter = LetterFilter { id: Some(id), limit: 1, ..LetterFilter::default() };
    Ok(sql::dead_letters(db, &filter)?.pop())
}

/// Changes a letter, if there is one of this number.
fn changed(db: &Connection, id: u64, change: impl FnOnce(&mut DeadLetter)) -> Planned<()> {
    let Some(mut found) = letter(db, id)? else {
        let (what, number) = ("dead letter", id);
        return Ok(Plan::Done(Err(Error::NotFound { what, number })));
    };
    change(&mut found);
    Ok(Plan::Write(vec![Record::Letter(Box::new(found))], ()))
}

pub(super) fn retry(db: &Connection, id: u64, now_ms: i64) -> Planned<()> {
    changed(db, id, |letter| {
        letter.state = LetterState::Retrying;
        letter.retried_ms = Some(now_ms);
    })
}

pub(super) fn settle(
    db: &Connection,
    id: u64,
    state: LetterState,
    error: Option<&str>,
) -> Planned<()> {
    changed(db, id, |letter| {
        letter.state = state;
        if let Some(error) = error {
            error.clone_into(&mut letter.error);
            letter.attempts += 1;
        }
    })
}

/// Letters to be removed in one step.
pub(super) fn purge(db: &Connection, before_ms: i64, at_once: usize) -> Planned<u64> {
    let old: Vec<u64> = db
        .prepare_cached(
            "SELECT id FROM letter WHERE state IN ('recovered', 'abandoned') AND buried_ms < ?1
             ORDER BY id LIMIT ?2",
        )?
        .query_map(params![before_ms, at_once], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if old.is_empty() {
        return Ok(Plan::Done(Ok(0)));
    }
    let count = old.len() as u64;
    let removed = old.into_iter().map(|letter| Record::Removed { letter });
    Ok(Plan::Write(removed.collect(), count))
}

pub(super) fn acquire(
    db: &Connection,
    name: &str,
    holder: &str,
    ttl: Duration,
    now_ms: i64,
) -> Planned<Lease, LeaseError> {
    if let Some(held) = sql::lease(db, name, now_ms)?.filter(|held| held.holder != holder) {
        return Ok(Plan::Done(Err(LeaseError::Held {
            name: held.name,
            by: held.holder,
            until_ms: held.expires_ms,
        })));
    }
    let epoch = last_lease(db, name)?.map_or(0, |(_, epoch, _)| epoch) + 1;
    let expires_ms = now_ms.saturating_add(sql::millis(ttl));
    let (name, holder, note) = (name.to_owned(), holder.to_owned(), String::new());
    let lease = Lease { name, holder, epoch, expires_ms, note };
    Ok(Plan::Write(vec![of(&lease)], lease))
}

fn of(lease: &Lease) -> Record {
    let Lease { name, holder, epoch, expires_ms, note } = lease.clone();
    Record::Lease { name, holder: Some(holder), epoch, expires_ms, note }
}

pub(super) fn renew(
    db: &Connection,
    lease: &Lease,
    ttl: Duration,
    now_ms: i64,
) -> Planned<Lease, LeaseError> {
    let held = sql::lease(db, &lease.name, now_ms)?;
    if held.is_none_or(|held| held.holder != lease.holder || held.epoch != lease.epoch) {
        let (name, epoch) = (lease.name.clone(), lease.epoch);
        return Ok(Plan::Done(Err(LeaseError::Lost { name, epoch })));
    }
    let renewed = Lease { expires_ms: now_ms.saturating_add(sql::millis(ttl)), ..lease.clone() };
    Ok(Plan::Write(vec![of(&renewed)], renewed))
}

pub(super) fn release(db: &Connection, lease: &Lease) -> Planned<()> {
    let Lease { name, holder, epoch, .. } = lease.clone();
    let found = last_lease(db, &name)?;
    let is_ours = found.is_some_and(|(by, found, _)| by == Some(holder) && found == epoch);
    if !is_ours {
        return Ok(Plan::Done(Ok(())));
    }
    let free = Record::Lease { name, holder: None, epoch, expires_ms: 0, note: String::new() };
    Ok(Plan::Write(vec![free], ()))
}

/// The last state of a lease, for fences.
pub(super) fn epoch_of(db: &Connection, name: &str) -> rusqlite::Result<Option<Epoch>> {
    let found = last_lease(db, name)?;
    Ok(found.map(|(holder, epoch, _)| Epoch { epoch, over: holder.is_none() }))
}
