//! The one thread that writes the file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::sql::{self, Stop};
use crate::error::Error;
use crate::fact::Stream;

/// Most writes of one commit, and most rows that they change: bounds how long the first of them
/// waits for the last. Two who write large batches in turn prepare one while the other is committed.
const GROUP: usize = 128;

/// A write: runs in the transaction, if one could begin.
type Job = Box<dyn FnOnce(Result<Open<'_>, rusqlite::Error>) -> Done + Send>;

/// A transaction.
#[derive(Clone, Copy)]
struct Open<'a> {
    connection: &'a Connection,
    /// Nothing is in it yet: who fails is undone with the whole of it.
    is_empty: bool,
}

/// How much of the file one write changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steps {
    /// One statement at most: SQLite undoes what it did if it fails.
    One,
    /// Several: a savepoint keeps them together, unless they are the first in their transaction.
    Many,
}

/// A write that ran and waits for the commit.
struct Done {
    /// What SQLite refused; what it did then is undone.
    failed: Option<rusqlite::Error>,
    /// It did what has to be undone with the whole transaction.
    undo: bool,
    /// Tells the caller. The argument is why the transaction was lost, if it was.
    answer: Box<dyn FnOnce(Option<rusqlite::Error>)>,
}

/// Positions of subscribers that the next commit records, whoever that is made for. A newer one of the
/// same subscriber takes the place of one that waits, so that a commit writes each once.
#[derive(Clone, Default)]
struct Along(Arc<Mutex<HashMap<(Stream, String), Waiting>>>);

struct Waiting {
    to: u64,
    answers: Vec<oneshot::Sender<Result<(), Error>>>,
}

impl Along {
    fn lock(&self) -> MutexGuard<'_, HashMap<(Stream, String), Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether nobody waited before, and gives where the answer comes.
    fn put(&self, key: (Stream, String), to: u64) -> (bool, oneshot::Receiver<Result<(), Error>>) {
        let (answer, answered) = oneshot::channel();
        let mut all = self.lock();
        let is_first = all.is_empty();
        let waiting = all.entry(key).or_insert_with(|| Waiting { to, answers: Vec::new() });
        waiting.to = waiting.to.max(to);
        // Who has given up waiting, for a newer one, is not remembered.
        waiting.answers.retain(|answer| !answer.is_closed());
        waiting.answers.push(answer);
        (is_first, answered)
    }

    /// Records all that wait, or answers why not.
    fn write(&self, transaction: Result<&Connection, &rusqlite::Error>, path: &Path) -> Vec<Done> {
        let all = std::mem::take(&mut *self.lock());
        let write = |((stream, name), Waiting { to, answers }): ((Stream, String), Waiting)| {
            let result = match transaction {
                // Given up by SQLite: what follows would stand alone, and is answered as lost.
                Ok(connection) if connection.is_autocommit() => Ok(()),
                Ok(connection) => sql::advance(connection, stream, &name, to),
                Err(error) => Err(again(error)),
            };
            let path = path.to_path_buf();
            let failed = result.as_ref().err().map(again);
            let answer = Box::new(move |lost: Option<rusqlite::Error>| {
                let why = lost.as_ref().or(result.as_ref().err());
                for answer in answers {
                    let result = why.map_or(Ok(()), |why| Err(Error::storage(&path, again(why))));
                    // Nobody listens if the caller was cancelled.
                    drop(answer.send(result));
                }
            });
            Done { failed, undo: false, answer }
        };
        all.into_iter().map(write).collect()
    }
}

/// The handle to the writer thread.
pub(crate) struct Writer {
    /// None only while being dropped.
    queue: Option<mpsc::Sender<Job>>,
    along: Along,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Writer {
    /// `wake` is called after each commit, when all who waited for it have their answers.
    pub(crate) fn spawn(
        path: &Path,
        connection: Connection,
        queue: usize,
        wake: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, jobs) = mpsc::channel(queue.max(1));
        let file = path.to_path_buf();
        let along = Along::default();
        let taken = along.clone();
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || run(&file, connection, jobs, &taken, &wake))?;
        Ok(Self { queue: Some(sender), along, thread: Some(thread), path: path.to_path_buf() })
    }

    /// Runs `work` in a transaction, `after` once it is committed, and answers then.
    ///
    /// Dropping the future does not take back what was queued.
    pub(crate) async fn write<T, E>(
        &self,
        steps: Steps,
        work: impl FnOnce(&Connection) -> Result<T, Stop<E>> + Send + 'static,
        after: impl FnOnce(&mut T) + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let path = self.path.clone();
        let job: Job = Box::new(move |transaction| {
            let mut undo = false;
            let result = match transaction {
                Ok(Open { connection, .. }) if steps == Steps::One => work(connection),
                Ok(Open { connection, is_empty: true }) => {
                    work(connection).inspect_err(|_| undo = true)
                }
                Ok(Open { connection, .. }) => in_savepoint(connection, work),
                Err(error) => Err(Stop::Sql(error)),
            };
            let failed = match &result {
                Err(Stop::Sql(error)) => Some(again(error)),
                _ => None,
            };
            let answer = Box::new(move |lost: Option<rusqlite::Error>| {
                let mut result = match (result, lost) {
                    (Ok(_), Some(lost)) => Err(Error::storage(&path, lost).into()),
                    (Ok(value), None) => Ok(value),
                    (Err(Stop::Sql(source)), _) => Err(Error::storage(&path, source).into()),
                    (Err(Stop::Refused(error)), _) => Err(error),
                };
                if let Ok(value) = &mut result {
                    after(value);
                }
                // Nobody listens if the caller was cancelled.
                drop(answer.send(result));
            });
            Done { failed, undo, answer }
        });
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        queue.send(job).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Records that a subscriber is done with all up to here, along with what else is committed next.
    ///
    /// Dropping the future does not take back what waits.
    pub(super) async fn advance(
        &self,
        stream: Stream,
        subscriber: String,
        to: u64,
    ) -> Result<(), Error> {
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        let (is_first, answered) = self.along.put((stream, subscriber), to);
        if is_first {
            // If nothing else is to be written, a commit for these alone.
            let nothing: Job =
                Box::new(|_| Done { failed: None, undo: false, answer: Box::new(drop) });
            match queue.try_send(nothing) {
                // What fills the queue takes them along.
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(Error::Closed),
            }
        }
        answered.await.map_err(|_| Error::Closed)?
    }
}

#[cfg(test)]
impl Writer {
    /// Jobs in the queue.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread ends when the queue is closed and empty: what was queued is still written.
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!(path = %self.path.display(), "the writer of the log panicked");
        }
    }
}

fn run(
    path: &Path,
    mut connection: Connection,
    mut jobs: mpsc::Receiver<Job>,
    along: &Along,
    wake: &impl Fn(),
) {
    while let Some(first) = jobs.blocking_recv() {
        commit_group(path, &mut connection, first, &mut jobs, along);
        wake();
    }
    if let Err((_, error)) = connection.close() {
        warn!(path = %path.display(), %error, "close the log");
    }
}

/// Runs the first job, those that wait behind it, and what comes along, in one transaction.
fn commit_group(
    path: &Path,
    connection: &mut Connection,
    first: Job,
    jobs: &mut mpsc::Receiver<Job>,
    along: &Along,
) {
    let mut done: Vec<Done> = Vec::new();
    let lost = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Err(error) => {
            done.extend(along.write(Err(&error), path));
            done.push(first(Err(error)));
            None
        }
        Ok(transaction) => {
            let before = transaction.total_changes();
            let mut next = Some(first);
            let mut is_empty = true;
            while let Some(job) = next {
                let one = job(Ok(Open { connection: &transaction, is_empty }));
                if one.undo && !transaction.is_autocommit() {
                    // If that fails, there is no transaction, which is seen below.
                    drop(transaction.execute_batch("ROLLBACK; BEGIN IMMEDIATE"));
                } else {
                    is_empty = false;
                }
                done.push(one);
                // SQLite gives up whole transactions on a full disk and the like.
                let given_up = transaction.is_autocommit();
                let rows = transaction.total_changes().saturating_sub(before);
                let room = done.len() < GROUP && rows < GROUP as u64 && !given_up;
                next = if room { jobs.try_recv().ok() } else { None };
            }
            done.extend(along.write(Ok(&transaction), path));
            if transaction.is_autocommit() {
                let last = done.iter_mut().rev().find_map(|done| done.failed.take());
                Some(last.unwrap_or(rusqlite::Error::InvalidQuery))
            } else {
                transaction.commit().err()
            }
        }
    };
    for done in done {
        (done.answer)(lost.as_ref().map(again));
    }
}

/// The same error once more, for the next one who was in the same transaction.
fn again(error: &rusqlite::Error) -> rusqlite::Error {
    let (code, message) = match error {
        rusqlite::Error::SqliteFailure(code, message) => (*code, message.clone()),
        other => (rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR), Some(other.to_string())),
    };
    rusqlite::Error::SqliteFailure(code, message)
}

/// Undoes what `work` did if it fails, and only that.
fn in_savepoint<T, E>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, Stop<E>>,
) -> Result<T, Stop<E>> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let result = work(connection);
    if result.is_err() && !connection.is_autocommit() {
        connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    if !connection.is_autocommit() {
        connection.prepare_cached("RELEASE job")?.execute([])?;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_refused_takes_back_his_own_steps_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (n)").unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        let writer = Writer::spawn(&path, connection, 8, || {}).unwrap();
        let mut other = Connection::open(&path).unwrap();
        let held = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let insert = |n: i64, refuse: bool| {
            let work = move |db: &Connection| {
                db.execute("INSERT INTO t VALUES (?1)", [n])?;
                db.execute("INSERT INTO t VALUES (?1)", [n])?;
                if refuse { Err(Stop::Refused(Error::Closed)) } else { Ok(()) }
            };
            writer.write::<_, Error>(Steps::Many, work, |()| {})
        };
        // All wait for the file, and come into one transaction.
        let all = futures_util::future::join4(
            insert(1, true),
            insert(2, true),
            insert(3, false),
            insert(4, true),
        );
        let release = async { held.rollback().unwrap() };
        let ((first, second, third, fourth), ()) = tokio::join!(all, release);
        assert!(first.is_err() && second.is_err() && fourth.is_err());
        third.unwrap();
        let left: Vec<i64> = other
            .prepare("SELECT n FROM t")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        assert_eq!(left, [3, 3]);
    }
}
