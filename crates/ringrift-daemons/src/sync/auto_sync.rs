//! `AUTO_SYNC`: has here what the node's strategy wants of what the log names, looks whether what is here is whole,
//! and keeps a mirror.
//!
//! Reads   artefacts that the log named since the last look, the disk of this node, who lives and has what.
//! Writes  into the store what the strategy fetches, while nothing holds this node back and its disk has room; an
//!         alarm on artefacts that are missing or damaged; copies into the mirror folder, if one is configured,
//!         and from it when something here is damaged. On a node that may vanish `artefacts.held` and
//!         `artefacts.offered` for what only it has.
//! Never   deletes, neither here nor in the mirror; nor sends anything: whoever is to have it fetches it.
//!
//! On one machine there are no peers, and that is healthy: everything is here, whatever the strategy.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use courier::Stream;
use depot::{Depot, Hash, Options};
use ringrift_pipeline::{
    ArtefactsHeld, ArtefactsOffered, BlobHash, BlobRow, Catalogue, CheckpointSaved, GamesCommitted,
    Gate, MatchPlayed, ModelCreated, NodeId, SamplesExported, Topic as _, WindowCombined,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, DaemonView, Health, Outcome, Priority, Profile, Spec};

use super::{
    last_copies::{hand_over, offer_only_here},
    whereabouts::{Look, Since, disk_without_trash},
};
use crate::{
    Blobs, COORDINATOR, COORDINATOR_FULL, EPHEMERAL, Emits, FULL, Loop, OutOfReach, Pressure,
    SELFPLAY_FULL, STANDALONE, TRAINING_FULL, Topics,
    alarms::Alarms,
    blobs::parse,
    cycle::{EVENT_ROUTER, brake, denied, first_closed, settled},
    feedback::feedback_loop::FeedbackLoop,
    on,
    pipeline::data_pipeline::DataPipeline,
};

/// Name of the alarm on artefacts that are missing or damaged.
pub(crate) const ALARM: &str = "artefacts";

/// What takes longer to come from another node is let go on later, so that it does not hold up the rest.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long a cycle is at what comes slowly.
const SLOW_ONES: Duration = Duration::from_mins(1);
/// So many times the patience is for the one of those that has waited longest: one after the other is sooner there
/// than all side by side.
const TRIES: u32 = 3;

/// What a node fetches before anybody on it asks for it, and what becomes of its own. Source: cluster contract, section
/// 12, "Strategies"; sync contract, section of this daemon.
///
/// Whatever the strategy, a second copy of each artefact is the affair of `SYNC_PUSH`, and what somebody here reads is
/// fetched when it is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// By the profile: `pull` on coordinators and where one machine does it all, `ephemeral` on nodes that may
    /// vanish, else `hybrid`.
    #[default]
    Auto,
    /// Everything, for good: nothing is ever given up, and a disk that is too full is an obstacle.
    Pull,
    /// What is new, while the disk has room; what is old may be given up to others.
    Hybrid,
    /// What all nodes use, models and windows, as soon as there is any: each node fetches it for itself, nobody
    /// sends. Games, samples and records stay where they are until they are read.
    Broadcast,
    /// Nothing. What only this node has is offered to others at once, and an orderly stop waits until they have it.
    Ephemeral,
}

impl Strategy {
    /// The strategy in force where this one is configured; never `Auto`.
    fn on(self, profile: Profile) -> Self {
        match self {
            Self::Auto if [COORDINATOR, COORDINATOR_FULL, STANDALONE, FULL].contains(&profile) => {
                Self::Pull
            }
            Self::Auto if profile == EPHEMERAL => Self::Ephemeral,
            Self::Auto => Self::Hybrid,
            named => named,
        }
    }

    /// Is an artefact of this role fetched before it is asked for?
    fn wants(self, role: &str) -> bool {
        match self {
            Self::Auto | Self::Pull | Self::Hybrid => true,
            Self::Broadcast => matches!(role, "weights" | "window"),
            Self::Ephemeral => false,
        }
    }
}

/// The strategy in force, as the daemon shows it; none before it said so.
pub(crate) fn strategy_of(shown: &DaemonView) -> Option<Strategy> {
    let strategy = shown.details.get("strategy")?;
    Strategy::deserialize(strategy).ok().filter(|strategy| *strategy != Strategy::Auto)
}

/// `[daemons.auto_sync]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What this node fetches: `auto` (by its profile), `pull`, `hybrid`, `broadcast` or `ephemeral`.
    pub strategy: Strategy,
    /// In a cluster nothing is fetched above this share of the disk in use, which leaves out the trash. Source: sync
    /// contract, 70 %.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub fetch_below: f64,
    /// What only a node that may vanish has for longer degrades our health. Source: sync contract, write-through.
    #[serde(with = "crate::seconds")]
    pub write_through: Duration,
    /// Folder that gets a copy of every artefact that is here when it is looked at, best on another disk; none = no
    /// mirror.
    pub mirror: Option<PathBuf>,
    /// Artefacts that are looked at in one cycle; 0 = all there are.
    pub max_verified_per_cycle: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            strategy: Strategy::Auto,
            fetch_below: 0.7,
            write_through: Duration::from_mins(1),
            mirror: None,
            max_verified_per_cycle: 0,
        }
    }
}

/// When an artefact is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It is new.
    New,
    /// It was faulty.
    Again,
    /// It came slowly; this time it has so many times the patience.
    Slow(u32),
}

/// What it has done since it started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// The strategy in force.
    pub strategy: Strategy,
    /// Artefacts that were hashed and found whole.
    pub verified: u64,
    /// Their bytes.
    pub verified_bytes: u64,
    /// Bytes of those that the last cycle verified.
    pub bytes_last_cycle: u64,
    /// The same per second of that cycle.
    pub bytes_per_second: f64,
    /// Artefacts copied into the mirror.
    pub mirrored: u64,
    /// Artefacts brought back from the mirror, or from another node.
    pub restored: u64,
    /// Artefacts that are missing or damaged, and how.
    pub faults: BTreeMap<String, String>,
    /// Artefacts that are still to come from other nodes: they come slowly, or wait for room.
    pub coming: usize,
    /// Artefacts that the strategy left to other nodes, since the daemon started.
    pub left: u64,
    /// Artefacts that no other node keeps; told by a node that may vanish.
    pub only_here: usize,
    /// Longest time that one of those has been waiting for others.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub longest_wait: Duration,
    /// Position in the log up to which all was looked at.
    pub position: u64,
}

/// The daemon.
pub struct AutoSync {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    look: Look,
    alarms: Alarms,
    mirror: Option<Depot>,
    status: Status,
    faulty: BTreeMap<String, BlobRow>,
    coming: VecDeque<BlobRow>,
    /// Whether anything may be fetched; one that closes stays closed until the next cycle.
    gate: Gate,
    /// Nodes from which something came slowly in this cycle.
    slow: BTreeSet<NodeId>,
    /// What no other node keeps.
    only_here: Since<BlobHash>,
}

impl Emits for AutoSync {
    const EMITS: Topics = &[crate::alarms::EMITS, &[ArtefactsHeld::TOPIC, ArtefactsOffered::TOPIC]];
}

impl Daemon for AutoSync {
    const SPEC: Spec = Spec {
        id: DaemonId("AUTO_SYNC"),
        about: "verifies new artefacts and keeps a mirror",
        priority: Priority::Critical,
        needs: &[EVENT_ROUTER, DataPipeline::ID, FeedbackLoop::ID],
        profiles: &[
            COORDINATOR,
            COORDINATOR_FULL,
            TRAINING_FULL,
            EPHEMERAL,
            SELFPLAY_FULL,
            STANDALONE,
        ],
        period: Duration::from_secs(30),
        wakes_on: &[
            on::<GamesCommitted>(),
            on::<SamplesExported>(),
            on::<WindowCombined>(),
            on::<CheckpointSaved>(),
            on::<ModelCreated>(),
            on::<MatchPlayed>(),
        ],
        critical: true,
        health_interval: Some(Duration::from_mins(1)),
        // A large window on a slow disk: hashing is the work, and beats come per file.
        cycle_limit: Duration::from_mins(5),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop, pressure): Self::Ports) -> Self {
        let strategy = config.strategy.on(the_loop.profile);
        Self {
            config,
            catalogue,
            blobs,
            the_loop,
            pressure,
            look: Arc::new(hosts::disk),
            alarms: Alarms::default(),
            mirror: None,
            status: Status { strategy, ..Status::default() },
            faulty: BTreeMap::new(),
            coming: VecDeque::new(),
            gate: Gate::Allow,
            slow: BTreeSet::new(),
            only_here: Since::default(),
        }
    }

    async fn start(&mut self, cx: &Cx) -> anyhow::Result<()> {
        // Whoever gives up copies wants to know what is kept, before the first cycle is over.
        cx.publish(&self.status)?;
        let log = self.catalogue.log();
        let position = log.position(Stream::Pipeline, &self.subscriber()).await?;
        self.status.position = position;
        if self.the_loop.shared && self.status.strategy != Strategy::Pull {
            // What is not here may have been given up, on purpose.
            return Ok(());
        }
        // What an earlier life looked for in vain stands nowhere, and a manager that was killed must not forget it.
        let mut known = self.catalogue.blobs(None).await?;
        known.retain(|row| row.position <= position);
        let lacking = self.blobs.with(move |depot| {
            let mut lacking = Vec::new();
            for row in known {
                if !depot.contains(&parse(&row.hash)?)? {
                    lacking.push(row);
                }
            }
            anyhow::Ok(lacking)
        });
        self.faulty = lacking.await??.into_iter().map(|row| (row.hash.to_string(), row)).collect();
        Ok(())
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    async fn stop(&mut self, cx: &Cx) -> anyhow::Result<()> {
        if self.the_loop.shared && self.status.strategy == Strategy::Ephemeral {
            // What workers hand in after this is for `SYNC_PUSH`, which stops beside them.
            hand_over(&self.catalogue, &self.blobs, &self.the_loop, || false, cx).await;
        }
        Ok(())
    }

    fn health(&self, last: &Status) -> Health {
        if let Some((hash, fault)) = last.faults.iter().next() {
            let more = last.faults.len() - 1;
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            return Health::Degraded(format!("{hash}: {fault}{more}"));
        }
        if last.longest_wait > self.config.write_through {
            let (number, seconds) = (last.only_here, last.longest_wait.as_secs());
            return Health::Degraded(format!(
                "this node may vanish, and {number} artefacts are on it alone, the first for {seconds} s"
            ));
        }
        Health::Healthy
    }
}

impl AutoSync {
    /// With a mirror the position is another one: it begins with the oldest artefact.
    fn subscriber(&self) -> String {
        let mirrors = self.config.mirror.is_some();
        self.the_loop.subscriber(if mirrors { "auto_sync.mirror" } else { "auto_sync" })
    }

    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let (began, verified_before) = (Instant::now(), self.status.verified_bytes);
        self.gate = Gate::Allow;
        self.slow.clear();
        if self.the_loop.shared && self.status.strategy == Strategy::Ephemeral {
            self.offer(cx).await?;
        }
        let named = self.catalogue.blobs(None).await?;
        // What was faulty may have been made again, or given up, meanwhile.
        let faulty = std::mem::take(&mut self.faulty);
        self.status.faults.clear();
        for (hash, row) in faulty {
            if named.iter().any(|named| named.hash == row.hash) {
                self.look(row, Turn::Again, cx).await?;
            } else {
                info!(hash, "a faulty artefact is no longer wanted");
            }
        }
        if !self.coming.is_empty() {
            let wanted: BTreeSet<&BlobHash> = named.iter().map(|row| &row.hash).collect();
            self.coming.retain(|row| wanted.contains(&row.hash));
        }
        let limit = match self.config.max_verified_per_cycle {
            0 => usize::MAX,
            limit => limit,
        };
        let new: Vec<BlobRow> =
            named.into_iter().filter(|row| row.position > self.status.position).collect();
        let mut blocked = None;
        let mut looked_at = 0;
        for row in new {
            // All artefacts of one fact, or none: the position counts facts.
            if looked_at >= limit && row.position > self.status.position {
                break;
            }
            let position = row.position;
            if let Err(reason) = self.open_mirror().await {
                blocked = Some(reason);
                break;
            }
            self.look(row, Turn::New, cx).await?;
            looked_at += 1;
            self.status.position = position;
        }
        if looked_at > 0 {
            let (log, name) = (self.catalogue.log(), self.subscriber());
            log.advance(Stream::Pipeline, &name, self.status.position).await?;
        }
        let until = Instant::now() + SLOW_ONES;
        for n in 0..self.coming.len() {
            let Some(row) = self.coming.pop_front_if(|_| Instant::now() < until) else { break };
            let tries = if n == 0 { TRIES } else { 1 };
            self.look(row, Turn::Slow(tries), cx).await?;
        }
        self.status.coming = self.coming.len();
        let bytes = self.status.verified_bytes - verified_before;
        self.status.bytes_last_cycle = bytes;
        self.status.bytes_per_second = match bytes {
            0 => 0.0,
            bytes => per_second(bytes, began.elapsed()),
        };
        let sentence = (!self.status.faults.is_empty()).then(|| {
            let named: Vec<String> =
                self.status.faults.iter().map(|(hash, fault)| format!("{hash}: {fault}")).collect();
            named.join("; ")
        });
        self.alarms.set(&self.catalogue, ALARM, sentence, cx.now()).await?;
        Ok(match blocked {
            Some(reason) => Outcome::blocked(reason).with_status(self.status.clone()),
            None => denied(&self.gate, self.status.clone()),
        })
    }

    /// Offers to others what only this node has.
    async fn offer(&mut self, cx: &Cx) -> anyhow::Result<()> {
        let only_here = offer_only_here(&self.catalogue, &self.blobs, &self.the_loop, cx).await?;
        self.only_here.note(only_here.hashes.iter().cloned());
        let waits = only_here.hashes.iter().filter_map(|hash| self.only_here.how_long(hash));
        self.status.longest_wait = waits.max().unwrap_or_default();
        self.status.only_here = only_here.hashes.len();
        Ok(())
    }

    /// May something be fetched now?
    async fn may_fetch(&mut self, cx: &Cx) -> anyhow::Result<bool> {
        if self.gate.is_open() {
            self.gate = first_closed([brake(&self.pressure), self.room(cx).await?]);
        }
        Ok(self.gate.is_open())
    }

    /// The gate of the disk.
    async fn room(&self, cx: &Cx) -> anyhow::Result<Gate> {
        let most = self.config.fetch_below;
        let needs = format!("less than {:.0} % of the disk in use", most * 100.0);
        let asked = disk_without_trash(&self.look, &self.blobs, &self.the_loop, cx).await?;
        Ok(match asked {
            Ok(disk) if disk.used_share() < most => Gate::Allow,
            Ok(disk) => {
                let used = disk.used_share() * 100.0;
                Gate::deny(
                    "disk",
                    format!("{used:.0} % of the disk is in use, and nothing is fetched"),
                    needs,
                )
            }
            // What cannot be measured is taken for full.
            Err(why) => Gate::deny("disk", format!("the disk cannot be measured: {why}"), needs),
        })
    }

    async fn examine(&self, hash: Hash) -> anyhow::Result<Found> {
        let mirror = self.mirror.clone();
        self.blobs.with(move |depot| examine(depot, mirror.as_ref(), &hash)).await
    }

    /// Opens the mirror; the error is an obstacle for people.
    async fn open_mirror(&mut self) -> Result<(), String> {
        let Some(folder) = self.config.mirror.clone() else { return Ok(()) };
        if self.mirror.is_some() && folder.exists() {
            return Ok(());
        }
        self.mirror = None;
        let shown = folder.display().to_string();
        // The folder is the operator's: a mount point without its disk must not be filled.
        if !folder.is_dir() {
            return Err(format!("the mirror {shown} is not there"));
        }
        let opened =
            tokio::task::spawn_blocking(move || Depot::open(&folder, Options::default())).await;
        match opened {
            Ok(Ok(depot)) => {
                self.mirror = Some(depot);
                Ok(())
            }
            Ok(Err(error)) => Err(format!("the mirror {shown} cannot be used: {error}")),
            Err(error) => Err(format!("the mirror {shown} cannot be used: {error}")),
        }
    }

    /// Hashes one artefact, brings it here if the strategy wants it and another node or the mirror can, and mirrors it.
    async fn look(&mut self, row: BlobRow, turn: Turn, cx: &Cx) -> anyhow::Result<()> {
        cx.beat()?;
        let hash = parse(&row.hash)?;
        let mut holders = Vec::new();
        if self.the_loop.shared && !self.blobs.is_here(&row.hash).await? {
            if !self.status.strategy.wants(&row.role) {
                self.status.left += 1;
                return Ok(());
            }
            let found = self.catalogue.holders(&row.hash).await?;
            holders.extend(found.into_iter().map(|holder| holder.node));
            // Many that wait for one slow line must not hold up what others have.
            let waits = !matches!(turn, Turn::Slow(_))
                && !holders.is_empty()
                && holders.iter().all(|node| self.slow.contains(node));
            if waits || !self.may_fetch(cx).await? {
                self.coming.push_back(row);
                return Ok(());
            }
        }
        // In a cluster what another node has is brought here.
        let mut tries = if let Turn::Slow(tries) = turn { tries } else { 1 };
        let found = loop {
            match timeout(PATIENCE, self.blobs.path_of(&row.hash)).await {
                Ok(found) => break found,
                // What has come of it stays.
                Err(_) if tries > 1 => {
                    tries -= 1;
                    cx.beat()?;
                }
                Err(_) => {
                    info!(hash = %row.hash, role = row.role, "artefact comes slowly");
                    self.slow.extend(holders);
                    self.coming.push_back(row);
                    return Ok(());
                }
            }
        };
        if let Err(error) = found {
            let out_of_reach = error.downcast::<OutOfReach>()?;
            if turn == Turn::New {
                // Whoever has it may just be about to be introduced.
                info!(role = row.role, error = %out_of_reach, "artefact is not here yet");
                self.faulty.insert(row.hash.to_string(), row);
                return Ok(());
            }
            warn!(role = row.role, error = %out_of_reach, "artefact is not brought here");
        }
        let mut found = self.examine(hash).await?;
        if let Some(fault) = found.fault.clone()
            && self.the_loop.shared
            && self.may_fetch(cx).await?
        {
            // What is damaged here is set aside where another node has it.
            match self.blobs.verify(&row.hash).await {
                Ok(Ok(())) => {
                    found = Found { restored: Some(fault), ..self.examine(hash).await? };
                }
                Ok(Err(_)) => {}
                Err(error) => drop(error.downcast::<OutOfReach>()?),
            }
        }
        match found {
            Found { fault: None, mirrored, restored } => {
                self.status.verified += 1;
                self.status.verified_bytes += row.bytes;
                self.status.mirrored += u64::from(mirrored);
                if let Some(fault) = restored {
                    info!(hash = %row.hash, role = row.role, fault, "artefact brought back");
                    self.status.restored += 1;
                }
            }
            Found { fault: Some(fault), .. } => {
                warn!(hash = %row.hash, role = row.role, fault, "artefact is faulty");
                self.status.faults.insert(row.hash.to_string(), format!("{} {fault}", row.role));
                self.faulty.insert(row.hash.to_string(), row);
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64().max(1e-6)
}

/// What a look at one artefact found and did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    fault: Option<String>,
    mirrored: bool,
    /// The fault that a copy from the mirror repaired.
    restored: Option<String>,
}

fn examine(depot: &Depot, mirror: Option<&Depot>, hash: &Hash) -> Found {
    let mut found = Found::default();
    if let Err(fault) = depot.verify(hash) {
        let fault = fault.to_string();
        match mirror.map(|mirror| copy(mirror, depot, hash)) {
            Some(Ok(_)) => found.restored = Some(fault),
            Some(Err(error)) => {
                found.fault = Some(format!("{fault}, nor does the mirror help: {error:#}"));
                return found;
            }
            None => {
                found.fault = Some(fault);
                return found;
            }
        }
    }
    match mirror.map(|mirror| copy(depot, mirror, hash)) {
        Some(Ok(new)) => found.mirrored = new,
        Some(Err(error)) => found.fault = Some(format!("is not mirrored: {error:#}")),
        None => {}
    }
    found
}

/// Copies a file, hashing it on the way; says whether it was not there before.
fn copy(from: &Depot, to: &Depot, hash: &Hash) -> anyhow::Result<bool> {
    let path = from.path_of(hash)?.with_context(|| format!("{hash} is missing"))?;
    let extension = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.split_once('.'))
        .map_or("bin", |(_, extension)| extension);
    if to.contains(hash)? && to.verify(hash).is_ok() {
        return Ok(false);
    }
    Ok(to.put_file_as(&path, extension, hash)?.new)
}

#[cfg(test)]
mod tests;
