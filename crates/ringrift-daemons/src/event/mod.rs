//! Category `event`: facts reach who waits for them.

pub(crate) mod cross_process_poller;
pub(crate) mod dlq_retry;
pub(crate) mod event_router;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<event_router::EventRouter>(),
    Entry::of::<cross_process_poller::CrossProcessPoller>(),
    Entry::of::<dlq_retry::DlqRetry>(),
];
