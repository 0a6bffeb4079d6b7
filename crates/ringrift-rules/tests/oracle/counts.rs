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
        let lists = std::iter::once(&1).chain(&self.counts);
        let depths = lists.take_while(|lists| **lists <= most).count().min(self.counts.len());
        let found = if slow {
            let oracle = Oracle::of(&Position::of(&state), state.config(), state.options());
            let mut counts = vec![0; depths];
            slow_counts(&oracle, &mut counts);
            counts
        } else {
            (1u32..).take(depths).map(|depth| perft(&state, depth, Placements::All)).collect()
        };
        assert_eq!(found, self.counts[..depths], "{}\n{}", self.config, state.render());
        depths
    }
}

/// Sequences of moves by the oracle, of every length in one go.
fn slow_counts(oracle: &Oracle, counts: &mut [u64]) {
    let Some((here, deeper)) = counts.split_first_mut() else { return };
    let legal = oracle.legal();
    *here += legal.len() as u64;
    if deeper.is_empty() {
        return;
    }
    for (_, action) in legal {
        let mut next = oracle.clone();
        next.make(&action);
        slow_counts(&next, deeper);
    }
}
