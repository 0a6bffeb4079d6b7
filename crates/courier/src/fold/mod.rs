//! Projections: the log folded into an SQLite file that can always be rebuilt.

mod digest;
mod file;

use std::borrow::Borrow;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use crate::courier::Courier;
use crate::error::Error;
use crate::fact::{Fact, Stream};
use crate::pool::Reader;

pub use digest::{Digest, TableDigest};

/// Facts folded in one transaction: a rebuild is not slowed by commits, and stopping waits for at
/// most one chunk.
const CHUNK: usize = 256;

/// Pause after a fault (full disk, a fact that cannot be folded) before the same again.
const RETRY: Duration = Duration::from_secs(1);

/// How facts become rows. Pure: the same facts give the same rows, in every process, at any time.
pub trait Projection: Send + 'static {
    /// Tells this projection's files from those of others.
    const NAME: &'static str;
    /// Raised when the same facts give other rows than before; the file is then rebuilt.
    const VERSION: u32;

    /// The tables and indices, as SQL. A changed text rebuilds the file, like a new version.
    fn schema(&self) -> &'static str;

    /// Folds one fact of the pipeline stream into the tables, in the order of the log.
    ///
    /// An error stops the folding at this fact and is shown; nothing is skipped. So refuse only what
    /// must never happen, and ignore facts that are of no interest. Keep nothing in `self` that was
    /// derived from facts: the rows of a failed chunk are undone, `self` is not.
    fn apply(
        &mut self,
        rows: &Transaction<'_>,
        fact: &Fact,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Why a projection is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The file could not be made ready.
    #[error("open the projection {path}: {why}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// Folding does not get past a fact, or the disk is full; it is tried again every second.
    #[error("the projection {path} stands at position {position}: {why}")]
    Stuck {
        /// The file.
        path: PathBuf,
        /// The last position folded.
        position: u64,
        /// What went wrong.
        why: String,
    },
    /// The time limit passed first.
    #[error("the projection {path} is at position {position}, not at {wanted} after {waited:?}")]
    Late {
        /// The file.
        path: PathBuf,
        /// The last position folded.
        position: u64,
        /// The position waited for.
        wanted: u64,
        /// The limit.
        waited: Duration,
    },
    /// The folder has ended.
    #[error("the projection {path} is closed")]
    Closed {
        /// The file.
        path: PathBuf,
    },
    /// The log that is to be folded does not answer.
    #[error(transparent)]
    Log(#[from] Error),
}

/// Folds the pipeline stream into one SQLite file, on a thread of its own, as facts come.
///
/// Rows and position change in one transaction. A file that is missing, damaged, of another
/// version, or from another log is rebuilt. Dropping the folder stops the thread and waits for it.
pub struct Folder {
    path: PathBuf,
    reader: Reader,
    progress: Arc<Shared>,
    positions: watch::Receiver<u64>,
    rebuilt: Option<String>,
    /// Dropped to stop the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How far the thread is, for those who wait.
#[derive(Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    position: u64,
    fault: Option<String>,
    ended: bool,
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Folder {
    /// Opens the file, or makes it anew, and begins to fold. Does not wait until the log is folded:
    /// see [`Folder::caught_up`].
    pub async fn open<P: Projection>(
        path: &Path,
        projection: P,
        log: Courier,
    ) -> Result<Self, FoldError> {
        let file = path.to_path_buf();
        let fault = |why: String| FoldError::Open { path: path.to_path_buf(), why };
        let identity = log.identity().await?;
        let head = log.head(Stream::Pipeline).await?;
        let opened = tokio::task::spawn_blocking(move || {
            let opened = file::open(&file, &projection, &identity, head);
            opened.map(|opened| (opened, projection))
        });
        let opened = opened.await.map_err(|error| fault(error.to_string()))?;
        let (opened, projection) = opened.map_err(|error| fault(error.to_string()))?;
        if let Some(why) = &opened.rebuilt {
            info!(path = %path.display(), why, "projection is rebuilt from the log");
        }

        let progress = Arc::new(Shared::default());
        progress.update(|progress| progress.position = opened.position);
        let (announce, positions) = watch::channel(opened.position);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| fault(error.to_string()))?;
        let work = Work {
            path: path.to_path_buf(),
            projection,
            connection: opened.connection,
            position: opened.position,
            log,
            progress: Arc::clone(&progress),
            announce,
            told: None,
        };
        let thread = std::thread::Builder::new()
            .name(format!("fold-{}", P::NAME))
            .spawn(move || runtime.block_on(work.run(stopped)))
            .map_err(|error| fault(error.to_string()))?;
        Ok(Self {
            path: path.to_path_buf(),
            reader: Reader::new(path),
            progress,
            positions,
            rebuilt: opened.rebuilt,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The last position that is folded.
    pub fn position(&self) -> u64 {
        *self.positions.borrow()
    }

    /// Wakes after each chunk that was folded; the value is the position.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.positions.clone()
    }

    /// Why the file was made anew when it was opened, if it was.
    pub fn rebuilt(&self) -> Option<&str> {
        self.rebuilt.as_deref()
    }

    /// What holds the folding up now, if something does.
    pub fn fault(&self) -> Option<String> {
        self.progress.progress.lock().unwrap_or_else(PoisonError::into_inner).fault.clone()
    }

    /// Read-only access to the rows.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Waits until a position is folded, at most so long.
    ///
    /// The limit is real time even where a test has paused tokio's clock: the waiting is for a
    /// thread, not for a timer.
    ///
    /// # Errors
    /// [`FoldError::Stuck`] as soon as folding meets an obstacle, [`FoldError::Late`] after the
    /// limit.
    pub async fn caught_up(&self, position: u64, limit: Duration) -> Result<(), FoldError> {
        if self.position() >= position {
            return Ok(());
        }
        let shared = Arc::clone(&self.progress);
        let waited = tokio::task::spawn_blocking(move || {
            let progress = shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let goes_on = |progress: &mut Progress| {
                progress.position < position && progress.fault.is_none() && !progress.ended
            };
            let waited = shared.changed.wait_timeout_while(progress, limit, goes_on);
            let (progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
            (progress.position, progress.fault.clone(), progress.ended)
        });
        let path = self.path.clone();
        match waited.await {
            Ok((now, _, _)) if now >= position => Ok(()),
            Ok((now, Some(why), _)) => Err(FoldError::Stuck { path, position: now, why }),
            Ok((_, None, true)) | Err(_) => Err(FoldError::Closed { path }),
            Ok((now, None, false)) => {
                Err(FoldError::Late { path, position: now, wanted: position, waited: limit })
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.reader.close_idle();
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!(path = %self.path.display(), "the thread of the projection panicked");
        }
    }
}

/// What the thread works with.
struct Work<P> {
    path: PathBuf,
    projection: P,
    connection: Connection,
    position: u64,
    log: Courier,
    progress: Arc<Shared>,
    announce: watch::Sender<u64>,
    /// The fault that was logged last, while it lasts.
    told: Option<String>,
}

impl<P: Projection> Work<P> {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let _ended = Ended(Arc::clone(&self.progress));
        let mut tail = self.log.tail(Stream::Pipeline);
        loop {
            tail.mark_unchanged();
            let wait = match self.fold_all(&mut stopped).await {
                // Whoever has heard the end must not listen for it again.
                Ok(ControlFlow::Break(())) => return,
                Ok(ControlFlow::Continue(())) => {
                    self.told = None;
                    None
                }
                Err(why) => {
                    // Said once, not every second.
                    if self.told.as_ref() != Some(&why) {
                        let (path, position) = (self.path.display(), self.position);
                        warn!(%path, position, why, "projection is held up");
                        self.told = Some(why.clone());
                    }
                    self.progress.update(|progress| progress.fault = Some(why));
                    Some(RETRY)
                }
            };
            let woken = async {
                match wait {
                    Some(pause) => tokio::time::sleep(pause).await,
                    // An engine that is gone wakes nobody any more; only `stopped` ends that.
                    None => {
                        if tail.changed().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                _ = &mut stopped => return,
                () = woken => {}
            }
        }
    }

    async fn fold_all(
        &mut self,
        stopped: &mut oneshot::Receiver<()>,
    ) -> Result<ControlFlow<()>, String> {
        loop {
            // In order and with all that was appended here: on a cluster that asks no server.
            let page = self.log.next(Stream::Pipeline, self.position, "", CHUNK).await;
            let facts = page.map_err(|error| error.to_string())?.facts;
            if facts.is_empty() {
                self.progress.update(|progress| progress.fault = None);
                return Ok(ControlFlow::Continue(()));
            }
            let position = fold(&mut self.connection, &mut self.projection, &facts)?;
            self.position = position;
            // Told to the watchers first: who waited sees the same there.
            self.announce.send_replace(position);
            self.progress.update(|progress| {
                progress.position = position;
                progress.fault = None;
            });
            if !matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}

/// Tells those who wait that nobody folds any more, also after a panic in a projection.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.update(|progress| progress.ended = true);
    }
}

/// Folds facts and moves the position, in one transaction.
fn fold<P: Projection>(
    connection: &mut Connection,
    projection: &mut P,
    facts: &[impl Borrow<Fact>],
) -> Result<u64, String> {
    let sql = |error: rusqlite::Error| error.to_string();
    let transaction = connection.transaction().map_err(sql)?;
    let mut position = 0;
    for fact in facts.iter().map(Borrow::borrow) {
        position = fact.position;
        projection.apply(&transaction, fact).map_err(|error| {
            format!("fact {} ({}, {}): {error}", fact.position, fact.subject, fact.id)
        })?;
    }
    file::set_position(&transaction, position).map_err(sql)?;
    transaction.commit().map_err(sql)?;
    Ok(position)
}

/// Up to which position an existing file holds the log, without touching it; none if it is missing,
/// damaged, of another projection or of another log. For those who read beside its writer.
pub async fn folded<P: Projection>(
    path: &Path,
    projection: P,
    log: &Courier,
) -> Result<Option<u64>, FoldError> {
    let fault = |why: String| FoldError::Open { path: path.to_path_buf(), why };
    let identity = log.identity().await.map_err(|error| fault(error.to_string()))?;
    // The file first, then the log: a writer between the two looks must not make it seem ahead.
    let file = path.to_path_buf();
    let peeked =
        tokio::task::spawn_blocking(move || file::peek(&file, &projection, &identity, u64::MAX));
    let Some(position) = peeked.await.map_err(|error| fault(error.to_string()))? else {
        return Ok(None);
    };
    let head = log.head(Stream::Pipeline).await?;
    Ok((position <= head).then_some(position))
}

/// Folds the log from its beginning into a new file, up to a position, and returns the digest: what
/// an existing file at that position must have as well.
///
/// The file is left for the caller to remove; it must not exist before.
pub async fn refold<P: Projection>(
    path: &Path,
    mut projection: P,
    log: Courier,
    through: u64,
) -> Result<Digest, FoldError> {
    let file = path.to_path_buf();
    let fault = |why: String| FoldError::Open { path: path.to_path_buf(), why };
    if path.exists() {
        return Err(fault("it exists already".to_owned()));
    }
    let identity = log.identity().await?;
    let handle = tokio::runtime::Handle::current();
    let digest = tokio::task::spawn_blocking(move || {
        let opened = file::open(&file, &projection, &identity, through);
        let mut connection = opened.map_err(|error| error.to_string())?.connection;
        let mut position = 0;
        while position < through {
            let facts = handle.block_on(log.read(Stream::Pipeline, position, CHUNK));
            let mut facts = facts.map_err(|error| error.to_string())?;
            facts.retain(|fact| fact.position <= through);
            if facts.is_empty() {
                break;
            }
            position = fold(&mut connection, &mut projection, &facts)?;
        }
        Digest::of(&connection).map_err(|error| error.to_string())
    });
    digest.await.map_err(|error| fault(error.to_string()))?.map_err(fault)
}
