//! A far store that fails in every way.

use std::{
    collections::BTreeMap,
    sync::{Mutex, atomic::AtomicU32, atomic::Ordering},
};

use super::*;
use crate::Options as DepotOptions;

/// Objects in memory, with a fault to come.
#[derive(Default)]
struct Memory {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Reads that break after so many bytes, and how many of them are left.
    breaks: Mutex<Option<(usize, u32)>>,
    /// Writes that fail before anything is there.
    failing: AtomicU32,
    reads: AtomicU32,
    writes: AtomicU32,
    /// What is written is another byte.
    spoils: AtomicU32,
}

fn away() -> FarError {
    FarError::Away("the line is down".to_owned())
}

impl Objects for Arc<Memory> {
    fn read(
        &self,
        key: &str,
        from: u64,
        sink: &mut dyn FnMut(&[u8]) -> FarResult<()>,
    ) -> FarResult<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let object = self.objects.lock().unwrap().get(key).cloned();
        let object = object.ok_or_else(|| FarError::Absent { key: key.to_owned() })?;
        let rest = &object[usize::try_from(from).unwrap()..];
        let broken = {
            let mut breaks = self.breaks.lock().unwrap();
            breaks.as_mut().filter(|(_, left)| *left > 0).map(|(after, left)| {
                *left -= 1;
                *after
            })
        };
        let until = broken.unwrap_or(rest.len()).min(rest.len());
        for block in rest[..until].chunks(7) {
            sink(block)?;
        }
        if broken.is_some() { Err(away()) } else { Ok(()) }
    }

    fn write(&self, key: &str, contents: &mut dyn Read, bytes: u64) -> FarResult<()> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let mut object = Vec::new();
        contents.read_to_end(&mut object)?;
        assert_eq!(object.len() as u64, bytes);
        if self.failing.load(Ordering::Relaxed) > 0 {
            self.failing.fetch_sub(1, Ordering::Relaxed);
            return Err(away());
        }
        if self.spoils.load(Ordering::Relaxed) > 0 {
            self.spoils.fetch_sub(1, Ordering::Relaxed);
            object[0] ^= 1;
        }
        self.objects.lock().unwrap().insert(key.to_owned(), object);
        Ok(())
    }

    fn list(&self, folder: &str, found: &mut dyn FnMut(&str, u64)) -> FarResult<()> {
        for (key, object) in self.objects.lock().unwrap().iter() {
            if key.starts_with(&format!("{folder}/")) {
                found(key, object.len() as u64);
            }
        }
        Ok(())
    }
}

struct Bench {
    dir: tempfile::TempDir,
    depot: Depot,
    memory: Arc<Memory>,
    far: Far,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(&dir.path().join("depot"), DepotOptions::default()).unwrap();
        let memory = Arc::new(Memory::default());
        let far = Far::over(Arc::clone(&memory), "memory", Duration::ZERO);
        Self { dir, depot, memory, far }
    }

    fn other(&self) -> Depot {
        Depot::open(&self.dir.path().join("other"), DepotOptions::default()).unwrap()
    }

    fn change(&self, hash: &Hash, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.memory.objects.lock().unwrap().get_mut(&blob_key(hash)).unwrap());
    }
}

fn all(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

const TEXT: &[u8] = b"what somebody wants to have for ever and ever";

#[test]
fn a_file_goes_there_once_and_comes_back_whole() {
    let bench = Bench::new();
    let hash = bench.depot.put_bytes(TEXT, "txt").unwrap().hash;
    let bytes = TEXT.len() as u64;
    assert_eq!(bench.far.put(&bench.depot, &hash, &mut all).unwrap(), Sent::New(bytes));
    assert_eq!(bench.far.put(&bench.depot, &hash, &mut all).unwrap(), Sent::There(bytes));
    assert_eq!(bench.memory.writes.load(Ordering::Relaxed), 1);

    let other = bench.other();
    let stored = bench.far.fetch(&other, &hash, (bytes, "txt"), &mut all).unwrap();
    assert!(stored.new);
    assert_eq!(other.read_verified(&hash, 100).unwrap(), TEXT);
    assert!(!bench.far.fetch(&other, &hash, (bytes, "txt"), &mut all).unwrap().new);
}

#[test]
fn what_is_there_with_the_same_size_is_still_read_and_replaced_if_damaged() {
    let bench = Bench::new();
    let hash = bench.depot.put_bytes(TEXT, "txt").unwrap().hash;
    bench.far.put(&bench.depot, &hash, &mut all).unwrap();
    bench.change(&hash, |object| object[3] ^= 1);
    let bytes = TEXT.len() as u64;
    let error = bench.far.verify(&hash, &mut all).unwrap_err();
    assert!(error.is_loss() && error.to_string().contains("is damaged"), "{error}");
    let error = bench.far.fetch(&bench.other(), &hash, (bytes, "txt"), &mut all).unwrap_err();
    assert!(matches!(error, FarError::Damaged { .. }), "{error}");
    assert!(!bench.other().contains(&hash).unwrap(), "nothing damaged gets into a depot");
    assert_eq!(bench.far.put(&bench.depot, &hash, &mut all).unwrap(), Sent::New(bytes));
    assert_eq!(bench.far.verify(&hash, &mut all).unwrap(), bytes);
}

#[test]
fn an_object_that_is_longer_or_shorter_is_refused() {
    let bench = Bench::new();
    let hash = bench.depot.put_bytes(TEXT, "txt").unwrap().hash;
    bench.far.put(&bench.depot, &hash, &mut all).unwrap();
    let bytes = TEXT.len() as u64;
    let fetch = || bench.far.fetch(&bench.other(), &hash, (bytes, "txt"), &mut all);
    bench.change(&hash, |object| object.push(b'!'));
    assert!(fetch().unwrap_err().to_string().contains("more than its 45 bytes"));
    bench.change(&hash, |object| object.truncate(9));
    assert!(fetch().unwrap_err().to_string().contains("9 of its 45 bytes"));
}

#[test]
fn a_line_that_breaks_is_taken_up_where_it_broke() {
    let bench = Bench::new();
    let hash = bench.depot.put_bytes(TEXT, "txt").unwrap().hash;
    bench.far.put(&bench.depot, &hash, &mut all).unwrap();
    let bytes = TEXT.len() as u64;
    // More breaks than tries, but each brings something.
    *bench.memory.breaks.lock().unwrap() = Some((10, 4));
    let mut moved = 0;
    let mut count = |n| {
        moved += n;
        ControlFlow::Continue(())
    };
    bench.far.fetch(&bench.other(), &hash, (bytes, "txt"), &mut count).unwrap();
    assert_eq!(moved, bytes, "no byte came twice");

    *bench.memory.breaks.lock().unwrap() = Some((0, 9));
    let error = bench.far.verify(&hash, &mut all).unwrap_err();
    assert!(matches!(error, FarError::Away(_)), "{error}");
    assert_eq!(bench.memory.breaks.lock().unwrap().unwrap().1, 9 - TRIES, "tries have an end");
}

#[test]
fn a_write_is_tried_again_and_read_back() {
    let bench = Bench::new();
    let hash = bench.depot.put_bytes(TEXT, "txt").unwrap().hash;
    bench.memory.failing.store(2, Ordering::Relaxed);
    bench.far.put(&bench.depot, &hash, &mut all).unwrap();
    bench.memory.failing.store(9, Ordering::Relaxed);
    let other = bench.depot.put_bytes(b"other", "txt").unwrap().hash;
    let error = bench.far.put(&bench.depot, &other, &mut all).unwrap_err();
    assert!(matches!(error, FarError::Away(_)), "{error}");
    bench.memory.failing.store(0, Ordering::Relaxed);
    // A store that says yes and keeps something else.
    bench.memory.spoils.store(1, Ordering::Relaxed);
    let error = bench.far.put(&bench.depot, &other, &mut all).unwrap_err();
    assert!(matches!(error, FarError::Damaged { .. }), "{error}");
    bench.far.put(&bench.depot, &other, &mut all).unwrap();
}

#[test]
fn what_is_damaged_here_is_not_sent() {
    let bench = Bench::new();
    let hash = bench.depot.put_bytes(TEXT, "txt").unwrap().hash;
    let path = bench.depot.path_of(&hash).unwrap().unwrap();
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, b"something else").unwrap();
    let error = bench.far.put(&bench.depot, &hash, &mut all).unwrap_err();
    assert!(matches!(error, FarError::Here(Error::Fault(_))), "{error}");
    assert_eq!(bench.memory.writes.load(Ordering::Relaxed), 0);
}

#[test]
fn whoever_watches_can_end_it() {
    let bench = Bench::new();
    let hash = bench.depot.put_bytes(TEXT, "txt").unwrap().hash;
    let mut stop = |_| ControlFlow::Break(());
    let error = bench.far.put(&bench.depot, &hash, &mut stop).unwrap_err();
    assert!(matches!(error, FarError::Stopped), "{error}");
    assert!(bench.memory.objects.lock().unwrap().is_empty());
    bench.far.put(&bench.depot, &hash, &mut all).unwrap();
    let bytes = TEXT.len() as u64;
    let error = bench.far.fetch(&bench.other(), &hash, (bytes, "txt"), &mut stop).unwrap_err();
    assert!(matches!(error, FarError::Stopped), "{error}");
}

#[test]
fn a_disk_without_room_refuses_before_the_first_byte() {
    let bench = Bench::new();
    let hash = bench.depot.put_bytes(TEXT, "txt").unwrap().hash;
    bench.far.put(&bench.depot, &hash, &mut all).unwrap();
    let reads = bench.memory.reads.load(Ordering::Relaxed);
    let full = DepotOptions { keep_free: u64::MAX / 2 };
    let other = Depot::open(&bench.dir.path().join("full"), full).unwrap();
    match bench.far.fetch(&other, &hash, (TEXT.len() as u64, "txt"), &mut all) {
        Err(FarError::Here(error)) => assert!(error.is_full(), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.memory.reads.load(Ordering::Relaxed), reads);
}

#[test]
fn a_folder_is_a_store_that_is_never_made_up() {
    let bench = Bench::new();
    let root = bench.dir.path().join("far");
    let open = || {
        Far::open(Options {
            address: format!("file://{}", root.display()).parse().unwrap(),
            endpoint: None,
            region: String::new(),
            plain: Plain::default(),
            credentials: None,
            rate: Some(100 << 20),
        })
        .unwrap()
    };
    let hash = bench.depot.put_bytes(TEXT, "txt").unwrap().hash;
    let error = open().put(&bench.depot, &hash, &mut all).unwrap_err();
    assert!(matches!(error, FarError::Refused(_)), "{error}");
    assert!(!root.exists(), "a mount point without its disk is not filled");
    fs_err::create_dir(&root).unwrap();

    let far = open();
    assert!(matches!(far.put(&bench.depot, &hash, &mut all), Ok(Sent::New(45))));
    assert!(matches!(open().put(&bench.depot, &hash, &mut all), Ok(Sent::There(45))));
    let part = far.put_into("parts", b"a part", &mut all).unwrap();
    assert_eq!(far.read_from("parts", &part, 6, &mut all).unwrap(), b"a part");
    assert!(
        far.read_from("parts", &part, 5, &mut all).unwrap_err().to_string().contains("5 bytes")
    );
    assert_eq!(far.list("parts").unwrap(), [(format!("parts/{part}"), 6)]);
    assert_eq!(far.list("nothing").unwrap(), []);
    assert_eq!(far.pointer("head", 9, &mut all).unwrap(), None);
    far.point("head", b"one", &mut all).unwrap();
    far.point("head", b"two", &mut all).unwrap();
    assert_eq!(far.pointer("head", 9, &mut all).unwrap().unwrap(), b"two");

    // What a killed write left is removed by the next one, what somebody writes just now is not.
    let left = root.join(".incoming/1-1-1");
    let busy = root.join(".incoming/1-1-2");
    fs_err::write(&left, "half").unwrap();
    let held = fs_err::File::create(&busy).unwrap();
    held.file().lock().unwrap();
    far.point("head", b"three", &mut all).unwrap();
    assert!(!left.exists() && busy.exists());
}

#[cfg(not(feature = "buckets"))]
#[test]
fn without_the_feature_a_bucket_is_refused() {
    let options = Options {
        address: "s3://far-away".parse().unwrap(),
        endpoint: None,
        region: String::new(),
        plain: Plain::default(),
        credentials: None,
        rate: None,
    };
    assert!(Far::open(options).unwrap_err().to_string().contains("feature `buckets`"));
}
