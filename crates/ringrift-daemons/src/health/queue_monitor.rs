//! `QUEUE_MONITOR`: measures what waits between the steps of the loop, and brakes who makes more of it.
//!
//! Reads   batches that wait to be replayed or exported, candidates that wait for a match or a verdict, rows
//!         that wait for a training; in a cluster artefacts that wait for a second copy.
//! Writes  the answer of its gate per config, when its level changes; an alarm per queue that is full.
//! Never   brakes what empties a queue: only `QUEUE_POPULATOR` heeds it, which asks for fewer games or none.
//!
//! It measures by itself, so no queue keeps a level whose reporter died; and its brake is heeded for some
//! minutes only, so a monitor that died brakes nobody. Games on a node that is not heard of do not count:
//! nobody can take them in; nor do those of one with a slow line, which plays no more by itself. Candidates, rows
//! and copies brake nobody here: `TRAINING_TRIGGER` makes no candidate while another waits, `QUEUE_POPULATOR` counts
//! rows itself, and a node holds itself back while its line is behind. Items of work are `WORK_QUEUE_MONITOR`'s affair.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use ringrift_pipeline::{Catalogue, Config as GameConfig, CopyCounts, Gate, NodeId, NodeRow};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Backlog, COORDINATOR_FULL, Emits, Level, Loop, Topics,
    alarms::Alarms,
    at_hand::{behind, unchecked},
    cycle::{EVENT_ROUTER, settled, tell},
    sync::whereabouts::{ABSENCE, Counted, ENOUGH, others},
};

/// The trend is that against the mean of what was measured between so long ago ...
const TREND_FROM: Duration = Duration::from_mins(10);
/// ... and so long ago. Source: cluster contract, `QUEUE_MONITOR`.
const TREND_TO: Duration = Duration::from_mins(5);
/// Batches that are counted; more are "many".
const MOST_COUNTED: u32 = 5000;

/// Name of the alarm on a queue that is full.
pub(crate) fn alarm_on(queue: Queue) -> String {
    format!("queue.{}", queue.name())
}

/// What waits, per config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// Batches of games that were not replayed yet.
    Games,
    /// Batches of which no samples were made.
    Export,
    /// Rows that no training has read.
    Rows,
    /// Candidates without a gauntlet.
    Evaluation,
    /// Candidates without a verdict.
    Promotion,
    /// Artefacts that fewer than two nodes of the cluster have.
    Sync,
}

impl Queue {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Games, Self::Export, Self::Rows, Self::Evaluation, Self::Promotion, Self::Sync];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Games => "games",
            Self::Export => "export",
            Self::Rows => "rows",
            Self::Evaluation => "evaluation",
            Self::Promotion => "promotion",
            Self::Sync => "sync",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Games => "batches of games wait to be replayed",
            Self::Export => "batches wait to become samples",
            Self::Rows => "rows wait for a training",
            Self::Evaluation => "candidates wait for a gauntlet",
            Self::Promotion => "candidates wait for a verdict",
            Self::Sync => "artefacts wait for a second copy",
        }
    }

    /// Does less self-play make it shorter, and nobody else see to that?
    fn brakes(self) -> bool {
        matches!(self, Self::Games | Self::Export)
    }
}

/// `[daemons.queue_monitor]`. Of each queue: what is a lot, at which producers slow down, and what is the
/// most, at which they stop. Half of the first is where a queue should be. All per config.
///
/// Source: cluster contract, `QUEUE_MONITOR`; games there are counted one by one, here in batches of 32.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Batches of games not replayed yet that are a lot.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub games_soft: u64,
    /// Batches of games not replayed yet at which no more games are asked for.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub games_hard: u64,
    /// Batches without samples that are a lot.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub export_soft: u64,
    /// Batches without samples at which no more games are asked for.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub export_hard: u64,
    /// Rows without a training that are a lot.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub rows_soft: u64,
    /// Rows without a training that are an alarm.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub rows_hard: u64,
    /// Candidates at one step that are a lot; one at a time is made.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub candidates_soft: u64,
    /// Candidates at one step that are an alarm.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub candidates_hard: u64,
    /// Artefacts with one copy that are a lot.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub sync_soft: u64,
    /// Artefacts with one copy that are an alarm.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub sync_hard: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            games_soft: 32,
            games_hard: 160,
            export_soft: 20,
            export_hard: 100,
            // QUEUE_POPULATOR rests at 240,000.
            rows_soft: 300_000,
            rows_hard: 600_000,
            candidates_soft: 2,
            candidates_hard: 5,
            sync_soft: 100,
            sync_hard: 500,
        }
    }
}

impl Config {
    /// What is a lot, and what is the most.
    fn limits(&self, queue: Queue) -> (u64, u64) {
        match queue {
            Queue::Games => (self.games_soft, self.games_hard),
            Queue::Export => (self.export_soft, self.export_hard),
            Queue::Rows => (self.rows_soft, self.rows_hard),
            Queue::Evaluation | Queue::Promotion => (self.candidates_soft, self.candidates_hard),
            Queue::Sync => (self.sync_soft, self.sync_hard),
        }
    }
}

/// Where a queue goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trend {
    /// A tenth more than minutes ago.
    Rising,
    /// A tenth less.
    Falling,
    /// Neither, or it is not known yet.
    #[default]
    Stable,
}

/// A queue of one config.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Depth {
    /// What waits.
    pub waiting: u64,
    /// How bad that is.
    pub level: Level,
    /// Where it goes.
    pub trend: Trend,
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// By config and queue.
    pub queues: BTreeMap<String, BTreeMap<Queue, Depth>>,
    /// Configs whose self-play is braked, and how.
    pub braked: BTreeMap<String, Level>,
}

/// The daemon.
pub struct QueueMonitor {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    backlog: Backlog,
    alarms: Alarms,
    levels: BTreeMap<(GameConfig, Queue), Level>,
    history: BTreeMap<(GameConfig, Queue), VecDeque<(Instant, u64)>>,
    counted: Counted,
}

impl Emits for QueueMonitor {
    const EMITS: Topics = &[crate::alarms::EMITS, crate::cycle::EMITS];
}

impl Daemon for QueueMonitor {
    const SPEC: Spec = Spec {
        id: DaemonId("QUEUE_MONITOR"),
        about: "watches the depth of every queue",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL],
        period: Duration::from_secs(30),
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>, Backlog);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop, backlog): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            the_loop,
            backlog,
            alarms: Alarms::default(),
            levels: BTreeMap::new(),
            counted: Counted::default(),
            history: BTreeMap::new(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    async fn stop(&mut self, cx: &Cx) -> anyhow::Result<()> {
        // Who measures no more holds nobody back.
        let mut configs = self.the_loop.configs.clone();
        configs.retain(|config| self.backlog.set(*config, Level::None) != Level::None);
        for config in configs {
            let told = tell(&self.catalogue, &Gate::Allow, Self::ID, Some(config), cx.now()).await;
            match told {
                // Who leads now tells.
                Err(error) if error.is_superseded() => {}
                told => told?,
            }
        }
        Ok(())
    }

    fn health(&self, last: &Status) -> Health {
        let bad = |least: Level| -> Vec<String> {
            let of_config = |(config, queues): (&String, &BTreeMap<Queue, Depth>)| {
                let bad = queues.iter().filter(|(_, queue)| queue.level >= least);
                let told =
                    bad.map(|(queue, is)| format!("{config}: {} {}", is.waiting, queue.what()));
                told.collect::<Vec<_>>()
            };
            last.queues.iter().flat_map(of_config).collect()
        };
        let worst = bad(Level::Hard);
        if worst.is_empty() { Health::Healthy } else { Health::Degraded(worst.join("; ")) }
    }
}

impl QueueMonitor {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let (mut status, now) = (Status::default(), Instant::now());
        let mut full: BTreeMap<Queue, Vec<String>> = BTreeMap::new();
        let copies = self.copies().await?;
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            let mut depths = self.measure(config).await?;
            if self.the_loop.shared {
                depths.push((Queue::Sync, copies.get(&config).map_or(0, |copies| copies.few)));
            }
            let mut queues = BTreeMap::new();
            for (queue, depth) in depths {
                let (soft, hard) = self.config.limits(queue);
                let before = self.levels.get(&(config, queue)).copied().unwrap_or_default();
                let level = level(depth, soft, hard, before);
                self.levels.insert((config, queue), level);
                let history = self.history.entry((config, queue)).or_default();
                let trend = trend(history, depth, now);
                queues.insert(queue, Depth { waiting: depth, level, trend });
                if level == Level::Stop {
                    full.entry(queue).or_default().push(format!("{config} {depth}"));
                }
            }
            let gate = gate(&queues, &self.config);
            tell(&self.catalogue, &gate, Self::ID, Some(config), cx.now()).await?;
            let braked = brake_of(&queues);
            self.backlog.set(config, braked);
            if braked != Level::None {
                status.braked.insert(config.to_string(), braked);
            }
            status.queues.insert(config.to_string(), queues);
        }
        for queue in Queue::ALL {
            let sentence = full
                .get(&queue)
                .map(|configs| format!("too many {}: {}", queue.what(), configs.join(", ")));
            self.alarms.set(&self.catalogue, &alarm_on(queue), sentence, cx.now()).await?;
        }
        Ok(Outcome::Done(status))
    }

    /// Nodes whose games come slowly: they hold themselves back, and the others need not wait for them.
    async fn behind(&self) -> anyhow::Result<BTreeSet<NodeId>> {
        if !self.the_loop.shared {
            return Ok(BTreeSet::new());
        }
        let plays = |row: &NodeRow| {
            !row.removed
                && row.playing > 0
                && (row.node == self.the_loop.node || self.the_loop.nodes.lives(&row.node))
        };
        let players = self.catalogue.nodes().await?.into_iter().filter(plays);
        let players = players.map(|row| row.node).collect();
        Ok(behind(&unchecked(&self.catalogue, &self.the_loop).await?, &players))
    }

    /// Artefacts and their copies, by config. Where there is one node, no second one can have any.
    async fn copies(&mut self) -> anyhow::Result<BTreeMap<GameConfig, CopyCounts>> {
        let others = others(&self.catalogue, &self.the_loop).await?;
        let counted = self.counted.among(&others, &self.the_loop, ABSENCE);
        if counted.len() < 2 {
            return Ok(BTreeMap::new());
        }
        Ok(self.catalogue.count_copies(&counted, ENOUGH).await?)
    }

    /// What waits of a config between the steps of the loop.
    async fn measure(&self, config: GameConfig) -> anyhow::Result<Vec<(Queue, u64)>> {
        let unchecked = self.catalogue.unchecked_by_node(config).await?;
        let within_reach = |node: &Option<NodeId>| match node {
            Some(node) if self.the_loop.shared && *node != self.the_loop.node => {
                self.the_loop.nodes.lives(node)
            }
            _ => true,
        };
        let behind = self.behind().await?;
        let games = unchecked.into_iter().filter(|(node, _)| {
            within_reach(node) && !node.as_ref().is_some_and(|node| behind.contains(node))
        });
        let export = self.catalogue.unexported(config, MOST_COUNTED).await?.len() as u64;
        let rows = self.catalogue.unused_rows(config).await?;
        let candidates = self.catalogue.candidates(config).await?;
        let matched = candidates.iter().filter(|model| model.evaluation.is_some()).count() as u64;
        Ok(vec![
            (Queue::Games, games.map(|(_, batches)| batches).sum()),
            (Queue::Export, export),
            (Queue::Rows, rows),
            (Queue::Evaluation, candidates.len() as u64 - matched),
            (Queue::Promotion, matched),
        ])
    }
}

/// How bad a depth is. A queue that was bad is so until it is well below, or its brake would flutter.
fn level(depth: u64, soft: u64, hard: u64, before: Level) -> Level {
    let now = if depth >= hard {
        Level::Stop
    } else if depth >= hard.saturating_mul(9) / 10 {
        Level::Hard
    } else if depth >= soft {
        Level::Soft
    } else {
        Level::None
    };
    match before {
        Level::Stop if depth > soft => now.max(Level::Hard),
        bad if bad > Level::None && depth > soft / 2 => now.max(Level::Soft),
        _ => now,
    }
}

/// Takes note of a depth, and tells where the queue goes.
fn trend(history: &mut VecDeque<(Instant, u64)>, depth: u64, now: Instant) -> Trend {
    let age = |at: Instant| now.saturating_duration_since(at);
    while history.front().is_some_and(|(at, _)| age(*at) > TREND_FROM) {
        history.pop_front();
    }
    let then: Vec<u64> =
        history.iter().filter(|(at, _)| age(*at) >= TREND_TO).map(|(_, depth)| *depth).collect();
    history.push_back((now, depth));
    let (sum, count) = (then.iter().sum::<u64>(), then.len() as u64);
    // By whole numbers: the mean times ten, against eleven and nine times the mean.
    match depth.saturating_mul(10).saturating_mul(count) {
        _ if count == 0 => Trend::Stable,
        now if now > sum.saturating_mul(11) => Trend::Rising,
        now if now < sum.saturating_mul(9) => Trend::Falling,
        _ => Trend::Stable,
    }
}

/// The level that brakes self-play.
fn brake_of(queues: &BTreeMap<Queue, Depth>) -> Level {
    let brakes = queues.iter().filter(|(queue, _)| queue.brakes());
    brakes.map(|(_, depth)| depth.level).max().unwrap_or_default()
}

/// What people are told of the brake.
fn gate(queues: &BTreeMap<Queue, Depth>, config: &Config) -> Gate {
    let brakes = queues.iter().filter(|(queue, _)| queue.brakes());
    let Some((queue, depth)) = brakes.max_by_key(|(_, depth)| depth.level) else {
        return Gate::Allow;
    };
    let (soft, hard) = config.limits(*queue);
    let (code, asked) = match depth.level {
        Level::None => return Gate::Allow,
        Level::Soft => ("soft", "half of the games are asked for"),
        Level::Hard => ("hard", "a tenth of the games is asked for"),
        Level::Stop => ("stop", "no games are asked for"),
    };
    Gate::deny(
        code,
        format!(
            "{} {}, {soft} are a lot and {hard} the most: {asked}",
            depth.waiting,
            queue.what()
        ),
        format!("{} or fewer of them", soft / 2),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        alarms::alarm_of,
        testbed::{Bed, done, hex, stops_in_mid_cycle},
    };

    #[test]
    fn levels_follow_the_depth_up_at_once_and_down_with_delay() {
        use Level::{Hard, None, Soft, Stop};
        for (depth, before, expected) in [
            (9, None, None),
            (10, None, Soft),
            (44, None, Soft),
            (45, None, Hard),
            (50, None, Stop),
            (50, Soft, Stop),
            (44, Hard, Soft),
            (9, Soft, Soft),
            (6, Soft, Soft),
            (5, Soft, None),
            (11, Stop, Hard),
            (10, Stop, Soft),
            (5, Stop, None),
        ] {
            assert_eq!(level(depth, 10, 50, before), expected, "{depth} after {before:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trend_is_against_the_mean_of_five_to_ten_minutes_ago() {
        let mut history = VecDeque::new();
        let mut at = async |depth: u64, minutes: u64| {
            tokio::time::advance(Duration::from_mins(minutes)).await;
            trend(&mut history, depth, Instant::now())
        };
        assert_eq!(at(100, 0).await, Trend::Stable);
        assert_eq!(at(900, 4).await, Trend::Stable, "nothing is known of five minutes ago");
        assert_eq!(at(110, 1).await, Trend::Stable);
        assert_eq!(at(111, 0).await, Trend::Rising);
        assert_eq!(at(89, 0).await, Trend::Falling);
        // The first is forgotten; 900, 110, 111 and 89 are left.
        assert_eq!(at(302, 6).await, Trend::Stable);
    }

    fn monitor(bed: &Bed) -> QueueMonitor {
        let config = Config { games_soft: 2, games_hard: 4, ..Config::default() };
        let backlog = Backlog::default();
        let ports = (bed.catalogue_of::<QueueMonitor>(), bed.the_loop.clone(), backlog);
        QueueMonitor::new(config, ports)
    }

    #[tokio::test]
    async fn what_lacks_a_second_copy_is_told_where_there_is_a_second_node_and_brakes_nobody() {
        let bed = Bed::new().await;
        let [one, two] = [bed.named_only("one").await, bed.named_only("two").await];
        bed.held("here", &[&one, &two]).await;
        let mut daemon = monitor(&bed);
        daemon.config = Config { sync_hard: 2, ..Config::default() };
        let (cx, _probe) = bed.cx::<QueueMonitor>();
        let status = done(daemon.cycle(&cx).await);
        assert!(!status.queues["hex8_2p"].contains_key(&Queue::Sync), "one machine");
        daemon.the_loop = bed.shared();
        let waiting = |status: &Status| status.queues["hex8_2p"][&Queue::Sync].waiting;
        assert_eq!(waiting(&done(daemon.cycle(&cx).await)), 0, "one node");
        bed.joined(&["there"]).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((waiting(&status), status.braked.len()), (2, 0));
        let full = "hex8_2p: 2 artefacts wait for a second copy";
        assert_eq!(daemon.health(&status), Health::Degraded(full.into()));
        assert!(alarm_of(&bed.catalogue, "queue.sync").await.unwrap().is_some());
        bed.held("there", &[&one, &two]).await;
        assert_eq!(waiting(&done(daemon.cycle(&cx).await)), 0);
        assert_eq!(alarm_of(&bed.catalogue, "queue.sync").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_full_queue_brakes_is_told_and_lets_go_when_it_is_empty() {
        let bed = Bed::new().await;
        let mut daemon = monitor(&bed);
        let (cx, _probe) = bed.cx::<QueueMonitor>();
        let told = async || bed.catalogue.log().head(courier::Stream::Operational).await.unwrap();
        let gate = async || {
            let gate = bed.catalogue.gate("QUEUE_MONITOR", Some(hex())).await.unwrap();
            gate.map(|(gate, _)| gate.code)
        };
        let mut batches = vec![bed.batch(hex(), &["a"]).await];
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.queues["hex8_2p"][&Queue::Games].waiting, 1);
        assert_eq!((gate().await.as_deref(), told().await), (Some("open"), 1));
        batches.push(bed.batch(hex(), &["b"]).await);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.braked["hex8_2p"], Level::Soft);
        assert_eq!(daemon.health(&status), Health::Healthy);
        for name in ["c", "d"] {
            batches.push(bed.batch(hex(), &[name]).await);
        }
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.backlog.level(hex()), Level::Stop);
        let full = "hex8_2p: 4 batches of games wait to be replayed";
        assert_eq!(daemon.health(&status), Health::Degraded(full.into()));
        let (sentence, _) = alarm_of(&bed.catalogue, "queue.games").await.unwrap().unwrap();
        assert_eq!(sentence, "too many batches of games wait to be replayed: hex8_2p 4");
        assert_eq!((gate().await.as_deref(), told().await), (Some("stop"), 4));
        done(daemon.cycle(&cx).await);
        assert_eq!(told().await, 4, "a second cycle tells nothing");

        for batch in batches {
            let reason = "test".to_owned();
            let rejected = ringrift_pipeline::BatchRejected { batch, config: hex(), reason };
            bed.record(vec![rejected.into()]).await;
        }
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.braked.len(), daemon.backlog.level(hex())), (0, Level::None));
        assert_eq!(gate().await.as_deref(), Some("open"));
        assert_eq!(alarm_of(&bed.catalogue, "queue.games").await.unwrap(), None);
    }

    #[tokio::test]
    async fn who_stops_lets_go() {
        let bed = Bed::new().await;
        let mut daemon = monitor(&bed);
        let (cx, _probe) = bed.cx::<QueueMonitor>();
        bed.batch(hex(), &["a"]).await;
        bed.batch(hex(), &["b"]).await;
        done(daemon.cycle(&cx).await);
        assert_eq!(daemon.backlog.level(hex()), Level::Soft);
        daemon.stop(&cx).await.unwrap();
        assert_eq!(daemon.backlog.level(hex()), Level::None);
        let (gate, _) = bed.catalogue.gate("QUEUE_MONITOR", Some(hex())).await.unwrap().unwrap();
        assert!(gate.open);

        // Also if another one leads already: he tells.
        done(daemon.cycle(&cx).await);
        assert_eq!(daemon.backlog.level(hex()), Level::Soft);
        daemon.catalogue = bed.next_epoch().await;
        bed.next_epoch().await;
        daemon.stop(&cx).await.unwrap();
        assert_eq!(daemon.backlog.level(hex()), Level::None);
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        bed.batch(hex(), &["a"]).await;
        let daemon = monitor(&bed);
        stops_in_mid_cycle(&bed, daemon).await;
    }
}
