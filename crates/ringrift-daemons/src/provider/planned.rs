//! Types of category `provider` that are not built yet.

use warden::{Daemon as _, DaemonId, Priority, Spec};

use crate::{cycle::EVENT_ROUTER, health::cluster_monitor::ClusterMonitor};

pub(crate) const MULTI_PROVIDER: Spec = Spec {
    id: DaemonId("MULTI_PROVIDER"),
    about: "lists the nodes of all providers",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, ClusterMonitor::ID],
    ..Spec::DEFAULT
};
