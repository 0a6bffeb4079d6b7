//! The leases under which a node records.
//!
//! Every node holds one of its own, which claims of work carry; one node holds that of the leader as
//! well, which everything that a leader-only daemon records carries. Whoever lost a lease is refused by
//! the log, so a node that was taken for dead can do no harm.

use std::time::Duration;

use courier::{Courier, Fence, Lease, LeaseError};
use ringrift_pipeline::NodeId;
use tokio::sync::watch;

/// The lease of the node that leads.
pub const LEADER: &str = "leader";
/// What the names of the nodes' own leases begin with.
pub const NODES: &str = "node.";

/// The lease of a node.
pub fn lease_of(node: &NodeId) -> String {
    format!("{NODES}{node}")
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
        Self { node: lease.fence(), leader: watch::Sender::new(None) }
    }

    /// Says under which lease this node leads, or that it does not lead any more.
    pub fn lead(&self, lease: Option<&Lease>) {
        self.leader.send_replace(lease.map(Lease::fence));
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
    use crate::{Nodes, Sight};

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
        assert_eq!((nodes.sight(&there), nodes.leaders_sight()), (Sight::Untold, Sight::Untold));
        let held = log.acquire(&lease_of(&there), "there", TTL, 0).await.unwrap();
        log.acquire(LEADER, "there", TTL, 0).await.unwrap();
        nodes.look(&log).await.unwrap();
        let moves = |sight| matches!(sight, Sight::Still(still) if still < TTL);
        assert!(moves(nodes.sight(&there)) && moves(nodes.leaders_sight()));
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
        assert!(matches!(refused, AppendError::Fenced(_)), "{refused}");
        append(leases.node()).await.unwrap();
        let leader = log.acquire(LEADER, "here", TTL, 0).await.unwrap();
        leases.lead(Some(&leader));
        assert!(leases.leads());
        assert_eq!(leases.leader().epoch, leader.epoch);
        leases.lead(None);
        assert_eq!(leases.leader().epoch, 0);
    }
}
