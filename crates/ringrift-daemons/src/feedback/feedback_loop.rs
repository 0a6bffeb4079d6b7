//! `FEEDBACK_LOOP`: sets the parameters of self-play and training.
//!
//! Reads   advice that came after the parameters in force.
//! Writes  `parameters.set`.
//! Never   looks at games or matches itself: others advise it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{
    Advice, AdviceGiven, AdviceRow, Catalogue, Config as GameConfig, Parameters, ParametersSet,
    Record, Topic as _,
};
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Outcome, Priority, Spec};

use crate::{
    COORDINATOR, COORDINATOR_FULL, EPHEMERAL, Emits, Loop, SELFPLAY_FULL, STANDALONE,
    TRAINING_FULL, Topics,
    cycle::{EVENT_ROUTER, settled},
    on,
};

/// `[daemons.feedback_loop]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most simulations of a full self-play search.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_simulations: u32,
    /// Highest temperature of self-play. Source: `FEEDBACK_LOOP`, exploration up to 2.
    #[serde(deserialize_with = "crate::ranges::positive")]
    pub max_temperature: f32,
    /// Lowest factor on the learning rate. Source: the same, "learning rate x 0.2".
    #[serde(deserialize_with = "crate::ranges::positive")]
    pub min_learning_rate_scale: f32,
    /// Highest factor on the rows of the window.
    #[serde(deserialize_with = "crate::ranges::positive")]
    pub max_window_scale: f32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_simulations: 128,
            max_temperature: 1.5,
            min_learning_rate_scale: 0.2,
            max_window_scale: 3.0,
        }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Parameters in force, by config.
    pub parameters: BTreeMap<String, Parameters>,
    /// Changes since the daemon started.
    pub changes: u64,
}

/// The daemon.
pub struct FeedbackLoop {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    changes: u64,
}

impl Emits for FeedbackLoop {
    const EMITS: Topics = &[&[ParametersSet::TOPIC]];
}

impl Daemon for FeedbackLoop {
    const SPEC: Spec = Spec {
        id: DaemonId("FEEDBACK_LOOP"),
        about: "sets the parameters of self-play and training",
        priority: Priority::Critical,
        needs: &[EVENT_ROUTER],
        profiles: &[
            COORDINATOR,
            COORDINATOR_FULL,
            TRAINING_FULL,
            EPHEMERAL,
            SELFPLAY_FULL,
            STANDALONE,
        ],
        period: Duration::from_secs(15),
        wakes_on: &[on::<AdviceGiven>()],
        critical: true,
        health_interval: Some(Duration::from_mins(1)),
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop): Self::Ports) -> Self {
        Self { config, catalogue, the_loop, changes: 0 }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }
}

impl FeedbackLoop {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let mut parameters = BTreeMap::new();
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            parameters.insert(config.to_string(), self.set(config, cx).await?);
        }
        Ok(Outcome::Done(Status { parameters, changes: self.changes }))
    }

    async fn set(&mut self, config: GameConfig, cx: &Cx) -> anyhow::Result<Parameters> {
        let row = self.catalogue.parameters(config).await?;
        let position = row.as_ref().map_or(0, |row| row.position);
        let before = row.map_or_else(Parameters::default, |row| row.parameters);
        let mut advice = self.catalogue.advice(config, MOST_ADVICE).await?;
        advice.retain(|advice| advice.position > position);
        advice.reverse();
        let Some((after, reason)) = apply(&before, &advice, &self.config) else {
            return Ok(before);
        };
        info!(%config, reason, "parameters set");
        let set = ParametersSet { config, parameters: after.clone(), reason };
        self.catalogue.record(vec![Record::after(set, position)], cx.now()).await?;
        self.changes += 1;
        Ok(after)
    }
}

/// Advice that is looked at in one cycle.
const MOST_ADVICE: u32 = 50;

/// The parameters after this advice, oldest first, and why; none if it changes nothing.
fn apply(
    before: &Parameters,
    advice: &[AdviceRow],
    config: &Config,
) -> Option<(Parameters, String)> {
    let mut after = before.clone();
    let mut reasons = Vec::new();
    for one in advice {
        let next = follow(&after, one.advice, config);
        if next != after {
            reasons.push(format!("{}: {}", one.reason, change(&after, &next)));
            after = next;
        }
    }
    (after != *before).then(|| (after, reasons.join("; ")))
}

/// The whole policy: what one piece of advice changes.
fn follow(now: &Parameters, advice: Advice, config: &Config) -> Parameters {
    let mut next = now.clone();
    match advice {
        // Better targets, more variety, more memory.
        Advice::Plateau => {
            let most = config.max_simulations.max(now.simulations);
            next.simulations = now.simulations.saturating_mul(3).div_ceil(2).min(most);
            next.temperature =
                (now.temperature + 0.1).min(config.max_temperature.max(now.temperature));
            next.window_scale =
                (now.window_scale * 1.25).min(config.max_window_scale.max(now.window_scale));
        }
        // The steps were too large.
        Advice::Regression => {
            let least = config.min_learning_rate_scale.min(now.learning_rate_scale);
            next.learning_rate_scale = (now.learning_rate_scale * 0.5).max(least);
        }
        // Back to the usual, slowly; searches that became deeper stay so.
        Advice::Progress => {
            next.learning_rate_scale =
                (now.learning_rate_scale * 1.25).min(1.0f32.max(now.learning_rate_scale));
            next.temperature = (now.temperature - 0.1).max(1.0f32.min(now.temperature));
        }
    }
    next
}

/// The difference in words.
fn change(before: &Parameters, after: &Parameters) -> String {
    let mut parts = Vec::new();
    if before.simulations != after.simulations {
        parts.push(format!("simulations {} to {}", before.simulations, after.simulations));
    }
    let mut float = |name: &str, before: f32, after: f32| {
        if before.to_bits() != after.to_bits() {
            parts.push(format!("{name} {before:.2} to {after:.2}"));
        }
    };
    float("temperature", before.temperature, after.temperature);
    float("learning rate x", before.learning_rate_scale, after.learning_rate_scale);
    float("window x", before.window_scale, after.window_scale);
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::ModelId;

    use super::*;
    use crate::testbed::{Bed, done, hex, stops_in_mid_cycle};

    fn daemon(bed: &Bed) -> FeedbackLoop {
        FeedbackLoop::new(
            Config::default(),
            (bed.catalogue_of::<FeedbackLoop>(), bed.the_loop.clone()),
        )
    }

    async fn advise(bed: &Bed, generation: u32, advice: Advice) {
        let model = ModelId::new(hex(), generation);
        let reason = format!("{advice:?} of {model}");
        bed.record(vec![AdviceGiven { config: hex(), model, advice, reason }.into()]).await;
    }

    fn check(advice: &[Advice], expected: (u32, f32, f32, f32)) {
        let mut now = Parameters::default();
        for one in advice {
            now = follow(&now, *one, &Config::default());
        }
        let found = (now.simulations, now.temperature, now.learning_rate_scale, now.window_scale);
        let close = |a: f32, b: f32| (a - b).abs() < 1e-5;
        assert!(
            found.0 == expected.0
                && close(found.1, expected.1)
                && close(found.2, expected.2)
                && close(found.3, expected.3),
            "{advice:?}: {found:?}"
        );
    }

    #[test]
    fn advice_moves_parameters_within_their_bounds() {
        use Advice::{Plateau, Progress, Regression};
        check(&[], (64, 1.0, 1.0, 1.0));
        check(&[Progress], (64, 1.0, 1.0, 1.0));
        check(&[Plateau], (96, 1.1, 1.0, 1.25));
        check(&[Plateau; 20], (128, 1.5, 1.0, 3.0));
        check(&[Regression], (64, 1.0, 0.5, 1.0));
        check(&[Regression; 20], (64, 1.0, 0.2, 1.0));
        check(&[Regression, Progress], (64, 1.0, 0.625, 1.0));
        check(&[Plateau, Progress], (96, 1.0, 1.0, 1.25));
    }

    #[tokio::test]
    async fn a_second_cycle_finds_nothing_to_do() {
        let bed = Bed::new().await;
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<FeedbackLoop>();
        assert_eq!(done(daemon.cycle(&cx).await).changes, 0);
        advise(&bed, 1, Advice::Progress).await;
        assert_eq!(done(daemon.cycle(&cx).await).changes, 0, "nothing to improve");
        advise(&bed, 2, Advice::Plateau).await;
        assert_eq!(done(daemon.cycle(&cx).await).changes, 1);
        assert_eq!(done(daemon.cycle(&cx).await).changes, 1);
        let row = bed.catalogue.parameters(hex()).await.unwrap().unwrap();
        assert_eq!(row.parameters.simulations, 96);
        assert_eq!(
            row.reason,
            "Plateau of hex8_2p-m0002: simulations 64 to 96, temperature 1.00 to 1.10, \
             window x 1.00 to 1.25"
        );
    }

    #[tokio::test]
    async fn a_restart_does_not_apply_advice_twice() {
        let bed = Bed::new().await;
        let (cx, _probe) = bed.cx::<FeedbackLoop>();
        advise(&bed, 1, Advice::Regression).await;
        done(daemon(&bed).cycle(&cx).await);
        assert_eq!(done(daemon(&bed).cycle(&cx).await).changes, 0);
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        advise(&bed, 1, Advice::Plateau).await;
        stops_in_mid_cycle(&bed, daemon(&bed)).await;
    }
}
