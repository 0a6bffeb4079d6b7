//! The catalogue: what is the case, folded from what happened. Daemons read it and record events
//! through it; nobody writes its tables.

mod figures;
mod holdings;
mod later;
mod machines;
mod members;
mod queries;
mod rows;
mod shared;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use courier::{
    AppendError, Batch, Courier, Fence, FoldError, Folder, NewFact, Outbox, Reader, Stream,
};

use crate::{Event, NodeId, Operational, gate_subject, operational::GateChanged};
pub use figures::{Minute, Totals};
pub use holdings::{CopiesRow, CopyCounts, HoldingRow, NodeHoldings};
pub use machines::{AvailabilityRow, NodeHealthRow, RecoveryRow};
pub use members::{InvitationRow, NodeRow};
pub use rows::{
    AdviceRow, AllocationRow, BatchRow, BatchState, BlobRow, Champion, DistributionRow, GameTotals,
    MatchRow, ModelRow, ModelStatus, ParametersRow, PromotionRow, SamplesRow, TrainingRow,
    WindowRow, WorkCounts, WorkRow, WorkState,
};

/// Longest wait for the fold of one's own append. A fold of a thousand facts takes some
/// milliseconds; ten seconds mean that the disk or the machine is in trouble.
const FOLD_LIMIT: Duration = Duration::from_secs(10);

/// Why the catalogue could not answer or record.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Somebody else moved the subject first, or the lease is gone: look again and decide again.
    #[error("record {topic}: {source}")]
    Superseded {
        /// The topic of the first event of the batch.
        topic: &'static str,
        /// What the log says.
        source: AppendError,
    },
    /// No space is left on the device; goes on by itself when there is some.
    #[error("record {topic}: no space is left in the data directory")]
    Full {
        /// The topic of the first event of the batch.
        topic: &'static str,
    },
    /// The log refused or failed.
    #[error("record {topic}: {source}")]
    Append {
        /// The topic of the first event of the batch.
        topic: &'static str,
        /// What the log says.
        source: AppendError,
    },
    /// The log could not be read.
    #[error("read the log: {0}")]
    Log(#[from] courier::Error),
    /// The fold does not follow the log.
    #[error("fold the log: {0}")]
    Fold(#[from] FoldError),
}

impl CatalogueError {
    /// Expected in normal running: look again next cycle.
    pub fn is_superseded(&self) -> bool {
        matches!(self, Self::Superseded { .. })
    }

    /// No space is left for the log.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Log(courier::Error::Full { .. }))
    }

    /// An obstacle, not a crash: the disk is full, the log is out of reach, or the fold is held up. It
    /// goes on by itself.
    pub fn is_obstacle(&self) -> bool {
        matches!(
            self,
            Self::Full { .. }
                | Self::Log(courier::Error::Full { .. } | courier::Error::Unavailable(_))
                | Self::Append { source: AppendError::Failed(courier::Error::Unavailable(_)), .. }
                | Self::Fold(FoldError::Stuck { .. } | FoldError::Late { .. })
        )
    }

    /// The log is out of reach: this node of a cluster is cut off.
    pub fn is_out_of_reach(&self) -> bool {
        matches!(
            self,
            Self::Log(courier::Error::Unavailable(_))
                | Self::Append { source: AppendError::Failed(courier::Error::Unavailable(_)), .. }
        )
    }
}

/// An event to record, and what its subject's last position must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    event: Event,
    expect: Option<u64>,
    key: Option<String>,
    cause: Option<String>,
}

impl Record {
    /// Records `event` only if its subject's last fact is still at `position` (0 = there is none).
    pub fn after(event: impl Into<Event>, position: u64) -> Self {
        Self { event: event.into(), expect: Some(position), key: None, cause: None }
    }

    /// The first event of its subject.
    pub fn first(event: impl Into<Event>) -> Self {
        Self::after(event, 0)
    }

    /// Records `event` whatever its subject's state: for statements that stand alone.
    pub fn always(event: impl Into<Event>) -> Self {
        Self { event: event.into(), expect: None, key: None, cause: None }
    }

    /// Records `event` once: the same statement under the same key is a no-op.
    pub fn once(event: impl Into<Event>, key: impl Into<String>) -> Self {
        Self { event: event.into(), expect: None, key: Some(key.into()), cause: None }
    }

    /// Names the fact that led to this one.
    #[must_use]
    pub fn caused_by(mut self, id: impl Into<String>) -> Self {
        self.cause = Some(id.into());
        self
    }

    /// The same record made again (after a lost answer) has the same id, and is then a no-op. The
    /// source is part of it: two writers that expect the same position do not mistake each other's
    /// fact for their own.
    fn into_fact(self, source: &str, now_ms: i64) -> Result<NewFact, serde_json::Error> {
        let subject = self.event.subject();
        let topic = self.event.topic();
        let id = match (self.expect, &self.key) {
            (Some(position), _) => format!("{subject}/{position}/{topic}/{source}"),
            (None, Some(key)) => format!("{subject}/{key}/{topic}/{source}"),
            (None, None) => format!("{subject}/t{now_ms}/{topic}/{source}"),
        };
        let body = serde_json::to_value(&self.event)?;
        let mut fact = NewFact::new(id, subject, source, body);
        if let Some(position) = self.expect {
            fact = fact.after(position);
        }
        if let Some(cause) = self.cause {
            fact = fact.caused_by(cause);
        }
        Ok(fact)
    }
}

/// The handle to the catalogue; a clone is the same catalogue.
#[derive(Clone)]
pub struct Catalogue {
    log: Courier,
    folder: Option<Arc<Folder>>,
    reader: Reader,
    /// Last position that a clone of this handle appended: reads wait until it is folded, so that
    /// everyone sees this process's own writes.
    recorded: Arc<AtomicU64>,
    source: String,
    /// What the writer declares to record; none = anything.
    emits: Option<&'static [&'static [&'static str]]>,
    fence: Option<Fence>,
    /// Gates and alarms are those of this node of a cluster; none = there is one for all.
    node: Option<NodeId>,
    /// Keeps what a log out of reach cannot take.
    outbox: Option<Outbox>,
}

impl Catalogue {
    /// A catalogue that may record: appends go to `log`, and are folded by `folder` before
    /// [`Catalogue::record`] returns.
    pub fn new(log: Courier, folder: Folder) -> Self {
        let reader = folder.reader();
        Self {
            log,
            folder: Some(Arc::new(folder)),
            reader,
            recorded: Arc::default(),
            source: "ringrift".to_owned(),
            emits: None,
            fence: None,
            node: None,
            outbox: None,
        }
    }

    /// A catalogue that only reads, beside a running manager or without one.
    pub fn read_only(log: Courier, reader: Reader) -> Self {
        Self {
            log,
            folder: None,
            reader,
            recorded: Arc::default(),
            source: "reader".to_owned(),
            emits: None,
            fence: None,
            node: None,
            outbox: None,
        }
    }

    /// The same catalogue, whose gates and alarms are those of one node of a cluster.
    #[must_use]
    pub fn of_node(&self, node: Option<NodeId>) -> Self {
        Self { node, ..self.clone() }
    }

    /// What a gate or an alarm of this name is called in the log: in a cluster each node has its own.
    pub fn called_here(&self, name: &str) -> String {
        match &self.node {
            Some(node) => format!("{name}@{node}"),
            None => name.to_owned(),
        }
    }

    /// The same catalogue for another writer; `source` appears on its facts.
    #[must_use]
    pub fn for_source(&self, source: impl Into<String>) -> Self {
        Self { source: source.into(), ..self.clone() }
    }

    /// The same catalogue for a writer that declares the topics of all facts it records.
    ///
    /// With debug assertions another topic is a panic, so that tests find what a declaration leaves
    /// out. Without them the fact is recorded: a document that lags behind must not stop the loop.
    #[must_use]
    pub fn that_emits(&self, topics: &'static [&'static [&'static str]]) -> Self {
        Self { emits: Some(topics), ..self.clone() }
    }

    fn declares(&self, topic: &str) -> bool {
        self.emits.is_none_or(|groups| groups.iter().any(|group| group.contains(&topic)))
    }

    /// The same catalogue under a lease: appends of an epoch that is over are refused.
    #[must_use]
    pub fn fenced(&self, fence: Fence) -> Self {
        Self { fence: Some(fence), ..self.clone() }
    }

    /// The epoch under which this handle records; 0 without a lease.
    pub fn epoch(&self) -> u64 {
        self.fence.as_ref().map_or(0, |fence| fence.epoch)
    }

    /// The lease under which this handle records.
    pub fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }

    /// The log below.
    pub fn log(&self) -> &Courier {
        &self.log
    }

    /// Records events: all or none, one append. Returns when this catalogue shows them.
    pub async fn record(&self, records: Vec<Record>, now_ms: i64) -> Result<u64, CatalogueError> {
        let Some(topic) = records.first().map(|record| record.event.topic()) else { return Ok(0) };
        let mut batch = self.batch_of(records, now_ms)?;
        batch.fence = self.fence.clone();
        let positions = self.log.append(Stream::Pipeline, batch, now_ms).await.map_err(
            |source| match source {
                AppendError::Conflict { .. } | AppendError::Fenced(_) => {
                    CatalogueError::Superseded { topic, source }
                }
                AppendError::Failed(courier::Error::Full { .. }) => CatalogueError::Full { topic },
                source => CatalogueError::Append { topic, source },
            },
        )?;
        let last = positions.into_iter().max().unwrap_or(0);
        self.recorded.fetch_max(last, Ordering::AcqRel);
        self.settled().await?;
        Ok(last)
    }

    /// The facts of some records, without a fence.
    fn batch_of(&self, records: Vec<Record>, now_ms: i64) -> Result<Batch, CatalogueError> {
        let mut facts = Vec::with_capacity(records.len());
        for record in records {
            let topic = record.event.topic();
            debug_assert!(
                self.declares(topic),
                "{} records {topic}, which it does not declare",
                self.source
            );
            facts.push(record.into_fact(&self.source, now_ms).map_err(|e| {
                CatalogueError::Append {
                    topic,
                    source: AppendError::Invalid { what: format!("an event that is no JSON: {e}") },
                }
            })?);
        }
        Ok(Batch::new(facts))
    }

    /// Waits until everything that this process recorded is folded.
    pub(crate) async fn settled(&self) -> Result<(), CatalogueError> {
        if let Some(folder) = &self.folder {
            let last = self.recorded.load(Ordering::Acquire);
            if folder.position() < last {
                folder.caught_up(last, FOLD_LIMIT).await?;
            }
        }
        Ok(())
    }

    /// The last position that this catalogue shows; 0 if it is read only.
    pub fn shown_to(&self) -> u64 {
        self.folder.as_ref().map_or(0, |folder| folder.position())
    }

    /// Waits until this catalogue shows all up to a position, whoever recorded it.
    ///
    /// # Errors
    /// The fold is stuck, or not as far within the limit.
    pub async fn shows(&self, position: u64, limit: Duration) -> Result<(), CatalogueError> {
        if let Some(folder) = &self.folder {
            folder.caught_up(position, limit).await?;
        }
        Ok(())
    }

    /// Notes an operational fact; it decides nothing and is forgotten after its retention.
    ///
    /// # Errors
    /// [`CatalogueError::Superseded`] if the lease of this handle was lost, as for all that it records.
    pub async fn note(&self, fact: Operational, now_ms: i64) -> Result<(), CatalogueError> {
        self.note_all(vec![fact], now_ms).await
    }

    /// Notes what happened at one moment, in one append: what comes in crowds waits for the disk once.
    pub async fn note_all(
        &self,
        facts: Vec<Operational>,
        now_ms: i64,
    ) -> Result<(), CatalogueError> {
        let Some(topic) = facts.first().map(Operational::topic) else { return Ok(()) };
        let head = self.log.head(Stream::Operational).await?;
        let mut batch = Vec::with_capacity(facts.len());
        for (number, fact) in facts.iter().enumerate() {
            let topic = fact.topic();
            debug_assert!(
                self.declares(topic),
                "{} records {topic}, which it does not declare",
                self.source
            );
            let subject = fact.subject();
            let body = serde_json::to_value(fact).map_err(|e| CatalogueError::Append {
                topic,
                source: AppendError::Invalid { what: format!("an event that is no JSON: {e}") },
            })?;
            let id = format!("{subject}/{now_ms}/{head}+{number}/{}", self.source);
            batch.push(NewFact::new(id, subject, self.source.clone(), body));
        }
        let batch = Batch { facts: batch, fence: self.fence.clone() };
        match self.log.append(Stream::Operational, batch, now_ms).await {
            Ok(_) => Ok(()),
            Err(source @ AppendError::Fenced(_)) => {
                Err(CatalogueError::Superseded { topic, source })
            }
            Err(AppendError::Failed(courier::Error::Full { .. })) => {
                Err(CatalogueError::Full { topic })
            }
            Err(source) => Err(CatalogueError::Append { topic, source }),
        }
    }

    /// Stores a gate's answer if its code differs from the stored one; returns whether it did.
    pub async fn tell_gate(
        &self,
        mut gate: GateChanged,
        now_ms: i64,
    ) -> Result<bool, CatalogueError> {
        let before = self.gate(&gate.gate, gate.config).await?;
        if before.as_ref().is_some_and(|(stored, _)| stored.code == gate.code) {
            return Ok(false);
        }
        gate.gate = self.called_here(&gate.gate);
        self.note(Operational::GateChanged(gate), now_ms).await?;
        Ok(true)
    }

    /// The stored answer of a gate and since when (ms) it stands.
    pub async fn gate(
        &self,
        gate: &str,
        config: Option<ringrift_rules::Config>,
    ) -> Result<Option<(GateChanged, i64)>, CatalogueError> {
        let subject = gate_subject(&self.called_here(gate), config);
        let Some(fact) = self.log.last_on(Stream::Operational, &subject).await? else {
            return Ok(None);
        };
        match serde_json::from_value(fact.body) {
            Ok(Operational::GateChanged(gate)) => Ok(Some((gate, fact.time_ms))),
            _ => Ok(None),
        }
    }

    /// Position up to which the log is folded.
    pub async fn position(&self) -> Result<u64, CatalogueError> {
        match &self.folder {
            Some(folder) => Ok(folder.position()),
            None => Ok(self.log.head(Stream::Pipeline).await?),
        }
    }
}
