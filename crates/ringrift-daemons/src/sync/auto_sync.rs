//! `AUTO_SYNC`: looks whether what the log names is really in the store, whole, and keeps a mirror.
//!
//! Reads   artefacts that the log named since the last look.
//! Writes  an alarm on artefacts that are missing or damaged; copies into the mirror folder, if one
//!         is configured, and from it when something here is damaged.
//! Never   deletes, neither here nor in the mirror.
//!
//! On one machine there are no peers, and that is healthy.

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
    BlobHash, BlobRow, Catalogue, CheckpointSaved, GamesCommitted, MatchPlayed, ModelCreated,
    SamplesExported, WindowCombined,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, COORDINATOR, EPHEMERAL, Emits, Loop, OutOfReach, SELFPLAY_FULL, STANDALONE,
    TRAINING_FULL, Topics,
    alarms::Alarms,
    blobs::parse,
    cycle::{EVENT_ROUTER, settled},
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

/// `[daemons.auto_sync]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder that gets a copy of every artefact, best on another disk; none = no mirror.
    pub mirror: Option<PathBuf>,
    /// Artefacts that are looked at in one cycle; 0 = all there are.
    pub max_verified_per_cycle: usize,
}

/// What it has done since it started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
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
    /// Artefacts that come from other nodes, slowly.
    pub coming: usize,
    /// Position in the log up to which all was looked at.
    pub position: u64,
}

/// The daemon.
pub struct AutoSync {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    alarms: Alarms,
    mirror: Option<Depot>,
    status: Status,
    faulty: BTreeMap<String, BlobRow>,
    coming: VecDeque<BlobRow>,
}

impl Emits for AutoSync {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for AutoSync {
    const SPEC: Spec = Spec {
        id: DaemonId("AUTO_SYNC"),
        about: "verifies new artefacts and keeps a mirror",
        priority: Priority::Critical,
        needs: &[EVENT_ROUTER, DataPipeline::ID, FeedbackLoop::ID],
        profiles: &[
            COORDINATOR,
            crate::COORDINATOR_FULL,
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
    type Ports = (Catalogue, Blobs, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            blobs,
            the_loop,
            alarms: Alarms::default(),
            mirror: None,
            status: Status::default(),
            faulty: BTreeMap::new(),
            coming: VecDeque::new(),
        }
    }

    async fn start(&mut self, _: &Cx) -> anyhow::Result<()> {
        let log = self.catalogue.log();
        let position = log.position(Stream::Pipeline, &self.subscriber()).await?;
        self.status.position = position;
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

    fn health(&self, last: &Status) -> Health {
        let Some((hash, fault)) = last.faults.iter().next() else { return Health::Healthy };
        let more = last.faults.len() - 1;
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        Health::Degraded(format!("{hash}: {fault}{more}"))
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
        let named = self.catalogue.blobs(None).await?;
        // What was faulty may have been made again, or given up, meanwhile.
        let faulty = std::mem::take(&mut self.faulty);
        self.status.faults.clear();
        for (hash, row) in faulty {
            if named.iter().any(|named| named.hash == row.hash) {
                self.look(row, true, cx).await?;
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
            self.look(row, false, cx).await?;
            looked_at += 1;
            self.status.position = position;
        }
        if looked_at > 0 {
            let (log, name) = (self.catalogue.log(), self.subscriber());
            log.advance(Stream::Pipeline, &name, self.status.position).await?;
        }
        let until = Instant::now() + SLOW_ONES;
        for _ in 0..self.coming.len() {
            let Some(row) = self.coming.pop_front_if(|_| Instant::now() < until) else { break };
            self.look(row, true, cx).await?;
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
            None => Outcome::Done(self.status.clone()),
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

    /// Hashes one artefact, brings it here if another node or the mirror can, and mirrors it.
    async fn look(&mut self, row: BlobRow, again: bool, cx: &Cx) -> anyhow::Result<()> {
        cx.beat()?;
        let hash = parse(&row.hash)?;
        // In a cluster what another node has is brought here.
        let Ok(found) = timeout(PATIENCE, self.blobs.path_of(&row.hash)).await else {
            // What has come of it stays.
            info!(hash = %row.hash, role = row.role, "artefact comes slowly");
            self.coming.push_back(row);
            return Ok(());
        };
        if let Err(error) = found {
            let out_of_reach = error.downcast::<OutOfReach>()?;
            if !again {
                // Whoever has it may just be about to be introduced.
                info!(role = row.role, error = %out_of_reach, "artefact is not here yet");
                self.faulty.insert(row.hash.to_string(), row);
                return Ok(());
            }
            warn!(role = row.role, error = %out_of_reach, "artefact is not brought here");
        }
        let mut found = self.examine(hash).await?;
        if let (Some(fault), true) = (&found.fault, self.the_loop.shared) {
            let fault = fault.clone();
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
mod tests {
    use std::pin::Pin;

    use ringrift_pipeline::ArtefactTrashed;

    use super::*;
    use crate::{
        Elsewhere,
        alarms::alarm_of,
        testbed::{Bed, Street, blocked, done, hex},
    };

    fn daemon(bed: &Bed, config: Config) -> AutoSync {
        AutoSync::new(
            config,
            (bed.catalogue_of::<AutoSync>(), bed.blobs.clone(), bed.the_loop.clone()),
        )
    }

    fn path(depot: &Depot, hash: &BlobHash) -> Option<PathBuf> {
        depot.path_of(&hash.as_str().parse().unwrap()).unwrap()
    }

    fn damage(depot: &Depot, hash: &BlobHash) {
        let path = path(depot, hash).unwrap();
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, "something else").unwrap();
    }

    #[tokio::test]
    async fn each_new_artefact_is_hashed_once_and_no_peers_are_healthy() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        bed.batch(hex(), &["g1"]).await;
        let (cx, _probe) = bed.cx::<AutoSync>();
        let mut first = daemon(&bed, Config::default());
        first.start(&cx).await.unwrap();
        let status = done(first.cycle(&cx).await);
        assert_eq!((status.verified, first.health(&status)), (2, Health::Healthy));
        assert_eq!(status.bytes_last_cycle, status.verified_bytes);
        assert!(status.verified_bytes > 0 && status.bytes_per_second > 0.0, "{status:?}");
        let second = done(first.cycle(&cx).await);
        assert_eq!(second.verified, 2, "a second cycle finds nothing new");
        assert_eq!((second.bytes_last_cycle, second.verified_bytes), (0, status.verified_bytes));

        let mut next_life = daemon(&bed, Config::default());
        next_life.start(&cx).await.unwrap();
        assert_eq!(done(next_life.cycle(&cx).await).verified, 0, "nor does a second life");
        bed.batch(hex(), &["g2"]).await;
        assert_eq!(done(next_life.cycle(&cx).await).verified, 1);
    }

    #[tokio::test]
    async fn what_an_earlier_life_looked_for_in_vain_is_not_forgotten() {
        let bed = Bed::new().await;
        let gone = bed.batch(hex(), &["g1"]).await;
        fs_err::remove_file(path(bed.blobs.depot(), &gone).unwrap()).unwrap();
        let (cx, _probe) = bed.cx::<AutoSync>();
        let mut first = daemon(&bed, Config::default());
        first.start(&cx).await.unwrap();
        assert_eq!(done(first.cycle(&cx).await).faults.len(), 1);
        drop(first);
        let mut next_life = daemon(&bed, Config::default());
        next_life.start(&cx).await.unwrap();
        assert_eq!(done(next_life.cycle(&cx).await).faults.len(), 1);
        bed.put("g1");
        assert_eq!(done(next_life.cycle(&cx).await).faults.len(), 0);
    }

    #[tokio::test]
    async fn a_damaged_artefact_is_an_alarm_until_it_is_whole_or_given_up() {
        let bed = Bed::new().await;
        let (bad, gone) = (bed.batch(hex(), &["g1"]).await, bed.batch(hex(), &["g2"]).await);
        damage(bed.blobs.depot(), &bad);
        fs_err::remove_file(path(bed.blobs.depot(), &gone).unwrap()).unwrap();
        let (cx, _probe) = bed.cx::<AutoSync>();
        let mut daemon = daemon(&bed, Config::default());
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.faults.len(), 2);
        assert!(status.faults[gone.as_str()].ends_with("is missing"), "{:?}", status.faults);
        assert!(matches!(daemon.health(&status), Health::Degraded(_)));
        assert!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some());

        fs_err::remove_file(path(bed.blobs.depot(), &bad).unwrap()).unwrap();
        bed.put("g1");
        bed.record(vec![ArtefactTrashed { hash: gone, reason: "old".into() }.into()]).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Healthy);
        assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_mirror_gets_everything_and_gives_back_what_is_lost() {
        let bed = Bed::new().await;
        let old = bed.batch(hex(), &["g1"]).await;
        let (cx, _probe) = bed.cx::<AutoSync>();
        done(daemon(&bed, Config::default()).cycle(&cx).await);

        let folder = bed.data().join("mirror");
        let config = Config { mirror: Some(folder.clone()), ..Config::default() };
        let mut daemon = daemon(&bed, config);
        daemon.start(&cx).await.unwrap();
        let reason = blocked(daemon.cycle(&cx).await);
        assert_eq!(reason, format!("the mirror {} is not there", folder.display()));
        assert!(!folder.exists(), "a mount point without its disk is not filled");

        fs_err::create_dir(&folder).unwrap();
        assert_eq!(done(daemon.cycle(&cx).await).mirrored, 1, "also what was there before");
        assert!(path(&Depot::open_existing(&folder), &old).is_some());
        let new = bed.batch(hex(), &["g2"]).await;
        assert_eq!(done(daemon.cycle(&cx).await).mirrored, 2);
        for hash in [&old, &new] {
            damage(bed.blobs.depot(), hash);
            daemon.faulty.insert(
                hash.to_string(),
                bed.catalogue
                    .blobs(None)
                    .await
                    .unwrap()
                    .into_iter()
                    .find(|row| row.hash == *hash)
                    .unwrap(),
            );
        }
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.restored, status.faults.len()), (2, 0));
        bed.blobs.verify(&old).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn in_a_cluster_another_node_gives_back_what_is_damaged_which_is_kept_aside() {
        let bed = Bed::new().await;
        let street = Street::default();
        street.open(&bed);
        let batch = bed.elsewhere(&street, "g1").await;
        bed.put("g1");
        damage(bed.blobs.depot(), &batch);
        let (cx, _probe) = bed.cx::<AutoSync>();
        let mut daemon = daemon(&bed, Config::default());
        daemon.the_loop = bed.shared();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.restored, status.faults.len()), (1, 0));
        bed.blobs.verify(&batch).await.unwrap().unwrap();
        assert_eq!(bed.blobs.depot().quarantined().unwrap().len(), 1);
    }

    /// Another node, whose line carries this so slowly that it does not come while anybody waits.
    struct Crawls(Hash);

    impl Elsewhere for Crawls {
        fn bring(
            &self,
            hash: Hash,
        ) -> Pin<Box<dyn Future<Output = Result<(), OutOfReach>> + Send + '_>> {
            Box::pin(async move {
                if hash == self.0 {
                    return std::future::pending().await;
                }
                Err(OutOfReach { hash, why: "nobody has it".into() })
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_is_no_fault_and_does_not_hold_up_the_rest() {
        let bed = Bed::new().await;
        let slow = bed.batch(hex(), &["g1"]).await;
        bed.batch(hex(), &["g2"]).await;
        fs_err::remove_file(path(bed.blobs.depot(), &slow).unwrap()).unwrap();
        bed.blobs.connect(Crawls(parse(&slow).unwrap()));
        let (cx, _probe) = bed.cx::<AutoSync>();
        let mut daemon = daemon(&bed, Config::default());
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.verified, status.coming, status.faults.len()), (1, 1, 0));
        assert_eq!(done(daemon.cycle(&cx).await).coming, 1);
        bed.put("g1");
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.verified, status.coming), (2, 0));
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_looks_at_the_rest_in_the_next_life() {
        let bed = Bed::new().await;
        for game in ["g1", "g2", "g3"] {
            bed.batch(hex(), &[game]).await;
        }
        let (cx, probe) = bed.cx::<AutoSync>();
        let mut first = daemon(&bed, Config { max_verified_per_cycle: 1, ..Config::default() });
        assert_eq!(done(first.cycle(&cx).await).verified, 1);
        probe.stop_at_beat(probe.beats() + 1);
        assert!(first.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        let (cx, _probe) = bed.cx::<AutoSync>();
        let mut next_life = daemon(&bed, Config::default());
        next_life.start(&cx).await.unwrap();
        assert_eq!(done(next_life.cycle(&cx).await).verified, 2);
    }
}
