//! What can go wrong with a depot.

use std::path::PathBuf;

use crate::hash::Hash;

/// Result with the error of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation was not done; the files are as before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The write would leave less free space than is reserved.
    #[error(
        "{needed} bytes do not fit below {}: {available} are available, \
         {reserved} of them are spoken for",
        root.display()
    )]
    NoSpace {
        /// The depot.
        root: PathBuf,
        /// What was to be written, bytes.
        needed: u64,
        /// What the file system has, bytes.
        available: u64,
        /// What must stay free or was promised to others, bytes.
        reserved: u64,
    },
    /// The file is not sound.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The ending of a file name that is not accepted.
    #[error("{0:?} is no ending for a file: 1 to 16 lower case letters and digits")]
    Extension(String),
    /// A larger file than the caller is ready to hold in memory.
    #[error("{} has {bytes} bytes, more than the {limit} that were expected at most", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The contents are not what was promised.
    #[error("{} has the hash {actual}, not {expected}", path.display())]
    NotAsPromised {
        /// The file that was to be stored.
        path: PathBuf,
        /// The promise.
        expected: Hash,
        /// What is so.
        actual: Hash,
    },
    /// A deletion without sufficient grounds.
    #[error("{hash} is not deleted: {why}")]
    NotWarranted {
        /// The file.
        hash: Hash,
        /// What is missing.
        why: String,
    },
}

impl Error {
    /// Whether space is what was missing: it works again when there is some.
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::NoSpace { .. } => true,
            Self::Io(error) => matches!(error.kind(), StorageFull | QuotaExceeded),
            _ => false,
        }
    }
}

/// What is wrong with a file of the depot.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is not there.
    #[error("{hash} is missing")]
    Missing {
        /// Its name.
        hash: Hash,
    },
    /// Its contents changed.
    #[error("{} is damaged: its contents have the hash {actual}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Its name, which is the hash of what it was.
        expected: Hash,
        /// The hash of what it is.
        actual: Hash,
    },
    /// It cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Something that is no file of a depot lies where only such files lie.
    #[error("{} does not belong into the depot", path.display())]
    Stray {
        /// What lies there.
        path: PathBuf,
    },
}
