//! `TRAINING_NODE_WATCHER`: sees trainings begin and end, and has their results looked after.
//!
//! Reads   claimed trainings, of all nodes.
//! Writes  nothing; a training that begins or ends, wherever it is, wakes who fetches and tells what is here: those of
//!         `TRAINING_DATA_SYNC`, `GOSSIP_SYNC` and `AUTO_SYNC` that run on this node.
//! Never   matches command lines of processes: the log knows who trains.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use ringrift_pipeline::{
    Catalogue, CheckpointSaved, TrainingCompleted, WorkClaimed, WorkId, WorkKind, WorkRow,
    WorkState,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use super::{auto_sync::AutoSync, gossip_sync::GossipSync, training_data_sync::TrainingDataSync};

use crate::{
    Bell, Blobs, Emits, Loop, STANDALONE, TRAINING, TRAINING_FULL, Topics, Workshop,
    blobs::parse,
    cycle::{EVENT_ROUTER, settled},
    on,
    pipeline::data_pipeline::DataPipeline,
};

/// Who looks after what a training reads and leaves; which of them run depends on the profile.
const LOOK_AFTER: [DaemonId; 3] = [TrainingDataSync::ID, GossipSync::ID, AutoSync::ID];
/// Looks that health goes by. If more than half of them failed, it is degraded. Source: sync contract, which calls that
/// an error; a restart would not bring the log back.
const LOOKS: usize = 10;

/// Looks without a training before it counts as gone: one may fall between two claims.
const MISSES: u32 = 2;

/// `[daemons.training_node_watcher]`; its variables begin with `RINGRIFT_TRAINING_ACTIVITY_`.
/// Source of names and defaults: runbook, "Training Activity Config".
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// At an orderly stop, look once more whether what finished work handed over is whole. Signals
    /// themselves belong to the process.
    pub handle_signals: bool,
    /// A training that begins or ends has new artefacts looked after at once.
    pub trigger_sync: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { handle_signals: true, trigger_sync: true }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Trainings of all nodes, by item.
    pub trainings: BTreeMap<String, Training>,
    /// Trainings that began since the daemon started.
    pub began: u64,
    /// Trainings that ended since the daemon started.
    pub ended: u64,
    /// How often somebody who runs here was woken because of that.
    pub syncs_triggered: u64,
    /// Looks in a row at which nobody ran here who could be woken because of that.
    pub unheard: u32,
}

/// A running training.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Training {
    /// Configuration of the game.
    pub config: String,
    /// Who trains.
    pub node: String,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Its process, once it runs on this node.
    pub pid: Option<u32>,
    /// Steps done, if it runs on this node.
    pub done: u64,
    /// Steps in all, likewise.
    pub total: u64,
}

/// The daemon.
pub struct TrainingNodeWatcher {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    workshop: Workshop,
    the_loop: Arc<Loop>,
    bell: Bell,
    /// Trainings that were seen, and at how many looks in a row they were not.
    seen: BTreeMap<WorkId, u32>,
    /// Which of the last looks failed, and why, the newest last.
    failed: VecDeque<Option<String>>,
    status: Status,
}

impl Emits for TrainingNodeWatcher {
    const EMITS: Topics = &[];
}

impl Daemon for TrainingNodeWatcher {
    const SPEC: Spec = Spec {
        id: DaemonId("TRAINING_NODE_WATCHER"),
        about: "sees trainings begin and end",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER, DataPipeline::ID],
        profiles: &[TRAINING, TRAINING_FULL, STANDALONE],
        period: Duration::from_secs(30),
        wakes_on: &[on::<WorkClaimed>(), on::<TrainingCompleted>(), on::<CheckpointSaved>()],
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Workshop, Arc<Loop>, Bell);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, workshop, the_loop, bell): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            blobs,
            workshop,
            the_loop,
            bell,
            seen: BTreeMap::new(),
            failed: VecDeque::new(),
            status: Status::default(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let looked = self.pass(cx).await;
        if self.failed.len() >= LOOKS {
            self.failed.pop_front();
        }
        match &looked {
            Ok(_) => self.failed.push_back(None),
            Err(error) if error.is::<warden::Stopping>() => {}
            Err(error) => self.failed.push_back(Some(format!("{error:#}"))),
        }
        settled(looked)
    }

    fn health(&self, last: &Status) -> Health {
        let failed = self.failed.iter().flatten().count();
        if let Some(why) = self.failed.iter().flatten().next_back()
            && failed * 2 > self.failed.len()
        {
            let looks = self.failed.len();
            return Health::Degraded(format!("{failed} of the last {looks} looks failed: {why}"));
        }
        if last.unheard >= MISSES {
            let names = LOOK_AFTER.map(|id| id.0).join(", ");
            let what = format!("a training began or ended, and none of {names} runs here");
            return Health::Degraded(what);
        }
        Health::Healthy
    }

    async fn stop(&mut self, cx: &Cx) -> anyhow::Result<()> {
        if self.config.handle_signals {
            self.last_look(cx).await?;
        }
        Ok(())
    }
}

impl TrainingNodeWatcher {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        // A look that fails keeps what was seen: an error here ends the cycle before any change.
        let running = self.running().await?;
        let live = self.workshop.live();
        self.status.trainings = running
            .iter()
            .map(|item| {
                let live = live.iter().find(|live| live.work == item.id);
                let training = Training {
                    config: item.config.to_string(),
                    node: item.node.as_ref().map_or_else(String::new, ToString::to_string),
                    attempt: item.attempt,
                    pid: live.and_then(|live| live.pid),
                    done: live.map_or(0, |live| live.done),
                    total: live.map_or(0, |live| live.total),
                };
                (item.id.to_string(), training)
            })
            .collect();
        let found: BTreeSet<WorkId> = running.into_iter().map(|item| item.id).collect();
        let (began, ended) = compare(&mut self.seen, &found);
        for work in &began {
            info!(%work, "training begins");
        }
        for work in &ended {
            info!(%work, "training is over");
        }
        let changes = began.len() + ended.len();
        self.status.began += began.len() as u64;
        self.status.ended += ended.len() as u64;
        // Whoever starts at the same time as this one may not run yet: he is woken at the next look.
        if self.config.trigger_sync && (changes > 0 || self.status.unheard > 0) {
            if self.bell.wake_running(&LOOK_AFTER) > 0 {
                self.status.syncs_triggered += 1;
                self.status.unheard = 0;
            } else {
                self.status.unheard = self.status.unheard.saturating_add(1);
            }
        }
        Ok(Outcome::Done(self.status.clone()))
    }

    async fn running(&self) -> anyhow::Result<Vec<WorkRow>> {
        let mut open = self.catalogue.open_works().await?;
        open.retain(|item| item.kind == WorkKind::Train && item.state == WorkState::Claimed);
        Ok(open)
    }

    /// Looks at what the newest training of each config and its newest checkpoint left.
    async fn last_look(&self, cx: &Cx) -> anyhow::Result<()> {
        for config in &self.the_loop.configs {
            cx.beat()?;
            let mut files = Vec::new();
            for model in self.catalogue.candidates(*config).await? {
                files.push(model.weights);
            }
            for work in self.seen.keys() {
                files.extend(self.catalogue.checkpoint(work).await?.map(|(hash, _)| hash));
            }
            for hash in files {
                cx.beat()?;
                let here = parse(&hash)?;
                let looked = self.blobs.with(move |depot| depot.verify(&here)).await?;
                // On other nodes of a cluster others look.
                let elsewhere =
                    self.the_loop.shared && matches!(looked, Err(depot::Fault::Missing { .. }));
                if let Err(fault) = looked
                    && !elsewhere
                {
                    warn!(%config, %hash, %fault, "the last look found a fault");
                }
            }
        }
        Ok(())
    }
}

/// Who began and who ended; `seen` is brought up to date.
fn compare(
    seen: &mut BTreeMap<WorkId, u32>,
    found: &BTreeSet<WorkId>,
) -> (Vec<WorkId>, Vec<WorkId>) {
    let began: Vec<WorkId> =
        found.iter().filter(|work| !seen.contains_key(*work)).cloned().collect();
    let mut ended = Vec::new();
    seen.retain(|work, misses| {
        *misses = if found.contains(work) { 0 } else { *misses + 1 };
        let gone = *misses >= MISSES;
        if gone {
            ended.push(work.clone());
        }
        !gone
    });
    seen.extend(began.iter().map(|work| (work.clone(), 0)));
    (began, ended)
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{
        BlobHash, Job, ModelId, ModelRef, NodeId, TrainJob, WorkCompleted, WorkQueued,
    };

    use super::*;
    use crate::testbed::{Bed, Roster, done, hex};

    fn work(number: u64) -> WorkId {
        WorkId::new(WorkKind::Train, hex(), number)
    }

    #[test]
    fn a_training_is_new_once_and_over_after_two_looks_without_it() {
        let mut seen = BTreeMap::new();
        let mut look = |found: &[u64]| {
            let found = found.iter().map(|number| work(*number)).collect();
            compare(&mut seen, &found)
        };
        assert_eq!(look(&[1]), (vec![work(1)], vec![]));
        assert_eq!(look(&[1, 2]), (vec![work(2)], vec![]));
        assert_eq!(look(&[2]), (vec![], vec![]), "one miss is no end");
        assert_eq!(look(&[1, 2]), (vec![], vec![]), "nor is its return a beginning");
        assert_eq!(look(&[2]), (vec![], vec![]));
        assert_eq!(look(&[2]), (vec![], vec![work(1)]));
        assert_eq!(look(&[1, 2]), (vec![work(1)], vec![]));
    }

    async fn train(bed: &Bed, number: u64, node: &str) {
        let model = ModelRef { id: ModelId::new(hex(), 0), weights: BlobHash("0".repeat(64)) };
        let job = Job::Train(TrainJob {
            candidate: ModelId::new(hex(), 1),
            generation: 1,
            parent: model,
            window: BlobHash("1".repeat(64)),
            steps: 10,
            batch: 1,
            learning_rate: 0.1,
            checkpoint_steps: 5,
            checkpoint: None,
            seed: 1,
        });
        let (work, node) = (work(number), NodeId(node.into()));
        bed.record(vec![
            WorkQueued { work: work.clone(), config: hex(), job, reason: "rows".into() }.into(),
            WorkClaimed { work, attempt: 1, node, epoch: 0 }.into(),
        ])
        .await;
    }

    fn watcher(bed: &Bed, config: Config, bell: Bell) -> TrainingNodeWatcher {
        let ports = (
            bed.catalogue_of::<TrainingNodeWatcher>(),
            bed.blobs.clone(),
            bed.workshop("good"),
            bed.the_loop.clone(),
            bell,
        );
        TrainingNodeWatcher::new(config, ports)
    }

    #[tokio::test]
    async fn a_training_is_seen_once_wherever_it_is_and_wakes_who_runs_here() {
        let bed = Bed::new().await;
        // As on a node of the profile `training` in a cluster.
        let roster = Roster::default();
        roster.run(&[TrainingDataSync::ID, GossipSync::ID]);
        train(&bed, 1, "here").await;
        train(&bed, 2, "elsewhere").await;
        let mut daemon = watcher(&bed, Config::default(), roster.bell());
        let (cx, _probe) = bed.cx::<TrainingNodeWatcher>();
        let status = done(daemon.cycle(&cx).await);
        let nodes: Vec<&str> = status.trainings.values().map(|one| one.node.as_str()).collect();
        assert_eq!(nodes, ["here", "elsewhere"]);
        assert_eq!((status.began, status.syncs_triggered), (2, 1));
        assert_eq!(roster.woken(), [TrainingDataSync::ID, GossipSync::ID]);
        let again = done(daemon.cycle(&cx).await);
        assert_eq!((again.began, again.syncs_triggered), (2, 1), "a second cycle finds nothing");
        assert_eq!(roster.woken(), []);
        bed.record(vec![WorkCompleted { work: work(2), seconds: 1.0 }.into()]).await;
        assert_eq!(done(daemon.cycle(&cx).await).ended, 0);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.ended, status.syncs_triggered), (1, 2));
    }

    #[tokio::test]
    async fn only_who_was_woken_counts_and_nobody_to_wake_degrades() {
        let bed = Bed::new().await;
        let roster = Roster::default();
        train(&bed, 1, "here").await;
        let mut daemon = watcher(&bed, Config::default(), roster.bell());
        let (cx, _probe) = bed.cx::<TrainingNodeWatcher>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.syncs_triggered, daemon.health(&status)), (0, Health::Healthy));
        let status = done(daemon.cycle(&cx).await);
        let Health::Degraded(why) = daemon.health(&status) else { panic!("{status:?}") };
        assert!(why.contains("none of TRAINING_DATA_SYNC, GOSSIP_SYNC, AUTO_SYNC runs"), "{why}");
        roster.run(&[AutoSync::ID]);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.syncs_triggered, daemon.health(&status)), (1, Health::Healthy));
        assert_eq!(roster.woken(), [AutoSync::ID]);
    }

    #[tokio::test]
    async fn looks_that_fail_more_often_than_not_degrade() {
        let bed = Bed::new().await;
        let mut daemon = watcher(&bed, Config::default(), bed.bell.clone());
        let (cx, _probe) = bed.cx::<TrainingNodeWatcher>();
        let status = done(daemon.cycle(&cx).await);
        daemon.failed.push_back(Some("the log is out of reach".into()));
        assert_eq!(daemon.health(&status), Health::Healthy, "half of them");
        daemon.failed.push_back(Some("the log is still out of reach".into()));
        let why = "2 of the last 3 looks failed: the log is still out of reach";
        assert_eq!(daemon.health(&status), Health::Degraded(why.into()));
        for _ in 0..LOOKS {
            done(daemon.cycle(&cx).await);
        }
        assert_eq!((daemon.failed.len(), daemon.health(&status)), (LOOKS, Health::Healthy));
    }

    #[tokio::test]
    async fn the_two_switches_switch() {
        let bed = Bed::new().await;
        let roster = Roster::default();
        roster.run(&LOOK_AFTER);
        train(&bed, 1, "here").await;
        let config = Config { trigger_sync: false, handle_signals: false };
        let mut daemon = watcher(&bed, config, roster.bell());
        let (cx, probe) = bed.cx::<TrainingNodeWatcher>();
        assert_eq!(done(daemon.cycle(&cx).await).syncs_triggered, 0);
        assert_eq!(roster.woken(), []);
        let beats = probe.beats();
        daemon.stop(&cx).await.unwrap();
        assert_eq!(probe.beats(), beats, "no last look");
        let mut daemon = watcher(&bed, Config::default(), roster.bell());
        bed.champion(hex()).await;
        daemon.stop(&cx).await.unwrap();
        assert!(probe.beats() > beats, "one last look");
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_forgets_nothing() {
        let bed = Bed::new().await;
        train(&bed, 1, "here").await;
        let mut daemon = watcher(&bed, Config::default(), bed.bell.clone());
        let (cx, probe) = bed.cx::<TrainingNodeWatcher>();
        probe.stop_at_beat(1);
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        let (cx, _probe) = bed.cx::<TrainingNodeWatcher>();
        assert_eq!(done(daemon.cycle(&cx).await).began, 1);
    }
}
