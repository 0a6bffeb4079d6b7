//! What must hold after each fault, and what must hold when all are over.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    path::Path,
    thread,
    time::Duration,
};

use courier::{Reader, folded};
use flate2::read::MultiGzDecoder;
use ringrift_pipeline::PipelineFold;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    Cluster,
    ledger::{Ledger, nothing_stale_behind},
    nodes::{Node, wait_for},
};

/// So soon after a fault every host knows what any of them knows.
const FOLLOWS: Duration = Duration::from_mins(2);
/// So soon what waited is told. What a killed manager did not tell is found within a cycle of `ORPHAN_DETECTION`,
/// which is five minutes.
const SETTLES: Duration = Duration::from_mins(7);
/// Why a daemon may have been restarted: words of its last error.
const EXPLAINED: [&str; 4] =
    ["the log is out of reach", "no space is left", "No space left", "disk is full"];

/// Waits until nothing is left, or fails with what is.
pub fn until_none(what: &str, limit: Duration, mut left: impl FnMut() -> Vec<String>) {
    let began = Instant::now();
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < limit, "after {limit:?} {what}: {left:?}");
        thread::sleep(Duration::from_secs(1));
    }
}

impl Cluster {
    /// After a fault: all hosts follow the log to one place, at which their catalogues are one, and no daemon was
    /// given up. Gives the place.
    pub fn converges(&mut self) -> u64 {
        self.note();
        let head = self.seen.last_key_value().map_or(0, |(position, _)| *position);
        let began = Instant::now();
        until_none(&format!("not all are at {head}"), FOLLOWS, || {
            let at = self.nodes.iter().map(|node| (&node.host.name, node.known(), node.shown()));
            let behind = at.filter(|(_, known, shown)| *known < head || *shown < head);
            behind.map(|(host, known, shown)| format!("{host}: {known}, {shown}")).collect()
        });
        println!("all are at {head} after {:.1} s", began.elapsed().as_secs_f64());
        self.are_one(head);
        self.daemons_run();
        head
    }

    /// All catalogues say the same at this place of the log.
    fn are_one(&self, head: u64) {
        let mut digests: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for node in &self.nodes {
            digests.entry(node.folded(head)).or_default().push(&node.host.name);
        }
        assert_eq!(digests.len(), 1, "at {head}: {digests:?}");
    }

    /// No daemon was given up, and none crashed for a reason of its own.
    fn daemons_run(&self) {
        for node in &self.nodes {
            let host = &node.host.name;
            let status = wait_for(&format!("the status of {host}"), Duration::from_mins(1), || {
                node.json(&["status"])
            });
            for (name, daemon) in status["daemons"].as_object().unwrap() {
                let (state, error) =
                    (&daemon["state"], daemon["last_error"].as_str().unwrap_or_default());
                let given_up = ["failed", "import_failed", "degraded"];
                assert!(!given_up.iter().any(|word| state == word), "{host}: {name} {daemon}");
                let restarts = daemon["restarts"].as_u64().unwrap();
                let explained = EXPLAINED.iter().any(|why| error.contains(why));
                assert!(restarts == 0 || explained, "{host}: {name} crashed: {daemon}");
                if restarts > 0 {
                    println!("{host}: {name} was restarted {restarts} times: {error}");
                }
            }
        }
    }

    /// What was played is told: nothing waits in an outbox, and no file of games lies there that no fact names.
    fn all_is_told(&self) {
        for node in &self.nodes {
            let host = &node.host.name;
            until_none(&format!("{host} has not told"), SETTLES, || node.untold());
        }
    }

    /// Lets nobody play or train any more, waits until the coordinators have every artefact, and ends all. Then
    /// all know the same, what everybody has is whole, and the log says nothing that it must not.
    pub fn agree(&mut self) {
        // Who plays no more hands nothing in.
        for node in &self.nodes {
            let what = format!("in the outbox of {}", node.host.name);
            until_none(&what, SETTLES, || node.waiting());
        }
        for node in &self.nodes {
            for daemon in ["idle_resource", "training_trigger"] {
                drop(node.ringrift(&["stop", daemon]));
            }
        }
        // Copies are made within a cycle of AUTO_SYNC.
        thread::sleep(Duration::from_mins(1));
        self.all_is_told();
        let head = self.converges();
        self.stop();
        self.note();
        let known = self.nodes.iter().map(Node::known).min().unwrap();
        assert!(known >= head, "one knows less than before: {known}, {head}");
        self.are_one(known);
        let mut gone = BTreeSet::new();
        for node in &self.nodes {
            let facts = node.facts(0);
            let last = facts.last().map_or(0, |fact| fact.position);
            let there: BTreeSet<u64> = facts.iter().map(|fact| fact.position).collect();
            let lacking: Vec<_> = self
                .seen
                .range(..=last)
                .filter(|(position, _)| !there.contains(position))
                .collect();
            assert!(lacking.is_empty(), "{} lacks {lacking:?}", node.host.name);
            assert_eq!(node.waiting(), [""; 0], "in the outbox of {}", node.host.name);
            assert_eq!(node.untold(), [""; 0], "{} has not told", node.host.name);
            let elsewhere = node.verify();
            println!("{}: sound, {} artefacts elsewhere", node.host.name, elsewhere.len());
            if node.host.name == "lead" || node.host.name == "spare" {
                gone.extend(elsewhere);
            }
        }
        for hash in gone {
            assert!(self.is_nowhere(&hash), "a coordinator lacks {hash}, which another host has");
            assert!(self.buried > 0, "{hash} is nowhere, although every host is there");
        }
        self.the_book_is_in_order();
    }

    /// Is this on no disk any more?
    fn is_nowhere(&self, hash: &str) -> bool {
        self.nodes.iter().all(|node| !node.has(hash))
    }

    /// No receipt without a copy, nothing given up without receipts, no stale epoch, no result twice.
    fn the_book_is_in_order(&self) {
        let best = self.nodes.iter().max_by_key(|node| node.known()).unwrap();
        let facts = best.facts(0);
        let ledger = Ledger::of(&facts);
        let mut grants: BTreeMap<u64, String> = BTreeMap::new();
        for node in &self.nodes {
            for epoch in node.grants() {
                let twice = grants.insert(epoch, node.name());
                assert!(twice.is_none(), "{twice:?} and {} led in {epoch}", node.host.name);
            }
        }
        println!("led: {grants:?}; gave up: {:?}", ledger.given_up);
        ledger.holds_the_order_of(&grants);
        nothing_stale_behind(&best.guards(), &facts, &grants);
        for (node, told) in &ledger.found {
            let of = self.nodes.iter().find(|known| known.name() == *node);
            println!("{node} was killed before it told {told} batches of games");
            assert!(of.is_none_or(Node::was_killed), "{node} did not tell {told} batches of games");
        }
        let unexplained: Vec<_> =
            ledger.missing.iter().filter(|(_, hash)| !self.damaged.contains(hash)).collect();
        assert!(unexplained.is_empty(), "nodes lost what they had: {unexplained:?}");
        for node in &self.nodes {
            let name = node.name();
            let of_here = ledger.holders.iter().filter(|(_, holders)| holders.contains(&name));
            let lost: Vec<_> =
                of_here.map(|(hash, _)| hash).filter(|hash| !node.has(hash)).collect();
            assert!(lost.is_empty(), "{} said that it has {lost:?}", node.host.name);
            node.trash_is_warranted(&ledger);
        }
    }
}

impl Node {
    /// Up to where its catalogue shows the log.
    fn shown(&self) -> u64 {
        let file = self.data.join("catalogue.sqlite");
        if !file.exists() || !self.replica().exists() {
            return 0;
        }
        self.with_log(async |log| folded(&file, PipelineFold, &log).await.ok().flatten())
            .unwrap_or(0)
    }

    /// What it has not handed in, and what the log did not take.
    pub fn waiting(&self) -> Vec<String> {
        let file = self.data.join("outbox.sqlite");
        if !file.exists() {
            return Vec::new();
        }
        let asked = Reader::new(&file).read_blocking(|db| {
            let question = "SELECT number || ': ' || coalesce(refused, 'it waits') FROM batch";
            db.prepare(question)?.query_map([], |row| row.get(0))?.collect()
        });
        asked.unwrap()
    }

    /// Files of games that no fact names.
    pub fn untold(&self) -> Vec<String> {
        let named = self.ask("SELECT hash FROM blobs", |row| row.get::<_, String>(0));
        let named: BTreeSet<String> = named.into_iter().collect();
        let files = depot::Depot::open_existing(&self.data).list().unwrap();
        let files = files.into_iter().filter(|file| !named.contains(&file.hash.to_string()));
        let games = files.filter(|file| file.extension == "gz" && holds_games(&file.path));
        games.map(|file| file.hash.to_string()).collect()
    }

    /// All in its trash is there for a reason that holds: a rule of retention that the log tells, or two others
    /// that have it. No games are there because nobody named them.
    fn trash_is_warranted(&self, ledger: &Ledger) {
        let trashed = depot::Depot::open_existing(&self.data).trashed().unwrap();
        for file in trashed {
            let (hash, why) = (file.hash.to_string(), &file.why);
            let receipts = why.matches(" (verified ").count();
            let is_warranted = if why.starts_with("copies are held by") {
                receipts >= 2 && !why.contains(&format!(" {} (verified ", self.name()))
            } else {
                ledger.trashed.contains(&hash) || !holds_games(&file.path)
            };
            assert!(is_warranted && !why.is_empty(), "{} gave {hash} up: {why}", self.host.name);
        }
    }
}

/// Is this a file of games that a worker played, and not one of a match?
fn holds_games(path: &Path) -> bool {
    let Ok(file) = fs_err::File::open(path) else { return false };
    let mut line = String::new();
    let read = BufReader::new(MultiGzDecoder::new(file)).read_line(&mut line);
    let game: Value = serde_json::from_str(&line).unwrap_or_default();
    read.is_ok() && game["model"].is_string() && game["decisions"].is_array()
}
