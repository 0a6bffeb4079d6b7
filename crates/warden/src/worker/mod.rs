//! Child processes that do heavy or risky work, and cannot outlive us.
//!
//! Four nets, because each has a hole: the parent-death signal ends a worker whose parent was
//! killed; the guardian, a small shell, then ends what the worker had started itself; the group is
//! killed whenever its leader ends; and what slipped through all three is found by its record at
//! the next start. A process that leaves its group on purpose escapes the second and the third.
//!
//! Linux only: it needs the parent-death signal, pidfds and `/proc`.

mod birth;
mod guardian;
mod house;
mod log;
mod process;
mod records;
mod watch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest line that a worker may print; a longer one is reported by its size only.
pub const LINE_MAX_BYTES: usize = 1 << 20;
/// Lines that wait for their reader; then the worker waits, and that silence is not held against it.
const LINES_WAITING: usize = 64;
/// Starts that wait for the spawning thread.
const STARTS_WAITING: usize = 64;

/// One child process to start.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// Program to run.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables added to our own environment.
    pub env: Vec<(String, String)>,
    /// Its working directory, the only place where it may write; made if absent.
    pub dir: PathBuf,
    /// The job, one line of JSON; standard input stays open after it until the end.
    pub job: String,
    /// What it may use.
    pub limits: Limits,
    /// File for its standard error; several workers may share one.
    pub log: PathBuf,
    /// Size at which the file is put aside.
    pub log_max_bytes: u64,
    /// Files put aside that are kept: `log.1` is the newest.
    pub log_keep: u32,
}

impl WorkerSpec {
    /// A worker with the usual limits, its log as `worker.log` in its directory, 8 MiB, 3 kept.
    pub fn new(program: impl Into<PathBuf>, dir: impl Into<PathBuf>, job: String) -> Self {
        let dir = dir.into();
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            log: dir.join("worker.log"),
            dir,
            job,
            limits: Limits::default(),
            log_max_bytes: 8 << 20,
            log_keep: 3,
        }
    }
}

/// What a worker may use before it is stopped.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Resident bytes of its whole group, pages shared inside the group counted in each process.
    ///
    /// Read twice a second, every five seconds while nobody at work has a limit. No limit on address space: just-in-time compilers, GPU drivers and
    /// allocators reserve many times what they use, so such a limit kills healthy workers.
    pub memory: Option<u64>,
    /// Longest time without a line on standard output.
    pub beat: Duration,
    /// Longest life.
    pub run: Option<Duration>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
}

impl Default for Limits {
    /// 30 s of silence (three beats of the worker contract's 10 s), 10 s of grace, nothing else.
    fn default() -> Self {
        Self {
            memory: None,
            beat: Duration::from_secs(30),
            run: None,
            grace: Duration::from_secs(10),
        }
    }
}

/// One line that a worker printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerLine {
    /// The line without its end; bytes that are not UTF-8 are replaced.
    Text(String),
    /// A line over [`LINE_MAX_BYTES`], thrown away.
    Oversized {
        /// Its length.
        bytes: u64,
    },
}

/// Why a worker was asked, or forced, to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its group held more memory than it may.
    Memory,
    /// It printed nothing for too long.
    Silence,
    /// It lived too long.
    TooLong,
    /// [`Worker::terminate`], or its [`Worker`] was dropped.
    Stopped,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Code 0.
    Done,
    /// Code 75: the same job may succeed later.
    TryAgain,
    /// Code 125: the same job can never succeed.
    NeverAgain,
    /// Another code.
    Failed(i32),
    /// A signal that we did not send.
    Signal(i32),
    /// It did not leave by itself, or only by the signal that we sent.
    KilledFor(Cause),
}

/// What is known of a worker after its end.
#[derive(Debug, Clone)]
pub struct WorkerEnd {
    /// How it ended.
    pub exit: Exit,
    /// Why it was asked to end; it may still have left in good order, see `exit`.
    pub asked: Option<Cause>,
    /// The last lines of its standard error, oldest first.
    pub last_words: Vec<String>,
    /// Its life.
    pub duration: Duration,
    /// Most resident bytes of its group that a reading saw; 0 if it ended before the first.
    pub peak_memory: u64,
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The job holds a line break.
    #[error("the job of {0} is not one line")]
    Job(PathBuf),
    /// Folder, record or log could not be made.
    #[error("prepare a worker in {dir}")]
    Prepare {
        /// Its working directory.
        dir: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The operating system refused.
    #[error("start {program}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The spawning thread is gone.
    #[error("no worker can be started any more")]
    Closed,
}

/// A worker at work, for people.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerView {
    /// Process id, and id of its group.
    pub pid: u32,
    /// Program name.
    pub program: String,
    /// Age in seconds.
    pub age_seconds: u64,
    /// Resident bytes of its group at the last reading.
    pub memory: u64,
}

/// Starts workers, all from two threads of its own; cheap to clone.
///
/// The parent-death signal is tied to the *thread* that forked, so these threads live as long as
/// this object and every [`Worker`]. When the last of them is dropped, all groups are killed.
#[derive(Debug, Clone)]
pub struct Workers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Taken at the end, which is what ends the thread.
    requests: Option<mpsc::Sender<house::Request>>,
    thread: Option<JoinHandle<()>>,
    table: Table,
}

type Table = Arc<Mutex<BTreeMap<u32, Row>>>;

#[derive(Debug)]
struct Row {
    program: String,
    started: tokio::time::Instant,
    memory: u64,
}

impl Workers {
    /// Ends what survived of an earlier life in `run_dir`, then opens for work.
    ///
    /// Blocks: for milliseconds, or up to 5 s while a survivor does not die.
    ///
    /// # Errors
    /// The folder cannot be written, `/bin/sh` (the guardian) or the thread cannot be started, or
    /// a survivor does not die.
    pub fn new(run_dir: &Path) -> anyhow::Result<Self> {
        let mut records = records::Records::open(&run_dir.join("workers"))?;
        let ended = records.end_survivors()?;
        if !ended.is_empty() {
            tracing::warn!(workers = ?ended, "workers of an earlier life were ended");
        }
        let table = Table::default();
        let (requests, receiver) = mpsc::channel(STARTS_WAITING);
        let house = house::House::new(records, table.clone())?;
        let thread = std::thread::Builder::new()
            .name("workers".into())
            .spawn(move || house.run(receiver))
            .context("start the thread that starts workers")?;
        Ok(Self(Arc::new(Inner { requests: Some(requests), thread: Some(thread), table })))
    }

    /// Starts one worker.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(&self, spec: WorkerSpec) -> Result<Worker, StartError> {
        if spec.job.contains(['\n', '\r']) {
            return Err(StartError::Job(spec.program));
        }
        let requests = self.0.requests.as_ref().ok_or(StartError::Closed)?;
        let (reply, started) = oneshot::channel();
        let request = house::Request { spec, reply };
        requests.send(request).await.map_err(|_| StartError::Closed)?;
        let started = started.await.map_err(|_| StartError::Closed)??;
        Ok(Worker { started, ended: None, _house: self.0.clone() })
    }

    /// The workers at work.
    pub fn running(&self) -> Vec<WorkerView> {
        let table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        table
            .iter()
            .map(|(&pid, row)| WorkerView {
                pid,
                program: row.program.clone(),
                age_seconds: row.started.elapsed().as_secs(),
                memory: row.memory,
            })
            .collect()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.requests.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that starts workers panicked");
        }
    }
}

/// What the spawning thread hands out for one worker.
#[derive(Debug)]
struct Started {
    pid: u32,
    lines: mpsc::Receiver<WorkerLine>,
    end: oneshot::Receiver<WorkerEnd>,
    terminate: CancellationToken,
    /// Kills the group when the owner of the worker is gone.
    _abandon: DropGuard,
}

/// A running worker; dropping it kills its whole group at once.
#[derive(Debug)]
pub struct Worker {
    started: Started,
    ended: Option<WorkerEnd>,
    _house: Arc<Inner>,
}

impl Worker {
    /// Its process id, which is also the id of its process group.
    pub fn pid(&self) -> u32 {
        self.started.pid
    }

    /// The next line that it prints; `None` after the last. May be dropped while waiting.
    pub async fn next_line(&mut self) -> Option<WorkerLine> {
        self.started.lines.recv().await
    }

    /// The lines as a bounded queue.
    pub fn lines(&mut self) -> &mut mpsc::Receiver<WorkerLine> {
        &mut self.started.lines
    }

    /// Asks it to finish: SIGTERM to the group now, SIGKILL after the grace of its limits.
    pub fn terminate(&self) {
        self.started.terminate.cancel();
    }

    /// A token whose cancellation does what [`Worker::terminate`] does, for another task.
    pub fn terminator(&self) -> CancellationToken {
        self.started.terminate.clone()
    }

    /// Waits for its end. Lines not read before are lost: read them to `None` first.
    pub async fn finished(&mut self) -> WorkerEnd {
        if let Some(end) = &self.ended {
            return end.clone();
        }
        self.started.lines.close();
        // The sender only vanishes unsent when the spawning thread ends, which kills all groups.
        let end = (&mut self.started.end).await.unwrap_or_else(|_| WorkerEnd {
            exit: Exit::KilledFor(Cause::Stopped),
            asked: Some(Cause::Stopped),
            last_words: Vec::new(),
            duration: Duration::ZERO,
            peak_memory: 0,
        });
        self.ended.insert(end).clone()
    }
}
