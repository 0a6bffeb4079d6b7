//! The leases of a manager: that of its node, without which it ends, and that of the leader.
//!
//! No clock of another machine is believed: a lease is over when it stood still for as long as it is
//! granted for, as seen from here.

use std::time::Duration;

use courier::{Courier, Lease, LeaseError, Sightings};
use ringrift_daemons::{GONE, LEADER, LIVES, Leases, Nodes, Seen, lease_of, prolong};
use ringrift_pipeline::NodeId;
use tokio::time::Instant;
use tracing::{error, info, warn};
use warden::{Clock, Handle, Leadership};

/// Time for which leases are granted where no other node has the log: nobody waits for them, and each
/// prolonging is a write.
const ALONE: Duration = Duration::from_mins(2);
/// Time for which a node of a cluster gets its own lease.
const NODE: Duration = Duration::from_secs(30);
/// The same of a leader: so long after its last sign it is replaced.
const LEADER_OF_OTHERS: Duration = Duration::from_secs(6);
/// A lease is prolonged, or looked at, so often within its time.
const LOOKS: u32 = 4;
/// Who does not lead looks at the leases of others so seldom. Each look brings a node all that moved: a few dozen nodes
/// have moved within this, and twice as many cost as much in twice the time.
const LOOK_OF_FOLLOWERS: Duration = Duration::from_secs(4);
const NODES_A_SECOND: u64 = 10;
/// But not more seldom: a node prolongs its lease after 9 s at the latest, so all that live have moved.
const LONGEST_LOOK: Duration = Duration::from_secs(20);

/// What a manager holds.
pub struct Seat {
    log: Courier,
    node: NodeId,
    clock: Clock,
    /// Other nodes have the same log.
    shared: bool,
    /// Time for which this node's lease is granted.
    stay: Duration,
    /// The same of the leader's.
    term: Duration,
    /// Whether it leads when nobody does.
    competes: bool,
    own: Lease,
    /// When that was last prolonged, by our clock.
    own_prolonged: Instant,
    leader: Option<Lease>,
    /// When the lease of the leader was last prolonged, by our clock.
    prolonged: Instant,
    seen: Sightings,
    /// When the leases of others were looked at,
    looked: Instant,
    /// and for how long they are not.
    pause: Duration,
    leases: Leases,
    nodes: Nodes,
    /// The log is out of reach, and that was said.
    cut_off: bool,
}

impl Seat {
    /// Takes the lease of this node.
    ///
    /// Another process under the name of this node, as after a copy of its directory, loses its lease by
    /// this and ends.
    ///
    /// # Errors
    /// The log is out of reach.
    pub async fn take(
        log: &Courier,
        node: &NodeId,
        clock: &Clock,
        shared: bool,
    ) -> Result<Self, LeaseError> {
        let (stay, term) = if shared { (NODE, LEADER_OF_OTHERS) } else { (ALONE, ALONE) };
        let own = log.acquire(&lease_of(node), &node.0, stay, clock.now_ms()).await?;
        let seat = Self {
            log: log.clone(),
            node: node.clone(),
            clock: clock.clone(),
            shared,
            stay,
            term,
            competes: false,
            leases: Leases::of_node(&own),
            own,
            own_prolonged: Instant::now(),
            leader: None,
            prolonged: Instant::now(),
            seen: Sightings::default(),
            looked: Instant::now(),
            pause: Duration::ZERO,
            nodes: Nodes::default(),
            cut_off: false,
        };
        if shared {
            // Whoever asks at once hears who is there.
            seat.nodes.look(log).await.map_err(LeaseError::Failed)?;
        }
        Ok(seat)
    }

    /// Takes the lease of the leader, if it is free or an earlier life of this node left it; and whenever it is, later.
    ///
    /// # Errors
    /// The log is out of reach.
    pub async fn compete(&mut self) -> Result<(), LeaseError> {
        self.competes = true;
        self.nodes.compete(true);
        self.try_to_lead().await?;
        if self.shared {
            // Whoever asks at once hears who leads.
            self.nodes.look(&self.log).await.map_err(LeaseError::Failed)?;
        }
        Ok(())
    }

    /// Under what this node records.
    pub fn leases(&self) -> Leases {
        self.leases.clone()
    }

    /// The other nodes, which it looks for while it keeps its leases.
    pub fn nodes(&self) -> Nodes {
        self.nodes.clone()
    }

    /// Prolongs what is held, and leads when nobody else does; returns when this node lost its own lease.
    pub async fn keep(&mut self, handle: &Handle) {
        loop {
            tokio::time::sleep(self.term / LOOKS).await;
            let has_first_words = self.own.note.is_empty() && !self.nodes.said().is_empty();
            if (self.own_prolonged.elapsed() >= self.stay / LOOKS || has_first_words)
                && let Err(lost) = self.prolong_own().await
            {
                error!(error = %lost, "another process runs under the name of this node");
                self.leases.lead(None);
                return;
            }
            let led = self.leader.is_some();
            self.follow().await;
            if self.shared && self.looked.elapsed() >= self.pause {
                self.look().await;
            }
            let leads = self.leader.is_some();
            if led != leads {
                let leadership = if leads { Leadership::Held } else { Leadership::Lost };
                // Refused by a supervisor that ends: then nothing runs any more.
                drop(handle.lead(leadership).await);
            }
        }
    }

    async fn look(&mut self) {
        self.looked = Instant::now();
        let looked = self.nodes.look(&self.log).await;
        if !self.competes {
            self.pause = match &looked {
                Ok(()) => pause_of_followers(&self.nodes.seen()),
                Err(_) => LOOK_OF_FOLLOWERS,
            };
            self.nodes.pause(self.pause);
        }
        if let Err(error) = looked
            && !self.cut_off
        {
            warn!(%error, "who is in the cluster cannot be told");
        }
    }

    /// Gives back what is held.
    ///
    /// # Errors
    /// The log is out of reach; the leases run out by themselves.
    pub async fn leave(&mut self) -> Result<(), courier::Error> {
        self.leases.lead(None);
        if let Some(lease) = self.leader.take() {
            self.log.release(&lease).await?;
        }
        self.log.release(&self.own).await
    }

    /// Prolongs this node's lease, with what it says of itself.
    ///
    /// # Errors
    /// It is lost.
    async fn prolong_own(&mut self) -> Result<(), LeaseError> {
        let own = Lease { note: self.nodes.said(), ..self.own.clone() };
        match prolong(&self.log, &own, self.stay, self.clock.now_ms()).await {
            Ok(prolonged) => {
                self.own = prolonged;
                self.own_prolonged = Instant::now();
                if std::mem::take(&mut self.cut_off) {
                    info!("the log is within reach again");
                }
            }
            Err(LeaseError::Failed(failed)) => {
                if !std::mem::replace(&mut self.cut_off, true) {
                    warn!(error = %failed, "the leases are not prolonged");
                }
            }
            Err(lost) => return Err(lost),
        }
        Ok(())
    }

    async fn follow(&mut self) {
        if self.nodes.is_drained() {
            self.give_up().await;
            return;
        }
        let Some(lease) = self.leader.clone() else {
            if let Err(error) = self.try_to_lead().await
                && !self.cut_off
            {
                warn!(%error, "whether a node leads cannot be told");
            }
            return;
        };
        match prolong(&self.log, &lease, self.term, self.clock.now_ms()).await {
            Ok(prolonged) => {
                self.leader = Some(prolonged);
                self.prolonged = Instant::now();
            }
            // Without others nobody can have led meanwhile.
            Err(LeaseError::Failed(_)) if !self.shared || self.prolonged.elapsed() < self.term => {}
            Err(why) => {
                warn!(epoch = lease.epoch, %why, "this node leads no more");
                self.leader = None;
                self.leases.lead(None);
            }
        }
    }

    /// Lets another node lead.
    async fn give_up(&mut self) {
        let Some(lease) = self.leader.take() else { return };
        info!(epoch = lease.epoch, "this node is drained: another one leads");
        self.leases.lead(None);
        if let Err(error) = self.log.release(&lease).await {
            warn!(%error, "the lead is not given back; it runs out by itself");
        }
    }

    /// Takes the lease of the leader if nobody prolongs it.
    async fn try_to_lead(&mut self) -> Result<(), LeaseError> {
        if !self.competes {
            return Ok(());
        }
        let leases = self.log.leases(LEADER, i64::MIN).await?;
        let now = Instant::now();
        self.seen.note(leases, now);
        let as_of_ms = match self.seen.silent(LEADER, now) {
            Some((held, _)) if held.holder == self.node.0 => self.clock.now_ms(),
            // Just after its end by its holder's clock: who was faster than we holds it beyond that.
            Some((held, silent)) if silent >= self.term => held.expires_ms.saturating_add(1),
            Some(_) => return Ok(()),
            None => self.clock.now_ms(),
        };
        match self.log.acquire(LEADER, &self.node.0, self.term, as_of_ms).await {
            Ok(lease) => {
                info!(epoch = lease.epoch, node = %self.node, "this node leads");
                self.prolonged = Instant::now();
                self.leases.lead(Some(&lease));
                self.leader = Some(lease);
                Ok(())
            }
            Err(LeaseError::Held { by, .. }) => {
                info!(by, "another node leads");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// How long who does not lead waits before he looks again, if he sees these: not long while one of them may be gone.
fn pause_of_followers(seen: &[Seen]) -> Duration {
    let may_be_gone =
        |node: &Seen| node.silent.is_some_and(|silent| (LIVES..GONE).contains(&silent));
    if seen.iter().any(may_be_gone) {
        return LOOK_OF_FOLLOWERS;
    }
    let seconds = seen.len() as u64 / NODES_A_SECOND;
    Duration::from_secs(seconds).clamp(LOOK_OF_FOLLOWERS, LONGEST_LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_lead_looks_at_more_nodes_more_seldom_and_soon_again_if_one_is_silent() {
        let seen = |silent| Seen {
            node: NodeId("a".into()),
            epoch: 1,
            silent: Some(Duration::from_secs(silent)),
            overdue: None,
            report: None,
        };
        let check = |others: usize, silent: u64, pause: u64| {
            let mut all = vec![seen(0); others];
            all.push(seen(silent));
            assert_eq!(pause_of_followers(&all), Duration::from_secs(pause), "{others} {silent}");
        };
        for (others, pause) in [(0, 4), (4, 4), (39, 4), (79, 8), (199, 20), (9_999, 20)] {
            check(others, 0, pause);
        }
        for (silent, pause) in [(14, 20), (15, 4), (29, 4), (30, 20)] {
            check(199, silent, pause);
        }
    }
}
