//! Types of category `evaluation` that are not built yet.

use warden::{DaemonId, Priority, Spec};

use crate::{COORDINATOR_FULL, TRAINING_FULL, cycle::EVENT_ROUTER};

pub(crate) const UNIFIED_PROMOTION: Spec = Spec {
    id: DaemonId("UNIFIED_PROMOTION"),
    about: "promotes by rating across many opponents",
    priority: Priority::High,
    needs: &[EVENT_ROUTER],
    profiles: &[COORDINATOR_FULL, TRAINING_FULL],
    ..Spec::DEFAULT
};
