//! `GOSSIP_SYNC`: keeps the log's word on what is where true.
//!
//! Reads   the store of this node, what the log names, who said that he has what; and asks a few other nodes each
//!         time whether they have what they said, which they prove by a piece of it.
//! Writes  `artefacts.held` for what is here, after it was hashed here; `artefacts.released` for what this node
//!         said it has and has no longer, and for what another one denied twice. One fact a cycle of each at
//!         most, and none while nothing changes. Who was wronged finds that in its own next cycle.
//! Never   moves anything: who lacks something fetches it, and who is to have it is for `SYNC_PUSH` to say.
//!
//! Nothing is rumoured from node to node: each speaks for itself, in the log that all of them read. On one
//! machine nobody wants to know what is where, and nothing is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use depot::{Depot, Fault};
use ringrift_pipeline::{
    ArtefactsHeld, ArtefactsReleased, BlobHash, Catalogue, NodeId, Record, Topic as _,
};
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use super::whereabouts::{ALONE, others};
use crate::{
    Blobs, Emits, Loop, Neighbours, Topics,
    blobs::parse,
    cycle::{EVENT_ROUTER, settled},
};

/// Most artefacts of which one fact speaks: so many hashes are a tenth of what a fact may be.
const MOST: usize = 1000;

/// `[daemons.gossip_sync]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Artefacts that one cycle hashes before it says that they are here; 1000 at most.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_told_per_cycle: usize,
    /// Artefacts of which one cycle asks other nodes whether they have them; 0 = it asks nobody.
    pub max_asked_per_cycle: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_told_per_cycle: 500, max_asked_per_cycle: 8 }
    }
}

/// What it knows and has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Why there is nothing to do, if so.
    pub idle: Option<String>,
    /// Artefacts of which this node said that it has them.
    pub held: u64,
    /// Those that are here and not told yet.
    pub untold: u64,
    /// Artefacts told since the daemon started.
    pub told: u64,
    /// Artefacts of which this node had to say that it has them no longer.
    pub released: u64,
    /// Artefacts that are damaged here, and how.
    pub faults: BTreeMap<String, String>,
    /// Questions that other nodes answered since the daemon started.
    pub asked: u64,
    /// Copies of other nodes that were struck off, since they denied them.
    pub denied: u64,
}

/// The daemon.
pub struct GossipSync {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    neighbours: Neighbours,
    /// Questions asked, which says whose turn it is.
    turn: usize,
    /// Who has denied what once.
    doubts: BTreeSet<(NodeId, BlobHash)>,
    status: Status,
}

impl Emits for GossipSync {
    const EMITS: Topics = &[&[ArtefactsHeld::TOPIC, ArtefactsReleased::TOPIC]];
}

impl Daemon for GossipSync {
    const SPEC: Spec = Spec {
        id: DaemonId("GOSSIP_SYNC"),
        about: "keeps the log's word on what is where true",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        // Hashing is the work, and beats come per file; nothing wakes it, so that facts stay few.
        cycle_limit: std::time::Duration::from_mins(5),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>, Neighbours);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop, neighbours): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            blobs,
            the_loop,
            neighbours,
            turn: 0,
            doubts: BTreeSet::new(),
            status: Status::default(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        if !self.the_loop.shared {
            self.status.idle = Some(ALONE.to_owned());
            return Ok(Outcome::Done(self.status.clone()));
        }
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        match last.faults.iter().next() {
            Some((hash, fault)) => Health::Degraded(format!("{hash}: {fault}")),
            None => Health::Healthy,
        }
    }
}

impl GossipSync {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        // What was told first, then the store: what is given up in between is told to be gone, which is
        // so; never the other way round.
        let told = self.catalogue.held_by(&self.the_loop.node).await?;
        let told: BTreeSet<BlobHash> = told.into_iter().map(|(hash, _)| hash).collect();
        let here: BTreeSet<BlobHash> = self.blobs.with(list).await??;
        let named = self.catalogue.blobs(None).await?;
        let named: BTreeSet<BlobHash> = named.into_iter().map(|row| row.hash).collect();
        let Differences { gone, untold } = compare(&told, &here, &named);
        self.status.faults.retain(|hash, _| untold.iter().any(|untold| untold.as_str() == hash));
        let most = self.config.max_told_per_cycle.min(MOST);
        let mut held = Vec::new();
        for hash in &untold {
            if held.len() >= most {
                break;
            }
            cx.beat()?;
            if self.is_whole(hash).await? {
                held.push(hash.clone());
            }
        }
        let mut gone = gone;
        gone.truncate(MOST);
        self.status.held = (told.len() + held.len() - gone.len()) as u64;
        self.status.untold = (untold.len() - held.len()) as u64;
        let (new, lost) = (held.len() as u64, gone.len() as u64);
        let node = &self.the_loop.node;
        let mut records = Vec::new();
        if !held.is_empty() {
            records.push(Record::always(ArtefactsHeld { node: node.clone(), hashes: held }));
        }
        if !gone.is_empty() {
            let reason = "it is not in the store".to_owned();
            records.push(released(node.clone(), gone, reason, cx.now()));
        }
        let denials = self.ask_others(cx).await?;
        let struck = denials.values().map(|hashes| hashes.len() as u64).sum::<u64>();
        records.extend(denials.into_iter().map(|(node, hashes)| {
            let reason = format!("{node} was asked by {} and has them not", self.the_loop.node);
            released(node, hashes, reason, cx.now())
        }));
        if !records.is_empty() {
            self.catalogue.record(records, cx.now()).await?;
            info!(new, lost, struck, "told what is where");
        }
        self.status.denied += struck;
        self.status.told += new;
        self.status.released += lost;
        Ok(Outcome::Done(self.status.clone()))
    }

    /// Asks a few nodes whether they have what they said; gives what was denied a second time.
    async fn ask_others(&mut self, cx: &Cx) -> anyhow::Result<BTreeMap<NodeId, Vec<BlobHash>>> {
        let mut denied: BTreeMap<NodeId, Vec<BlobHash>> = BTreeMap::new();
        let neighbours = self.neighbours.clone();
        let Some(neighbours) = neighbours.get() else { return Ok(denied) };
        for (node, hash) in self.questions().await? {
            let Some(row) = self.catalogue.blob(&hash).await? else { continue };
            cx.beat()?;
            let doubt = (node, hash);
            match neighbours.has(&doubt.0, &row).await {
                Ok(true) => {
                    self.doubts.remove(&doubt);
                }
                Ok(false) if self.doubts.remove(&doubt) => {
                    let (node, hash) = doubt;
                    warn!(%node, %hash, "has not got what it said");
                    denied.entry(node).or_default().push(hash);
                }
                Ok(false) => {
                    self.doubts.insert(doubt);
                }
                Err(why) => {
                    debug!(node = %doubt.0, why, "gives no answer");
                    continue;
                }
            }
            self.status.asked += 1;
        }
        Ok(denied)
    }

    /// Whom to ask for what: what was denied before, and the next few things of the next node.
    async fn questions(&mut self) -> anyhow::Result<Vec<(NodeId, BlobHash)>> {
        let mut living = others(&self.catalogue, &self.the_loop).await?;
        living.retain(|row| self.the_loop.nodes.lives(&row.node));
        self.doubts.retain(|(node, _)| living.iter().any(|row| row.node == *node));
        let mut questions: Vec<(NodeId, BlobHash)> = Vec::new();
        for (node, hash) in std::mem::take(&mut self.doubts) {
            // It may have said so itself meanwhile.
            if self.catalogue.holders(&hash).await?.iter().any(|holder| holder.node == node) {
                self.doubts.insert((node.clone(), hash.clone()));
                questions.push((node, hash));
            }
        }
        questions.truncate(self.config.max_asked_per_cycle);
        let more = self.config.max_asked_per_cycle - questions.len();
        if !living.is_empty() && more > 0 {
            let node = &living[self.turn % living.len()].node;
            let held = self.catalogue.held_by(node).await?;
            let first = self.turn / living.len() * self.config.max_asked_per_cycle;
            for place in first..first + more.min(held.len()) {
                let question = (node.clone(), held[place % held.len()].0.clone());
                if !questions.contains(&question) {
                    questions.push(question);
                }
            }
            self.turn = self.turn.wrapping_add(1);
        }
        Ok(questions)
    }

    /// Hashes an artefact of this node.
    async fn is_whole(&mut self, hash: &BlobHash) -> anyhow::Result<bool> {
        let parsed = parse(hash)?;
        match self.blobs.with(move |depot| depot.verify(&parsed)).await? {
            Ok(()) => {
                self.status.faults.remove(hash.as_str());
                Ok(true)
            }
            Err(Fault::Missing { .. }) => Ok(false),
            Err(fault) => {
                warn!(%hash, %fault, "what is damaged is not told");
                self.status.faults.insert(hash.to_string(), fault.to_string());
                Ok(false)
            }
        }
    }
}

/// One append may speak of several nodes, and each fact has an id of its own.
fn released(node: NodeId, hashes: Vec<BlobHash>, reason: String, now_ms: i64) -> Record {
    let key = format!("{node}/t{now_ms}");
    Record::once(ArtefactsReleased { node, hashes, reason }, key)
}

fn list(depot: &Depot) -> depot::Result<BTreeSet<BlobHash>> {
    let entries = depot.list()?;
    Ok(entries.into_iter().map(|entry| BlobHash(entry.hash.to_string())).collect())
}

/// What this node's word and its store do not agree on.
#[derive(Debug, PartialEq, Eq)]
struct Differences {
    /// Said to be here, and not here.
    gone: Vec<BlobHash>,
    /// Here, named by the log, and not said to be here.
    untold: Vec<BlobHash>,
}

fn compare(
    told: &BTreeSet<BlobHash>,
    here: &BTreeSet<BlobHash>,
    named: &BTreeSet<BlobHash>,
) -> Differences {
    Differences {
        gone: told.difference(here).cloned().collect(),
        untold: here
            .iter()
            .filter(|hash| named.contains(*hash) && !told.contains(*hash))
            .cloned()
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bed, Street, done, hex, stops_in_mid_cycle};

    fn daemon(bed: &Bed, config: Config) -> GossipSync {
        let neighbours = bed.neighbours.clone();
        let ports = (bed.catalogue_of::<GossipSync>(), bed.blobs.clone(), bed.shared(), neighbours);
        GossipSync::new(config, ports)
    }

    #[test]
    fn what_is_told_is_what_is_here_and_named() {
        let set = |names: &str| names.chars().map(|c| BlobHash(c.to_string())).collect();
        let check = |told: &str, here: &str, named: &str, gone: &str, untold: &str| {
            let Differences { gone: g, untold: u } = compare(&set(told), &set(here), &set(named));
            let text =
                |list: Vec<BlobHash>| list.into_iter().map(|hash| hash.0).collect::<String>();
            assert_eq!(
                (text(g).as_str(), text(u).as_str()),
                (gone, untold),
                "{told} {here} {named}"
            );
        };
        check("", "", "", "", "");
        check("", "ab", "abc", "", "ab");
        check("ab", "ab", "ab", "", "");
        check("abc", "b", "abc", "ac", "");
        check("", "x", "abc", "", "");
        check("x", "x", "abc", "", "");
    }

    #[tokio::test]
    async fn each_artefact_is_told_once_in_one_fact_and_what_is_lost_is_told_too() {
        let bed = Bed::new().await;
        bed.joined(&["there"]).await;
        let batches = [bed.batch(hex(), &["g1"]).await, bed.batch(hex(), &["g2"]).await];
        bed.put("named by nobody");
        let (cx, _probe) = bed.cx::<GossipSync>();
        let mut daemon = daemon(&bed, Config::default());
        let facts = bed.facts().await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.held, status.told, bed.facts().await), (2, 2, facts + 1));
        for batch in &batches {
            assert_eq!(bed.who_has(batch).await, ["here"]);
        }
        done(daemon.cycle(&cx).await);
        assert_eq!(bed.facts().await, facts + 1, "a second cycle finds nothing to tell");

        fs_err::remove_file(bed.blobs.path_of(&batches[0]).await.unwrap().unwrap()).unwrap();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.held, status.released, bed.facts().await), (1, 1, facts + 2));
        assert_eq!(bed.who_has(&batches[0]).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_is_damaged_is_not_told_and_degrades() {
        let bed = Bed::new().await;
        let batch = bed.batch(hex(), &["g1"]).await;
        let path = bed.blobs.path_of(&batch).await.unwrap().unwrap();
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, "something else").unwrap();
        let (cx, _probe) = bed.cx::<GossipSync>();
        let mut daemon = daemon(&bed, Config::default());
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.told, status.untold), (0, 1));
        assert!(matches!(daemon.health(&status), Health::Degraded(_)));
        fs_err::remove_file(&path).unwrap();
        bed.put("g1");
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.told, daemon.health(&status)), (1, Health::Healthy));
    }

    #[tokio::test]
    async fn many_are_told_in_several_cycles_and_a_stop_in_the_middle_tells_nothing() {
        let bed = Bed::new().await;
        for game in ["g1", "g2", "g3"] {
            bed.batch(hex(), &[game]).await;
        }
        stops_in_mid_cycle(&bed, daemon(&bed, Config::default())).await;
        let (cx, _probe) = bed.cx::<GossipSync>();
        let mut daemon = daemon(&bed, Config { max_told_per_cycle: 2, ..Config::default() });
        assert_eq!(done(daemon.cycle(&cx).await).untold, 1);
        assert_eq!(done(daemon.cycle(&cx).await).held, 3);
    }

    #[tokio::test]
    async fn what_another_node_denies_twice_is_struck_off_and_silence_is_no_denial() {
        let bed = Bed::new().await;
        bed.joined(&["there", "far"]).await;
        bed.live(&["there", "far"]).await;
        let street = Street::default();
        street.open(&bed);
        let (good, bad) = (bed.named_only("good").await, bed.named_only("bad").await);
        bed.held("there", &[&good, &bad]).await;
        bed.held("far", &[&bad]).await;
        street.proves("there", &good);
        street.leaves("far");
        let mut daemon = daemon(&bed, Config::default());
        let (cx, _probe) = bed.cx::<GossipSync>();
        let facts = bed.facts().await;
        for _ in 0..2 {
            assert_eq!(done(daemon.cycle(&cx).await).denied, 0, "once may be chance");
        }
        assert_eq!(bed.facts().await, facts);
        let mut status = done(daemon.cycle(&cx).await);
        for _ in 0..4 {
            status = done(daemon.cycle(&cx).await);
        }
        assert_eq!((status.denied, bed.facts().await), (1, facts + 1));
        assert_eq!(bed.who_has(&bad).await, ["far"]);
        assert_eq!(bed.who_has(&good).await, ["there"]);
    }

    #[tokio::test]
    async fn on_one_machine_nothing_is_told() {
        let bed = Bed::new().await;
        bed.batch(hex(), &["g1"]).await;
        let mut daemon = daemon(&bed, Config::default());
        daemon.the_loop = bed.the_loop.clone();
        let facts = bed.facts().await;
        let (cx, _probe) = bed.cx::<GossipSync>();
        let status = done(daemon.cycle(&cx).await);
        assert!(status.idle.is_some() && bed.facts().await == facts);
        assert_eq!(daemon.health(&status), Health::Healthy);
    }
}
