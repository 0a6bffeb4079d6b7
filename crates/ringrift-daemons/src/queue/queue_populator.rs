//! `QUEUE_POPULATOR`: keeps a few self-play items queued for each config that needs games.
//!
//! Reads   shares of self-play, parameters, champions, rows that no training has read yet.
//! Writes  `work.queued` for self-play.
//! Never   queues trainings or gauntlets: their items belong to who knows when they are due.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{
    AllocationUpdated, Catalogue, Config as GameConfig, Gate, Job, ModelDistributed, ModelRef,
    ModelStatus, ParametersSet, Record, SelfplayJob, Topic as _, TrainingCompleted, WorkClaimed,
    WorkCompleted, WorkKind, WorkQueued, WorkState,
};
use serde::{Deserialize, Serialize};
use warden::{Cx, Daemon, DaemonId, Outcome, Priority, Spec};

use crate::{
    Backlog, COORDINATOR_FULL, Emits, Level, Loop, Pressure, STANDALONE, Topics, Workshop,
    cycle::{EVENT_ROUTER, brake, denied, first_closed, rest_after_deaths, seed, settled, tell},
    on,
    pipeline::{
        selfplay_coordinator::SelfplayCoordinator,
        training_trigger::{NEEDS_ROWS, TrainingTrigger},
    },
};

/// `[daemons.queue_populator]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Items that wait, per worker slot: enough that no core is ever idle, few enough that a new
    /// champion plays at once.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub waiting_per_slot: usize,
    /// Games of one item. Small, so that every core is soon free for what is due.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub games_per_item: u32,
    /// Share of decisions searched in full, 0..=1; only these give policy targets.
    #[serde(deserialize_with = "crate::ranges::some_share")]
    pub full_share: f32,
    /// Simulations of the other decisions, as a share of a full search.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub fast_share: f32,
    /// Decisions of a game whose move is drawn by temperature.
    pub temperature_moves: u32,
    /// Former champions, the newest, that the champion meets in self-play.
    pub opponents: usize,
    /// Share of games with one of them at the table.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub opponent_share: f32,
    /// Rows that no training has read, above which a config's self-play rests while no training
    /// waits for rows. Older rows would only leave the window unseen.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_unused_rows: u64,
    /// Most items that one cycle queues.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_queued_per_cycle: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            waiting_per_slot: 1,
            games_per_item: 32,
            full_share: 0.5,
            fast_share: 0.25,
            temperature_moves: 12,
            // Source: spec/learning.md section 4.1, 10 to 20 % of the games against the pool.
            opponents: 3,
            opponent_share: 0.1,
            max_unused_rows: 240_000,
            max_queued_per_cycle: 32,
        }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Self-play items that wait now.
    pub waiting: usize,
    /// How many should wait.
    pub wanted: usize,
    /// Items queued since the daemon started.
    pub queued: u64,
    /// Configs that rest, and why.
    pub resting: BTreeMap<String, String>,
}

/// The daemon.
pub struct QueuePopulator {
    config: Config,
    catalogue: Catalogue,
    workshop: Workshop,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    backlog: Backlog,
    queued: u64,
}

impl Emits for QueuePopulator {
    const EMITS: Topics = &[&[WorkQueued::TOPIC], crate::cycle::EMITS];
}

impl Daemon for QueuePopulator {
    const SPEC: Spec = Spec {
        id: DaemonId("QUEUE_POPULATOR"),
        about: "keeps self-play items queued",
        priority: Priority::Critical,
        needs: &[EVENT_ROUTER, SelfplayCoordinator::ID],
        profiles: &[COORDINATOR_FULL, STANDALONE],
        period: Duration::from_secs(10),
        wakes_on: &[
            on::<WorkClaimed>(),
            on::<WorkCompleted>(),
            on::<AllocationUpdated>(),
            on::<ModelDistributed>(),
            on::<ParametersSet>(),
            on::<TrainingCompleted>(),
        ],
        critical: true,
        health_interval: Some(Duration::from_mins(2)),
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Workshop, Arc<Loop>, Pressure, Backlog);
    type Status = Status;

    fn new(
        config: Config,
        (catalogue, workshop, the_loop, pressure, backlog): Self::Ports,
    ) -> Self {
        Self { config, catalogue, workshop, the_loop, pressure, backlog, queued: 0 }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }
}

impl QueuePopulator {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let open = self.catalogue.open_works().await?;
        let mut waiting = open
            .iter()
            .filter(|item| item.kind == WorkKind::Selfplay && item.state == WorkState::Queued)
            .filter(|item| self.the_loop.configs.contains(&item.config))
            .count();
        let mut status = Status {
            waiting,
            wanted: self.slots().await? * self.config.waiting_per_slot,
            queued: self.queued,
            resting: BTreeMap::new(),
        };
        let brake = brake(&self.pressure);
        tell(&self.catalogue, &brake, Self::ID, None, cx.now()).await?;
        if !brake.is_open() {
            return Ok(denied(&brake, status));
        }
        let shares: BTreeMap<GameConfig, f64> =
            self.catalogue.allocation().await?.iter().map(|row| (row.config, row.share)).collect();
        let (mut eligible, mut full) = (BTreeMap::new(), 0.0);
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            let Some(model) = self.player(config).await? else { continue };
            let gate = self.gate(config, cx.now()).await?;
            tell(&self.catalogue, &gate, Self::ID, Some(config), cx.now()).await?;
            match gate {
                Gate::Allow => {
                    let share = shares.get(&config).copied().unwrap_or(1.0);
                    full += share;
                    eligible.insert(config, (share * self.backlog.level(config).share(), model));
                }
                Gate::Deny { reason, .. } => {
                    status.resting.insert(config.to_string(), reason);
                }
            }
        }
        let weights: BTreeMap<GameConfig, f64> =
            eligible.iter().map(|(config, (share, _))| (*config, *share)).collect();
        status.wanted = braked(status.wanted, weights.values().sum(), full);
        let mut recent = self.catalogue.recent_configs(WorkKind::Selfplay, REMEMBERED).await?;
        for _ in 0..self.config.max_queued_per_cycle {
            if waiting >= status.wanted {
                break;
            }
            let Some(config) = most_behind(&weights, &recent) else { break };
            cx.beat()?;
            self.queue(config, &eligible[&config].1, weights[&config], cx).await?;
            recent.insert(0, config);
            waiting += 1;
            self.queued += 1;
        }
        status.waiting = waiting;
        status.queued = self.queued;
        Ok(Outcome::Done(status))
    }

    /// Workers that may play: here, or on all nodes of a cluster.
    async fn slots(&self) -> anyhow::Result<usize> {
        if !self.the_loop.shared {
            return Ok(self.workshop.slots());
        }
        let mut nodes = self.catalogue.nodes().await?;
        nodes.retain(|row| row.node == self.the_loop.node || self.the_loop.nodes.lives(&row.node));
        nodes.retain(|row| !row.draining && !row.removed);
        Ok(nodes.iter().map(|row| usize::try_from(row.playing).unwrap_or(usize::MAX)).sum())
    }

    /// The model that plays; none before one was handed out.
    async fn player(&self, config: GameConfig) -> anyhow::Result<Option<ModelRef>> {
        let handed = self.catalogue.distribution(config, &self.the_loop.node).await?;
        Ok(handed.map(|row| row.model))
    }

    /// Whom the player meets besides itself, newest first.
    async fn former_champions(
        &self,
        config: GameConfig,
        player: &ModelRef,
    ) -> anyhow::Result<Vec<ModelRef>> {
        let models = self.catalogue.models(Some(config)).await?;
        let former = models
            .into_iter()
            .filter(|row| row.status == ModelStatus::Former && row.id != player.id)
            .map(|row| ModelRef { id: row.id, weights: row.weights });
        Ok(former.take(self.config.opponents).collect())
    }

    async fn gate(&self, config: GameConfig, now_ms: i64) -> anyhow::Result<Gate> {
        let (deaths, last_ms) = self.catalogue.deaths_in_a_row(WorkKind::Selfplay, config).await?;
        let unused = self.catalogue.unused_rows(config).await?;
        let training = self.catalogue.gate(TrainingTrigger::ID.0, Some(config)).await?;
        let starved = training.is_some_and(|(gate, _)| !gate.open && gate.code == NEEDS_ROWS);
        Ok(first_closed([
            rest_after_deaths(WorkKind::Selfplay, deaths, last_ms, now_ms),
            enough_rows(unused, starved, self.config.max_unused_rows),
            keeps_up(self.backlog.level(config)),
        ]))
    }

    async fn queue(
        &self,
        config: GameConfig,
        model: &ModelRef,
        share: f64,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        let parameters = self.catalogue.parameters_or_default(config).await?;
        let work = self.catalogue.next_work(WorkKind::Selfplay, config).await?;
        let job = SelfplayJob {
            model: model.clone(),
            opponents: self.former_champions(config, model).await?,
            opponent_share: self.config.opponent_share,
            games: self.config.games_per_item,
            simulations: parameters.simulations,
            fast_simulations: fast(parameters.simulations, self.config.fast_share),
            full_share: self.config.full_share,
            opening_moves: parameters.opening_moves,
            temperature_moves: self.config.temperature_moves,
            temperature: parameters.temperature,
            seed: seed(self.the_loop.seed, work.as_str()),
        };
        let reason = format!("its share of self-play is {:.0} %", share * 100.0);
        let queued = WorkQueued { work, config, job: Job::Selfplay(job), reason };
        self.catalogue.record(vec![Record::first(queued)], cx.now()).await?;
        Ok(())
    }
}

/// Items that the split by shares looks back on.
const REMEMBERED: u32 = 20;

/// Back-pressure: no more games while the rows that wait cannot be used.
fn enough_rows(unused: u64, starved: bool, most: u64) -> Gate {
    if starved || unused < most {
        return Gate::Allow;
    }
    Gate::deny(
        "ahead",
        format!("{unused} rows wait for a training, {most} are enough"),
        "a training that reads them",
    )
}

/// Back-pressure of what comes after self-play: `QUEUE_MONITOR` says how far that is behind.
fn keeps_up(level: Level) -> Gate {
    if level < Level::Stop {
        return Gate::Allow;
    }
    Gate::deny(
        "backlog",
        "too many games wait to be replayed or exported",
        "that fewer wait; QUEUE_MONITOR counts them",
    )
}

/// How many items should wait when configs are braked to `shares` of `full`; one, unless all stand still.
fn braked(wanted: usize, shares: f64, full: f64) -> usize {
    if shares >= full {
        return wanted;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "some thousand items at most"
    )]
    let braked = (wanted as f64 * shares / full).ceil() as usize;
    braked
}

/// The config whose share of the recent items is furthest below its share of the whole; none if
/// there is no candidate.
fn most_behind(shares: &BTreeMap<GameConfig, f64>, recent: &[GameConfig]) -> Option<GameConfig> {
    let sum: f64 = shares.values().sum();
    let counted = recent.iter().filter(|config| shares.contains_key(config)).count();
    let length = f64::from(u32::try_from(counted).unwrap_or(u32::MAX)).max(1.0);
    shares
        .iter()
        .map(|(config, share)| {
            let had = recent.iter().filter(|other| *other == config).count();
            let had = f64::from(u32::try_from(had).unwrap_or(u32::MAX)) / length;
            (*config, share / sum.max(f64::MIN_POSITIVE) - had)
        })
        // The first of equals, so that the choice does not depend on chance.
        .fold(None, |best: Option<(GameConfig, f64)>, one| match best {
            Some(best) if best.1 >= one.1 => Some(best),
            _ => Some(one),
        })
        .map(|(config, _)| config)
}

/// Simulations of a fast search.
fn fast(full: u32, share: f32) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "simulations are small and positive"
    )]
    let fast = (full as f32 * share).round() as u32;
    fast.clamp(1, full.max(1))
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{ModelPromoted, WorkFailed};

    use super::*;
    use crate::{
        Obstacle,
        testbed::{Bed, blocked, done, evaluated, hex, square, stops_in_mid_cycle},
    };

    fn daemon(bed: &Bed, config: Config) -> QueuePopulator {
        let shop = bed.workshop("honest");
        let ports = (
            bed.catalogue_of::<QueuePopulator>(),
            shop,
            bed.the_loop.clone(),
            bed.pressure.clone(),
            Backlog::default(),
        );
        QueuePopulator::new(config, ports)
    }

    #[test]
    fn who_is_furthest_behind_its_share_is_next() {
        let check = |shares: &[(GameConfig, f64)], recent: &[GameConfig], expected| {
            assert_eq!(most_behind(&shares.iter().copied().collect(), recent), expected);
        };
        let even = [(hex(), 0.5), (square(), 0.5)];
        check(&[], &[], None);
        check(&even, &[], Some(square()));
        check(&even, &[hex()], Some(square()));
        check(&even, &[square()], Some(hex()));
        check(&[(hex(), 0.75), (square(), 0.25)], &[hex(), square()], Some(hex()));
        check(&[(hex(), 0.75), (square(), 0.25)], &[hex(), hex(), hex()], Some(square()));
        check(&[(hex(), 1.0)], &[hex(), hex()], Some(hex()));
    }

    #[test]
    fn self_play_rests_when_its_rows_cannot_be_used() {
        assert!(enough_rows(99, false, 100).is_open());
        assert!(!enough_rows(100, false, 100).is_open());
        assert!(enough_rows(100, true, 100).is_open(), "a training waits for rows");
    }

    #[test]
    fn back_pressure_halves_tenths_and_stops() {
        let check = |levels: &[Level], expected: usize| {
            let shares: f64 = levels.iter().map(|level| level.share()).sum();
            let full = f64::from(u32::try_from(levels.len()).unwrap());
            assert_eq!(braked(20, shares, full), expected, "{levels:?}");
        };
        check(&[Level::None, Level::None], 20);
        check(&[Level::Soft], 10);
        check(&[Level::Hard], 2);
        check(&[Level::None, Level::Soft], 15);
        check(&[Level::Stop], 0);
        assert_eq!(braked(2, 0.1, 1.0), 1, "never quite nothing");
        assert!(keeps_up(Level::Hard).is_open() && !keeps_up(Level::Stop).is_open());
    }

    #[tokio::test]
    async fn a_backlog_stops_a_config_until_it_is_gone_or_nobody_measures_it() {
        let bed = Bed::with(vec![hex(), square()]).await;
        bed.champion(hex()).await;
        bed.champion(square()).await;
        let mut daemon = daemon(&bed, Config { waiting_per_slot: 2, ..Config::default() });
        let (cx, _probe) = bed.cx::<QueuePopulator>();
        daemon.backlog.set(hex(), Level::Stop);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.queued, 4);
        assert_eq!(status.resting["hex8_2p"], "too many games wait to be replayed or exported");
        let open = bed.catalogue.open_works().await.unwrap();
        assert!(open.iter().all(|item| item.config == square()), "{open:?}");
        tokio::time::pause();
        tokio::time::advance(Duration::from_mins(3)).await;
        tokio::time::resume();
        assert_eq!(done(daemon.cycle(&cx).await).resting.len(), 0);
    }

    #[test]
    fn a_fast_search_has_at_least_one_simulation() {
        assert_eq!(fast(32, 0.25), 8);
        assert_eq!(fast(1, 0.25), 1);
        assert_eq!(fast(8, 2.0), 8);
    }

    #[tokio::test]
    async fn a_second_cycle_finds_nothing_to_do() {
        let bed = Bed::with(vec![hex(), square()]).await;
        let mut daemon = daemon(&bed, Config { waiting_per_slot: 2, ..Config::default() });
        let (cx, _probe) = bed.cx::<QueuePopulator>();
        assert_eq!(done(daemon.cycle(&cx).await).queued, 0, "nobody can play yet");
        bed.champion(hex()).await;
        bed.champion(square()).await;
        assert_eq!(done(daemon.cycle(&cx).await).queued, 4);
        assert_eq!(done(daemon.cycle(&cx).await).queued, 4);
        let open = bed.catalogue.open_works().await.unwrap();
        let of = |config| open.iter().filter(|item| item.config == config).count();
        assert_eq!((of(hex()), of(square())), (2, 2));
        let seeds: std::collections::BTreeSet<u64> = open
            .iter()
            .map(|item| match &item.job {
                Job::Selfplay(job) => job.seed,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seeds.len(), 4, "no two items play the same games");
    }

    #[tokio::test]
    async fn a_champion_meets_the_one_before_it_and_never_itself() {
        let bed = Bed::new().await;
        let former = bed.champion(hex()).await;
        let mut daemon = daemon(&bed, Config { opponent_share: 0.2, ..Config::default() });
        let (cx, _probe) = bed.cx::<QueuePopulator>();
        done(daemon.cycle(&cx).await);
        let model = evaluated(&bed, hex(), 1, 0, 90.0).await;
        let weights = bed.catalogue.model(&model).await.unwrap().unwrap().weights;
        let promoted = ModelPromoted {
            model: model.clone(),
            config: hex(),
            over: former.clone(),
            elo: 90.0,
            elo_low: 0.0,
            elo_high: 0.0,
            games: 100,
        };
        let node = bed.the_loop.node.clone();
        let handed = ModelDistributed { model, config: hex(), weights, node };
        bed.record(vec![promoted.into(), handed.into()]).await;
        for item in bed.catalogue.open_works().await.unwrap() {
            let failed = WorkFailed { work: item.id, attempt: 3, error: "no".into(), last: true };
            bed.record(vec![failed.into()]).await;
        }
        bed.pass_time(Duration::from_mins(5));
        done(daemon.cycle(&cx).await);
        let open = bed.catalogue.open_works().await.unwrap();
        assert!(!open.is_empty());
        for item in open {
            let Job::Selfplay(job) = &item.job else { panic!("{item:?}") };
            let opponents: Vec<_> = job.opponents.iter().map(|other| other.id.clone()).collect();
            assert_eq!((opponents, job.opponent_share), (vec![former.clone()], 0.2));
            assert_eq!(item.job.inputs().len(), 2, "the worker is handed both networks");
        }
    }

    #[tokio::test]
    async fn the_leader_hears_of_a_training_host_that_lacks_rows() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        bed.batch(hex(), &["a", "b"]).await;
        let there = bed.catalogue_of::<TrainingTrigger>();
        let there = there.of_node(Some(ringrift_pipeline::NodeId("there".into())));
        let (blobs, shop) = (bed.blobs.clone(), bed.workshop("honest"));
        let ports = (there, blobs, shop, bed.the_loop.clone(), bed.pressure.clone());
        let config = crate::pipeline::training_trigger::Config::default();
        let mut trigger = TrainingTrigger::new(config, ports);
        let (cx, _probe) = bed.cx::<TrainingTrigger>();
        done(trigger.cycle(&cx).await);
        // Ahead by its own count, but the rows that wait are none that a training waits for.
        let mut daemon = daemon(&bed, Config { max_unused_rows: 60, ..Config::default() });
        let (cx, _probe) = bed.cx::<QueuePopulator>();
        assert!(done(daemon.cycle(&cx).await).queued > 0);
    }

    #[tokio::test]
    async fn a_config_that_is_ahead_rests_with_a_stored_sentence() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        bed.batch(hex(), &["a", "b"]).await;
        let mut daemon = daemon(&bed, Config { max_unused_rows: 60, ..Config::default() });
        let (cx, _probe) = bed.cx::<QueuePopulator>();
        assert_eq!(done(daemon.cycle(&cx).await).queued, 0);
        let (gate, _) = bed.catalogue.gate("QUEUE_POPULATOR", Some(hex())).await.unwrap().unwrap();
        assert_eq!(gate.code, "ahead");
        assert_eq!(gate.reason, "60 rows wait for a training, 60 are enough");
        // A training that waits for rows is the one reason to go on.
        let needs = Gate::deny(NEEDS_ROWS, "60 of 100 rows", "more games");
        tell(&bed.catalogue, &needs, TrainingTrigger::ID, Some(hex()), 1).await.unwrap();
        assert_eq!(done(daemon.cycle(&cx).await).queued, 2);
    }

    #[tokio::test]
    async fn broken_workers_are_not_fed_at_once() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let mut daemon = daemon(&bed, Config::default());
        let (cx, _probe) = bed.cx::<QueuePopulator>();
        done(daemon.cycle(&cx).await);
        for item in bed.catalogue.open_works().await.unwrap() {
            let failed = WorkFailed { work: item.id, attempt: 3, error: "no".into(), last: true };
            bed.record(vec![failed.into()]).await;
        }
        assert_eq!(done(daemon.cycle(&cx).await).queued, 2);
        bed.pass_time(Duration::from_mins(2));
        assert_eq!(done(daemon.cycle(&cx).await).queued, 4);
    }

    #[tokio::test]
    async fn an_obstacle_is_degraded_and_nothing_is_queued() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let mut daemon = daemon(&bed, Config::default());
        let (cx, _probe) = bed.cx::<QueuePopulator>();
        let obstacle = Obstacle { reason: "1 GiB is free".into(), needs: "2 GiB".into() };
        bed.pressure.set(DaemonId("DISK"), Some(obstacle));
        assert_eq!(blocked(daemon.cycle(&cx).await), "1 GiB is free; needs 2 GiB");
        assert!(bed.catalogue.open_works().await.unwrap().is_empty());
        bed.pressure.set(DaemonId("DISK"), None);
        assert_eq!(done(daemon.cycle(&cx).await).queued, 2);
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let daemon = daemon(&bed, Config::default());
        stops_in_mid_cycle(&bed, daemon).await;
    }
}
