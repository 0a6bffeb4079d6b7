//! Types of category `event` that are not built yet.

use std::time::Duration;

use warden::{DaemonId, Priority, Spec};

use crate::cycle::EVENT_ROUTER;

pub(crate) const CROSS_PROCESS_POLLER: Spec = Spec {
    id: DaemonId("CROSS_PROCESS_POLLER"),
    about: "takes in the facts of other processes",
    priority: Priority::High,
    needs: &[EVENT_ROUTER],
    period: Duration::from_secs(1),
    ..Spec::DEFAULT
};
