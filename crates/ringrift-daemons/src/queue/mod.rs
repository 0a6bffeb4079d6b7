//! Category `queue`: work that waits.

pub(crate) mod planned;
pub(crate) mod queue_populator;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] =
    &[Entry::of::<queue_populator::QueuePopulator>(), Entry::planned(&planned::JOB_SCHEDULER)];
