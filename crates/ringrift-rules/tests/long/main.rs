//! The rules against the second implementation at length: `cargo xtask check --long rules`.

#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]
#![expect(clippy::print_stdout, reason = "somebody watches a run of many minutes")]

#[path = "../oracle/mod.rs"]
mod oracle;

use std::thread;

use ringrift_rules::Config;

use crate::oracle::compare::sweep;

/// Positions compared per configuration.
const SMALL: u64 = 100_000;
const LARGE: u64 = 2_000;
/// Sweeps of one configuration that run side by side, each with its own seed.
const PARTS: u64 = 4;

fn check_configs(small: bool, wanted: u64) {
    for config in Config::ALL {
        if (config.board.cell_count() < 100) != small {
            continue;
        }
        let parts: Vec<_> = (0..PARTS)
            .map(|part| thread::spawn(move || sweep(config, wanted.div_ceil(PARTS), 1000 + part)))
            .collect();
        let (mut compared, mut listed) = (0, 0);
        for part in parts {
            // The panic of a part has said which position differs.
            let (positions, moves) = part.join().expect("both implementations agree");
            compared += positions;
            listed += moves;
        }
        println!("{config}: {compared} positions agree, {listed} moves listed");
        assert!(compared >= wanted);
    }
}

#[test]
fn both_implementations_agree_on_100_000_positions_of_each_small_config() {
    check_configs(true, SMALL);
}

#[test]
fn both_implementations_agree_on_2_000_positions_of_each_large_config() {
    check_configs(false, LARGE);
}
