//! `CURRICULUM_INTEGRATION`: weighs the configs by how much they gain.
//!
//! Reads   the last gauntlets of each config.
//! Writes  `curriculum.rebalanced`, when a weight moved by more than a margin.
//! Never   splits self-play itself: the weights are one of several things that decide it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{
    Catalogue, Config as GameConfig, CurriculumRebalanced, EvaluationCompleted, Record, Topic as _,
};
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Emits, Loop, STANDALONE, TRAINING_FULL, Topics,
    cycle::{EVENT_ROUTER, settled},
    on,
};

/// `[daemons.curriculum_integration]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Least change of a weight that is worth a fact. Source: `CURRICULUM_INTEGRATION`, "> 0.1".
    #[serde(deserialize_with = "crate::ranges::positive")]
    pub margin: f64,
    /// Gauntlets that are averaged.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub gauntlets: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { margin: 0.1, gauntlets: 3 }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Weight of each config, 1 = neutral.
    pub weights: BTreeMap<String, f64>,
    /// Facts written since the daemon started.
    pub updates: u64,
}

/// The daemon.
pub struct CurriculumIntegration {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    updates: u64,
}

impl Emits for CurriculumIntegration {
    const EMITS: Topics = &[&[CurriculumRebalanced::TOPIC]];
}

impl Daemon for CurriculumIntegration {
    const SPEC: Spec = Spec {
        id: DaemonId("CURRICULUM_INTEGRATION"),
        about: "weighs the configs by their gain",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL, TRAINING_FULL, STANDALONE],
        period: Duration::from_secs(15),
        wakes_on: &[on::<EvaluationCompleted>()],
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop): Self::Ports) -> Self {
        Self { config, catalogue, the_loop, updates: 0 }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }
}

impl CurriculumIntegration {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let mut gains = BTreeMap::new();
        for config in &self.the_loop.configs {
            cx.beat()?;
            let models = self.catalogue.models(Some(*config)).await?;
            let last: Vec<f64> = models
                .iter()
                .filter_map(|model| model.evaluation.as_ref()?.main.as_ref())
                .map(|main| main.elo)
                .take(self.config.gauntlets)
                .collect();
            gains.insert(*config, mean(&last));
        }
        let weights: BTreeMap<GameConfig, f64> =
            gains.iter().map(|(config, gain)| (*config, weight(*gain))).collect();
        let stored = self.catalogue.curriculum().await?;
        let before: BTreeMap<GameConfig, f64> =
            stored.iter().map(|(config, weight, _)| (*config, *weight)).collect();
        // Who was never weighed weighs 1.
        let moved = weights.iter().any(|(config, weight)| {
            (before.get(config).copied().unwrap_or(1.0) - weight).abs() > self.config.margin
        });
        if moved {
            let position = stored.iter().map(|(_, _, position)| *position).max().unwrap_or(0);
            let reason = reason(&gains);
            info!(reason, "curriculum rebalanced");
            let rebalanced = CurriculumRebalanced { weights: weights.clone(), reason };
            self.catalogue.record(vec![Record::after(rebalanced, position)], cx.now()).await?;
            self.updates += 1;
        }
        let weights = weights.iter().map(|(config, one)| (config.to_string(), *one)).collect();
        Ok(Outcome::Done(Status { weights, updates: self.updates }))
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    let count = f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX));
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / count)
}

/// The whole policy: weight by the mean Elo gain of the last gauntlets.
///
/// Source: `CURRICULUM_INTEGRATION`: beyond 30 Elo a gain adds its 200th part, a loss takes its 400th.
fn weight(gain: Option<f64>) -> f64 {
    let weight = match gain {
        Some(gain) if gain > 30.0 => 1.0 + gain / 200.0,
        Some(gain) if gain < -30.0 => 1.0 + gain / 400.0,
        _ => 1.0,
    };
    weight.clamp(0.5, 2.0)
}

fn reason(gains: &BTreeMap<GameConfig, Option<f64>>) -> String {
    let parts: Vec<String> = gains
        .iter()
        .map(|(config, gain)| match gain {
            Some(gain) => format!("{config}: Elo {gain:+.0} in the last gauntlets"),
            None => format!("{config}: no gauntlet yet"),
        })
        .collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bed, done, evaluated, hex, square, stops_in_mid_cycle};

    #[test]
    fn gains_and_losses_beyond_thirty_elo_change_the_weight() {
        let check = |gain: Option<f64>, expected: f64| {
            assert!((weight(gain) - expected).abs() < 1e-9, "{gain:?}: {}", weight(gain));
        };
        check(None, 1.0);
        check(Some(30.0), 1.0);
        check(Some(-30.0), 1.0);
        check(Some(100.0), 1.5);
        check(Some(1000.0), 2.0);
        check(Some(-100.0), 0.75);
        check(Some(-1000.0), 0.5);
    }

    #[tokio::test]
    async fn a_second_cycle_finds_nothing_to_do() {
        let bed = Bed::with(vec![hex(), square()]).await;
        let ports = (bed.catalogue_of::<CurriculumIntegration>(), bed.the_loop.clone());
        let mut daemon = CurriculumIntegration::new(Config::default(), ports);
        let (cx, _probe) = bed.cx::<CurriculumIntegration>();
        assert_eq!(done(daemon.cycle(&cx).await).updates, 0, "everybody weighs 1");
        evaluated(&bed, hex(), 1, 0, 100.0).await;
        assert_eq!(done(daemon.cycle(&cx).await).updates, 1);
        assert_eq!(done(daemon.cycle(&cx).await).updates, 1);
        let weights = bed.catalogue.curriculum().await.unwrap();
        let weights: Vec<_> = weights.iter().map(|(config, one, _)| (*config, *one)).collect();
        assert_eq!(weights, [(hex(), 1.5), (square(), 1.0)]);
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        let ports = (bed.catalogue_of::<CurriculumIntegration>(), bed.the_loop.clone());
        stops_in_mid_cycle(&bed, CurriculumIntegration::new(Config::default(), ports)).await;
    }
}
