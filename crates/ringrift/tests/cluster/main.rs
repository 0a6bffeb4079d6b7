//! The long cluster suite: real managers and real servers on hosts of their own, which are network
//! namespaces on one machine.
//!
//! `cargo xtask check --long cluster`. It reaches nothing but the namespaces that it makes.
#![expect(clippy::print_stdout, reason = "a suite of many minutes tells how far it is")]
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod bed;
mod converged;
mod document;
mod histories;
mod ledger;
mod members;
mod nodes;
mod strangers;
mod transfers;
mod waits;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use bed::{Bed, Host};
use converged::until_none;
use ledger::Ledger;
use nodes::{Disk, Node, Servers, wait_for};
use tokio::time::Instant;

const CONFIG: &str = "hex8_2p";
/// Time for the loop to promote once: it shares two cores with five hosts.
const PROMOTED: Duration = Duration::from_mins(15);
/// A champion is on all hosts so soon after its promotion. Source: the issue of the cluster.
const HANDED_OUT: Duration = Duration::from_mins(1);

/// Two servers, a third one beside the first coordinator; its standby, a training host, two that play.
struct Cluster {
    // Processes before the servers, servers before their hosts and disks.
    nodes: Vec<Node>,
    servers: Servers,
    disks: BTreeMap<String, Disk>,
    bed: Bed,
    folder: tempfile::TempDir,
    /// What any host ever knew, by position: no acknowledgement comes before the host that asked for it knows.
    seen: BTreeMap<u64, String>,
    /// Hosts that are gone for good.
    buried: usize,
    /// Hashes of artefacts of which a test spoilt a copy.
    damaged: BTreeSet<String>,
}

/// Hosts with nothing but a server.
const SERVERS: [&str; 2] = ["s2", "s3"];
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

/// What is odd about some hosts.
#[derive(Default)]
struct Odd {
    /// Their cables may be spoilt.
    on_wires: &'static [&'static str],
    /// They have a disk of their own, of so many megabytes.
    disks: &'static [(&'static str, u32)],
    /// They send at most so many bytes a second to the others.
    slow: &'static [(&'static str, &'static str)],
    /// Hosts that do not belong to the cluster.
    strangers: &'static [&'static str],
    /// Their clocks are wrong by this, in the words of libfaketime.
    clocks: &'static [(&'static str, &'static str)],
    /// A host's managers find these values under these names in their environment.
    settings: &'static [(&'static str, &'static str, &'static str)],
}

fn of<T: Copy>(odd: &[(&str, T)], host: &str) -> Option<T> {
    odd.iter().find(|(name, _)| *name == host).map(|(_, what)| *what)
}

/// The library that gives a process another clock. Says so if it is not there.
fn other_clock() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime"];
    let found = folders.map(|folder| Path::new(folder).join("libfaketimeMT.so.1"));
    let found = found.into_iter().find(|file| file.is_file());
    if found.is_none() {
        println!("absent: a wrong clock; to have it: the package libfaketime");
    }
    found
}

impl Drop for Cluster {
    /// After a failure: what the managers said last, before their folders go.
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for node in &self.nodes {
            println!("== {}, the last that it said:", node.host.name);
            let said = fs_err::read_to_string(node.output()).unwrap_or_default();
            let from = said.lines().count().saturating_sub(40);
            said.lines().skip(from).for_each(|line| println!("{line}"));
        }
    }
}

impl Cluster {
    fn begin(hosts: usize, odd: &Odd) -> Option<Self> {
        let program = testkit::nats_server()?;
        let roles = roles(hosts);
        let names = roles.iter().map(|(host, _)| host.as_str()).chain(SERVERS);
        let names: Vec<&str> = names.chain(odd.strangers.iter().copied()).collect();
        let bed = Bed::make(&names, odd.on_wires)?;
        let folder = tempfile::tempdir().unwrap();
        let mut disks = BTreeMap::new();
        let mut nodes: Vec<Node> = Vec::new();
        for (host, profile) in &roles {
            let mut data = folder.path().join(host);
            if let Some(megabytes) = of(odd.disks, host) {
                disks.insert(host.clone(), Disk::mount(&data, megabytes));
                data.push("data");
            }
            let mut node = Node::new(bed.host(host), profile, data, &program);
            if let (Some(clock), Some(library)) = (of(odd.clocks, host), other_clock()) {
                let library = library.display().to_string();
                for (name, value) in [
                    ("LD_PRELOAD", library.as_str()),
                    ("FAKETIME", clock),
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                ] {
                    node.environment.push((name.to_owned(), value.to_owned()));
                }
            }
            for (_, name, value) in odd.settings.iter().filter(|(of, ..)| of == host) {
                node.environment.push(((*name).to_owned(), (*value).to_owned()));
            }
            nodes.push(node);
        }
        let others: Vec<&Host> = SERVERS.iter().map(|name| bed.host(name)).collect();
        let servers = nodes[0].found(&program, &others, folder.path());
        // The first one leads; who begins later finds that somebody does.
        nodes[0].up(CONFIG, &[]);
        wait_for("the first coordinator to lead", Duration::from_mins(1), || {
            (nodes[0].state_of("AUTO_PROMOTION")? == "running").then_some(())
        });
        let (first, later) = nodes.split_first_mut().unwrap();
        for node in later {
            let rate = of(odd.slow, &node.host.name).map(|rate| ["--send-rate", rate]);
            node.join(first, rate.as_ref().map_or(&[], |words| words));
            node.up(CONFIG, &[]);
        }
        let (seen, buried, damaged) = (BTreeMap::new(), 0, BTreeSet::new());
        Some(Self { nodes, servers, disks, bed, folder, seen, buried, damaged })
    }

    fn node(&self, host: &str) -> &Node {
        self.nodes.iter().find(|node| node.host.name == host).unwrap()
    }

    fn node_mut(&mut self, host: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.host.name == host).unwrap()
    }

    /// Notes what the hosts know by now; what was noted before must be so still.
    fn note(&mut self) {
        for node in &self.nodes {
            for fact in node.facts(0) {
                let known = self.seen.entry(fact.position).or_insert_with(|| fact.id.clone());
                assert_eq!(*known, fact.id, "{} at {}", node.host.name, fact.position);
            }
        }
    }

    /// The hosts that recorded what only the leader records, in the order in which they led.
    fn leaders(&self, host: &str) -> Vec<String> {
        let host_of = |name: &String| {
            let host = self.nodes.iter().find(|node| node.name() == *name);
            host.map_or_else(|| name.clone(), |node| node.host.name.clone())
        };
        Ledger::of(&self.node(host).facts(0)).leaders.iter().map(host_of).collect()
    }

    /// Who of the coordinators leads now.
    fn leader(&self) -> &'static str {
        wait_for("a leader", Duration::from_mins(1), || {
            ["lead", "spare"].into_iter().find(|host| {
                self.node(host).state_of("AUTO_PROMOTION").as_deref() == Some("running")
            })
        })
    }

    /// Lets the faulty state last for a while.
    fn meanwhile(&mut self, what: &str, lasts: Duration) {
        println!("{what}, {} s", lasts.as_secs());
        thread::sleep(lasts);
        self.note();
    }

    /// After a fault: waits until all hosts agree again.
    fn over(&mut self, what: &str) {
        println!("{what}");
        self.converges();
    }

    /// Mends what cut hosts off.
    fn heal(&mut self) {
        self.bed.heal();
        self.over("everybody reaches everybody again");
    }

    /// Waits until so many models were promoted, as this host knows.
    fn promoted(&mut self, host: &str, count: usize) {
        self.note();
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

    /// Waits until a standby leads.
    fn until_leads(&self, host: &str) {
        let began = Instant::now();
        wait_for(&format!("{host} to lead"), Duration::from_mins(1), || {
            (self.node(host).state_of("AUTO_PROMOTION")? == "running").then_some(())
        });
        println!("{host} leads {:.1} s later", began.elapsed().as_secs_f64());
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

    /// A host is gone for good.
    fn bury(&mut self, host: &str) {
        let at = self.nodes.iter().position(|node| node.host.name == host).unwrap();
        let mut node = self.nodes.remove(at);
        node.kill();
        let name = node.name();
        fs_err::remove_dir_all(&node.data).unwrap();
        self.buried += 1;
        let removed = self.nodes[0].ringrift(&["node", "remove", &name]);
        assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    }
}

#[test]
fn the_loop_closes_over_five_hosts() {
    let Some(mut cluster) = Cluster::begin(HOSTS, &Odd::default()) else { return };
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
    for line in waits::to_all(facts.as_array().unwrap(), &players) {
        println!("{line}");
    }
    let spare = cluster.node("spare").name();
    let leaders = by("model.promoted");
    assert!(leaders.is_subset(&[lead, spare].into()), "promotions from who leads: {leaders:?}");
    cluster.agree();
}

/// Its clock is an hour ahead, so nobody must believe it.
#[test]
fn the_spare_takes_over_when_the_leader_is_killed_and_the_loop_goes_on() {
    let odd = Odd { clocks: &[("lead", "+3600s")], ..Odd::default() };
    let Some(mut cluster) = Cluster::begin(HOSTS, &odd) else { return };
    cluster.promoted("lead", 1);
    assert_eq!(cluster.node("spare").state_of("AUTO_PROMOTION").as_deref(), Some("stopped"));
    // A server of the log dies with it.
    cluster.node_mut("lead").kill();
    cluster.until_leads("spare");
    cluster.promoted("spare", 2);
    cluster.node_mut("lead").up(CONFIG, &[]);
    cluster.promoted("lead", 2);
    cluster.handed_out();
    cluster.agree();
    assert_eq!(cluster.leaders("spare"), ["lead", "spare"]);
}

#[test]
fn servers_die_and_hosts_are_cut_off_and_nothing_is_lost() {
    // Whoever leads may get a bad line.
    let odd = Odd { on_wires: &["lead", "spare"], ..Odd::default() };
    let Some(mut cluster) = Cluster::begin(HOSTS, &odd) else { return };
    cluster.promoted("lead", 1);
    let (short, minute) = (Duration::from_secs(20), Duration::from_mins(1));
    for number in 0..SERVERS.len() {
        cluster.servers.kill(number);
        cluster.meanwhile("one server of three is dead", short);
        cluster.servers.begin(number);
        // It takes in what it missed, so that two know all when the next one dies.
        cluster.meanwhile("it is back", short / 2);
        cluster.converges();
    }
    cluster.node("lead").kill_server();
    cluster.meanwhile("the server of the leader's host is killed, and begins again", short);
    cluster.converges();
    for number in 0..SERVERS.len() {
        cluster.servers.kill(number);
    }
    cluster.meanwhile("two servers of three are dead", short);
    for number in 0..SERVERS.len() {
        cluster.servers.begin(number);
    }
    cluster.meanwhile("they are back", short);
    cluster.converges();

    let all = ["lead", "spare", "train", "play1", "play2", "s2", "s3"];
    let but = |one: &str| all.into_iter().filter(|host| *host != one).collect::<Vec<_>>();
    cluster.bed.part(&["play1"], &but("play1"));
    cluster.meanwhile("a host that plays is cut off", minute);
    cluster.heal();
    // The log goes on where two servers are.
    cluster.bed.part(&["play1", "play2", "s3"], &["lead", "spare", "train", "s2"]);
    cluster.meanwhile("the players and one server are cut off from the rest", minute);
    cluster.heal();
    for host in but("train") {
        cluster.bed.mute("train", host);
    }
    cluster.meanwhile("nobody hears the host that trains, which hears everybody", minute);
    cluster.heal();
    for host in but("play2") {
        cluster.bed.mute(host, "play2");
    }
    cluster.meanwhile("a host that plays hears nobody, and everybody hears it", minute);
    cluster.heal();

    let leads = cluster.leader();
    let other = if leads == "lead" { "spare" } else { "lead" };
    cluster.bed.part(&[leads], &but(leads));
    cluster.until_leads(other);
    cluster.meanwhile("the leader is cut off from everybody", minute);
    cluster.heal();

    let leads = cluster.leader();
    cluster.bed.spoil(leads, 100, Duration::from_millis(100));
    cluster.meanwhile(&format!("a tenth of what {leads} sends, which leads, is lost"), minute);
    cluster.bed.spoil(leads, 0, Duration::ZERO);
    cluster.over("the line is good again");
    let so_far = cluster.node("lead").promotions();
    cluster.promoted("lead", so_far + 1);
    cluster.handed_out();
    cluster.agree();
    println!("led, one after the other: {:?}", cluster.leaders("play2"));
}

#[test]
fn a_full_disk_a_kill_in_mid_transfer_and_the_loss_of_a_host_end_nothing() {
    let odd = Odd {
        disks: &[("play1", 300)],
        // A batch of games takes seconds on its way from the second player.
        slow: &[("play2", "20000")],
        // And it gives up at once what two others have.
        settings: &[
            ("play2", "RINGRIFT_SYNC_PUSH_OFFER_FROM", "0"),
            ("play2", "RINGRIFT_SYNC_PUSH_RELEASE_FROM", "0"),
        ],
        ..Odd::default()
    };
    let Some(mut cluster) = Cluster::begin(HOSTS, &odd) else { return };
    cluster.promoted("lead", 1);
    let frugal = cluster.node("play2").name();
    until_none("nothing is given up by", Duration::from_mins(5), || {
        let ledger = Ledger::of(&cluster.node("lead").facts(0));
        if ledger.given_up.contains_key(&frugal) { Vec::new() } else { vec![frugal.clone()] }
    });

    cluster.disks["play1"].fill();
    let is_told = |cluster: &Cluster| -> Option<bool> {
        let status = cluster.node("play1").json(&["status"])?;
        let obstacles = status["obstacles"].as_array()?;
        Some(obstacles.iter().any(|obstacle| obstacle["cause"] == "DISK_SPACE_MANAGER"))
    };
    wait_for("the full disk to be told", Duration::from_mins(1), || {
        is_told(&cluster).filter(|told| *told)
    });
    cluster.meanwhile("the disk of a host that plays is full", Duration::from_mins(1));
    assert_ne!(is_told(&cluster), Some(false), "the disk is full all the time");
    cluster.disks["play1"].free();
    wait_for("the brake to be let go", Duration::from_mins(1), || {
        is_told(&cluster).filter(|told| !*told)
    });
    cluster.over("the disk has room again");

    let mut interrupted = Vec::new();
    for killed in ["lead", "play2", "lead", "play2"] {
        interrupted.push(cluster.interrupt(killed, "play2", "lead"));
        cluster.over("what was there of it is there");
    }
    cluster.node_mut("play2").stop();
    cluster.node("play2").sends_freely();
    cluster.node_mut("play2").up(CONFIG, &[]);
    until_none("not whole over a good line", Duration::from_mins(3), || {
        let lead = cluster.node("lead");
        interrupted.iter().filter(|hash| !lead.has(hash)).cloned().collect()
    });
    println!("a host that plays is gone for good");
    cluster.bury("play2");
    cluster.over("the others go on");
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
    let Some(mut cluster) = Cluster::begin(hosts, &Odd::default()) else { return };
    for node in &cluster.nodes {
        let shown = node.host.show(8790);
        println!("{:<6} {:<12} page http://{shown}/", node.host.name, node.host.address);
    }
    println!("data in {}; Ctrl-C ends it all", cluster.folder.path().display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::signal::ctrl_c()).unwrap();
    cluster.stop();
}
