//! Types of category `misc` that are not built yet.

use std::time::Duration;

use warden::{DaemonId, Priority, Spec};

use crate::{COORDINATOR_FULL, TRAINING_FULL, cycle::EVENT_ROUTER};

pub(crate) const DISTILLATION: Spec = Spec {
    id: DaemonId("DISTILLATION"),
    about: "distils a champion into a small network",
    priority: Priority::Low,
    needs: &[EVENT_ROUTER],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};

pub(crate) const EXTERNAL_DRIVE_SYNC: Spec = Spec {
    id: DaemonId("EXTERNAL_DRIVE_SYNC"),
    about: "mirrors artefacts to an attached drive",
    priority: Priority::Low,
    needs: &[EVENT_ROUTER],
    ..Spec::DEFAULT
};

pub(crate) const VAST_CPU_PIPELINE: Spec = Spec {
    id: DaemonId("VAST_CPU_PIPELINE"),
    about: "runs exports on rented processors",
    priority: Priority::Low,
    needs: &[EVENT_ROUTER],
    period: Duration::from_secs(30),
    ..Spec::DEFAULT
};

pub(crate) const P2P_AUTO_DEPLOY: Spec = Spec {
    id: DaemonId("P2P_AUTO_DEPLOY"),
    about: "installs the program on new nodes",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    profiles: &[TRAINING_FULL],
    period: Duration::from_mins(5),
    ..Spec::DEFAULT
};

pub(crate) const METRICS_ANALYSIS: Spec = Spec {
    id: DaemonId("METRICS_ANALYSIS"),
    about: "finds trends and anomalies in the figures",
    priority: Priority::Medium,
    needs: &[EVENT_ROUTER],
    profiles: &[COORDINATOR_FULL, TRAINING_FULL],
    ..Spec::DEFAULT
};
