//! Games of the reference engine, replayed: `testdata/rules/README.md`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use ringrift_rules::corpus::{Divergence, Replayer, Tally};
use serde_json::{Value, json};

pub(crate) fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/rules")
}

pub(crate) fn lines(path: &Path) -> impl Iterator<Item = String> + use<> {
    let file = fs_err::File::open(path).unwrap();
    BufReader::new(GzDecoder::new(file)).lines().map(Result::unwrap)
}

pub(crate) fn values(path: &Path) -> impl Iterator<Item = Value> + use<> {
    lines(path).map(|line| serde_json::from_str(&line).unwrap())
}

/// Replays the games of a configuration; their number is that of the README.
fn check_config(name: &str, games: u64, moves: u64) {
    let mut replayer = Replayer::new();
    for value in values(&testdata().join(format!("{name}.jsonl.gz"))) {
        replayer.feed(value).unwrap_or_else(|parted| panic!("{parted}\n{}", parted.board));
    }
    replayer.close().unwrap();
    let Tally { lists, .. } = replayer.tally();
    assert_eq!(replayer.tally(), Tally { games, failed: 0, moves, lists });
    // Some large games carry no whole list, only its number and hash.
    assert!(lists > 0 || moves < 6_000);
}

#[test]
fn games_on_square8_with_two_players_replay_exactly() {
    check_config("square8_2p", 160, 10_971);
}

#[test]
fn games_on_square8_with_three_players_replay_exactly() {
    check_config("square8_3p", 63, 4_036);
}

#[test]
fn games_on_square8_with_four_players_replay_exactly() {
    check_config("square8_4p", 63, 4_551);
}

#[test]
fn games_on_square19_with_two_players_replay_exactly() {
    check_config("square19_2p", 11, 2_417);
}

#[test]
fn games_on_square19_with_three_players_replay_exactly() {
    check_config("square19_3p", 6, 2_899);
}

#[test]
fn games_on_square19_with_four_players_replay_exactly() {
    check_config("square19_4p", 6, 2_956);
}

#[test]
fn games_on_hex8_with_two_players_replay_exactly() {
    check_config("hex8_2p", 160, 13_818);
}

#[test]
fn games_on_hex8_with_three_players_replay_exactly() {
    check_config("hex8_3p", 63, 5_236);
}

#[test]
fn games_on_hex8_with_four_players_replay_exactly() {
    check_config("hex8_4p", 63, 6_229);
}

#[test]
fn games_on_hexagonal_with_two_players_replay_exactly() {
    check_config("hexagonal_2p", 11, 4_142);
}

#[test]
fn games_on_hexagonal_with_three_players_replay_exactly() {
    check_config("hexagonal_3p", 6, 5_869);
}

#[test]
fn games_on_hexagonal_with_four_players_replay_exactly() {
    check_config("hexagonal_4p", 6, 5_260);
}

/// Changes one field of one line of the first game; gives where the record is said to part.
fn tampered(line: usize, field: &str, new: &Value) -> Divergence {
    let mut replayer = Replayer::new();
    let game = values(&testdata().join("hex8_2p.jsonl.gz"));
    for (number, mut value) in game.enumerate().take(200) {
        if number == line {
            value[field] = new.clone();
        }
        if let Err(parted) = replayer.feed(value) {
            return parted;
        }
    }
    panic!("nobody noticed {field} = {new}");
}

#[test]
fn every_field_of_a_record_is_compared() {
    let check = |field: &str, new: Value, what: &str| {
        let parted = tampered(7, field, &new);
        assert!(parted.place.starts_with("move 7,"), "{field}: {parted}");
        assert!(parted.reason.contains(what), "{field}: {parted}");
        assert!(parted.board.contains("to move"), "{field}");
    };
    check("m", json!("P 9,9,9 1"), "not on the board");
    check("m", json!("NT"), "territory_processing");
    check("by", json!(3), "player of the move");
    check("pl", json!(4), "player and phase");
    check("ph", json!("capture"), "player and phase");
    check("pay", json!(1), "payment");
    for (field, what) in [
        ("h", "hand"),
        ("b", "on the board"),
        ("e", "eliminated"),
        ("t", "territory"),
        ("k", "markers"),
        ("c", "stacks"),
    ] {
        check(field, json!([9, 9]), what);
    }
    check("d", json!("0123456789abcdef"), "digest");
    check("lc", json!(999), "number of legal moves");
    check("lh", json!("0123456789abcdef"), "hash of the legal moves");
    check("L", json!(["NP"]), "list besides");
    check("board", json!({ "markers": { "0,0,0": 1 } }), "board");
    check("f", json!(["recovery_refused"]), "recovery_refused");
    let parted = tampered(0, "board", &json!("hex9"));
    assert!(parted.reason.contains("unknown configuration"), "{parted}");
    let parted = tampered(5, "kind", &json!("end"));
    assert!(parted.reason.contains("cannot be read"), "{parted}");
}

#[test]
fn a_game_that_parts_is_passed_over_and_the_next_one_compared() {
    let mut replayer = Replayer::new();
    let mut failures = 0;
    let mut games = 0;
    for (number, mut value) in values(&testdata().join("hex8_2p.jsonl.gz")).enumerate() {
        games += usize::from(value["kind"] == "game");
        if games > 3 {
            break;
        }
        if number == 9 {
            value["m"] = json!("SP");
        }
        failures += usize::from(replayer.feed(value).is_err());
    }
    assert_eq!(failures, 1);
    assert_eq!((replayer.tally().games, replayer.tally().failed), (2, 1));
    assert!(replayer.close().is_ok());
    replayer.feed(json!({ "m": "NP", "pl": 1, "ph": "movement" })).unwrap_err();
}
