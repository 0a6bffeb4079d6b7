//! Category `queue`.

pub(crate) mod queue_populator;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[Entry::of::<queue_populator::QueuePopulator>()];
