//! Category `distribution`: artefacts are handed out.

pub(crate) mod data_server;
pub(crate) mod model_distribution;
pub(crate) mod planned;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::planned(&planned::MODEL_SYNC),
    Entry::of::<model_distribution::ModelDistribution>(),
    Entry::of::<data_server::DataServer>(),
];
