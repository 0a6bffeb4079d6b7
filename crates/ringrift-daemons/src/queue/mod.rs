//! Category `queue`: work that waits.

pub(crate) mod job_scheduler;
pub(crate) mod queue_populator;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] =
    &[Entry::of::<queue_populator::QueuePopulator>(), Entry::of::<job_scheduler::JobScheduler>()];
