//! Category `distribution`: artefacts are handed out.

pub(crate) mod data_server;
pub(crate) mod model_distribution;
pub(crate) mod model_sync;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<model_sync::ModelSync>(),
    Entry::of::<model_distribution::ModelDistribution>(),
    Entry::of::<data_server::DataServer>(),
];
