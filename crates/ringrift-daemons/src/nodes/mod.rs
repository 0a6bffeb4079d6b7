//! The nodes of a cluster as they are seen from here: who lives, who leads, and what each says of itself.
//!
//! What a node says stands as a note at its lease, which it prolongs anyway: it costs no message of its
//! own, only the last one is kept, and whoever looks for signs of life has read it already. Nothing that is
//! recorded about work rests on it: it is for people, and for the daemons that call them.

mod neighbours;
mod report;
mod view;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use courier::{Courier, Lease, Sightings};
use ringrift_pipeline::{Catalogue, CatalogueError, NodeId};
use tokio::time::Instant;
use tracing::warn;

use crate::{LEADER, NODES, lease_of};
pub use neighbours::{Asked, Given, NeighbourPort, Neighbours, Reached};
pub use report::{NodeReport, Reporter, SaidWork, Why};
use view::Copies;
pub use view::{ClusterView, NodeState, NodeView, survey, view_of};

/// The folder of a node's copy of the log, in its data directory.
pub const REPLICA: &str = "replica";
/// What daemons of a cluster say where there is none.
pub(crate) const ALONE: &str = "this machine is alone";
/// A node whose lease stood still for so long is taken for dead, and its work is given back. A node prolongs
/// its lease several times within this; one that was only cut off has its results refused.
pub const GONE: Duration = Duration::from_secs(30);
/// What is where is counted so often: it goes through all artefacts there are.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// A node that was silent for less is asked for artefacts.
pub const LIVES: Duration = Duration::from_secs(15);

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
pub struct Nodes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: Mutex<Sightings>,
    /// This one takes no work.
    is_drained: AtomicBool,
    /// This one leads when nobody else does.
    competes: AtomicBool,
    /// What this one says of itself, as it stands at its lease with the next prolonging.
    says: Mutex<String>,
    /// Since when nobody holds the leader's lease.
    unled: Mutex<Option<Instant>>,
    /// What is where, and when that was counted.
    copies: Mutex<Option<(Instant, Arc<Copies>)>>,
}

/// A node whose lease was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The node.
    pub node: NodeId,
    /// Which of its lives holds the lease.
    pub epoch: u64,
    /// For how long its lease stands still, by the clock of who looks; none if he looked only once.
    pub silent: Option<Duration>,
    /// For how long its lease is over, by the clocks of both.
    pub overdue: Option<Duration>,
    /// What it says of itself; none before it said anything.
    pub report: Option<NodeReport>,
}

impl Seen {
    /// Does it live, as far as can be seen?
    fn lives(&self) -> bool {
        self.silent.is_none_or(|silent| silent < LIVES) && self.overdue.is_none()
    }

    /// What one look at the log tells, by the clock of this machine.
    pub fn once(lease: &Lease, now_ms: i64) -> Option<Self> {
        let late = now_ms.saturating_sub(lease.expires_ms);
        let overdue = u64::try_from(late).ok().filter(|late| *late > 0).map(Duration::from_millis);
        Some(Self { overdue, ..Self::of(lease)? })
    }

    fn of(lease: &Lease) -> Option<Self> {
        let node = NodeId(lease.name.strip_prefix(NODES)?.to_owned());
        // What a newer program says in another way is not understood, and that is all.
        let report = serde_json::from_str(&lease.note).ok();
        Some(Self { node, epoch: lease.epoch, silent: None, overdue: None, report })
    }
}

impl Nodes {
    /// Says whether this node is drained: then it does not lead either.
    pub fn drain(&self, drained: bool) {
        self.0.is_drained.store(drained, Ordering::Relaxed);
    }

    /// Whether this node is drained.
    pub fn is_drained(&self) -> bool {
        self.0.is_drained.load(Ordering::Relaxed)
    }

    /// Says whether this node leads when nobody else does.
    pub fn compete(&self, competes: bool) {
        self.0.competes.store(competes, Ordering::Relaxed);
    }

    /// Whether this node leads when nobody else does.
    pub fn competes(&self) -> bool {
        self.0.competes.load(Ordering::Relaxed)
    }

    /// Says to the others what this node does, from the next prolonging of its lease on.
    pub fn say(&self, report: &NodeReport) {
        match serde_json::to_string(report) {
            Ok(text) => *self.0.says.lock().unwrap_or_else(PoisonError::into_inner) = text,
            Err(error) => warn!(%error, "what this node does cannot be written down"),
        }
    }

    /// What this node said last, as a note for its lease.
    pub fn said(&self) -> String {
        self.0.says.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// Says how long it may be from one look to the next: until then nobody counts as silent who was not.
    pub fn pause(&self, pause: Duration) {
        self.lock().pause(pause);
    }

    /// Takes note of all leases as they were at a moment.
    pub(crate) fn note(&self, leases: Vec<Lease>, at: Instant) {
        let is_led = leases.iter().any(|lease| lease.name == LEADER);
        self.lock().note(leases, at);
        let mut unled = self.0.unled.lock().unwrap_or_else(PoisonError::into_inner);
        *unled = if is_led { None } else { unled.or(Some(at)) };
    }

    /// What is seen of a node's lease.
    pub fn sight(&self, node: &NodeId) -> Sight {
        self.sight_of(&lease_of(node))
    }

    /// What is seen of the leader's lease.
    pub fn leaders_sight(&self) -> Sight {
        self.sight_of(LEADER)
    }

    /// For how long nobody leads, as seen from here: nobody prolongs the lease, or nobody has it.
    pub fn leaderless(&self) -> Duration {
        match self.leaders_sight() {
            Sight::Still(still) => still,
            Sight::Untold => Duration::ZERO,
            Sight::Left => {
                let unled = *self.0.unled.lock().unwrap_or_else(PoisonError::into_inner);
                unled.map_or(Duration::ZERO, |since| since.elapsed())
            }
        }
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

    /// All nodes that hold a lease, by name.
    pub fn seen(&self) -> Vec<Seen> {
        let now = Instant::now();
        let all = |(lease, silent)| Some(Seen { silent: Some(silent), ..Seen::of(lease)? });
        self.lock().all(now).filter_map(all).collect()
    }

    /// Who leads, in which grant, and for how long he has not been heard of; none if nobody does.
    pub fn leader(&self) -> Option<(NodeId, u64, Duration)> {
        let seen = self.lock();
        let (lease, silent) = seen.silent(LEADER, Instant::now())?;
        Some((NodeId(lease.holder.clone()), lease.epoch, silent))
    }

    /// What is where, as it was counted last.
    async fn copies(
        &self,
        catalogue: &Catalogue,
        seen: &[Seen],
    ) -> Result<Arc<Copies>, CatalogueError> {
        let kept = || self.0.copies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, copies)) = &*kept()
            && at.elapsed() < COUNT_EVERY
        {
            return Ok(Arc::clone(copies));
        }
        let copies = Arc::new(Copies::count(catalogue, seen).await?);
        *kept() = Some((Instant::now(), Arc::clone(&copies)));
        Ok(copies)
    }

    /// Whether anybody looked yet.
    pub fn looked(&self) -> bool {
        self.lock().looked()
    }

    /// Why nobody works any more on what a life of a node claimed; none while somebody may.
    pub(crate) fn gone(&self, node: &NodeId, epoch: u64) -> Option<String> {
        let seen = self.lock();
        match seen.silent(&lease_of(node), Instant::now()) {
            _ if !seen.looked() => None,
            None => Some(format!("node {node} has left")),
            // It began after the last look.
            Some((lease, _)) if lease.epoch < epoch => None,
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
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
