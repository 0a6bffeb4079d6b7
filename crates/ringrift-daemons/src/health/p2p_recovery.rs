//! `P2P_RECOVERY`: watches this node's own connections: to the log, to the others, to a leader.
//!
//! Reads   whether the log answers, whether the nodes whose leases move answer, whether the leader's does; whether
//!         this node kept what the servers of the log lost.
//! Writes  an alarm while something is cut; opens the endpoint for the others anew when too few answer.
//! Never   ends a process by its name, elects anybody: the log's client comes back by itself, and nodes that
//!         may lead take a free lease by themselves. Of both it only says that they have not yet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{Catalogue, NodeId};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::Instant};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Emits, LEADER, Loop, Neighbours, Sight, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    nodes::{LIVES, REPLICA},
};

/// Time for the log to answer; its client gives up within 15 s.
const LOG_LIMIT: Duration = Duration::from_secs(20);
/// Time for all nodes to answer: each is given up after 5 s, and they are asked side by side.
const NODES_LIMIT: Duration = Duration::from_secs(20);
/// Time to close and open the endpoint.
const REOPEN_LIMIT: Duration = Duration::from_secs(40);
/// Name of the alarm.
const ALARM: &str = "connections";
/// Name of the alarm on a log that is shorter than it was.
const LOST: &str = "log_set_back";

/// `[daemons.p2p_recovery]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Looks in a row that must go wrong before something is done or people are told.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_failures: u32,
    /// Time between two openings of the endpoint.
    #[serde(with = "crate::seconds")]
    pub restart_cooldown: Duration,
    /// Nodes that must answer in a large cluster. In a small one the share below counts.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub min_peers: u32,
    /// Share of the nodes whose leases move that must answer.
    #[serde(deserialize_with = "crate::ranges::some_share")]
    pub min_peer_ratio: f64,
    /// A cluster may be so long without a leader.
    #[serde(with = "crate::seconds")]
    pub leader_gap: Duration,
}

impl Default for Config {
    fn default() -> Self {
        // Source: P2P_RECOVERY.
        Self {
            max_failures: 3,
            restart_cooldown: Duration::from_mins(5),
            min_peers: 3,
            min_peer_ratio: 0.5,
            leader_gap: Duration::from_mins(2),
        }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Why there is nothing to watch.
    pub idle: Option<&'static str>,
    /// Other nodes whose leases move.
    pub living: usize,
    /// Those of them that answer.
    pub answering: usize,
    /// How many must.
    pub needed: usize,
    /// Those that do not, and why.
    pub mute: BTreeMap<String, String>,
    /// What is wrong, one sentence each.
    pub faults: Vec<String>,
    /// What the servers lost and this node kept, if so.
    pub lost: Option<String>,
    /// Looks in a row with something wrong.
    pub failures: u32,
    /// How often the endpoint was opened anew since the daemon started.
    pub restarts: u64,
}

/// The daemon.
pub struct P2pRecovery {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    neighbours: Neighbours,
    alarms: Alarms,
    failures: u32,
    /// Looks in a row at which too few answered.
    isolated: u32,
    restarted: Option<Instant>,
    restarts: u64,
}

impl Emits for P2pRecovery {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for P2pRecovery {
    const SPEC: Spec = Spec {
        id: DaemonId("P2P_RECOVERY"),
        about: "watches this node's connections",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        period: Duration::from_mins(1),
        health_interval: Some(Duration::from_mins(5)),
        max_restarts: Some(10),
        cycle_limit: Duration::from_mins(2),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>, Neighbours);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop, neighbours): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            the_loop,
            neighbours,
            alarms: Alarms::default(),
            failures: 0,
            isolated: 0,
            restarted: None,
            restarts: 0,
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    // Of the connections, not of the daemon: who is cut off is degraded however well it runs.
    fn health(&self, last: &Status) -> Health {
        let wrong: Vec<&str> = last.lost.iter().chain(&last.faults).map(String::as_str).collect();
        if wrong.is_empty() {
            return Health::Healthy;
        }
        Health::Degraded(wrong.join("; "))
    }
}

impl P2pRecovery {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        if !self.the_loop.shared {
            let idle = Some(crate::nodes::ALONE);
            return Ok(Outcome::Done(Status { idle, ..Status::default() }));
        }
        let mut status = Status { restarts: self.restarts, ..Status::default() };
        let log = self.catalogue.log().leases(LEADER, i64::MIN);
        let log = match cx.within(LOG_LIMIT, log).await? {
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        let living = self.living().await?;
        let answers = cx.within(NODES_LIMIT, ask(&self.neighbours, living)).await?;
        status.living = answers.len();
        status.answering = answers.values().filter(|answer| answer.is_ok()).count();
        status.needed = needed(status.living, &self.config);
        for (node, answer) in answers {
            if let Err(why) = answer {
                status.mute.insert(node.0, why);
            }
        }
        let seen = Seen {
            log,
            living: status.living,
            answering: status.answering,
            needed: status.needed,
            mute: status.mute.keys().cloned().collect(),
            leaderless: self.the_loop.nodes.leaderless(),
        };
        let faults = judge(&seen, &self.config);
        let is_isolated = faults.iter().any(|fault| matches!(fault, Fault::Isolated(_)));
        self.isolated = if is_isolated { self.isolated.saturating_add(1) } else { 0 };
        status.faults = faults.into_iter().map(Fault::sentence).collect();
        self.failures = if status.faults.is_empty() { 0 } else { self.failures.saturating_add(1) };
        status.failures = self.failures;
        if self.isolated >= self.config.max_failures && self.may_restart() {
            self.reopen(cx).await?;
            status.restarts = self.restarts;
        }
        let lasting = self.failures >= self.config.max_failures;
        let sentence = lasting.then(|| status.faults.join("; "));
        status.lost = courier::lost(&self.the_loop.data.join(REPLICA))?.pop().map(|path| {
            format!(
                "the servers lost facts of the log, or have another one: what this node knew is in {}; \
                 docs/cluster.md says how to go on from there, or remove the file",
                path.display()
            )
        });
        // Without the log an alarm cannot be told; the health says it.
        if seen.log.is_none() {
            self.alarms.set(&self.catalogue, ALARM, sentence, cx.now()).await?;
            self.alarms.set(&self.catalogue, LOST, status.lost.clone(), cx.now()).await?;
        }
        Ok(Outcome::Done(status))
    }

    /// The others whose leases move: those that should answer.
    async fn living(&self) -> anyhow::Result<Vec<NodeId>> {
        let rows = self.catalogue.nodes().await?;
        let others = rows.into_iter().filter(|row| row.node != self.the_loop.node && !row.removed);
        let lives = |node: &NodeId| matches!(self.the_loop.nodes.sight(node), Sight::Still(still) if still < LIVES);
        Ok(others.map(|row| row.node).filter(lives).collect())
    }

    fn may_restart(&self) -> bool {
        self.restarted.is_none_or(|at| at.elapsed() >= self.config.restart_cooldown)
    }

    async fn reopen(&mut self, cx: &Cx) -> anyhow::Result<()> {
        let Some(neighbours) = self.neighbours.get() else { return Ok(()) };
        warn!(looks = self.isolated, "too few nodes answer: the endpoint is opened anew");
        self.restarted = Some(Instant::now());
        self.restarts += 1;
        match cx.within(REOPEN_LIMIT, neighbours.reopen()).await? {
            Ok(()) => info!("the endpoint is open again"),
            Err(error) => warn!(error, "the endpoint is not open"),
        }
        self.isolated = 0;
        Ok(())
    }
}

/// Asks nodes whether they are there, all at the same time: nothing wrong, or what.
async fn ask(neighbours: &Neighbours, nodes: Vec<NodeId>) -> BTreeMap<NodeId, Result<(), String>> {
    let mut asking = JoinSet::new();
    for node in nodes {
        let neighbours = neighbours.clone();
        asking.spawn(async move {
            let answer = match neighbours.get() {
                Some(port) => port.reach(&node).await.map(drop),
                None => Err("cannot be asked from here".to_owned()),
            };
            (node, answer)
        });
    }
    asking.join_all().await.into_iter().collect()
}

/// What a look saw.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Why the log does not answer.
    log: Option<String>,
    living: usize,
    answering: usize,
    needed: usize,
    mute: Vec<String>,
    /// For how long the leader's lease stands still, or nobody has it.
    leaderless: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    NoLog(String),
    Isolated(String),
    NoLeader(String),
}

impl Fault {
    fn sentence(self) -> String {
        match self {
            Self::NoLog(words) | Self::Isolated(words) | Self::NoLeader(words) => words,
        }
    }
}

/// How many of the living must answer: a cluster of two cannot have three.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of nodes, and a share of it is none below 0"
)]
fn needed(living: usize, config: &Config) -> usize {
    let share = (living as f64 * config.min_peer_ratio).ceil() as usize;
    share.min(usize::try_from(config.min_peers).unwrap_or(usize::MAX))
}

/// The whole policy, pure.
fn judge(seen: &Seen, config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(why) = &seen.log {
        let words = "its client tries again by itself, and what is in hand goes on";
        faults.push(Fault::NoLog(format!("the log does not answer ({why}): {words}")));
        // Who is there is known from the log; without it nothing follows from who answers.
        return faults;
    }
    if seen.answering < seen.needed {
        let Seen { living, answering, needed, mute, .. } = seen;
        faults.push(Fault::Isolated(format!(
            "{answering} of {living} nodes whose leases move answer here, {needed} should: {} do not",
            mute.join(", ")
        )));
    }
    if seen.leaderless >= config.leader_gap {
        faults.push(Fault::NoLeader(format!(
            "no node has led for {} s: a coordinator that runs and is not drained would",
            seen.leaderless.as_secs()
        )));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        alarms::alarm_of,
        lease_of,
        testbed::{Bed, Street, done, stops_in_mid_cycle},
    };

    #[test]
    fn a_small_cluster_needs_fewer() {
        let config = Config::default();
        for (living, expected) in [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (100, 3)] {
            assert_eq!(needed(living, &config), expected, "{living}");
        }
    }

    #[test]
    fn each_connection_has_its_fault() {
        let check = |seen: Seen, expected: &[&str]| {
            let found = judge(&seen, &Config::default());
            let found: Vec<String> = found.into_iter().map(Fault::sentence).collect();
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{found}");
            }
        };
        let all = Seen { living: 2, answering: 2, needed: 1, ..Seen::default() };
        check(Seen::default(), &[]);
        check(all.clone(), &[]);
        check(Seen { answering: 1, ..all.clone() }, &[]);
        let mute = vec!["a".to_owned(), "b".to_owned()];
        let isolated = Seen { answering: 0, mute, ..all.clone() };
        let words = "0 of 2 nodes whose leases move answer here, 1 should: a, b do not";
        check(isolated.clone(), &[words]);
        let leaderless = Seen { leaderless: Duration::from_mins(2), ..isolated };
        check(leaderless.clone(), &[words, "no node has led for 120 s"]);
        check(Seen { leaderless: Duration::from_secs(119), ..all }, &[]);
        let cut = Seen { log: Some("timed out".into()), ..leaderless };
        check(cut, &["the log does not answer (timed out)"]);
    }

    async fn scene() -> (Bed, Street, P2pRecovery) {
        let bed = Bed::new().await.in_a_cluster();
        for name in ["a", "b", "c"] {
            bed.node(name).await;
        }
        let street = Street::default();
        street.open(&bed);
        let catalogue = bed.catalogue_of::<P2pRecovery>();
        let ports = (catalogue, bed.the_loop.clone(), bed.neighbours.clone());
        (bed, street, P2pRecovery::new(Config::default(), ports))
    }

    /// `a` and `b` live, `c` is silent.
    fn seen(bed: &Bed, leader: Option<u64>) {
        let of =
            |name: &str, still: u64| (lease_of(&NodeId(name.into())), Duration::from_secs(still));
        let mut leases = vec![of("a", 0), of("b", 2), of("c", 60)];
        leases.extend(leader.map(|still| (LEADER.to_owned(), Duration::from_secs(still))));
        bed.sees(&leases);
    }

    #[tokio::test]
    async fn the_endpoint_is_opened_anew_when_too_few_answer_three_times_and_not_again_at_once() {
        let (bed, street, mut daemon) = scene().await;
        let (cx, _probe) = bed.cx::<P2pRecovery>();
        seen(&bed, Some(0));
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.living, status.answering, status.needed), (2, 2, 1));
        assert_eq!(daemon.health(&status), Health::Healthy);
        street.leaves("a");
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.mute, [("a".into(), "does not answer".into())].into());
        assert_eq!(daemon.health(&status), Health::Healthy, "one of two is enough");
        street.leaves("b");
        for look in 1..=6 {
            let status = done(daemon.cycle(&cx).await);
            assert_eq!(status.failures, look);
            assert!(matches!(daemon.health(&status), Health::Degraded(_)));
            assert_eq!(street.reopened(), usize::from(look >= 3), "{look}");
            let alarm = alarm_of(&bed.catalogue, ALARM).await.unwrap();
            assert_eq!(alarm.is_some(), look >= 3, "{look}");
        }
        daemon.config.restart_cooldown = Duration::ZERO;
        assert_eq!(done(daemon.cycle(&cx).await).restarts, 2);
        street.returns("a");
        street.returns("b");
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.failures, daemon.health(&status)), (0, Health::Healthy));
        assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_cluster_without_a_leader_is_said_and_nothing_is_opened_anew_for_it() {
        let (bed, street, mut daemon) = scene().await;
        let (cx, _probe) = bed.cx::<P2pRecovery>();
        seen(&bed, Some(130));
        for _ in 0..4 {
            let status = done(daemon.cycle(&cx).await);
            assert_eq!(status.faults.len(), 1, "{status:?}");
            assert!(status.faults[0].starts_with("no node has led for 13"), "{status:?}");
        }
        seen(&bed, None);
        assert_eq!(done(daemon.cycle(&cx).await).faults, Vec::<String>::new(), "from now on");
        daemon.config.leader_gap = Duration::ZERO;
        assert_eq!(done(daemon.cycle(&cx).await).faults.len(), 1);
        assert_eq!(street.reopened(), 0);
    }

    #[tokio::test]
    async fn what_the_servers_lost_is_an_alarm_until_its_file_is_removed() {
        let (bed, _street, mut daemon) = scene().await;
        let (cx, _probe) = bed.cx::<P2pRecovery>();
        seen(&bed, Some(0));
        let folder = bed.the_loop.data.join(REPLICA);
        fs_err::create_dir_all(&folder).unwrap();
        for name in
            ["lost-7-2000.sqlite", "lost-90-1000.sqlite", "lost-8-3000.part", "replica.sqlite"]
        {
            fs_err::write(folder.join(name), "").unwrap();
        }
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.faults.len(), status.failures), (0, 0), "the connections are well");
        let alarm =
            async || alarm_of(&bed.catalogue, LOST).await.unwrap().map(|(sentence, _)| sentence);
        let said = alarm().await.unwrap();
        assert!(said.contains("lost-7-2000.sqlite"), "the newest: {said}");
        assert!(matches!(daemon.health(&status), Health::Degraded(_)));
        for path in courier::lost(&folder).unwrap() {
            fs_err::remove_file(path).unwrap();
        }
        assert_eq!(done(daemon.cycle(&cx).await).lost, None);
        assert_eq!(alarm().await, None);
    }

    #[tokio::test]
    async fn a_machine_alone_has_no_connections_and_a_second_cycle_finds_nothing() {
        let bed = Bed::new().await;
        let ports =
            (bed.catalogue_of::<P2pRecovery>(), bed.the_loop.clone(), bed.neighbours.clone());
        let mut daemon = P2pRecovery::new(Config::default(), ports);
        let (cx, _probe) = bed.cx::<P2pRecovery>();
        for _ in 0..2 {
            let status = done(daemon.cycle(&cx).await);
            assert_eq!(status.idle, Some("this machine is alone"));
            assert_eq!(daemon.health(&status), Health::Healthy);
        }
        assert_eq!(bed.facts().await, 0);
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_opens_nothing_anew() {
        let (bed, street, daemon) = scene().await;
        seen(&bed, Some(0));
        stops_in_mid_cycle(&bed, daemon).await;
        assert_eq!(street.reopened(), 0);
    }
}
