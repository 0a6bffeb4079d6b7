//! Files that are not what their name says.

use depot::Hash;

use crate::{Bench, flip};

#[test]
fn only_what_is_wrong_is_set_aside_and_nothing_of_it_is_lost() {
    let bench = Bench::new();
    let stored = bench.depot.put_bytes(b"contents", "npz").unwrap();
    assert_eq!(bench.depot.quarantine(&stored.hash).unwrap(), None, "it is sound");
    assert_eq!(bench.depot.quarantine(&Hash::of(b"nothing")).unwrap(), None, "it is not there");
    assert!(bench.depot.quarantined().unwrap().is_empty());

    let path = bench.depot.path_of(&stored.hash).unwrap().unwrap();
    flip(&path, 3);
    let damaged = fs_err::read(&path).unwrap();
    let aside = bench.depot.quarantine(&stored.hash).unwrap().unwrap();
    assert!(!bench.depot.contains(&stored.hash).unwrap());
    assert_eq!(fs_err::read(&aside).unwrap(), damaged);
    let found = bench.depot.quarantined().unwrap();
    assert_eq!((found.len(), found[0].hash, found[0].actual), (1, stored.hash, Hash::of(&damaged)));

    // What is stored again replaces what was damaged again, which is one file with the first.
    bench.depot.put_bytes(b"contents", "npz").unwrap();
    flip(&path, 3);
    assert!(bench.depot.put_bytes(b"contents", "npz").unwrap().new);
    bench.depot.verify(&stored.hash).unwrap();
    assert_eq!(bench.depot.quarantined().unwrap(), found);
    assert!(bench.depot.verify_all(|_| {}).unwrap().is_empty());
}
