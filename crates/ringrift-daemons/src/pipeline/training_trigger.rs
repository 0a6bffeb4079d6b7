//! `TRAINING_TRIGGER`: makes model 0, asks for trainings when they are due, and runs them.
//!
//! Reads   champions, candidates, the newest window, training items.
//! Writes  `model.created` and `champion.installed` for generation 0; training items and how they
//!         end: `training.completed` with `model.created`.
//! Never   judges a candidate, and never trains one while another waits for its verdict.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{
    Catalogue, ChampionInstalled, CheckpointSaved, Config as GameConfig, Gate, Job, ModelCreated,
    ModelId, ModelPromoted, ModelRejected, Record, SeedJob, SeedReport, Topic as _, TrainJob,
    TrainReport, TrainingCompleted, WindowCombined, WindowRow, WorkId, WorkKind, WorkQueued,
    WorkRow, WorkState,
};
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, COORDINATOR_FULL, Emits, Finished, Loop, Order, Pressure, STANDALONE, TRAINING_FULL,
    Topics, WorkError, Workshop,
    claims::{ClaimCounts, Claims},
    cycle::{EVENT_ROUTER, brake, first_closed, rest_after_deaths, seed, settled, tell},
    on,
    pipeline::auto_export::AutoExport,
    runs::{Ended, Runs},
    sync::stale_fallback::{Newer, may_begin},
};

/// `[daemons.training_trigger]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Rows since the last training and the last change of the champion, for a new training.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub min_new_rows: u64,
    /// Optimiser steps of one training.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub steps: u32,
    /// Samples per step.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub batch: u32,
    /// Highest learning rate of the schedule, before the config's own factor.
    #[serde(deserialize_with = "crate::ranges::positive")]
    pub learning_rate: f32,
    /// Steps between two checkpoints.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub checkpoint_steps: u32,
}

impl Default for Config {
    /// About two minutes of self-play and 40 s of training on two cores; see docs/results.md for what was tried.
    fn default() -> Self {
        Self {
            min_new_rows: 120_000,
            steps: 4_000,
            batch: 256,
            learning_rate: 0.002,
            checkpoint_steps: 200,
        }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    #[serde(flatten)]
    items: ClaimCounts,
    /// Configs that need no training now, and why.
    pub waiting: BTreeMap<String, String>,
}

/// Code of the gate while a training lacks rows: the one that self-play can open.
pub(crate) const NEEDS_ROWS: &str = "rows";

/// The daemon.
pub struct TrainingTrigger {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    workshop: Workshop,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    claims: Claims,
    seeds: Runs<GameConfig>,
    newer: Newer,
}

impl Emits for TrainingTrigger {
    const EMITS: Topics = &[
        &[
            ChampionInstalled::TOPIC,
            CheckpointSaved::TOPIC,
            ModelCreated::TOPIC,
            TrainingCompleted::TOPIC,
            WorkQueued::TOPIC,
        ],
        crate::claims::EMITS,
        crate::cycle::EMITS,
    ];
}

impl Daemon for TrainingTrigger {
    const SPEC: Spec = Spec {
        id: DaemonId("TRAINING_TRIGGER"),
        about: "asks for trainings when they are due and runs them",
        priority: Priority::High,
        needs: &[EVENT_ROUTER, AutoExport::ID],
        profiles: &[COORDINATOR_FULL, TRAINING_FULL, STANDALONE],
        period: Duration::from_secs(10),
        wakes_on: &[
            on::<WindowCombined>(),
            on::<WorkQueued>(),
            on::<ModelPromoted>(),
            on::<ModelRejected>(),
        ],
        health_interval: Some(Duration::from_mins(2)),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Workshop, Arc<Loop>, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, workshop, the_loop, pressure): Self::Ports) -> Self {
        // Whether a training is due follows from what all nodes know, and the leader waits for the answer.
        let catalogue = catalogue.of_node(None);
        let claims = Claims::new(
            WorkKind::Train,
            Self::ID,
            the_loop.clone(),
            catalogue.clone(),
            workshop.clone(),
        );
        let (seeds, newer) = (Runs::default(), Newer::default());
        Self { config, catalogue, blobs, workshop, the_loop, pressure, claims, seeds, newer }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    async fn stop(&mut self, cx: &Cx) -> anyhow::Result<()> {
        self.claims.wind_down().await;
        self.settle(cx).await
    }

    fn health(&self, _: &Status) -> Health {
        match self.claims.health() {
            Health::Healthy => self.seeds.health(),
            ill => ill,
        }
    }
}

impl TrainingTrigger {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        for ended in self.seeds.ended() {
            self.install(ended, cx).await?;
        }
        self.settle(cx).await?;
        let open = self.catalogue.open_works().await?;
        self.claims.release_lost(&open, cx.now()).await?;
        let mut waiting = BTreeMap::new();
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            if let Gate::Deny { reason, .. } = self.ask(config, cx).await? {
                waiting.insert(config.to_string(), reason);
            }
        }
        let brake = brake(&self.pressure);
        if let Gate::Deny { reason, .. } = &brake {
            let status = Status { items: self.claims.counts(), waiting };
            return Ok(Outcome::blocked(reason.clone()).with_status(status));
        }
        if self.claims.resting().is_none() {
            let open = self.catalogue.open_works().await?;
            for item in &open {
                let due = item.kind == WorkKind::Train && item.state == WorkState::Queued;
                let due = due && self.the_loop.configs.contains(&item.config);
                if due && self.claims.has_turn(&open) {
                    cx.beat()?;
                    self.train(item, cx).await?;
                }
            }
        }
        Ok(Outcome::Done(Status { items: self.claims.counts(), waiting }))
    }

    /// Queues what is due for a config; the answer is stored for people.
    async fn ask(&mut self, config: GameConfig, cx: &Cx) -> anyhow::Result<Gate> {
        let Some(champion) = self.catalogue.champion(config).await? else {
            self.seed(config, cx);
            let gate =
                Gate::deny("no_model", "there is no model yet", "model 0, which is made now");
            tell(&self.catalogue, &gate, Self::ID, Some(config), cx.now()).await?;
            return Ok(gate);
        };
        let window = self.catalogue.windows(config, 1).await?.pop();
        // A champion learns from its own games: rows that an earlier one played are in the window too,
        // but they make no training due. Without this each second training repeats the first one.
        let trained = self.trained_up_to(config).await?.max(champion.position);
        let (unread, _) = self.catalogue.rows_after(config, trained).await?;
        let later = match &window {
            Some(window) => self.catalogue.rows_after(config, window.newest_samples).await?.0,
            None => unread,
        };
        let trainings = self.catalogue.work_counts(WorkKind::Train, Some(config)).await?;
        let candidates = self.catalogue.candidates(config).await?;
        let (deaths, last_ms) = self.catalogue.deaths_in_a_row(WorkKind::Train, config).await?;
        let due = Due {
            training: trainings.queued + trainings.claimed > 0,
            candidate: candidates.first().map(|model| model.id.clone()),
            new_rows: unread.saturating_sub(later),
            unread,
            window: window.clone().filter(|window| !window.trained),
        };
        // Asked whatever the others say: it counts since when it sees newer samples.
        let fallback = may_begin(&mut self.newer, &self.catalogue, &self.the_loop, config).await?;
        let of_all = first_closed([
            is_due(&due, self.config.min_new_rows),
            rest_after_deaths(WorkKind::Train, deaths, last_ms, cx.now()),
            fallback,
        ]);
        let gate = first_closed([brake(&self.pressure), of_all.clone()]);
        // What holds this node back alone is no answer for the others.
        let told = if self.the_loop.shared { &of_all } else { &gate };
        tell(&self.catalogue, told, Self::ID, Some(config), cx.now()).await?;
        if let (Gate::Allow, Some(window)) = (&gate, due.window) {
            let generation =
                self.catalogue.models(Some(config)).await?.first().map_or(0, |m| m.generation) + 1;
            let scale = self.catalogue.parameters_or_default(config).await?.learning_rate_scale;
            let work = self.catalogue.next_work(WorkKind::Train, config).await?;
            let job = TrainJob {
                candidate: ModelId::new(config, generation),
                generation,
                parent: champion.model.reference(),
                window: window.hash,
                steps: self.config.steps,
                batch: self.config.batch,
                learning_rate: self.config.learning_rate * scale,
                checkpoint_steps: self.config.checkpoint_steps,
                checkpoint: None,
                seed: seed(self.the_loop.seed, work.as_str()),
            };
            let reason = format!(
                "{} of the window's {} rows are new (at least {})",
                due.new_rows, window.rows, self.config.min_new_rows
            );
            let queued = WorkQueued { work, config, job: Job::Train(job), reason };
            self.catalogue.record(vec![Record::first(queued)], cx.now()).await?;
        }
        Ok(gate)
    }

    /// Position of the newest sample file that a training has read.
    async fn trained_up_to(&self, config: GameConfig) -> anyhow::Result<u64> {
        let Some(last) = self.catalogue.trainings(config, 1).await?.pop() else { return Ok(0) };
        let windows = self.catalogue.windows(config, LATEST_WINDOWS).await?;
        let read = windows.iter().find(|window| window.hash == last.window);
        Ok(read.map_or(last.position, |window| window.newest_samples))
    }

    /// Makes the random weights of generation 0, if nobody is at it.
    fn seed(&mut self, config: GameConfig, cx: &Cx) {
        if self.seeds.may_start(config) {
            let order = Order {
                work: WorkId(format!("seed-{config}")),
                attempt: 1,
                config,
                job: Job::Seed(SeedJob {
                    seed: seed(self.the_loop.seed, &format!("model 0 of {config}")),
                }),
                owner: Self::ID,
            };
            self.seeds.start(config, order, &self.workshop, cx);
        }
    }

    async fn install(&mut self, ended: Ended<GameConfig>, cx: &Cx) -> anyhow::Result<()> {
        let config = ended.key;
        let weights = ended.end.and_then(|finished| {
            let SeedReport {} = finished.report_as()?;
            finished.product("weights").cloned()
        });
        let weights = match weights {
            Ok(weights) => weights,
            Err(error) => {
                self.seeds.failed(config, &error);
                return Ok(());
            }
        };
        let model = ModelId::new(config, 0);
        let created = ModelCreated {
            model: model.clone(),
            config,
            generation: 0,
            parent: None,
            weights: weights.hash,
            bytes: weights.bytes,
        };
        let installed = ChampionInstalled { model, config };
        let records = vec![Record::first(created), Record::first(installed)];
        self.catalogue.record(records, cx.now()).await?;
        info!(%config, "model 0 installed");
        self.seeds.succeeded(config);
        Ok(())
    }

    async fn train(&mut self, item: &WorkRow, cx: &Cx) -> anyhow::Result<()> {
        let Job::Train(job) = &item.job else { return Ok(()) };
        let mut checkpoint = self.catalogue.checkpoint(&item.id).await?.map(|(hash, _)| hash);
        if let Some(hash) = &checkpoint
            && !self.blobs.is_at_hand(hash).await?
        {
            // It can be made again: the training starts from its parent.
            info!(work = %item.id, checkpoint = %hash, "checkpoint is lost");
            checkpoint = None;
        }
        let job = TrainJob { checkpoint, ..job.clone() };
        self.claims.take(item, Job::Train(job), cx).await?;
        Ok(())
    }

    async fn settle(&mut self, cx: &Cx) -> anyhow::Result<()> {
        self.claims.poll();
        for (order, product) in self.claims.early("checkpoint") {
            let position = self.catalogue.checkpoint(&order.work).await?.map_or(0, |(_, at)| at);
            let saved = CheckpointSaved {
                work: order.work,
                config: order.config,
                checkpoint: product.hash,
                bytes: product.bytes,
            };
            self.catalogue.record(vec![Record::after(saved, position)], cx.now()).await?;
        }
        while let Some(done) = self.claims.next_done() {
            let facts = match &done.end {
                Ok(finished) => match facts_of(&done.order, finished) {
                    Ok((_, created)) if self.catalogue.model(&created.model).await?.is_some() => {
                        Err(WorkError::Never(format!("{} exists already", created.model)))
                    }
                    Ok((trained, created)) => Ok(vec![
                        Record::once(trained, done.order.work.as_str()),
                        Record::first(created),
                    ]),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error.clone()),
            };
            self.claims.settle(done, facts, cx.now()).await?;
        }
        Ok(())
    }
}

/// Windows among which the one that was trained last is looked for.
const LATEST_WINDOWS: u32 = 64;

/// What the gate looks at.
#[derive(Debug, Clone)]
struct Due {
    training: bool,
    candidate: Option<ModelId>,
    /// Rows of the newest window that no training has read.
    new_rows: u64,
    /// All rows that no training has read, in a window or not.
    unread: u64,
    /// The newest window, if it is untrained.
    window: Option<WindowRow>,
}

/// The whole policy: is a training due?
fn is_due(due: &Due, least: u64) -> Gate {
    if due.training {
        return Gate::deny("in_work", "a training is in work", "its end");
    }
    if let Some(candidate) = &due.candidate {
        return Gate::deny(
            "candidate",
            format!("{candidate} waits for its verdict"),
            "its gauntlet and the verdict",
        );
    }
    if due.window.is_some() && due.new_rows >= least {
        return Gate::Allow;
    }
    if due.unread >= least {
        return Gate::deny(
            "window",
            format!(
                "{} rows are new, enough for a training, but no window holds them yet",
                due.unread
            ),
            "the next window, which NPZ_COMBINATION asks for",
        );
    }
    Gate::deny(
        NEEDS_ROWS,
        format!(
            "{} rows are new since the last training or promotion, {least} are needed",
            due.unread
        ),
        "more games, exported and combined",
    )
}

fn facts_of(
    order: &Order,
    finished: &Finished,
) -> Result<(TrainingCompleted, ModelCreated), WorkError> {
    let Job::Train(job) = &order.job else {
        return Err(WorkError::Never("it is no training".into()));
    };
    let report: TrainReport = finished.report_as()?;
    let weights = finished.product("weights")?;
    if report.steps != job.steps {
        return Err(WorkError::Lied(format!(
            "{} steps, where {} were asked for",
            report.steps, job.steps
        )));
    }
    if !(report.policy_loss.is_finite() && report.value_loss.is_finite()) {
        return Err(WorkError::Lied(format!(
            "losses {} and {} are no figures",
            report.policy_loss, report.value_loss
        )));
    }
    let trained = TrainingCompleted {
        work: order.work.clone(),
        config: order.config,
        model: job.candidate.clone(),
        window: job.window.clone(),
        report,
    };
    let created = ModelCreated {
        model: job.candidate.clone(),
        config: order.config,
        generation: job.generation,
        parent: Some(job.parent.id.clone()),
        weights: weights.hash.clone(),
        bytes: weights.bytes,
    };
    Ok((trained, created))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bed, blocked, candidate, done, hex, samples, stops_in_mid_cycle, window};

    fn daemon(bed: &Bed, mode: &str) -> TrainingTrigger {
        let ports = (
            bed.catalogue_of::<TrainingTrigger>(),
            bed.blobs.clone(),
            bed.workshop(mode),
            bed.the_loop.clone(),
            bed.pressure.clone(),
        );
        TrainingTrigger::new(Config { min_new_rows: 100, ..Config::default() }, ports)
    }

    async fn due(bed: &Bed) {
        bed.champion(hex()).await;
        let file = samples(bed, hex(), "one", 120).await;
        window(bed, hex(), &[file], 120).await;
    }

    async fn run(bed: &Bed, mode: &str) -> WorkRow {
        let mut daemon = daemon(bed, mode);
        let (cx, _probe) = bed.cx::<TrainingTrigger>();
        bed.cycle_until(&mut daemon, &cx, async |_| {
            let counts = bed.catalogue.work_counts(WorkKind::Train, None).await.unwrap();
            counts.done + counts.dead > 0
        })
        .await;
        bed.catalogue.works(None, 1).await.unwrap().remove(0)
    }

    #[test]
    fn a_training_is_due_when_rows_are_new_and_nobody_waits() {
        let row = WindowRow {
            hash: ringrift_pipeline::BlobHash("w".into()),
            config: hex(),
            rows: 500,
            games: 10,
            bytes: 1,
            samples: Vec::new(),
            newest_samples: 1,
            trained: false,
            position: 1,
            created_ms: 0,
        };
        let ready =
            Due { training: false, candidate: None, new_rows: 100, unread: 130, window: Some(row) };
        let check = |due: Due, code: Option<&str>| match (is_due(&due, 100), code) {
            (Gate::Allow, None) => {}
            (Gate::Deny { code, .. }, Some(expected)) => assert_eq!(code, expected),
            (gate, code) => panic!("{gate:?}, not {code:?}"),
        };
        check(ready.clone(), None);
        check(Due { training: true, ..ready.clone() }, Some("in_work"));
        check(Due { candidate: Some(ModelId::new(hex(), 1)), ..ready.clone() }, Some("candidate"));
        check(Due { new_rows: 99, unread: 99, ..ready.clone() }, Some(NEEDS_ROWS));
        check(Due { new_rows: 99, ..ready.clone() }, Some("window"));
        check(Due { window: None, ..ready }, Some("window"));
    }

    #[tokio::test]
    async fn model_0_is_installed_once_and_follows_from_the_seed() {
        let mut weights = Vec::new();
        for _ in 0..2 {
            let bed = Bed::new().await;
            let mut daemon = daemon(&bed, "honest");
            let (cx, _probe) = bed.cx::<TrainingTrigger>();
            bed.cycle_until(&mut daemon, &cx, async |_| {
                bed.catalogue.champion(hex()).await.unwrap().is_some()
            })
            .await;
            assert_eq!(bed.topics().await, ["model.created", "champion.installed"]);
            done(daemon.cycle(&cx).await);
            assert_eq!(bed.facts().await, 2, "a second cycle finds nothing to do");
            weights.push(bed.catalogue.champion(hex()).await.unwrap().unwrap().model.weights);
        }
        assert_eq!(weights[0], weights[1]);
    }

    #[tokio::test]
    async fn a_training_and_its_candidate_are_one_append() {
        let bed = Bed::new().await;
        due(&bed).await;
        let item = run(&bed, "honest").await;
        assert_eq!(item.state, WorkState::Done);
        assert_eq!(item.reason, "120 of the window's 120 rows are new (at least 100)");
        let topics = bed.topics().await;
        let expected = ["work.completed", "training.completed", "model.created"];
        assert_eq!(topics[topics.len() - 3..], expected);
        let model = bed.catalogue.candidates(hex()).await.unwrap().remove(0);
        assert_eq!((model.generation, model.parent), (1, Some(ModelId::new(hex(), 0))));
        // The window is used up, the candidate waits: nothing more to do.
        let facts = bed.facts().await;
        let (cx, _probe) = bed.cx::<TrainingTrigger>();
        done(daemon(&bed, "honest").cycle(&cx).await);
        assert_eq!(bed.facts().await, facts);
    }

    #[tokio::test]
    async fn a_later_attempt_goes_on_from_the_checkpoint() {
        let bed = Bed::new().await;
        due(&bed).await;
        let item = run(&bed, "dies-at-half").await;
        assert_eq!((item.state, item.attempt), (WorkState::Done, 2));
        assert!(bed.topics().await.contains(&"training.checkpointed".to_owned()));
        let model = bed.catalogue.candidates(hex()).await.unwrap().remove(0);
        let path = bed.blobs.path_of(&model.weights).await.unwrap().unwrap();
        let text = fs_err::read_to_string(path).unwrap();
        assert!(text.contains("at half of"), "{text}");
    }

    #[tokio::test]
    async fn a_trainer_that_did_less_than_it_says_trains_nothing_and_degrades() {
        let bed = Bed::new().await;
        due(&bed).await;
        let item = run(&bed, "lazy").await;
        assert_eq!(item.state, WorkState::Dead);
        assert_eq!(item.error.unwrap(), "the worker lied: 1 steps, where 4000 were asked for");
        assert!(bed.catalogue.candidates(hex()).await.unwrap().is_empty());
        assert!(!bed.catalogue.windows(hex(), 1).await.unwrap()[0].trained);
        // Not again at once.
        let mut daemon = daemon(&bed, "honest");
        let (cx, _probe) = bed.cx::<TrainingTrigger>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.waiting["hex8_2p"], "the last 1 items of kind train failed for good");
        bed.pass_time(Duration::from_mins(1));
        assert_eq!(done(daemon.cycle(&cx).await).items.held, 1);
    }

    #[tokio::test]
    async fn a_candidate_that_waits_is_the_stored_reason() {
        let bed = Bed::new().await;
        due(&bed).await;
        candidate(&bed, hex(), 1).await;
        let (cx, _probe) = bed.cx::<TrainingTrigger>();
        done(daemon(&bed, "honest").cycle(&cx).await);
        let (gate, _) = bed.catalogue.gate("TRAINING_TRIGGER", Some(hex())).await.unwrap().unwrap();
        assert_eq!(gate.reason, "hex8_2p-m0001 waits for its verdict");
    }

    #[tokio::test]
    async fn an_obstacle_is_degraded_and_asks_for_nothing() {
        let bed = Bed::new().await;
        due(&bed).await;
        let obstacle = crate::Obstacle { reason: "full".into(), needs: "room".into() };
        bed.pressure.set(DaemonId("DISK"), Some(obstacle));
        let (cx, _probe) = bed.cx::<TrainingTrigger>();
        assert_eq!(blocked(daemon(&bed, "honest").cycle(&cx).await), "full");
        assert!(bed.catalogue.open_works().await.unwrap().is_empty());
        let gate = async || {
            bed.catalogue.gate("TRAINING_TRIGGER", Some(hex())).await.unwrap().unwrap().0.code
        };
        assert_eq!(gate().await, "obstacle");
        // Of several that train, one that is full does not speak for the others.
        let mut one_of_many = daemon(&bed, "honest");
        one_of_many.the_loop = bed.shared();
        assert_eq!(blocked(one_of_many.cycle(&cx).await), "full");
        assert_eq!(gate().await, "open");
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        due(&bed).await;
        let daemon = daemon(&bed, "honest");
        stops_in_mid_cycle(&bed, daemon).await;
    }
}
