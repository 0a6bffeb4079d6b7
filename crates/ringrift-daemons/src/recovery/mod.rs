//! Category `recovery`: what broke or grows is put right.

pub(crate) mod coordinator_disk_manager;
pub(crate) mod disk_space_manager;
pub(crate) mod integrity_check;
pub(crate) mod orphan_detection;
pub(crate) mod planned;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::planned(&planned::RECOVERY_ORCHESTRATOR),
    Entry::planned(&planned::CACHE_COORDINATION),
    Entry::planned(&planned::MAINTENANCE),
    Entry::of::<orphan_detection::OrphanDetection>(),
    Entry::planned(&planned::DATA_CLEANUP),
    Entry::of::<disk_space_manager::DiskSpaceManager>(),
    Entry::of::<coordinator_disk_manager::CoordinatorDiskManager>(),
    Entry::of::<integrity_check::IntegrityCheck>(),
    Entry::planned(&planned::AVAILABILITY_RECOVERY_ENGINE),
    Entry::planned(&planned::CONNECTIVITY_RECOVERY),
];
