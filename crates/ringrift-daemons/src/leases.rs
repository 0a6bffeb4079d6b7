//! The leases under which a node records.
//!
//! Every node holds one of its own, which claims of work carry; one node holds that of the leader as
//! well, which everything that a leader-only daemon records carries. Whoever lost a lease is refused by
//! the log, so a node that was taken for dead can do no harm.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use courier::{Courier, Fence, Lease, LeaseError, Sightings};
use ringrift_pipeline::NodeId;
use tokio::{sync::watch, time::Instant};

/// The lease of the node that leads.
pub const LEADER: &str = "leader";
/// What the names of the nodes' own leases begin with.
pub const NODES: &str = "node.";

/// The lease of a node.
pub fn lease_of(node: &NodeId) -> String {
    format!("{NODES}{node}")
}

/// A node whose lease stood still for so long is taken for dead, and its work is given back. A node prolongs
/// its lease several times within this; one that was only cut off has its results refused.
pub(crate) const GONE: Duration = Duration::from_secs(30);
/// A node that was silent for less is asked for artefacts.
pub(crate) const LIVES: Duration = Duration::from_secs(15);

/// What is seen of a lease from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Nobody looked yet.
    Untold,
    /// Nobody holds it: it was given back in good order, or never taken.
    Left,
    /// It has stood still for so long.
    Still(Duration),
}

/// The nodes of a cluster, as they are seen from this one; a clone is the same. On one machine there are none.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    seen: Arc<Mutex<Sightings>>,
    /// This one takes no work.
    is_drained: Arc<AtomicBool>,
}

impl Nodes {
    /// Says whether this node is drained: then it does not lead either.
    pub fn drain(&self, drained: bool) {
        self.is_drained.store(drained, Ordering::Relaxed);
    }

    /// Whether this node is drained.
    pub fn is_drained(&self) -> bool {
        self.is_drained.load(Ordering::Relaxed)
    }

    /// Looks who is there; to be called every few seconds.
    ///
    /// # Errors
    /// The log is out of reach; that time counts as nobody's silence.
    pub async fn look(&self, log: &Courier) -> Result<(), courier::Error> {
        let leases = log.leases("", i64::MIN).await?;
        self.note(leases, Instant::now());
        Ok(())
    }

    /// Takes note of all leases as they were at a moment.
    pub(crate) fn note(&self, leases: Vec<Lease>, at: Instant) {
        self.lock().note(leases, at);
    }

    /// What is seen of a node's lease.
    pub fn sight(&self, node: &NodeId) -> Sight {
        self.sight_of(&lease_of(node))
    }

    /// What is seen of the leader's lease.
    pub fn leader(&self) -> Sight {
        self.sight_of(LEADER)
    }

    fn sight_of(&self, lease: &str) -> Sight {
        let seen = self.lock();
        match seen.silent(lease, Instant::now()) {
            _ if !seen.looked() => Sight::Untold,
            Some((_, still)) => Sight::Still(still),
            None => Sight::Left,
        }
    }

    /// Does this node live, as far as can be seen?
    pub fn lives(&self, node: &NodeId) -> bool {
        let silent = self.lock().silent(&lease_of(node), Instant::now()).map(|(_, silent)| silent);
        silent.is_some_and(|silent| silent < LIVES)
    }

    /// Why nobody works any more on what a life of a node claimed; none while somebody may.
    pub(crate) fn gone(&self, node: &NodeId, epoch: u64) -> Option<String> {
        let seen = self.lock();
        match seen.silent(&lease_of(node), Instant::now()) {
            _ if !seen.looked() => None,
            None => Some(format!("node {node} has left")),
            Some((lease, _)) if lease.epoch > epoch => {
                Some(format!("the process of node {node} that worked on it is gone"))
            }
            Some((_, silent)) if silent >= GONE => {
                Some(format!("node {node} has been silent for {} s", silent.as_secs()))
            }
            Some(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sightings> {
        // Only plain assignments happen under the lock; a poisoned one holds no broken state.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this node holds; a clone is the same.
#[derive(Debug, Clone)]
pub struct Leases {
    node: Fence,
    leader: watch::Sender<Option<Fence>>,
}

impl Leases {
    /// Those of a node that does not lead.
    pub fn of_node(lease: &Lease) -> Self {
        Self { node: fence(lease), leader: watch::Sender::new(None) }
    }

    /// Says under which lease this node leads, or that it does not lead any more.
    pub fn lead(&self, lease: Option<&Lease>) {
        self.leader.send_replace(lease.map(fence));
    }

    /// Does this node lead?
    pub fn leads(&self) -> bool {
        self.leader.borrow().is_some()
    }

    /// What proves the node.
    pub fn node(&self) -> Fence {
        self.node.clone()
    }

    /// What proves the leader. On a node that does not lead it is one that the log refuses: a leader-only
    /// daemon that is about to be stopped records nothing.
    pub fn leader(&self) -> Fence {
        let held = self.leader.borrow().clone();
        held.unwrap_or_else(|| Fence { lease: LEADER.to_owned(), epoch: 0 })
    }
}

fn fence(lease: &Lease) -> Fence {
    Fence { lease: lease.name.clone(), epoch: lease.epoch }
}

/// Prolongs a lease to `ttl` from now, also one that ran out while this machine slept: as long as
/// nobody took it, its epoch is in force.
///
/// # Errors
/// [`LeaseError::Lost`] only if somebody else took it, or it was given back.
pub async fn prolong(
    log: &Courier,
    lease: &Lease,
    ttl: Duration,
    now_ms: i64,
) -> Result<Lease, LeaseError> {
    let in_force_ms = now_ms.min(lease.expires_ms.saturating_sub(1));
    let slept = Duration::from_millis(now_ms.abs_diff(in_force_ms));
    log.renew(lease, ttl.saturating_add(slept), in_force_ms).await
}

#[cfg(test)]
mod tests {
    use courier::{AppendError, Batch, Embedded, NewFact, Options, Stream};
    use serde_json::json;

    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_lease_that_ran_out_is_prolonged_unless_somebody_took_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(&dir.path().join("facts"), Options::default()).unwrap();
        let held = log.acquire(LEADER, "a", TTL, 0).await.unwrap();
        let slept = prolong(&log, &held, TTL, 3_600_000).await.unwrap();
        assert_eq!((slept.epoch, slept.expires_ms), (held.epoch, 3_610_000));
        // A clock that was set back prolongs as well.
        let back = prolong(&log, &slept, TTL, 5_000).await.unwrap();
        assert_eq!(back.expires_ms, 15_000);
        log.acquire(LEADER, "b", TTL, 20_000).await.unwrap();
        let lost = prolong(&log, &back, TTL, 21_000).await.unwrap_err();
        assert!(matches!(lost, LeaseError::Lost { .. }), "{lost}");
    }

    #[tokio::test]
    async fn nodes_and_the_leader_are_seen_by_how_long_their_leases_stand_still() {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(&dir.path().join("facts"), Options::default()).unwrap();
        let (nodes, there) = (Nodes::default(), NodeId("there".into()));
        assert_eq!((nodes.sight(&there), nodes.leader()), (Sight::Untold, Sight::Untold));
        let held = log.acquire(&lease_of(&there), "there", TTL, 0).await.unwrap();
        log.acquire(LEADER, "there", TTL, 0).await.unwrap();
        nodes.look(&log).await.unwrap();
        let moves = |sight| matches!(sight, Sight::Still(still) if still < TTL);
        assert!(moves(nodes.sight(&there)) && moves(nodes.leader()));
        assert_eq!(nodes.sight(&NodeId("nobody".into())), Sight::Left);
        log.release(&held).await.unwrap();
        nodes.look(&log).await.unwrap();
        assert_eq!(nodes.sight(&there), Sight::Left);
    }

    #[tokio::test]
    async fn a_node_that_does_not_lead_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(&dir.path().join("facts"), Options::default()).unwrap();
        let node = NodeId("here".into());
        let leases = Leases::of_node(&log.acquire(&lease_of(&node), "here", TTL, 0).await.unwrap());
        let append = async |fence: Fence| {
            let batch = Batch {
                fence: Some(fence),
                ..Batch::new(vec![NewFact::new("id", "subject", "test", json!({}))])
            };
            log.append(Stream::Pipeline, batch, 0).await
        };
        assert!(!leases.leads());
        let refused = append(leases.leader()).await.unwrap_err();
        assert!(matches!(refused, AppendError::Fenced { .. }), "{refused}");
        append(leases.node()).await.unwrap();
        let leader = log.acquire(LEADER, "here", TTL, 0).await.unwrap();
        leases.lead(Some(&leader));
        assert!(leases.leads());
        assert_eq!(leases.leader().epoch, leader.epoch);
        leases.lead(None);
        assert_eq!(leases.leader().epoch, 0);
    }
}
