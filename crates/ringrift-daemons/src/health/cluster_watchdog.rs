//! `CLUSTER_WATCHDOG`: finds nodes that could play and have nothing in hand, and says why.
//!
//! Reads   the members whose leases move, items in hand and queued, models handed out, the gates of each node.
//! Writes  an alarm for a node that stays idle although it could work; wakes `QUEUE_POPULATOR` when nothing is
//!         queued.
//! Never   starts work on a node: each claims what it can by itself. Takes a node that cannot be seen for idle.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ringrift_pipeline::{
    Catalogue, Config as GameConfig, NodeId, NodeRow, WorkKind, WorkRow, WorkState,
};
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Bell, COORDINATOR_FULL, Emits, Loop, Sight, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    health::cluster_monitor::ClusterMonitor,
    nodes::LIVES,
    queue::queue_populator::QueuePopulator,
    resource::idle_resource::IdleResource,
};

/// `[daemons.cluster_watchdog]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Looks in a row at which a node has nothing in hand before people are told: between two items it has
    /// nothing either.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_failures: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_failures: 3 }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Why there is nothing to look at.
    pub none: Option<&'static str>,
    /// Nodes that may play and whose leases move.
    pub players: usize,
    /// Those of them with nothing in hand, and why.
    pub idle: BTreeMap<String, String>,
    /// Those that stay so.
    pub alarming: BTreeSet<String>,
    /// Items of self-play that wait.
    pub queued: usize,
    /// How often the queue was asked to be filled since the daemon started.
    pub asked: u64,
}

/// The daemon.
pub struct ClusterWatchdog {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    bell: Bell,
    alarms: Alarms,
    /// Looks in a row at which a node was idle.
    looks: BTreeMap<NodeId, u32>,
    asked: u64,
}

impl Emits for ClusterWatchdog {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for ClusterWatchdog {
    const SPEC: Spec = Spec {
        id: DaemonId("CLUSTER_WATCHDOG"),
        about: "finds nodes that produce nothing",
        priority: Priority::High,
        // The contract names CLUSTER_MONITOR as well; a type that is not built cannot be needed.
        needs: &[EVENT_ROUTER, ClusterMonitor::ID],
        profiles: &[COORDINATOR_FULL],
        period: Duration::from_mins(5),
        leader_only: true,
        health_interval: Some(Duration::from_mins(1)),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>, Bell);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop, bell): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            the_loop,
            bell,
            alarms: Alarms::default(),
            looks: BTreeMap::new(),
            asked: 0,
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        if last.alarming.is_empty() {
            return Health::Healthy;
        }
        let each = last.alarming.iter().filter_map(|node| Some((node, last.idle.get(node)?)));
        let each = each.map(|(node, why)| format!("{node} has nothing in hand: {why}"));
        Health::Degraded(each.collect::<Vec<_>>().join("; "))
    }
}

impl ClusterWatchdog {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let mut status = Status::default();
        if !self.the_loop.shared {
            status.none = Some(crate::nodes::ALONE);
            return Ok(Outcome::Done(status));
        }
        let nodes = self.catalogue.nodes().await?;
        let players: Vec<&NodeRow> = nodes.iter().filter(|row| self.could_play(row)).collect();
        status.none = players.is_empty().then_some("no node that may play is seen to run");
        status.players = players.len();
        let open = self.catalogue.open_works().await?;
        let queued: BTreeSet<GameConfig> =
            open.iter().filter(|item| is_queued(item)).map(|item| item.config).collect();
        status.queued = open.iter().filter(|item| is_queued(item)).count();
        for row in players {
            cx.beat()?;
            if open.iter().any(|item| item.node.as_ref() == Some(&row.node)) {
                continue;
            }
            let why = self.why(row, &queued).await?;
            status.idle.insert(row.node.0.clone(), why.sentence());
        }
        self.looks.retain(|node, _| status.idle.contains_key(&node.0));
        for row in &nodes {
            let sentence = status.idle.get(&row.node.0).cloned();
            if sentence.is_some() {
                *self.looks.entry(row.node.clone()).or_insert(0) += 1;
            }
            let looks = self.looks.get(&row.node).copied().unwrap_or(0);
            let lasting = looks >= self.config.max_failures;
            let sentence = sentence.filter(|_| lasting);
            if sentence.is_some() {
                status.alarming.insert(row.node.0.clone());
            }
            let words = sentence.map(|why| format!("{} has nothing in hand: {why}", row.node));
            let alarm = format!("idle.{}", row.node);
            self.alarms.set(&self.catalogue, &alarm, words, cx.now()).await?;
        }
        if !status.idle.is_empty() && queued.is_empty() {
            // It looks at the queue by itself as well; a wake-up that was lost costs a period.
            info!(nodes = status.idle.len(), "nothing is queued for nodes that could play");
            self.bell.wake_daemon(QueuePopulator::ID);
            self.asked += 1;
        }
        status.asked = self.asked;
        Ok(Outcome::Done(status))
    }

    /// May it play, and is it seen to run? This one is not asked: its own daemons watch it.
    fn could_play(&self, row: &NodeRow) -> bool {
        let lives =
            matches!(self.the_loop.nodes.sight(&row.node), Sight::Still(still) if still < LIVES);
        row.playing > 0 && !row.removed && !row.draining && row.node != self.the_loop.node && lives
    }

    /// Why a node has nothing in hand.
    async fn why(&self, row: &NodeRow, queued: &BTreeSet<GameConfig>) -> anyhow::Result<Why> {
        let own = self.catalogue.of_node(Some(row.node.clone()));
        if let Some((gate, _)) = own.gate(IdleResource::ID.0, None).await?
            && !gate.open
        {
            return Ok(Why::Gate { reason: gate.reason, needs: gate.needs });
        }
        if queued.is_empty() {
            return Ok(Why::NothingQueued(self.why_empty().await?));
        }
        for config in queued {
            if self.catalogue.distribution(*config, &row.node).await?.is_some() {
                return Ok(Why::Unknown);
            }
        }
        Ok(Why::NoModel(queued.iter().map(ToString::to_string).collect()))
    }

    /// Why nothing is queued, if somebody said so.
    async fn why_empty(&self) -> anyhow::Result<Option<String>> {
        let each = self.the_loop.configs.iter().copied().map(Some);
        for config in std::iter::once(None).chain(each) {
            let gate = self.catalogue.gate(QueuePopulator::ID.0, config).await?;
            if let Some((gate, _)) = gate
                && !gate.open
            {
                return Ok(Some(gate.reason));
            }
        }
        Ok(None)
    }
}

fn is_queued(item: &WorkRow) -> bool {
    item.kind == WorkKind::Selfplay && item.state == WorkState::Queued
}

/// Why a node has nothing in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// It holds itself back.
    Gate { reason: String, needs: String },
    /// There is nothing to take; why nothing is queued, if that is known.
    NothingQueued(Option<String>),
    /// It has the model of none of these configs, all that are queued.
    NoModel(Vec<String>),
    /// It could take what is queued.
    Unknown,
}

impl Why {
    fn sentence(&self) -> String {
        match self {
            Self::Gate { reason, needs } => format!("{reason}; it needs {needs}"),
            Self::NothingQueued(None) => "nothing is queued, which was asked for".to_owned(),
            Self::NothingQueued(Some(reason)) => format!("nothing is queued: {reason}"),
            Self::NoModel(configs) => {
                format!("it was handed no model of {} yet", configs.join(" and "))
            }
            Self::Unknown => {
                "items wait that it could take: its log says why it does not".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{
        BlobHash, Gate, ModelDistributed, ModelId, ModelRef, NodeDrained, WorkClaimed, WorkId,
        WorkQueued,
    };

    use super::*;
    use crate::{
        alarms::alarm_of,
        testbed::{Bed, done, hex, selfplay, stops_in_mid_cycle},
    };

    fn work(number: u64) -> WorkId {
        WorkId::new(WorkKind::Selfplay, hex(), number)
    }

    async fn queue(bed: &Bed, number: u64) {
        let model = ModelRef { id: ModelId::new(hex(), 0), weights: BlobHash("0".repeat(64)) };
        let job = selfplay(model, number);
        let (work, config, reason) = (work(number), hex(), "test".into());
        bed.record(vec![WorkQueued { work, config, job, reason }.into()]).await;
    }

    async fn claim(bed: &Bed, number: u64, node: &NodeId) {
        let claimed = WorkClaimed { work: work(number), attempt: 1, node: node.clone(), epoch: 0 };
        bed.record(vec![claimed.into()]).await;
    }

    async fn scene() -> (Bed, NodeId, ClusterWatchdog) {
        let bed = Bed::new().await.in_a_cluster();
        let a = bed.node("a").await;
        bed.sees_nodes(&[(&a, 0)]);
        let ports = (bed.catalogue_of::<ClusterWatchdog>(), bed.the_loop.clone(), bed.bell.clone());
        let daemon = ClusterWatchdog::new(Config::default(), ports);
        (bed, a, daemon)
    }

    #[tokio::test]
    async fn an_idle_node_has_a_reason() {
        let (bed, a, mut daemon) = scene().await;
        let (cx, _probe) = bed.cx::<ClusterWatchdog>();
        let mut why = async || done(daemon.cycle(&cx).await).idle.get("a").cloned();
        assert_eq!(why().await.unwrap(), "nothing is queued, which was asked for");
        let rest = Gate::deny("rows", "enough rows wait", "a training");
        let rest = rest.to_fact(QueuePopulator::ID.0, Some(hex()));
        bed.catalogue.tell_gate(rest, 1).await.unwrap();
        assert_eq!(why().await.unwrap(), "nothing is queued: enough rows wait");
        queue(&bed, 1).await;
        assert_eq!(why().await.unwrap(), "it was handed no model of hex8_2p yet");
        let model = ModelId::new(hex(), 0);
        let (config, weights, node) = (hex(), BlobHash("0".repeat(64)), a.clone());
        bed.record(vec![ModelDistributed { model, config, weights, node }.into()]).await;
        assert!(why().await.unwrap().starts_with("items wait that it could take"));
        let full = Gate::deny("obstacle", "1 GiB is free", "2 GiB");
        let own = bed.catalogue.of_node(Some(a.clone()));
        own.tell_gate(full.to_fact(IdleResource::ID.0, None), 2).await.unwrap();
        assert_eq!(why().await.unwrap(), "1 GiB is free; it needs 2 GiB");
        claim(&bed, 1, &a).await;
        assert_eq!(why().await, None);
    }

    #[tokio::test]
    async fn a_node_that_stays_idle_is_an_alarm_once_and_over_when_it_works() {
        let (bed, a, mut daemon) = scene().await;
        let (cx, _probe) = bed.cx::<ClusterWatchdog>();
        queue(&bed, 1).await;
        for look in 1..=5 {
            let status = done(daemon.cycle(&cx).await);
            assert_eq!(!status.alarming.is_empty(), look >= 3, "{look}");
            assert_eq!(matches!(daemon.health(&status), Health::Degraded(_)), look >= 3);
        }
        let told = bed.catalogue.log().head(courier::Stream::Operational).await.unwrap();
        assert_eq!(told, 1, "a second cycle has nothing to tell");
        let alarm = alarm_of(&bed.catalogue, "idle.a").await.unwrap().unwrap().0;
        assert_eq!(alarm, "a has nothing in hand: it was handed no model of hex8_2p yet");
        claim(&bed, 1, &a).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.idle.len(), daemon.health(&status)), (0, Health::Healthy));
        assert_eq!(alarm_of(&bed.catalogue, "idle.a").await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_empty_queue_is_asked_to_be_filled_for_who_could_play() {
        let (bed, a, mut daemon) = scene().await;
        let (cx, _probe) = bed.cx::<ClusterWatchdog>();
        assert_eq!(done(daemon.cycle(&cx).await).asked, 1);
        queue(&bed, 1).await;
        assert_eq!(done(daemon.cycle(&cx).await).asked, 1, "something waits");
        claim(&bed, 1, &a).await;
        assert_eq!(done(daemon.cycle(&cx).await).asked, 1, "nobody is idle");
    }

    #[tokio::test]
    async fn who_is_silent_drained_or_does_not_play_is_not_idle() {
        let (bed, a, mut daemon) = scene().await;
        let (cx, _probe) = bed.cx::<ClusterWatchdog>();
        for silent in [&[(&a, 60)][..], &[]] {
            bed.sees_nodes(silent);
            let status = done(daemon.cycle(&cx).await);
            assert_eq!(status.none, Some("no node that may play is seen to run"));
        }
        bed.sees_nodes(&[(&a, 0)]);
        assert_eq!(done(daemon.cycle(&cx).await).players, 1);
        bed.record(vec![NodeDrained { node: a, draining: true }.into()]).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.players, status.asked), (0, 1));
    }

    #[tokio::test]
    async fn a_machine_alone_and_a_stop_in_the_middle() {
        let bed = Bed::new().await;
        let ports = (bed.catalogue_of::<ClusterWatchdog>(), bed.the_loop.clone(), bed.bell.clone());
        let mut daemon = ClusterWatchdog::new(Config::default(), ports);
        let (cx, _probe) = bed.cx::<ClusterWatchdog>();
        assert_eq!(done(daemon.cycle(&cx).await).none, Some("this machine is alone"));
        let (bed, _, daemon) = scene().await;
        stops_in_mid_cycle(&bed, daemon).await;
    }
}
