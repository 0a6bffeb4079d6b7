//! Types of category `sync` that are not built yet.

use std::time::Duration;

use warden::{Daemon, DaemonId, Priority, Spec};

use crate::{
    COORDINATOR_FULL, cycle::EVENT_ROUTER, feedback::feedback_loop::FeedbackLoop,
    pipeline::data_pipeline::DataPipeline, sync::auto_sync::AutoSync,
};

pub(crate) const ELO_SYNC: Spec = Spec {
    id: DaemonId("ELO_SYNC"),
    about: "merges the match records of all nodes",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    profiles: &[COORDINATOR_FULL],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};

pub(crate) const OWC_IMPORT: Spec = Spec {
    id: DaemonId("OWC_IMPORT"),
    about: "imports games from an archive drive",
    priority: Priority::Low,
    needs: &[EVENT_ROUTER, DataPipeline::ID],
    period: Duration::from_hours(1),
    health_interval: Some(Duration::from_mins(30)),
    ..Spec::DEFAULT
};

pub(crate) const S3_NODE_SYNC: Spec = Spec {
    id: DaemonId("S3_NODE_SYNC"),
    about: "copies a node's artefacts to an object store",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    period: Duration::from_hours(1),
    ..Spec::DEFAULT
};

pub(crate) const S3_CONSOLIDATION: Spec = Spec {
    id: DaemonId("S3_CONSOLIDATION"),
    about: "merges the nodes' copies inside the object store",
    priority: Priority::Low,
    needs: &[EVENT_ROUTER, S3_NODE_SYNC.id],
    period: Duration::from_hours(1),
    ..Spec::DEFAULT
};

pub(crate) const UNIFIED_DATA_PLANE: Spec = Spec {
    id: DaemonId("UNIFIED_DATA_PLANE"),
    about: "plans every copy of every artefact in one place",
    priority: Priority::High,
    needs: &[EVENT_ROUTER, DataPipeline::ID, FeedbackLoop::ID],
    period: Duration::from_mins(5),
    health_interval: Some(Duration::from_mins(1)),
    ..Spec::DEFAULT
};

pub(crate) const STALE_FALLBACK: Spec = Spec {
    id: DaemonId("STALE_FALLBACK"),
    about: "decides whether to train on stale data",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, AutoSync::ID],
    health_interval: Some(Duration::from_mins(5)),
    ..Spec::DEFAULT
};
