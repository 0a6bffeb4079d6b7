//! Category `distribution`.

pub(crate) mod model_distribution;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[Entry::of::<model_distribution::ModelDistribution>()];
