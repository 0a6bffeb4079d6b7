//! Types of category `pipeline` that are not built yet.

use std::time::Duration;

use warden::{DaemonId, Priority, Spec};

use crate::{COORDINATOR_FULL, TRAINING_FULL, cycle::EVENT_ROUTER};

const DATA_PIPELINE: DaemonId = DaemonId("DATA_PIPELINE");

pub(super) const CONTINUOUS_TRAINING_LOOP: Spec = Spec {
    id: DaemonId("CONTINUOUS_TRAINING_LOOP"),
    about: "drives one machine through its configs in turn",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    profiles: &[TRAINING_FULL],
    ..Spec::DEFAULT
};

pub(super) const TOURNAMENT_DAEMON: Spec = Spec {
    id: DaemonId("TOURNAMENT_DAEMON"),
    about: "plays ladders and calibrates the rulers",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    profiles: &[COORDINATOR_FULL],
    period: Duration::from_hours(1),
    ..Spec::DEFAULT
};

pub(super) const CASCADE_TRAINING: Spec = Spec {
    id: DaemonId("CASCADE_TRAINING"),
    about: "starts many-player models from two-player ones",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, DATA_PIPELINE],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};

pub(super) const PER_ORCHESTRATOR: Spec = Spec {
    id: DaemonId("PER_ORCHESTRATOR"),
    about: "keeps account of prioritised replay",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    health_interval: Some(Duration::from_mins(1)),
    ..Spec::DEFAULT
};

pub(super) const NNUE_TRAINING: Spec = Spec {
    id: DaemonId("NNUE_TRAINING"),
    about: "trains small networks for fast search",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER, DATA_PIPELINE],
    period: Duration::from_hours(1),
    health_interval: Some(Duration::from_hours(1)),
    ..Spec::DEFAULT
};
