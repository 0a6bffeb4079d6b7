//! The one way out: into the trash, with reasons, and after a while for good.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use tracing::info;

use crate::error::{Error, Fault, Result};
use crate::hash::Hash;
use crate::store::{Depot, TRASH, parse_name, sync_folder};

/// Copies elsewhere that allow to delete one here. Source: the safety rule "two verified receipts".
const COPIES: usize = 2;

/// Somebody else's word that he has a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Who has it.
    pub holder: String,
    /// When he last hashed it, milliseconds since the Unix epoch.
    pub verified_ms: i64,
}

/// On which grounds a file may be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warrant {
    /// Others have it: receipts of two different holders at least.
    Copies(Vec<Receipt>),
    /// It can be made again; from what, as a sentence.
    Rebuildable(String),
    /// A rule of retention gives it up; which one, as a sentence.
    Retention(String),
    /// Its contents are no longer what its name says; refused if they are.
    Damaged,
}

impl fmt::Display for Warrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copies(receipts) => {
                f.write_str("copies are held by")?;
                for receipt in receipts {
                    write!(f, " {} (verified {} ms)", receipt.holder, receipt.verified_ms)?;
                }
                Ok(())
            }
            Self::Rebuildable(from) => write!(f, "can be made again: {from}"),
            Self::Retention(rule) => write!(f, "retention: {rule}"),
            Self::Damaged => f.write_str("damaged"),
        }
    }
}

/// A file in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// Its name.
    pub hash: Hash,
    /// The ending of its name.
    pub extension: String,
    /// Its size.
    pub bytes: u64,
    /// When it was deleted, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// On which grounds.
    pub why: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// What emptying the trash did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Emptied {
    /// Files removed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Depot {
    /// Moves a file to the trash.
    ///
    /// # Errors
    /// [`Error::NotWarranted`] if the grounds do not suffice, [`Fault::Missing`] if it is not there.
    pub fn trash(&self, hash: &Hash, warrant: &Warrant, now_ms: i64) -> Result<()> {
        let refused = |why: String| Err(Error::NotWarranted { hash: *hash, why });
        match warrant {
            Warrant::Copies(receipts) => {
                let holders: BTreeSet<&str> = receipts.iter().map(|r| r.holder.as_str()).collect();
                if holders.len() < COPIES {
                    return refused(format!("{} of {COPIES} copies are proven", holders.len()));
                }
            }
            Warrant::Rebuildable(why) | Warrant::Retention(why) if why.trim().is_empty() => {
                return refused("no reason is given".to_owned());
            }
            Warrant::Damaged => match self.verify(hash) {
                Ok(()) => return refused("it is sound".to_owned()),
                Err(Fault::Wrong { .. }) => {}
                // A disk that cannot be read now may be readable later.
                Err(fault) => return Err(fault.into()),
            },
            Warrant::Rebuildable(_) | Warrant::Retention(_) => {}
        }
        let path = self.path_of(hash)?.ok_or(Fault::Missing { hash: *hash })?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let folder = self.root().join(TRASH);
        let target = folder.join(format!("{now_ms}-{name}"));
        // The reason first: no file in the trash is without one, whatever happens in between.
        fs::write(reason_path(&target), format!("{warrant}\n"))?;
        fs::rename(&path, &target)?;
        sync_folder(&folder)?;
        sync_folder(&self.folder(hash))?;
        info!(%hash, %warrant, "file deleted to the trash");
        Ok(())
    }

    /// What is in the trash, the oldest first.
    pub fn trashed(&self) -> Result<Vec<Trashed>> {
        let mut trashed = Vec::new();
        for entry in fs::read_dir(self.root().join(TRASH))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some((at_ms, hash, extension)) = name.and_then(parse_trashed) else { continue };
            let bytes = match fs::metadata(&path) {
                Ok(metadata) => metadata.len(),
                // Restored or removed while we look.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let why = match fs::read_to_string(reason_path(&path)) {
                Ok(why) => why.trim_end().to_owned(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(error.into()),
            };
            trashed.push(Trashed { hash, extension, bytes, at_ms, why, path });
        }
        trashed.sort_by_key(|trashed| (trashed.at_ms, trashed.hash));
        Ok(trashed)
    }

    /// Takes a file out of the trash again, after hashing it; returns whether it was there.
    ///
    /// # Errors
    /// [`Fault::Wrong`] if it is damaged; it stays in the trash then.
    pub fn restore(&self, hash: &Hash) -> Result<bool> {
        let Some(trashed) = self.trashed()?.into_iter().rfind(|trashed| trashed.hash == *hash)
        else {
            return Ok(false);
        };
        let file = fs::File::open(&trashed.path)?;
        let (actual, _) = Hash::of_reader(file, |_| Ok(()))?;
        if actual != *hash {
            return Err(Fault::Wrong { path: trashed.path, expected: *hash, actual }.into());
        }
        let folder = self.folder(hash);
        fs::create_dir_all(&folder)?;
        fs::rename(&trashed.path, folder.join(format!("{hash}.{}", trashed.extension)))?;
        sync_folder(&folder)?;
        remove_reason(&trashed.path)?;
        Ok(true)
    }

    /// Removes for good what has been in the trash for at least `grace`.
    pub fn empty_trash(&self, grace: Duration, now_ms: i64) -> Result<Emptied> {
        let grace = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let mut emptied = Emptied::default();
        for trashed in self.trashed()? {
            if now_ms.saturating_sub(trashed.at_ms) < grace {
                continue;
            }
            fs::remove_file(&trashed.path)?;
            remove_reason(&trashed.path)?;
            emptied.files += 1;
            emptied.bytes += trashed.bytes;
            info!(hash = %trashed.hash, why = trashed.why, "file removed for good");
        }
        Ok(emptied)
    }
}

fn reason_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".why");
    PathBuf::from(name)
}

fn remove_reason(path: &Path) -> Result<()> {
    match fs::remove_file(reason_path(path)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn parse_trashed(name: &str) -> Option<(i64, Hash, String)> {
    let (at_ms, name) = name.split_once('-')?;
    let (hash, extension) = parse_name(name)?;
    Some((at_ms.parse().ok()?, hash, extension))
}
