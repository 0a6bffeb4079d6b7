//! Sets of cells of one board, and the disconnected region that a move takes.

use crate::config::Seat;
use crate::geometry::CellId;

/// Words of 64 cells; the largest board has 469 cells.
const WORDS: usize = 8;

/// A set of cells: 512 bits, large enough for every board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct CellSet([u64; WORDS]);

impl CellSet {
    /// The set without cells.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Adds a cell; says whether it was new.
    pub fn insert(&mut self, cell: CellId) -> bool {
        let word = &mut self.0[cell.index() / 64];
        let bit = 1u64 << (cell.index() % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Whether the cell is in the set.
    pub fn contains(&self, cell: CellId) -> bool {
        self.0[cell.index() / 64] & (1u64 << (cell.index() % 64)) != 0
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is no cell.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// The smallest cell: by x, then y, as cells are numbered in that order.
    pub fn first(&self) -> Option<CellId> {
        self.iter().next()
    }

    /// Takes the smallest cell out.
    pub fn pop_first(&mut self) -> Option<CellId> {
        let index = self.0.iter().position(|word| *word != 0)?;
        let word = &mut self.0[index];
        let bit = word.trailing_zeros() as usize;
        *word &= *word - 1;
        Some(CellId::from_index(index * 64 + bit))
    }

    /// The cells in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = CellId> + '_ {
        self.0.iter().enumerate().flat_map(|(index, &word)| {
            let mut rest = word;
            core::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                Some(CellId::from_index(index * 64 + bit))
            })
        })
    }
}

impl FromIterator<CellId> for CellSet {
    fn from_iter<I: IntoIterator<Item = CellId>>(cells: I) -> Self {
        let mut set = Self::EMPTY;
        for cell in cells {
            set.insert(cell);
        }
        set
    }
}

/// A disconnected region of a position, as a move names it (section 9).
///
/// Its cells are connected, and bordered by markers of one colour or by territory alone; so with the
/// position, that colour and one cell say which they are, and [`crate::State::region_cells`] finds
/// them. A move with all of them would be six times as large, and a legal list too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region {
    pub(crate) first: CellId,
    pub(crate) size: u16,
    pub(crate) border: Option<Seat>,
}

impl Region {
    /// The smallest cell.
    pub const fn first(self) -> CellId {
        self.first
    }

    /// Number of cells.
    pub const fn size(self) -> usize {
        self.size as usize
    }

    /// Owner of the markers that border it; none = territory does.
    pub const fn border(self) -> Option<Seat> {
        self.border
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_its_cells_back_in_order() {
        let cells = [CellId(468), CellId(0), CellId(63), CellId(64)];
        let set: CellSet = cells.into_iter().collect();
        assert_eq!(set.len(), 4);
        assert!(set.contains(CellId(63)) && !set.contains(CellId(62)));
        let listed: Vec<u16> = set.iter().map(|cell| cell.0).collect();
        assert_eq!(listed, [0, 63, 64, 468]);
        let mut rest = set;
        let popped: Vec<u16> = std::iter::from_fn(|| rest.pop_first()).map(|cell| cell.0).collect();
        assert_eq!(popped, listed);
        assert_eq!(CellSet::EMPTY.first(), None);
    }
}
