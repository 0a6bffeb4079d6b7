//! A board as one word per row: questions about all cells at once.
//!
//! Cells of equal x are a row, y counts the bits, so a direction is a shift of rows and bits, and
//! going up the bits of row after row meets the cells in their order.

use crate::geometry::CellId;
use crate::state::State;

/// One bit per cell; `R` is the number of rows of the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows<const R: usize>(pub(crate) [u32; R]);

impl<const R: usize> Rows<R> {
    pub(crate) const EMPTY: Self = Self([0; R]);

    /// For each cell, the bit of the cell that lies `(dx, dy)` away; 0 beyond the board.
    #[inline]
    pub(crate) fn seen_from(&self, dx: i8, dy: i8) -> Self {
        let mut image = Self::EMPTY;
        let away = usize::from(dx.unsigned_abs());
        let bits = u32::from(dy.unsigned_abs());
        let count = R.saturating_sub(away);
        let (to, from) = if dx >= 0 { (0, away) } else { (away, 0) };
        for row in 0..count {
            let word = self.0[from + row];
            image.0[to + row] = if dy >= 0 { word >> bits } else { word << bits };
        }
        image
    }

    #[inline]
    pub(crate) fn and(mut self, other: &Self) -> Self {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word &= more;
        }
        self
    }

    #[inline]
    pub(crate) fn or(mut self, other: &Self) -> Self {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
        self
    }

    #[inline]
    pub(crate) fn without(mut self, other: &Self) -> Self {
        for (word, less) in self.0.iter_mut().zip(&other.0) {
            *word &= !less;
        }
        self
    }

    /// Number of cells.
    #[expect(clippy::cast_possible_truncation, reason = "a board has at most 469 cells")]
    pub(crate) fn len(&self) -> u16 {
        self.0.iter().map(|word| word.count_ones() as u16).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |all, word| all | word) == 0
    }

    /// Whether all cells of this set are in the other one.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |rest, (word, more)| rest | (word & !more)) == 0
    }
}

impl State {
    /// The cells whose code is wanted.
    #[inline]
    pub(crate) fn rows<const R: usize>(&self, wanted: impl Fn(u16) -> bool) -> Rows<R> {
        let mut rows = Rows::EMPTY;
        for (word, plan) in rows.0.iter_mut().zip(self.geometry().row_plans()) {
            let codes = &self.codes()[plan.cells()];
            let bits = codes
                .iter()
                .enumerate()
                .fold(0, |bits, (at, code)| bits | (u32::from(wanted(*code)) << at));
            *word = bits << plan.first_bit;
        }
        rows
    }
}

/// Where a row of a board lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowPlan {
    pub(crate) first_cell: u16,
    pub(crate) first_bit: u8,
    pub(crate) len: u8,
}

impl RowPlan {
    pub(crate) fn cells(self) -> core::ops::Range<usize> {
        let first = usize::from(self.first_cell);
        first..first + usize::from(self.len)
    }

    /// The cell of a bit.
    #[expect(clippy::cast_possible_truncation, reason = "a row has at most 25 cells")]
    pub(crate) fn cell(self, bit: u32) -> CellId {
        CellId(self.first_cell + (bit as u16) - u16::from(self.first_bit))
    }

    /// The cells of a row's bits, in their order.
    pub(crate) fn cells_of(self, mut word: u32) -> impl Iterator<Item = CellId> {
        core::iter::from_fn(move || {
            let bit = word.trailing_zeros();
            word &= word.wrapping_sub(1);
            (bit < u32::BITS).then(|| self.cell(bit))
        })
    }
}

/// The connected parts of a set of cells, by runs of bits: two runs of neighbouring rows that touch
/// are joined, and the smallest run of a part stands for it.
/// `M` is the most runs that the rows of the board can have.
pub(crate) struct Parts<const R: usize, const M: usize> {
    bits: [u32; M],
    parent: [u16; M],
    /// First run of each row; the runs of a row end where those of the next begin.
    starts: [u16; 32],
    count: usize,
}

impl<const R: usize, const M: usize> Parts<R, M> {
    pub(crate) const fn new() -> Self {
        Self { bits: [0; M], parent: [0; M], starts: [0; 32], count: 0 }
    }

    /// Number of parts.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Number of runs.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.starts[R])
    }

    fn runs_of(&self, row: usize) -> core::ops::Range<usize> {
        usize::from(self.starts[row])..usize::from(self.starts[row + 1])
    }

    /// Takes a set apart. On hexagons a cell touches two cells of each neighbouring row, else one.
    #[expect(clippy::cast_possible_truncation, reason = "there are at most 325 runs")]
    pub(crate) fn find(&mut self, rows: &Rows<R>, is_hex: bool) {
        let mut count = 0usize;
        self.count = 0;
        for (row, &word) in rows.0.iter().enumerate() {
            self.starts[row] = count as u16;
            let before = if row == 0 { 0..0 } else { self.runs_of(row - 1) };
            let (mut above, end) = (before.start, before.end);
            let mut rest = word;
            while rest != 0 {
                // The lowest run of ones: adding its lowest bit carries over it.
                let run = rest & !(rest.wrapping_add(rest & rest.wrapping_neg()));
                rest &= !run;
                self.bits[count] = run;
                self.parent[count] = count as u16;
                self.count += 1;
                while above < end {
                    let other = self.bits[above];
                    let touched = if is_hex { other | (other >> 1) } else { other };
                    if touched & run != 0 {
                        self.join(above, count);
                    }
                    // A run that reaches further up may touch the next one too.
                    if other.leading_zeros() < run.leading_zeros() {
                        break;
                    }
                    above += 1;
                }
                count += 1;
            }
        }
        self.starts[R] = count as u16;
    }

    /// The run that stands for the part of a run.
    pub(crate) fn part_of(&self, mut run: usize) -> usize {
        while usize::from(self.parent[run]) != run {
            run = usize::from(self.parent[run]);
        }
        run
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are at most 325 runs")]
    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.part_of(one), self.part_of(other));
        let (least, most) = if one < other { (one, other) } else { (other, one) };
        self.parent[most] = least as u16;
        self.count -= usize::from(one != other);
    }

    /// The part that a cell belongs to; the cell is in the set.
    pub(crate) fn at(&self, row: usize, bit: u32) -> Option<usize> {
        let run = self.runs_of(row).find(|run| self.bits[*run] & (1 << bit) != 0)?;
        Some(self.part_of(run))
    }

    /// The cells of a part.
    pub(crate) fn cells(&self, part: usize) -> Rows<R> {
        let mut cells = Rows::EMPTY;
        for (row, word) in cells.0.iter_mut().enumerate() {
            for run in self.runs_of(row) {
                if self.part_of(run) == part {
                    *word |= self.bits[run];
                }
            }
        }
        cells
    }
}

/// Calls a function that is generic over the number of rows with that of a board.
macro_rules! with_rows {
    ($state:expr, $method:ident ( $($argument:expr),* )) => {
        match $state.board() {
            $crate::config::Board::Square8 => $state.$method::<8>($($argument),*),
            $crate::config::Board::Hex8 => $state.$method::<9>($($argument),*),
            $crate::config::Board::Square19 => $state.$method::<19>($($argument),*),
            $crate::config::Board::Hexagonal => $state.$method::<25>($($argument),*),
        }
    };
}
pub(crate) use with_rows;

/// The same for a function that takes sets apart: every second cell of a row can begin a run.
macro_rules! with_runs {
    ($state:expr, $method:ident ( $($argument:expr),* )) => {
        match $state.board() {
            $crate::config::Board::Square8 => $state.$method::<8, 32>($($argument),*),
            $crate::config::Board::Hex8 => $state.$method::<9, 45>($($argument),*),
            $crate::config::Board::Square19 => $state.$method::<19, 190>($($argument),*),
            $crate::config::Board::Hexagonal => $state.$method::<25, 325>($($argument),*),
        }
    };
}
pub(crate) use with_runs;
