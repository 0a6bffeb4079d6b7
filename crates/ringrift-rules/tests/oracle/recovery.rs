//! Recovery (section 7).

use super::turn::{Action, Price};
use super::{Cell, Oracle};

impl Oracle {
    /// Stacks with a buried ring of the player to move.
    pub(super) fn payers(&self) -> Vec<Cell> {
        let mut found = Vec::new();
        for (cell, rings) in &self.stacks {
            if Self::is_buried_in(self.player, rings) {
                found.push(*cell);
            }
        }
        found
    }

    /// The longest run and the applied run of a slide to an empty cell.
    fn runs_of_slide(&self, from: Cell, to: Cell) -> (Vec<Cell>, Option<Vec<Cell>>) {
        let mut then = self.clone();
        then.markers.remove(&from);
        then.markers.insert(to, self.player);
        let runs: Vec<Vec<Cell>> =
            self.axes().into_iter().map(|axis| then.run_through(to, axis, self.player)).collect();
        let most = runs.iter().map(Vec::len).max().unwrap();
        let longest = runs.iter().find(|run| run.len() == most).unwrap().clone();
        let applied = runs.iter().find(|run| run.len() >= self.detection_length()).cloned();
        (longest, applied)
    }

    pub(super) fn slides(&self) -> Vec<Action> {
        let needed = self.line_length();
        let payers = self.payers();
        let mut steps = Vec::new();
        for from in self.own_markers(self.player) {
            for to in self.neighbours(from) {
                if !self.collapsed.contains_key(&to) && !self.markers.contains_key(&to) {
                    steps.push((from, to));
                }
            }
        }
        let mut list = Vec::new();
        let mut line_mode = false;
        for &(from, to) in &steps {
            if self.stacks.contains_key(&to) {
                continue;
            }
            let (longest, applied) = self.runs_of_slide(from, to);
            if longest.len() < needed {
                continue;
            }
            line_mode = true;
            if applied.as_ref().is_some_and(|run| run.len() >= needed) {
                for payer in &payers {
                    list.push(Action::Recover("line", from, to, Price::Ring(*payer)));
                }
            }
            if longest.len() > needed && applied.as_ref() == Some(&longest) {
                for window in longest.windows(needed).filter(|window| window.contains(&to)) {
                    list.push(Action::Recover("line", from, to, Price::Free(window.to_vec())));
                }
            }
        }
        if line_mode {
            return list;
        }
        for (from, to) in steps {
            let mode = if self.stacks.contains_key(&to) { "stack_strike" } else { "fallback" };
            for payer in &payers {
                list.push(Action::Recover(mode, from, to, Price::Ring(*payer)));
            }
        }
        list
    }

    pub(super) fn slide(&mut self, mode: &str, from: Cell, to: Cell, price: &Price) {
        let (_, applied) = self.runs_of_slide(from, to);
        self.markers.remove(&from);
        if mode == "stack_strike" {
            self.eliminate(to, 0);
        } else {
            self.markers.insert(to, self.player);
        }
        match price {
            Price::Ring(payer) => {
                if mode == "line" {
                    for cell in applied.unwrap() {
                        self.collapse(cell);
                    }
                }
                self.extract(*payer);
            }
            Price::Free(cells) => {
                for cell in cells {
                    self.collapse(*cell);
                }
            }
        }
    }
}
