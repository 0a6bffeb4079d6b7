//! Rows of numbers that lie in memory as processors fetch it.

use std::ops::{Deref, DerefMut};

/// Bytes that processors fetch at a time.
const LINE: usize = 64;
const SPARE: usize = LINE / size_of::<f32>();

/// Rows of `N` numbers, used like a vector of them; the first one begins at a multiple of [`LINE`].
///
/// A plain vector begins somewhere: then every row touches one line more, and every load of sixteen numbers two.
#[derive(Debug)]
pub struct AlignedRows<const N: usize> {
    /// The rows, with what is to be left out before and behind them.
    numbers: Vec<f32>,
    start: usize,
}

impl<const N: usize> AlignedRows<N> {
    /// So many rows, all zero.
    pub fn zero(count: usize) -> Self {
        let numbers = vec![0.0; count * N + SPARE];
        let start = numbers.as_ptr().align_offset(LINE).min(SPARE);
        Self { numbers, start }
    }
}

impl<const N: usize> Deref for AlignedRows<N> {
    type Target = [[f32; N]];

    fn deref(&self) -> &Self::Target {
        let end = self.start + self.numbers.len() - SPARE;
        self.numbers[self.start..end].as_chunks().0
    }
}

impl<const N: usize> DerefMut for AlignedRows<N> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        let end = self.start + self.numbers.len() - SPARE;
        self.numbers[self.start..end].as_chunks_mut().0
    }
}

impl<const N: usize> Clone for AlignedRows<N> {
    fn clone(&self) -> Self {
        // The numbers of a copied vector would lie as far from the start of a line as its memory happens to.
        let mut copy = Self::zero(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl<const N: usize> PartialEq for AlignedRows<N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_their_copies_begin_at_a_line_and_hold_the_same() {
        let mut rows = AlignedRows::<32>::zero(5);
        rows[3][7] = 2.5;
        let others: Vec<_> = (0..20).map(|_| rows.clone()).collect();
        for copy in others.iter().chain([&rows]) {
            assert_eq!(copy.as_ptr().align_offset(LINE), 0);
            assert_eq!(copy.len(), 5);
            assert_eq!(copy, &rows);
        }
        rows[0][0] = 1.0;
        assert_ne!(others[0], rows);
    }
}
