//! Types of category `pipeline` that are not built yet.

use std::time::Duration;

use warden::{Daemon, DaemonId, Priority, Spec};

use crate::{
    COORDINATOR_FULL, TRAINING_FULL, cycle::EVENT_ROUTER, pipeline::data_pipeline::DataPipeline,
};

pub(crate) const CONTINUOUS_TRAINING_LOOP: Spec = Spec {
    id: DaemonId("CONTINUOUS_TRAINING_LOOP"),
    about: "drives one machine through its configs in turn",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    profiles: &[TRAINING_FULL],
    ..Spec::DEFAULT
};

pub(crate) const TOURNAMENT_DAEMON: Spec = Spec {
    id: DaemonId("TOURNAMENT_DAEMON"),
    about: "plays ladders and calibrates the rulers",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    profiles: &[COORDINATOR_FULL],
    period: Duration::from_hours(1),
    ..Spec::DEFAULT
};

pub(crate) const CASCADE_TRAINING: Spec = Spec {
    id: DaemonId("CASCADE_TRAINING"),
    about: "starts many-player models from two-player ones",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, DataPipeline::ID],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};

pub(crate) const PER_ORCHESTRATOR: Spec = Spec {
    id: DaemonId("PER_ORCHESTRATOR"),
    about: "keeps account of prioritised replay",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    health_interval: Some(Duration::from_mins(1)),
    ..Spec::DEFAULT
};

pub(crate) const NNUE_TRAINING: Spec = Spec {
    id: DaemonId("NNUE_TRAINING"),
    about: "trains small networks for fast search",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, DataPipeline::ID],
    period: Duration::from_hours(1),
    health_interval: Some(Duration::from_hours(1)),
    ..Spec::DEFAULT
};
