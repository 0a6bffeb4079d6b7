//! Counting sequences of moves: the quickest way to compare two engines.

use crate::moves::Move;
use crate::state::State;
use alloc::vec::Vec;

/// Which placements [`perft`] follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placements {
    /// All.
    All,
    /// Those of one ring.
    SingleRing,
}

impl Placements {
    /// Whether a sequence may go on with this move.
    pub const fn follows(self, mv: &Move) -> bool {
        matches!(self, Self::All) || !matches!(mv, Move::PlaceRing { count: 2.., .. })
    }
}

/// Number of sequences of exactly `depth` moves, bookkeeping moves included; a game that ends
/// earlier counts nothing.
pub fn perft(state: &State, depth: u32, placements: Placements) -> u64 {
    if depth == 0 {
        return 1;
    }
    let mut moves = Vec::new();
    state.legal_moves(&mut moves);
    moves.retain(|mv| placements.follows(mv));
    if depth == 1 {
        return moves.len() as u64;
    }
    moves
        .iter()
        .map(|mv| {
            let mut next = state.clone();
            next.apply_legal(mv);
            perft(&next, depth - 1, placements)
        })
        .sum()
}
