//! The engine against a second implementation, on positions made to part them.

use ringrift_rules::{Config, SplitMix64};

use crate::oracle::compare::{check, shrink, sweep};
use crate::oracle::counts::Row;
use crate::oracle::positions::{Case, make};

#[test]
fn both_implementations_agree_on_made_positions_of_small_boards() {
    for config in Config::ALL.into_iter().filter(|config| config.board.cell_count() < 100) {
        let (compared, listed) = sweep(config, 400, 1);
        assert!(compared >= 400 && listed > compared, "{config}: {compared}, {listed}");
    }
}

#[test]
fn both_implementations_agree_on_made_positions_of_large_boards() {
    for config in Config::ALL.into_iter().filter(|config| config.board.cell_count() > 100) {
        let (compared, _) = sweep(config, 20, 1);
        assert!(compared >= 20, "{config}: {compared}");
    }
}

#[test]
fn both_implementations_count_the_same_sequences() {
    let rows = Row::all();
    // The table has rows of all configurations, up to 5 million sequences deep; the long suite
    // goes to the end of each.
    assert_eq!(rows.len(), 48);
    let (mut fast, mut slow) = (0, 0);
    for row in &rows {
        fast += row.check(4000, false);
        slow += row.check(60, true);
    }
    assert!(fast > 150 && slow > 90, "{fast}, {slow}");
}

/// A difference that is put in on purpose: two stacks and a marker are all that it needs.
#[test]
fn a_difference_is_found_and_shrunk_to_what_it_needs() {
    let differs = |case: &Case| {
        let board = &case.position.board;
        board.stacks.len() >= 2 && !board.markers.is_empty()
    };
    let mut random = SplitMix64::new(5);
    let config: Config = "square8_3p".parse().unwrap();
    let case = std::iter::from_fn(|| Some(make(config, &mut random))).find(differs).unwrap();
    let small = shrink(case, differs);
    let board = &small.position.board;
    assert_eq!((board.stacks.len(), board.markers.len(), board.collapsed.len()), (2, 1, 0));
    assert!(board.stacks.values().all(|rings| rings.len() == 1));
    assert_eq!(small.position.h, [0; 3]);
}

/// Every made position must be of use: most are read, and all kinds of moves come up.
#[test]
fn made_positions_meet_every_kind_of_move() {
    let mut random = SplitMix64::new(9);
    let mut words = std::collections::BTreeSet::new();
    let mut readable = 0;
    for number in 0..3000 {
        let config = Config::ALL[[0, 1, 2, 6, 7, 8][number % 6]];
        let case = make(config, &mut random);
        let Ok(state) = case.position.state(case.config, case.options) else { continue };
        readable += 1;
        for text in state.legal_texts() {
            let mut parts = text.split(' ');
            let word = parts.next().unwrap().to_owned();
            let more = if word == "R" || word == "E" { parts.next() } else { None };
            words.insert(format!("{word} {}", more.unwrap_or_default()).trim().to_owned());
        }
        if number < 60 {
            check(&case, 4).unwrap();
        }
    }
    assert!(readable > 2500, "{readable}");
    let missing: Vec<&str> = [
        "P",
        "SP",
        "NP",
        "SW",
        "M",
        "C",
        "R line",
        "R fallback",
        "R stack_strike",
        "SR",
        "NM",
        "L",
        "O",
        "E line",
        "E territory",
        "NL",
        "T",
        "ST",
        "NT",
    ]
    .into_iter()
    .filter(|word| !words.contains(*word))
    .collect();
    assert!(missing.is_empty(), "{missing:?} never came up");
}
