//! Recovery: a player without stacks slides a marker (section 7).

use crate::config::Seat;
use crate::geometry::CellId;
use crate::moves::{Move, Recovery, Run};
use crate::sink::Sink;
use crate::state::State;

/// Runs that a slide would complete.
struct Completed {
    /// The longest, the first of equals in the order of the axes: it decides what is listed.
    longest: Run,
    /// The first that the reference's detector reports: it is what collapses.
    applied: Option<Run>,
}

impl State {
    /// Whether a player may recover: no stack, a marker and a buried ring (R110).
    pub fn is_recovery_eligible(&self, seat: Seat) -> bool {
        // Without a stack no ring of his is on top, so each on the board is buried.
        self.stacks(seat) == 0 && self.markers(seat) > 0 && self.rings_on_board(seat) > 0
    }

    /// Cells of the stacks with a buried ring of the player to move.
    pub(crate) fn payers(&self) -> impl Iterator<Item = CellId> {
        let seat = self.turn.seat;
        self.all_stacks().filter(move |stack| self.buries(stack, seat)).map(|stack| stack.cell)
    }

    /// Whether the reference lists an option of a slide here that it then refuses to apply
    /// (section 7). It is not legal, yet bars fallback and stack strike. For comparison with its
    /// records.
    pub fn recovery_refused(&self) -> bool {
        self.turn.phase == crate::state::Phase::Movement
            && self.is_recovery_eligible(self.turn.seat)
            && self.line_slides().any(|(_, _, completed)| {
                let needed = self.config().line_length();
                !pays_for_all(&completed, needed)
                    || (completed.longest.len() > needed && !may_collapse_part(&completed, needed))
            })
    }

    pub(crate) fn list_recovery(&self, out: &mut impl Sink) {
        let needed = self.config().line_length();
        let mut any_line = false;
        for (from, to, completed) in self.line_slides() {
            any_line = true;
            if let Some(run) = completed.applied {
                if pays_for_all(&completed, needed) {
                    for payer in self.payers() {
                        let how = Recovery::Line { payer };
                        out.push(Move::RecoverySlide { from, to, how });
                    }
                }
                if may_collapse_part(&completed, needed) {
                    for skip in 0..=run.len() - needed {
                        let window = run.window(self.geometry, skip, needed);
                        if window.cells(self.geometry).any(|cell| cell == to) {
                            out.push(Move::RecoverySlide {
                                from,
                                to,
                                how: Recovery::LineWindow(window),
                            });
                        }
                    }
                }
            }
        }
        if any_line {
            return;
        }
        for (from, to) in self.steps() {
            let strike = !self.is_empty(to);
            for payer in self.payers() {
                let how = if strike {
                    Recovery::StackStrike { payer }
                } else {
                    Recovery::Fallback { payer }
                };
                out.push(Move::RecoverySlide { from, to, how });
            }
        }
    }

    /// Every own marker with each neighbour that is empty or holds a stack.
    fn steps(&self) -> impl Iterator<Item = (CellId, CellId)> {
        let own = self.geometry.cells().filter(|cell| self.has_marker_of(*cell, self.turn.seat));
        own.flat_map(|from| {
            self.geometry
                .neighbours(from)
                .filter(|to| !self.is_collapsed(*to) && !self.has_marker(*to))
                .map(move |to| (from, to))
        })
    }

    /// Slides to an empty cell that complete a run of the needed length.
    fn line_slides(&self) -> impl Iterator<Item = (CellId, CellId, Completed)> {
        self.steps().filter(|(_, to)| self.is_empty(*to)).filter_map(|(from, to)| {
            let completed = self.completed(from, to);
            (completed.longest.len() >= self.config().line_length())
                .then_some((from, to, completed))
        })
    }

    /// The run that collapses when the marker of a slide has arrived at `to`.
    pub(crate) fn applied_run(&self, to: CellId) -> Option<Run> {
        // The marker has left its old cell already, so no cell is to be left out but `to` itself.
        self.completed(to, to).applied
    }

    fn completed(&self, from: CellId, to: CellId) -> Completed {
        let detected = self.board().detection_length();
        let mut completed = Completed { longest: Run::new(self.geometry, to, 0, 1), applied: None };
        for &axis in self.geometry.axes() {
            let reach = |direction: u8| {
                let ray = self.geometry.ray(to, direction).iter();
                ray.take_while(|cell| **cell != from && self.has_marker_of(**cell, self.turn.seat))
            };
            let back = self.geometry.opposite(axis);
            let start = reach(back).last().copied().unwrap_or(to);
            let len = reach(back).chain(reach(axis)).fold(1u8, |len, _| len + 1);
            let run = Run::new(self.geometry, start, axis, len);
            if run.len() > completed.longest.len() {
                completed.longest = run;
            }
            if completed.applied.is_none() && run.len() >= detected {
                completed.applied = Some(run);
            }
        }
        completed
    }
}

/// Option 1 is legal.
fn pays_for_all(completed: &Completed, needed: u8) -> bool {
    completed.applied.is_some_and(|run| run.len() >= needed)
}

/// Option 2 is legal.
fn may_collapse_part(completed: &Completed, needed: u8) -> bool {
    completed.longest.len() > needed && completed.applied == Some(completed.longest)
}
