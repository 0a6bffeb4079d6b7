//! The rules against the second implementation at length: `cargo xtask check --long rules`.

#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]
#![expect(clippy::print_stdout, reason = "somebody watches a run of many minutes")]

#[path = "../oracle/mod.rs"]
mod oracle;

use std::cmp::Reverse;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ringrift_rules::Config;

use crate::oracle::compare::sweep;
use crate::oracle::counts::Row;

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

/// The table to its end, row by row, on all cores.
#[test]
fn both_implementations_count_every_row_of_the_table_to_its_end() {
    let mut rows = Row::all();
    // The dearest first, so that the threads end together: all counts but the last are legal lists.
    rows.sort_by_key(|row| Reverse(row.counts.iter().rev().skip(1).sum::<u64>()));
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let counts = row.counts.len();
                    assert_eq!(row.check(u64::MAX, false), counts);
                    assert_eq!(row.check(u64::MAX, true), counts);
                    let done = 1 + done.fetch_add(1, Ordering::Relaxed);
                    let config = row.state().config();
                    println!("row {done} of {}: {config}, {:?}", rows.len(), row.counts);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), rows.len());
}
