//! Types of category `resource` that are not built yet.

use std::time::Duration;

use warden::{DaemonId, Priority, Spec};

use crate::{COORDINATOR_FULL, TRAINING_FULL, cycle::EVENT_ROUTER};

const CLUSTER_MONITOR: DaemonId = DaemonId("CLUSTER_MONITOR");
const IDLE_RESOURCE: DaemonId = DaemonId("IDLE_RESOURCE");
const JOB_SCHEDULER: DaemonId = DaemonId("JOB_SCHEDULER");

pub(super) const NODE_RECOVERY: Spec = Spec {
    id: DaemonId("NODE_RECOVERY"),
    about: "restarts nodes that are down",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    profiles: &[COORDINATOR_FULL],
    period: Duration::from_mins(5),
    health_interval: Some(Duration::from_mins(2)),
    ..Spec::DEFAULT
};

pub(super) const RESOURCE_OPTIMIZER: Spec = Spec {
    id: DaemonId("RESOURCE_OPTIMIZER"),
    about: "keeps the load of the nodes inside its band",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, JOB_SCHEDULER],
    ..Spec::DEFAULT
};

pub(super) const UTILIZATION_OPTIMIZER: Spec = Spec {
    id: DaemonId("UTILIZATION_OPTIMIZER"),
    about: "matches work to the strength of the nodes",
    priority: Priority::High,
    needs: &[EVENT_ROUTER, IDLE_RESOURCE],
    profiles: &[TRAINING_FULL],
    ..Spec::DEFAULT
};

pub(super) const ADAPTIVE_RESOURCES: Spec = Spec {
    id: DaemonId("ADAPTIVE_RESOURCES"),
    about: "moves nodes between roles",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, CLUSTER_MONITOR],
    ..Spec::DEFAULT
};

pub(super) const NODE_AVAILABILITY: Spec = Spec {
    id: DaemonId("NODE_AVAILABILITY"),
    about: "follows the providers' word on the nodes",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};

pub(super) const AVAILABILITY_CAPACITY_PLANNER: Spec = Spec {
    id: DaemonId("AVAILABILITY_CAPACITY_PLANNER"),
    about: "plans how many nodes are wanted",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    ..Spec::DEFAULT
};

pub(super) const AVAILABILITY_PROVISIONER: Spec = Spec {
    id: DaemonId("AVAILABILITY_PROVISIONER"),
    about: "rents and returns nodes within a budget",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, AVAILABILITY_CAPACITY_PLANNER.id],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};
