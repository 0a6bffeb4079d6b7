//! `SYNC_PUSH`: sees to it that what one node has reaches others, and that a node that runs out of room can give
//! up what others have.
//!
//! Reads   what lacks copies, who lives, the disk of this node, what the strategy of `AUTO_SYNC` keeps here.
//! Writes  into the store what this node is to have; `artefacts.offered` when its disk fills; and when it is
//!         nearly full, `artefacts.released` and the files into the trash, each with two receipts: of nodes that
//!         said so in the log, and proved it when they were asked a moment ago.
//! Never   gives up what this node will read soon, nor anything on a doubt: two nodes that rely on each other's
//!         copy cannot both give theirs up, because the log takes one such fact after the other.
//!
//! Nobody is sent anything: who is to take what follows from the log, in the same way on every node, and whoever
//! is to have it fetches it. A node that does not, because it is full or away, is stood in for by the next one
//! after a while. On one machine there is nothing to do.
//!
//! A node that may vanish waits at its orderly stop until others have what its workers handed in last.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use courier::Stream;
use depot::{Receipt, Warrant};
use ringrift_pipeline::{
    ArtefactsHeld, ArtefactsOffered, ArtefactsReleased, BlobHash, BlobRow, Catalogue, CopiesRow,
    NodeId, NodeRow, RELEASES, Record, Topic as _,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec, State};

use super::{
    auto_sync::{AutoSync, Strategy, strategy_of},
    gossip_sync::GossipSync,
    last_copies::{LOOK_AGAIN, hand_over},
    whereabouts::{
        ABSENCE, ALONE, Counted, ENOUGH, Look, Since, disk_without_trash, in_turn, needed_here,
        others,
    },
};
use crate::{
    Bell, Blobs, Emits, Loop, Neighbours, OutOfReach, Topics,
    blobs::parse,
    cycle::{EVENT_ROUTER, settled},
    on,
    resource::idle_resource::IdleResource,
};

/// Most artefacts of which one fact speaks.
const MOST: u32 = 1000;
/// Longest wait until the catalogue shows what others gave up.
const ANSWER: Duration = Duration::from_secs(5);
/// An offer is taken back when the disk is so much calmer than when it was made.
const CALMER: f64 = 0.1;
/// Copies elsewhere that allow to give up the one here: the depot asks for as many receipts.
const RECEIPTS: usize = 2;

/// `[daemons.sync_push]`. Source of the shares: sync contract, section of this daemon; they leave out the trash, which is
/// emptied when room is needed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Nodes that are to have each artefact, or all of them if there are fewer.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub copies: u32,
    /// Above this share in use nothing is taken.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub take_below: f64,
    /// From this share in use on, what is here is offered to others.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub offer_from: f64,
    /// From this share in use on, what two others have is given up.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub release_from: f64,
    /// A node that has been silent for longer does not count as having anything.
    #[serde(with = "crate::seconds")]
    pub absence: Duration,
    /// Who is next in turn takes an artefact that has lacked copies for so long.
    #[serde(with = "crate::seconds")]
    pub patience: Duration,
    /// Bytes that one cycle takes; what is larger is taken alone.
    pub max_bytes_per_cycle: u64,
    /// Artefacts that one cycle offers, and as many that it gives up.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_offered_per_cycle: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            copies: ENOUGH,
            take_below: 0.7,
            offer_from: 0.5,
            release_from: 0.75,
            absence: ABSENCE,
            patience: Duration::from_mins(10),
            max_bytes_per_cycle: 1 << 30,
            max_offered_per_cycle: 100,
        }
    }
}

/// What it sees and has done.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// Why there is nothing to do, if so.
    pub idle: Option<String>,
    /// Nodes that are to have each artefact now.
    pub copies: u32,
    /// Artefacts that lack copies; no more than 1000 are looked at.
    pub lacking: usize,
    /// Those of them that only this node has.
    pub only_here: usize,
    /// Longest time that one of those has been waiting for others, as seen from here.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub longest_wait: Duration,
    /// Share of the disk in use, without the trash.
    pub used: f64,
    /// Artefacts that others are asked to take off this node.
    pub offered: usize,
    /// Artefacts taken since the daemon started.
    pub taken: u64,
    /// Their bytes.
    pub taken_bytes: u64,
    /// Artefacts given up since the daemon started.
    pub released: u64,
    /// Their bytes.
    pub released_bytes: u64,
    /// What nobody gave in the last cycle, and why.
    pub out_of_reach: Option<String>,
}

/// The daemon.
pub struct SyncPush {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    neighbours: Neighbours,
    bell: Bell,
    look: Look,
    /// Members that were not seen to live.
    counted: Counted,
    /// Artefacts that lack copies.
    lacking: Since<BlobHash>,
    /// When this node offered something last.
    offered_at: Option<Instant>,
    status: Status,
}

impl Emits for SyncPush {
    const EMITS: Topics =
        &[&[ArtefactsHeld::TOPIC, ArtefactsOffered::TOPIC, ArtefactsReleased::TOPIC]];
}

impl Daemon for SyncPush {
    const SPEC: Spec = Spec {
        id: DaemonId("SYNC_PUSH"),
        about: "sees to it that every artefact has copies",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        // Half of what others take to hear of a new artefact: a copy is there within two minutes.
        period: Duration::from_secs(30),
        // What a node offers that may vanish is not left to it for half a minute.
        wakes_on: &[on::<ArtefactsOffered>()],
        health_interval: Some(Duration::from_mins(1)),
        // Fetching is the work, and beats come per file.
        cycle_limit: Duration::from_mins(30),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>, Neighbours, Bell);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop, neighbours, bell): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            blobs,
            the_loop,
            neighbours,
            bell,
            look: Arc::new(hosts::disk),
            counted: Counted::default(),
            lacking: Since::default(),
            offered_at: None,
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

    async fn stop(&mut self, cx: &Cx) -> anyhow::Result<()> {
        if !self.the_loop.shared || self.strategy() != Some(Strategy::Ephemeral) {
            return Ok(());
        }
        let bell = self.bell.clone();
        let more_comes = move || {
            let snapshot = bell.snapshot();
            let plays = snapshot.as_ref().and_then(|snapshot| snapshot.get(IdleResource::ID));
            plays.is_some_and(|plays| plays.state == State::Stopping)
        };
        // That the others of this level stop, too, is shown a moment later.
        cx.sleep(LOOK_AGAIN).await?;
        hand_over(&self.catalogue, &self.blobs, &self.the_loop, more_comes, cx).await;
        Ok(())
    }

    fn health(&self, last: &Status) -> Health {
        // The last in turn needs several times that until it stands in.
        if last.only_here > 0 && last.copies > 1 && last.longest_wait > 6 * self.config.patience {
            let (number, minutes) = (last.only_here, last.longest_wait.as_secs() / 60);
            return Health::Degraded(format!(
                "{number} artefacts are on this node alone, the first for {minutes} minutes; the \
                 other nodes take none of them"
            ));
        }
        match &last.out_of_reach {
            Some(why) => Health::Degraded(why.clone()),
            None => Health::Healthy,
        }
    }
}

impl SyncPush {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let asked = disk_without_trash(&self.look, &self.blobs, &self.the_loop, cx).await?;
        let disk = match asked {
            Ok(disk) => disk,
            Err(why) => {
                let reason = format!("the disk cannot be measured: {why}");
                return Ok(Outcome::blocked(reason).with_status(self.status.clone()));
            }
        };
        self.status.used = disk.used_share();
        let others = others(&self.catalogue, &self.the_loop).await?;
        let view = self.view(&others);
        self.take(&view, cx).await?;
        self.make_room(&view, disk.total, cx).await?;
        Ok(Outcome::Done(self.status.clone()))
    }

    /// Who gives, who takes, and whose copies count.
    fn view(&mut self, others: &[NodeRow]) -> View {
        let lives = |node: &&NodeId| self.the_loop.nodes.lives(node);
        let here = self.the_loop.node.clone();
        let living = others.iter().map(|row| &row.node).filter(lives).chain([&here]);
        let living = living.cloned().collect();
        let counted = self.counted.among(others, &self.the_loop, self.config.absence);
        let mut view = View { here, living, counted, copies: 0 };
        let takers = u32::try_from(view.takers().count()).unwrap_or(u32::MAX);
        view.copies = self.config.copies.min(takers);
        view
    }

    /// What `AUTO_SYNC` does here; none while it has not said so. Without it nothing is kept for good.
    fn strategy(&self) -> Option<Strategy> {
        let snapshot = self.bell.snapshot();
        let shown = snapshot.as_ref().and_then(|snapshot| snapshot.get(AutoSync::ID));
        shown.filter(|daemon| daemon.asked).map_or(Some(Strategy::Hybrid), strategy_of)
    }

    /// Fetches what lacks copies, if it is this node's turn.
    async fn take(&mut self, view: &View, cx: &Cx) -> anyhow::Result<()> {
        let few = self.catalogue.with_fewer_copies_among(&view.counted, view.copies, MOST).await?;
        self.lacking.note(few.iter().map(|row| row.blob.hash.clone()));
        let only_here =
            few.iter().filter(|row| row.holders.len() == 1 && row.is_held_by(&view.here));
        self.status.longest_wait = only_here
            .clone()
            .filter_map(|row| self.lacking.how_long(&row.blob.hash))
            .max()
            .unwrap_or_default();
        self.status.only_here = only_here.count();
        self.status.copies = view.copies;
        self.status.lacking = few.len();
        self.status.out_of_reach = None;
        if self.status.used >= self.config.take_below {
            return Ok(());
        }
        let (before, mut bytes) = (self.status.taken, 0_u64);
        for row in few {
            let waited = self.lacking.how_long(&row.blob.hash).unwrap_or_default();
            if !view.is_ours(&row, waited, self.config.patience) {
                continue;
            }
            if bytes > 0 && bytes.saturating_add(row.blob.bytes) > self.config.max_bytes_per_cycle {
                break;
            }
            cx.beat()?;
            let hash = parse(&row.blob.hash)?;
            if self.blobs.with(move |depot| depot.contains(&hash)).await?? {
                // It is here, and told a moment later.
                continue;
            }
            match self.blobs.path_of(&row.blob.hash).await {
                Ok(Some(_)) => {
                    info!(hash = %row.blob.hash, role = row.blob.role, "a copy was taken");
                    bytes = bytes.saturating_add(row.blob.bytes);
                    self.status.taken += 1;
                }
                Ok(None) => {}
                Err(error) => {
                    let why = error.downcast::<OutOfReach>()?;
                    warn!(error = %why, "a copy is not taken");
                    self.status.out_of_reach = Some(why.to_string());
                }
            }
        }
        self.status.taken_bytes += bytes;
        if self.status.taken > before {
            // That it is here is told there.
            self.bell.wake_daemon(GossipSync::ID);
        }
        Ok(())
    }

    /// Offers what is here while the disk fills, and gives it up when it is nearly full.
    async fn make_room(&mut self, view: &View, disk_bytes: u64, cx: &Cx) -> anyhow::Result<()> {
        let held = self.catalogue.held_by(&self.the_loop.node).await?;
        let offered: Vec<BlobHash> =
            held.iter().filter(|(_, offered)| *offered).map(|(hash, _)| hash.clone()).collect();
        self.status.offered = offered.len();
        let Some(strategy) = self.strategy() else { return Ok(()) };
        // Where everything is kept, what was given up would be fetched again.
        let keeps_all = strategy == Strategy::Pull;
        // What a node offers that may vanish has nothing to do with its disk.
        let may_vanish = strategy == Strategy::Ephemeral;
        let used = self.status.used;
        let is_calm = used < self.config.offer_from - CALMER;
        if !offered.is_empty() && (keeps_all || (is_calm && !may_vanish)) {
            return self.keep_after_all(offered, cx).await;
        }
        if keeps_all || used < self.config.offer_from {
            return Ok(());
        }
        let needed = needed_here(&self.catalogue, &self.the_loop).await?;
        if used >= self.config.release_from {
            self.release(&offered, &needed, view, disk_bytes, cx).await?;
        }
        let kept: BTreeSet<BlobHash> =
            held.into_iter().filter(|(_, offered)| !offered).map(|(hash, _)| hash).collect();
        self.offer(&kept, &needed, cx).await
    }

    async fn keep_after_all(&mut self, offered: Vec<BlobHash>, cx: &Cx) -> anyhow::Result<()> {
        cx.beat()?;
        info!(artefacts = offered.len(), "offers are taken back");
        let mut hashes = offered;
        hashes.truncate(MOST as usize);
        let held = ArtefactsHeld { node: self.the_loop.node.clone(), hashes };
        self.catalogue.record(vec![Record::always(held)], cx.now()).await?;
        self.status.offered = 0;
        Ok(())
    }

    /// The oldest of what this node does not need itself.
    async fn offer(
        &mut self,
        kept: &BTreeSet<BlobHash>,
        needed: &BTreeSet<BlobHash>,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        cx.beat()?;
        // An offer wakes this node, too: there is one each period all the same.
        if self.offered_at.is_some_and(|at| at.elapsed() < Self::SPEC.period) {
            return Ok(());
        }
        let named = self.catalogue.blobs(None).await?;
        let may_go = named.into_iter().map(|row| row.hash);
        let may_go = may_go.filter(|hash| kept.contains(hash) && !needed.contains(hash));
        let hashes: Vec<BlobHash> =
            may_go.take(self.config.max_offered_per_cycle.min(MOST as usize)).collect();
        if hashes.is_empty() {
            return Ok(());
        }
        self.status.offered += hashes.len();
        self.offered_at = Some(Instant::now());
        let reason = format!("{:.0} % of the disk is in use", self.status.used * 100.0);
        info!(artefacts = hashes.len(), reason, "offered to others");
        let node = self.the_loop.node.clone();
        let offered = ArtefactsOffered { node, hashes, reason };
        self.catalogue.record(vec![Record::always(offered)], cx.now()).await?;
        Ok(())
    }

    /// The fact first: a file without it is found here and told again, a fact without a file would be a copy
    /// that is none.
    async fn release(
        &mut self,
        offered: &[BlobHash],
        needed: &BTreeSet<BlobHash>,
        view: &View,
        disk_bytes: u64,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        // Whatever is given up anywhere after this refuses what is decided here.
        let last = self.catalogue.log().last_on(Stream::Pipeline, RELEASES).await?;
        let last = last.map_or(0, |fact| fact.position);
        self.catalogue.shows(last, ANSWER).await?;
        let mut excess = self.excess(disk_bytes);
        let mut going: Vec<(BlobRow, Vec<NodeId>)> = Vec::new();
        for hash in offered.iter().filter(|hash| !needed.contains(*hash)) {
            if excess == 0 || going.len() >= self.config.max_offered_per_cycle {
                break;
            }
            cx.beat()?;
            let Some(row) = self.catalogue.blob(hash).await? else { continue };
            let keepers = self.proven_keepers(&row, view).await?;
            if keepers.len() >= RECEIPTS {
                excess = excess.saturating_sub(row.bytes);
                going.push((row, keepers));
            }
        }
        if going.is_empty() {
            return Ok(());
        }
        let released = ArtefactsReleased {
            node: self.the_loop.node.clone(),
            hashes: going.iter().map(|(row, _)| row.hash.clone()).collect(),
            reason: format!(
                "two others have each, and {:.0} % of the disk is in use",
                self.status.used * 100.0
            ),
        };
        let now_ms = cx.now();
        self.catalogue.record(vec![Record::after(released, last)], now_ms).await?;
        for (row, keepers) in going {
            let receipt = |node: NodeId| Receipt { holder: node.0, verified_ms: now_ms };
            let warrant = Warrant::Copies(keepers.into_iter().map(receipt).collect());
            let hash = parse(&row.hash)?;
            match self.blobs.with(move |depot| depot.trash(&hash, &warrant, now_ms)).await? {
                Ok(()) => {
                    info!(hash = %row.hash, role = row.role, bytes = row.bytes, "given up to others");
                    self.status.released += 1;
                    self.status.released_bytes += row.bytes;
                    self.status.offered = self.status.offered.saturating_sub(1);
                }
                Err(depot::Error::Fault(depot::Fault::Missing { .. })) => {}
                // It is here, untold, and goes when there is room for its reason.
                Err(error) if error.is_full() => warn!(hash = %row.hash, %error, "not moved"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Bytes to give up until the disk is as empty as it is when offers are made.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an estimate, not below 0"
    )]
    fn excess(&self, disk_bytes: u64) -> u64 {
        ((self.status.used - self.config.offer_from).max(0.0) * disk_bytes as f64) as u64
    }

    /// Two nodes that keep this and prove it now; fewer if there are no two.
    async fn proven_keepers(&self, row: &BlobRow, view: &View) -> anyhow::Result<Vec<NodeId>> {
        let Some(neighbours) = self.neighbours.get() else { return Ok(Vec::new()) };
        let mut proven = Vec::new();
        for holder in self.catalogue.holders(&row.hash).await? {
            let node = holder.node;
            let keeps = !holder.offered && view.takers().any(|taker| *taker == node);
            if !keeps || node == view.here {
                continue;
            }
            match neighbours.has(&node, row).await {
                Ok(true) => proven.push(node),
                Ok(false) => warn!(%node, hash = %row.hash, "has not got what it said"),
                Err(why) => info!(%node, why, "proves nothing now"),
            }
            if proven.len() >= RECEIPTS {
                break;
            }
        }
        Ok(proven)
    }
}

/// The cluster, as far as copies go.
#[derive(Debug)]
struct View {
    here: NodeId,
    /// Nodes that can give something now.
    living: BTreeSet<NodeId>,
    /// Nodes whose copies count.
    counted: BTreeSet<NodeId>,
    /// Nodes that are to have each artefact.
    copies: u32,
}

impl View {
    /// Nodes that may take something now.
    fn takers(&self) -> impl Iterator<Item = &NodeId> {
        self.living.intersection(&self.counted)
    }

    /// Is this node to take a copy, which has been lacking for so long?
    ///
    /// Of those that have it not, as many are asked as copies lack, in the artefact's own order; each next
    /// one after a further while.
    fn is_ours(&self, row: &CopiesRow, waited: Duration, patience: Duration) -> bool {
        if !row.holders.iter().any(|holder| self.living.contains(&holder.node)) {
            return false;
        }
        let turn = in_turn(&row.blob.hash, self.takers().filter(|node| !row.is_held_by(node)));
        let Some(place) = turn.into_iter().position(|node| *node == self.here) else {
            return false;
        };
        let kept = row.kept(|node| self.counted.contains(node));
        let lacking = (self.copies as usize).saturating_sub(kept).max(1);
        let late = place.saturating_sub(lacking - 1);
        waited >= patience.saturating_mul(u32::try_from(late).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests;
