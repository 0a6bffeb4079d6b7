//! The facts of the pipeline: ids, events, job specs, stages and the catalogue.
//!
//! What happened is an [`Event`] in the durable log; what is the case is the [`Catalogue`], a fold of
//! that log into tables. Daemons read only the catalogue and write only events. Nothing here knows a
//! daemon, a task or the clock: time comes in as milliseconds since the Unix epoch.

mod catalogue;
mod event;
mod fold;
mod ids;
mod job;
mod machines;
mod operational;
mod stage;
mod topic;

pub use catalogue::{
    AdviceRow, AllocationRow, AvailabilityRow, BatchRow, BatchState, BlobRow, Catalogue,
    CatalogueError, Champion, CopiesRow, CopyCounts, DistributionRow, GameTotals, HoldingRow,
    InvitationRow, MatchRow, Minute, ModelRow, ModelStatus, NodeHealthRow, NodeHoldings, NodeRow,
    ParametersRow, PromotionRow, Record, RecoveryRow, SamplesRow, Totals, TrainingRow, WindowRow,
    WorkCounts, WorkRow, WorkState,
};
pub use event::*;
pub use fold::PipelineFold;
pub use ids::{BlobHash, ModelId, NodeId, WorkId};
pub use job::*;
pub use machines::*;
pub use operational::*;
pub use ringrift_rules::Config;
pub use stage::{Stage, StageView, stage_of};
pub use topic::{Body, Field, Kind, PARTS, Topic, kinds, resolve};
