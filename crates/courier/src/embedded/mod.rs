//! The engine for one machine: one SQLite file, one writer thread, read connections.

mod schema;
mod sql;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::courier::{Answer, Courier, Engine, Page, Standing};
use crate::dead::{DeadLetter, LetterCounts, LetterFilter, LetterState, NewLetter};
use crate::error::{AppendError, Error, LeaseError, OpenError};
use crate::fact::{Batch, Fact, Stream};
use crate::lease::Lease;
use crate::pool::Reader;
use writer::Writer;

/// When an append counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// It survives the death of the process. A power cut may lose the last moments, never the
    /// consistency of the file. (`synchronous = NORMAL`)
    #[default]
    Normal,
    /// It survives a power cut as well, at the price of a disk flush each. (`synchronous = FULL`)
    Full,
}

/// What the operational stream keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Older facts go.
    pub max_age: Duration,
    /// Beyond so many, the oldest go.
    pub max_facts: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { max_age: Duration::from_hours(7 * 24), max_facts: 100_000 }
    }
}

/// How the file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// When an append counts as kept.
    pub durability: Durability,
    /// Writes that may wait for the writer; who comes later waits in his own task.
    pub queue: usize,
    /// What the operational stream keeps.
    pub retention: Retention,
}

impl Default for Options {
    fn default() -> Self {
        Self { durability: Durability::Normal, queue: 256, retention: Retention::default() }
    }
}

/// The engine on one SQLite file.
///
/// Appends that wait together are committed together. The file may be read, and is safe to write,
/// from other processes; only the appends of this one wake [`Engine::tail`]. Not for network file
/// systems.
pub struct Embedded {
    /// Before the writer: the last connection to close folds the write-ahead log into the file, and
    /// one that only reads cannot.
    reader: Reader,
    /// None if opened for reading only.
    writer: Option<Writer>,
    tails: Arc<Tails>,
    retention: Retention,
}

/// The wake-ups of both streams.
struct Tails {
    pipeline: watch::Sender<u64>,
    operational: watch::Sender<u64>,
}

impl Tails {
    fn of(&self, stream: Stream) -> &watch::Sender<u64> {
        match stream {
            Stream::Pipeline => &self.pipeline,
            Stream::Operational => &self.operational,
        }
    }
}

impl Embedded {
    /// Opens the file, or makes it. Blocks: an existing file is checked as a whole, which takes
    /// about as long as reading it.
    ///
    /// The last clone of the handle to go waits until the file is closed.
    pub fn open(path: &Path, options: Options) -> Result<Courier, OpenError> {
        let connection = schema::open(path, options.durability)?;
        let tails = Tails {
            pipeline: watch::Sender::new(schema::head(&connection, path, Stream::Pipeline)?),
            operational: watch::Sender::new(schema::head(&connection, path, Stream::Operational)?),
        };
        let writer = Writer::spawn(path, connection, options.queue)?;
        Ok(Courier::new(Self {
            writer: Some(writer),
            reader: Reader::new(path),
            tails: Arc::new(tails),
            retention: options.retention,
        }))
    }

    /// Opens an existing file for reading only, also beside the process that writes it. Blocks as
    /// [`Embedded::open`] does. [`Engine::tail`] never wakes.
    pub fn open_read_only(path: &Path) -> Result<Courier, OpenError> {
        let connection = schema::open_read_only(path)?;
        let tails = Tails {
            pipeline: watch::Sender::new(schema::head(&connection, path, Stream::Pipeline)?),
            operational: watch::Sender::new(schema::head(&connection, path, Stream::Operational)?),
        };
        Ok(Courier::new(Self {
            writer: None,
            reader: Reader::new(path),
            tails: Arc::new(tails),
            retention: Retention::default(),
        }))
    }

    fn write<T, E>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, sql::Stop<E>> + Send + 'static,
    ) -> Answer<'_, Result<T, E>>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.write_then(work, |_| {})
    }

    fn write_then<T, E>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, sql::Stop<E>> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> Answer<'_, Result<T, E>>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        Box::pin(async move {
            match &self.writer {
                Some(writer) => writer.write(work, after).await,
                None => Err(Error::ReadOnly { path: self.reader.path().to_path_buf() }.into()),
            }
        })
    }

    fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, Result<T, Error>> {
        Box::pin(self.reader.read(query))
    }
}

impl Engine for Embedded {
    fn append(
        &self,
        stream: Stream,
        batch: Batch,
        now_ms: i64,
    ) -> Answer<'_, Result<Vec<u64>, AppendError>> {
        // Checked and written as JSON here: the writer thread has better things to do.
        let bodies = match batch.checked() {
            Ok(bodies) => bodies,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let retention = self.retention;
        let tails = Arc::clone(&self.tails);
        self.write_then(
            move |db| sql::append(db, stream, &batch, &bodies, now_ms, retention),
            move |positions: &Vec<u64>| {
                let last = positions.iter().copied().max().unwrap_or(0);
                tails.of(stream).send_if_modified(|head| {
                    let grown = last > *head;
                    *head = last.max(*head);
                    grown
                });
            },
        )
    }

    fn read(
        &self,
        stream: Stream,
        after: u64,
        limit: usize,
    ) -> Answer<'_, Result<Vec<Fact>, Error>> {
        self.query(move |db| sql::read(db, stream, after, limit))
    }

    fn last_on<'a>(
        &'a self,
        stream: Stream,
        subject: &'a str,
    ) -> Answer<'a, Result<Option<Fact>, Error>> {
        let subject = subject.to_owned();
        self.query(move |db| sql::last_on(db, stream, &subject))
    }

    fn head(&self, stream: Stream) -> Answer<'_, Result<u64, Error>> {
        self.query(move |db| sql::head(db, stream))
    }

    fn identity(&self) -> Answer<'_, Result<String, Error>> {
        self.query(sql::identity)
    }

    fn tail(&self, stream: Stream) -> watch::Receiver<u64> {
        self.tails.of(stream).subscribe()
    }

    fn position<'a>(
        &'a self,
        stream: Stream,
        subscriber: &'a str,
    ) -> Answer<'a, Result<u64, Error>> {
        let subscriber = subscriber.to_owned();
        self.query(move |db| sql::position(db, stream, &subscriber))
    }

    fn advance<'a>(
        &'a self,
        stream: Stream,
        subscriber: &'a str,
        to: u64,
    ) -> Answer<'a, Result<(), Error>> {
        let subscriber = subscriber.to_owned();
        self.write(move |db| Ok(sql::advance(db, stream, &subscriber, to)?))
    }

    fn standings(&self) -> Answer<'_, Result<Vec<Standing>, Error>> {
        self.query(sql::standings)
    }

    fn next<'a>(
        &'a self,
        stream: Stream,
        subscriber: &'a str,
        prefix: &'a str,
        limit: usize,
    ) -> Answer<'a, Result<Page, Error>> {
        let (subscriber, prefix) = (subscriber.to_owned(), prefix.to_owned());
        self.query(move |db| sql::next(db, stream, &subscriber, &prefix, limit))
    }

    fn attempt<'a>(
        &'a self,
        stream: Stream,
        subscriber: &'a str,
        position: u64,
    ) -> Answer<'a, Result<u32, Error>> {
        let subscriber = subscriber.to_owned();
        self.write(move |db| Ok(sql::attempt(db, stream, &subscriber, position)?))
    }

    fn bury(&self, letter: NewLetter, now_ms: i64) -> Answer<'_, Result<u64, Error>> {
        self.write(move |db| sql::bury(db, &letter, now_ms))
    }

    fn dead_letters(&self, filter: LetterFilter) -> Answer<'_, Result<Vec<DeadLetter>, Error>> {
        self.query(move |db| sql::dead_letters(db, &filter))
    }

    fn letter_counts(&self) -> Answer<'_, Result<LetterCounts, Error>> {
        self.query(sql::letter_counts)
    }

    fn retry(&self, letter: u64, now_ms: i64) -> Answer<'_, Result<(), Error>> {
        self.write(move |db| sql::retry(db, letter, now_ms))
    }

    fn settle(
        &self,
        letter: u64,
        state: LetterState,
        error: Option<String>,
    ) -> Answer<'_, Result<(), Error>> {
        self.write(move |db| sql::settle(db, letter, state, error.as_deref()))
    }

    fn purge_letters(&self, buried_before_ms: i64) -> Answer<'_, Result<u64, Error>> {
        self.write(move |db| Ok(sql::purge_letters(db, buried_before_ms)?))
    }

    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
        now_ms: i64,
    ) -> Answer<'a, Result<Lease, LeaseError>> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.write(move |db| sql::acquire(db, &name, &holder, ttl, now_ms))
    }

    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
        now_ms: i64,
    ) -> Answer<'a, Result<Lease, LeaseError>> {
        let lease = lease.clone();
        self.write(move |db| sql::renew(db, lease, ttl, now_ms))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> Answer<'a, Result<(), Error>> {
        let lease = lease.clone();
        self.write(move |db| Ok(sql::release(db, &lease)?))
    }

    fn lease<'a>(&'a self, name: &'a str, now_ms: i64) -> Answer<'a, Result<Option<Lease>, Error>> {
        let name = name.to_owned();
        self.query(move |db| sql::lease(db, &name, now_ms))
    }

    fn leases<'a>(&'a self, prefix: &'a str, now_ms: i64) -> Answer<'a, Result<Vec<Lease>, Error>> {
        let prefix = prefix.to_owned();
        self.query(move |db| sql::leases(db, &prefix, now_ms))
    }
}

#[cfg(test)]
mod tests;
