//! Numbers of move sequences of the reference engine (`perft.json`).

use std::collections::BTreeMap;

use ringrift_rules::corpus::{Game, Replayer};
use ringrift_rules::{Config, Options, Placements, State, perft};
use serde::Deserialize;

use crate::corpus::{lines, testdata};

#[derive(Deserialize)]
struct Perft {
    initial: BTreeMap<String, Initial>,
    positions: Vec<Position>,
}

#[derive(Deserialize)]
struct Initial {
    all: BTreeMap<u32, u64>,
    #[serde(rename = "singleRing")]
    single_ring: BTreeMap<u32, u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Position {
    game: String,
    after_move: u32,
    player: u8,
    phase: String,
    perft: Vec<u64>,
}

fn published() -> Perft {
    let text = fs_err::read_to_string(testdata().join("perft.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn sequences_from_the_first_position_have_the_published_numbers() {
    for (name, initial) in published().initial {
        let config: Config = name.parse().unwrap();
        let state = State::new(config, Options::default());
        for (counts, placements) in
            [(initial.all, Placements::All), (initial.single_ring, Placements::SingleRing)]
        {
            for (depth, count) in counts {
                assert_eq!(perft(&state, depth, placements), count, "{name}, depth {depth}");
            }
        }
    }
}

#[test]
fn sequences_from_positions_of_games_have_the_published_numbers() {
    let mut wanted = published().positions;
    for config in Config::ALL {
        let mut replayer = Replayer::new();
        let mut needed = false;
        for line in lines(&testdata().join(format!("{config}.jsonl.gz"))) {
            // Cheap test before the whole line is read: only some games are needed.
            if line.starts_with("{\"kind\":\"game\"") {
                let game: Game = serde_json::from_str(&line).unwrap();
                needed = wanted.iter().any(|position| position.game == game.id);
            }
            if !needed {
                continue;
            }
            replayer.feed(serde_json::from_str(&line).unwrap()).unwrap();
            let Some((game, state)) = replayer.running() else { continue };
            wanted.retain(|position| {
                if position.game != game.id || position.after_move != state.move_number() {
                    return true;
                }
                let place = format!("{} after {}", position.game, position.after_move);
                assert_eq!(state.to_move().number(), position.player, "{place}");
                assert_eq!(state.phase().name(), position.phase, "{place}");
                for (depth, count) in (1..).zip(&position.perft) {
                    assert_eq!(perft(state, depth, Placements::All), *count, "{place}, {depth}");
                }
                false
            });
        }
    }
    let missing: Vec<&String> = wanted.iter().map(|position| &position.game).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
