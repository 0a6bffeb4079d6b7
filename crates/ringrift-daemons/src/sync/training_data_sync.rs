//! `TRAINING_DATA_SYNC`: has what trainings read on this node before they read it.
//!
//! Reads   open trainings, the newest windows, the champions.
//! Writes  into the store what another node has of that: first what open trainings read, then what the next
//!         one of each config will.
//! Never   replaces a file that a training may be reading: each has the name of its contents.
//!
//! On one machine everything is here already.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{
    BlobHash, Catalogue, ModelPromoted, WindowCombined, WorkClaimed, WorkKind, WorkQueued, WorkRow,
    WorkState,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use super::{gossip_sync::GossipSync, whereabouts::ALONE};
use crate::{
    Bell, Blobs, Emits, Loop, OutOfReach, Pressure, Topics,
    blobs::parse,
    cycle::{EVENT_ROUTER, brake, denied, settled},
    on,
};

/// `[daemons.training_data_sync]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Artefacts that one cycle fetches.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_fetched_per_cycle: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_fetched_per_cycle: 32 }
    }
}

/// What is here, and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Why there is nothing to do, if so.
    pub idle: Option<String>,
    /// Artefacts that trainings read or will read, and that are here.
    pub at_hand: usize,
    /// Artefacts fetched since the daemon started.
    pub fetched: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// What is not here: what reads it, and why it is not.
    pub missing: BTreeMap<String, String>,
    /// The first of them that an open training of this node reads.
    pub holds_up: Option<String>,
}

/// The daemon.
pub struct TrainingDataSync {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    bell: Bell,
    status: Status,
}

impl Emits for TrainingDataSync {
    const EMITS: Topics = &[];
}

impl Daemon for TrainingDataSync {
    const SPEC: Spec = Spec {
        id: DaemonId("TRAINING_DATA_SYNC"),
        about: "fetches what trainings read before they read it",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        // The last two begin a training: it reads what is here, or waits for it.
        wakes_on: &[
            on::<WindowCombined>(),
            on::<ModelPromoted>(),
            on::<WorkQueued>(),
            on::<WorkClaimed>(),
        ],
        // Fetching is the work, and beats come per file. Source: sync contract, 1800 s a file.
        cycle_limit: Duration::from_mins(30),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>, Pressure, Bell);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop, pressure, bell): Self::Ports) -> Self {
        Self { config, catalogue, blobs, the_loop, pressure, bell, status: Status::default() }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        if !self.the_loop.shared {
            self.status.idle = Some(ALONE.to_owned());
            return Ok(Outcome::Done(self.status.clone()));
        }
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        match &last.holds_up {
            Some(what) => Health::Degraded(format!("a training of this node waits for {what}")),
            None => Health::Healthy,
        }
    }
}

/// Something that a training reads.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    hash: BlobHash,
    /// Who reads it.
    reader: String,
    when: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    /// By a training that this node has in hand.
    Now,
    /// By one that waits, or that another node has in hand and may give back.
    Soon,
    /// By the next one.
    Next,
}

impl TrainingDataSync {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let gate = brake(&self.pressure);
        let (mut fetched, mut at_hand) = (0, 0);
        self.status.missing.clear();
        self.status.holds_up = None;
        for Wanted { hash, reader, when } in self.wanted().await? {
            let parsed = parse(&hash)?;
            if self.blobs.with(move |depot| depot.contains(&parsed)).await?? {
                at_hand += 1;
                continue;
            }
            // What nobody named cannot be fetched; its fact may be on its way.
            let Some(row) = self.catalogue.blob(&hash).await? else { continue };
            if !gate.is_open() || fetched >= self.config.max_fetched_per_cycle {
                continue;
            }
            cx.beat()?;
            match self.blobs.path_of(&hash).await {
                Ok(_) => {
                    info!(%hash, role = row.role, bytes = row.bytes, reader, "fetched ahead");
                    fetched += 1;
                    at_hand += 1;
                    self.status.fetched += 1;
                    self.status.fetched_bytes += row.bytes;
                }
                Err(error) => {
                    let why = error.downcast::<OutOfReach>()?;
                    warn!(reader, error = %why, "what a training reads is out of reach");
                    let what = format!("the {} of {reader}", row.role);
                    if when == When::Now {
                        self.status.holds_up.get_or_insert_with(|| format!("{what}: {why}"));
                    }
                    self.status.missing.insert(what, why.to_string());
                }
            }
        }
        self.status.at_hand = at_hand;
        if fetched > 0 {
            self.bell.wake_daemon(GossipSync::ID);
        }
        Ok(denied(&gate, self.status.clone()))
    }

    /// What trainings read, the most urgent first, each once.
    async fn wanted(&self) -> anyhow::Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        let mut open = self.catalogue.open_works().await?;
        open.retain(|item| item.kind == WorkKind::Train);
        for item in open {
            let when = self.when(&item);
            let mut inputs = item.job.inputs();
            inputs.extend(self.catalogue.checkpoint(&item.id).await?.map(|(hash, _)| hash));
            let reader = item.id.to_string();
            wanted.extend(inputs.into_iter().map(|hash| Wanted {
                hash,
                reader: reader.clone(),
                when,
            }));
        }
        for config in &self.the_loop.configs {
            let window = self.catalogue.windows(*config, 1).await?.pop();
            let champion = self.catalogue.champion(*config).await?;
            let next = window
                .filter(|window| !window.trained)
                .map(|window| window.hash)
                .into_iter()
                .chain(champion.map(|champion| champion.model.weights));
            let reader = format!("the next training of {config}");
            wanted.extend(next.map(|hash| Wanted {
                hash,
                reader: reader.clone(),
                when: When::Next,
            }));
        }
        wanted.sort_by_key(|wanted| wanted.when);
        let mut seen = std::collections::BTreeSet::new();
        wanted.retain(|wanted| seen.insert(wanted.hash.clone()));
        Ok(wanted)
    }

    fn when(&self, item: &WorkRow) -> When {
        let is_here = item.node.as_ref() == Some(&self.the_loop.node);
        if item.state == WorkState::Claimed && is_here { When::Now } else { When::Soon }
    }
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{ArtefactTrashed, Job, ModelRef, TrainJob, WorkId};

    use super::*;
    use crate::{
        Obstacle,
        testbed::{Bed, Street, blocked, done, hex, samples, stops_in_mid_cycle, window},
    };

    fn daemon(bed: &Bed) -> TrainingDataSync {
        let ports = (
            bed.catalogue_of::<TrainingDataSync>(),
            bed.blobs.clone(),
            bed.shared(),
            bed.pressure.clone(),
            bed.bell.clone(),
        );
        TrainingDataSync::new(Config::default(), ports)
    }

    /// A training that reads this; this node has it in hand.
    async fn claimed(bed: &Bed, window: &BlobHash) {
        let champion = bed.catalogue.champion(hex()).await.unwrap().unwrap().model;
        let work = WorkId::new(WorkKind::Train, hex(), 1);
        let job = Job::Train(TrainJob {
            window: window.clone(),
            parent: ModelRef { id: champion.id.clone(), weights: champion.weights },
            candidate: ringrift_pipeline::ModelId::new(hex(), 1),
            generation: 1,
            checkpoint: None,
            steps: 10,
            batch: 1,
            learning_rate: 0.1,
            checkpoint_steps: 5,
            seed: 1,
        });
        let queued = WorkQueued { work: work.clone(), config: hex(), job, reason: "-".into() };
        let node = bed.the_loop.node.clone();
        bed.record(vec![queued.into(), WorkClaimed { work, attempt: 1, node, epoch: 0 }.into()])
            .await;
    }

    #[test]
    fn it_is_woken_when_a_training_is_asked_for_and_when_one_begins() {
        let wakes_on = TrainingDataSync::SPEC.wakes_on;
        assert!(wakes_on.contains(&on::<WorkQueued>()) && wakes_on.contains(&on::<WorkClaimed>()));
    }

    #[tokio::test]
    async fn what_the_next_training_reads_is_fetched_once_and_before_it_is_asked_for() {
        let bed = Bed::new().await;
        let street = Street::default();
        street.open(&bed);
        bed.champion(hex()).await;
        let samples = samples(&bed, hex(), "s", 100).await;
        let newest = bed.window_elsewhere(&street, "the window", &[&samples]).await;
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<TrainingDataSync>();
        let facts = bed.facts().await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.fetched, status.at_hand), (1, 2));
        assert!(bed.has_file(&newest));
        assert_eq!(done(daemon.cycle(&cx).await), status, "a second cycle finds nothing to fetch");
        assert_eq!(bed.facts().await, facts);
    }

    #[tokio::test]
    async fn an_input_of_a_training_of_this_node_that_nobody_gives_degrades() {
        let bed = Bed::new().await;
        Street::default().open(&bed);
        bed.champion(hex()).await;
        let lost = window(&bed, hex(), &[], 10).await;
        fs_err::remove_file(bed.blobs.path_of(&lost).await.unwrap().unwrap()).unwrap();
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<TrainingDataSync>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(
            (status.missing.len(), daemon.health(&status)),
            (1, Health::Healthy),
            "nobody waits"
        );
        claimed(&bed, &lost).await;
        let status = done(daemon.cycle(&cx).await);
        let Health::Degraded(why) = daemon.health(&status) else { panic!("{status:?}") };
        assert!(why.contains("the window of train-hex8_2p-000001"), "{why}");
        bed.record(vec![ArtefactTrashed { hash: lost, reason: "-".into() }.into()]).await;
        stops_in_mid_cycle(&bed, daemon).await;
    }

    #[tokio::test]
    async fn nothing_is_fetched_while_a_resource_runs_out_nor_on_one_machine() {
        let bed = Bed::new().await;
        let street = Street::default();
        street.open(&bed);
        let newest = bed.window_elsewhere(&street, "the window", &[]).await;
        let mut full = daemon(&bed);
        let (cx, _probe) = bed.cx::<TrainingDataSync>();
        let obstacle = Obstacle { reason: "the disk is full".into(), needs: "room".into() };
        bed.pressure.set(DaemonId("DISK"), Some(obstacle));
        assert!(blocked(full.cycle(&cx).await).contains("the disk is full"));
        let mut alone = daemon(&bed);
        alone.the_loop = bed.the_loop.clone();
        assert_eq!(done(alone.cycle(&cx).await).idle.as_deref(), Some(ALONE));
        assert!(!bed.has_file(&newest));
    }
}
