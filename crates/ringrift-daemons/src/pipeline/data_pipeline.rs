//! `DATA_PIPELINE`: says where each config's loop stands.
//!
//! Reads   everything that has a stage.
//! Writes  nothing but its status; it starts nothing.
//! Never   keeps a stage of its own: it is derived anew each cycle, so a restart forgets nothing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{
    BatchState, Catalogue, CatalogueError, Config as GameConfig, EvaluationCompleted,
    GamesCommitted, ModelCreated, ModelPromoted, ModelRejected, NodeId, Stage, StageView,
    WindowCombined, WorkKind, stage_of,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR, EPHEMERAL, Emits, Loop, STANDALONE, TRAINING_FULL, Topics,
    cycle::{EVENT_ROUTER, settled},
    on,
    pipeline::npz_combination::{NpzCombination, TOO_FEW_ROWS},
};

/// `[daemons.data_pipeline]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A config whose stage and content stand still for longer degrades our health. Source:
    /// `DATA_PIPELINE`, its limit of 1800 s for the short stages; on one machine the long ones are no
    /// longer than that.
    #[serde(with = "crate::seconds")]
    pub stage_limit: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { stage_limit: Duration::from_mins(30) }
    }
}

/// Where one config stands.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// Its stage.
    pub stage: Stage,
    /// For how long nothing of it has moved, seconds.
    pub unmoved_seconds: u64,
    /// What the stage follows from.
    pub view: StageView,
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// By config.
    pub configs: BTreeMap<String, Standing>,
}

/// The daemon.
pub struct DataPipeline {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    since: BTreeMap<GameConfig, (StageView, u64, Instant)>,
}

impl Emits for DataPipeline {
    const EMITS: Topics = &[];
}

impl Daemon for DataPipeline {
    const SPEC: Spec = Spec {
        id: DaemonId("DATA_PIPELINE"),
        about: "shows where each config's loop stands",
        priority: Priority::High,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR, TRAINING_FULL, EPHEMERAL, STANDALONE],
        period: Duration::from_secs(15),
        wakes_on: &[
            on::<GamesCommitted>(),
            on::<WindowCombined>(),
            on::<ModelCreated>(),
            on::<EvaluationCompleted>(),
            on::<ModelRejected>(),
            on::<ModelPromoted>(),
        ],
        critical: true,
        health_interval: Some(Duration::from_secs(30)),
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop): Self::Ports) -> Self {
        Self { config, catalogue, the_loop, since: BTreeMap::new() }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        let limit = self.config.stage_limit.as_secs();
        let stuck: Vec<String> = last
            .configs
            .iter()
            .filter(|(_, standing)| standing.unmoved_seconds > limit)
            .map(|(config, standing)| {
                format!(
                    "{config} stands in {} for {} s",
                    word(standing.stage),
                    standing.unmoved_seconds
                )
            })
            .collect();
        if stuck.is_empty() { Health::Healthy } else { Health::Degraded(stuck.join(", ")) }
    }
}

impl DataPipeline {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let mut configs = BTreeMap::new();
        for config in &self.the_loop.configs {
            cx.beat()?;
            let view = stage_view(&self.catalogue, *config, &self.the_loop.node).await?;
            let games = self.catalogue.game_totals(*config, cx.now()).await?.games;
            let now = Instant::now();
            let entry = self.since.entry(*config).or_insert((view, games, now));
            if (entry.0, entry.1) != (view, games) {
                *entry = (view, games, now);
            }
            let standing = Standing {
                stage: stage_of(&view),
                unmoved_seconds: now.duration_since(entry.2).as_secs(),
                view,
            };
            configs.insert(config.to_string(), standing);
        }
        Ok(Outcome::Done(Status { configs }))
    }
}

/// The stage as it is written.
fn word(stage: Stage) -> String {
    format!("{stage:?}").to_lowercase()
}

/// What a config's stage is derived from; see [`stage_of`].
pub async fn stage_view(
    catalogue: &Catalogue,
    config: GameConfig,
    node: &NodeId,
) -> Result<StageView, CatalogueError> {
    let champion = catalogue.champion(config).await?;
    let handed = catalogue.distribution(config, node).await?;
    let trainings = catalogue.work_counts(WorkKind::Train, Some(config)).await?;
    let candidates = catalogue.candidates(config).await?;
    let window = catalogue.windows(config, 1).await?.pop();
    let newest = window.as_ref().map_or(0, |window| window.newest_samples);
    let (_, files) = catalogue.rows_after(config, newest).await?;
    // Files that are too few for a window wait for games, not for the combination.
    let combination = catalogue.of_node(None).gate(NpzCombination::ID.0, Some(config)).await?;
    let too_few = combination.is_some_and(|(gate, _)| gate.code == TOO_FEW_ROWS);
    let count = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
    Ok(StageView {
        has_champion: champion.is_some(),
        distributed: champion.as_ref().map(|champion| &champion.model.id)
            == handed.as_ref().map(|row| &row.model.id),
        training: trainings.queued + trainings.claimed > 0,
        unevaluated: candidates.iter().any(|model| model.evaluation.is_none()),
        unjudged: candidates.iter().any(|model| model.evaluation.is_some()),
        unchecked_batches: count(
            catalogue.batches(config, BatchState::Committed, MOST_COUNTED).await?.len(),
        ),
        unexported_batches: count(catalogue.unexported(config, MOST_COUNTED).await?.len()),
        uncombined_samples: if too_few { 0 } else { files },
        window_ready: window.is_some_and(|window| !window.trained),
    })
}

/// Batches that are counted; more are "many".
const MOST_COUNTED: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{
        Bed, candidate, done, evaluated, hex, samples, stops_in_mid_cycle, window,
    };

    fn daemon(bed: &Bed) -> DataPipeline {
        DataPipeline::new(
            Config::default(),
            (bed.catalogue_of::<DataPipeline>(), bed.the_loop.clone()),
        )
    }

    #[tokio::test]
    async fn the_stage_follows_the_catalogue_and_nothing_is_written() {
        let bed = Bed::new().await;
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<DataPipeline>();
        let mut stage = async || {
            let facts = bed.facts().await;
            let found = done(daemon.cycle(&cx).await).configs["hex8_2p"].stage;
            assert_eq!(bed.facts().await, facts);
            found
        };
        assert_eq!(stage().await, Stage::Idle);
        bed.champion(hex()).await;
        assert_eq!(stage().await, Stage::Selfplay);
        bed.batch(hex(), &["a"]).await;
        assert_eq!(stage().await, Stage::Consolidation);
        let file = samples(&bed, hex(), "one", 120).await;
        assert_eq!(stage().await, Stage::Combination);
        window(&bed, hex(), &[file], 120).await;
        assert_eq!(stage().await, Stage::Training);
        candidate(&bed, hex(), 1).await;
        assert_eq!(stage().await, Stage::Evaluation);
        evaluated(&bed, hex(), 1, 0, 100.0).await;
        assert_eq!(stage().await, Stage::Promotion);
    }

    #[tokio::test]
    async fn a_stage_that_stands_still_degrades() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<DataPipeline>();
        let fresh = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&fresh), Health::Healthy);
        let since = &mut daemon.since.get_mut(&hex()).unwrap().2;
        *since = since.checked_sub(Duration::from_mins(31)).unwrap();
        let old = done(daemon.cycle(&cx).await);
        let Health::Degraded(sentence) = daemon.health(&old) else { panic!("healthy") };
        assert!(sentence.starts_with("hex8_2p stands in selfplay for 186"), "{sentence}");
        // A game is enough to be alive.
        bed.batch(hex(), &["a"]).await;
        let alive = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&alive), Health::Healthy);
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_is_noticed() {
        let bed = Bed::new().await;
        stops_in_mid_cycle(&bed, daemon(&bed)).await;
    }
}
