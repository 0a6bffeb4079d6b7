//! Category `distribution`: artefacts are handed out.

pub(crate) mod model_distribution;
pub(crate) mod model_sync;
pub(crate) mod planned;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<model_sync::ModelSync>(),
    Entry::of::<model_distribution::ModelDistribution>(),
    Entry::planned(&planned::DATA_SERVER),
];
