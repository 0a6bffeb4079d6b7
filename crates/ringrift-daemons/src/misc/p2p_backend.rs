//! `P2P_BACKEND`: looks whether this node reaches the others.
//!
//! Reads   who the members are, and who of them lives by the log.
//! Writes  an alarm on those that live and cannot be reached from here: what they have cannot be fetched, and
//!         the log alone does not show it.
//! Never   decides who is alive or who leads: leases say that.
//!
//! On one machine there is nobody to reach.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use ringrift_pipeline::{Catalogue, NodeId};
use serde::{Deserialize, Serialize};
use tracing::{debug, info};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Emits, Loop, Neighbours, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    sync::whereabouts::{ALONE, others},
};

/// Name of the alarm.
pub(crate) const ALARM: &str = "peers";

/// `[daemons.p2p_backend]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Looks in a row in which a node that lives was not reached, until that is an alarm.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub misses: u32,
    /// Nodes that one cycle looks at; those that were not looked at for longest come first.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_looked_at_per_cycle: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { misses: 3, max_looked_at_per_cycle: 16 }
    }
}

/// The other nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Why there is nothing to do, if so.
    pub idle: Option<String>,
    /// Each of them, as it was seen last.
    pub nodes: BTreeMap<String, Seen>,
}

/// A node, as it was seen last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Its lease was prolonged a moment ago.
    pub lives: bool,
    /// Where it answered; none if it did not.
    pub at: Option<String>,
    /// Milliseconds of a way there and back.
    pub round_trip_ms: Option<u64>,
    /// Looks in a row in which it was not reached.
    pub misses: u32,
    /// Why not.
    pub error: Option<String>,
}

/// The daemon.
pub struct P2pBackend {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    neighbours: Neighbours,
    alarms: Alarms,
    /// Whose turn it is.
    turn: VecDeque<NodeId>,
    status: Status,
}

impl Emits for P2pBackend {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for P2pBackend {
    const SPEC: Spec = Spec {
        id: DaemonId("P2P_BACKEND"),
        about: "looks whether the other nodes are reached",
        priority: Priority::High,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL],
        period: Duration::from_secs(30),
        // Each that does not answer takes five seconds, and beats come per node.
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
            turn: VecDeque::new(),
            status: Status::default(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        if !self.the_loop.shared {
            self.status.idle = Some(ALONE.to_owned());
            return Ok(Outcome::Done(self.status.clone()));
        }
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        match complaint(last, self.config.misses) {
            Some(complaint) => Health::Degraded(complaint),
            None => Health::Healthy,
        }
    }
}

impl P2pBackend {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let others = others(&self.catalogue, &self.the_loop).await?;
        self.status.nodes.retain(|name, _| others.iter().any(|row| row.node.as_str() == name));
        self.turn.retain(|node| others.iter().any(|row| row.node == *node));
        for row in &others {
            if !self.turn.contains(&row.node) {
                self.turn.push_front(row.node.clone());
            }
        }
        if let Some(neighbours) = self.neighbours.get() {
            for _ in 0..self.turn.len().min(self.config.max_looked_at_per_cycle) {
                cx.beat()?;
                let Some(node) = self.turn.pop_front() else { break };
                let answer = neighbours.reach(&node).await;
                let seen = self.status.nodes.entry(node.to_string()).or_default();
                let before = seen.at.is_some();
                *seen = match answer {
                    Ok(reached) => Seen {
                        at: Some(reached.at),
                        round_trip_ms: u64::try_from(reached.round_trip.as_millis()).ok(),
                        ..Seen::default()
                    },
                    Err(error) => {
                        Seen { misses: seen.misses + 1, error: Some(error), ..Seen::default() }
                    }
                };
                match (before, &seen.error) {
                    (false, None) => info!(%node, at = seen.at, "node is reached"),
                    (true, Some(error)) => info!(%node, error, "node is not reached"),
                    (_, Some(error)) => debug!(%node, error, "node is not reached"),
                    (true, None) => {}
                }
                self.turn.push_back(node);
            }
        }
        for row in &others {
            if let Some(seen) = self.status.nodes.get_mut(row.node.as_str()) {
                seen.lives = self.the_loop.nodes.lives(&row.node);
            }
        }
        let sentence = complaint(&self.status, self.config.misses);
        self.alarms.set(&self.catalogue, ALARM, sentence, cx.now()).await?;
        Ok(Outcome::Done(self.status.clone()))
    }
}

/// Those that live and are not reached. Who is gone is no fault of the ways there.
fn complaint(status: &Status, misses: u32) -> Option<String> {
    let lost = status.nodes.iter().filter(|(_, seen)| seen.lives && seen.misses >= misses);
    let lost: Vec<String> = lost
        .map(|(node, seen)| format!("{node} {}", seen.error.as_deref().unwrap_or_default()))
        .collect();
    (!lost.is_empty()).then(|| {
        format!(
            "lives by the log, and its artefacts cannot be fetched from here: {}",
            lost.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        alarms::alarm_of,
        testbed::{Bed, Street, done, stops_in_mid_cycle},
    };

    fn daemon(bed: &Bed, config: Config) -> P2pBackend {
        let ports = (bed.catalogue_of::<P2pBackend>(), bed.shared(), bed.neighbours.clone());
        P2pBackend::new(config, ports)
    }

    #[test]
    fn only_who_lives_and_was_missed_often_enough_is_complained_about() {
        let check = |lives: bool, misses: u32, complains: bool| {
            let seen = Seen { lives, misses, error: Some("is silent".into()), ..Seen::default() };
            let status = Status { nodes: [("there".to_owned(), seen)].into(), idle: None };
            assert_eq!(complaint(&status, 3).is_some(), complains, "{lives} {misses}");
        };
        check(true, 0, false);
        check(true, 2, false);
        check(true, 3, true);
        check(false, 9, false);
    }

    #[tokio::test]
    async fn a_node_that_lives_and_is_not_reached_is_an_alarm_until_it_is() {
        let bed = Bed::new().await;
        bed.joined(&["there", "far"]).await;
        bed.live(&["there"]).await;
        let street = Street::default();
        street.open(&bed);
        let mut daemon = daemon(&bed, Config { misses: 2, ..Config::default() });
        let (cx, _probe) = bed.cx::<P2pBackend>();
        let status = done(daemon.cycle(&cx).await);
        let seen = &status.nodes["there"];
        assert_eq!(
            (seen.lives, seen.round_trip_ms, daemon.health(&status)),
            (true, Some(3), Health::Healthy)
        );
        assert!(!status.nodes["far"].lives && status.nodes.len() == 2, "{status:?}");

        street.leaves("there");
        street.leaves("far");
        done(daemon.cycle(&cx).await);
        assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap(), None, "once may be chance");
        let status = done(daemon.cycle(&cx).await);
        let Health::Degraded(why) = daemon.health(&status) else { panic!("{status:?}") };
        assert!(why.contains("there does not answer") && !why.contains("far"), "{why}");
        assert!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some());

        street.returns("there");
        street.returns("far");
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Healthy);
        assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap(), None);
        let facts = bed.facts().await;
        assert_eq!(done(daemon.cycle(&cx).await), status, "a second cycle finds the same");
        assert_eq!(bed.facts().await, facts);
    }

    #[tokio::test]
    async fn many_are_looked_at_in_turn_and_a_stop_in_the_middle_is_noticed() {
        let bed = Bed::new().await;
        bed.joined(&["a", "b", "c"]).await;
        let street = Street::default();
        street.open(&bed);
        let few = Config { max_looked_at_per_cycle: 2, ..Config::default() };
        let mut daemon_of_few = daemon(&bed, few);
        let (cx, _probe) = bed.cx::<P2pBackend>();
        assert_eq!(done(daemon_of_few.cycle(&cx).await).nodes.len(), 2);
        assert_eq!(done(daemon_of_few.cycle(&cx).await).nodes.len(), 3);
        stops_in_mid_cycle(&bed, daemon(&bed, Config::default())).await;
        let mut alone = daemon(&bed, Config::default());
        alone.the_loop = bed.the_loop.clone();
        assert_eq!(done(alone.cycle(&cx).await).idle.as_deref(), Some(ALONE));
    }
}
