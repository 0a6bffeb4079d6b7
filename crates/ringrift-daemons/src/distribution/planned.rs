//! Types of category `distribution` that are not built yet.

use std::time::Duration;

use warden::{DaemonId, Priority, Spec};

use crate::cycle::EVENT_ROUTER;

pub(crate) const MODEL_SYNC: Spec = Spec {
    id: DaemonId("MODEL_SYNC"),
    about: "fetches models that this node lacks",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    period: Duration::from_mins(10),
    ..Spec::DEFAULT
};
