//! Files in, files out.

use std::io::{Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::OFlags;
use tracing::{info, warn};

use crate::error::{Error, Fault, Result};
use crate::hash::Hash;

const BLOBS: &str = "blobs";
const INCOMING: &str = "incoming";
pub(crate) const TRASH: &str = "trash";

/// Longest ending of a file name.
const MAX_EXTENSION: usize = 16;

/// How a depot behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Free bytes of the file system that writes leave alone.
    pub keep_free: u64,
}

/// A folder of files by content; a clone is the same depot.
#[derive(Debug, Clone)]
pub struct Depot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    keep_free: u64,
    /// Bytes promised to [`Reservation`]s and writes under way.
    promised: AtomicU64,
    /// Makes names in the incoming folder.
    counter: AtomicU64,
}

/// A file that is in the depot now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub hash: Hash,
    /// Its size.
    pub bytes: u64,
    /// Whether it was not there before.
    pub new: bool,
}

/// A file of the depot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub hash: Hash,
    /// The ending of its name.
    pub extension: String,
    /// Its size.
    pub bytes: u64,
    /// Where it lies.
    pub path: PathBuf,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files in the trash.
    pub trash_files: u64,
    /// Their bytes.
    pub trash_bytes: u64,
}

/// Space that is spoken for until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    depot: Depot,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.depot.0.promised.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Depot {
    /// Opens the depot below `root`, or makes it, and removes what interrupted writes left.
    ///
    /// Several processes may use one depot: what another one is writing just now is not touched.
    pub fn open(root: &Path, options: Options) -> Result<Self> {
        let depot = Self(Arc::new(Inner {
            root: root.to_path_buf(),
            keep_free: options.keep_free,
            promised: AtomicU64::new(0),
            counter: AtomicU64::new(0),
        }));
        fs::create_dir_all(depot.incoming())?;
        fs::create_dir_all(root.join(TRASH))?;
        depot.sweep()?;
        Ok(depot)
    }

    /// The depot below `root` as it is: nothing is made and nothing removed. For those who only read,
    /// beside its owner or on a medium that cannot be written.
    pub fn open_existing(root: &Path) -> Self {
        Self(Arc::new(Inner {
            root: root.to_path_buf(),
            keep_free: 0,
            promised: AtomicU64::new(0),
            counter: AtomicU64::new(0),
        }))
    }

    /// The folder it lies in.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Stores a copy of a file. The space it takes is checked first.
    pub fn put_file(&self, path: &Path, extension: &str) -> Result<Stored> {
        self.put(path, extension, None)
    }

    /// The same for a file whose hash somebody else has told.
    ///
    /// # Errors
    /// [`Error::NotAsPromised`] if it has another one; nothing is stored then.
    pub fn put_file_as(&self, path: &Path, extension: &str, expected: &Hash) -> Result<Stored> {
        self.put(path, extension, Some(expected))
    }

    fn put(&self, path: &Path, extension: &str, expected: Option<&Hash>) -> Result<Stored> {
        check_extension(extension)?;
        let mut from = fs::File::open(path)?;
        let _space = self.reserve(from.metadata()?.len())?;
        let mut incoming = self.incoming_file()?;
        let (hash, bytes) = Hash::of_reader(&mut from, |block| incoming.file.write_all(block))?;
        check_expected(path, &hash, expected)?;
        self.keep(incoming, hash, bytes, extension)
    }

    /// Stores a file and takes it away from where it was: by renaming where that is possible, so
    /// without writing its contents again. Nobody may have it open for writing.
    ///
    /// The file is at its old place or in the depot, or for a moment in both, never in neither. A
    /// link is refused: what would move is the link.
    pub fn adopt_file(&self, path: &Path, extension: &str) -> Result<Stored> {
        self.adopt(path, extension, None)
    }

    /// The same for a file whose hash somebody else has told.
    ///
    /// # Errors
    /// [`Error::NotAsPromised`] if it has another one; it stays where it is then.
    pub fn adopt_expected(&self, path: &Path, extension: &str, expected: &Hash) -> Result<Stored> {
        self.adopt(path, extension, Some(expected))
    }

    fn adopt(&self, path: &Path, extension: &str, expected: Option<&Hash>) -> Result<Stored> {
        check_extension(extension)?;
        // Not blocking, for the case that it is a pipe.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        if !file.metadata()?.is_file() {
            let what = format!("{} is no file", path.display());
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, what).into());
        }
        let (hash, bytes) = Hash::of_reader(&mut file, |_| Ok(()))?;
        check_expected(path, &hash, expected)?;
        let Some(target) = self.place_for(&hash, extension)? else {
            fs::remove_file(path)?;
            return Ok(Stored { hash, bytes, new: false });
        };
        match publish(&file, path, &target) {
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::CrossesDevices => {
                let stored = self.put_file(path, extension)?;
                fs::remove_file(path)?;
                Ok(stored)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(Stored { hash, bytes, new: true }),
        }
    }

    /// Stores bytes. The space they take is checked first.
    pub fn put_bytes(&self, contents: &[u8], extension: &str) -> Result<Stored> {
        let bytes = contents.len() as u64;
        let _space = self.reserve(bytes)?;
        let mut incoming = self.incoming_file()?;
        incoming.file.write_all(contents)?;
        self.keep(incoming, Hash::of(contents), bytes, extension)
    }

    /// Where a file lies; none if it is not there. Says nothing about its contents.
    pub fn path_of(&self, hash: &Hash) -> Result<Option<PathBuf>> {
        let name = hash.to_string();
        let folder = match fs::read_dir(self.folder(hash)) {
            Ok(folder) => folder,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        for entry in folder {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|n| n.split('.').next() == Some(&name)) {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }

    /// Whether a file is there. Says nothing about its contents.
    pub fn contains(&self, hash: &Hash) -> Result<bool> {
        Ok(self.path_of(hash)?.is_some())
    }

    /// Opens a file after its contents were hashed, at its beginning.
    ///
    /// # Errors
    /// [`Error::Fault`] if it is missing or damaged.
    pub fn open_verified(&self, hash: &Hash) -> Result<fs::File> {
        let path = self.path_of(hash)?.ok_or(Fault::Missing { hash: *hash })?;
        let mut file = fs::File::open(&path)?;
        let (actual, _) = Hash::of_reader(&mut file, |_| Ok(()))
            .map_err(|source| Fault::Unreadable { path: path.clone(), source })?;
        if actual != *hash {
            return Err(Fault::Wrong { path, expected: *hash, actual }.into());
        }
        file.rewind()?;
        Ok(file)
    }

    /// Reads a whole file of at most `limit` bytes; what is returned is what was hashed.
    ///
    /// # Errors
    /// [`Error::Fault`] if it is missing or damaged, [`Error::TooLarge`].
    pub fn read_verified(&self, hash: &Hash, limit: u64) -> Result<Vec<u8>> {
        let path = self.path_of(hash)?.ok_or(Fault::Missing { hash: *hash })?;
        let bytes = fs::metadata(&path)?.len();
        if bytes > limit {
            return Err(Error::TooLarge { path, bytes, limit });
        }
        let contents =
            fs::read(&path).map_err(|source| Fault::Unreadable { path: path.clone(), source })?;
        let actual = Hash::of(&contents);
        if actual != *hash {
            return Err(Fault::Wrong { path, expected: *hash, actual }.into());
        }
        Ok(contents)
    }

    /// All files, in the order of their hashes. What is no file of a depot is left out here and
    /// reported by [`Depot::verify_all`].
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.walk(|found| {
            if let Found::File(entry) = found {
                entries.push(entry);
            }
        })?;
        entries.sort_by_key(|entry| entry.hash);
        Ok(entries)
    }

    /// How much there is, in the depot and in its trash.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        self.walk(|found| {
            if let Found::File(entry) = found {
                usage.files += 1;
                usage.bytes += entry.bytes;
            }
        })?;
        for trashed in self.trashed()? {
            usage.trash_files += 1;
            usage.trash_bytes += trashed.bytes;
        }
        Ok(usage)
    }

    /// Sets space aside for a write that is to come. Writes into the depot reserve what they need
    /// themselves: drop the reservation before, or it counts twice.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if the file system has less than that above what must stay free and what
    /// is promised already.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation> {
        let promised = self.0.promised.fetch_add(bytes, Ordering::AcqRel);
        let reservation = Reservation { depot: self.clone(), bytes };
        let available = self.available()?;
        let reserved = promised.saturating_add(self.0.keep_free);
        if available < reserved.saturating_add(bytes) {
            let root = self.0.root.clone();
            return Err(Error::NoSpace { root, needed: bytes, available, reserved });
        }
        Ok(reservation)
    }

    /// Bytes that the file system has left for an ordinary user.
    fn available(&self) -> Result<u64> {
        let found = rustix::fs::statvfs(&self.0.root).map_err(|error| {
            let error = std::io::Error::from(error);
            let what = format!("ask for the space of {}: {error}", self.0.root.display());
            std::io::Error::new(error.kind(), what)
        })?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn incoming(&self) -> PathBuf {
        self.0.root.join(BLOBS).join(INCOMING)
    }

    fn incoming_path(&self) -> PathBuf {
        let n = self.0.counter.fetch_add(1, Ordering::Relaxed);
        // The address tells two depots of one process apart.
        let own = Arc::as_ptr(&self.0).addr();
        self.incoming().join(format!("{}-{own:x}-{n}", std::process::id()))
    }

    /// A new file, locked so that no sweep takes it.
    pub(crate) fn incoming_file(&self) -> Result<Incoming> {
        loop {
            let path = self.incoming_path();
            let file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.file().lock()?;
            // A sweep between the two lines has removed it.
            if file.metadata()?.nlink() > 0 {
                return Ok(Incoming { file, path, kept: false });
            }
        }
    }

    pub(crate) fn folder(&self, hash: &Hash) -> PathBuf {
        self.0.root.join(BLOBS).join(&hash.to_string()[..2])
    }

    /// Gives a finished file its name.
    pub(crate) fn keep(
        &self,
        mut incoming: Incoming,
        hash: Hash,
        bytes: u64,
        extension: &str,
    ) -> Result<Stored> {
        check_extension(extension)?;
        let Some(target) = self.place_for(&hash, extension)? else {
            return Ok(Stored { hash, bytes, new: false });
        };
        publish(&incoming.file, &incoming.path, &target)?;
        incoming.kept = true;
        Ok(Stored { hash, bytes, new: true })
    }

    /// Where contents with this hash are to go; none if they are there already and sound.
    pub(crate) fn place_for(&self, hash: &Hash, extension: &str) -> Result<Option<PathBuf>> {
        if let Some(present) = self.path_of(hash)? {
            return match self.verify(hash) {
                Ok(()) => Ok(None),
                Err(Fault::Wrong { expected, actual, .. }) => {
                    self.set_aside(&present, &expected, &actual)?;
                    Ok(Some(present))
                }
                // Over one that cannot be read, under its ending.
                Err(fault) => {
                    warn!(path = %present.display(), %fault, "a damaged file is replaced");
                    Ok(Some(present))
                }
            };
        }
        let folder = self.folder(hash);
        if !folder.exists() {
            fs::create_dir_all(&folder)?;
            sync_folder(&self.0.root.join(BLOBS))?;
        }
        Ok(Some(folder.join(format!("{hash}.{extension}"))))
    }

    /// Removes what interrupted writes left.
    fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(self.incoming())? {
            let path = entry?.path();
            let file = match fs::File::open(&path) {
                Ok(file) => file,
                // Finished or swept by somebody else meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            if file.file().try_lock().is_ok() {
                info!(path = %path.display(), "an interrupted write is removed");
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error.into());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Visits all that lies in the depot.
    pub(crate) fn walk(&self, mut visit: impl FnMut(Found)) -> Result<()> {
        let blobs = self.0.root.join(BLOBS);
        for folder in fs::read_dir(&blobs)? {
            let folder = folder?;
            let name = folder.file_name();
            if name == INCOMING {
                continue;
            }
            if !folder.file_type()?.is_dir() {
                visit(Found::Stray(folder.path()));
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                let metadata = match file.metadata() {
                    Ok(metadata) => metadata,
                    // Deleted while we look.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error.into()),
                };
                let parsed = file.file_name().to_str().and_then(parse_name);
                match parsed {
                    Some((hash, extension))
                        if metadata.is_file() && name.to_str() == Some(&hash.to_string()[..2]) =>
                    {
                        let (bytes, path) = (metadata.len(), file.path());
                        visit(Found::File(Entry { hash, extension, bytes, path }));
                    }
                    _ => visit(Found::Stray(file.path())),
                }
            }
        }
        Ok(())
    }
}

/// Something in the folder of files.
pub(crate) enum Found {
    File(Entry),
    Stray(PathBuf),
}

/// A file that is being written; removed on drop unless it got its name.
pub(crate) struct Incoming {
    pub(crate) file: fs::File,
    path: PathBuf,
    kept: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // What cannot be removed now, the next sweep removes.
        if !self.kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(%error, "remove an interrupted write");
        }
    }
}

/// The hash and the ending of a file name.
pub(crate) fn parse_name(name: &str) -> Option<(Hash, String)> {
    let (hash, extension) = name.split_once('.')?;
    check_extension(extension).ok()?;
    Some((hash.parse().ok()?, extension.to_owned()))
}

fn check_extension(extension: &str) -> Result<()> {
    let fits = (1..=MAX_EXTENSION).contains(&extension.len())
        && extension.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if fits { Ok(()) } else { Err(Error::Extension(extension.to_owned())) }
}

fn check_expected(path: &Path, actual: &Hash, expected: Option<&Hash>) -> Result<()> {
    match expected {
        Some(expected) if expected != actual => {
            let (path, expected, actual) = (path.to_path_buf(), *expected, *actual);
            Err(Error::NotAsPromised { path, expected, actual })
        }
        _ => Ok(()),
    }
}

/// Flushes a finished file and gives it its name for good.
fn publish(file: &fs::File, from: &Path, to: &Path) -> Result<()> {
    seal(file)?;
    fs::rename(from, to)?;
    if let Some(folder) = to.parent() {
        sync_folder(folder)?;
    }
    Ok(())
}

/// Makes a finished file ready for its name.
pub(crate) fn seal(file: &fs::File) -> Result<()> {
    // Against accidents only: the hash is what protects.
    file.set_permissions(std::fs::Permissions::from_mode(0o444))?;
    file.sync_all()?;
    Ok(())
}

/// Makes renames in a folder survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}
