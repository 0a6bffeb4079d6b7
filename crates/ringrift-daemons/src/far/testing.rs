//! A far store for tests of daemons.

use std::{
    collections::BTreeMap,
    io::Read,
    sync::{Arc, Mutex},
    time::Duration,
};

use depot::{
    Hash,
    far::{Far, FarError, FarResult, Objects, Options, Plain, Version},
};
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

/// A store in memory in which something can happen just before a pointer is replaced.
#[derive(Default)]
pub(crate) struct Slow {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    first: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Slow {
    pub(crate) fn new() -> (Arc<Self>, Far) {
        let slow = Arc::new(Self::default());
        let far = Far::over(Shared(Arc::clone(&slow)), "memory", Duration::ZERO);
        (slow, far)
    }

    /// Before the next replacement, once.
    pub(crate) fn before_the_next(&self, happens: impl FnOnce() + Send + 'static) {
        *self.first.lock().unwrap() = Some(Box::new(happens));
    }
}

struct Shared(Arc<Slow>);

impl Objects for Shared {
    fn read(
        &self,
        key: &str,
        from: u64,
        sink: &mut dyn FnMut(&[u8]) -> FarResult<()>,
    ) -> FarResult<()> {
        let object = self.0.objects.lock().unwrap().get(key).cloned();
        let object = object.ok_or_else(|| FarError::Absent { key: key.to_owned() })?;
        sink(&object[usize::try_from(from).unwrap()..])
    }

    fn write(&self, key: &str, contents: &mut dyn Read, _: u64) -> FarResult<()> {
        let mut object = Vec::new();
        contents.read_to_end(&mut object)?;
        self.0.objects.lock().unwrap().insert(key.to_owned(), object);
        Ok(())
    }

    fn version(&self, key: &str) -> FarResult<Option<Version>> {
        let objects = self.0.objects.lock().unwrap();
        Ok(objects.get(key).map(|object| Version::new(Hash::of(object).to_string())))
    }

    fn replace(&self, key: &str, version: Option<&Version>, contents: &[u8]) -> FarResult<bool> {
        let first = self.0.first.lock().unwrap().take();
        if let Some(happens) = first {
            happens();
        }
        let is_same = self.version(key)?.as_ref() == version;
        if is_same {
            self.0.objects.lock().unwrap().insert(key.to_owned(), contents.to_vec());
        }
        Ok(is_same)
    }

    fn list(&self, folder: &str, found: &mut dyn FnMut(&str, u64)) -> FarResult<()> {
        for (key, object) in self.0.objects.lock().unwrap().iter() {
            if key.starts_with(&format!("{folder}/")) {
                found(key, object.len() as u64);
            }
        }
        Ok(())
    }
}
