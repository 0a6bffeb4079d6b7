//! Lines (section 8).

use std::collections::BTreeSet;

use super::turn::Action;
use super::{Cell, Oracle};

impl Oracle {
    /// The longest run of a player's markers through a cell along an axis, in order.
    pub(super) fn run_through(&self, cell: Cell, axis: Cell, player: u8) -> Vec<Cell> {
        let own = |cell: &Cell| self.markers.get(cell) == Some(&player);
        let mut run = vec![cell];
        let mut next = (cell.0 + axis.0, cell.1 + axis.1);
        while own(&next) {
            run.push(next);
            next = (next.0 + axis.0, next.1 + axis.1);
        }
        let mut before = (cell.0 - axis.0, cell.1 - axis.1);
        while own(&before) {
            run.insert(0, before);
            before = (before.0 - axis.0, before.1 - axis.1);
        }
        run
    }

    /// Eligible lines of the player to move.
    fn lines(&self) -> Vec<Vec<Cell>> {
        let least = self.line_length().max(self.detection_length());
        let mut seen = BTreeSet::new();
        let mut lines = Vec::new();
        for cell in self.own_markers(self.player) {
            for axis in self.axes() {
                let run = self.run_through(cell, axis, self.player);
                if run.len() >= least && seen.insert(run.clone()) {
                    lines.push(run);
                }
            }
        }
        lines
    }

    pub(super) fn line_decisions(&self) -> Vec<Action> {
        let needed = self.line_length();
        let mut list = Vec::new();
        for line in self.lines() {
            if line.len() == needed {
                list.push(Action::Line(line));
                continue;
            }
            list.push(Action::LineOption(line.clone(), line.clone()));
            for window in line.windows(needed) {
                list.push(Action::LineOption(line.clone(), window.to_vec()));
            }
        }
        if list.is_empty() {
            list.push(Action::Word("NL"));
        }
        list
    }

    pub(super) fn take_line(&mut self, collapse: &[Cell], costs: bool) {
        for cell in collapse {
            self.collapse(*cell);
        }
        self.acted = true;
        if costs && !self.controlled(self.player).is_empty() {
            self.line_payment = true;
        } else if self.lines().is_empty() {
            self.line_exit();
        }
    }
}
