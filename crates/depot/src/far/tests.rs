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
    /// Answers to a replacement that get lost, whatever it did.
    lost: AtomicU32,
}

impl Memory {
    /// Whether this one fails, of so many that are to.
    fn is_next(count: &AtomicU32) -> bool {
        count.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
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
        if Memory::is_next(&self.failing) {
            return Err(away());
        }
        if Memory::is_next(&self.spoils) {
            object[0] ^= 1;
        }
        self.objects.lock().unwrap().insert(key.to_owned(), object);
        Ok(())
    }

    fn version(&self, key: &str) -> FarResult<Option<Version>> {
        let objects = self.objects.lock().unwrap();
        Ok(objects.get(key).map(|object| Version::new(Hash::of(object).to_string())))
    }

    fn replace(&self, key: &str, version: Option<&Version>, contents: &[u8]) -> FarResult<bool> {
        let is_same = self.version(key)?.as_ref() == version;
        if is_same {
            self.write(key, &mut &*contents, contents.len() as u64)?;
        }
        if Memory::is_next(&self.lost) { Err(away()) } else { Ok(is_same) }
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

/// What every store does for two that write one pointer.
fn check_pointers(older: &Far, newer: &Far) {
    let point = |far: &Far, version: &Option<Version>, contents: &[u8]| {
        far.point("head", version.as_ref(), contents, &mut all).unwrap()
    };
    let says = || newer.pointer("head", 9, &mut all).unwrap().unwrap();
    let nothing = older.version("head").unwrap();
    assert_eq!(nothing, None);
    assert!(point(newer, &nothing, b"one"));
    assert!(!point(older, &nothing, b"else"), "there is one already");
    let one = older.version("head").unwrap();
    assert!(one.is_some() && older.version("head").unwrap() == one);
    assert!(point(newer, &one, b"two"));
    assert!(!point(older, &one, b"much longer"), "whoever slept goes over nothing newer");
    assert_eq!(says(), b"two");
    let two = older.version("head").unwrap();
    assert_ne!(two, one);
    assert!(point(older, &two, b"three"), "it has looked again");
    assert!(!point(newer, &nothing, b"else"));
    assert_eq!(says(), b"three");
}

#[test]
fn a_pointer_is_replaced_only_while_it_is_what_its_writer_has_seen() {
    let bench = Bench::new();
    check_pointers(&bench.far, &bench.far.clone());
}

#[test]
fn a_lost_answer_to_a_replacement_does_no_harm() {
    let bench = Bench::new();
    let point = |version: Option<&Version>, contents: &[u8]| {
        bench.far.point("head", version, contents, &mut all)
    };
    let lost = |count| bench.memory.lost.store(count, Ordering::Relaxed);
    lost(1);
    assert!(point(None, b"one").unwrap(), "the next try is refused, and finds its own there");
    lost(TRIES);
    let one = bench.far.version("head").unwrap();
    assert!(matches!(point(one.as_ref(), b"two"), Err(FarError::Away(_))));
    assert_eq!(bench.far.pointer("head", 9, &mut all).unwrap().unwrap(), b"two");
    lost(1);
    assert!(!point(one.as_ref(), b"three").unwrap(), "nothing of it is there");
    bench.memory.failing.store(2, Ordering::Relaxed);
    let two = bench.far.version("head").unwrap();
    assert!(point(two.as_ref(), b"three").unwrap(), "and one that did not land is tried again");

    let three = bench.far.version("head").unwrap();
    let mut stop = |_| ControlFlow::Break(());
    let stopped = bench.far.point("head", three.as_ref(), b"four", &mut stop);
    assert!(matches!(stopped, Err(FarError::Stopped)), "{stopped:?}");
    bench.memory.spoils.store(1, Ordering::Relaxed);
    assert!(matches!(point(three.as_ref(), b"four"), Err(FarError::Damaged { .. })));
    let spoilt = bench.far.version("head").unwrap();
    assert!(point(spoilt.as_ref(), b"four").unwrap(), "damaged, and replaced all the same");
}

fn folder_at(root: &std::path::Path) -> Far {
    Far::open(Options {
        address: format!("file://{}", root.display()).parse().unwrap(),
        endpoint: None,
        region: String::new(),
        plain: Plain::default(),
        credentials: None,
        rate: Some(100 << 20),
    })
    .unwrap()
}

#[test]
fn a_pointer_in_a_folder_is_replaced_only_while_it_is_what_its_writer_has_seen() {
    let dir = tempfile::tempdir().unwrap();
    let far = folder_at(dir.path());
    check_pointers(&far, &folder_at(dir.path()));

    // Longer than anybody reads, and other behind that; then what cannot be read at all.
    for length in [3 << 20, 4 << 20] {
        fs_err::remove_file(dir.path().join("head")).unwrap();
        fs_err::write(dir.path().join("head"), vec![7; length]).unwrap();
        let error = far.pointer("head", 99, &mut all).unwrap_err();
        assert!(matches!(error, FarError::Damaged { .. }), "{error}");
    }
    let long = far.version("head").unwrap();
    fs_err::OpenOptions::new()
        .append(true)
        .open(dir.path().join("head"))
        .and_then(|mut file| file.write_all(b"more"))
        .unwrap();
    assert!(!far.point("head", long.as_ref(), b"four", &mut all).unwrap());
    let long = far.version("head").unwrap();
    assert!(far.point("head", long.as_ref(), b"four", &mut all).unwrap());
}

#[test]
fn of_many_that_write_a_pointer_at_once_none_goes_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let count = |far: &Far| {
        let text = far.pointer("head", 9, &mut all).unwrap().unwrap_or_else(|| b"0 -".to_vec());
        let text = String::from_utf8(text).unwrap();
        text.split(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let start = std::sync::Barrier::new(4);
    let add = |who: u32| {
        let far = folder_at(dir.path());
        let mut added = 0;
        start.wait();
        while added < 20 {
            let version = far.version("head").unwrap();
            let next = format!("{} {who}", count(&far) + 1);
            match far.point("head", version.as_ref(), next.as_bytes(), &mut all) {
                // Damaged: its own was there, and is replaced again before it was read back.
                Ok(true) | Err(FarError::Damaged { .. }) => added += 1,
                Ok(false) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    thread::scope(|scope| {
        for who in 0..4 {
            let add = &add;
            scope.spawn(move || add(who));
        }
    });
    assert_eq!(count(&folder_at(dir.path())), 80);
}

#[test]
fn a_lock_that_somebody_keeps_is_an_obstacle_with_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder::Folder::new(dir.path());
    assert!(folder.replace("head", None, b"one").unwrap());
    let held = fs_err::File::open(dir.path().join(folder::LOCK)).unwrap();
    held.file().lock().unwrap();
    match folder.replace("head", folder.version("head").unwrap().as_ref(), b"two") {
        Err(FarError::Away(what)) => assert!(what.contains("holds the lock"), "{what}"),
        other => panic!("{other:?}"),
    }
    drop(held);
    assert!(folder.replace("head", folder.version("head").unwrap().as_ref(), b"two").unwrap());
    assert_eq!(fs_err::read(dir.path().join("head")).unwrap(), b"two");
}

#[test]
fn a_folder_is_a_store_that_is_never_made_up() {
    let bench = Bench::new();
    let root = bench.dir.path().join("far");
    let open = || folder_at(&root);
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
    assert!(far.point("head", None, b"one", &mut all).unwrap());
    assert_eq!(far.pointer("head", 9, &mut all).unwrap().unwrap(), b"one");

    // What a killed write left is removed by the next one, what somebody writes just now is not.
    let left = root.join(".incoming/1-1-1");
    let busy = root.join(".incoming/1-1-2");
    fs_err::write(&left, "half").unwrap();
    let held = fs_err::File::create(&busy).unwrap();
    held.file().lock().unwrap();
    let one = far.version("head").unwrap();
    assert!(far.point("head", one.as_ref(), b"two", &mut all).unwrap());
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
