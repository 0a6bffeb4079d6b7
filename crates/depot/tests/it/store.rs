//! Putting, reading, verifying.

use std::io::Read;

use depot::{Depot, Error, Fault, Hash, Options};

use crate::{Bench, flip};

#[test]
fn what_is_put_comes_back() {
    let bench = Bench::new();
    let contents = vec![7_u8; 300_000];
    let path = bench.file("a.txt", &contents);
    let stored = bench.depot.put_file(&path, "npz").unwrap();
    assert_eq!((stored.hash, stored.bytes, stored.new), (Hash::of(&contents), 300_000, true));
    assert!(path.exists(), "the original stays");

    let place = bench.depot.path_of(&stored.hash).unwrap().unwrap();
    let name = stored.hash.to_string();
    let expected = bench.depot.root().join("blobs").join(&name[..2]).join(format!("{name}.npz"));
    assert_eq!(place, expected);
    assert_eq!(bench.depot.read_verified(&stored.hash, 300_000).unwrap(), contents);
    let mut read = Vec::new();
    bench.depot.open_verified(&stored.hash).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, contents);

    let bytes = bench.depot.put_bytes(b"", "bin").unwrap();
    assert_eq!(bench.depot.read_verified(&bytes.hash, 0).unwrap(), b"");
    assert_eq!(bench.incoming(), 0);
}

#[test]
fn the_same_contents_are_one_file_whatever_the_ending() {
    let bench = Bench::new();
    let first = bench.depot.put_bytes(b"same", "bin").unwrap();
    let second = bench.depot.put_bytes(b"same", "txt").unwrap();
    assert_eq!((first.hash, true, false), (second.hash, first.new, second.new));
    assert_eq!(bench.depot.list().unwrap().len(), 1);
    assert_eq!(bench.incoming(), 0);
}

#[test]
fn an_adopted_file_is_moved_and_a_second_one_just_goes() {
    let bench = Bench::new();
    for new in [true, false] {
        let path = bench.file("work", b"result");
        let stored = bench.depot.adopt_file(&path, "json").unwrap();
        assert_eq!(stored.new, new);
        assert!(!path.exists());
        bench.depot.verify(&stored.hash).unwrap();
    }
    assert_eq!(bench.depot.list().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_adopted_stays_where_it_is() {
    let bench = Bench::new();
    let path = bench.file("work", b"result");
    assert!(matches!(bench.depot.adopt_file(&path, "../x"), Err(Error::Extension(_))));
    assert_eq!(fs_err::read(&path).unwrap(), b"result");
    assert!(bench.depot.adopt_file(&bench.dir.path().join("none"), "bin").is_err());
    assert_eq!(bench.depot.list().unwrap(), vec![]);
}

#[test]
fn a_promise_that_is_not_kept_stores_nothing() {
    let bench = Bench::new();
    let path = bench.file("a", b"truth");
    let promised = Hash::of(b"lie");
    let error = bench.depot.adopt_expected(&path, "bin", &promised).unwrap_err();
    assert!(matches!(error, Error::NotAsPromised { .. }), "{error}");
    assert!(error.to_string().contains(&promised.to_string()), "{error}");
    assert_eq!((bench.depot.list().unwrap().len(), path.exists()), (0, true));
    assert!(bench.depot.put_file_as(&path, "bin", &promised).is_err());
    assert_eq!((bench.depot.list().unwrap().len(), bench.incoming()), (0, 0));
    assert!(bench.depot.put_file_as(&path, "bin", &Hash::of(b"truth")).unwrap().new);
    assert!(!bench.depot.adopt_expected(&path, "bin", &Hash::of(b"truth")).unwrap().new);
    assert_eq!((bench.depot.list().unwrap().len(), path.exists()), (1, false));
}

#[test]
fn links_and_pipes_are_not_adopted() {
    let bench = Bench::new();
    let secret = bench.file("secret", b"not yours");
    let link = bench.dir.path().join("link");
    std::os::unix::fs::symlink(&secret, &link).unwrap();
    let pipe = bench.dir.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for path in [&link, &pipe, &bench.dir.path().to_path_buf()] {
        let error = bench.depot.adopt_file(path, "bin").unwrap_err();
        assert!(matches!(error, Error::Io(_)), "{}: {error}", path.display());
        assert!(path.exists());
    }
    assert_eq!(bench.depot.list().unwrap(), vec![]);
}

#[test]
fn a_file_of_another_file_system_is_adopted_by_copying() {
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("there is no second file system here");
        return;
    };
    let path = elsewhere.path().join("work");
    fs_err::write(&path, b"from far").unwrap();
    let bench = Bench::new();
    let stored = bench.depot.adopt_file(&path, "bin").unwrap();
    assert!(stored.new && !path.exists());
    assert_eq!(bench.depot.read_verified(&stored.hash, 10).unwrap(), b"from far");
}

#[test]
fn one_flipped_byte_is_found_and_the_file_named() {
    let bench = Bench::new();
    let sound = bench.depot.put_bytes(&vec![1; 100_000], "bin").unwrap();
    for (filling, at) in [(2, 0), (3, 65_536), (4, 199_999)] {
        let stored = bench.depot.put_bytes(&vec![filling; 200_000], "npz").unwrap();
        let path = bench.depot.path_of(&stored.hash).unwrap().unwrap();
        flip(&path, at);
        let named = |fault: &Fault| {
            assert!(matches!(fault, Fault::Wrong { expected, .. } if *expected == stored.hash));
            assert!(fault.to_string().contains(path.to_str().unwrap()), "{fault}");
        };
        named(&bench.depot.verify(&stored.hash).unwrap_err());
        for result in [
            bench.depot.read_verified(&stored.hash, u64::MAX).map(drop),
            bench.depot.open_verified(&stored.hash).map(drop),
        ] {
            let Err(Error::Fault(fault)) = result else { panic!("{result:?}") };
            named(&fault);
        }
        let faults = bench.depot.verify_all(|_| {}).unwrap();
        assert_eq!(faults.len(), 1);
        named(&faults[0]);
        // Put again, it is sound again.
        assert!(bench.depot.put_bytes(&vec![filling; 200_000], "npz").unwrap().new);
        bench.depot.verify(&stored.hash).unwrap();
    }
    bench.depot.verify(&sound.hash).unwrap();
}

#[test]
fn verifying_all_reports_progress_and_what_does_not_belong() {
    let bench = Bench::new();
    for i in 0..5_u8 {
        bench.depot.put_bytes(&[i; 1000], "bin").unwrap();
    }
    let blobs = bench.depot.root().join("blobs");
    let folder = blobs.join(&Hash::of(&[0; 1000]).to_string()[..2]);
    let misplaced = Hash::of(b"elsewhere");
    fs_err::write(folder.join("notes.txt"), "x").unwrap();
    fs_err::write(folder.join(format!("{misplaced}.bin")), "elsewhere").unwrap();
    fs_err::write(blobs.join("loose"), "x").unwrap();
    let mut steps = Vec::new();
    let faults = bench.depot.verify_all(|progress| steps.push(progress)).unwrap();
    assert_eq!(steps.iter().map(|step| step.files).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let last = steps.last().unwrap();
    assert_eq!((last.bytes, last.bytes_total, last.files_total), (5000, 5000, 5));
    let mut named: Vec<_> = faults
        .iter()
        .map(|fault| match fault {
            Fault::Stray { path } => path.file_name().unwrap().to_str().unwrap().to_owned(),
            other => panic!("{other}"),
        })
        .collect();
    named.sort();
    let mut expected = vec![format!("{misplaced}.bin"), "loose".into(), "notes.txt".into()];
    expected.sort();
    assert_eq!(named, expected);
    assert_eq!(bench.depot.usage().unwrap().files, 5);
    assert_eq!(bench.depot.usage().unwrap().bytes, 5000);
}

#[test]
fn what_is_missing_is_missing() {
    let bench = Bench::new();
    let hash = Hash::of(b"nothing");
    assert_eq!(bench.depot.path_of(&hash).unwrap(), None);
    assert!(!bench.depot.contains(&hash).unwrap());
    assert!(matches!(bench.depot.verify(&hash), Err(Fault::Missing { .. })));
    assert!(matches!(
        bench.depot.read_verified(&hash, 10),
        Err(Error::Fault(Fault::Missing { .. }))
    ));
}

#[test]
fn a_file_larger_than_expected_is_not_read() {
    let bench = Bench::new();
    let stored = bench.depot.put_bytes(&[0; 1000], "bin").unwrap();
    let error = bench.depot.read_verified(&stored.hash, 999).unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes: 1000, limit: 999, .. }), "{error}");
}

#[test]
fn endings_that_could_be_paths_are_refused() {
    let bench = Bench::new();
    for extension in ["", "/", "..", "a/b", "tar.gz", "NPZ", "a b", "abcdefghijklmnopq"] {
        let error = bench.depot.put_bytes(b"x", extension).unwrap_err();
        assert!(matches!(error, Error::Extension(_)), "{extension:?}: {error}");
    }
    assert_eq!((bench.depot.list().unwrap().len(), bench.incoming()), (0, 0));
}

#[test]
fn space_that_is_spoken_for_is_not_given_twice() {
    let bench = Bench::new();
    let error = bench.depot.reserve(u64::MAX / 4).unwrap_err();
    assert!(error.is_full(), "{error}");
    let small = bench.depot.reserve(1 << 20).unwrap();
    drop(small);

    // Half of what is free must stay free, so there is room for four tenths once, not twice. Shares
    // rather than bytes: others write to the same disk while this runs.
    let free = rustix::fs::statvfs(bench.dir.path()).unwrap();
    let free = free.f_bavail * free.f_frsize;
    let options = Options { keep_free: free / 2 };
    let tight = Depot::open(&bench.dir.path().join("tight"), options).unwrap();
    let size = free / 10 * 4;
    let first = tight.reserve(size).unwrap();
    let error = tight.reserve(size).unwrap_err();
    assert!(matches!(error, Error::NoSpace { needed, .. } if needed == size), "{error}");
    let large = bench.file("large", &[]);
    fs_err::File::options().write(true).open(&large).unwrap().set_len(size).unwrap();
    assert!(tight.put_file(&large, "bin").unwrap_err().is_full(), "files are asked for as well");
    assert_eq!(tight.list().unwrap(), vec![]);
    drop(first);
    tight.reserve(size).unwrap();
}

#[test]
fn an_interrupted_write_is_swept_and_a_running_one_is_not() {
    let bench = Bench::new();
    let incoming = bench.depot.root().join("blobs/incoming");
    fs_err::write(incoming.join("1-2-3"), "half of a fi").unwrap();
    let running = fs_err::File::create(incoming.join("4-5-6")).unwrap();
    running.file().lock().unwrap();
    let again = Depot::open(bench.depot.root(), Options::default()).unwrap();
    assert!(!incoming.join("1-2-3").exists());
    assert!(incoming.join("4-5-6").exists());
    drop(running);
    Depot::open(bench.depot.root(), Options::default()).unwrap();
    assert_eq!(bench.incoming(), 0);
    assert_eq!(again.list().unwrap(), vec![], "half a file is never visible");
}

#[test]
fn many_threads_may_put_the_same_and_different_things() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..20_u8 {
                    bench.depot.put_bytes(&[i; 5000], "bin").unwrap();
                    Depot::open(bench.depot.root(), Options::default()).unwrap();
                }
            });
        }
    });
    assert_eq!(bench.depot.list().unwrap().len(), 20);
    assert_eq!(bench.depot.verify_all(|_| {}).unwrap().len(), 0);
    assert_eq!(bench.incoming(), 0);
}
