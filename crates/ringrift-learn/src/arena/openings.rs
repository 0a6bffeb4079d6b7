//! Opening books: first moves of matches, so that deterministic players do not repeat one game.

use std::collections::BTreeSet;

use anyhow::ensure;
use ringrift_rules::{Config, Options, State};

/// Random decisions that make an opening; book entries differ in it. Source: spec/learning.md section 4.1.
const DECISIONS: std::ops::RangeInclusive<u32> = 4..=6;
/// Tries per opening before giving up: boards have thousands of openings.
const TRIES: u64 = 50;

/// An opening: moves from the initial position, forced ones included, to one where a player has a choice.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The moves in notation.
    pub moves: Vec<String>,
    /// The position after them.
    pub state: State,
}

/// `count` openings with distinct final positions; equal configs and seeds give equal books, and a longer book begins with the shorter.
///
/// # Errors
/// When the game has not as many openings.
pub fn book(config: Config, count: u32, seed: u64) -> anyhow::Result<Vec<Opening>> {
    let mut openings = Vec::new();
    let mut known = BTreeSet::new();
    let mut number = 0_u64;
    while openings.len() < count as usize {
        ensure!(
            number < (u64::from(count) + 1) * TRIES,
            "{config} has only {} distinct openings, {count} are wanted",
            openings.len()
        );
        let rng = fastrand::Rng::with_seed(crate::selfplay::game_seed(seed ^ 0xb00c, number));
        number += 1;
        if let Some(opening) = draw(config, rng)
            && known.insert(opening.state.digest())
        {
            openings.push(opening);
        }
    }
    Ok(openings)
}

fn draw(config: Config, mut rng: fastrand::Rng) -> Option<Opening> {
    let mut decisions = rng.u32(DECISIONS);
    let mut state = State::new(config, Options::default());
    let (mut moves, mut notation) = (Vec::new(), Vec::new());
    while !state.is_over() {
        state.legal_moves(&mut moves);
        if moves.len() > 1 {
            if decisions == 0 {
                return Some(Opening { moves: notation, state });
            }
            decisions -= 1;
        }
        let choice = rng.usize(..moves.len());
        notation.push(state.notate(&moves[choice]));
        state.apply_legal(&moves[choice]);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_distinct_repeatable_and_leave_a_choice() {
        let config: Config = "hex8_2p".parse().unwrap();
        let long = book(config, 40, 7).unwrap();
        let short = book(config, 10, 7).unwrap();
        let texts = |book: &[Opening]| book.iter().map(|o| o.moves.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&short), texts(&long)[..10]);
        assert_ne!(texts(&short), texts(&book(config, 10, 8).unwrap()));
        let digests: BTreeSet<String> = long.iter().map(|o| o.state.digest()).collect();
        assert_eq!(digests.len(), 40);
        let mut moves = Vec::new();
        for opening in &long {
            opening.state.legal_moves(&mut moves);
            assert!(moves.len() > 1);
        }
    }
}
