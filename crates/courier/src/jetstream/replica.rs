//! What this node knows of the log: an SQLite file that follows the three streams.
//!
//! It holds nothing that is not in the streams: it may be deleted at any time, and is made anew when
//! it does not belong to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::watch;
use tracing::{error, warn};

use super::wire::{Content, Epoch, Guard, Record, Source, Written};
use crate::dead::LetterState;
use crate::embedded::Retention;
use crate::embedded::schema::{self, REPLICA_FORMAT, REPLICA_ID};
use crate::embedded::sql;
use crate::embedded::writer::{Steps, Writer};
use crate::error::{Error, OpenError};
use crate::fact::Stream;
use crate::pool::{BUSY, Reader, plan_once};

/// Writes that may wait: one of each stream, for each waits for its own.
const QUEUE: usize = 4;

/// Retention is looked after once in so many operational facts.
const RETENTION_EVERY: u64 = 256;

/// Beside the tables of a log.
const SCHEMA: &str = "
-- What is deleted here comes again.
DROP TRIGGER pipeline_is_kept;
CREATE TABLE applied (
    source    TEXT PRIMARY KEY,
    -- All up to this message is in the tables.
    sequence  INTEGER NOT NULL,
    -- The last message that came from the stream; what lies behind it is our own and was acknowledged.
    seen      INTEGER NOT NULL,
    -- When that was stored: a stream that lost it and gave its number again has another time.
    stored_ns INTEGER NOT NULL,
    -- When the stream was made.
    created   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE guard (
    stream   TEXT NOT NULL,
    lease    TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    over     INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (stream, lease)
) STRICT, WITHOUT ROWID;
CREATE TABLE record (
    key      TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    by       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- The highest number of a letter so far.
CREATE TABLE letters (last INTEGER NOT NULL) STRICT;
INSERT INTO letters VALUES (0);
";

/// A message of a stream, read or not.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) sequence: u64,
    pub(super) stored_ns: i64,
    /// None if nobody of us wrote it.
    pub(super) content: Option<Content>,
}

impl Arrived {
    pub(super) fn seen(&self) -> Seen {
        Seen { sequence: self.sequence, stored_ns: self.stored_ns }
    }
}

/// A message that came from a stream: its number and when it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    pub(super) sequence: u64,
    pub(super) stored_ns: i64,
}

/// A message that has to come before another can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) sequence: u64,
    /// Somebody waits for what lies there or behind.
    pub(super) is_wanted: bool,
}

/// The place up to which a stream was followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) sequence: u64,
    pub(super) seen: Seen,
    pub(super) created: String,
}

pub(super) struct Replica {
    reader: Reader,
    writer: Writer,
    ends: [End; 3],
    tails: [watch::Sender<u64>; 2],
    /// Counts streams that turned out to be others than those that were followed.
    forgotten: AtomicU64,
    retention: Retention,
}

/// Messages that were acknowledged to us and are not in the file: they need not come here to be known.
#[derive(Default)]
struct Ours {
    /// The connection on which that was: what is behind the next one may be something else.
    connection: u64,
    messages: BTreeMap<u64, Content>,
}

struct End {
    /// The last connection on which the file was found to be a beginning of the stream, or made anew.
    compared: watch::Sender<Option<u64>>,
    applied: watch::Sender<u64>,
    /// The last message that somebody waits for.
    wanted: watch::Sender<u64>,
    /// The last message that was acknowledged to us.
    acknowledged: watch::Sender<u64>,
    ours: Mutex<Ours>,
    /// Messages that were replaced before they came here: what is known is whole again once what
    /// replaced them has come.
    gaps: AtomicU64,
}

impl Replica {
    /// Opens the file or makes it. Blocks.
    pub(super) fn open(folder: &Path, retention: Retention) -> Result<Self, OpenError> {
        fs_err::create_dir_all(folder)?;
        let path = folder.join("replica.sqlite");
        let connection = match connect(&path) {
            Ok(Some(connection)) => connection,
            found => {
                if let Err(error) = found {
                    warn!(path = %path.display(), %error, "the replica is made anew");
                }
                remove(&path)?;
                match connect(&path) {
                    Ok(Some(connection)) => connection,
                    Ok(None) => return Err(OpenError::Foreign { path, found: 0 }),
                    Err(error) => return Err(Error::storage(&path, error).into()),
                }
            }
        };
        let failed = |error| OpenError::from(Error::storage(&path, error));
        let mut applied = [0; 3];
        for source in Source::ALL {
            let found = applied_to(&connection, source).map_err(failed)?;
            applied[source.index()] = found.map_or(0, |found| found.sequence);
        }
        let head = |stream| sql::head(&connection, stream).map_err(failed);
        let tails = [head(Stream::Pipeline)?, head(Stream::Operational)?].map(watch::Sender::new);
        let writer = Writer::spawn(&path, connection, QUEUE, || {})?;
        let ends = applied.map(|at| End {
            compared: watch::Sender::new(None),
            applied: watch::Sender::new(at),
            wanted: watch::Sender::new(0),
            acknowledged: watch::Sender::new(0),
            ours: Mutex::default(),
            gaps: AtomicU64::new(0),
        });
        let (reader, forgotten) = (Reader::new(&path), AtomicU64::new(0));
        Ok(Self { reader, writer, ends, tails, forgotten, retention })
    }

    /// Asks the file.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.reader.read(query).await
    }

    /// A connection of its own, for who asks at every step.
    pub(super) fn connection(&self) -> Result<Connection, Error> {
        let path = self.reader.path();
        crate::pool::connect(path).map_err(|error| self.failed(error))
    }

    /// What SQLite says, of this file.
    pub(super) fn failed(&self, error: rusqlite::Error) -> Error {
        Error::storage(self.reader.path(), error)
    }

    /// How far a stream was followed; none if it was not yet.
    pub(super) async fn applied_to(&self, source: Source) -> Result<Option<Applied>, Error> {
        self.read(move |db| applied_to(db, source)).await
    }

    /// Wakes when more was followed; the value is the last message.
    pub(super) fn applied(&self, source: Source) -> watch::Receiver<u64> {
        self.ends[source.index()].applied.subscribe()
    }

    /// The last message of a stream that is in the file.
    pub(super) fn applied_now(&self, source: Source) -> u64 {
        *self.ends[source.index()].applied.borrow()
    }

    /// Says that somebody waits until a message is in the file.
    pub(super) fn want(&self, source: Source, sequence: u64) {
        raise(&self.ends[source.index()].wanted, sequence);
    }

    /// Waits until somebody waits for a message that is not in the file.
    pub(super) async fn wanted(&self, source: Source) {
        self.beyond(source, &self.ends[source.index()].wanted).await;
    }

    /// From now on a stream is read on this connection.
    pub(super) fn connected(&self, source: Source, connection: u64) {
        *self.ends[source.index()].ours() = Ours { connection, ..Ours::default() };
    }

    /// The file is a beginning of what the stream is on this connection.
    pub(super) fn is_compared(&self, source: Source, connection: u64) {
        self.ends[source.index()].compared.send_replace(Some(connection));
    }

    pub(super) fn compared(&self, source: Source) -> watch::Receiver<Option<u64>> {
        self.ends[source.index()].compared.subscribe()
    }

    /// Says that messages of ours were acknowledged on this connection, the last of them here and the others
    /// right before it; and what is in them, as far as that is to be in the file before they come.
    pub(super) fn acknowledge(
        &self,
        source: Source,
        connection: u64,
        last: u64,
        contents: Vec<Content>,
    ) {
        let end = &self.ends[source.index()];
        let numbers = (last + 1).saturating_sub(contents.len() as u64)..;
        let mut ours = end.ours();
        if ours.connection == connection {
            ours.messages.extend(numbers.zip(contents));
        }
        drop(ours);
        raise(&end.acknowledged, last);
    }

    /// Puts those messages of ours into the file that follow what is in it.
    pub(super) async fn take_ours(&self, source: Source, seen: Seen) -> Result<(), Error> {
        let mut next = self.applied_now(source) + 1;
        let arrived: Vec<Arrived> = {
            let messages = &mut self.ends[source.index()].ours().messages;
            *messages = messages.split_off(&next);
            std::iter::from_fn(|| {
                let (sequence, content) = (next, Some(messages.remove(&next)?));
                next += 1;
                Some(Arrived { sequence, stored_ns: 0, content })
            })
            .collect()
        };
        self.apply(source, arrived, seen).await
    }

    /// The next message, if somebody waits for one that is not in the file, or one of ours was acknowledged, and
    /// the next is none of ours.
    pub(super) fn missing(&self, source: Source) -> Option<Missing> {
        let end = &self.ends[source.index()];
        let applied = self.applied_now(source);
        let is_wanted = *end.wanted.borrow() > applied;
        let is_behind = is_wanted || *end.acknowledged.borrow() > applied;
        let next = applied + 1;
        (is_behind && !end.ours().messages.contains_key(&next))
            .then_some(Missing { sequence: next, is_wanted })
    }

    /// Whether the file has at their places what came from the stream.
    pub(super) async fn has(&self, source: Source, arrived: Vec<Arrived>) -> Result<bool, Error> {
        let Source::Facts(stream) = source else { return Ok(true) };
        if arrived.is_empty() {
            return Ok(true);
        }
        self.read(move |db| {
            let mut all = arrived.iter().map(|arrived| has(db, stream, arrived));
            all.try_fold(true, |all, one| Ok(all && one?))
        })
        .await
    }

    /// The last message of ours that was acknowledged.
    pub(super) fn acknowledged(&self, source: Source) -> u64 {
        *self.ends[source.index()].acknowledged.borrow()
    }

    /// Waits until a message of ours is not in the file.
    pub(super) async fn appended(&self, source: Source) {
        self.beyond(source, &self.ends[source.index()].acknowledged).await;
    }

    async fn beyond(&self, source: Source, last: &watch::Sender<u64>) {
        let applied = self.applied_now(source);
        // The sender lives as long as this.
        drop(last.subscribe().wait_for(|last| *last > applied).await);
    }

    /// Counts messages that never came because others replaced them.
    pub(super) fn gaps(&self, source: Source) -> u64 {
        self.ends[source.index()].gaps.load(Ordering::Acquire)
    }

    /// How many streams were forgotten so far.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }

    /// Wakes when facts came; the value is the position of the last one.
    pub(super) fn tail(&self, stream: Stream) -> watch::Receiver<u64> {
        self.tails[Source::Facts(stream).index()].subscribe()
    }

    /// Takes the next messages of a stream, all in one step.
    pub(super) async fn apply(
        &self,
        source: Source,
        arrived: Vec<Arrived>,
        seen: Seen,
    ) -> Result<(), Error> {
        let (Some(first), Some(last)) = (arrived.first(), arrived.last()) else { return Ok(()) };
        let end = &self.ends[source.index()];
        let (first, last) = (first.sequence, last.sequence);
        let count = u64::try_from(arrived.len()).unwrap_or(u64::MAX);
        if first > self.applied_now(source) + 1 || last - first + 1 > count {
            end.gaps.fetch_add(1, Ordering::Release);
        }
        let retention = self.retention;
        let work = move |db: &Connection| {
            Ok::<_, sql::Stop<Error>>(apply(db, source, &arrived, seen, retention)?)
        };
        let heads: Wakes = self.writer.write(Steps::Many, work, |_| {}).await?;
        end.applied.send_modify(|applied| *applied = last.max(*applied));
        for (tail, wake) in self.tails.iter().zip(heads.0) {
            match wake {
                Wake::No => {}
                Wake::Look => tail.send_modify(|_| {}),
                Wake::Fact(position) => tail.send_modify(|head| *head = position.max(*head)),
            }
        }
        Ok(())
    }

    /// Forgets a stream and begins again with the one that was made then.
    pub(super) async fn forget(&self, source: Source, created: String) -> Result<(), Error> {
        let work = move |db: &Connection| Ok(forget(db, source, &created)?);
        self.writer.write::<_, Error>(Steps::Many, work, |()| {}).await?;
        self.forgotten.fetch_add(1, Ordering::Release);
        let end = &self.ends[source.index()];
        end.wanted.send_replace(0);
        // What was acknowledged before is not there to be waited for.
        end.acknowledged.send_replace(0);
        end.ours().messages.clear();
        end.applied.send_replace(0);
        if let Source::Facts(_) = source {
            self.tails[source.index()].send_replace(0);
        }
        Ok(())
    }
}

impl End {
    fn ours(&self) -> MutexGuard<'_, Ours> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raise(last: &watch::Sender<u64>, sequence: u64) {
    last.send_if_modified(|last| {
        let is_later = sequence > *last;
        *last = sequence.max(*last);
        is_later
    });
}

/// What those who wait on the tails of both streams are told.
struct Wakes([Wake; 2]);

#[derive(Clone, Copy)]
enum Wake {
    No,
    /// For a letter.
    Look,
    Fact(u64),
}

/// None if the file is of another format.
fn connect(path: &Path) -> rusqlite::Result<Option<Connection>> {
    let mut db = Connection::open(path)?;
    plan_once(&db)?;
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "page_size", schema::PAGE_BYTES)?;
    db.pragma_update(None, "journal_mode", "wal")?;
    // What a power cut takes comes again from the stream.
    db.pragma_update(None, "synchronous", "normal")?;
    schema::tune(&db)?;
    let number =
        |db: &Connection, name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found = (number(&transaction, "application_id")?, number(&transaction, "user_version")?);
    if found == (0, 0) {
        transaction.execute_batch(schema::SCHEMA)?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", REPLICA_ID)?;
        transaction.pragma_update(None, "user_version", REPLICA_FORMAT)?;
    } else if found != (REPLICA_ID, REPLICA_FORMAT) {
        // Of another program or another format: made anew.
        return Ok(None);
    }
    schema::complete(&transaction)?;
    transaction.commit()?;
    Ok(Some(db))
}

fn remove(path: &Path) -> std::io::Result<()> {
    for end in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        match fs_err::remove_file(PathBuf::from(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn applied_to(db: &Connection, source: Source) -> rusqlite::Result<Option<Applied>> {
    db.prepare_cached("SELECT sequence, seen, stored_ns, created FROM applied WHERE source = ?1")?
        .query_row([source.name()], |row| {
            let seen = Seen { sequence: row.get(1)?, stored_ns: row.get(2)? };
            Ok(Applied { sequence: row.get(0)?, seen, created: row.get(3)? })
        })
        .optional()
}

fn forget(db: &Connection, source: Source, created: &str) -> rusqlite::Result<()> {
    match source {
        Source::Facts(stream) => {
            db.execute(&format!("DELETE FROM {}", stream.name()), [])?;
            db.execute("DELETE FROM sqlite_sequence WHERE name = ?1", [stream.name()])?;
            db.execute("DELETE FROM guard WHERE stream = ?1", [stream.name()])?;
        }
        Source::State => {
            db.execute_batch(
                "DELETE FROM lease; DELETE FROM subscriber; DELETE FROM letter; DELETE FROM record;
                 UPDATE letters SET last = 0;",
            )?;
        }
    }
    db.execute(
        "INSERT OR REPLACE INTO applied (source, sequence, seen, stored_ns, created)
         VALUES (?1, 0, 0, 0, ?2)",
        params![source.name(), created],
    )?;
    Ok(())
}

fn apply(
    db: &Connection,
    source: Source,
    arrived: &[Arrived],
    seen: Seen,
    retention: Retention,
) -> rusqlite::Result<Wakes> {
    let mut wakes = Wakes([Wake::No; 2]);
    // Another process may follow into the same file.
    let before = applied_to(db, source)?.map_or(0, |applied| applied.sequence);
    let mut newest = (0, 0);
    for message in arrived.iter().filter(|message| message.sequence > before) {
        match (source, &message.content) {
            (Source::Facts(stream), Some(Content::Fact(fact))) => {
                let position = message.sequence;
                let sql = format!(
                    "INSERT OR IGNORE INTO {} (position, id, subject, time_ms, source, cause, body)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    stream.name()
                );
                let new = db.prepare_cached(&sql)?.execute(params![
                    position,
                    fact.id,
                    fact.subject,
                    fact.time_ms,
                    fact.source,
                    fact.cause,
                    fact.body
                ])?;
                if new == 0 {
                    error!(stream = stream.name(), position, id = fact.id, "an id came twice");
                }
                wakes.0[source.index()] = Wake::Fact(position);
                newest = (position, fact.time_ms);
            }
            (Source::Facts(stream), Some(Content::Guard(guard))) => {
                let Guard { lease, state } = guard;
                db.prepare_cached(
                    "INSERT OR REPLACE INTO guard (stream, lease, epoch, over, sequence)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    stream.name(),
                    lease,
                    state.epoch,
                    state.over,
                    message.sequence
                ])?;
            }
            (Source::State, Some(Content::Record(written))) => {
                if let Some(stream) = take(db, message.sequence, written)? {
                    wakes.0[Source::Facts(stream).index()] = Wake::Look;
                }
            }
            (Source::State, Some(Content::Unreadable { key })) => {
                wrote(db, key, message.sequence, "")?;
            }
            _ => {}
        }
    }
    if let Some(last) = arrived.last().filter(|last| last.sequence > before) {
        // Not at a position of its own: that may be a guard's.
        let due = before / RETENTION_EVERY != last.sequence / RETENTION_EVERY;
        if due && source == Source::Facts(Stream::Operational) && newest.0 > 0 {
            sql::retain(db, retention, newest.0, newest.1)?;
        }
        db.prepare_cached(
            "UPDATE applied SET sequence = ?2, seen = ?3, stored_ns = ?4 WHERE source = ?1",
        )?
        .execute(params![source.name(), last.sequence, seen.sequence, seen.stored_ns])?;
    }
    Ok(wakes)
}

/// Whether the tables have a message at its place.
fn has(db: &Connection, stream: Stream, arrived: &Arrived) -> rusqlite::Result<bool> {
    let sql = format!("SELECT id, subject, body FROM {} WHERE position = ?1", stream.name());
    let row = db
        .prepare_cached(&sql)?
        .query_row([arrived.sequence], |row| {
            Ok::<(String, String, String), _>((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    Ok(match (&arrived.content, row) {
        (Some(Content::Fact(fact)), Some((id, subject, body))) => {
            (&fact.id, &fact.subject, &fact.body) == (&id, &subject, &body)
        }
        // Retention may have removed it.
        (Some(Content::Fact(_)), None) => stream == Stream::Operational,
        (Some(Content::Guard(wanted)), None) => guard(db, stream, &wanted.lease)?
            .is_some_and(|(state, sequence)| sequence > arrived.sequence || state == wanted.state),
        (Some(Content::Nothing) | None, None) => true,
        _ => false,
    })
}

/// Takes a record; gives the stream of a letter that is to be delivered again.
fn take(db: &Connection, sequence: u64, written: &Written) -> rusqlite::Result<Option<Stream>> {
    let mut again = None;
    match &written.record {
        Record::Identity { id } => {
            db.execute("UPDATE identity SET id = ?1", [id])?;
        }
        Record::Lease { name, holder, epoch, expires_ms, note } => {
            db.prepare_cached(
                "INSERT OR REPLACE INTO lease (name, holder, epoch, expires_ms, note)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![name, holder, epoch, expires_ms, note])?;
        }
        Record::Subscriber { stream, name, position, in_hand, attempts } => {
            db.prepare_cached(
                "INSERT OR REPLACE INTO subscriber (stream, name, position, in_hand, attempts)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![stream.name(), name, position, in_hand, attempts])?;
        }
        Record::Letters { last } => {
            db.execute("UPDATE letters SET last = ?1", [last])?;
        }
        Record::Letter(letter) => {
            let fact = serde_json::to_string(&letter.fact)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            db.prepare_cached(
                "INSERT OR REPLACE INTO letter (id, subscriber, stream, position, fact, subject,
                     error, attempts, buried_ms, retried_ms, state)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                letter.id,
                letter.subscriber,
                letter.stream.name(),
                letter.fact.position,
                fact,
                letter.fact.subject,
                letter.error,
                letter.attempts,
                letter.buried_ms,
                letter.retried_ms,
                letter.state.name()
            ])?;
            again = (letter.state == LetterState::Retrying).then_some(letter.stream);
        }
        Record::Removed { letter } => {
            db.execute("DELETE FROM letter WHERE id = ?1", [letter])?;
        }
    }
    wrote(db, &written.record.key(), sequence, &written.by)?;
    Ok(again)
}

/// Keeps which message is the last under a key.
fn wrote(db: &Connection, key: &str, sequence: u64, by: &str) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO record (key, sequence, by) VALUES (?1, ?2, ?3)")?
        .execute(params![key, sequence, by])?;
    Ok(())
}

/// The last message under a key, and who wrote it.
pub(super) fn record(db: &Connection, key: &str) -> rusqlite::Result<(u64, String)> {
    let found = db
        .prepare_cached("SELECT sequence, by FROM record WHERE key = ?1")?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// The guard of a lease in a stream, and the message that set it.
pub(super) fn guard(
    db: &Connection,
    stream: Stream,
    lease: &str,
) -> rusqlite::Result<Option<(Epoch, u64)>> {
    db.prepare_cached("SELECT epoch, over, sequence FROM guard WHERE stream = ?1 AND lease = ?2")?
        .query_row([stream.name(), lease], |row| {
            Ok((Epoch { epoch: row.get(0)?, over: row.get(1)? }, row.get(2)?))
        })
        .optional()
}

/// A lease as it was last written: the holder, unless it was given back, and the epoch.
pub(super) fn last_lease(
    db: &Connection,
    name: &str,
) -> rusqlite::Result<Option<(Option<String>, u64, i64)>> {
    db.prepare_cached("SELECT holder, epoch, expires_ms FROM lease WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
}

/// Leases of this prefix whose guards are behind them.
pub(super) fn unguarded(db: &Connection, prefix: &str) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached(
        "SELECT name FROM lease
         WHERE substr(name, 1, length(?1)) = ?1 AND 2 > (
             -- By the key of guards: one after the other, each lease would cost as much as there are nodes.
             SELECT count(*) FROM guard
             WHERE guard.stream IN ('pipeline', 'operational') AND guard.lease = lease.name AND (
                 guard.epoch > lease.epoch
                 OR guard.epoch = lease.epoch AND guard.over >= (lease.holder IS NULL)))",
    )?
    .query_map([prefix], |row| row.get(0))?
    .collect()
}
