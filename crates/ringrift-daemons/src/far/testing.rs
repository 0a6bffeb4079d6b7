//! A far store for tests of daemons.

use depot::far::{Far, Options, Plain};
use tempfile::TempDir;

use super::FarStore;

/// A store in a folder of its own.
pub(crate) fn folder_store() -> (TempDir, Far) {
    let dir = tempfile::tempdir().unwrap();
    let far = open(dir.path());
    (dir, far)
}

/// The same as daemons get it.
pub(crate) fn kept() -> (TempDir, FarStore) {
    let (dir, far) = folder_store();
    (dir, FarStore::of(far, &["samples".to_owned()]))
}

fn open(folder: &std::path::Path) -> Far {
    Far::open(Options {
        address: format!("file://{}", folder.display()).parse().unwrap(),
        endpoint: None,
        region: String::new(),
        plain: Plain::default(),
        credentials: None,
        rate: None,
    })
    .unwrap()
}
