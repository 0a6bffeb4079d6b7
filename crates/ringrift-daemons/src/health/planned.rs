//! Types of category `health` that are not built yet.

use std::time::Duration;

use warden::{Daemon as _, DaemonId, Priority, Spec};

use crate::{
    COORDINATOR_FULL, EPHEMERAL, SELFPLAY_FULL, TRAINING_FULL, cycle::EVENT_ROUTER,
    health::cluster_monitor::ClusterMonitor,
};

pub(crate) const QUALITY_MONITOR: Spec = Spec {
    id: DaemonId("QUALITY_MONITOR"),
    about: "rates the newest games",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    profiles: &[COORDINATOR_FULL, TRAINING_FULL, EPHEMERAL, SELFPLAY_FULL],
    period: Duration::from_secs(15),
    ..Spec::DEFAULT
};

pub(crate) const MODEL_PERFORMANCE_WATCHDOG: Spec = Spec {
    id: DaemonId("MODEL_PERFORMANCE_WATCHDOG"),
    about: "notices a champion that got weaker",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    profiles: &[COORDINATOR_FULL],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};

pub(crate) const CLUSTER_WATCHDOG: Spec = Spec {
    id: DaemonId("CLUSTER_WATCHDOG"),
    about: "finds nodes that produce nothing",
    priority: Priority::High,
    needs: &[EVENT_ROUTER, ClusterMonitor::ID],
    profiles: &[COORDINATOR_FULL],
    period: Duration::from_mins(5),
    health_interval: Some(Duration::from_mins(1)),
    ..Spec::DEFAULT
};

pub(crate) const AVAILABILITY_NODE_MONITOR: Spec = Spec {
    id: DaemonId("AVAILABILITY_NODE_MONITOR"),
    about: "probes the nodes layer by layer",
    priority: Priority::High,
    needs: &[EVENT_ROUTER],
    period: Duration::from_secs(30),
    health_interval: Some(Duration::from_secs(30)),
    ..Spec::DEFAULT
};

pub(crate) const P2P_RECOVERY: Spec = Spec {
    id: DaemonId("P2P_RECOVERY"),
    about: "brings the peer connection back",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    health_interval: Some(Duration::from_mins(5)),
    max_restarts: Some(10),
    ..Spec::DEFAULT
};

pub(crate) const TAILSCALE_HEALTH: Spec = Spec {
    id: DaemonId("TAILSCALE_HEALTH"),
    about: "keeps the overlay network up",
    priority: Priority::Medium,
    period: Duration::from_secs(30),
    health_interval: Some(Duration::from_mins(1)),
    max_restarts: Some(20),
    ..Spec::DEFAULT
};
