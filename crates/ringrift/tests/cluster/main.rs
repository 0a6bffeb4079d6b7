//! The long cluster suite: real managers and real servers on hosts of their own, which are network
//! namespaces on one machine.
//!
//! `cargo xtask check --long cluster`. It reaches nothing but the namespaces that it makes.
#![expect(clippy::print_stdout, reason = "a suite of many minutes tells how far it is")]
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod bed;
mod nodes;

use std::{collections::BTreeSet, time::Duration};

use bed::Bed;
use nodes::{Node, Servers, wait_for};
use tokio::time::Instant;

const CONFIG: &str = "hex8_2p";
/// Time for the loop to promote once: it shares two cores with five hosts.
const PROMOTED: Duration = Duration::from_mins(15);
/// A champion is on all hosts so soon after its promotion. Source: the issue of the cluster.
const HANDED_OUT: Duration = Duration::from_mins(1);

/// Three servers; a coordinator and its standby, a training host, two that play.
struct Cluster {
    // Processes before the servers, servers before their hosts.
    nodes: Vec<Node>,
    servers: Servers,
    bed: Bed,
    folder: tempfile::TempDir,
}

const SERVERS: [&str; 3] = ["s1", "s2", "s3"];
/// Hosts with a manager.
const HOSTS: usize = 5;

/// Who is on the bed: a coordinator, one that trains, from the fourth host on a second coordinator, and
/// players.
fn roles(hosts: usize) -> Vec<(String, &'static str)> {
    let mut roles = vec![("lead".to_owned(), "coordinator"), ("train".to_owned(), "training")];
    if hosts > 3 {
        roles.push(("spare".to_owned(), "coordinator"));
    }
    let players = hosts.saturating_sub(roles.len());
    roles.extend((1..=players).map(|number| (format!("play{number}"), "selfplay")));
    roles
}

impl Cluster {
    fn begin(hosts: usize) -> Option<Self> {
        let roles = roles(hosts);
        let names: Vec<&str> = roles.iter().map(|(host, _)| host.as_str()).chain(SERVERS).collect();
        let bed = Bed::make(&names)?;
        let folder = tempfile::tempdir().unwrap();
        let servers = Servers::start(&bed, &SERVERS, folder.path())?;
        let mut nodes: Vec<Node> = Vec::new();
        for (host, profile) in &roles {
            let word = if nodes.is_empty() { "init" } else { "join" };
            nodes.push(Node::enter(&bed, host, profile, word, &servers, folder.path()));
        }
        // The first one leads; who begins later finds that somebody does.
        nodes[0].up(CONFIG, &[]);
        wait_for("the first coordinator to lead", Duration::from_mins(1), || {
            (nodes[0].state_of("AUTO_PROMOTION")? == "running").then_some(())
        });
        for node in &mut nodes[1..] {
            node.up(CONFIG, &[]);
        }
        Some(Self { nodes, servers, bed, folder })
    }

    fn node(&self, host: &str) -> &Node {
        self.nodes.iter().find(|node| node.host.name == host).unwrap()
    }

    fn node_mut(&mut self, host: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.host.name == host).unwrap()
    }

    /// Waits until so many models were promoted, as this host knows.
    fn promoted(&self, host: &str, count: usize) {
        let node = self.node(host);
        let began = Instant::now();
        let mut told = Instant::now();
        wait_for(&format!("{count} promotions"), PROMOTED, || {
            if told.elapsed() > Duration::from_secs(30) {
                told = Instant::now();
                let games = node.ask("SELECT games FROM batches", |row| row.get::<_, i64>(0));
                println!(
                    "after {} s: {} games, {} promotions",
                    began.elapsed().as_secs(),
                    games.iter().sum::<i64>(),
                    node.promotions()
                );
            }
            (node.promotions() >= count).then_some(())
        });
        println!("{count} promotions after {} s", began.elapsed().as_secs());
    }

    /// Waits until the champion is in the hands of all hosts.
    fn handed_out(&self) {
        let all: BTreeSet<String> = self.nodes.iter().map(Node::name).collect();
        for node in &self.nodes {
            wait_for(
                &format!("the champion to be everywhere, as {} knows", node.host.name),
                HANDED_OUT,
                || {
                    let of =
                        "SELECT d.node FROM distributions d JOIN champions c ON d.model = c.model";
                    let there: BTreeSet<String> =
                        node.ask(of, |row| row.get(0)).into_iter().collect();
                    (there == all).then_some(())
                },
            );
        }
    }

    /// Ends all managers in good order.
    fn stop(&mut self) {
        for node in &mut self.nodes {
            node.stop();
        }
    }

    /// Lets nobody play or train any more, waits until the coordinators have every artefact, and ends all. Then
    /// all that two know is the same, and what everybody has is whole.
    fn agree(&mut self) {
        for node in &self.nodes {
            for daemon in ["idle_resource", "training_trigger"] {
                drop(node.ringrift(&["stop", daemon]));
            }
        }
        // Copies are made within a cycle of AUTO_SYNC.
        std::thread::sleep(Duration::from_mins(1));
        self.stop();
        let known = self.nodes.iter().map(Node::known).min().unwrap();
        let digests: BTreeSet<String> = self.nodes.iter().map(|node| node.folded(known)).collect();
        assert_eq!(digests.len(), 1, "up to {known} all say the same");
        for node in &self.nodes {
            let elsewhere = node.verify();
            println!("{}: sound, {elsewhere} artefacts elsewhere", node.host.name);
            if node.host.name == "lead" || node.host.name == "spare" {
                assert_eq!(elsewhere, 0, "a coordinator has everything");
            }
        }
    }
}

#[test]
fn the_loop_closes_over_five_hosts() {
    let Some(mut cluster) = Cluster::begin(HOSTS) else { return };
    cluster.promoted("lead", 2);
    cluster.handed_out();

    // Who did what.
    let (train, lead) = (cluster.node("train").name(), cluster.node("lead").name());
    let players: BTreeSet<String> =
        ["play1", "play2"].map(|host| cluster.node(host).name()).into_iter().collect();
    let facts =
        cluster.node("lead").json(&["events", "--after", "0", "--limit", "1000000"]).unwrap();
    let by = |topic: &str| -> BTreeSet<String> {
        let facts = facts.as_array().unwrap().iter().filter(|fact| fact["topic"] == topic);
        let at = |source: &str| source.rsplit_once('@').unwrap().1.to_owned();
        facts.map(|fact| at(fact["source"].as_str().unwrap())).collect()
    };
    assert_eq!(by("games.committed"), players, "games come from the hosts that play");
    assert_eq!(by("training.completed"), [train].into(), "trainings from the one that trains");
    let spare = cluster.node("spare").name();
    let leaders = by("model.promoted");
    assert!(leaders.is_subset(&[lead, spare].into()), "promotions from who leads: {leaders:?}");
    cluster.agree();
}

#[test]
fn the_spare_takes_over_when_the_leader_is_killed_and_the_loop_goes_on() {
    let Some(mut cluster) = Cluster::begin(HOSTS) else { return };
    cluster.promoted("lead", 1);
    assert_eq!(cluster.node("spare").state_of("AUTO_PROMOTION").as_deref(), Some("stopped"));
    cluster.node_mut("lead").kill();
    let began = Instant::now();
    wait_for("the spare to lead", Duration::from_mins(1), || {
        let state = cluster.node("spare").state_of("AUTO_PROMOTION")?;
        (state == "running").then_some(())
    });
    println!(
        "the spare leads {:.1} s after the death of the leader",
        began.elapsed().as_secs_f64()
    );
    cluster.promoted("spare", 2);
    cluster.node_mut("lead").up(CONFIG, &[]);
    cluster.promoted("lead", 2);
    cluster.handed_out();
    cluster.agree();
}

#[test]
fn a_server_that_leads_dies_and_hosts_are_cut_off_and_nothing_is_lost() {
    let Some(mut cluster) = Cluster::begin(HOSTS) else { return };
    cluster.promoted("lead", 1);
    for (number, server) in SERVERS.iter().enumerate() {
        println!("server {server} is killed");
        cluster.servers.kill(number);
        std::thread::sleep(Duration::from_secs(20));
        cluster.servers.begin(number);
        std::thread::sleep(Duration::from_secs(10));
    }
    println!("a host that plays is cut off for a minute");
    cluster.bed.part(&["play1"], &["lead", "spare", "train", "play2", "s1", "s2", "s3"]);
    std::thread::sleep(Duration::from_mins(1));
    cluster.bed.heal();
    println!("the leader's host loses a tenth of what it sends, a tenth of a second late");
    if cluster.bed.shape("lead", "loss 10% delay 100ms") {
        std::thread::sleep(Duration::from_secs(30));
        cluster.bed.unshape("lead");
    }
    let so_far = cluster.node("lead").promotions();
    cluster.promoted("lead", so_far + 1);
    cluster.handed_out();
    cluster.agree();
}

/// `cargo xtask bed`: the same hosts, to look at and to play with, until Ctrl-C.
#[test]
#[ignore = "for people: cargo xtask bed"]
fn bed_by_hand() {
    let hosts = std::env::var_os("BED_HOSTS");
    let hosts = hosts.map_or(HOSTS, |count| count.to_str().unwrap().parse().unwrap());
    let Some(mut cluster) = Cluster::begin(hosts) else { return };
    for node in &cluster.nodes {
        let shown = node.host.show(8790);
        println!("{:<6} {:<12} page http://{shown}/", node.host.name, node.host.address);
    }
    println!("data in {}; Ctrl-C ends it all", cluster.folder.path().display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::signal::ctrl_c()).unwrap();
    cluster.stop();
}
