//! Files whose contents are no longer what their name says: kept aside, since some of it may be of use to a
//! person, and since a fault is to be seen.

use std::path::{Path, PathBuf};

use fs_err as fs;
use tracing::warn;

use crate::error::{Fault, Result};
use crate::hash::Hash;
use crate::store::{Depot, parse_name, sync_folder};

const QUARANTINE: &str = "quarantine";
/// Between the hash that a file was known by and the one it has.
const IS: &str = "-is-";

/// A file in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// What it was known by.
    pub hash: Hash,
    /// The hash of what is in it.
    pub actual: Hash,
    /// Its size.
    pub bytes: u64,
    /// Where it lies.
    pub path: PathBuf,
}

impl Depot {
    /// Hashes a file, and moves it aside if its contents are wrong; says where to. What is sound or missing
    /// stays as it is.
    ///
    /// # Errors
    /// It cannot be read: a disk that cannot be read now may be readable later.
    pub fn quarantine(&self, hash: &Hash) -> Result<Option<PathBuf>> {
        match self.verify(hash) {
            Ok(()) | Err(Fault::Missing { .. }) => Ok(None),
            Err(Fault::Wrong { path, expected, actual }) => {
                self.set_aside(&path, &expected, &actual).map(Some)
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// Moves a file aside that was found to be wrong. The same damage twice is one file.
    pub(crate) fn set_aside(&self, path: &Path, hash: &Hash, actual: &Hash) -> Result<PathBuf> {
        let folder = self.root().join(QUARANTINE);
        fs::create_dir_all(&folder)?;
        let extension = path.extension().and_then(|ending| ending.to_str()).unwrap_or("bin");
        let target = folder.join(format!("{hash}{IS}{actual}.{extension}"));
        fs::rename(path, &target)?;
        sync_folder(&folder)?;
        warn!(%hash, %actual, at = %target.display(), "a damaged file is set aside");
        Ok(target)
    }

    /// What is in quarantine, by name.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>> {
        let folder = match fs::read_dir(self.root().join(QUARANTINE)) {
            Ok(folder) => folder,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut found = Vec::new();
        for entry in folder {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((known_by, is)) = name.split_once(IS) else { continue };
            let (Ok(hash), Some((actual, _))) = (known_by.parse(), parse_name(is)) else {
                continue;
            };
            let bytes = fs::metadata(&path)?.len();
            found.push(Quarantined { hash, actual, bytes, path });
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
}
