//! What the manager's outer side (HTTP, control socket, commands) reads of its inner side.

use std::sync::Arc;

use ringrift_daemons::{Bell, Leases, LiveWork, Loop, Pressure, Reporter, Workshop};
use ringrift_pipeline::Catalogue;
use warden::{Clock, Snapshot};

use crate::{http::Sources, logs::LogLevel};

/// Handles to everything that is shown; a clone shows the same manager.
#[derive(Clone)]
pub struct State {
    /// Facts and what is the case.
    pub catalogue: Catalogue,
    /// Whether this node leads.
    pub leases: Leases,
    /// The supervisor.
    pub bell: Bell,
    /// Worker processes.
    pub workshop: Workshop,
    /// The brake.
    pub pressure: Pressure,
    /// What the loop is about.
    pub the_loop: Arc<Loop>,
    /// When the manager started, ms since the Unix epoch.
    pub started_ms: i64,
    /// Time on the wall.
    pub clock: Clock,
    /// How much is logged.
    pub log_level: LogLevel,
}

impl State {
    /// What this node says of itself.
    pub fn reporter(&self) -> Reporter<'_> {
        Reporter {
            catalogue: &self.catalogue,
            the_loop: &self.the_loop,
            snapshot: self.bell.snapshot(),
            pressure: &self.pressure,
            live: self.workshop.live(),
            slots: self.workshop.slots(),
            leads: self.leases.leads(),
        }
    }
}

impl Sources for State {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.bell.snapshot()
    }

    fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    fn live(&self) -> Vec<LiveWork> {
        self.workshop.live()
    }

    fn slots(&self) -> usize {
        self.workshop.slots()
    }

    fn the_loop(&self) -> &Loop {
        &self.the_loop
    }

    fn started_ms(&self) -> i64 {
        self.started_ms
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}
