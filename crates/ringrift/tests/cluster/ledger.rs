//! The log as a book: what its facts must not say, one after the other.

use std::collections::{BTreeMap, BTreeSet};

use courier::{Fact, Reader};
use ringrift_daemons::{LEADER, lease_of, registry};
use ringrift_pipeline::NodeId;

use crate::nodes::Node;

/// Copies elsewhere without which no node gives up its own. Source: the safety rule "two verified receipts".
const RECEIPTS: usize = 2;

/// What the facts come to.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The nodes that have an artefact by their own word, by hash.
    pub holders: BTreeMap<String, BTreeSet<String>>,
    /// Artefacts that a rule of retention gave up everywhere.
    pub trashed: BTreeSet<String>,
    /// Artefacts that each node gave up because others have them.
    pub given_up: BTreeMap<String, usize>,
    /// What nodes found missing of what they had said to have: by node and hash.
    pub missing: BTreeSet<(String, String)>,
    /// Batches of games that their maker had not told, by the node on which they were found.
    pub found: BTreeMap<String, usize>,
    /// The nodes that recorded what only the leader records, one after the other.
    pub leaders: Vec<String>,
    members: BTreeSet<String>,
    /// Who has claimed a work item.
    claims: BTreeMap<String, String>,
    /// The epoch of the last claim under each lease.
    epochs: BTreeMap<String, u64>,
    /// Items that were completed.
    ended: BTreeSet<String>,
}

impl Ledger {
    /// Reads all facts. Fails at the first that must not be there.
    pub fn of(facts: &[Fact]) -> Self {
        let (mut ledger, alone) = (Self::default(), of_the_leader());
        for fact in facts {
            let (daemon, node) = fact.source.rsplit_once('@').unwrap_or((&fact.source, ""));
            if alone.contains(daemon) && ledger.leaders.last().is_none_or(|last| last != node) {
                ledger.leaders.push(node.to_owned());
            }
            ledger.enter(fact, daemon, node, if alone.contains(daemon) { LEADER } else { node });
        }
        ledger
    }

    fn enter(&mut self, fact: &Fact, daemon: &str, source: &str, lease: &str) {
        let text = |key: &str| fact.body[key].as_str().unwrap_or_default().to_owned();
        let node = text("node");
        let hashes = || {
            let listed = fact.body["hashes"].as_array().into_iter().flatten();
            listed.map(|hash| hash.as_str().unwrap().to_owned())
        };
        match fact.body["topic"].as_str().unwrap_or_default() {
            "node.joined" => {
                self.members.insert(node);
            }
            "node.removed" => {
                self.members.remove(&node);
                for holders in self.holders.values_mut() {
                    holders.remove(&node);
                }
            }
            "artefacts.held" => {
                // What the log let go while it was hashed counts for nobody.
                for hash in hashes().filter(|hash| !self.trashed.contains(hash)) {
                    self.holders.entry(hash).or_default().insert(node.clone());
                }
            }
            "artefacts.released" => {
                hashes().for_each(|hash| self.release(fact, daemon, source, &node, hash));
            }
            "artefact.trashed" => {
                assert!(!text("reason").is_empty(), "given up for no reason: {fact:?}");
                self.holders.remove(&text("hash"));
                self.trashed.insert(text("hash"));
            }
            "games.committed" if daemon == "ORPHAN_DETECTION" => {
                *self.found.entry(source.to_owned()).or_default() += 1;
            }
            "work.claimed" => self.claim(fact, lease, node),
            "work.released" | "work.failed" | "work.cancelled" => {
                self.claims.remove(&fact.subject);
            }
            "work.completed" => {
                assert!(self.ended.insert(fact.subject.clone()), "ended twice: {fact:?}");
                let claimed = self.claims.remove(&fact.subject);
                assert_eq!(claimed.as_deref(), Some(source), "ended by who had it not: {fact:?}");
            }
            _ => {}
        }
    }

    /// Who gives up a copy has two receipts at that place of the log; who finds one missing says that of itself.
    fn release(&mut self, fact: &Fact, daemon: &str, source: &str, node: &str, hash: String) {
        let others = self.holders.get(&hash).into_iter().flatten();
        let others = others.filter(|other| *other != node && self.members.contains(*other));
        let others: Vec<String> = others.cloned().collect();
        if daemon == "SYNC_PUSH" {
            assert!(
                others.len() >= RECEIPTS,
                "{node} gave {hash} up at {}, which only {others:?} have",
                fact.position
            );
            *self.given_up.entry(node.to_owned()).or_default() += 1;
        }
        let was_there = self.holders.get_mut(&hash).is_some_and(|holders| holders.remove(node));
        if daemon != "SYNC_PUSH" && was_there {
            let (at, was_trashed) = (fact.position, self.trashed.contains(&hash));
            println!(
                "{node} has no more {hash}, as {source} says at {at}; {others:?} have it; the log had let it go: \
                 {was_trashed}"
            );
            if source == node {
                self.missing.insert((node.to_owned(), hash));
            }
        }
    }

    /// The epoch of a lease only rises, and nobody claims what somebody has.
    fn claim(&mut self, fact: &Fact, lease: &str, node: String) {
        let epoch = fact.body["epoch"].as_u64().unwrap();
        let last = self.epochs.insert(lease.to_owned(), epoch).unwrap_or(0);
        assert!(epoch > 0 && epoch >= last, "a stale epoch, {last} came before: {fact:?}");
        let before = self.claims.insert(fact.subject.clone(), node);
        assert!(before.is_none(), "claimed while {before:?} had it: {fact:?}");
    }

    /// What was recorded by leaders was recorded in the order in which they got the lease.
    ///
    /// The epochs are told by the managers themselves: the log keeps only the last one of a lease.
    pub fn holds_the_order_of(&self, grants: &BTreeMap<u64, String>) {
        let mut order = grants.values();
        for leader in &self.leaders {
            assert!(
                order.any(|holder| holder == leader),
                "a stale leader was believed: {:?} recorded, granted were {grants:?}",
                self.leaders
            );
        }
    }
}

/// The last state of a lease beyond which the log takes nothing of an earlier epoch.
#[derive(Debug, Default)]
pub struct Guard {
    lease: String,
    epoch: u64,
    /// It was given back.
    over: bool,
    /// From here on.
    position: u64,
}

impl Node {
    /// The guards in the log of facts, as it knows them.
    pub fn guards(&self) -> Vec<Guard> {
        let question = "SELECT lease, epoch, over, sequence FROM guard WHERE stream = 'pipeline'";
        let asked = Reader::new(&self.replica()).read_blocking(|db| {
            let read = |row: &courier::rusqlite::Row<'_>| {
                let (lease, over) = (row.get(0)?, row.get(2)?);
                Ok(Guard { lease, epoch: row.get(1)?, over, position: row.get(3)? })
            };
            db.prepare(question)?.query_map([], read)?.collect()
        });
        asked.unwrap()
    }

    /// The epochs in which it led, by its own word.
    pub fn grants(&self) -> Vec<u64> {
        let said = fs_err::read_to_string(self.data.join("logs/daemons.log")).unwrap_or_default();
        let epochs = said.lines().filter_map(|line| {
            let epoch = line.split_once("this node leads epoch=")?.1;
            epoch.split_whitespace().next()?.parse().ok()
        });
        epochs.collect()
    }
}

/// Behind a guard nothing stands that carries another epoch.
pub fn nothing_stale_behind(guards: &[Guard], facts: &[Fact], grants: &BTreeMap<u64, String>) {
    let alone = of_the_leader();
    assert!(guards.iter().any(|guard| guard.lease == LEADER), "nobody ever led: {guards:?}");
    for guard in guards {
        let in_force = Some(guard.epoch).filter(|_| !guard.over);
        for fact in facts.iter().filter(|fact| fact.position > guard.position) {
            let Some((daemon, node)) = fact.source.rsplit_once('@') else { continue };
            let is_of_the_leader = alone.contains(daemon);
            let lease =
                if is_of_the_leader { LEADER.to_owned() } else { lease_of(&NodeId(node.into())) };
            if guard.lease != lease {
                continue;
            }
            if is_of_the_leader {
                let leads = in_force.and_then(|epoch| grants.get(&epoch));
                assert_eq!(leads.map(String::as_str), Some(node), "{guard:?}, then {fact:?}");
            }
            if fact.body["topic"] == "work.claimed" {
                assert_eq!(fact.body["epoch"].as_u64(), in_force, "{guard:?}, then {fact:?}");
            }
        }
    }
}

/// The daemons that only the leader runs, and that record under its lease.
fn of_the_leader() -> BTreeSet<String> {
    let alone = registry().filter(|(_, entry)| entry.spec.leader_only);
    alone.map(|(_, entry)| entry.spec.id.to_string()).collect()
}
