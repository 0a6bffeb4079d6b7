//! Types of category `sync` that are not built yet.

use std::time::Duration;

use warden::{Daemon, DaemonId, Priority, Spec};

use crate::{
    cycle::EVENT_ROUTER, feedback::feedback_loop::FeedbackLoop,
    pipeline::data_pipeline::DataPipeline,
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

pub(crate) const UNIFIED_DATA_PLANE: Spec = Spec {
    id: DaemonId("UNIFIED_DATA_PLANE"),
    about: "plans every copy of every artefact in one place",
    priority: Priority::High,
    needs: &[EVENT_ROUTER, DataPipeline::ID, FeedbackLoop::ID],
    period: Duration::from_mins(5),
    health_interval: Some(Duration::from_mins(1)),
    ..Spec::DEFAULT
};
