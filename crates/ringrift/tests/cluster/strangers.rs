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
    peers::{Key, PeerId, Peers, Want},
};

use crate::{
    Cluster, Odd,
    bed::Host,
    nodes::{Node, program, wait_for},
};

/// Much more than anybody should keep of what a stranger says.
const MANY_BYTES: u64 = 256 << 20;
/// Most memory of a process that was shouted at, in KiB.
const STAYS_UNDER: u64 = 1 << 20;

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

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn key_of(node: &Node) -> [u8; 32] {
    Key::of_file(&node.data.join("key")).unwrap().secret()
}

fn pass_of(node: &Node) -> String {
    let text = fs_err::read_to_string(node.data.join("cluster.toml")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("pass = ")).unwrap();
    line.trim_matches('"').to_owned()
}

/// What a peer says to a stranger who asks for something that it has.
fn ask(from: &Host, of: &Node, hash: Hash, bytes: u64) -> String {
    let peer: PeerId = Key::of_file(&of.data.join("key")).unwrap().peer();
    let at: SocketAddr = format!("{}:4433", of.host.address).parse().unwrap();
    let listen: SocketAddr = format!("{}:0", from.address).parse().unwrap();
    from.inside(move || {
        let folder = tempfile::tempdir().unwrap();
        let depot = Depot::open(folder.path(), depot::Options::default()).unwrap();
        runtime().block_on(async {
            let options = depot::peers::Options {
                key: Key::generate(),
                listen,
                rate: None,
                relays: Vec::new(),
            };
            let peers = Peers::open(&depot, options).await.unwrap();
            peers.admit(BTreeMap::from([(peer, vec![at])]));
            let want = Want { hash, bytes, extension: "bin".to_owned() };
            let refused = peers.fetch(&want, &[peer]).await;
            peers.close().await;
            refused.expect_err("a stranger got an artefact").to_string()
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

fn said(node: &Node, file: &str) -> String {
    fs_err::read_to_string(node.data.join("logs").join(file)).unwrap()
}

#[test]
fn strangers_get_nothing_and_harm_nobody() {
    let odd = Odd { strangers: &["stranger"], ..Odd::default() };
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
        &program().unwrap(),
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
        let node = Node::new(&stranger, "selfplay", data, &program().unwrap());
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
    let turned_away = ask(&stranger, lead, hash.parse().unwrap(), bytes);
    println!("a stranger who asks for games is told: {turned_away}");

    // What a person reaches is on loopback alone.
    let page = format!("{}:8790", lead.host.address);
    let refused = stranger.inside(move || TcpStream::connect(page).map(drop));
    assert!(refused.is_err(), "the page is on the net");
    shout(&stranger, format!("{}:4222", lead.host.address));
    shout(&stranger, format!("{}:6222", lead.host.address));
    scatter(&stranger, format!("{}:4433", lead.host.address));

    // Named in the log, and nobody is the worse for it.
    let log = said(lead, "daemons.log");
    assert!(log.contains("a stranger asked for artefacts and was turned away"), "{log}");
    let servers = said(lead, "log-server.log");
    assert!(servers.to_lowercase().contains("authentication error"), "{servers}");
    for pid in [lead.pid(), lead.server()] {
        let memory = memory_of(pid);
        println!("process {pid} holds {memory} KiB");
        assert!(memory < STAYS_UNDER, "{memory} KiB");
    }
    let games = |node: &Node| -> i64 {
        node.ask("SELECT games FROM batches", |row| row.get::<_, i64>(0)).iter().sum()
    };
    let so_far = games(lead);
    wait_for("more games", Duration::from_mins(2), || (games(lead) > so_far).then_some(()));
    let nodes = lead.json(&["nodes"]).unwrap();
    assert_eq!(nodes["nodes"].as_object().unwrap().len(), 3, "{nodes}");
    cluster.agree();
}
