//! Objects in a folder: of another disk, or of a file system that other machines serve.

use std::{
    fs::TryLockError,
    io::{Read, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use fs_err as fs;

use super::{FarError, FarResult, Objects, Version};
use crate::{
    Hash,
    store::{seal, sync_folder},
};

/// Bytes read and written at a time.
const BLOCK: usize = 128 << 10;
/// What is being written lies here.
const INCOMING: &str = ".incoming";
/// Locked by whoever compares and replaces.
pub(super) const LOCK: &str = ".lock";
/// Looks whether the lock is free before the store counts as away.
const LOCK_LOOKS: u32 = 100;
/// Pause between two of them.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Bytes of an object that its version is made of, with its size. More than any pointer has; a longer one is damaged.
const COMPARED: u64 = 1 << 20;

pub(super) struct Folder {
    root: PathBuf,
    counter: AtomicU64,
}

impl Folder {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), counter: AtomicU64::new(0) }
    }

    /// The folder is the operator's: a mount point without its disk must not be filled.
    fn check(&self) -> FarResult<()> {
        if self.root.is_dir() {
            return Ok(());
        }
        let root = self.root.display();
        Err(FarError::Refused(format!("the folder {root} of the far store is not there")))
    }

    fn absent(&self, key: &str, error: std::io::Error) -> FarError {
        if error.kind() != std::io::ErrorKind::NotFound {
            return error.into();
        }
        match self.check() {
            Ok(()) => FarError::Absent { key: key.to_owned() },
            Err(error) => error,
        }
    }

    /// A file that is being written. Locked, so that nobody who sweeps takes it.
    fn aside(&self) -> FarResult<Aside> {
        let folder = self.root.join(INCOMING);
        fs::create_dir_all(&folder)?;
        sweep(&folder)?;
        loop {
            let n = self.counter.fetch_add(1, Ordering::Relaxed);
            let own = std::ptr::from_ref(self).addr();
            let path = folder.join(format!("{}-{own:x}-{n}", std::process::id()));
            match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    file.file().lock()?;
                    // A sweep between the two lines has removed it.
                    if file.metadata()?.nlink() > 0 {
                        return Ok(Aside { file, path });
                    }
                }
                // Another machine's process has the same number.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A file with these contents, on the disk, that has no name yet.
    fn filled(&self, key: &str, contents: &mut dyn Read, bytes: u64) -> FarResult<Aside> {
        self.check()?;
        let mut aside = self.aside()?;
        let mut block = vec![0; BLOCK];
        let mut written = 0;
        loop {
            let n = match contents.read(&mut block) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            aside.file.write_all(&block[..n])?;
            written += n as u64;
        }
        if written != bytes {
            let what = format!("{written} of {bytes} bytes could be read for {key}");
            return Err(std::io::Error::other(what).into());
        }
        seal(&aside.file)?;
        Ok(aside)
    }

    /// Gives it its name, over what had it.
    fn place(&self, aside: &Aside, key: &str) -> FarResult<()> {
        let target = self.root.join(key);
        let folder = target.parent().unwrap_or(&self.root);
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            // Up to the root: a power cut must not take the folder with the file in it.
            for made in folder.ancestors().skip(1).take_while(|made| made.starts_with(&self.root)) {
                sync_folder(made)?;
            }
        }
        fs::rename(&aside.path, &target)?;
        sync_folder(folder)?;
        Ok(())
    }

    /// As long as it is kept, nobody else compares and replaces. Waits with an end: who holds it may be asleep.
    fn lock(&self) -> FarResult<fs::File> {
        let path = self.root.join(LOCK);
        // To write, since file systems of the network lock no other.
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        for _ in 0..LOCK_LOOKS {
            match file.file().try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        Err(FarError::Away(format!("somebody holds the lock {}", path.display())))
    }

    fn walk(&self, folder: &Path, found: &mut dyn FnMut(&str, u64)) -> FarResult<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return self.check(),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.walk(&path, found)?;
            } else if let Some(key) = path.strip_prefix(&self.root).ok().and_then(Path::to_str) {
                found(key, entry.metadata()?.len());
            }
        }
        Ok(())
    }
}

/// Removes what interrupted writes left.
fn sweep(folder: &Path) -> FarResult<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Ok(file) = fs::File::open(&path) else { continue };
        if file.file().try_lock().is_ok() {
            // Whoever was faster has removed it.
            drop(fs::remove_file(&path));
        }
    }
    Ok(())
}

impl Objects for Folder {
    fn read(
        &self,
        key: &str,
        from: u64,
        sink: &mut dyn FnMut(&[u8]) -> FarResult<()>,
    ) -> FarResult<()> {
        let mut file =
            fs::File::open(self.root.join(key)).map_err(|error| self.absent(key, error))?;
        file.seek(SeekFrom::Start(from))?;
        let mut block = vec![0; BLOCK];
        loop {
            match file.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(n) => sink(&block[..n])?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A disk that gives no answer is damage to whoever wants to write again what is there.
                Err(error) => {
                    return Err(FarError::Damaged { key: key.to_owned(), what: error.to_string() });
                }
            }
        }
    }

    fn write(&self, key: &str, contents: &mut dyn Read, bytes: u64) -> FarResult<()> {
        let aside = self.filled(key, contents, bytes)?;
        self.place(&aside, key)
    }

    /// The hash of what is there, so that whoever writes the same again replaces the same.
    fn version(&self, key: &str) -> FarResult<Option<Version>> {
        let file = match fs::File::open(self.root.join(key)) {
            Ok(file) => file,
            Err(error) => match self.absent(key, error) {
                FarError::Absent { .. } => return Ok(None),
                error => return Err(error),
            },
        };
        let about = file.metadata()?;
        let name = match Hash::of_reader(file.take(COMPARED), |_| Ok(())) {
            Ok((hash, _)) => format!("{hash}-{}", about.len()),
            // What the disk does not give any more can be replaced all the same.
            Err(_) => format!("{}-{}-{}", about.ino(), about.mtime(), about.mtime_nsec()),
        };
        Ok(Some(Version::new(name)))
    }

    fn replace(&self, key: &str, version: Option<&Version>, contents: &[u8]) -> FarResult<bool> {
        // Before the lock: others need not wait until it is on the disk.
        let aside = self.filled(key, &mut &*contents, contents.len() as u64)?;
        let _lock = self.lock()?;
        if self.version(key)?.as_ref() != version {
            return Ok(false);
        }
        self.place(&aside, key)?;
        Ok(true)
    }

    fn list(&self, folder: &str, found: &mut dyn FnMut(&str, u64)) -> FarResult<()> {
        self.walk(&self.root.join(folder), found)
    }
}

/// Removed on drop, unless it got its name.
struct Aside {
    file: fs::File,
    path: PathBuf,
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Not there after its rename; what cannot be removed now, the next sweep removes.
        drop(fs::remove_file(&self.path));
    }
}
