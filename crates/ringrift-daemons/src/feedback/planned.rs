//! Types of category `feedback` that are not built yet.

use std::time::Duration;

use warden::{DaemonId, Priority, Spec};

use crate::cycle::EVENT_ROUTER;

pub(crate) const ARCHITECTURE_FEEDBACK: Spec = Spec {
    id: DaemonId("ARCHITECTURE_FEEDBACK"),
    about: "shares training time between architectures",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    health_interval: Some(Duration::from_mins(5)),
    max_restarts: Some(3),
    ..Spec::DEFAULT
};
