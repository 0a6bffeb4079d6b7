//! Types of category `provider` that are not built yet.

use warden::{DaemonId, Priority, Spec};

use crate::{cycle::EVENT_ROUTER, health::planned::CLUSTER_MONITOR};

pub(crate) const MULTI_PROVIDER: Spec = Spec {
    id: DaemonId("MULTI_PROVIDER"),
    about: "lists the nodes of all providers",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, CLUSTER_MONITOR.id],
    ..Spec::DEFAULT
};
