//! `SELFPLAY_COORDINATOR`: splits self-play between the configs.
//!
//! Reads   games so far, the curriculum's weights, when games came in last.
//! Writes  `selfplay.allocated`, when a share moved by more than a margin.
//! Never   queues or runs anything.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{
    AllocationUpdated, Catalogue, Config as GameConfig, CurriculumRebalanced, ModelPromoted,
    Record, Topic as _,
};
use serde::{Deserialize, Serialize};
use warden::{Cx, Daemon, DaemonId, Outcome, Priority, Spec};

use crate::{
    Emits, Loop, STANDALONE, Topics,
    cycle::{EVENT_ROUTER, settled},
    on,
};

/// `[daemons.selfplay_coordinator]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Least change of a share that is worth a fact.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub margin: f64,
    /// Least share of a config, as a share of an even split.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub floor: f64,
    /// Below so many games a config's need is doubled, below a tenth of it trebled. Source:
    /// `SELFPLAY_COORDINATOR`, "starvation", its 1000 games scaled to one machine.
    pub starving_below: u64,
    /// A config without new games for so long counts double. Source: the same, "staleness", its 4 h
    /// scaled to a loop that turns in minutes.
    #[serde(with = "crate::seconds")]
    pub stale_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            margin: 0.05,
            floor: 0.25,
            starving_below: 200,
            stale_after: Duration::from_mins(10),
        }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Share of each config, 0..=1.
    pub shares: BTreeMap<String, f64>,
    /// Facts written since the daemon started.
    pub updates: u64,
}

/// The daemon.
pub struct SelfplayCoordinator {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    updates: u64,
}

impl Emits for SelfplayCoordinator {
    const EMITS: Topics = &[&[AllocationUpdated::TOPIC]];
}

impl Daemon for SelfplayCoordinator {
    const SPEC: Spec = Spec {
        id: DaemonId("SELFPLAY_COORDINATOR"),
        about: "splits self-play between the configs",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[STANDALONE],
        period: Duration::from_secs(15),
        wakes_on: &[on::<CurriculumRebalanced>(), on::<ModelPromoted>()],
        health_interval: Some(Duration::from_mins(1)),
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

impl SelfplayCoordinator {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let weights: BTreeMap<GameConfig, f64> = self
            .catalogue
            .curriculum()
            .await?
            .into_iter()
            .map(|(config, weight, _)| (config, weight))
            .collect();
        let mut needs = BTreeMap::new();
        for config in &self.the_loop.configs {
            cx.beat()?;
            let totals = self.catalogue.game_totals(*config, cx.now()).await?;
            let last = self.catalogue.recent_batches(Some(*config), 1).await?;
            let need = Need {
                games: totals.games,
                weight: weights.get(config).copied().unwrap_or(1.0),
                idle_ms: last.first().map(|batch| cx.now().saturating_sub(batch.created_ms)),
            };
            needs.insert(*config, need);
        }
        let shares = split(&needs, &self.config);
        let stored = self.catalogue.allocation().await?;
        let before: BTreeMap<GameConfig, f64> =
            stored.iter().map(|row| (row.config, row.share)).collect();
        if moved(&before, &shares, self.config.margin) && !shares.is_empty() {
            let position = stored.iter().map(|row| row.position).max().unwrap_or(0);
            let reason = reason(&needs, &self.config);
            let updated = AllocationUpdated { shares: shares.clone(), reason };
            self.catalogue.record(vec![Record::after(updated, position)], cx.now()).await?;
            self.updates += 1;
        }
        let shares = shares.iter().map(|(config, share)| (config.to_string(), *share)).collect();
        Ok(Outcome::Done(Status { shares, updates: self.updates }))
    }
}

/// What a config's share is made of.
#[derive(Debug, Clone, Copy)]
struct Need {
    games: u64,
    /// The curriculum's, 1 = neutral.
    weight: f64,
    /// Since its last games; none = there are none yet.
    idle_ms: Option<i64>,
}

/// The whole policy: need by curriculum, starvation and staleness, with a floor for everybody.
fn split(needs: &BTreeMap<GameConfig, Need>, config: &Config) -> BTreeMap<GameConfig, f64> {
    let scores: BTreeMap<GameConfig, f64> =
        needs.iter().map(|(name, need)| (*name, score(need, config))).collect();
    let sum: f64 = scores.values().sum();
    let count = f64::from(u32::try_from(scores.len()).unwrap_or(u32::MAX));
    let floor = config.floor.clamp(0.0, 1.0) / count.max(1.0);
    // What the floors leave is split by score, so the shares still sum to 1.
    let rest = 1.0 - floor * count;
    scores.into_iter().map(|(name, score)| (name, floor + rest * score / sum)).collect()
}

fn score(need: &Need, config: &Config) -> f64 {
    let starving = if need.games < config.starving_below / 10 {
        3.0
    } else if need.games < config.starving_below {
        2.0
    } else {
        1.0
    };
    let stale_ms = i64::try_from(config.stale_after.as_millis()).unwrap_or(i64::MAX);
    let stale = if need.idle_ms.is_some_and(|idle| idle > stale_ms) { 2.0 } else { 1.0 };
    need.weight.clamp(0.5, 2.0) * starving * stale
}

fn moved(
    before: &BTreeMap<GameConfig, f64>,
    after: &BTreeMap<GameConfig, f64>,
    margin: f64,
) -> bool {
    before.len() != after.len()
        || after.iter().any(|(config, share)| {
            before.get(config).is_none_or(|before| (before - share).abs() > margin)
        })
}

fn reason(needs: &BTreeMap<GameConfig, Need>, config: &Config) -> String {
    let parts: Vec<String> = needs
        .iter()
        .map(|(name, need)| {
            format!(
                "{name}: {} games, weight {:.2}, need {:.2}",
                need.games,
                need.weight,
                score(need, config)
            )
        })
        .collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bed, done, hex, square, stops_in_mid_cycle};

    fn check(hex_need: (u64, f64, Option<i64>), square_need: (u64, f64, Option<i64>), share: f64) {
        let need = |(games, weight, idle_ms)| Need { games, weight, idle_ms };
        let needs = [(hex(), need(hex_need)), (square(), need(square_need))].into();
        let shares = split(&needs, &Config::default());
        assert!((shares[&hex()] - share).abs() < 1e-9, "{shares:?}");
        assert!((shares.values().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
    }

    #[test]
    fn shares_follow_need_above_a_floor() {
        let calm = (1000, 1.0, Some(0));
        check(calm, calm, 0.5);
        // An eighth each is the floor; the other three quarters go by need.
        check((1000, 2.0, Some(0)), calm, 0.125 + 0.75 * 2.0 / 3.0);
        check((0, 1.0, None), calm, 0.125 + 0.75 * 3.0 / 4.0);
        check((100, 1.0, Some(0)), calm, 0.125 + 0.75 * 2.0 / 3.0);
        check((1000, 1.0, Some(3_600_000)), calm, 0.125 + 0.75 * 2.0 / 3.0);
        // Weights beyond their range are cut.
        check((1000, 100.0, Some(0)), calm, 0.125 + 0.75 * 2.0 / 3.0);
    }

    #[tokio::test]
    async fn a_second_cycle_finds_nothing_to_do() {
        let bed = Bed::with(vec![hex(), square()]).await;
        let ports = (bed.catalogue_of::<SelfplayCoordinator>(), bed.the_loop.clone());
        let mut daemon = SelfplayCoordinator::new(Config::default(), ports);
        let (cx, _probe) = bed.cx::<SelfplayCoordinator>();
        assert_eq!(done(daemon.cycle(&cx).await).updates, 1);
        assert_eq!(done(daemon.cycle(&cx).await).updates, 1);
        bed.batch(hex(), &["a"; 40]).await;
        assert_eq!(done(daemon.cycle(&cx).await).updates, 2, "one config is less hungry now");
        let shares = bed.catalogue.allocation().await.unwrap();
        assert!(shares[0].share < shares[1].share, "{shares:?}");
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        let ports = (bed.catalogue_of::<SelfplayCoordinator>(), bed.the_loop.clone());
        stops_in_mid_cycle(&bed, SelfplayCoordinator::new(Config::default(), ports)).await;
    }
}
