//! `DATA_SERVER`: looks after what this node gives the others.
//!
//! Reads   what the part that serves artefacts has counted, and who the other nodes are.
//! Writes  nothing.
//! Never   serves by itself: artefacts lie open to the members from the manager's start on, each from where it
//!         lies, in pieces, proven by its hash; half of a file, another file or a path cannot be asked for.
//!
//! On one machine there is nobody to serve, and nothing listens.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ringrift_pipeline::{Catalogue, NodeRow};
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Emits, Given, Loop, NeighbourPort, Neighbours, Topics,
    cycle::{EVENT_ROUTER, settled},
    sync::whereabouts::{ALONE, others},
};

/// `[daemons.data_server]`; where and how fast is served is told when a node joins its cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

/// What was given.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// Why there is nothing to do, if so.
    pub idle: Option<String>,
    /// What was given since the manager began.
    #[serde(flatten)]
    pub given: Given,
    /// Bytes a second since the look before.
    pub bytes_per_second: f64,
    /// Artefacts that the others may ask for: what this node said that it has.
    pub offers: u64,
    /// Their bytes.
    pub offers_bytes: u64,
    /// Why no other node can fetch from here, if so.
    pub out_of_reach: Option<String>,
}

/// The daemon.
pub struct DataServer {
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    neighbours: Neighbours,
    /// What had been given at the last look, and when that was.
    last: Option<(u64, tokio::time::Instant)>,
    status: Status,
}

impl Emits for DataServer {
    const EMITS: Topics = &[];
}

impl Daemon for DataServer {
    const SPEC: Spec = Spec {
        id: DaemonId("DATA_SERVER"),
        about: "looks after what is given to other nodes",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        period: Duration::from_secs(30),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>, Neighbours);
    type Status = Status;

    fn new(Config {}: Config, (catalogue, the_loop, neighbours): Self::Ports) -> Self {
        Self { catalogue, the_loop, neighbours, last: None, status: Status::default() }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        if !self.the_loop.shared {
            self.status.idle = Some(ALONE.to_owned());
            return Ok(Outcome::Done(self.status.clone()));
        }
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        match &last.out_of_reach {
            Some(why) => Health::Degraded(why.clone()),
            None => Health::Healthy,
        }
    }
}

impl DataServer {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let others = others(&self.catalogue, &self.the_loop).await?;
        let given = self.neighbours.get().map(NeighbourPort::given).unwrap_or_default();
        let now = tokio::time::Instant::now();
        let (bytes, since) = self.last.replace((given.bytes, now)).unwrap_or((given.bytes, now));
        let new = given.bytes.saturating_sub(bytes);
        self.status.bytes_per_second = rate(new, now.saturating_duration_since(since));
        if new > 0 {
            info!(bytes = new, "given to other nodes");
        }
        let strangers = given.strangers.saturating_sub(self.status.given.strangers);
        if strangers > 0 {
            info!(strangers, "turned away since the last look");
        }
        self.status.out_of_reach = out_of_reach(&given.listens, &others);
        self.status.given = given;
        let held = self.catalogue.holdings().await?;
        let here = held.into_iter().find(|row| row.node == self.the_loop.node);
        (self.status.offers, self.status.offers_bytes) =
            here.map_or((0, 0), |row| (row.artefacts, row.bytes));
        Ok(Outcome::Done(self.status.clone()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(bytes: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { bytes as f64 / time.as_secs_f64() }
}

/// Why no other machine can fetch from here.
fn out_of_reach(listens: &[String], others: &[NodeRow]) -> Option<String> {
    if listens.is_empty() {
        return Some("nothing listens: the other nodes fetch nothing from here".to_owned());
    }
    let is_local = |address: &String| {
        address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
    };
    let far = others.iter().find(|row| !row.addresses.iter().all(is_local))?;
    listens.iter().all(is_local).then(|| {
        format!(
            "this node listens on {} alone, which {} does not reach: set `listen` in the cluster.toml of its \
             data directory to an address and a port of this machine, and start it again",
            listens.join(", "),
            far.node
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bed, Street, done, hex, stops_in_mid_cycle};

    fn daemon(bed: &Bed) -> DataServer {
        let ports = (bed.catalogue_of::<DataServer>(), bed.shared(), bed.neighbours.clone());
        DataServer::new(Config {}, ports)
    }

    fn given(bytes: u64) -> Given {
        Given { listens: vec!["127.0.0.1:4433".into()], answers: 1, bytes, ..Given::default() }
    }

    #[tokio::test]
    async fn it_shows_what_was_given_and_records_nothing() {
        let bed = Bed::new().await;
        bed.joined(&["there"]).await;
        let batch = bed.batch(hex(), &["g1"]).await;
        bed.held("here", &[&batch]).await;
        let street = Street::default();
        street.open(&bed);
        street.gave(given(1000));
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<DataServer>();
        let facts = bed.facts().await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.given.bytes, status.offers, status.offers_bytes), (1000, 1, 1));
        assert_eq!(daemon.health(&status), Health::Healthy);
        street.gave(given(5000));
        assert!(done(daemon.cycle(&cx).await).bytes_per_second > 0.0);
        let again = done(daemon.cycle(&cx).await);
        assert!(again.bytes_per_second.abs() < f64::EPSILON, "a second cycle finds nothing new");
        assert_eq!(bed.facts().await, facts);
        stops_in_mid_cycle(&bed, daemon).await;
    }

    #[test]
    fn who_listens_where_nobody_comes_by_is_told_so() {
        let other = |address: &str| NodeRow {
            node: ringrift_pipeline::NodeId("there".into()),
            peer: String::new(),
            addresses: vec![address.to_owned()],
            role: String::new(),
            version: String::new(),
            speaks: 1,
            slots: 0,
            playing: 0,
            can: None,
            position: 0,
            since_ms: 0,
            draining: false,
            removed: false,
        };
        let check = |listens: &[&str], others: &[&str], reached: bool| {
            let listens: Vec<String> = listens.iter().map(|at| (*at).to_owned()).collect();
            let others: Vec<NodeRow> = others.iter().map(|at| other(at)).collect();
            assert_eq!(
                out_of_reach(&listens, &others).is_none(),
                reached,
                "{listens:?} {others:?}"
            );
        };
        check(&[], &[], false);
        check(&["127.0.0.1:1"], &[], true);
        check(&["127.0.0.1:1"], &["127.0.0.1:2"], true);
        check(&["127.0.0.1:1"], &["127.0.0.1:2", "10.0.0.2:1"], false);
        check(&["10.0.0.1:1"], &["10.0.0.2:1"], true);
    }

    #[tokio::test]
    async fn a_node_without_a_listener_is_degraded_and_one_machine_has_nobody_to_serve() {
        let bed = Bed::new().await;
        let mut nobody = daemon(&bed);
        let (cx, _probe) = bed.cx::<DataServer>();
        let status = done(nobody.cycle(&cx).await);
        assert!(matches!(nobody.health(&status), Health::Degraded(_)));
        let mut alone = daemon(&bed);
        alone.the_loop = bed.the_loop.clone();
        let status = done(alone.cycle(&cx).await);
        assert_eq!((status.idle.as_deref(), alone.health(&status)), (Some(ALONE), Health::Healthy));
    }
}
