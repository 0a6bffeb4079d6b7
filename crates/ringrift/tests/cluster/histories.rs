//! Histories of clients on hosts of their own, while the servers of the log die and lines fail.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use courier::{
    Courier, Fact,
    conformance::histories::{Competitor, History, Tally, facts, judge, resolve},
    jetstream::{JetStream, Options},
};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    bed::{Bed, Host},
    nodes::{Servers, wait_for},
};

/// The name of the log.
const LOG: &str = "bed";
/// Its stream that facts which change something go to.
const PIPELINE: &str = "bed_pipeline";
const SERVERS: [&str; 3] = ["s1", "s2", "s3"];
const CLIENTS: [&str; 3] = ["c1", "c2", "c3"];
/// All servers, since any of them may lead, and a client.
const ON_WIRES: [&str; 4] = ["s1", "s2", "s3", "c1"];

/// All faults are gone through so often, each time with other choices.
const ROUNDS: u64 = 3;
/// Less than an election takes, so that it leaves questions without an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Keeps a history at some ten thousand operations.
const PAUSE: Duration = Duration::from_millis(60);
/// After a fault the log goes on within this time. Elections take ten seconds, and a line that was cut is tried
/// again ever more rarely.
const GOES_ON: Duration = Duration::from_mins(1);

/// Servers, and clients that compete on them and write one history: they are one process and have one clock.
struct Contest {
    // Clients before the servers, servers before their hosts.
    clients: Vec<JoinHandle<Vec<Fact>>>,
    history: Arc<History>,
    servers: Servers,
    bed: Bed,
    folder: tempfile::TempDir,
}

impl Contest {
    fn begin(seed: u64) -> Option<Self> {
        let program = testkit::nats_server()?;
        let bed = Bed::make(&[SERVERS, CLIENTS].concat(), &ON_WIRES)?;
        let folder = tempfile::tempdir().unwrap();
        let hosts = SERVERS.map(|name| {
            let place = folder.path().join(name);
            configure(&bed, name, &place);
            (bed.host(name).clone(), place)
        });
        let servers = Servers::on(&program, hosts.to_vec());
        let history = Arc::new(History::default());
        let mut contest = Self { clients: Vec::new(), history, servers, bed, folder };
        // Makes the streams.
        drop(contest.facts("begin"));
        for (number, name) in CLIENTS.into_iter().enumerate() {
            let options = contest.options(name);
            let history = Arc::clone(&contest.history);
            let mut node = Competitor::new(&format!("{seed}-{name}"), number);
            node.pause = PAUSE;
            let host = contest.bed.host(name).clone();
            contest.clients.push(thread::spawn(move || {
                inside(&host, async move {
                    let log = open(options).await;
                    node.compete(&log, &history).await.unwrap();
                    all(&log).await
                })
            }));
        }
        contest.goes_on();
        Some(contest)
    }

    fn options(&self, node: &str) -> Options {
        let servers = SERVERS.map(|name| format!("nats://{}:4222", self.bed.host(name).address));
        let folder = self.folder.path().join("replicas").join(node);
        let mut options = Options::new(servers.join(","), LOG, folder);
        options.patience = PATIENCE;
        options
    }

    /// The log, as one knows it who never heard of it before.
    fn facts(&self, node: &str) -> Vec<Fact> {
        let options = self.options(node);
        inside(self.bed.host("c1"), async move { all(&open(options).await).await })
    }

    /// Which server leads the stream of the pipeline, as it says itself.
    fn leader(&self) -> usize {
        wait_for("a leader", GOES_ON, || {
            SERVERS.iter().position(|name| {
                let leaders = leaders(self.bed.host(name));
                leaders.is_some_and(|leaders| leaders.get(PIPELINE).is_some_and(|by| by == name))
            })
        })
    }

    /// What came of the operations so far; none yet of those that wait.
    fn tally(&self) -> Tally {
        Tally::of(&self.history.operations())
    }

    /// Lets the faulty state last for a while, and says what came of it.
    fn meanwhile(&self, what: &str, seconds: u64) {
        let before = self.tally();
        thread::sleep(Duration::from_secs(seconds));
        let now = self.tally();
        println!(
            "{what}, {seconds} s: {} operations, {} appended, {} more without an answer",
            now.total() - before.total(),
            now.count(Tally::APPENDED) - before.count(Tally::APPENDED),
            now.count(Tally::UNANSWERED).saturating_sub(before.count(Tally::UNANSWERED))
        );
    }

    /// Waits until every client is heard again.
    fn goes_on(&self) {
        let began = Instant::now();
        for name in CLIENTS {
            let appended = || self.appended_by(name);
            let before = appended();
            wait_for(&format!("{name} to go on"), GOES_ON, || {
                assert!(
                    self.clients.iter().all(|client| !client.is_finished()),
                    "a client gave up"
                );
                (appended() >= before + 5).then_some(())
            });
        }
        println!("all go on {:.1} s later", began.elapsed().as_secs_f64());
    }

    fn appended_by(&self, client: &str) -> usize {
        let by = format!("-{client}-");
        let all = self.history.operations();
        all.iter().filter(|operation| operation.is_appended(&by)).count()
    }

    /// Some do not reach each other for a while, then they do again.
    fn apart(&self, what: &str, seconds: u64) {
        self.meanwhile(what, seconds);
        self.bed.heal();
        self.goes_on();
    }

    /// Goes through all faults; which servers and clients they meet is chosen by the seed, where it is not by the
    /// log.
    fn fail(&mut self, seed: u64) {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut others = |leader: usize| {
            let mut others: Vec<usize> = (0..SERVERS.len()).filter(|n| *n != leader).collect();
            chance.shuffle(&mut others);
            others
        };
        let names = |numbers: &[usize]| numbers.iter().map(|n| SERVERS[*n]).collect::<Vec<_>>();

        let leader = self.leader();
        self.servers.kill(leader);
        self.meanwhile("the server that leads is killed", 8);
        self.servers.begin(leader);
        self.goes_on();

        let leader = self.leader();
        let two = [leader, others(leader)[0]];
        for n in two {
            self.servers.kill(n);
        }
        self.meanwhile("two servers of three are killed", 8);
        for n in two {
            self.servers.begin(n);
        }
        self.goes_on();

        let leader = self.leader();
        self.bed.part(&[SERVERS[leader]], &names(&others(leader)));
        self.apart("the leader is cut off from the other servers, clients from nobody", 14);

        let leader = self.leader();
        let there = [&names(&others(leader))[..], &["c2", "c3"]].concat();
        self.bed.part(&[SERVERS[leader], "c1"], &there);
        self.apart("the leader and a client are cut off from all others", 14);

        let leader = self.leader();
        let rest = others(leader);
        let there = [SERVERS[leader], SERVERS[rest[1]], "c1", "c3"];
        self.bed.part(&[SERVERS[rest[0]], "c2"], &there);
        self.apart("another server and a client are cut off from all others", 10);

        let leader = self.leader();
        for other in names(&others(leader)) {
            self.bed.mute(SERVERS[leader], other);
        }
        self.apart("the other servers do not hear the leader, which hears them", 12);

        let leader = self.leader();
        for other in names(&others(leader)) {
            self.bed.mute(other, SERVERS[leader]);
        }
        self.apart("the leader does not hear the other servers, which hear it", 12);

        for server in SERVERS {
            self.bed.mute("c3", server);
        }
        self.apart("no server hears a client, which hears them", 7);
        for server in SERVERS {
            self.bed.mute(server, "c3");
        }
        self.apart("a client hears no server, which hear it", 7);

        let leader = self.leader();
        for host in [SERVERS[leader], "c1"] {
            self.bed.spoil(host, 100, Duration::from_millis(100));
            self.meanwhile(
                &format!("a tenth of what {host} sends is lost, the rest is 100 ms late"),
                10,
            );
            self.bed.spoil(host, 0, Duration::ZERO);
            self.goes_on();
        }
    }

    /// Ends it, and judges what all saw.
    fn end(mut self) {
        self.history.close();
        let known: Vec<Vec<Fact>> =
            self.clients.drain(..).map(|client| client.join().unwrap()).collect();
        let log = self.facts("end");
        let ids = |facts: &[Fact]| -> Vec<(u64, String)> {
            facts.iter().map(|fact| (fact.position, fact.id.clone())).collect()
        };
        for (facts, client) in known.iter().zip(CLIENTS) {
            // What nobody was told of may have come to rest since.
            assert_eq!(ids(facts), ids(&log)[..facts.len()], "{client} knows another log");
        }
        let seen = self.history.operations();
        let told = Tally::of(&seen);
        println!("{} facts; {told}", log.len());
        let began = Instant::now();
        let seen = resolve(seen, &log);
        let tally = judge(seen).unwrap();
        println!("in order: {tally}; found in {:.1} s", began.elapsed().as_secs_f64());
        // Else nothing was tried.
        assert!(told.count(Tally::UNANSWERED) >= 10, "{told}");
        assert!(told.count(Tally::APPENDED) >= 500, "{told}");
    }
}

impl Drop for Contest {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}", self.servers.said());
            self.history.close();
            self.clients.drain(..).for_each(|client| drop(client.join()));
        }
    }
}

/// Writes the configuration of one server of three.
fn configure(bed: &Bed, name: &str, folder: &Path) {
    fs_err::create_dir_all(folder).unwrap();
    let at = &bed.host(name).address;
    let routes = SERVERS.map(|name| format!("nats://{}:6222", bed.host(name).address));
    let text = format!(
        "server_name: {name}\nlisten: {at}:4222\nhttp: {at}:8222\nmax_payload: 8MB\n\
         jetstream {{ store_dir: {:?} }}\n\
         cluster {{ name: {LOG}, listen: {at}:6222, routes: [{}] }}\n",
        folder.display().to_string(),
        routes.join(", ")
    );
    fs_err::write(folder.join("server.conf"), text).unwrap();
}

/// Does something on a host, with a runtime that has no thread elsewhere.
fn inside<T: Send + 'static>(host: &Host, work: impl Future<Output = T> + Send + 'static) -> T {
    host.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(work)
    })
}

/// Opens the log, when its servers have found each other.
async fn open(options: Options) -> Courier {
    let until = Instant::now() + GOES_ON;
    loop {
        match JetStream::open(options.clone()).await {
            Ok(log) => return log,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// All facts, as soon as they can be had.
async fn all(log: &Courier) -> Vec<Fact> {
    let until = Instant::now() + GOES_ON;
    loop {
        match facts(log).await {
            Ok(facts) => return facts,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}

/// Who leads each stream, as the server of this host knows; none if it says nothing.
fn leaders(host: &Host) -> Option<BTreeMap<String, String>> {
    let at = format!("{}:8222", host.address);
    let said = host.inside(move || -> std::io::Result<String> {
        let mut asked = TcpStream::connect(at)?;
        asked.set_read_timeout(Some(Duration::from_secs(5)))?;
        asked.write_all(b"GET /jsz?accounts=true&streams=true HTTP/1.0\r\n\r\n")?;
        let mut said = String::new();
        asked.read_to_string(&mut said)?;
        Ok(said)
    });
    let said: Value = serde_json::from_str(said.ok()?.split_once("\r\n\r\n")?.1).ok()?;
    let accounts = said["account_details"].as_array()?.iter();
    let streams = accounts.filter_map(|account| account["stream_detail"].as_array()).flatten();
    let leaders = streams.map(|stream| {
        let (name, leader) = (stream["name"].as_str()?, stream["cluster"]["leader"].as_str()?);
        Some((name.to_owned(), leader.to_owned()))
    });
    leaders.collect()
}

#[test]
fn what_clients_on_hosts_of_their_own_saw_could_have_happened_one_after_the_other() {
    for seed in 0..ROUNDS {
        let began = Instant::now();
        let Some(mut contest) = Contest::begin(seed) else { return };
        contest.fail(seed);
        contest.end();
        println!("round {} of {ROUNDS}: {} s", seed + 1, began.elapsed().as_secs());
    }
}
