//! Types of category `resource` that are not built yet.

use std::time::Duration;

use warden::{Daemon, DaemonId, Priority, Spec};

use crate::{
    COORDINATOR_FULL, TRAINING_FULL, cycle::EVENT_ROUTER, health::cluster_monitor::ClusterMonitor,
    queue::job_scheduler::JobScheduler, resource::idle_resource::IdleResource,
};

pub(crate) const NODE_RECOVERY: Spec = Spec {
    id: DaemonId("NODE_RECOVERY"),
    about: "restarts nodes that are down",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    profiles: &[COORDINATOR_FULL],
    period: Duration::from_mins(5),
    health_interval: Some(Duration::from_mins(2)),
    ..Spec::DEFAULT
};

pub(crate) const RESOURCE_OPTIMIZER: Spec = Spec {
    id: DaemonId("RESOURCE_OPTIMIZER"),
    about: "keeps the load of the nodes inside its band",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, JobScheduler::ID],
    ..Spec::DEFAULT
};

pub(crate) const UTILIZATION_OPTIMIZER: Spec = Spec {
    id: DaemonId("UTILIZATION_OPTIMIZER"),
    about: "matches work to the strength of the nodes",
    priority: Priority::High,
    needs: &[EVENT_ROUTER, IdleResource::ID],
    profiles: &[TRAINING_FULL],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};

pub(crate) const ADAPTIVE_RESOURCES: Spec = Spec {
    id: DaemonId("ADAPTIVE_RESOURCES"),
    about: "moves nodes between roles",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, ClusterMonitor::ID],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};

pub(crate) const NODE_AVAILABILITY: Spec = Spec {
    id: DaemonId("NODE_AVAILABILITY"),
    about: "follows the providers' word on the nodes",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};

pub(crate) const AVAILABILITY_CAPACITY_PLANNER: Spec = Spec {
    id: DaemonId("AVAILABILITY_CAPACITY_PLANNER"),
    about: "plans how many nodes are wanted",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    ..Spec::DEFAULT
};

pub(crate) const AVAILABILITY_PROVISIONER: Spec = Spec {
    id: DaemonId("AVAILABILITY_PROVISIONER"),
    about: "rents and returns nodes within a budget",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, AVAILABILITY_CAPACITY_PLANNER.id],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};
