//! Types of category `resource` that are not built yet.

use std::time::Duration;

use warden::{Daemon, DaemonId, Priority, Spec};

use crate::{
    TRAINING_FULL, cycle::EVENT_ROUTER, health::cluster_monitor::ClusterMonitor,
    queue::job_scheduler::JobScheduler, resource::idle_resource::IdleResource,
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
