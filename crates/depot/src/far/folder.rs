//! Objects in a folder: of another disk, or of a file system that other machines serve.

use std::{
    io::{Read, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use fs_err as fs;

use super::{FarError, FarResult, Objects};
use crate::store::{seal, sync_folder};

/// Bytes read and written at a time.
const BLOCK: usize = 128 << 10;
/// What is being written lies here.
const INCOMING: &str = ".incoming";

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
