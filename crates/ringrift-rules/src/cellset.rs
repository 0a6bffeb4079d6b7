//! Sets of cells of one board, and the disconnected region that a move takes.

use alloc::boxed::Box;

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

    /// The first 64 cells as a word, if there are no others.
    pub(crate) fn as_word(&self) -> Option<u64> {
        self.0[1..].iter().all(|word| *word == 0).then_some(self.0[0])
    }

    /// The cells below 64 of a word.
    pub(crate) const fn of_word(word: u64) -> Self {
        let mut words = [0; WORDS];
        words[0] = word;
        Self(words)
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

/// The cells of a region, at least one.
///
/// Those of a small board fit into one word, so that listing moves there allocates nothing; a region
/// of a large board is a box, as a word for each of eight would make every move as large.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(Cells);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Cells {
    /// All cells are below 64.
    Few(u64),
    Many(Box<CellSet>),
}

impl Region {
    /// A region of these cells.
    pub fn new(cells: &CellSet) -> Self {
        match cells.as_word() {
            Some(word) => Self(Cells::Few(word)),
            None => Self(Cells::Many(Box::new(*cells))),
        }
    }

    /// The cells as a set.
    pub fn cells(&self) -> CellSet {
        match &self.0 {
            Cells::Few(word) => CellSet::of_word(*word),
            Cells::Many(cells) => **cells,
        }
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.cells().len()
    }

    /// Never: a region has cells.
    pub fn is_empty(&self) -> bool {
        self.cells().is_empty()
    }

    /// Whether the cell is in the region.
    pub fn contains(&self, cell: CellId) -> bool {
        self.cells().contains(cell)
    }

    /// The smallest cell.
    pub fn first(&self) -> Option<CellId> {
        self.cells().first()
    }

    /// The cells in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = CellId> + use<> {
        let mut rest = self.cells();
        core::iter::from_fn(move || rest.pop_first())
    }
}

impl FromIterator<CellId> for Region {
    fn from_iter<I: IntoIterator<Item = CellId>>(cells: I) -> Self {
        Self::new(&cells.into_iter().collect())
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
        let small: CellSet = [CellId(5), CellId(63)].into_iter().collect();
        assert_eq!(small.as_word().map(CellSet::of_word), Some(small));
        assert_eq!(set.as_word(), None);
    }
}
