//! Category `sync`: data reaches where it is needed.

pub(crate) mod auto_sync;
pub(crate) mod gossip_sync;
pub(crate) mod high_quality_sync;
pub(crate) mod planned;
pub(crate) mod sync_push;
pub(crate) mod training_data_sync;
pub(crate) mod training_node_watcher;
pub(crate) mod whereabouts;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<high_quality_sync::HighQualitySync>(),
    Entry::planned(&planned::ELO_SYNC),
    Entry::of::<auto_sync::AutoSync>(),
    Entry::of::<training_node_watcher::TrainingNodeWatcher>(),
    Entry::of::<training_data_sync::TrainingDataSync>(),
    Entry::planned(&planned::OWC_IMPORT),
    Entry::of::<gossip_sync::GossipSync>(),
    Entry::planned(&planned::S3_NODE_SYNC),
    Entry::planned(&planned::S3_CONSOLIDATION),
    Entry::of::<sync_push::SyncPush>(),
    Entry::planned(&planned::UNIFIED_DATA_PLANE),
    Entry::planned(&planned::STALE_FALLBACK),
];
