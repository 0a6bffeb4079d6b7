//! Changes of the state stream: each key is compared and set, all keys of a change or none.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Error as JsonError;
use tokio::time::{Instant, sleep};

use super::replica::{last_lease, record};
use super::server::{Message, Published};
use super::wire::{Epoch, Record, Source, Written};
use super::{Shared, guards, sync_again};
use crate::dead::{DeadLetter, LetterFilter, LetterState, NewLetter};
use crate::embedded::sql;
use crate::error::{Error, LeaseError};
use crate::fact::{Fence, Stream};
use crate::lease::Lease;

/// Bytes of an error that a letter keeps: a letter is one message, with the body of its fact.
const ERROR_BYTES: usize = 64 << 10;

/// What a change comes to, with the state as it is known.
pub(super) enum Plan<T, E> {
    /// Nothing is to be written.
    Done(Result<T, E>),
    /// These records, and what is answered once they are written.
    Write(Vec<Record>, T),
    /// The same, where to do it twice is not to do it once.
    Once(Vec<Record>, T),
}

/// A change on its way.
struct Change<T> {
    /// Known again in the stream, if the answer does not come.
    by: String,
    /// What was sent last, if nobody said whether it was written.
    unheard: Option<Unheard<T>>,
    /// Whether something that was sent was written over since, if it was written.
    is_covered: bool,
    /// Whether the replica shows all that is in the stream. What is written holds where it lands,
    /// whatever was known here; that nothing is to be written must be so by all there is.
    is_known: bool,
}

impl<T> Change<T> {
    fn begun(by: String) -> Self {
        Self { by, unheard: None, is_covered: false, is_known: false }
    }
}

/// What may be in the stream or not.
struct Unheard<T> {
    /// Its keys, each with the last message that it expected there.
    keys: Vec<(String, u64)>,
    answer: T,
    is_once: bool,
}

/// What became of it, as far as the records tell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Not written so far.
    Open,
    Written,
    /// Others wrote since. Each key keeps its last record, so ours was in between or never was.
    Covered,
}

/// What one try came to.
enum Step<T, E> {
    Done(Result<T, E>),
    /// Try again at once.
    Look,
    /// Try again in a while, for this reason.
    Again(String),
}

/// The keys of a plan, each with the last message there.
fn expected<T, E>(db: &Connection, plan: &Plan<T, E>) -> rusqlite::Result<Vec<(String, u64)>> {
    let (Plan::Write(records, _) | Plan::Once(records, _)) = plan else { return Ok(Vec::new()) };
    let expected = records.iter().map(|wanted| {
        let key = wanted.key();
        let (last, _) = record(db, &key)?;
        Ok((key, last))
    });
    expected.collect()
}

/// What became of a change that expected these messages.
fn find(db: &Connection, keys: &[(String, u64)], by: &str) -> rusqlite::Result<Found> {
    let mut found = Found::Open;
    for (key, expected) in keys {
        match record(db, key)? {
            (_, writer) if writer == by => return Ok(Found::Written),
            // One that is behind is so only here.
            (last, _) if last > *expected => found = Found::Covered,
            _ => {}
        }
    }
    Ok(found)
}

fn unknown() -> Error {
    let why = "the answer was lost and others went on since, so whether it was done is not known: \
               look who holds it, or try again";
    Error::Unavailable(why.to_owned())
}

/// A lease as it was prolonged here last, and the message that says so.
pub(super) struct Renewal {
    lease: Lease,
    sequence: u64,
    /// The connection, and how many streams had been forgotten before: what lies behind either may be something else.
    at: (u64, u64),
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
        self.go_on(Change::begun(self.server.unique()), plan).await
    }

    /// The same with a change of which something may be written already.
    async fn go_on<T, E>(
        self: &Arc<Self>,
        mut change: Change<T>,
        plan: impl Fn(&Connection) -> rusqlite::Result<Plan<T, E>> + Clone + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let until = self.deadline();
        let mut pause = Duration::from_millis(2);
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
        let sent = change.unheard.as_ref().map(|unheard| unheard.keys.clone()).unwrap_or_default();
        let read = self.replica.read(move |db| {
            let plan = plan(db)?;
            Ok((find(db, &sent, &by)?, expected(db, &plan)?, plan))
        });
        let (found, keys, plan) = read.await?;
        match change.unheard.take_if(|_| found != Found::Open) {
            Some(Unheard { answer, .. }) if found == Found::Written => {
                return Ok(Step::Done(Ok(answer)));
            }
            Some(Unheard { is_once: true, .. }) => return Err(unknown()),
            Some(_) => change.is_covered = true,
            None => {}
        }
        let is_once = matches!(plan, Plan::Once(..));
        match plan {
            // Done it may have been, before what speaks against it.
            Plan::Done(Err(_)) if change.is_known && change.is_covered => Err(unknown()),
            Plan::Done(outcome) if change.is_known => Ok(Step::Done(outcome)),
            Plan::Done(_) => Ok(match self.sync(Source::State, until).await {
                Ok(()) => {
                    change.is_known = true;
                    Step::Look
                }
                Err(error) => Step::Again(error.to_string()),
            }),
            Plan::Write(records, answer) | Plan::Once(records, answer) => {
                let messages = self.written(records, &keys, &change.by)?;
                let connection = self.server.connection();
                match self.server.publish(messages).await {
                    Published::At(last) => {
                        self.replica.acknowledge(Source::State, connection, last, Vec::new());
                        self.arrive(Source::State, last, until).await?;
                        Ok(Step::Done(Ok(answer)))
                    }
                    Published::Unknown(why) => {
                        change.unheard = Some(Unheard { keys, answer, is_once });
                        Ok(Step::Again(why))
                    }
                    other => Ok(Step::Again(other.why())),
                }
            }
        }
    }

    /// Prolongs a lease. Whoever does so again on the same connection knows the message to be replaced, and its
    /// guards: he waits neither for that message to come here nor for all that others wrote before it.
    pub(super) async fn renew(
        self: &Arc<Self>,
        lease: Lease,
        ttl: Duration,
        now_ms: i64,
    ) -> Result<Lease, LeaseError> {
        let renewed =
            Lease { expires_ms: now_ms.saturating_add(sql::millis(ttl)), ..lease.clone() };
        let key = of(&renewed).key();
        let at = (self.server.connection(), self.replica.forgotten());
        let last = self.renewals().remove(&key).filter(|last| {
            last.at == at
                && (&last.lease.holder, last.lease.epoch) == (&lease.holder, lease.epoch)
                && last.lease.expires_ms > now_ms
        });
        let mut change = Change::begun(self.server.unique());
        if let Some(Renewal { sequence, .. }) = last {
            let keys = vec![(key.clone(), sequence)];
            let messages = self.written(vec![of(&renewed)], &keys, &change.by)?;
            match self.server.publish(messages).await {
                Published::At(sequence) => {
                    self.renewals().insert(key, Renewal { lease: renewed.clone(), sequence, at });
                    return Ok(renewed);
                }
                Published::Unknown(_) => {
                    let answer = renewed.clone();
                    change.unheard = Some(Unheard { keys, answer, is_once: false });
                }
                _ => {}
            }
        }
        let name = lease.name.clone();
        let outcome = self.go_on(change, move |db: &_| renew(db, &lease, ttl, now_ms)).await;
        let renewed = guards::then(self, &name, outcome).await?;
        let (wanted, asked) = (renewed.clone(), key.clone());
        let found = self.replica.read(move |db| {
            let is_last =
                last_lease(db, &wanted.name)?.is_some_and(|(holder, epoch, expires_ms)| {
                    (holder, epoch, expires_ms)
                        == (Some(wanted.holder), wanted.epoch, wanted.expires_ms)
                });
            Ok(is_last.then_some(record(db, &asked)?.0))
        });
        // Prolonged it is in any case.
        if let Ok(Some(sequence)) = found.await {
            self.renewals().insert(key, Renewal { lease: renewed.clone(), sequence, at });
        }
        Ok(renewed)
    }

    pub(super) async fn release(self: &Arc<Self>, lease: Lease) -> Result<(), Error> {
        let name = lease.name.clone();
        self.renewals().remove(&of(&lease).key());
        let outcome = self.change(move |db: &_| release(db, &lease)).await;
        guards::then(self, &name, outcome).await
    }

    fn renewals(&self) -> MutexGuard<'_, HashMap<String, Renewal>> {
        self.renewals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(
        &self,
        records: Vec<Record>,
        keys: &[(String, u64)],
        by: &str,
    ) -> Result<Vec<Message>, Error> {
        let written = records.into_iter().zip(keys).map(|(record, (key, sequence))| {
            let subject = self.server.names.record(key);
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
        error: kept(&new.error),
        attempts: new.attempts,
        buried_ms: now_ms,
        retried_ms,
        state: LetterState::Pending,
    })));
    records.extend(advanced(db, new.stream, &new.subscriber, new.position)?);
    Ok(Plan::Write(records, id))
}

/// What a letter keeps of an error.
fn kept(error: &str) -> String {
    error[..error.floor_char_boundary(ERROR_BYTES)].to_owned()
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
            letter.error = kept(error);
            letter.attempts += 1;
        }
    })
}

/// The same plan while a lease is held: its record is written again, as it is, together with the others, so
/// whoever takes the lease in between is seen where they land.
pub(super) fn under<T>(db: &Connection, fence: &Fence, mut plan: Plan<T, Error>) -> Planned<T> {
    if let Some(why) = sql::fenced(db, fence)? {
        return Ok(Plan::Done(Err(why.into())));
    }
    if let Plan::Write(records, _) | Plan::Once(records, _) = &mut plan {
        // One that ran out is held as long as nobody else took it.
        records.extend(sql::lease(db, &fence.lease, i64::MIN)?.as_ref().map(of));
    }
    Ok(plan)
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
    // Each grant fences out the one before, and nobody may hold one that nobody was told of.
    Ok(Plan::Once(vec![of(&lease)], lease))
}

fn of(lease: &Lease) -> Record {
    let Lease { name, holder, epoch, expires_ms, note } = lease.clone();
    Record::Lease { name, holder: Some(holder), epoch, expires_ms, note }
}

fn renew(db: &Connection, lease: &Lease, ttl: Duration, now_ms: i64) -> Planned<Lease, LeaseError> {
    let held = sql::lease(db, &lease.name, now_ms)?;
    if held.is_none_or(|held| held.holder != lease.holder || held.epoch != lease.epoch) {
        let (name, epoch) = (lease.name.clone(), lease.epoch);
        return Ok(Plan::Done(Err(LeaseError::Lost { name, epoch })));
    }
    let renewed = Lease { expires_ms: now_ms.saturating_add(sql::millis(ttl)), ..lease.clone() };
    Ok(Plan::Write(vec![of(&renewed)], renewed))
}

fn release(db: &Connection, lease: &Lease) -> Planned<()> {
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
