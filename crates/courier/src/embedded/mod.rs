//! The engine for one machine: one SQLite file, one writer thread, read connections.

mod letters;
mod recent;
pub(crate) mod schema;
pub(crate) mod sql;
pub(crate) mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::courier::{Answer, Courier, Engine, Page, Repeats, Standing};
use crate::dead::{DeadLetter, LetterCounts, LetterFilter, LetterState, NewLetter};
use crate::error::{AppendError, Error, LeaseError, OpenError};
use crate::fact::{Batch, Fact, Fence, Stream};
use crate::lease::Lease;
use crate::pool::Reader;
use letters::Retries;
use recent::Recent;
use writer::{Steps, Writer};

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
/// from other processes; only the appends of this one wake [`Engine::tail`], and for a moment after
/// one of them, 50 ms, subscribers do not look for facts of others. Not for network file systems.
pub struct Embedded {
    /// Before the writer: the last connection to close folds the write-ahead log into the file, and
    /// one that only reads cannot.
    reader: Reader,
    /// None if opened for reading only.
    writer: Option<Writer>,
    ends: Arc<Ends>,
    retention: Retention,
}

/// What this process knows of both streams, and of dead letters, without reading.
struct Ends {
    pipeline: End,
    operational: End,
    retries: Retries,
}

/// Of one.
struct End {
    tail: watch::Sender<u64>,
    /// The head of the last wake-up.
    woken: AtomicU64,
    repeated_ids: AtomicU64,
    repeated_contents: AtomicU64,
    recent: Mutex<Recent>,
}

impl Ends {
    fn read(db: &rusqlite::Connection, path: &Path) -> Result<Arc<Self>, OpenError> {
        let end = |stream| -> Result<End, OpenError> {
            let tail = watch::Sender::new(schema::head(db, path, stream)?);
            Ok(End::new(tail))
        };
        let (pipeline, operational) = (end(Stream::Pipeline)?, end(Stream::Operational)?);
        Ok(Arc::new(Self { pipeline, operational, retries: Retries::default() }))
    }

    fn of(&self, stream: Stream) -> &End {
        match stream {
            Stream::Pipeline => &self.pipeline,
            Stream::Operational => &self.operational,
        }
    }
}

impl End {
    fn new(tail: watch::Sender<u64>) -> Self {
        let woken = AtomicU64::new(*tail.borrow());
        let (repeated_ids, repeated_contents) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { tail, woken, repeated_ids, repeated_contents, recent: Mutex::default() }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_note(&self, appended: &mut sql::Appended) {
        let sql::Appended { positions, repeats, fresh } = appended;
        // Before the wake-up: whoever comes for it finds it here.
        *fresh = self.recent().add(std::mem::take(fresh));
        self.repeated_ids.fetch_add(repeats.by_id, Ordering::Relaxed);
        self.repeated_contents.fetch_add(repeats.by_content, Ordering::Relaxed);
        let last = positions.iter().copied().max().unwrap_or(0);
        self.tail.send_if_modified(|head| {
            *head = last.max(*head);
            false
        });
    }

    /// Wakes who waits at the tail, if it has grown: once for a commit, not for each of its facts.
    fn wake(&self) {
        let head = *self.tail.borrow();
        if self.woken.fetch_max(head, Ordering::Relaxed) < head {
            self.tail.send_modify(|_| {});
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
        let ends = Ends::read(&connection, path)?;
        let grown = Arc::clone(&ends);
        let wake = move || Stream::ALL.into_iter().for_each(|stream| grown.of(stream).wake());
        let writer = Writer::spawn(path, connection, options.queue, wake)?;
        Ok(Courier::new(Self {
            writer: Some(writer),
            reader: Reader::new(path),
            ends,
            retention: options.retention,
        }))
    }

    /// Opens an existing file for reading only, also beside the process that writes it: a log, or a node's
    /// replica of one, which shows what the node knew last. Blocks as [`Embedded::open`] does.
    /// [`Engine::tail`] never wakes.
    pub fn open_read_only(path: &Path) -> Result<Courier, OpenError> {
        let connection = schema::open_read_only(path)?;
        let ends = Ends::read(&connection, path)?;
        Ok(Courier::new(Self {
            writer: None,
            reader: Reader::new(path),
            ends,
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
        self.write_then(Steps::Many, work, |_| {})
    }

    fn write_then<T, E>(
        &self,
        steps: Steps,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, sql::Stop<E>> + Send + 'static,
        after: impl FnOnce(&mut T) + Send + 'static,
    ) -> Answer<'_, Result<T, E>>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        Box::pin(async move {
            match &self.writer {
                Some(writer) => writer.write(steps, work, after).await,
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
        let ends = Arc::clone(&self.ends);
        // Retention, of the other stream, is a second statement.
        let is_one = batch.facts.len() == 1 && stream == Stream::Pipeline;
        let appended = self.write_then(
            if is_one { Steps::One } else { Steps::Many },
            move |db| {
                let appended = sql::append(db, stream, batch, &bodies, now_ms, retention)?;
                Ok((appended, bodies))
            },
            move |(appended, _)| ends.of(stream).take_note(appended),
        );
        // With what the writer thread need not take the time to drop.
        Box::pin(async { Ok(appended.await?.0.positions) })
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

    fn last_below<'a>(
        &'a self,
        stream: Stream,
        subject: &'a str,
    ) -> Answer<'a, Result<Vec<Fact>, Error>> {
        let subject = subject.to_owned();
        self.query(move |db| sql::last_below(db, stream, &subject))
    }

    fn head(&self, stream: Stream) -> Answer<'_, Result<u64, Error>> {
        self.query(move |db| sql::head(db, stream))
    }

    fn repeats(&self, stream: Stream) -> Repeats {
        let end = self.ends.of(stream);
        Repeats {
            by_id: end.repeated_ids.load(Ordering::Relaxed),
            by_content: end.repeated_contents.load(Ordering::Relaxed),
        }
    }

    fn identity(&self) -> Answer<'_, Result<String, Error>> {
        self.query(sql::identity)
    }

    fn tail(&self, stream: Stream) -> watch::Receiver<u64> {
        self.ends.of(stream).tail.subscribe()
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
        Box::pin(async move {
            match &self.writer {
                Some(writer) => writer.advance(stream, subscriber.to_owned(), to).await,
                None => Err(Error::ReadOnly { path: self.reader.path().to_path_buf() }),
            }
        })
    }

    fn standings(&self) -> Answer<'_, Result<Vec<Standing>, Error>> {
        self.query(sql::standings)
    }

    fn next<'a>(
        &'a self,
        stream: Stream,
        after: u64,
        prefix: &'a str,
        limit: usize,
    ) -> Answer<'a, Result<Page, Error>> {
        if let Some(page) = self.ends.of(stream).recent().page(after, prefix, limit) {
            return Box::pin(std::future::ready(Ok(page)));
        }
        let prefix = prefix.to_owned();
        self.query(move |db| sql::next(db, stream, after, &prefix, limit))
    }

    fn attempt<'a>(
        &'a self,
        stream: Stream,
        subscriber: &'a str,
        position: u64,
    ) -> Answer<'a, Result<u32, Error>> {
        let subscriber = subscriber.to_owned();
        let work =
            move |db: &rusqlite::Connection| Ok(sql::attempt(db, stream, &subscriber, position)?);
        self.write_then(Steps::One, work, |_| {})
    }

    fn bury(&self, letter: NewLetter, now_ms: i64) -> Answer<'_, Result<u64, Error>> {
        self.write(move |db| sql::bury(db, &letter, now_ms))
    }

    fn dead_letters(&self, filter: LetterFilter) -> Answer<'_, Result<Vec<DeadLetter>, Error>> {
        Box::pin(async move {
            let look = self.ends.retries.look(&filter);
            if look.as_ref().is_some_and(|look| self.ends.retries.finds_none(look)) {
                return Ok(Vec::new());
            }
            let letters = self.reader.read(move |db| sql::dead_letters(db, &filter)).await?;
            if let Some(look) = look.filter(|_| letters.is_empty()) {
                self.ends.retries.found_none(look);
            }
            Ok(letters)
        })
    }

    fn letter_counts(&self) -> Answer<'_, Result<LetterCounts, Error>> {
        self.query(sql::letter_counts)
    }

    fn retry(
        &self,
        letter: u64,
        fence: Option<Fence>,
        now_ms: i64,
    ) -> Answer<'_, Result<(), Error>> {
        let ends = Arc::clone(&self.ends);
        let retried = self.write_then(
            Steps::One,
            move |db| {
                sql::held(db, fence.as_ref())?;
                sql::retry(db, letter, now_ms)
            },
            move |stream| {
                ends.retries.add();
                ends.of(*stream).tail.send_modify(|_| {});
            },
        );
        Box::pin(async { retried.await.map(|_| ()) })
    }

    fn settle(
        &self,
        letter: u64,
        fence: Option<Fence>,
        state: LetterState,
        error: Option<String>,
    ) -> Answer<'_, Result<(), Error>> {
        self.write(move |db| {
            sql::held(db, fence.as_ref())?;
            sql::settle(db, letter, state, error.as_deref())
        })
    }

    fn purge_letters(
        &self,
        fence: Option<Fence>,
        buried_before_ms: i64,
    ) -> Answer<'_, Result<u64, Error>> {
        self.write(move |db| {
            sql::held(db, fence.as_ref())?;
            Ok(sql::purge_letters(db, buried_before_ms)?)
        })
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
