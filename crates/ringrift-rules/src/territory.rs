//! Disconnected regions (section 9).

use crate::cellset::CellSet;
use crate::config::{Board, Seat};
use crate::geometry::CellId;
use crate::moves::Move;
use crate::state::State;

impl State {
    /// Regions that the player to move may process now, each once.
    pub fn regions(&self) -> Vec<CellSet> {
        let mut found = Vec::new();
        self.each_region(|region| {
            if !found.contains(region) {
                found.push(*region);
            }
            true
        });
        found
    }

    pub(crate) fn has_region(&self) -> bool {
        let mut any = false;
        self.each_region(|_| {
            any = true;
            false
        });
        any
    }

    pub(crate) fn list_regions(&self, out: &mut Vec<Move>) {
        for region in self.regions() {
            out.push(Move::ChooseTerritory(Box::new(region)));
        }
        out.push(if out.is_empty() { Move::NoTerritoryAction } else { Move::SkipTerritory });
    }

    /// Visits the processable regions of the player to move, until the visitor says false.
    fn each_region(&self, mut visit: impl FnMut(&CellSet) -> bool) {
        let seat = self.turn.seat;
        // A payment must stand outside of the region: nobody to pay, no region (section 9.2).
        let payers = if self.turn.recovered {
            self.payers().count()
        } else {
            usize::from(self.stacks(seat))
        };
        let active = self.config().seats().filter(|s| self.rings_on_board(*s) > 0).count();
        if payers == 0 || active == 0 {
            return;
        }
        let borders = self.config().seats().filter(|s| self.markers(*s) > 0).map(Some);
        for border in borders.chain([None]) {
            let mut seen = CellSet::EMPTY;
            for start in self.geometry.cells() {
                if seen.contains(start) || !self.belongs(start, border) {
                    continue;
                }
                let component = self.component(start, border, &mut seen);
                let colours = component.controllers.iter().filter(|c| **c).count();
                let disconnected = colours < active && (border.is_some() || colours == 1);
                if disconnected && component.payers < payers && !visit(&component.cells) {
                    return;
                }
            }
        }
    }

    /// Whether a cell is part of components when the border has this colour.
    fn belongs(&self, cell: CellId, border: Option<Seat>) -> bool {
        !self.is_collapsed(cell) && border.is_none_or(|seat| !self.has_marker_of(cell, seat))
    }

    fn component(&self, start: CellId, border: Option<Seat>, seen: &mut CellSet) -> Component {
        let mut component = Component::default();
        let mut open = vec![start];
        seen.insert(start);
        while let Some(cell) = open.pop() {
            component.cells.insert(cell);
            if let Some(stack) = self.stack(cell) {
                component.controllers[stack.controller().index()] = true;
                component.payers += usize::from(if self.turn.recovered {
                    stack.buries(self.turn.seat)
                } else {
                    stack.controller() == self.turn.seat
                });
            }
            for &next in self.geometry.adjacent(cell) {
                if self.belongs(next, border) && seen.insert(next) {
                    open.push(next);
                }
            }
        }
        component
    }

    /// Cells that collapse with a region: all markers next to it, and on square boards the whole
    /// clusters of markers, of any colours and with diagonals, that they belong to (section 9.3).
    fn border(&self, region: &CellSet) -> CellSet {
        let mut border = CellSet::EMPTY;
        let mut open = Vec::new();
        let mut add = |cell: CellId, open: &mut Vec<CellId>| {
            if !region.contains(cell) && self.has_marker(cell) && border.insert(cell) {
                open.push(cell);
            }
        };
        for cell in region.iter() {
            for &next in self.geometry.adjacent(cell) {
                add(next, &mut open);
            }
        }
        if matches!(self.board(), Board::Square8 | Board::Square19) {
            while let Some(cell) = open.pop() {
                for next in self.geometry.neighbours(cell) {
                    add(next, &mut open);
                }
            }
        }
        border
    }

    /// Section 9.3, steps 1 to 3.
    pub(crate) fn take_region(&mut self, region: &CellSet) {
        let seat = self.turn.seat;
        let border = self.border(region);
        for cell in region.iter() {
            if let Some(stack) = self.lift(cell) {
                for ring in stack.rings() {
                    self.eliminate(ring, 1);
                }
            }
            self.collapse(cell, seat);
        }
        for cell in border.iter() {
            self.collapse(cell, seat);
        }
    }
}

/// Connected cells.
#[derive(Default)]
struct Component {
    cells: CellSet,
    /// By seat: controls a stack inside.
    controllers: [bool; 4],
    /// Stacks inside that could pay, if they stood outside.
    payers: usize,
}
