//! What the tests of several modules share.

use std::time::Duration;

use crate::progress::{Flow, Progress};

/// Stops at the beat after the given number of beats.
pub(crate) struct StopAfter(pub(crate) u32);

impl Progress for StopAfter {
    fn beat(&mut self, _done: u64, _total: u64) -> Flow {
        if self.0 == 0 {
            return Flow::Stop;
        }
        self.0 -= 1;
        Flow::Continue
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}
