//! Is every file what its name says?

use fs_err as fs;

use crate::error::{Fault, Result};
use crate::hash::Hash;
use crate::store::{Depot, Found};

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files hashed.
    pub files: u64,
    /// Files there are.
    pub files_total: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// Bytes there are.
    pub bytes_total: u64,
    /// Faults found.
    pub faults: u64,
}

impl Depot {
    /// Hashes a file.
    pub fn verify(&self, hash: &Hash) -> Result<(), Fault> {
        let path = match self.path_of(hash) {
            Ok(Some(path)) => path,
            Ok(None) => return Err(Fault::Missing { hash: *hash }),
            Err(error) => {
                let (path, source) = (self.folder(hash), std::io::Error::other(error));
                return Err(Fault::Unreadable { path, source });
            }
        };
        let file = fs::File::open(&path);
        match file.and_then(|file| Hash::of_reader(file, |_| Ok(()))) {
            Ok((actual, _)) if actual == *hash => Ok(()),
            Ok((actual, _)) => Err(Fault::Wrong { path, expected: *hash, actual }),
            // Deleted between the two looks.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Fault::Missing { hash: *hash })
            }
            Err(source) => Err(Fault::Unreadable { path, source }),
        }
    }

    /// Hashes all files and reports each that is not sound, and all that does not belong here.
    ///
    /// `progress` is called after each file. A file that is deleted meanwhile is no fault. What
    /// *should* be here only the caller knows: see [`Depot::contains`].
    pub fn verify_all(&self, mut progress: impl FnMut(Progress)) -> Result<Vec<Fault>> {
        let (mut entries, mut faults) = (Vec::new(), Vec::new());
        self.walk(|found| match found {
            Found::File(entry) => entries.push(entry),
            Found::Stray(path) => faults.push(Fault::Stray { path }),
        })?;
        entries.sort_by_key(|entry| entry.hash);
        let mut so_far = Progress {
            files_total: entries.len() as u64,
            bytes_total: entries.iter().map(|entry| entry.bytes).sum(),
            faults: faults.len() as u64,
            ..Progress::default()
        };
        for entry in entries {
            match self.verify(&entry.hash) {
                Ok(()) | Err(Fault::Missing { .. }) => {}
                Err(fault) => faults.push(fault),
            }
            so_far.files += 1;
            so_far.bytes += entry.bytes;
            so_far.faults = faults.len() as u64;
            progress(so_far);
        }
        Ok(faults)
    }
}
