//! Types of category `distribution` that are not built yet.

use std::time::Duration;

use warden::{DaemonId, Priority, Spec};

use crate::cycle::EVENT_ROUTER;

pub(crate) const DATA_SERVER: Spec = Spec {
    id: DaemonId("DATA_SERVER"),
    about: "serves artefacts to other nodes",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    period: Duration::from_secs(30),
    ..Spec::DEFAULT
};
