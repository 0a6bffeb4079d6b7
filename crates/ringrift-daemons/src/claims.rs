//! Claimed items: taken from the queue by one node, run by a worker, ended by one append.
//!
//! The state of an item is its last fact. Each step here expects that fact, so an item is never
//! taken twice, and its result and its end enter the log together or not at all.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{
    Catalogue, CatalogueError, Job, Record, Topic as _, WorkClaimed, WorkCompleted, WorkFailed,
    WorkId, WorkKind, WorkReleased, WorkRow, WorkState,
};
use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};
use warden::{Cx, DaemonId, Health};

use crate::{
    Finished, Loop, Order, Product, Report, Running, WorkError, Workshop,
    queue::job_scheduler::allowance, registry,
};

/// What this part says in the name of its daemon.
pub(crate) const EMITS: &[&str] =
    &[WorkClaimed::TOPIC, WorkReleased::TOPIC, WorkFailed::TOPIC, WorkCompleted::TOPIC];
/// Attempts at one item; source: the worker contract, 3.
pub(crate) const MAX_ATTEMPTS: u32 = 3;
/// Least main memory that a machine trains with, bytes: the learner's rows and one worker beside it.
pub(crate) const TRAINING_MEMORY: u64 = 1 << 30;
/// Pause before anything is claimed again after an obstacle.
const REST: Duration = Duration::from_secs(5);
/// Time for workers to leave at an orderly stop: inside the 30 s that a level of daemons has.
const WIND_DOWN: Duration = Duration::from_secs(20);

/// The items of one kind that this node holds.
pub(crate) struct Claims {
    kind: WorkKind,
    owner: DaemonId,
    /// Only the node that leads runs the owner, so only it works on such items.
    leader_only: bool,
    the_loop: Arc<Loop>,
    catalogue: Catalogue,
    workshop: Workshop,
    held: BTreeMap<WorkId, Held>,
    counts: ClaimCounts,
    resting: Option<(Instant, String)>,
    trouble: Option<String>,
}

/// What became of items since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ClaimCounts {
    /// Items in hand.
    pub(crate) held: usize,
    /// Items done.
    pub(crate) completed: u64,
    /// Attempts that failed.
    pub(crate) failed: u64,
    /// Items given back.
    pub(crate) released: u64,
}

struct Held {
    running: Running,
    /// Position of the claim: what the next fact on the item expects.
    position: u64,
    products: Vec<Product>,
    end: Option<Result<Finished, WorkError>>,
}

/// An item whose worker has ended.
pub(crate) struct Done {
    pub(crate) order: Order,
    pub(crate) end: Result<Finished, WorkError>,
    held: Held,
}

impl Claims {
    pub(crate) fn new(
        kind: WorkKind,
        owner: DaemonId,
        the_loop: Arc<Loop>,
        catalogue: Catalogue,
        workshop: Workshop,
    ) -> Self {
        let leads = registry().any(|(_, entry)| entry.spec.id == owner && entry.spec.leader_only);
        let claims = Self {
            kind,
            owner,
            leader_only: leads,
            the_loop,
            catalogue,
            workshop,
            held: BTreeMap::new(),
            counts: ClaimCounts::default(),
            resting: None,
            trouble: None,
        };
        // Nothing holds back for a kind that is never taken here.
        claims.workshop.claims(kind, claims.lacks().is_none());
        claims
    }

    /// What this machine lacks for such items, if another one of its cluster may have it.
    fn lacks(&self) -> Option<String> {
        let memory = self.the_loop.memory;
        let is_small = self.kind == WorkKind::Train && memory < TRAINING_MEMORY;
        (self.the_loop.shared && is_small).then(|| {
            format!(
                "this machine has {} MiB of memory, and a training wants {}: it leaves trainings to others",
                memory >> 20,
                TRAINING_MEMORY >> 20
            )
        })
    }

    /// Whether this node takes one more item of its kind: in a cluster its share of the slots, and more while
    /// nothing of another kind waits for its own share.
    pub(crate) fn has_turn(&self, open: &[WorkRow]) -> bool {
        if !self.the_loop.shared {
            return true;
        }
        if self.lacks().is_some() {
            return false;
        }
        let (slots, kinds) = (self.workshop.slots(), self.workshop.kinds());
        if self.held.len() < allowance(self.kind, slots, &kinds) {
            return true;
        }
        self.workshop.free() > 0
            && !kinds.iter().any(|kind| {
                let of_kind = |item: &&WorkRow| item.kind == *kind;
                let mine = |item: &&WorkRow| item.node.as_ref() == Some(&self.the_loop.node);
                let held = open.iter().filter(of_kind).filter(mine).count();
                let waits = |item: &WorkRow| {
                    item.state == WorkState::Queued && self.the_loop.configs.contains(&item.config)
                };
                *kind != self.kind
                    && held < allowance(*kind, slots, &kinds)
                    && open.iter().filter(of_kind).any(waits)
            })
    }

    pub(crate) fn counts(&self) -> ClaimCounts {
        ClaimCounts { held: self.held.len(), ..self.counts }
    }

    /// Gives back what an earlier life of this node, or a node that is gone, left claimed.
    pub(crate) async fn release_lost(
        &mut self,
        open: &[WorkRow],
        now_ms: i64,
    ) -> Result<(), CatalogueError> {
        let is_claimed = |item: &&WorkRow| {
            item.kind == self.kind
                && item.state == WorkState::Claimed
                && !self.held.contains_key(&item.id)
        };
        let claimed: Vec<&WorkRow> = open.iter().filter(is_claimed).collect();
        let is_of_another = |item: &WorkRow| item.node.as_ref() != Some(&self.the_loop.node);
        if !self.leader_only
            && claimed.iter().any(|item| is_of_another(item) && self.lost(item).is_some())
        {
            // The last look at the others may be older than the claim: the node may have begun since.
            self.the_loop.nodes.look(self.catalogue.log()).await?;
        }
        for item in claimed {
            let Some(reason) = self.lost(item) else { continue };
            info!(work = %item.id, reason, "item given back");
            let released = WorkReleased { work: item.id.clone(), reason };
            match self.catalogue.record(vec![Record::after(released, item.position)], now_ms).await
            {
                Ok(_) => self.counts.released += 1,
                // Another node gave it back, or its own one has ended it after all.
                Err(error) if error.is_superseded() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Why nobody works on this claimed item any more, although we do not; none while another node may.
    fn lost(&self, item: &WorkRow) -> Option<String> {
        let is_of_this_life = item.epoch == self.catalogue.epoch();
        match &item.node {
            Some(node) if *node != self.the_loop.node && self.leader_only => {
                Some(format!("node {node} does not lead any more"))
            }
            Some(node) if *node != self.the_loop.node => self.the_loop.nodes.gone(node, item.epoch),
            _ if is_of_this_life => Some("the daemon that worked on it was restarted".into()),
            _ => Some("the process that worked on it is gone".into()),
        }
    }

    /// The obstacle in force, if claiming rests because of one.
    pub(crate) fn resting(&self) -> Option<&str> {
        let (until, reason) = self.resting.as_ref()?;
        (*until > Instant::now()).then_some(reason)
    }

    /// Claims a queued item and starts its worker; false if somebody else was faster.
    pub(crate) async fn take(
        &mut self,
        item: &WorkRow,
        job: Job,
        cx: &Cx,
    ) -> Result<bool, CatalogueError> {
        let attempt = item.attempt + 1;
        let claim = WorkClaimed {
            work: item.id.clone(),
            attempt,
            node: self.the_loop.node.clone(),
            epoch: self.catalogue.epoch(),
        };
        let position = match self
            .catalogue
            .record(vec![Record::after(claim, item.position)], cx.now())
            .await
        {
            Err(error) if error.is_superseded() => return Ok(false),
            recorded => recorded?,
        };
        let order =
            Order { work: item.id.clone(), attempt, config: item.config, job, owner: self.owner };
        let running = self.workshop.start(order, &cx.token());
        let held = Held { running, position, products: Vec::new(), end: None };
        self.held.insert(item.id.clone(), held);
        Ok(true)
    }

    /// Listens to the workers.
    pub(crate) fn poll(&mut self) {
        for held in self.held.values_mut() {
            while held.end.is_none()
                && let Some(report) = held.running.try_next()
            {
                held.hear(report);
            }
        }
    }

    /// Files of a role that workers handed over since the last call, before their end.
    pub(crate) fn early(&mut self, role: &str) -> Vec<(Order, Product)> {
        let mut found = Vec::new();
        for held in self.held.values_mut() {
            let order = held.running.order.clone();
            held.products.retain(|product| {
                let wanted = product.role == role;
                if wanted {
                    found.push((order.clone(), product.clone()));
                }
                !wanted
            });
        }
        found
    }

    /// Takes one ended item; [`Claims::settle`] must follow.
    pub(crate) fn next_done(&mut self) -> Option<Done> {
        let id = self.held.iter().find(|(_, held)| held.end.is_some())?.0.clone();
        let mut held = self.held.remove(&id)?;
        let end = held.end.take()?;
        Some(Done { order: held.running.order.clone(), end, held })
    }

    /// Ends an item by one append: with the facts that its result gives, or with why it gave none.
    ///
    /// An obstacle keeps the result in hand for the next cycle. If somebody else moved the item, the
    /// result is void and forgotten: false.
    pub(crate) async fn settle(
        &mut self,
        mut done: Done,
        result: Result<Vec<Record>, WorkError>,
        now_ms: i64,
    ) -> Result<bool, CatalogueError> {
        let (work, attempt) = (done.order.work.clone(), done.order.attempt);
        let position = done.held.position;
        let records = match &result {
            Ok(facts) => {
                let seconds = done.end.as_ref().map_or(0.0, |finished| finished.seconds);
                let completed = WorkCompleted { work: work.clone(), seconds };
                let mut records = vec![Record::after(completed, position)];
                records.extend(facts.iter().cloned());
                records
            }
            Err(WorkError::Stopped | WorkError::Obstacle(_)) => {
                let reason = result.as_ref().err().map_or_else(String::new, ToString::to_string);
                vec![Record::after(WorkReleased { work: work.clone(), reason }, position)]
            }
            Err(error) => {
                let last = attempt >= MAX_ATTEMPTS || matches!(error, WorkError::Never(_));
                let error = error.to_string();
                let failed = WorkFailed { work: work.clone(), attempt, error, last };
                vec![Record::after(failed, position)]
            }
        };
        match self.catalogue.record(records, now_ms).await {
            Ok(_) => {}
            Err(error) if error.is_superseded() => {
                warn!(%work, attempt, %error, "result is void");
                return Ok(false);
            }
            Err(error) => {
                done.held.end = Some(done.end);
                self.held.insert(work, done.held);
                return Err(error);
            }
        }
        match result {
            Ok(_) => {
                self.counts.completed += 1;
                self.trouble = None;
            }
            Err(WorkError::Stopped) => self.counts.released += 1,
            Err(WorkError::Obstacle(reason)) => {
                self.counts.released += 1;
                self.resting = Some((Instant::now() + REST, reason));
            }
            Err(error) => {
                self.counts.failed += 1;
                self.trouble = Some(format!("{work}, attempt {attempt}: {error}"));
            }
        }
        Ok(true)
    }

    /// Does a worker of ours run it, whoever holds the claim?
    pub(crate) fn holds(&self, work: &WorkId) -> bool {
        self.held.contains_key(work)
    }

    /// What ended well and could not be recorded yet.
    pub(crate) fn in_hand(&self) -> impl Iterator<Item = (&Order, &Finished)> {
        self.held
            .values()
            .filter_map(|held| Some((&held.running.order, held.end.as_ref()?.as_ref().ok()?)))
    }

    /// At an orderly stop: waits until the workers have finished the unit in hand, at most 20 s.
    pub(crate) async fn wind_down(&mut self) {
        let until = Instant::now() + WIND_DOWN;
        for held in self.held.values_mut() {
            held.running.stop();
        }
        for held in self.held.values_mut() {
            while held.end.is_none() {
                match tokio::time::timeout_at(until, held.running.next()).await {
                    Ok(report) => held.hear(report),
                    Err(_) => held.end = Some(Err(WorkError::Stopped)),
                }
            }
        }
    }

    /// Degraded while the last item that ended failed, and where no item will ever be taken.
    pub(crate) fn health(&self) -> Health {
        let resting = || self.resting().map(ToOwned::to_owned);
        let reason = self.lacks().or_else(|| self.trouble.clone()).or_else(resting);
        reason.map_or(Health::Healthy, Health::Degraded)
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.workshop.claims(self.kind, false);
    }
}

impl Held {
    fn hear(&mut self, report: Report) {
        match report {
            Report::Progress => {}
            Report::Product(product) => self.products.push(product),
            Report::End(end) => self.end = Some(end),
        }
    }
}
