//! Category `event`: facts reach who waits for them.

pub(crate) mod dlq_retry;
pub(crate) mod event_router;
pub(crate) mod planned;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<event_router::EventRouter>(),
    Entry::planned(&planned::CROSS_PROCESS_POLLER),
    Entry::of::<dlq_retry::DlqRetry>(),
];
