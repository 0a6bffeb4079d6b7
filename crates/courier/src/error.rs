//! What can go wrong, sorted by what a caller does about it.

use std::path::PathBuf;

/// The store did not do what was asked; the log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine has ended.
    #[error("the log is closed")]
    Closed,
    /// No space is left for the store; goes on when there is some again.
    #[error("no space is left for {path}")]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The engine was opened for reading only.
    #[error("{path} was opened for reading only")]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// Nothing is stored under this number.
    #[error("no {what} has the number {number}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// The number.
        number: u64,
    },
    /// The store failed.
    #[error("{path}: {source}")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Not done: it was to be done in the name of a lease.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// An engine that is not a file is out of reach. What was asked may have been done or not: ask
    /// again, a repeated batch is taken once.
    #[error("the log is out of reach: {0}")]
    Unavailable(String),
}

impl Error {
    /// Sorts what SQLite says about `path`.
    pub(crate) fn storage(path: &std::path::Path, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        // A shared-memory index that cannot grow: SQLite does not say "full" there.
        let index_full = rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
        match source.sqlite_error() {
            Some(e) if e.code == rusqlite::ErrorCode::DiskFull => Self::Full { path },
            Some(e) if e.extended_code == index_full => Self::Full { path },
            _ => Self::Storage { path, source },
        }
    }
}

/// The lease was lost; stop what you do in its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("epoch {epoch} of the lease {lease} is over (now: {})", Current(*current))]
pub struct Fenced {
    /// The lease.
    pub lease: String,
    /// The epoch in whose name it was asked for.
    pub epoch: u64,
    /// The epoch in force, if somebody holds the lease.
    pub current: Option<u64>,
}

/// Why a batch was not taken; nothing of it is in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The subject moved on; read it again and decide again.
    #[error(
        "the last fact on {subject} is at position {actual}, not at {expected} (0 means none): \
         somebody else was faster"
    )]
    Conflict {
        /// The subject.
        subject: String,
        /// What the batch expected.
        expected: u64,
        /// What is so.
        actual: u64,
    },
    /// It was appended in the name of a lease.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The id is taken by a fact on another subject: a mistake in how ids are made.
    #[error("the id {id} belongs to a fact on {taken_by}, it cannot be one on {subject} as well")]
    IdReused {
        /// The id.
        id: String,
        /// The subject of the batch's fact.
        subject: String,
        /// The subject of the fact in the log.
        taken_by: String,
    },
    /// Over a limit of every engine.
    #[error("too many {what}: {size}, at most {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// How large.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Not a batch that any engine takes.
    #[error("the log does not take {what}")]
    Invalid {
        /// What is wrong.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Prints the epoch in force.
struct Current(Option<u64>);

impl std::fmt::Display for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(epoch) => write!(f, "{epoch}"),
            None => f.write_str("none"),
        }
    }
}

/// Why a lease was not granted or not prolonged.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another holder has it.
    #[error("the lease {name} is held by {by} until {until_ms} ms")]
    Held {
        /// The lease.
        name: String,
        /// Its holder.
        by: String,
        /// When it ends unless prolonged, milliseconds since the Unix epoch.
        until_ms: i64,
    },
    /// It ran out, was given back, or went to another holder: acquire anew.
    #[error("epoch {epoch} of the lease {name} is over")]
    Lost {
        /// The lease.
        name: String,
        /// The epoch that was to be prolonged.
        epoch: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Why a file could not be opened as a log. The file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file exists and is no log.
    #[error(
        "{path} is not a log of this program (application id {found:#x}): \
         name another file, or move this one away"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The application id in its header.
        found: i64,
    },
    /// The file was written by a newer program.
    #[error("{path} has format {found}, this program knows up to {known}: use the newer program")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format known here.
        known: i64,
    },
    /// The file is damaged.
    #[error(
        "{path} is damaged ({detail}): move it away together with its -wal and -shm files \
         and put back a copy; nothing was changed"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the check found first.
        detail: String,
    },
    /// A file that was to be read only is not there.
    #[error("{path} does not exist")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The servers do not answer.
    #[error("the log is out of reach at {servers}: {detail}")]
    Unreachable {
        /// Their addresses.
        servers: String,
        /// What was said last.
        detail: String,
    },
    /// The servers answer, and do not let this node in. Waiting does not help.
    #[error(
        "the servers at {servers} keep the log, and they do not let this node in: its token or its \
         pass is wrong, or it was removed, and then it joins anew with another ticket and another key"
    )]
    TurnedAway {
        /// Their addresses.
        servers: String,
    },
    /// The file that proves this node to the servers does not.
    #[error("{path} holds no credentials for the servers of the log: {detail}")]
    NoCredentials {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The server cannot do what is asked of it.
    #[error(
        "the server at {server} is version {found}, at least {least} is needed: install a newer one"
    )]
    TooOld {
        /// Its address.
        server: String,
        /// Its version.
        found: String,
        /// The oldest version that will do.
        least: String,
    },
    /// The server, or what lies on it, is not set up for a log.
    #[error("the server at {server} {what}")]
    Unfit {
        /// Its address.
        server: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The operating system refused.
    #[error("open the log")]
    Io(#[from] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Failed(#[from] Error),
}
