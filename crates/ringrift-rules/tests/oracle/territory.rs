//! Territory (section 9).

use std::collections::BTreeSet;

use ringrift_rules::Board;

use super::{Cell, Oracle};

impl Oracle {
    /// Connected parts of a set of cells.
    fn components(&self, mut cells: BTreeSet<Cell>) -> Vec<BTreeSet<Cell>> {
        let mut found = Vec::new();
        while let Some(start) = cells.pop_first() {
            let mut component = BTreeSet::from([start]);
            let mut open = vec![start];
            while let Some(cell) = open.pop() {
                for next in self.territory_neighbours(cell) {
                    if cells.remove(&next) {
                        component.insert(next);
                        open.push(next);
                    }
                }
            }
            found.push(component);
        }
        found
    }

    /// Regions that the player to move may process, each once.
    pub(super) fn regions(&self) -> Vec<Vec<Cell>> {
        let active = self.seats().into_iter().filter(|s| self.colour_on_board(*s) > 0).count();
        if active == 0 {
            return Vec::new();
        }
        let open: BTreeSet<Cell> =
            self.cells().into_iter().filter(|cell| !self.collapsed.contains_key(cell)).collect();
        let mut candidates: BTreeSet<BTreeSet<Cell>> = BTreeSet::new();
        let rep = |region: &BTreeSet<Cell>| {
            let controllers: BTreeSet<u8> =
                region.iter().filter_map(|cell| self.controller(*cell)).collect();
            controllers.len()
        };
        for border in self.seats() {
            if self.own_markers(border).is_empty() {
                continue;
            }
            let mut rest = open.clone();
            rest.retain(|cell| self.markers.get(cell) != Some(&border));
            candidates.extend(self.components(rest).into_iter().filter(|c| rep(c) < active));
        }
        let alone = self.components(open).into_iter();
        candidates.extend(alone.filter(|c| rep(c) < active && rep(c) == 1));
        let processable = |region: &BTreeSet<Cell>| {
            self.stacks.iter().any(|(cell, rings)| {
                let pays = if self.recovered {
                    Self::is_buried_in(self.player, rings)
                } else {
                    rings[0] == self.player
                };
                pays && !region.contains(cell)
            })
        };
        candidates.into_iter().filter(processable).map(|c| c.into_iter().collect()).collect()
    }

    pub(super) fn take_region(&mut self, region: &[Cell]) {
        let region: BTreeSet<Cell> = region.iter().copied().collect();
        let is_outside_marker = |oracle: &Self, cell: &Cell| {
            !region.contains(cell) && oracle.markers.contains_key(cell)
        };
        let mut border: BTreeSet<Cell> = region
            .iter()
            .flat_map(|cell| self.territory_neighbours(*cell))
            .filter(|cell| is_outside_marker(self, cell))
            .collect();
        if matches!(self.config.board, Board::Square8 | Board::Square19) {
            loop {
                let more: BTreeSet<Cell> = border
                    .iter()
                    .flat_map(|cell| self.neighbours(*cell))
                    .filter(|cell| is_outside_marker(self, cell) && !border.contains(cell))
                    .collect();
                if more.is_empty() {
                    break;
                }
                border.extend(more);
            }
        }
        for cell in &region {
            while self.stacks.contains_key(cell) {
                self.eliminate(*cell, 0);
            }
            self.collapse(*cell);
        }
        for cell in border {
            self.collapse(cell);
        }
    }
}
