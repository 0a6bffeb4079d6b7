//! Category `misc`: what fits nowhere else.

pub(crate) mod p2p_backend;
pub(crate) mod planned;
pub(crate) mod s3_backup;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<s3_backup::S3Backup>(),
    Entry::planned(&planned::DISTILLATION),
    Entry::planned(&planned::EXTERNAL_DRIVE_SYNC),
    Entry::planned(&planned::VAST_CPU_PIPELINE),
    Entry::of::<p2p_backend::P2pBackend>(),
    Entry::planned(&planned::P2P_AUTO_DEPLOY),
    Entry::planned(&planned::METRICS_ANALYSIS),
];
