//! Category `sync`: data reaches where it is needed.

pub(crate) mod auto_sync;
pub(crate) mod elo_sync;
pub(crate) mod planned;
pub(crate) mod s3_consolidation;
pub(crate) mod s3_node_sync;
pub(crate) mod training_node_watcher;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::planned(&planned::HIGH_QUALITY_SYNC),
    Entry::of::<elo_sync::EloSync>(),
    Entry::of::<auto_sync::AutoSync>(),
    Entry::of::<training_node_watcher::TrainingNodeWatcher>(),
    Entry::planned(&planned::TRAINING_DATA_SYNC),
    Entry::planned(&planned::OWC_IMPORT),
    Entry::planned(&planned::GOSSIP_SYNC),
    Entry::of::<s3_node_sync::S3NodeSync>(),
    Entry::of::<s3_consolidation::S3Consolidation>(),
    Entry::planned(&planned::SYNC_PUSH),
    Entry::planned(&planned::UNIFIED_DATA_PLANE),
    Entry::planned(&planned::STALE_FALLBACK),
];
