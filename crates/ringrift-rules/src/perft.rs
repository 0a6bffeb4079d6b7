//! Counting sequences of moves: the quickest way to compare two engines.

use crate::moves::Move;
use crate::state::State;

/// Which placements [`perft`] follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placements {
    /// All.
    All,
    /// Those of one ring.
    SingleRing,
}

/// Number of sequences of exactly `depth` moves, bookkeeping moves included; a game that ends
/// earlier counts nothing.
pub fn perft(state: &State, depth: u32, placements: Placements) -> u64 {
    if depth == 0 {
        return 1;
    }
    let mut moves = Vec::new();
    state.legal_moves(&mut moves);
    if placements == Placements::SingleRing {
        moves.retain(|mv| !matches!(mv, Move::PlaceRing { count: 2.., .. }));
    }
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
