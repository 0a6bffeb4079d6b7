//! Types of category `sync` that are not built yet.

use std::time::Duration;

use warden::{Daemon, DaemonId, Priority, Spec};

use crate::{
    cycle::EVENT_ROUTER, feedback::feedback_loop::FeedbackLoop,
    pipeline::data_pipeline::DataPipeline, sync::auto_sync::AutoSync,
};

pub(crate) const HIGH_QUALITY_SYNC: Spec = Spec {
    id: DaemonId("HIGH_QUALITY_SYNC"),
    about: "fetches the best-rated games for a training",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};

pub(crate) const TRAINING_DATA_SYNC: Spec = Spec {
    id: DaemonId("TRAINING_DATA_SYNC"),
    about: "fetches a training window before it is needed",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
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

pub(crate) const GOSSIP_SYNC: Spec = Spec {
    id: DaemonId("GOSSIP_SYNC"),
    about: "exchanges game batches with random neighbours",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    ..Spec::DEFAULT
};

pub(crate) const SYNC_PUSH: Spec = Spec {
    id: DaemonId("SYNC_PUSH"),
    about: "hands artefacts over before a disk is full",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    period: Duration::from_mins(5),
    health_interval: Some(Duration::from_mins(1)),
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
