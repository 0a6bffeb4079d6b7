//! How long work tells its caller that it goes on, and learns that it should stop.

use std::time::Duration;

use ringrift_rules::{Move, State};

/// What the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Finish the unit in hand, keep what is complete, return.
    Stop,
}

/// The caller's side of long work. The work beats at least once per game, batch of samples or training step.
pub trait Progress {
    /// `done` of `total` units are finished; a unit may beat several times.
    fn beat(&mut self, done: u64, total: u64) -> Flow;

    /// A game in hand came to this position by this move; for people who look on.
    fn position(&mut self, state: &State, by: &Move) {
        let _ = (state, by);
    }

    /// Time since the work began, for rates in reports; results never depend on it.
    fn elapsed(&self) -> Duration;
}

/// Nobody watches: never stops, and no time passes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Unwatched;

impl Progress for Unwatched {
    fn beat(&mut self, _done: u64, _total: u64) -> Flow {
        Flow::Continue
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Units per second, 0 while no time has passed.
pub(crate) fn rate(units: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { float(units) / seconds } else { 0.0 }
}

/// A count as a real number.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
