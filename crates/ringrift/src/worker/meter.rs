//! The work's progress as lines of the contract.

use std::time::Duration;

use ringrift_learn::{Flow, Progress};
use ringrift_pipeline::WorkerLine;
use ringrift_rules::{Move, State};
use tokio::time::Instant;

use super::{line, pulse::Pulse};
use crate::view::BoardView;

/// Shortest time between two progress lines: people see no more, and a line costs the manager work.
const PAUSE: Duration = Duration::from_millis(250);

/// Tells progress, and passes a request to stop on.
pub struct Meter {
    pulse: Pulse,
    note: &'static str,
    told: Option<Instant>,
    done: u64,
    total: u64,
    /// Nobody listens any more: as good as a request to stop.
    deaf: bool,
    began: Duration,
}

impl Meter {
    /// A meter for one step of a job; `note` says which.
    pub fn new(pulse: Pulse, note: &'static str) -> Self {
        let began = pulse.elapsed();
        Self { pulse, note, told: None, done: 0, total: 0, deaf: false, began }
    }

    fn flow(&self) -> Flow {
        if self.deaf || self.pulse.stopping() { Flow::Stop } else { Flow::Continue }
    }

    /// Is it time for another line?
    fn is_due(&self) -> bool {
        self.told.is_none_or(|told| told.elapsed() >= PAUSE)
    }

    fn tell(&mut self, view: Option<serde_json::Value>) {
        let progress = WorkerLine::Progress {
            done: self.done,
            total: self.total,
            note: self.note.to_owned(),
            view,
        };
        self.deaf |= line::say(&progress).is_err();
        self.told = Some(Instant::now());
    }
}

impl Progress for Meter {
    fn beat(&mut self, done: u64, total: u64) -> Flow {
        self.pulse.moved();
        let news = self.done != done || self.total != total;
        (self.done, self.total) = (done, total);
        if news && self.is_due() {
            self.tell(None);
        }
        self.flow()
    }

    fn position(&mut self, state: &State, by: &Move) {
        self.pulse.moved();
        if self.is_due() {
            // A position that cannot be written would be a fault of its type: nothing is shown then.
            self.tell(serde_json::to_value(BoardView::of(state).after(by, state)).ok());
        }
    }

    fn elapsed(&self) -> Duration {
        self.pulse.elapsed().saturating_sub(self.began)
    }
}
