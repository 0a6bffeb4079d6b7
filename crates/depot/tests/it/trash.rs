//! The one way out.

use std::time::Duration;

use depot::{Emptied, Error, Fault, Hash, Receipt, Warrant};

use crate::{Bench, flip};

const NOW: i64 = 1_700_000_000_000;

fn rebuildable() -> Warrant {
    Warrant::Rebuildable("from its parts".to_owned())
}

fn receipts(holders: &[&str]) -> Warrant {
    let receipt = |holder: &&str| Receipt { holder: (*holder).to_owned(), verified_ms: NOW };
    Warrant::Copies(holders.iter().map(receipt).collect())
}

#[test]
fn a_deleted_file_waits_in_the_trash_with_its_reason() {
    let bench = Bench::new();
    let hash = bench.depot.put_bytes(b"old", "bin").unwrap().hash;
    bench.depot.trash(&hash, &rebuildable(), NOW).unwrap();
    assert!(!bench.depot.contains(&hash).unwrap());
    let trashed = bench.depot.trashed().unwrap();
    assert_eq!(trashed.len(), 1);
    let first = &trashed[0];
    assert_eq!((first.hash, first.bytes, first.at_ms), (hash, 3, NOW));
    assert_eq!(first.why, "can be made again: from its parts");
    let usage = bench.depot.usage().unwrap();
    assert_eq!((usage.files, usage.trash_files, usage.trash_bytes), (0, 1, 3));

    let day = Duration::from_hours(24);
    assert_eq!(bench.depot.empty_trash(day, NOW + 86_399_999).unwrap(), Emptied::default());
    assert!(bench.depot.restore(&hash).unwrap());
    assert_eq!(bench.depot.read_verified(&hash, 10).unwrap(), b"old");
    assert!(!bench.depot.restore(&hash).unwrap());

    bench.depot.trash(&hash, &rebuildable(), NOW).unwrap();
    let emptied = bench.depot.empty_trash(day, NOW + 86_400_000).unwrap();
    assert_eq!(emptied, Emptied { files: 1, bytes: 3 });
    assert_eq!(fs_err::read_dir(bench.depot.root().join("trash")).unwrap().count(), 0);
    assert!(!bench.depot.restore(&hash).unwrap());
}

#[test]
fn without_sufficient_grounds_nothing_is_deleted() {
    let bench = Bench::new();
    let hash = bench.depot.put_bytes(b"precious", "bin").unwrap().hash;
    for (warrant, why) in [
        (receipts(&[]), "0 of 2 copies"),
        (receipts(&["a"]), "1 of 2 copies"),
        (receipts(&["a", "a"]), "1 of 2 copies"),
        (Warrant::Rebuildable(" ".to_owned()), "no reason"),
        (Warrant::Retention(String::new()), "no reason"),
        (Warrant::Damaged, "it is sound"),
    ] {
        let error = bench.depot.trash(&hash, &warrant, NOW).unwrap_err();
        assert!(matches!(error, Error::NotWarranted { .. }), "{warrant:?}: {error}");
        assert!(error.to_string().contains(why), "{error}");
        bench.depot.verify(&hash).unwrap();
    }
    assert_eq!(bench.depot.trashed().unwrap(), vec![]);
    bench.depot.trash(&hash, &receipts(&["a", "b"]), NOW).unwrap();
    assert!(bench.depot.trashed().unwrap()[0].why.contains("a (verified 1700000000000 ms) b"));
}

#[test]
fn a_damaged_file_can_be_put_away_and_is_not_restored() {
    let bench = Bench::new();
    let hash = bench.depot.put_bytes(b"fragile", "bin").unwrap().hash;
    flip(&bench.depot.path_of(&hash).unwrap().unwrap(), 3);
    bench.depot.trash(&hash, &Warrant::Damaged, NOW).unwrap();
    let error = bench.depot.restore(&hash).unwrap_err();
    assert!(matches!(error, Error::Fault(Fault::Wrong { .. })), "{error}");
    assert_eq!(bench.depot.trashed().unwrap().len(), 1);
    // A sound copy takes its place.
    assert!(bench.depot.put_bytes(b"fragile", "bin").unwrap().new);
    bench.depot.verify(&hash).unwrap();
}

#[test]
fn what_is_not_there_cannot_be_deleted() {
    let bench = Bench::new();
    let error = bench.depot.trash(&Hash::of(b"?"), &rebuildable(), NOW).unwrap_err();
    assert!(matches!(error, Error::Fault(Fault::Missing { .. })), "{error}");
    assert_eq!(fs_err::read_dir(bench.depot.root().join("trash")).unwrap().count(), 0);
}

#[test]
fn strange_files_in_the_trash_are_left_alone() {
    let bench = Bench::new();
    let strange = bench.depot.root().join("trash/notes");
    fs_err::write(&strange, "x").unwrap();
    assert_eq!(bench.depot.trashed().unwrap(), vec![]);
    bench.depot.empty_trash(Duration::ZERO, i64::MAX).unwrap();
    assert!(strange.exists());
}
