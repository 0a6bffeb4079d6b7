//! The depot on a real file system.

// `cfg(test)` is always so here; it tells clippy that the helpers are test code too.
#[cfg(test)]
mod bucket;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod quarantine;
#[cfg(test)]
mod store;
#[cfg(test)]
mod trash;

use std::path::{Path, PathBuf};

use depot::{Depot, Options};
use tempfile::TempDir;

/// A depot of its own for one test.
#[cfg(test)]
struct Bench {
    dir: TempDir,
    depot: Depot,
}

#[cfg(test)]
impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(&dir.path().join("depot"), Options::default()).unwrap();
        Self { dir, depot }
    }

    /// A file outside the depot.
    fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs_err::write(&path, contents).unwrap();
        path
    }

    /// Files that are being written.
    fn incoming(&self) -> usize {
        fs_err::read_dir(self.depot.root().join("blobs/incoming")).unwrap().count()
    }
}

/// Changes one byte of a file, as a bad disk does.
#[cfg(test)]
fn flip(path: &Path, at: usize) {
    use std::os::unix::fs::PermissionsExt;
    let mut contents = fs_err::read(path).unwrap();
    contents[at] ^= 1;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    fs_err::write(path, contents).unwrap();
}
