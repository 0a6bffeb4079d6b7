//! Peers of one process, on loopback, with real files and real connections.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use iroh_blobs::HashAndFormat;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::{Options as DepotOptions, Stored};

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
        Self::over(rate, Vec::new()).await
    }

    async fn over(rate: Option<u64>, relays: Vec<Relay>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let depot = Depot::open(folder.path(), DepotOptions::default()).unwrap();
        let key = Key::generate();
        let options = Options { key: key.clone(), listen: loopback(), rate, relays };
        let peers = Peers::open(&depot, options).await.unwrap();
        Self { peers, depot, key, folder }
    }

    /// Another life of it.
    async fn again(self) -> Self {
        let Self { peers, depot, key, folder } = self;
        peers.close().await;
        drop(peers);
        let options =
            Options { key: key.clone(), listen: loopback(), rate: None, relays: Vec::new() };
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

/// What each of them gave, bytes.
fn gave(nodes: &[&Node]) -> Vec<u64> {
    nodes.iter().map(|node| node.peers.served().bytes).collect()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not so after 10 s: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_give_one_thing_together_and_none_of_them_twice() {
    // So slow that each has its turn.
    let holders = [Node::with(Some(8_000_000)).await, Node::with(Some(8_000_000)).await];
    let (a, b) = (&holders[0], &holders[1]);
    let c = Node::new().await;
    introduce(&[a, b, &c]);
    let contents = contents(16 << 20);
    let want = want_of(&contents);
    for holder in &holders {
        holder.depot.put_bytes(&contents, "npz").unwrap();
    }
    c.peers.fetch(&want, &[a.id(), b.id()]).await.unwrap();
    c.depot.verify(&want.hash).unwrap();
    until("all was counted", || gave(&[a, b]).iter().sum::<u64>() >= want.bytes).await;
    for bytes in gave(&[a, b]) {
        assert!((4 << 20..=12 << 20).contains(&bytes), "{bytes} of {}", want.bytes);
    }
    let served = a.peers.served();
    assert_eq!(served.by_peer, BTreeMap::from([(c.id(), served.bytes)]));
    assert!(served.answers > 1 && served.strangers == 0 && served.not_here == 0, "{served:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_lies_or_dies_is_passed_over_and_the_others_go_on() {
    let (dies, lies, good) =
        (Node::with(Some(1_000_000)).await, Node::new().await, Node::with(Some(8_000_000)).await);
    let c = Node::new().await;
    introduce(&[&dies, &lies, &good, &c]);
    let contents = contents(8 << 20);
    let want = want_of(&contents);
    for node in [&dies, &lies, &good] {
        node.depot.put_bytes(&contents, "npz").unwrap();
    }
    // Its hash tree is made, then every group of its file is damaged.
    assert!(c.peers.has(lies.id(), &want.hash, want.bytes).await.unwrap());
    let path = lies.depot.path_of(&want.hash).unwrap().unwrap();
    let damaged: Vec<u8> = contents.iter().map(|byte| byte ^ 1).collect();
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, &damaged).unwrap();

    let from = [dies.id(), lies.id(), good.id()];
    let death = async {
        until("it has begun to give", || {
            let raw = c.peers.wanted.all();
            !raw.is_empty()
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        dies.peers.close().await;
    };
    let (fetched, ()) = tokio::join!(c.peers.fetch(&want, &from), death);
    fetched.unwrap();
    c.depot.verify(&want.hash).unwrap();
    until("all was counted", || gave(&[&good])[0] > 2 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_that_fetch_at_once_help_each_other() {
    let source = Node::with(Some(8_000_000)).await;
    let swarm = [Node::new().await, Node::new().await, Node::new().await, Node::new().await];
    let mut everybody: Vec<&Node> = swarm.iter().collect();
    everybody.push(&source);
    introduce(&everybody);
    let contents = contents(16 << 20);
    let want = want_of(&contents);
    source.depot.put_bytes(&contents, "npz").unwrap();
    let mut from = vec![source.id()];
    from.extend(swarm.iter().map(Node::id));
    let fetch = |node: usize| swarm[node].peers.fetch(&want, &from);
    let (a, b, c, d) = tokio::join!(fetch(0), fetch(1), fetch(2), fetch(3));
    for fetched in [a, b, c, d] {
        assert!(fetched.unwrap().new);
    }
    for node in &swarm {
        node.depot.verify(&want.hash).unwrap();
    }
    let given: u64 = gave(&swarm.each_ref()).iter().sum();
    assert!(given >= want.bytes, "they gave each other {given} bytes");
    let asked = source.peers.served().bytes;
    assert!(asked <= 2 * want.bytes, "the source gave {asked} bytes, four times would be alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_says_what_it_has_and_how_far_it_is() {
    let (a, b) = (Node::new().await, Node::new().await);
    introduce(&[&a, &b]);
    let contents = contents(100_000);
    let want = want_of(&contents);
    let has = async |bytes: u64| b.peers.has(a.id(), &want.hash, bytes).await;
    assert_eq!(has(want.bytes).await, Ok(false));
    a.depot.put_bytes(&contents, "npz").unwrap();
    assert_eq!(has(want.bytes).await, Ok(true));
    assert_eq!(has(want.bytes + 1).await, Ok(false), "it is another size");
    let reached = b.peers.reach(a.id()).await.unwrap();
    assert!(reached.at.contains("127.0.0.1"), "{reached:?}");
    assert!(reached.round_trip < Duration::from_secs(2), "{reached:?}");
    let stranger = Key::generate().peer();
    assert_eq!(b.peers.reach(stranger).await, Err("is no member".to_owned()));
    a.peers.close().await;
    assert!(has(want.bytes).await.is_err(), "who does not answer says nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_is_kept_aside_where_it_is_asked_for_and_where_it_is_replaced() {
    let (a, b) = (Node::new().await, Node::new().await);
    introduce(&[&a, &b]);
    let contents = contents(300_000);
    let want = want_of(&contents);
    for node in [&a, &b] {
        node.depot.put_bytes(&contents, "npz").unwrap();
    }
    let damage = |node: &Node| {
        let path = node.depot.path_of(&want.hash).unwrap().unwrap();
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, b"something else").unwrap();
    };
    damage(&b);
    b.peers.fetch(&want, &[a.id()]).await.unwrap();
    b.depot.verify(&want.hash).unwrap();
    let aside = b.depot.quarantined().unwrap();
    assert_eq!((aside.len(), aside[0].hash), (1, want.hash));
    assert_eq!(fs_err::read(&aside[0].path).unwrap(), b"something else");

    damage(&a);
    assert_eq!(b.peers.has(a.id(), &want.hash, want.bytes).await, Ok(false));
    assert_eq!(a.depot.quarantined().unwrap().len(), 1);
    assert!(!a.depot.contains(&want.hash).unwrap());
    assert_eq!(a.peers.served().not_here, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_after_it_was_given_is_set_aside_when_it_is_asked_for_again() {
    let nodes = [Node::new().await, Node::new().await, Node::new().await];
    let [a, b, c] = &nodes;
    introduce(&[a, b, c]);
    let contents = contents(300_000);
    let want = want_of(&contents);
    a.depot.put_bytes(&contents, "npz").unwrap();
    b.peers.fetch(&want, &[a.id()]).await.unwrap();
    let path = a.depot.path_of(&want.hash).unwrap().unwrap();
    // In place, of the same size, and sound where it begins.
    let mut permissions = fs_err::metadata(&path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs_err::set_permissions(&path, permissions).unwrap();
    let mut spoilt = contents.clone();
    spoilt[250_000] ^= 1;
    fs_err::write(&path, spoilt).unwrap();

    let refused = c.peers.fetch(&want, &[a.id()]).await.unwrap_err();
    assert!(why_not(&refused).contains("does not give it"), "{refused}");
    until("it is set aside", || a.depot.quarantined().unwrap().len() == 1).await;
    assert!(!a.depot.contains(&want.hash).unwrap());
    c.peers.fetch(&want, &[a.id(), b.id()]).await.unwrap();
    c.depot.verify(&want.hash).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_an_address_and_a_dead_one_keeps_nobody_apart_who_is_near() {
    for wrong in ["", "relay.example", "ftp://relay.example", "https://"] {
        let error = wrong.parse::<Relay>().unwrap_err().to_string();
        assert!(error.contains("https://relay.example is allowed"), "{error}");
    }
    let relay: Relay = "http://127.0.0.1:9".parse().unwrap();
    let (a, b) = (Node::over(None, vec![relay.clone()]).await, Node::over(None, vec![relay]).await);
    introduce(&[&a, &b]);
    let contents = contents(100_000);
    let want = want_of(&contents);
    a.depot.put_bytes(&contents, "npz").unwrap();
    b.peers.fetch(&want, &[a.id()]).await.unwrap();
    b.depot.verify(&want.hash).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_reached_directly_is_reached_over_a_relay() {
    let mut config = iroh_relay::server::ServerConfig::default();
    config.relay = Some(iroh_relay::server::RelayConfig::new(loopback()));
    let server = iroh_relay::server::Server::spawn(config).await.unwrap();
    let relay: Relay = format!("http://{}", server.http_addr().unwrap()).parse().unwrap();
    let over = |relay: &Relay| Node::over(None, vec![relay.clone()]);
    let (a, b) = (over(&relay).await, over(&relay).await);
    let contents = contents(300_000);
    let want = want_of(&contents);
    a.depot.put_bytes(&contents, "npz").unwrap();
    // Nobody is told where the other is.
    let members: BTreeMap<PeerId, Vec<SocketAddr>> =
        [&a, &b].map(|node| (node.id(), Vec::new())).into();
    for node in [&a, &b] {
        node.peers.admit(members.clone());
    }
    b.peers.fetch(&want, &[a.id()]).await.unwrap();
    b.depot.verify(&want.hash).unwrap();

    // A third one without the relay is told no more, and reaches nobody.
    let without = Node::new().await;
    without.peers.admit(members);
    let refused = without.peers.fetch(&want, &[a.id()]).await.unwrap_err();
    assert!(why_not(&refused).contains("cannot be reached"), "{refused}");
    server.shutdown().await.unwrap();
}
