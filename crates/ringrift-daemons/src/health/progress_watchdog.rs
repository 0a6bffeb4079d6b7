//! `PROGRESS_WATCHDOG`: a verdict on each config by what came out, not by what runs.
//!
//! Reads   games, models and verdicts of each config.
//! Writes  an alarm per config that makes no progress, with the sentences of the closed gates.
//! Never   changes priorities: who plans looks at the same catalogue.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{
    Catalogue, Config as GameConfig, ModelCreated, ModelPromoted, ModelRejected, ModelStatus,
};
use serde::{Deserialize, Serialize};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Emits, Loop, Pressure, STANDALONE, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    explain::closed_gates,
    on,
    pipeline::selfplay_coordinator::SelfplayCoordinator,
};

/// Name of the alarm on a config.
pub(crate) fn alarm_on(config: GameConfig) -> String {
    format!("progress.{config}")
}

/// `[daemons.progress_watchdog]`. The contract looks hourly and calls six hours without gain a
/// stall, for a cluster; on one machine a round of the loop takes minutes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Without any outcome (a game, a model, a verdict) for so long, a config stands still.
    #[serde(with = "crate::seconds")]
    pub any_within: Duration,
    /// Games alone are no progress: without a model or a verdict for so long, it stands still too.
    #[serde(with = "crate::seconds")]
    pub model_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { any_within: Duration::from_mins(15), model_within: Duration::from_hours(2) }
    }
}

/// What came out of a config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Games in the last period.
    pub games: u64,
    /// Models in the last period.
    pub models: u64,
    /// Models promoted in the last period.
    pub promoted: u64,
    /// Models rejected in the last period. A verdict has no time of its own: it counts by its
    /// model's.
    pub rejected: u64,
    /// Time since any of them, seconds.
    pub last_outcome_seconds: u64,
    /// Time since the last model or promotion, seconds.
    pub last_model_seconds: u64,
}

/// What the last cycle said.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// By config.
    pub configs: BTreeMap<String, Outcomes>,
    /// Configs that make no progress, and why.
    pub stalled: BTreeMap<String, String>,
}

/// The daemon.
pub struct ProgressWatchdog {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    alarms: Alarms,
    /// When this life began: time during which no process ran is nobody's stall.
    began_ms: Option<i64>,
}

impl Emits for ProgressWatchdog {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for ProgressWatchdog {
    const SPEC: Spec = Spec {
        id: DaemonId("PROGRESS_WATCHDOG"),
        about: "judges each config by what came out",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER, SelfplayCoordinator::ID],
        profiles: &[STANDALONE],
        period: Duration::from_mins(1),
        wakes_on: &[on::<ModelCreated>(), on::<ModelPromoted>(), on::<ModelRejected>()],
        health_interval: Some(Duration::from_mins(30)),
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop, pressure): Self::Ports) -> Self {
        Self { config, catalogue, the_loop, pressure, alarms: Alarms::default(), began_ms: None }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        if last.stalled.is_empty() {
            return Health::Healthy;
        }
        let names: Vec<&str> = last.stalled.keys().map(String::as_str).collect();
        Health::Degraded(format!("no progress: {}", names.join(", ")))
    }
}

impl ProgressWatchdog {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let began_ms = *self.began_ms.get_or_insert(cx.now());
        let mut status = Status::default();
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            let outcomes = self.outcomes(config, began_ms, cx.now()).await?;
            let mut sentence = judge(&outcomes, &self.config);
            if let Some(sentence) = &mut sentence {
                sentence.push_str(&self.reasons(config).await?);
                status.stalled.insert(config.to_string(), sentence.clone());
            }
            self.alarms.set(&self.catalogue, &alarm_on(config), sentence, cx.now()).await?;
            status.configs.insert(config.to_string(), outcomes);
        }
        Ok(Outcome::Done(status))
    }

    async fn outcomes(
        &self,
        config: GameConfig,
        began_ms: i64,
        now_ms: i64,
    ) -> anyhow::Result<Outcomes> {
        let since = now_ms - i64::try_from(self.config.model_within.as_millis())?;
        let games = self.catalogue.game_totals(config, since).await?.recent;
        let last_batch = self.catalogue.recent_batches(Some(config), 1).await?;
        let models = self.catalogue.models(Some(config)).await?;
        let promotions = self.catalogue.promotions(Some(config)).await?;
        let last_batch = last_batch.first().map_or(began_ms, |batch| batch.created_ms);
        let last_model = models
            .iter()
            .map(|model| model.created_ms)
            .chain(promotions.iter().map(|promotion| promotion.created_ms))
            .max()
            .unwrap_or(began_ms);
        // Nothing is asked of the time before this life.
        let last_model = last_model.max(began_ms);
        let last = last_batch.max(last_model);
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let seconds = |then: i64| u64::try_from((now_ms - then) / 1000).unwrap_or(0);
        let recent = || models.iter().filter(|model| model.created_ms >= since);
        Ok(Outcomes {
            games,
            models: count(recent().count()),
            promoted: count(promotions.iter().filter(|row| row.created_ms >= since).count()),
            rejected: count(recent().filter(|m| m.status == ModelStatus::Rejected).count()),
            last_outcome_seconds: seconds(last),
            last_model_seconds: seconds(last_model),
        })
    }

    /// What holds a config back, as the gates have said it.
    async fn reasons(&self, config: GameConfig) -> anyhow::Result<String> {
        let mut reasons = vec![String::new()];
        for (owner, obstacle) in self.pressure.obstacles() {
            reasons.push(format!("{owner}: {}", obstacle.reason));
        }
        let mut closed = closed_gates(&self.catalogue, Some(config)).await?;
        closed.extend(closed_gates(&self.catalogue, None).await?);
        for gate in closed {
            reasons.push(format!("{}: {}, needs {}", gate.gate, gate.reason, gate.needs));
        }
        if reasons.len() == 1 {
            reasons.push("no gate is closed".to_owned());
        }
        Ok(reasons.join("; "))
    }
}

/// The whole policy: why this is no progress, if it is none.
fn judge(outcomes: &Outcomes, config: &Config) -> Option<String> {
    if outcomes.last_outcome_seconds > config.any_within.as_secs() {
        let minutes = outcomes.last_outcome_seconds / 60;
        return Some(format!("no game, model or verdict for {minutes} min"));
    }
    if outcomes.last_model_seconds > config.model_within.as_secs() {
        let minutes = outcomes.last_model_seconds / 60;
        return Some(format!("{} games but no model for {minutes} min", outcomes.games));
    }
    None
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::Gate;

    use super::*;
    use crate::{
        Obstacle,
        alarms::alarm_of,
        testbed::{Bed, done, hex, square},
    };

    fn check(last_outcome_min: u64, last_model_min: u64, expected: Option<&str>) {
        let outcomes = Outcomes {
            games: 9,
            last_outcome_seconds: last_outcome_min * 60,
            last_model_seconds: last_model_min * 60,
            ..Outcomes::default()
        };
        assert_eq!(judge(&outcomes, &Config::default()).as_deref(), expected);
    }

    #[test]
    fn silence_and_games_without_models_are_no_progress() {
        check(0, 0, None);
        check(15, 15, None);
        check(16, 16, Some("no game, model or verdict for 16 min"));
        check(1, 120, None);
        check(1, 121, Some("9 games but no model for 121 min"));
        check(121, 121, Some("no game, model or verdict for 121 min"));
    }

    fn watchdog(bed: &Bed) -> ProgressWatchdog {
        let ports =
            (bed.catalogue_of::<ProgressWatchdog>(), bed.the_loop.clone(), bed.pressure.clone());
        ProgressWatchdog::new(Config::default(), ports)
    }

    #[tokio::test]
    async fn the_alarm_of_a_stalled_config_tells_what_holds_it_and_ends_with_the_next_game() {
        let bed = Bed::with(vec![hex(), square()]).await;
        let mut daemon = watchdog(&bed);
        let (cx, _probe) = bed.cx::<ProgressWatchdog>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Healthy, "a fresh start is no stall");

        bed.pass_time(Duration::from_mins(16));
        bed.batch(square(), &["s1"]).await;
        let gate = Gate::deny("few", "3 rows", "4096 rows");
        let fact = gate.to_fact("TRAINING_TRIGGER", Some(hex()));
        bed.catalogue.tell_gate(fact, cx.now()).await.unwrap();
        let obstacle = Obstacle { reason: "1 GiB is free".into(), needs: "2 GiB".into() };
        bed.pressure.set(DaemonId("DISK"), Some(obstacle));
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Degraded("no progress: hex8_2p".into()));
        let expected = "no game, model or verdict for 16 min; DISK: 1 GiB is free; \
                        TRAINING_TRIGGER: 3 rows, needs 4096 rows";
        let alarm = async |config| alarm_of(&bed.catalogue, &alarm_on(config)).await.unwrap();
        assert_eq!(alarm(hex()).await.unwrap().0, expected);
        assert_eq!(alarm(square()).await, None);
        let told = bed.catalogue.log().head(courier::Stream::Operational).await.unwrap();
        done(daemon.cycle(&cx).await);
        assert_eq!(bed.catalogue.log().head(courier::Stream::Operational).await.unwrap(), told);

        bed.batch(hex(), &["h1"]).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(alarm(hex()).await, None);
        assert_eq!(status.configs["hex8_2p"].games, 1);
    }

    #[tokio::test]
    async fn the_time_when_nothing_ran_is_no_stall() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        bed.pass_time(Duration::from_hours(50));
        let mut daemon = watchdog(&bed);
        let (cx, _probe) = bed.cx::<ProgressWatchdog>();
        assert!(done(daemon.cycle(&cx).await).stalled.is_empty());
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_judges_the_rest_next_time() {
        let bed = Bed::with(vec![hex(), square()]).await;
        let mut daemon = watchdog(&bed);
        let (cx, _probe) = bed.cx::<ProgressWatchdog>();
        done(daemon.cycle(&cx).await);
        bed.pass_time(Duration::from_mins(16));
        let (cx, probe) = bed.cx::<ProgressWatchdog>();
        probe.stop_at_beat(2);
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        assert!(alarm_of(&bed.catalogue, &alarm_on(hex())).await.unwrap().is_some());
        assert!(alarm_of(&bed.catalogue, &alarm_on(square())).await.unwrap().is_none());
    }
}
