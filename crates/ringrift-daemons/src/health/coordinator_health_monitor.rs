//! `COORDINATOR_HEALTH_MONITOR`: is there a leader, does he change all the time, and could another one lead?
//!
//! Reads   the leases of the nodes and of the leader as seen from here, and what coordinators say of themselves.
//! Writes  alarms, as this node sees it: nobody leads, the lead changes too often, too many are not heard of.
//! Never   elects: the lease of the leader does.
//!
//! Every coordinator runs it, not the leader alone: when there is none, somebody must say so.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use ringrift_pipeline::{Catalogue, NodeId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Emits, Loop, NodeState, NodeView, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    survey,
};

/// Name of the alarm on a cluster that nobody leads.
pub(crate) const LEADERLESS: &str = "coordinators.leaderless";
/// Name of the alarm on a lead that changes all the time.
pub(crate) const RESTLESS: &str = "coordinators.restless";
/// Name of the alarm on coordinators that are not heard of.
pub(crate) const SILENT: &str = "coordinators.silent";

/// Changes of the leader are counted for so long.
const LOOK_BACK: Duration = Duration::from_hours(1);
/// Most changes that are remembered.
const MOST_CHANGES: usize = 64;

/// `[daemons.coordinator_health_monitor]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time without a leader that is an alarm. Another coordinator takes the lead within 6 s of the last sign
    /// of life of the one before.
    #[serde(with = "crate::seconds")]
    pub leaderless_after: Duration,
    /// Changes of the leader within an hour that are an alarm.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub most_changes: usize,
    /// Share of coordinators not heard of that is an alarm. Source: health contract, 20 %.
    #[serde(deserialize_with = "crate::ranges::some_share")]
    pub most_silent: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { leaderless_after: Duration::from_secs(30), most_changes: 3, most_silent: 0.2 }
    }
}

/// How a coordinator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It lives, and all its daemons run well.
    Healthy,
    /// It lives, and some of them do not.
    Degraded,
    /// It is not heard of.
    Silent,
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// Nodes that lead when nobody else does, and how each is.
    pub coordinators: BTreeMap<String, Condition>,
    /// Who leads.
    pub leader: Option<String>,
    /// For how long nobody has led, seconds.
    pub leaderless_seconds: u64,
    /// Changes of the leader within the last hour, as seen from here.
    pub changes: usize,
    /// Those who would lead if the leader died.
    pub standbys: usize,
    /// Share of coordinators that live, percent; 100 while none is known.
    pub healthy_percent: u32,
    /// What there is to do here, if nothing.
    pub nothing_to_do: Option<&'static str>,
}

/// The daemon.
pub struct CoordinatorHealthMonitor {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    alarms: Alarms,
    lead: Lead,
    /// How coordinators were when they last said that they are some: one that is silent says nothing.
    known: BTreeMap<NodeId, Condition>,
}

impl Emits for CoordinatorHealthMonitor {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for CoordinatorHealthMonitor {
    const SPEC: Spec = Spec {
        id: DaemonId("COORDINATOR_HEALTH_MONITOR"),
        about: "watches the coordinators",
        priority: Priority::High,
        needs: &[EVENT_ROUTER],
        period: Duration::from_secs(10),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop): Self::Ports) -> Self {
        let (alarms, lead, known) = (Alarms::default(), Lead::default(), BTreeMap::new());
        Self { config, catalogue, the_loop, alarms, lead, known }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        match complaints(last, &self.config).into_iter().flatten().next() {
            Some(complaint) => Health::Degraded(complaint),
            None => Health::Healthy,
        }
    }
}

impl CoordinatorHealthMonitor {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        if !self.the_loop.shared {
            let nothing_to_do = Some("this machine is alone, and leads");
            return Ok(Outcome::Done(Status { nothing_to_do, ..Status::default() }));
        }
        if !self.the_loop.nodes.looked() {
            return Ok(Outcome::Done(Status::default()));
        }
        let nodes = survey(&self.catalogue, &self.the_loop).await?.nodes;
        self.look(&nodes, self.the_loop.nodes.leader(), cx).await
    }

    async fn look(
        &mut self,
        nodes: &[NodeView],
        leader: Option<(NodeId, u64, Duration)>,
        cx: &Cx,
    ) -> anyhow::Result<Outcome<Status>> {
        let (now, sighted) = (Instant::now(), leader.as_ref().map(|(_, epoch, _)| *epoch));
        // The lease of one who died stands still from his last sign on.
        let silent = leader.as_ref().map_or(Duration::ZERO, |(.., silent)| *silent);
        let leaderless = self.lead.look(sighted, silent, now);
        self.known = conditions(nodes, &self.known);
        let status =
            sum(&self.known, leader.map(|(node, ..)| node), leaderless, self.lead.changes());
        let told = complaints(&status, &self.config);
        for (alarm, sentence) in [LEADERLESS, RESTLESS, SILENT].into_iter().zip(told) {
            cx.beat()?;
            self.alarms.set(&self.catalogue, alarm, sentence, cx.now()).await?;
        }
        Ok(Outcome::Done(status))
    }
}

/// The lead as it was seen from here.
#[derive(Debug, Default)]
struct Lead {
    epoch: Option<u64>,
    /// Since when nobody holds it.
    free_since: Option<Instant>,
    changes: VecDeque<Instant>,
}

impl Lead {
    /// Takes note of who holds the lead; tells for how long nobody has led.
    fn look(&mut self, epoch: Option<u64>, silent: Duration, now: Instant) -> Duration {
        if let (Some(before), Some(epoch)) = (self.epoch, epoch)
            && before != epoch
        {
            self.changes.push_back(now);
        }
        self.epoch = epoch.or(self.epoch);
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= LOOK_BACK;
        while self.changes.len() > MOST_CHANGES || self.changes.front().is_some_and(is_old) {
            self.changes.pop_front();
        }
        if epoch.is_some() {
            self.free_since = None;
            return silent;
        }
        let since = *self.free_since.get_or_insert(now);
        now.saturating_duration_since(since)
    }

    fn changes(&self) -> usize {
        self.changes.len()
    }
}

/// How each coordinator is; what was known of one that fell silent says that it is one.
fn conditions(
    nodes: &[NodeView],
    known: &BTreeMap<NodeId, Condition>,
) -> BTreeMap<NodeId, Condition> {
    let condition = |view: &NodeView| {
        let competes = match &view.report {
            Some(report) => report.competes && !view.draining,
            None => known.contains_key(&view.node),
        };
        let ill = view.report.as_ref().is_some_and(|report| !report.troubles.is_empty());
        let condition = match view.state {
            _ if !competes => return None,
            NodeState::Alive if ill => Condition::Degraded,
            NodeState::Alive => Condition::Healthy,
            NodeState::Silent => Condition::Silent,
            NodeState::Ended | NodeState::Invited | NodeState::Removed => return None,
        };
        Some((view.node.clone(), condition))
    };
    nodes.iter().filter_map(condition).collect()
}

fn sum(
    known: &BTreeMap<NodeId, Condition>,
    leader: Option<NodeId>,
    leaderless: Duration,
    changes: usize,
) -> Status {
    let alive = known.values().filter(|condition| **condition != Condition::Silent).count();
    let leads = leader.as_ref().and_then(|leader| known.get(leader));
    let leader_lives = leads.is_some_and(|condition| *condition != Condition::Silent);
    let percent = (alive * 100).checked_div(known.len()).unwrap_or(100);
    Status {
        coordinators: known.iter().map(|(node, is)| (node.to_string(), *is)).collect(),
        leader: leader.map(|leader| leader.0),
        leaderless_seconds: leaderless.as_secs(),
        changes,
        standbys: alive - usize::from(leader_lives),
        healthy_percent: u32::try_from(percent).unwrap_or(100),
        nothing_to_do: None,
    }
}

/// The whole policy: what is wrong with the lead, with its changes, and with the coordinators.
fn complaints(status: &Status, config: &Config) -> [Option<String>; 3] {
    let for_seconds = status.leaderless_seconds;
    let leaderless = for_seconds >= config.leaderless_after.as_secs().max(1);
    let restless = status.changes >= config.most_changes;
    let silent = |is: &Condition| *is == Condition::Silent;
    let names: Vec<&str> = status
        .coordinators
        .iter()
        .filter(|(_, is)| silent(is))
        .map(|(node, _)| node.as_str())
        .collect();
    let all = status.coordinators.len();
    #[expect(clippy::cast_precision_loss, reason = "a share of some nodes")]
    let too_many = !names.is_empty() && names.len() as f64 >= config.most_silent * all as f64;
    [
        leaderless.then(|| format!("nobody has led the cluster for {for_seconds} s")),
        restless.then(|| format!("the leader changed {} times within an hour", status.changes)),
        too_many.then(|| {
            format!("{} of {all} coordinators are not heard of: {}", names.len(), names.join(", "))
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        NodeReport, Why,
        alarms::alarm_of,
        testbed::{Bed, done},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn view(name: &str, state: NodeState, report: Option<NodeReport>) -> NodeView {
        NodeView {
            node: NodeId(name.into()),
            here: false,
            leads: false,
            state,
            draining: false,
            removed: false,
            silent_seconds: None,
            overdue_seconds: None,
            life: Some(1),
            runs: None,
            workers: None,
            playing: None,
            can: None,
            items: 0,
            artefacts: 0,
            artefact_bytes: 0,
            artefacts_alone: 0,
            version: None,
            addresses: Vec::new(),
            report,
            does: String::new(),
        }
    }

    fn coordinator() -> NodeReport {
        NodeReport { competes: true, ..NodeReport::default() }
    }

    #[test]
    fn only_nodes_that_may_lead_are_judged_and_silence_is_remembered() {
        let ill = Some(NodeReport {
            competes: true,
            troubles: vec![Why::default()],
            ..NodeReport::default()
        });
        let nodes = [
            view("a", NodeState::Alive, Some(coordinator())),
            view("b", NodeState::Alive, ill),
            view("c", NodeState::Silent, Some(coordinator())),
            view("plays", NodeState::Alive, Some(NodeReport::default())),
            view("left", NodeState::Ended, None),
        ];
        let known = conditions(&nodes, &BTreeMap::new());
        let named: Vec<_> = known.iter().map(|(node, is)| (node.as_str(), *is)).collect();
        let expected =
            [("a", Condition::Healthy), ("b", Condition::Degraded), ("c", Condition::Silent)];
        assert_eq!(named, expected);
        let said_nothing = [view("a", NodeState::Silent, None)];
        let again = conditions(&said_nothing, &known);
        assert_eq!(again.into_values().collect::<Vec<_>>(), [Condition::Silent]);
        let drained = NodeView { draining: true, ..nodes[0].clone() };
        assert!(conditions(&[drained], &known).is_empty());
    }

    #[test]
    fn the_figures_are_judged_by_their_limits() {
        let config = Config::default();
        let check = |change: &dyn Fn(&mut Status), expected: [Option<&str>; 3]| {
            let mut status = Status::default();
            for name in ["a", "b", "c", "d", "e", "f"] {
                status.coordinators.insert(name.into(), Condition::Healthy);
            }
            change(&mut status);
            let told = complaints(&status, &config);
            assert_eq!(told.each_ref().map(Option::as_deref), expected, "{status:?}");
        };
        check(&|_| {}, [None, None, None]);
        check(&|status| status.leaderless_seconds = 29, [None, None, None]);
        check(
            &|status| status.leaderless_seconds = 30,
            [Some("nobody has led the cluster for 30 s"), None, None],
        );
        check(&|status| status.changes = 2, [None, None, None]);
        check(
            &|status| status.changes = 3,
            [None, Some("the leader changed 3 times within an hour"), None],
        );
        let fall = |names: &'static [&str]| {
            move |status: &mut Status| {
                for name in names {
                    status.coordinators.insert((*name).into(), Condition::Silent);
                }
            }
        };
        check(&fall(&["a"]), [None, None, None]);
        let two = "2 of 6 coordinators are not heard of: a, b";
        check(&fall(&["a", "b"]), [None, None, Some(two)]);
    }

    #[test]
    fn changes_are_counted_for_an_hour_and_a_free_lead_is_timed() {
        let (mut lead, begin) = (Lead::default(), Instant::now());
        let mut look = |epoch, silent: u32, at: u32| {
            let leaderless = lead.look(epoch, SECOND * silent, begin + SECOND * at);
            (leaderless.as_secs(), lead.changes())
        };
        assert_eq!(look(Some(4), 0, 0), (0, 0), "whom we find has not changed");
        assert_eq!(look(Some(4), 8, 10), (8, 0));
        assert_eq!(look(None, 0, 20), (0, 0));
        assert_eq!(look(None, 0, 50), (30, 0));
        assert_eq!(look(Some(5), 0, 60), (0, 1));
        assert_eq!(look(Some(7), 0, 70), (0, 2));
        assert_eq!(look(Some(7), 0, 3_661), (0, 1));
        assert_eq!(look(Some(7), 0, 3_671), (0, 0));
    }

    #[tokio::test]
    async fn a_cluster_without_a_leader_is_an_alarm_until_somebody_leads() {
        let bed = Bed::new().await;
        let ports = (bed.catalogue_of::<CoordinatorHealthMonitor>(), bed.the_loop.clone());
        let mut daemon = CoordinatorHealthMonitor::new(Config::default(), ports);
        let (cx, probe) = bed.cx::<CoordinatorHealthMonitor>();
        let nodes = [
            view("a", NodeState::Silent, Some(coordinator())),
            view("b", NodeState::Alive, Some(coordinator())),
        ];
        let told = async || bed.catalogue.log().head(courier::Stream::Operational).await.unwrap();
        let lead = |silent| Some((NodeId("a".into()), 1, SECOND * silent));
        done(daemon.look(&nodes[1..], lead(2), &cx).await);
        assert_eq!(told().await, 0);
        let status = done(daemon.look(&nodes, lead(40), &cx).await);
        assert_eq!((status.standbys, status.healthy_percent), (1, 50));
        let sentence = "nobody has led the cluster for 40 s";
        assert_eq!(daemon.health(&status), Health::Degraded(sentence.into()));
        let (told_of, _) = alarm_of(&bed.catalogue, LEADERLESS).await.unwrap().unwrap();
        assert_eq!((told_of.as_str(), told().await), (sentence, 2));
        done(daemon.look(&nodes, lead(50), &cx).await);
        assert_eq!(told().await, 2, "a second cycle tells nothing");

        probe.stop_at_beat(probe.beats() + 1);
        let stopped = daemon.look(&nodes[1..], lead(0), &cx).await.unwrap_err();
        assert!(stopped.is::<warden::Stopping>());
        let (cx, _probe) = bed.cx::<CoordinatorHealthMonitor>();
        let next = Some((NodeId("b".into()), 2, SECOND));
        let status = done(daemon.look(&nodes[1..], next, &cx).await);
        assert_eq!((status.changes, status.standbys), (1, 0));
        assert_eq!(daemon.health(&status), Health::Healthy);
        assert_eq!(alarm_of(&bed.catalogue, LEADERLESS).await.unwrap(), None);
    }

    #[tokio::test]
    async fn one_machine_leads_itself_and_is_well() {
        let bed = Bed::new().await;
        let ports = (bed.catalogue_of::<CoordinatorHealthMonitor>(), bed.the_loop.clone());
        let mut daemon = CoordinatorHealthMonitor::new(Config::default(), ports);
        let (cx, _probe) = bed.cx::<CoordinatorHealthMonitor>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.nothing_to_do, Some("this machine is alone, and leads"));
        assert_eq!(daemon.health(&status), Health::Healthy);
    }
}
