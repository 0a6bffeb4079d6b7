//! Category `sync`: data reaches where it is needed.

pub(crate) mod auto_sync;
pub(crate) mod planned;
pub(crate) mod stale_fallback;
pub(crate) mod training_node_watcher;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::planned(&planned::HIGH_QUALITY_SYNC),
    Entry::planned(&planned::ELO_SYNC),
    Entry::of::<auto_sync::AutoSync>(),
    Entry::of::<training_node_watcher::TrainingNodeWatcher>(),
    Entry::planned(&planned::TRAINING_DATA_SYNC),
    Entry::planned(&planned::OWC_IMPORT),
    Entry::planned(&planned::GOSSIP_SYNC),
    Entry::planned(&planned::S3_NODE_SYNC),
    Entry::planned(&planned::S3_CONSOLIDATION),
    Entry::planned(&planned::SYNC_PUSH),
    Entry::planned(&planned::UNIFIED_DATA_PLANE),
    Entry::of::<stale_fallback::StaleFallback>(),
];
