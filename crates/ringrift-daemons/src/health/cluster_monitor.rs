//! `CLUSTER_MONITOR`: counts the nodes and what they do, and tells of one that should play and does not.
//!
//! Reads   the nodes as they are seen from the one that leads, what each says of itself, and the games of each.
//! Writes  an alarm for each node that brings no games although it should; it is cleared by its next game.
//! Never   opens a shell on another machine: what a node does it says itself.
//!
//! A node that says why it plays nothing (drained, a full disk, nothing asked for) does not stall, and one
//! that is silent or gone is forgotten: its games are counted anew when it is back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{Catalogue, NodeId};
use serde::{Deserialize, Serialize};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Emits, Loop, NodeState, NodeView, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    resource::idle_resource::IdleResource,
    survey,
};

/// Name of the alarm on a node that should play.
pub(crate) fn alarm_on(node: &NodeId) -> String {
    format!("stalled.{node}")
}

/// `[daemons.cluster_monitor]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Looks in a row without a new game after which a node that should play is told of.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub stalled_looks: u32,
}

impl Default for Config {
    fn default() -> Self {
        // The contract's 3 looks are for games that are counted one by one. Here a node hands over a
        // batch at a time, which on a large board takes minutes: 20 of them at a look in 30 s.
        Self { stalled_looks: 40 }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Nodes that were not put out.
    pub nodes: usize,
    /// Those that live.
    pub alive: usize,
    /// Names of those that are not heard of.
    pub silent: Vec<String>,
    /// Those that take no new work.
    pub drained: usize,
    /// Those that live and have work in hand.
    pub working: usize,
    /// Who leads.
    pub leader: Option<String>,
    /// Worker slots of those that live.
    pub slots: u64,
    /// Those of them that nobody uses.
    pub free_slots: u64,
    /// Works in hand by kind.
    pub works: BTreeMap<String, usize>,
    /// Games that each node brought, ever.
    pub games: BTreeMap<String, u64>,
    /// Least free space of a node that lives, bytes.
    pub least_disk_free: Option<u64>,
    /// Nodes that should play and bring no games.
    pub stalled: Vec<String>,
    /// What there is to do here, if nothing.
    pub nothing_to_do: Option<&'static str>,
}

/// The daemon.
pub struct ClusterMonitor {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    alarms: Alarms,
    watched: BTreeMap<NodeId, Watched>,
}

/// What is remembered of a node that should play.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Watched {
    games: u64,
    /// Looks in a row at which it had no more.
    looks: u32,
}

impl Emits for ClusterMonitor {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for ClusterMonitor {
    const SPEC: Spec = Spec {
        id: DaemonId("CLUSTER_MONITOR"),
        about: "watches what every node does",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL],
        period: Duration::from_secs(30),
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop): Self::Ports) -> Self {
        Self { config, catalogue, the_loop, alarms: Alarms::default(), watched: BTreeMap::new() }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        let mut complaints = Vec::new();
        if !last.stalled.is_empty() {
            complaints.push(format!("no new games from {}", last.stalled.join(", ")));
        }
        if !last.silent.is_empty() {
            complaints.push(format!("not heard of: {}", last.silent.join(", ")));
        }
        if complaints.is_empty() {
            Health::Healthy
        } else {
            Health::Degraded(complaints.join("; "))
        }
    }
}

impl ClusterMonitor {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        if !self.the_loop.shared {
            let nothing_to_do = Some(crate::nodes::ALONE);
            return Ok(Outcome::Done(Status { nothing_to_do, ..Status::default() }));
        }
        let cluster = survey(&self.catalogue, &self.the_loop).await?;
        self.look(&cluster.nodes, cluster.leader.map(|node| node.0), cx).await
    }

    async fn look(
        &mut self,
        nodes: &[NodeView],
        leader: Option<String>,
        cx: &Cx,
    ) -> anyhow::Result<Outcome<Status>> {
        let games = self.catalogue.games_by_node().await?;
        cx.beat()?;
        let before = std::mem::take(&mut self.watched);
        let mut status = sum(nodes);
        status.leader = leader;
        for view in nodes {
            let count = games.get(&view.node).copied().unwrap_or(0);
            let before = before.get(&view.node);
            let watched = should_play(view).then(|| step(before, count));
            let stalled = watched.is_some_and(|now| now.looks >= self.config.stalled_looks);
            self.watched.extend(watched.map(|now| (view.node.clone(), now)));
            let sentence = stalled.then(|| {
                status.stalled.push(view.node.to_string());
                let looks = self.config.stalled_looks;
                format!("node {} brought no game in {looks} looks: {}", view.node, view.does)
            });
            // Else what was said of it stands: it is silent, or an earlier life of this daemon may have said it.
            let played = before.is_some_and(|before| before.games != count);
            let excused = watched.is_none() && view.state != NodeState::Silent;
            if stalled || played || excused {
                let alarm = alarm_on(&view.node);
                self.alarms.set(&self.catalogue, &alarm, sentence, cx.now()).await?;
            }
        }
        status.games = games.into_iter().map(|(node, games)| (node.0, games)).collect();
        Ok(Outcome::Done(status))
    }
}

fn sum(nodes: &[NodeView]) -> Status {
    let mut status = Status::default();
    for view in nodes.iter().filter(|view| view.state != NodeState::Removed) {
        status.nodes += 1;
        if view.state == NodeState::Silent {
            status.silent.push(view.node.to_string());
        }
        if view.state != NodeState::Alive {
            continue;
        }
        status.alive += 1;
        status.drained += usize::from(view.draining);
        status.slots += u64::from(view.workers.unwrap_or(0));
        let Some(report) = &view.report else { continue };
        status.working += usize::from(report.idle.is_none());
        status.free_slots += report.free_slots as u64;
        for work in &report.works {
            *status.works.entry(work.kind.clone()).or_default() += 1;
        }
        let least = status.least_disk_free.into_iter().chain(report.disk_free).min();
        status.least_disk_free = least;
    }
    status
}

/// Is this a node from which games are to be expected?
fn should_play(view: &NodeView) -> bool {
    let meant_to = view.playing.is_some_and(|playing| playing > 0) && !view.draining;
    let Some(report) = view.report.as_ref().filter(|_| view.state == NodeState::Alive) else {
        return false;
    };
    // It plays, or work waits for it and it takes none; any other reason is one.
    let plays = report.works.iter().any(|work| work.kind == "selfplay");
    let fails = report.idle.as_ref().is_some_and(|why| why.by == IdleResource::ID.0);
    meant_to && (plays || fails)
}

/// One look at a node that should play.
fn step(before: Option<&Watched>, games: u64) -> Watched {
    match before {
        Some(before) if before.games == games => Watched { games, looks: before.looks + 1 },
        _ => Watched { games, looks: 0 },
    }
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{
        GamesCommitted, ModelId, ModelRef, WorkClaimed, WorkId, WorkKind, WorkQueued,
    };

    use super::*;
    use crate::{
        NodeReport, SaidWork, Why,
        alarms::alarm_of,
        testbed::{Bed, done, hex, selfplay},
    };

    fn view(name: &str, change: impl FnOnce(&mut NodeView, &mut NodeReport)) -> NodeView {
        let work = SaidWork {
            work: WorkId::new(WorkKind::Selfplay, hex(), 1),
            kind: "selfplay".into(),
            config: hex(),
        };
        let mut report = NodeReport {
            works: vec![work],
            free_slots: 3,
            disk_free: Some(5),
            ..NodeReport::default()
        };
        let mut view = NodeView {
            node: NodeId(name.into()),
            here: false,
            leads: false,
            state: NodeState::Alive,
            draining: false,
            removed: false,
            silent_seconds: None,
            overdue_seconds: None,
            life: Some(1),
            runs: None,
            workers: Some(4),
            playing: Some(4),
            can: None,
            items: 1,
            artefacts: 0,
            artefact_bytes: 0,
            artefacts_alone: 0,
            version: None,
            addresses: Vec::new(),
            report: None,
            does: "selfplay hex8_2p".into(),
        };
        change(&mut view, &mut report);
        view.report = Some(report);
        view
    }

    fn idle(by: &str) -> Why {
        Why { by: by.into(), ..Why::default() }
    }

    #[test]
    fn games_are_expected_of_who_plays_or_fails_to() {
        let check = |expected: bool, change: &dyn Fn(&mut NodeView, &mut NodeReport)| {
            let view = view("a", change);
            assert_eq!(should_play(&view), expected, "{view:?}");
        };
        check(true, &|_, _| {});
        check(false, &|view, _| view.draining = true);
        check(false, &|view, _| view.playing = Some(0));
        check(false, &|view, _| view.state = NodeState::Silent);
        check(false, &|_, report| report.works[0].kind = "train".into());
        let waits = |by: &'static str| {
            move |_: &mut NodeView, report: &mut NodeReport| {
                report.works.clear();
                report.idle = Some(idle(by));
            }
        };
        check(true, &waits("IDLE_RESOURCE"));
        check(false, &waits("QUEUE_POPULATOR"));
        check(false, &waits("DISK_SPACE_MANAGER"));
    }

    #[test]
    fn looks_without_a_game_are_counted_and_a_game_begins_anew() {
        let mut now = step(None, 10);
        assert_eq!(now, Watched { games: 10, looks: 0 });
        now = step(Some(&now), 10);
        now = step(Some(&now), 10);
        assert_eq!(now.looks, 2);
        assert_eq!(step(Some(&now), 11), Watched { games: 11, looks: 0 });
    }

    #[test]
    fn what_the_nodes_say_is_added_up() {
        let status = sum(&[
            view("a", |_, _| {}),
            view("b", |view, report| {
                view.draining = true;
                report.works.clear();
                report.idle = Some(idle("DRAIN"));
                report.disk_free = Some(3);
            }),
            view("c", |view, _| view.state = NodeState::Silent),
            view("d", |view, _| view.state = NodeState::Removed),
        ]);
        let expected = Status {
            nodes: 3,
            alive: 2,
            silent: vec!["c".into()],
            drained: 1,
            working: 1,
            slots: 8,
            free_slots: 6,
            works: BTreeMap::from([("selfplay".into(), 1)]),
            least_disk_free: Some(3),
            ..Status::default()
        };
        assert_eq!(status, expected);
    }

    fn monitor(bed: &Bed) -> ClusterMonitor {
        let ports = (bed.catalogue_of::<ClusterMonitor>(), bed.the_loop.clone());
        ClusterMonitor::new(Config { stalled_looks: 2 }, ports)
    }

    /// A batch of games that this node played.
    async fn plays(bed: &Bed, number: u64, node: &str) {
        let work = WorkId::new(WorkKind::Selfplay, hex(), number);
        let model = ModelRef { id: ModelId::new(hex(), 0), weights: bed.put("weights") };
        let job = selfplay(model, number);
        let node = NodeId(node.into());
        let batch = bed.put(&format!("batch {number}"));
        bed.record(vec![
            WorkQueued { work: work.clone(), config: hex(), job, reason: "games".into() }.into(),
            WorkClaimed { work: work.clone(), attempt: 1, node, epoch: 0 }.into(),
            GamesCommitted {
                batch,
                bytes: 1,
                config: hex(),
                work,
                model: ModelId::new(hex(), 0),
                games: 7,
                positions: 9,
                seat_wins: vec![7, 0],
                seconds: 1.0,
            }
            .into(),
        ])
        .await;
    }

    #[tokio::test]
    async fn a_node_that_stalls_is_told_of_once_and_its_next_game_clears_it() {
        let bed = Bed::new().await;
        plays(&bed, 1, "a").await;
        let mut daemon = monitor(&bed);
        let (cx, probe) = bed.cx::<ClusterMonitor>();
        let nodes = [view("a", |_, _| {})];
        let told = async || bed.catalogue.log().head(courier::Stream::Operational).await.unwrap();
        let mut status = Status::default();
        for expected in [0, 0, 1, 1] {
            status = done(daemon.look(&nodes, None, &cx).await);
            assert_eq!((status.stalled.len(), told().await), (expected, expected as u64));
        }
        assert_eq!(daemon.health(&status), Health::Degraded("no new games from a".into()));
        let alarm = alarm_on(&NodeId("a".into()));
        let (sentence, _) = alarm_of(&bed.catalogue, &alarm).await.unwrap().unwrap();
        assert_eq!(sentence, "node a brought no game in 2 looks: selfplay hex8_2p");

        // Silence changes nothing, and a new life of the daemon knows the alarm.
        let gone = [view("a", |view, _| view.state = NodeState::Silent)];
        done(daemon.look(&gone, None, &cx).await);
        let mut daemon = monitor(&bed);
        done(daemon.look(&nodes, None, &cx).await);
        assert_eq!(told().await, 1);
        plays(&bed, 2, "a").await;
        status = done(daemon.look(&nodes, None, &cx).await);
        assert_eq!((status.games["a"], told().await), (14, 2));
        assert_eq!(alarm_of(&bed.catalogue, &alarm).await.unwrap(), None);
        assert_eq!(daemon.health(&status), Health::Healthy);

        probe.stop_at_beat(probe.beats() + 1);
        let stopped = daemon.look(&nodes, None, &cx).await.unwrap_err();
        assert!(stopped.is::<warden::Stopping>());
        assert_eq!(told().await, 2);
    }

    #[tokio::test]
    async fn one_machine_has_nothing_to_watch_and_is_well() {
        let bed = Bed::new().await;
        let mut daemon = monitor(&bed);
        let (cx, _probe) = bed.cx::<ClusterMonitor>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.nothing_to_do, Some("this machine is alone"));
        assert_eq!(daemon.health(&status), Health::Healthy);
        assert_eq!(bed.facts().await, 0);
    }
}
