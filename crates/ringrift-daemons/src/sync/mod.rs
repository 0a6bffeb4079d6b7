//! Category `sync`: data reaches where it is needed.

pub(crate) mod auto_sync;
pub(crate) mod elo_sync;
pub(crate) mod gossip_sync;
pub(crate) mod high_quality_sync;
pub(crate) mod last_copies;
pub(crate) mod planned;
pub(crate) mod s3_consolidation;
pub(crate) mod s3_node_sync;
pub(crate) mod stale_fallback;
pub(crate) mod sync_push;
pub(crate) mod training_data_sync;
pub(crate) mod training_node_watcher;
pub(crate) mod whereabouts;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<high_quality_sync::HighQualitySync>(),
    Entry::of::<elo_sync::EloSync>(),
    Entry::of::<auto_sync::AutoSync>(),
    Entry::of::<training_node_watcher::TrainingNodeWatcher>(),
    Entry::of::<training_data_sync::TrainingDataSync>(),
    Entry::planned(&planned::OWC_IMPORT),
    Entry::of::<gossip_sync::GossipSync>(),
    Entry::of::<s3_node_sync::S3NodeSync>(),
    Entry::of::<s3_consolidation::S3Consolidation>(),
    Entry::of::<sync_push::SyncPush>(),
    Entry::planned(&planned::UNIFIED_DATA_PLANE),
    Entry::of::<stale_fallback::StaleFallback>(),
];
