//! `CROSS_PROCESS_POLLER`: sees to it that facts of other processes are noticed, whether or not they wake anybody.
//!
//! Reads   the end of the pipeline's log, the facts of other nodes since the last look, how far the router is.
//! Writes  nothing.
//! Never   handles a fact: what it finds unrouted wakes whom it concerns, and the router keeps its position.
//!
//! Facts of other nodes come into this node's copy of the log by themselves, and wake the router. That a
//! wake-up of another process is lost must be expected, though; then the router looks after 30 s, and this
//! one finds what waits at its second look. A fact is never passed over: who is woken reads the catalogue, and what the
//! router cannot read goes to the dead letters. On one machine nobody else writes, so there is nothing to poll.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use courier::{Fact, Stream};
use ringrift_pipeline::{Catalogue, Event};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec, Wake};

use crate::{
    Bell, Emits, Loop, Topics,
    cycle::{EVENT_ROUTER, settled},
    event::event_router::subscriber_of,
};

/// `[daemons.cross_process_poller]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most facts that one look reads. Source: event contract, 50 a second.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_read_per_cycle: usize,
    /// Time for which facts may wait for the catalogue or for the router before that is a fault.
    #[serde(with = "crate::seconds")]
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_read_per_cycle: 250, patience: Duration::from_secs(30) }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Position of the last fact.
    pub head: u64,
    /// Positions that the catalogue does not show yet.
    pub unfolded: u64,
    /// Positions that the router has not reached.
    pub unrouted: u64,
    /// Facts of each other node since the daemon started.
    pub taken_in: BTreeMap<String, u64>,
    /// Wake-ups that had been lost, since the daemon started.
    pub woken: u64,
    /// For how long facts have been waiting, seconds.
    pub waiting_seconds: u64,
    /// What there is to do here, if nothing.
    pub nothing_to_do: Option<&'static str>,
}

/// The daemon.
pub struct CrossProcessPoller {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    bell: Bell,
    /// The end of the log at the last look, and how far it was read.
    seen: Option<(u64, u64)>,
    /// Whoever was woken up to here is not woken again.
    woken_to: u64,
    waits_since: Option<Instant>,
    status: Status,
}

impl Emits for CrossProcessPoller {
    const EMITS: Topics = &[];
}

impl Daemon for CrossProcessPoller {
    const SPEC: Spec = Spec {
        id: DaemonId("CROSS_PROCESS_POLLER"),
        about: "takes in the facts of other processes",
        priority: Priority::High,
        needs: &[EVENT_ROUTER],
        // The contract's second is for a file that wakes nobody; each look here asks the servers of the log.
        period: Duration::from_secs(5),
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
            seen: None,
            woken_to: 0,
            waits_since: None,
            status: Status::default(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        if last.waiting_seconds < self.config.patience.as_secs().max(1) {
            return Health::Healthy;
        }
        let (folded, routed) = (last.unfolded, last.unrouted);
        Health::Degraded(format!(
            "for {} s {folded} facts wait for the catalogue and {routed} for the router",
            last.waiting_seconds
        ))
    }
}

impl CrossProcessPoller {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        if !self.the_loop.shared {
            self.status.nothing_to_do = Some("no other process writes into the log of one machine");
            return Ok(Outcome::Done(self.status.clone()));
        }
        let log = self.catalogue.log();
        let head = log.head(Stream::Pipeline).await?;
        let routed = log.position(Stream::Pipeline, &subscriber_of(&self.the_loop)).await?;
        // The first look begins at the end: what was before it is the router's affair.
        let (before, read_to) = self.seen.unwrap_or((head, head));
        let facts = if head > read_to {
            cx.beat()?;
            log.read(Stream::Pipeline, read_to, self.config.max_read_per_cycle).await?
        } else {
            Vec::new()
        };
        let read_to = facts.last().map_or(head.max(read_to), |fact| fact.position);
        for node in facts.iter().filter_map(|fact| node_of(fact, &self.the_loop.node.0)) {
            *self.status.taken_in.entry(node.to_owned()).or_default() += 1;
        }
        // What was there at the last look, and the router has not reached, woke nobody.
        if routed < before {
            self.wake(routed.max(self.woken_to), before, cx).await?;
        }
        self.seen = Some((head, read_to));
        self.status.head = head;
        self.status.unfolded = head.saturating_sub(self.catalogue.shown_to());
        self.status.unrouted = head.saturating_sub(routed);
        let waits = self.status.unfolded > 0 || self.status.unrouted > 0;
        self.waits_since = waits.then(|| self.waits_since.unwrap_or_else(Instant::now));
        self.status.waiting_seconds = self.waits_since.map_or(0, |since| since.elapsed().as_secs());
        Ok(Outcome::Done(self.status.clone()))
    }

    /// Wakes whom the facts between two positions concern, once.
    async fn wake(&mut self, after: u64, to: u64, cx: &Cx) -> anyhow::Result<()> {
        if after >= to {
            return Ok(());
        }
        cx.beat()?;
        let most = self.config.max_read_per_cycle;
        let facts = self.catalogue.log().read(Stream::Pipeline, after, most).await?;
        let missed = facts.iter().filter(|fact| fact.position <= to);
        let mut topics = BTreeSet::new();
        for fact in missed {
            self.woken_to = fact.position;
            // What is no event of this version the router buries.
            topics.extend(Event::deserialize(&fact.body).ok().map(|event| event.topic()));
        }
        for topic in topics {
            info!(topic, "a wake-up was lost");
            self.bell.wake(Wake(topic));
            self.status.woken += 1;
        }
        Ok(())
    }
}

/// The node that recorded a fact, if it is another one: the source of a fact is `WHO@NODE`.
fn node_of<'a>(fact: &'a Fact, here: &str) -> Option<&'a str> {
    let (_, node) = fact.source.rsplit_once('@')?;
    (node != here).then_some(node)
}

#[cfg(test)]
mod tests {
    use courier::{Batch, NewFact};
    use ringrift_pipeline::{NodeDrained, NodeId, Record};

    use super::*;
    use crate::testbed::{Bed, done, hex};

    fn poller(bed: &Bed) -> CrossProcessPoller {
        let the_loop = Arc::new(Loop { shared: true, ..(*bed.the_loop).clone() });
        let ports = (bed.catalogue_of::<CrossProcessPoller>(), the_loop, bed.bell.clone());
        CrossProcessPoller::new(Config::default(), ports)
    }

    async fn records(bed: &Bed, who: &str, time: i64) {
        let drained = NodeDrained { node: NodeId("x".into()), draining: true };
        let catalogue = bed.catalogue.for_source(who);
        catalogue.record(vec![Record::always(drained)], time).await.unwrap();
    }

    async fn routes(bed: &Bed, daemon: &CrossProcessPoller) {
        let log = bed.catalogue.log();
        let head = log.head(Stream::Pipeline).await.unwrap();
        let name = subscriber_of(&daemon.the_loop);
        log.advance(Stream::Pipeline, &name, head).await.unwrap();
    }

    #[tokio::test]
    async fn facts_of_other_nodes_are_counted_and_what_woke_nobody_wakes_once() {
        let bed = Bed::new().await;
        let mut daemon = poller(&bed);
        let (cx, probe) = bed.cx::<CrossProcessPoller>();
        bed.champion(hex()).await;
        routes(&bed, &daemon).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.head, status.unrouted, status.taken_in.len()), (3, 0, 0));

        records(&bed, "IDLE_RESOURCE@there", 5).await;
        records(&bed, "IDLE_RESOURCE@here", 6).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.taken_in, BTreeMap::from([("there".to_owned(), 1)]));
        assert_eq!((status.unrouted, status.woken), (2, 0), "the router may be at it");
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.woken, 1, "both are about the same");
        bed.woken().await;
        assert_eq!(done(daemon.cycle(&cx).await).woken, 1, "once");
        routes(&bed, &daemon).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.unrouted, status.waiting_seconds), (0, 0));
        assert_eq!(daemon.health(&status), Health::Healthy);

        records(&bed, "IDLE_RESOURCE@there", 7).await;
        probe.stop_at_beat(probe.beats() + 2);
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        let (cx, _probe) = bed.cx::<CrossProcessPoller>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.taken_in["there"], 2, "a stop passes nothing over");
    }

    #[tokio::test]
    async fn what_waits_for_long_degrades_and_rubbish_wakes_nobody() {
        let bed = Bed::new().await;
        let mut daemon = poller(&bed);
        let (cx, _probe) = bed.cx::<CrossProcessPoller>();
        done(daemon.cycle(&cx).await);
        let rubbish: Batch =
            NewFact::new("odd", "odd.thing", "x@there", serde_json::json!({ "topic": "odd" }))
                .into();
        bed.append(rubbish).await;
        done(daemon.cycle(&cx).await);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(30)).await;
        tokio::time::resume();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.woken, status.unrouted), (0, 1));
        let Health::Degraded(told) = daemon.health(&status) else { panic!("{status:?}") };
        assert!(told.starts_with("for 30 s ") && told.ends_with(" 1 for the router"), "{told}");
    }

    #[tokio::test]
    async fn one_machine_polls_nothing() {
        let bed = Bed::new().await;
        let ports =
            (bed.catalogue_of::<CrossProcessPoller>(), bed.the_loop.clone(), bed.bell.clone());
        let mut daemon = CrossProcessPoller::new(Config::default(), ports);
        let (cx, _probe) = bed.cx::<CrossProcessPoller>();
        let status = done(daemon.cycle(&cx).await);
        assert!(status.nothing_to_do.is_some() && status.head == 0);
        assert_eq!(daemon.health(&status), Health::Healthy);
    }
}
