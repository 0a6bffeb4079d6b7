//! A hash of a position, of which moves keep the part of the board in step. Source: Zobrist 1970.
//!
//! A stack has too many forms for a table of random numbers, so every key is computed: a few multiplications where a table costs a miss
//! of the cache.

use super::{Counts, Turn};
use crate::geometry::CellId;

/// The last steps of `SplitMix64`: every bit of the input moves half of the bits of the output. Source: Steele, Lea, Flood 2014.
const fn scramble(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Folds one more word into a hash; the order of words counts.
const fn fold(hash: u64, word: u64) -> u64 {
    // The odd constant keeps a row of zeros from staying zero.
    scramble(hash.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ word)
}

/// Key of a marker or a collapsed cell, by the cell's code.
pub(crate) fn of_code(cell: CellId, code: u16) -> u64 {
    fold(0, u64::from(cell.0) << 16 | u64::from(code))
}

/// Key of a stack on a cell: its height, then its rings in words.
pub(crate) fn of_rings(cell: CellId, height: u16, rings: impl IntoIterator<Item = u64>) -> u64 {
    let start = fold(cell.0.into(), u64::from(height) << 32);
    rings.into_iter().fold(start, fold)
}

/// Hash of all that is not on the board; how many moves were made is no part of it.
pub(crate) fn beside_the_board(counts: &Counts, turn: &Turn) -> u64 {
    let four = |numbers: &[u16; 4]| numbers.iter().fold(0, |word, &n| (word << 16) | u64::from(n));
    let cell = |cell: Option<CellId>| cell.map_or(0, |cell| u64::from(cell.0) + 1);
    let flags = [
        turn.line_payment,
        turn.region_payment,
        turn.acted,
        turn.recovered,
        turn.moved[0],
        turn.moved[1],
        turn.swapped,
        turn.gone[0].is_some(),
        turn.gone[1].is_some(),
        turn.gone[2].is_some(),
        turn.gone[3].is_some(),
    ];
    let flags = flags.iter().fold(1, |word, &flag| (word << 1) | u64::from(flag));
    let seat = |seat: Option<crate::config::Seat>| seat.map_or(0, |seat| u64::from(seat.number()));
    let lps = &turn.lps;
    let acted = lps
        .acted
        .iter()
        .fold(0, |word, acted| word << 2 | acted.map_or(0, |acted| 1 + u64::from(acted)));
    let who = u64::from(turn.seat.number()) << 8 | turn.phase as u64;
    [
        four(&counts.hand),
        four(&counts.eliminated),
        who << 32 | cell(turn.must_move) << 16 | cell(turn.attacker),
        flags,
        seat(lps.first) << 24 | acted << 16 | seat(lps.candidate) << 8 | u64::from(lps.streak),
    ]
    .into_iter()
    .fold(0, fold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    /// Cell and code were once added and exchanged bit by bit, so that a marker of seat 1 on a cell had the key of one of seat 2 on the
    /// next.
    #[test]
    fn every_marker_and_collapsed_cell_has_a_key_of_its_own() {
        let mut keys = BTreeSet::new();
        for cell in (0..469).map(CellId::from_index) {
            for code in 1..=8 {
                assert!(keys.insert(of_code(cell, code)), "{cell:?} with code {code}");
            }
            for height in 1..=8 {
                assert!(keys.insert(of_rings(cell, height, [0, 0])), "{cell:?}, height {height}");
            }
        }
    }
}
