//! Numbers of move sequences by both implementations, and the table of our own.

use std::path::Path;

use ringrift_rules::json::Position;
use ringrift_rules::{Config, Options, Placements, State, perft};
use serde::Deserialize;

use super::Oracle;

/// A row of `testdata/rules/perft_own.json`: counts for depth 1, 2, ...
#[derive(Deserialize)]
pub(crate) struct Row {
    config: Config,
    /// None = the first position.
    position: Option<Position>,
    pub(crate) counts: Vec<u64>,
}

impl Row {
    /// All rows.
    pub(crate) fn all() -> Vec<Self> {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/rules/perft_own.json");
        serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
    }

    pub(crate) fn state(&self) -> State {
        match &self.position {
            None => State::new(self.config, Options::default()),
            Some(position) => position.state(self.config, Options::default()).unwrap(),
        }
    }

    /// Compares the counts that need no more than `most` legal lists; gives how many were compared.
    pub(crate) fn check(&self, most: u64, slow: bool) -> usize {
        let state = self.state();
        let oracle = Oracle::of(&Position::of(&state), state.config(), state.options());
        let mut lists = 1;
        let mut compared = 0;
        for (depth, &count) in (1u32..).zip(&self.counts) {
            if lists > most {
                break;
            }
            let found = if slow {
                slow_perft(&oracle, depth)
            } else {
                perft(&state, depth, Placements::All)
            };
            assert_eq!(found, count, "{}, depth {depth}\n{}", self.config, state.render());
            lists = count;
            compared += 1;
        }
        compared
    }
}

/// Sequences of moves by the oracle.
pub(crate) fn slow_perft(oracle: &Oracle, depth: u32) -> u64 {
    if depth == 0 {
        return 1;
    }
    let legal = oracle.legal();
    if depth == 1 {
        return legal.len() as u64;
    }
    let then = |action| {
        let mut next = oracle.clone();
        next.make(action);
        slow_perft(&next, depth - 1)
    };
    legal.iter().map(|(_, action)| then(action)).sum()
}
