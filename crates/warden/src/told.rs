//! What one run of a daemon has told its supervisor so far.

use std::time::Duration;

use crate::Health;

/// Shared behind a lock that is held for instants only; the supervisor keeps a copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) ready: bool,
    /// Begin of the cycle at work.
    pub(crate) in_cycle: Option<Duration>,
    /// When the next cycle should begin.
    pub(crate) due: Option<Duration>,
    pub(crate) cycles: u64,
    pub(crate) last_cycle: Option<Duration>,
    /// Cycles and reports so far.
    pub(crate) results: u64,
    /// Unhealthy results in a row.
    pub(crate) bad_in_a_row: u32,
    pub(crate) health: Health,
    pub(crate) details: serde_json::Value,
    /// How often details were shown; a copy with the same number need not copy them.
    shown: u64,
    /// The supervisor was called and has not looked yet.
    called: bool,
}

impl Told {
    pub(crate) fn result(&mut self, details: Option<serde_json::Value>, health: Health) {
        self.bad_in_a_row =
            if matches!(health, Health::Unhealthy(_)) { self.bad_in_a_row + 1 } else { 0 };
        self.results += 1;
        self.health = health;
        if let Some(details) = details {
            self.show(details);
        }
    }

    pub(crate) fn show(&mut self, details: serde_json::Value) {
        self.details = details;
        self.shown += 1;
    }

    /// True if the supervisor must be called: nobody did since its last look.
    pub(crate) fn must_call(&mut self) -> bool {
        !std::mem::replace(&mut self.called, true)
    }

    /// A look of the supervisor: from here on, news call it again.
    pub(crate) fn copy_to(&mut self, copy: &mut Self) {
        // In the same locked step as the copy: news are in it, or they call again.
        self.called = false;
        copy.ready = self.ready;
        copy.due = self.due;
        copy.bad_in_a_row = self.bad_in_a_row;
        self.show_to(copy);
        if copy.results != self.results {
            copy.results = self.results;
            copy.health.clone_from(&self.health);
        }
    }

    /// Copies what people see and nobody acts on.
    pub(crate) fn show_to(&self, copy: &mut Self) {
        copy.in_cycle = self.in_cycle;
        copy.cycles = self.cycles;
        copy.last_cycle = self.last_cycle;
        if copy.shown != self.shown {
            copy.shown = self.shown;
            copy.details.clone_from(&self.details);
        }
    }
}
