//! Types of category `recovery` that are not built yet.

use std::time::Duration;

use warden::{Daemon as _, DaemonId, Priority, Spec};

use crate::{
    cycle::EVENT_ROUTER,
    health::{
        cluster_monitor::ClusterMonitor,
        planned::{AVAILABILITY_NODE_MONITOR, TAILSCALE_HEALTH},
    },
};

pub(crate) const RECOVERY_ORCHESTRATOR: Spec = Spec {
    id: DaemonId("RECOVERY_ORCHESTRATOR"),
    about: "climbs the ladder of repairs of a node",
    priority: Priority::High,
    needs: &[EVENT_ROUTER, ClusterMonitor::ID],
    ..Spec::DEFAULT
};

pub(crate) const CACHE_COORDINATION: Spec = Spec {
    id: DaemonId("CACHE_COORDINATION"),
    about: "invalidates caches of replaced models",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, ClusterMonitor::ID],
    ..Spec::DEFAULT
};

pub(crate) const MAINTENANCE: Spec = Spec {
    id: DaemonId("MAINTENANCE"),
    about: "rotates logs and compacts databases",
    priority: Priority::Low,
    needs: &[EVENT_ROUTER],
    period: Duration::from_mins(10),
    ..Spec::DEFAULT
};

pub(crate) const DATA_CLEANUP: Spec = Spec {
    id: DaemonId("DATA_CLEANUP"),
    about: "quarantines bad game batches",
    priority: Priority::Low,
    needs: &[EVENT_ROUTER],
    period: Duration::from_hours(1),
    ..Spec::DEFAULT
};

pub(crate) const AVAILABILITY_RECOVERY_ENGINE: Spec = Spec {
    id: DaemonId("AVAILABILITY_RECOVERY_ENGINE"),
    about: "recovers nodes that stay away",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, AVAILABILITY_NODE_MONITOR.id],
    ..Spec::DEFAULT
};

pub(crate) const CONNECTIVITY_RECOVERY: Spec = Spec {
    id: DaemonId("CONNECTIVITY_RECOVERY"),
    about: "brings the network of a node back",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, TAILSCALE_HEALTH.id],
    health_interval: Some(Duration::from_mins(1)),
    max_restarts: Some(10),
    ..Spec::DEFAULT
};
