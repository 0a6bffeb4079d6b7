//! Types of category `queue` that are not built yet.

use warden::{DaemonId, Priority, Spec};

use crate::{COORDINATOR_FULL, cycle::EVENT_ROUTER};

pub(crate) const JOB_SCHEDULER: Spec = Spec {
    id: DaemonId("JOB_SCHEDULER"),
    about: "gives work to nodes by priority and cost",
    priority: Priority::High,
    needs: &[EVENT_ROUTER],
    profiles: &[COORDINATOR_FULL],
    ..Spec::DEFAULT
};
