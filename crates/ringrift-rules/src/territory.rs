//! Disconnected regions (section 9).

use crate::cellset::{CellSet, Region};
use crate::config::{Board, Seat};
use crate::geometry::CellId;
use crate::moves::Move;
use crate::rows::{Parts, Rows, with_runs};
use crate::sink::Sink;
use crate::state::State;
use alloc::vec::Vec;

/// What stands in a connected part.
#[derive(Clone, Copy, Default)]
struct Content {
    /// A bit per seat that controls a stack inside.
    controllers: u8,
    /// Stacks inside that could pay, if they stood outside.
    payers: u16,
}

impl State {
    /// Regions that the player to move may process now, each once.
    pub fn regions(&self) -> Vec<Region> {
        with_runs!(self, collect_regions())
    }

    fn collect_regions<const R: usize, const M: usize>(&self) -> Vec<Region> {
        let mut found = Vec::new();
        self.each_region::<R, M>(&mut |rows: &Rows<R>, border| {
            found.push(self.region(rows, border));
            true
        });
        found
    }

    pub(crate) fn has_region(&self) -> bool {
        with_runs!(self, has_region_in())
    }

    fn has_region_in<const R: usize, const M: usize>(&self) -> bool {
        let mut any = false;
        self.each_region::<R, M>(&mut |_: &Rows<R>, _| {
            any = true;
            false
        });
        any
    }

    pub(crate) fn list_regions<S: Sink>(&self, out: &mut S) {
        with_runs!(self, list_regions_in(out));
    }

    fn list_regions_in<const R: usize, const M: usize>(&self, out: &mut dyn Sink) {
        self.each_region::<R, M>(&mut |rows: &Rows<R>, border| {
            out.push(Move::ChooseTerritory(self.region(rows, border)));
            true
        });
        out.push(if out.is_empty() { Move::NoTerritoryAction } else { Move::SkipTerritory });
    }

    fn region<const R: usize>(&self, rows: &Rows<R>, border: Option<Seat>) -> Region {
        let plans = self.geometry.row_plans();
        let first = rows.0.iter().zip(plans).find(|(word, _)| **word != 0);
        let first = first.map_or(CellId(0), |(word, plan)| plan.cell(word.trailing_zeros()));
        Region { first, size: rows.len(), border }
    }

    /// The cells of a region of this position; none if it has no such region.
    pub fn region_cells(&self, region: Region) -> CellSet {
        with_runs!(self, region_cells_in(region))
    }

    fn region_cells_in<const R: usize, const M: usize>(&self, region: Region) -> CellSet {
        let mut rest: Rows<R> = self.rows(|code| !State::is_collapsed_code(code));
        if let Some(border) = region.border {
            rest = rest.without(&self.rows(|code| code == u16::from(border.number())));
        }
        let mut parts = Parts::<R, M>::new();
        parts.find(&rest, self.board().is_hex());
        let (row, bit) = self.geometry.row_and_bit(region.first);
        let Some(part) = parts.at(row, bit) else { return CellSet::EMPTY };
        let rows = parts.cells(part);
        self.geometry
            .row_plans()
            .iter()
            .zip(rows.0)
            .flat_map(|(plan, word)| plan.cells_of(word))
            .collect()
    }

    /// Visits the processable regions of the player to move, each once, until the visitor says
    /// false: pass by pass over the border colours, in the order of their smallest cells.
    fn each_region<const R: usize, const M: usize>(
        &self,
        visit: &mut dyn FnMut(&Rows<R>, Option<Seat>) -> bool,
    ) {
        let seat = self.turn.seat;
        // A payment must stand outside of the region: nobody to pay, no region (section 9.2).
        let pays = |stack: &crate::stack::Stack| {
            if self.turn.recovered { self.buries(stack, seat) } else { stack.controller() == seat }
        };
        let payers = if self.turn.recovered {
            self.unordered_stacks().iter().filter(|stack| pays(stack)).count()
        } else {
            usize::from(self.stacks(seat))
        };
        let active = self.config().seats().filter(|s| self.rings_on_board(*s) > 0).count();
        if payers == 0 || active == 0 {
            return;
        }
        let open: Rows<R> = self.rows(|code| !State::is_collapsed_code(code));
        let mut earlier = [Rows::<R>::EMPTY; 4];
        let mut parts = Parts::<R, M>::new();
        let mut contents = [Content::default(); M];
        let bare = self.config().seats().all(|seat| self.territory(seat) == 0);
        // Fewer markers than a corner has neighbours cut nothing off, without territory beside.
        let fewest = if self.board().is_hex() { 3 } else { 2 };
        let borders = self.config().seats().filter(|s| self.markers(*s) > 0).map(Some);
        for (pass, border) in borders.chain([None]).enumerate() {
            if bare && border.is_none_or(|border| self.markers(border) < fewest) {
                continue;
            }
            let mut rest = open;
            if let Some(border) = border {
                earlier[pass] = self.rows(|code| code == u16::from(border.number()));
                rest = rest.without(&earlier[pass]);
            }
            parts.find(&rest, self.board().is_hex());
            // A single part holds all who could pay.
            if parts.count() < 2 {
                continue;
            }
            contents[..parts.len()].fill(Content::default());
            for stack in self.unordered_stacks() {
                let (row, bit) = self.geometry.row_and_bit(stack.cell);
                if let Some(part) = parts.at(row, bit) {
                    contents[part].controllers |= 1 << stack.controller().index();
                    contents[part].payers += u16::from(pays(stack));
                }
            }
            for (part, content) in contents[..parts.len()].iter().enumerate() {
                let Content { controllers, payers: inside } = *content;
                let colours = controllers.count_ones() as usize;
                let disconnected = colours < active && (border.is_some() || colours == 1);
                if !disconnected || usize::from(inside) >= payers || parts.part_of(part) != part {
                    continue;
                }
                let cells = parts.cells(part);
                if self.was_met(&cells, &open, &earlier[..pass]) {
                    continue;
                }
                if !visit(&cells, border) {
                    return;
                }
            }
        }
    }

    /// Whether an earlier pass has met the same cells. No marker has two owners, so cells that are
    /// connected parts for two border colours have nothing but territory around them.
    fn was_met<const R: usize>(
        &self,
        cells: &Rows<R>,
        open: &Rows<R>,
        earlier: &[Rows<R>],
    ) -> bool {
        let misses = |markers: &Rows<R>| cells.and(markers).is_empty();
        if !earlier.iter().any(misses) {
            return false;
        }
        let mut around = *cells;
        for &(dx, dy) in self.board().sides() {
            around = around.or(&cells.seen_from(dx, dy));
        }
        around.and(open).is_within(cells)
    }

    /// Cells that collapse with a region: all markers next to it, and on square boards the whole
    /// clusters of markers, of any colours and with diagonals, that they belong to (section 9.3).
    fn border(&self, region: &CellSet) -> CellSet {
        let mut border = CellSet::EMPTY;
        let mut open = CellSet::EMPTY;
        let mut add = |cell, open: &mut CellSet| {
            if !region.contains(cell) && self.has_marker(cell) && border.insert(cell) {
                open.insert(cell);
            }
        };
        for cell in region.iter() {
            for &next in self.geometry.adjacent(cell) {
                add(next, &mut open);
            }
        }
        if matches!(self.board(), Board::Square8 | Board::Square19) {
            while let Some(cell) = open.pop_first() {
                for next in self.geometry.neighbours(cell) {
                    add(next, &mut open);
                }
            }
        }
        border
    }

    /// Section 9.3, steps 1 to 3.
    pub(crate) fn take_region(&mut self, region: Region) {
        let seat = self.turn.seat;
        let region = self.region_cells(region);
        let border = self.border(&region);
        for cell in region.iter() {
            if let Some(mut stack) = self.lift(cell) {
                while stack.height() > 0 {
                    let (colour, count) = stack.pop_cap(&mut self.stacks);
                    self.eliminate(colour, count);
                }
            }
            self.collapse(cell, seat);
        }
        for cell in border.iter() {
            self.collapse(cell, seat);
        }
    }
}
