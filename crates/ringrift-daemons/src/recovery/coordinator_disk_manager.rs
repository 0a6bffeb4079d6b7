//! `COORDINATOR_DISK_MANAGER`: gives up what retention names: old windows, samples, checkpoints and
//! models.
//!
//! Reads   artefacts that the log names, models, windows, open work.
//! Writes  `artefact.trashed`, and the files into the trash.
//! Never   gives up games, records of matches, champions, or what open work needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use depot::{Doomed, Item, Rule, Warrant, plan_retention};
use ringrift_pipeline::{
    ArtefactTrashed, BlobHash, BlobRow, Catalogue, ModelRejected, ModelRow, ModelStatus, Record,
    Topic as _, TrainingCompleted, WindowCombined, WindowRow, WorkRow,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Outcome, Priority, Spec};

use crate::{
    Blobs, COORDINATOR, COORDINATOR_FULL, Emits, Pressure, STANDALONE, Topics,
    blobs::parse,
    cycle::{EVENT_ROUTER, obstacle, settled},
    on,
    recovery::disk_space_manager::DiskSpaceManager,
};

/// `[daemons.coordinator_disk_manager]`. Counts are per config.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Windows that are kept, with the samples in them.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub keep_windows: usize,
    /// Checkpoints that are kept beside those of open trainings.
    pub keep_checkpoints: usize,
    /// Models whose weights are kept beside all champions and candidates.
    pub keep_models: usize,
    /// Artefacts that one cycle gives up.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_trashed_per_cycle: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { keep_windows: 3, keep_checkpoints: 3, keep_models: 20, max_trashed_per_cycle: 100 }
    }
}

/// What it has done since it started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Artefacts that the log names and that are kept.
    pub kept: usize,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Artefacts given up, by role.
    pub trashed: BTreeMap<String, u64>,
    /// Their bytes.
    pub trashed_bytes: u64,
}

/// The daemon.
pub struct CoordinatorDiskManager {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    pressure: Pressure,
    status: Status,
}

impl Emits for CoordinatorDiskManager {
    const EMITS: Topics = &[&[ArtefactTrashed::TOPIC]];
}

impl Daemon for CoordinatorDiskManager {
    const SPEC: Spec = Spec {
        id: DaemonId("COORDINATOR_DISK_MANAGER"),
        about: "gives up what retention names",
        priority: Priority::High,
        needs: &[EVENT_ROUTER, DiskSpaceManager::ID],
        profiles: &[COORDINATOR, COORDINATOR_FULL, STANDALONE],
        // Soon enough that a full disk does not wait long for what may go.
        period: Duration::from_secs(30),
        wakes_on: &[on::<WindowCombined>(), on::<TrainingCompleted>(), on::<ModelRejected>()],
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, pressure): Self::Ports) -> Self {
        Self { config, catalogue, blobs, pressure, status: Status::default() }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }
}

impl CoordinatorDiskManager {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let named = self.catalogue.blobs(None).await?;
        let models = self.catalogue.models(None).await?;
        let open = self.catalogue.open_works().await?;
        let mut windows = Vec::new();
        for config in named.iter().map(|row| row.config).collect::<BTreeSet<_>>() {
            let keep = u32::try_from(self.config.keep_windows).unwrap_or(u32::MAX);
            windows.extend(self.catalogue.windows(config, keep).await?);
        }
        let mut checkpoints = Vec::new();
        for item in &open {
            checkpoints.extend(self.catalogue.checkpoint(&item.id).await?.map(|(hash, _)| hash));
        }
        let needed = needed(&models, &windows, &open, checkpoints);
        let newest = newest_samples(&windows);
        let (items, roles) = items(&named, &newest);
        let mut doomed = plan_retention(&items, &rules(&self.config), |key| needed.contains(key));
        doomed.truncate(self.config.max_trashed_per_cycle);
        let bytes = |rows: u64, row: &BlobRow| rows + row.bytes;
        self.status.kept = named.len() - doomed.len();
        self.status.kept_bytes =
            named.iter().fold(0, bytes) - doomed.iter().map(|doomed| doomed.bytes).sum::<u64>();
        let mut held_up = None;
        for doomed in doomed {
            cx.beat()?;
            let role = roles.get(&doomed.key).map_or("", String::as_str);
            match self.give_up(&doomed, role, cx.now()).await {
                // On a full disk all that may go goes, and the cycle then says what held it up.
                Err(error) if obstacle(&error).is_some() => held_up = Some(error),
                given_up => given_up?,
            }
        }
        if let Some(error) = held_up {
            return Err(error);
        }
        Ok(Outcome::Done(self.status.clone()))
    }

    /// The fact first: a file without a fact is found as an orphan, a fact without a file would be
    /// a hole. Only on a full disk the file goes first, because that is what makes room for the
    /// fact; nobody needs the file, and the next cycle tells the fact.
    async fn give_up(
        &mut self,
        doomed: &Doomed<BlobHash>,
        role: &str,
        now_ms: i64,
    ) -> anyhow::Result<()> {
        let hash = parse(&doomed.key)?;
        let warrant = Warrant::Retention(doomed.rule.clone());
        let trashed = ArtefactTrashed { hash: doomed.key.clone(), reason: doomed.rule.clone() };
        match self.catalogue.record(vec![Record::always(trashed)], now_ms).await {
            Ok(_) => {}
            Err(error) if error.is_full() && self.pressure.obstacle().is_some() => {
                warn!(hash = %doomed.key, role, %error, "given up before its fact");
                let moved =
                    self.blobs.with(move |depot| depot.trash(&hash, &warrant, now_ms)).await?;
                match moved {
                    Ok(()) | Err(depot::Error::Fault(depot::Fault::Missing { .. })) => {}
                    Err(error) if error.is_full() => {}
                    Err(error) => return Err(error.into()),
                }
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
        let moved = self.blobs.with(move |depot| depot.trash(&hash, &warrant, now_ms)).await?;
        match moved {
            Ok(()) | Err(depot::Error::Fault(depot::Fault::Missing { .. })) => {}
            // It is an orphan now, and goes as one when there is room for its reason.
            Err(error) if error.is_full() => warn!(hash = %doomed.key, %error, "not moved"),
            Err(error) => return Err(error.into()),
        }
        info!(hash = %doomed.key, role, bytes = doomed.bytes, rule = doomed.rule, "given up");
        *self.status.trashed.entry(role.to_owned()).or_default() += 1;
        self.status.trashed_bytes += doomed.bytes;
        Ok(())
    }
}

/// Rules by role; a role without one (games, records) is kept for ever.
fn rules(config: &Config) -> Vec<Rule> {
    let rule = |class: &str, keep_newest| Rule { class: class.into(), keep_newest };
    vec![
        rule("window", config.keep_windows),
        // All that the kept windows hold is needed; what no window holds any more is not.
        rule("samples", 0),
        rule("checkpoint", config.keep_checkpoints),
        rule("weights", config.keep_models),
    ]
}

/// What no rule may touch.
fn needed(
    models: &[ModelRow],
    windows: &[WindowRow],
    open: &[WorkRow],
    checkpoints: Vec<BlobHash>,
) -> BTreeSet<BlobHash> {
    let mut needed: BTreeSet<BlobHash> = checkpoints.into_iter().collect();
    for model in models {
        if model.status != ModelStatus::Rejected {
            needed.insert(model.weights.clone());
        }
    }
    for window in windows {
        needed.extend(window.samples.iter().cloned());
    }
    for item in open {
        needed.extend(item.job.inputs());
    }
    needed
}

/// Position of the newest samples of each config that are in a window.
fn newest_samples(windows: &[WindowRow]) -> BTreeMap<String, u64> {
    let mut newest = BTreeMap::new();
    for window in windows {
        let entry = newest.entry(window.config.to_string()).or_insert(0);
        *entry = window.newest_samples.max(*entry);
    }
    newest
}

/// Artefacts as retention sees them. Samples newer than every window wait for theirs: left out.
fn items(
    named: &[BlobRow],
    newest: &BTreeMap<String, u64>,
) -> (Vec<Item<BlobHash>>, BTreeMap<BlobHash, String>) {
    let mut items = Vec::new();
    let mut roles = BTreeMap::new();
    for row in named {
        let group = row.config.to_string();
        let waits = row.position > newest.get(&group).copied().unwrap_or(0);
        if row.role == "samples" && waits {
            continue;
        }
        roles.insert(row.hash.clone(), row.role.clone());
        items.push(Item {
            key: row.hash.clone(),
            class: row.role.clone(),
            group,
            made: i64::try_from(row.position).unwrap_or(i64::MAX),
            bytes: row.bytes,
        });
    }
    (items, roles)
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{CheckpointSaved, ModelCreated, ModelId, SamplesExported, WorkId};

    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{
        Obstacle,
        testbed::{Bed, FullDisk, blocked, done, hex},
    };

    fn manager(bed: &Bed, config: Config) -> CoordinatorDiskManager {
        let ports =
            (bed.catalogue_of::<CoordinatorDiskManager>(), bed.blobs.clone(), bed.pressure.clone());
        CoordinatorDiskManager::new(config, ports)
    }

    async fn samples(bed: &Bed, name: &str) -> BlobHash {
        let samples = bed.put(name);
        bed.record(vec![
            SamplesExported {
                samples: samples.clone(),
                bytes: 1,
                config: hex(),
                batches: Vec::new(),
                rows: 1,
                games: 1,
                encoder: "e".into(),
            }
            .into(),
        ])
        .await;
        samples
    }

    async fn window(bed: &Bed, name: &str, samples: &[&BlobHash]) -> BlobHash {
        let window = bed.put(name);
        bed.record(vec![
            WindowCombined {
                window: window.clone(),
                bytes: 1,
                config: hex(),
                samples: samples.iter().copied().cloned().collect(),
                rows: 1,
                games: 1,
            }
            .into(),
        ])
        .await;
        window
    }

    async fn rejected(bed: &Bed, generation: u32) -> BlobHash {
        let model = ModelId::new(hex(), generation);
        let weights = bed.put(&format!("weights of {model}"));
        bed.record(vec![
            ModelCreated {
                model: model.clone(),
                config: hex(),
                generation,
                parent: None,
                weights: weights.clone(),
                bytes: 1,
            }
            .into(),
            ModelRejected { model, config: hex(), reason: "weaker".into() }.into(),
        ])
        .await;
        weights
    }

    async fn left(bed: &Bed) -> BTreeSet<BlobHash> {
        bed.catalogue.blobs(None).await.unwrap().into_iter().map(|row| row.hash).collect()
    }

    #[tokio::test]
    async fn the_newest_windows_with_their_samples_stay_and_older_ones_go() {
        let bed = Bed::new().await;
        let games = bed.batch(hex(), &["g1"]).await;
        let (s1, s2, s3) =
            (samples(&bed, "s1").await, samples(&bed, "s2").await, samples(&bed, "s3").await);
        let w1 = window(&bed, "w1", &[&s1]).await;
        let w2 = window(&bed, "w2", &[&s2]).await;
        let w3 = window(&bed, "w3", &[&s2, &s3]).await;
        let waiting = samples(&bed, "s4").await;
        let mut daemon = manager(&bed, Config { keep_windows: 2, ..Config::default() });
        let (cx, _probe) = bed.cx::<CoordinatorDiskManager>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.trashed, BTreeMap::from([("samples".into(), 1), ("window".into(), 1)]));
        assert_eq!(left(&bed).await, BTreeSet::from([games, s2, s3, w2, w3, waiting]));
        for gone in [&s1, &w1] {
            assert!(bed.catalogue.is_trashed(gone).await.unwrap());
            assert_eq!(bed.blobs.path_of(gone).await.unwrap(), None);
        }
        let facts = bed.facts().await;
        done(daemon.cycle(&cx).await);
        assert_eq!(bed.facts().await, facts, "a second cycle finds nothing");
    }

    #[tokio::test]
    async fn champions_candidates_and_what_open_work_needs_stay() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let champion = bed.catalogue.champion(hex()).await.unwrap().unwrap().model.weights;
        let (old, new) = (rejected(&bed, 1).await, rejected(&bed, 2).await);
        let mut checkpoints = Vec::new();
        for number in 1..=2 {
            let checkpoint = bed.put(&format!("checkpoint {number}"));
            bed.record(vec![
                CheckpointSaved {
                    work: WorkId(format!("train-hex8_2p-00000{number}")),
                    config: hex(),
                    checkpoint: checkpoint.clone(),
                    bytes: 1,
                }
                .into(),
            ])
            .await;
            checkpoints.push(checkpoint);
        }
        let config = Config { keep_models: 1, keep_checkpoints: 1, ..Config::default() };
        let mut daemon = manager(&bed, config);
        let (cx, _probe) = bed.cx::<CoordinatorDiskManager>();
        done(daemon.cycle(&cx).await);
        let expected = BTreeSet::from([champion, new, checkpoints[1].clone()]);
        assert_eq!(left(&bed).await, expected);
        assert!(bed.catalogue.is_trashed(&old).await.unwrap());
    }

    #[tokio::test]
    async fn a_file_that_is_gone_already_gets_its_fact_and_one_whose_move_was_cut_off_is_an_orphan()
    {
        let bed = Bed::new().await;
        let old = rejected(&bed, 1).await;
        rejected(&bed, 2).await;
        fs_err::remove_file(bed.blobs.path_of(&old).await.unwrap().unwrap()).unwrap();
        let mut daemon = manager(&bed, Config { keep_models: 1, ..Config::default() });
        let (cx, _probe) = bed.cx::<CoordinatorDiskManager>();
        done(daemon.cycle(&cx).await);
        assert!(bed.catalogue.is_trashed(&old).await.unwrap());
    }

    #[tokio::test]
    async fn on_a_full_disk_the_files_go_first_and_their_facts_follow() {
        let bed = Bed::new().await;
        let old = [rejected(&bed, 1).await, rejected(&bed, 2).await];
        let (catalogue, full) = FullDisk::below(&bed).await;
        let ports = (catalogue.clone(), bed.blobs.clone(), bed.pressure.clone());
        let mut daemon =
            CoordinatorDiskManager::new(Config { keep_models: 0, ..Config::default() }, ports);
        let (cx, _probe) = bed.cx::<CoordinatorDiskManager>();
        full.store(true, Ordering::Relaxed);
        let reason = blocked(daemon.cycle(&cx).await);
        assert_eq!(reason, "record artefact.trashed: no space is left in the data directory");
        assert_eq!(bed.blobs.depot().trashed().unwrap(), [], "nobody says that space is needed");

        let obstacle = Obstacle { reason: "1 MiB is free".into(), needs: "2 GiB".into() };
        bed.pressure.set(DiskSpaceManager::ID, Some(obstacle));
        blocked(daemon.cycle(&cx).await);
        assert_eq!(bed.blobs.depot().trashed().unwrap().len(), 2);
        assert_eq!(left(&bed).await.len(), 2, "no fact could be written");
        full.store(false, Ordering::Relaxed);
        done(daemon.cycle(&cx).await);
        for hash in &old {
            assert!(catalogue.is_trashed(hash).await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_gives_the_rest_up_next_time() {
        let bed = Bed::new().await;
        for generation in 1..=3 {
            rejected(&bed, generation).await;
        }
        let mut daemon = manager(&bed, Config { keep_models: 0, ..Config::default() });
        let (cx, probe) = bed.cx::<CoordinatorDiskManager>();
        probe.stop_at_beat(3);
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        assert_eq!(left(&bed).await.len(), 2);
        let (cx, _probe) = bed.cx::<CoordinatorDiskManager>();
        done(daemon.cycle(&cx).await);
        assert_eq!(left(&bed).await.len(), 0);
    }
}
