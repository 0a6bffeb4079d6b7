//! Peers of one process, on loopback, with real files and real connections.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::Options as DepotOptions;

/// A peer with a depot of its own.
struct Node {
    peers: Peers,
    depot: Depot,
    key: Key,
    folder: TempDir,
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl Node {
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(rate: Option<u64>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let depot = Depot::open(folder.path(), DepotOptions::default()).unwrap();
        let key = Key::generate();
        let options = Options { key: key.clone(), listen: loopback(), rate };
        let peers = Peers::open(&depot, options).await.unwrap();
        Self { peers, depot, key, folder }
    }

    /// Another life of it.
    async fn again(self) -> Self {
        let Self { peers, depot, key, folder } = self;
        peers.close().await;
        drop(peers);
        let options = Options { key: key.clone(), listen: loopback(), rate: None };
        let peers = Peers::open(&depot, options).await.unwrap();
        Self { peers, depot, key, folder }
    }

    fn id(&self) -> PeerId {
        self.peers.id()
    }
}

fn introduce(nodes: &[&Node]) {
    let members: BTreeMap<PeerId, Vec<SocketAddr>> =
        nodes.iter().map(|node| (node.id(), node.peers.addresses())).collect();
    for node in nodes {
        node.peers.admit(members.clone());
    }
}

/// Contents that no two sizes share.
fn contents(bytes: usize) -> Vec<u8> {
    let mut state = bytes as u64 | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()[7]
    };
    (0..bytes).map(|_| next()).collect()
}

fn want_of(contents: &[u8]) -> Want {
    Want { hash: Hash::of(contents), bytes: contents.len() as u64, extension: "npz".into() }
}

fn why_not(error: &FetchError) -> String {
    assert!(matches!(error, FetchError::NoPeer { .. }), "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_has_the_other_fetches_whole_and_serves_on() {
    let (a, b, c) = (Node::new().await, Node::new().await, Node::new().await);
    introduce(&[&a, &b, &c]);
    for size in [0, 1, 1024, 16 << 10, (16 << 10) + 1, 3_000_000] {
        let contents = contents(size);
        let want = want_of(&contents);
        a.depot.put_bytes(&contents, "npz").unwrap();
        let stored = b.peers.fetch(&want, &[a.id()]).await.unwrap();
        assert_eq!(stored, Stored { hash: want.hash, bytes: size as u64, new: true });
        assert_eq!(b.depot.read_verified(&want.hash, 4_000_000).unwrap(), contents, "{size}");
        let again = b.peers.fetch(&want, &[a.id()]).await.unwrap();
        assert!(!again.new);
        // From the one who fetched it, too.
        c.peers.fetch(&want, &[b.id()]).await.unwrap();
        c.depot.verify(&want.hash).unwrap();
    }
    assert!(a.depot.verify_all(|_| {}).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_have_it_not_are_passed_over() {
    let (a, b, c) = (Node::new().await, Node::new().await, Node::new().await);
    introduce(&[&a, &b, &c]);
    let contents = contents(100_000);
    let want = want_of(&contents);
    let stranger = Key::generate().peer();
    let nobody = b.peers.fetch(&want, &[a.id(), stranger]).await.unwrap_err();
    let nobody = why_not(&nobody);
    assert!(nobody.contains("does not give it") && nobody.contains("is no member"), "{nobody}");
    assert!(b.peers.fetch(&want, &[]).await.unwrap_err().to_string().contains("nobody was named"));
    c.depot.put_bytes(&contents, "npz").unwrap();
    b.peers.fetch(&want, &[a.id(), stranger, b.id(), c.id()]).await.unwrap();
    b.depot.verify(&want.hash).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_nothing() {
    let (a, b) = (Node::new().await, Node::new().await);
    let contents = contents(100_000);
    let want = want_of(&contents);
    a.depot.put_bytes(&contents, "npz").unwrap();
    // The stranger knows where the other is, and is not known there.
    b.peers.admit([(a.id(), a.peers.addresses())].into());
    why_not(&b.peers.fetch(&want, &[a.id()]).await.unwrap_err());
    assert!(!b.depot.contains(&want.hash).unwrap());
    // Somebody else at the right place is somebody else.
    let other = Key::generate().peer();
    b.peers.admit([(other, a.peers.addresses())].into());
    why_not(&b.peers.fetch(&want, &[other]).await.unwrap_err());
    introduce(&[&a, &b]);
    b.peers.fetch(&want, &[a.id()]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_is_not_served_and_not_taken() {
    let (a, b) = (Node::new().await, Node::new().await);
    introduce(&[&a, &b]);
    let contents = contents(300_000);
    let want = want_of(&contents);
    a.depot.put_bytes(&contents, "npz").unwrap();
    let path = a.depot.path_of(&want.hash).unwrap().unwrap();
    let mut damaged = contents.clone();
    damaged[200_000] ^= 1;
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, &damaged).unwrap();
    why_not(&b.peers.fetch(&want, &[a.id()]).await.unwrap_err());
    assert!(!b.depot.contains(&want.hash).unwrap());

    // Damaged after its hash tree was made: the piece does not arrive.
    fs_err::write(&path, &contents).unwrap();
    let c = Node::new().await;
    introduce(&[&a, &b, &c]);
    c.peers.fetch(&want, &[a.id()]).await.unwrap();
    fs_err::write(&path, &damaged).unwrap();
    why_not(&b.peers.fetch(&want, &[a.id()]).await.unwrap_err());
    assert!(!b.depot.contains(&want.hash).unwrap());
    // Somebody else's is whole; the pieces that were sound are not sent again.
    b.peers.fetch(&want, &[a.id(), c.id()]).await.unwrap();
    b.depot.verify(&want.hash).unwrap();

    // What was damaged here is replaced.
    let path = b.depot.path_of(&want.hash).unwrap().unwrap();
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, &damaged).unwrap();
    b.peers.fetch(&want, &[c.id()]).await.unwrap();
    b.depot.verify(&want.hash).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_that_was_announced_is_the_most_that_is_taken() {
    let (a, b) = (Node::new().await, Node::new().await);
    introduce(&[&a, &b]);
    let contents = contents(500_000);
    let want = want_of(&contents);
    a.depot.put_bytes(&contents, "npz").unwrap();
    for bytes in [100_000, 499_999] {
        let less = Want { bytes, ..want.clone() };
        b.peers.fetch(&less, &[a.id()]).await.unwrap_err();
        assert!(!b.depot.contains(&want.hash).unwrap());
    }
    let more = Want { bytes: u64::MAX / 2, ..want.clone() };
    let full = b.peers.fetch(&more, &[a.id()]).await.unwrap_err();
    assert!(matches!(&full, FetchError::Depot(error) if error.is_full()), "{full}");
    b.peers.fetch(&want, &[a.id()]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_left_the_depot_is_fetched_again() {
    let (a, b) = (Node::new().await, Node::new().await);
    introduce(&[&a, &b]);
    let contents = contents(200_000);
    let want = want_of(&contents);
    a.depot.put_bytes(&contents, "npz").unwrap();
    for _ in 0..3 {
        b.peers.fetch(&want, &[a.id()]).await.unwrap();
        b.depot.verify(&want.hash).unwrap();
        fs_err::remove_file(b.depot.path_of(&want.hash).unwrap().unwrap()).unwrap();
    }
    let left = fs_err::read_dir(b.folder.path().join(FOLDER)).unwrap();
    let again = left.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("again-")
    });
    assert_eq!(again.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_was_cut_off_goes_on_where_it_was() {
    // Slow enough to be cut off: 4 MB at 2 MB/s.
    let a = Node::with(Some(2_000_000)).await;
    let b = Node::new().await;
    introduce(&[&a, &b]);
    let contents = contents(4_000_000);
    let want = want_of(&contents);
    a.depot.put_bytes(&contents, "npz").unwrap();
    let from = [a.id()];
    let there = async |b: &Node| {
        let raw = HashAndFormat::raw(theirs(&want.hash));
        b.peers.aside.store.remote().local(raw).await.unwrap().local_bytes()
    };
    {
        let cut = async {
            while there(&b).await < 500_000 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            fetched = b.peers.fetch(&want, &from) => panic!("not cut off: {fetched:?}"),
            () = cut => {}
        }
    }
    let b = b.again().await;
    introduce(&[&a, &b]);
    let local = there(&b).await;
    assert!((400_000..4_000_000).contains(&local), "{local} bytes are there");
    b.peers.fetch(&want, &[a.id()]).await.unwrap();
    b.depot.verify(&want.hash).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_want_the_same_fetch_it_once() {
    let (a, b) = (Node::new().await, Node::new().await);
    introduce(&[&a, &b]);
    let contents = contents(1_000_000);
    let want = want_of(&contents);
    a.depot.put_bytes(&contents, "npz").unwrap();
    let (from, b) = ([a.id()], Arc::new(b));
    let mut fetches = JoinSet::new();
    for _ in 0..8 {
        let (b, want) = (Arc::clone(&b), want.clone());
        fetches.spawn(async move { b.peers.fetch(&want, &from).await.unwrap().new });
    }
    let new = fetches.join_all().await;
    assert_eq!(new.iter().filter(|new| **new).count(), 1);
}

#[tokio::test]
async fn a_member_is_reached_where_it_said_that_it_is_and_not_after_its_end() {
    let (one, two) = (Node::new().await, Node::new().await);
    assert_eq!(one.peers.reach(two.id()).await, Err("is no member".to_owned()));
    introduce(&[&one, &two]);
    one.peers.reach(two.id()).await.unwrap();
    let (gone, place) = (two.id(), two.peers.addresses());
    two.peers.close().await;
    one.peers.admit([(gone, place)].into());
    let why = one.peers.reach(gone).await.unwrap_err();
    assert!(why == "does not answer" || why.starts_with("cannot be reached"), "{why}");
}
