//! A host on the same net that nobody invited.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use courier::jetstream::{Identity, JetStream, Options};
use depot::{
    Depot, Hash,
    peers::{FetchError, Key, PeerId, Peers, Want},
};

use serde_json::Value;

use crate::{
    Cluster, Odd,
    bed::Host,
    members,
    nodes::{Node, wait_for},
};

/// Much more than anybody should keep of what a stranger says.
const MANY_BYTES: u64 = 256 << 20;
/// A process that was shouted at holds at most so much more than before, in KiB.
const GROWS_BY: u64 = 64 << 10;

/// What the servers of a node's cluster say to who comes with this key and this pass.
fn knock(from: &Host, node: &Node, who: Option<([u8; 32], String)>) -> String {
    let servers = format!("tls://{}:4222", node.host.address);
    let certificate = node.data.join("cluster/servers.pem");
    from.inside(move || {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(servers, "ringrift", folder.path().to_path_buf());
        options.certificate = Some(certificate);
        options.patience = Duration::from_secs(5);
        options.identity = who.map(|(secret, pass)| Identity::new(secret, pass).unwrap());
        match runtime().block_on(JetStream::open(options)) {
            Ok(_) => panic!("a stranger was let in"),
            Err(error) => error.to_string(),
        }
    })
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub fn key_of(node: &Node) -> [u8; 32] {
    Key::of_file(&node.data.join("key")).unwrap().secret()
}

pub fn pass_of(node: &Node) -> String {
    let text = fs_err::read_to_string(node.data.join("cluster.toml")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("pass = ")).unwrap();
    line.trim_matches('"').to_owned()
}

/// What comes of asking some peers, the first ones first, for something that they have.
pub fn fetch(
    from: &Host,
    key: Key,
    of: &[&Node],
    hash: Hash,
    bytes: u64,
) -> Result<(), FetchError> {
    let mut at: BTreeMap<PeerId, Vec<SocketAddr>> = BTreeMap::new();
    let mut asked: Vec<PeerId> = Vec::new();
    for node in of {
        let peer = Key::of_file(&node.data.join("key")).unwrap().peer();
        at.insert(peer, vec![format!("{}:4433", node.host.address).parse().unwrap()]);
        asked.push(peer);
    }
    let listen: SocketAddr = format!("{}:0", from.address).parse().unwrap();
    from.inside(move || {
        let folder = tempfile::tempdir().unwrap();
        let depot = Depot::open(folder.path(), depot::Options::default()).unwrap();
        runtime().block_on(async {
            let options = depot::peers::Options { key, listen, rate: None, relays: Vec::new() };
            let peers = Peers::open(&depot, options).await.unwrap();
            peers.admit(at);
            let want = Want { hash, bytes, extension: "bin".to_owned() };
            let fetched = peers.fetch(&want, &asked).await;
            peers.close().await;
            fetched?;
            depot.verify(&hash).unwrap();
            Ok(())
        })
    })
}

/// Sends as much as the other side takes, for a while.
fn shout(from: &Host, at: String) {
    from.inside(move || {
        let mut stream = TcpStream::connect(&at).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut chance = fastrand::Rng::with_seed(7);
        let mut noise = vec![0; 1 << 16];
        chance.fill(&mut noise);
        let mut sent = 0_u64;
        while sent < MANY_BYTES && stream.write_all(&noise).is_ok() {
            sent += noise.len() as u64;
        }
        println!("{at} took {sent} bytes of noise, then no more");
    });
}

/// The same without a connection.
fn scatter(from: &Host, at: String) {
    let own = format!("{}:0", from.address);
    from.inside(move || {
        let socket = UdpSocket::bind(own).unwrap();
        let mut chance = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut noise = vec![0; chance.usize(1..1200)];
            chance.fill(&mut noise);
            // Half of it looks like the beginning of a connection.
            noise[0] |= if chance.bool() { 0xc0 } else { 0 };
            drop(socket.send_to(&noise, &at));
        }
    });
}

/// Memory of a process, KiB.
fn memory_of(pid: u32) -> u64 {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

pub fn said(node: &Node, file: &str) -> String {
    fs_err::read_to_string(node.data.join("logs").join(file)).unwrap()
}

/// What nobody else may know: keys, passes and tickets of a node.
fn secrets_of(node: &Node) -> Vec<String> {
    let mut secrets =
        vec![fs_err::read_to_string(node.data.join("key")).unwrap().trim().to_owned()];
    secrets.push(pass_of(node));
    secrets.extend(fs_err::read_to_string(node.data.with_extension("ticket")));
    if let Ok(authority) = fs_err::read(node.data.join("cluster/authority.json")) {
        let authority: Value = serde_json::from_slice(&authority).unwrap();
        let values = authority.as_object().unwrap().values().filter_map(Value::as_str);
        // Keys as PEM have lines.
        let lines = values.flat_map(|value| value.lines().map(str::to_owned));
        secrets.extend(lines.filter(|line| line.len() >= 32));
    }
    secrets
}

/// Everybody on this machine can read the arguments of a process: there are no secrets among them.
fn no_argument_is_secret(cluster: &Cluster) {
    let secrets: Vec<String> = cluster.nodes.iter().flat_map(secrets_of).collect();
    assert!(secrets.len() >= 3 * cluster.nodes.len(), "keys, passes, tickets or an authority");
    let folder = cluster.folder.path().display().to_string();
    let mut of_the_bed = 0;
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        // Others come and go.
        let Ok(line) = fs_err::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        of_the_bed += usize::from(line.contains(&folder));
        let told = secrets.iter().find(|secret| line.contains(secret.as_str()));
        assert!(told.is_none(), "a secret is in the arguments of {}", entry.path().display());
    }
    assert!(of_the_bed >= cluster.nodes.len(), "{of_the_bed} processes name {folder}");
}

#[test]
fn strangers_get_nothing_and_harm_nobody() {
    let odd = Odd {
        strangers: &["stranger"],
        // What decays on the host that plays is found at once.
        settings: &[
            ("play1", "RINGRIFT_INTEGRITY_CHECK_ROUND", "60"),
            ("play1", "RINGRIFT_INTEGRITY_CHECK_INTERVAL", "20"),
        ],
        ..Odd::default()
    };
    let Some(mut cluster) = Cluster::begin(3, &odd) else { return };
    let stranger = cluster.bed.host("stranger").clone();
    let (lead, player) = (cluster.node("lead"), cluster.node("play1"));
    let batch = wait_for("a batch of games", Duration::from_mins(3), || {
        let of = "SELECT hash, bytes FROM batches";
        let batches = lead.ask(of, |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)));
        batches.into_iter().find(|(hash, _)| lead.has(hash))
    });

    // Without a key, with a key of nobody and a pass that was stolen, with those of another cluster.
    let no_key = knock(&stranger, lead, None);
    let wrong_key = knock(&stranger, lead, Some(([7; 32], pass_of(player))));
    let theirs = Node::new(
        &stranger,
        "coordinator",
        cluster.folder.path().join("theirs"),
        &testkit::nats_server().unwrap(),
    );
    let serve = format!("{}:4222", stranger.address);
    let begun = theirs.ringrift(&["cluster", "init", "--serve", &serve]);
    assert!(begun.status.success(), "{}", String::from_utf8_lossy(&begun.stderr));
    let other = knock(&stranger, lead, Some((key_of(&theirs), pass_of(&theirs))));
    for refused in [&no_key, &wrong_key, &other] {
        assert!(refused.contains("they do not let this node in"), "{refused}");
    }
    // With a ticket that was used, and one that is none.
    let used: PathBuf = player.data.with_extension("ticket");
    let join = |ticket: String, into: &str| {
        let data = cluster.folder.path().join(into);
        let node = Node::new(&stranger, "selfplay", data, &testkit::nats_server().unwrap());
        let joined = node.ringrift(&["cluster", "join", &ticket]);
        assert!(!joined.status.success());
        String::from_utf8_lossy(&joined.stderr).into_owned()
    };
    let again = join(format!("@{}", used.display()), "again");
    assert!(again.contains("this ticket was used already"), "{again}");
    let rubbish = join("ticket1-rubbish".to_owned(), "rubbish");
    assert!(rubbish.contains("is no ticket"), "{rubbish}");
    // What a node has, a member gets and nobody else.
    let (hash, bytes) = batch;
    let (nobody, hash) = (Key::generate(), hash.parse().unwrap());
    let peer = nobody.peer().to_string();
    let turned_away = fetch(&stranger, nobody, &[lead], hash, bytes);
    let turned_away = turned_away.expect_err("a stranger got an artefact").to_string();
    println!("a stranger who asks for games is told: {turned_away}");
    assert!(turned_away.contains("does not give it"), "{turned_away}");
    let member = Key::of_file(&player.data.join("key")).unwrap();
    fetch(&stranger, member, &[lead], hash, bytes).expect("a member gets it");

    // What a person reaches is on loopback alone.
    let page = format!("{}:8790", lead.host.address);
    let refused = stranger.inside(move || TcpStream::connect(page).map(drop));
    assert!(refused.is_err(), "the page is on the net");
    let watched = [lead.pid(), lead.server()].map(|pid| (pid, memory_of(pid)));
    shout(&stranger, format!("{}:4222", lead.host.address));
    shout(&stranger, format!("{}:6222", lead.host.address));
    scatter(&stranger, format!("{}:4433", lead.host.address));

    // Named in the log, and nobody is the worse for it.
    let named = |file: &str, words: &str, who: &str| {
        let log = said(lead, file);
        let lines = log.lines().filter(|line| line.contains(words) && line.contains(who)).count();
        println!("{file}: {lines} times {words:?}, {who}");
        lines
    };
    let turned_away = "a stranger asked for artefacts and was turned away";
    assert!(named("daemons.log", turned_away, &peer) > 0, "the log does not name {peer}");
    let at = format!("{}:", stranger.address);
    let knocked = named("log-server.log", "authentication error", &at);
    assert!(
        knocked >= 2,
        "the server names {knocked} of those who came with no key or a wrong one"
    );
    let shouted = named("log-server.log", "TLS route handshake error", &at);
    assert!(shouted > 0, "the server does not name who shouted at it");
    for (pid, before) in watched {
        let memory = memory_of(pid);
        println!("process {pid} held {before} KiB and holds {memory} KiB");
        assert!(memory < before + GROWS_BY, "{before} KiB, then {memory} KiB");
    }
    no_argument_is_secret(&cluster);

    // Who belongs here may be broken as well.
    members::one_says_too_much(lead, player);
    members::one_names_a_path(&cluster, lead, player);
    let damaged = members::one_gives_what_is_damaged(&cluster, &stranger);
    cluster.damaged.insert(damaged);
    let lead = cluster.node("lead");
    let games = |node: &Node| -> i64 {
        node.ask("SELECT games FROM batches", |row| row.get::<_, i64>(0)).iter().sum()
    };
    let so_far = games(lead);
    wait_for("more games", Duration::from_mins(2), || (games(lead) > so_far).then_some(()));
    let nodes = lead.json(&["nodes"]).unwrap();
    assert_eq!(nodes["nodes"].as_object().unwrap().len(), 3, "{nodes}");
    cluster.agree();
}
