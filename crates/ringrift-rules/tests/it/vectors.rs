//! Published vectors, read in place where they exist: `vectors/README.md`, "What to reproduce".

use std::path::{Path, PathBuf};

use ringrift_rules::json::{Position, PositionError};
use ringrift_rules::published::{read_move, state};
use ringrift_rules::{Cell, Config, Move, Options, State};
use serde_json::Value;

use crate::corpus::{legal_texts, lines};

/// The folder, if it is here. An isolated build cannot have it; a build server must.
fn vectors(test: &str) -> Option<PathBuf> {
    shared("vectors/ts_outcomes.json", test)?.parent().map(Path::to_owned)
}

/// A file that lies beside the repository, if it is here.
#[expect(clippy::print_stdout, reason = "a test that could not run must say so")]
fn shared(file: &str, test: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(file);
    if path.exists() {
        return Some(path);
    }
    println!("absent: {test} needs {}", path.display());
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "the published vectors are missing"
    );
    None
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
}

/// JSON files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort_unstable();
    files
}

/// Applies a published move under the rules.
fn play(state: &mut State, mv: &Value) -> Result<Move, String> {
    let mv = read_move(state, mv).map_err(|error: PositionError| error.to_string())?;
    state.apply(&mv).map_err(|error| error.to_string())?;
    Ok(mv)
}

/// Applies a move that the reference lists: it must be accepted and reach the recorded position.
fn play_to(state: &mut State, mv: &Value, digest: &Value, place: &str) {
    play(state, mv).unwrap_or_else(|error| panic!("{place}: {error}\n{}", state.render()));
    assert_eq!(digest, &state.digest(), "{place}: {}", state.digest_text());
}

/// A move that the reference does not list must be refused and leave the position alone. Some stand
/// in positions that are none, with stacks beside the board for example: these are refused already.
fn is_refused(position: &Value, mv: &Value, place: &str) {
    let Ok(mut state) = state(position) else { return };
    let before = state.clone();
    let played = play(&mut state, mv);
    assert!(played.is_err(), "{place}: {played:?} was accepted");
    assert!(state == before, "{place}: the refused move changed the position");
}

/// `after` or `final` against the position: all its counters, and the winner.
fn same_summary(state: &State, after: &Value, place: &str) {
    assert_eq!(after["d"], state.digest(), "{place}: {}", state.digest_text());
    assert_eq!(after["phase"], state.phase().name(), "{place}");
    if let Some(outcome) = state.outcome() {
        assert_eq!(after["winner"], outcome.winner.number(), "{place}");
    } else {
        assert_eq!(after["player"], state.to_move().number(), "{place}");
    }
    for seat in state.config().seats() {
        for (field, own) in [
            ("h", state.hand(seat)),
            ("e", state.eliminated(seat)),
            ("t", state.territory(seat)),
            ("b", state.rings_on_board(seat)),
            ("k", state.markers(seat)),
        ] {
            assert_eq!(after[field][seat.index()], own, "{place}: {field} of {seat}");
        }
    }
}

fn count(state: &State, wanted: fn(&Cell) -> bool) -> usize {
    state.geometry().cells().filter(|cell| wanted(&state.cell(*cell))).count()
}

/// Assertions of a contract vector that the original's runner checks; gives their number.
fn check_assertions(state: &State, assertions: &Value, place: &str) -> usize {
    let mut checked = 0;
    for (key, wanted) in assertions.as_object().into_iter().flatten() {
        let found: Value = match key.as_str() {
            "currentPlayer" if !state.is_over() => state.to_move().number().into(),
            "currentPhase" => state.phase().name().into(),
            "gameStatus" => (if state.is_over() { "completed" } else { "active" }).into(),
            "stackCount" => count(state, |cell| matches!(cell, Cell::Stack(_))).into(),
            "markerCount" => count(state, |cell| matches!(cell, Cell::Marker(_))).into(),
            "collapsedCount" => count(state, |cell| matches!(cell, Cell::Collapsed(_))).into(),
            "victoryWinner" => state.outcome().map(|outcome| outcome.winner.number()).into(),
            "victoryReason" => state.outcome().map(|outcome| outcome.reason.name()).into(),
            other => {
                let seat = state.config().seats().find(|seat| {
                    other.strip_prefix("player").is_some_and(|o| o.starts_with(&seat.to_string()))
                });
                match (seat, other.get("playerN".len()..)) {
                    (Some(seat), Some("RingsInHand")) => state.hand(seat).into(),
                    (Some(seat), Some("EliminatedRings")) => state.eliminated(seat).into(),
                    (Some(seat), Some("TerritorySpaces")) => state.territory(seat).into(),
                    // The original's runner knows no other keys either.
                    _ => continue,
                }
            }
        };
        assert_eq!(&found, wanted, "{place}: {key}");
        checked += 1;
    }
    checked
}

#[test]
fn contract_vectors_are_reproduced_or_refused_as_the_reference_lists_them() {
    let Some(folder) = vectors("contract vectors") else { return };
    let outcomes = read(&folder.join("ts_outcomes.json"));
    let (mut listed, mut refused, mut assertions) = (0, 0, 0);
    for file in files(&folder.join("contract-vectors-v2")) {
        let file = read(&file);
        for vector in file["vectors"].as_array().into_iter().flatten() {
            let id = vector["id"].as_str().unwrap();
            let (input, outcome) = (&vector["input"], &outcomes[id]);
            let mv = if input["move"].is_object() { &input["move"] } else { &input["initialMove"] };
            match outcome["listed"].as_bool() {
                Some(true) => {
                    let mut state = state(&input["state"]).unwrap();
                    play_to(&mut state, mv, &outcome["after"]["d"], id);
                    same_summary(&state, &outcome["after"], id);
                    for kind in outcome["auto"].as_array().into_iter().flatten() {
                        play(&mut state, &serde_json::json!({ "type": kind })).unwrap();
                    }
                    if outcome["final"].is_object() {
                        same_summary(&state, &outcome["final"], id);
                    }
                    if outcome["pass"] == true {
                        let wanted = &vector["expectedOutput"]["assertions"];
                        assertions += check_assertions(&state, wanted, id);
                    }
                    listed += 1;
                }
                Some(false) => {
                    is_refused(&input["state"], mv, id);
                    refused += 1;
                }
                None => {}
            }
        }
    }
    println!("{listed} reproduced with {assertions} assertions, {refused} refused");
    assert!(listed > 0 && refused > 0 && assertions > 0);
}

#[test]
fn chains_of_captures_are_reproduced_as_far_as_they_are_legal() {
    let Some(folder) = vectors("chain vectors") else { return };
    let outcomes = read(&folder.join("ts_outcomes.json"));
    let (mut whole, mut refused) = (0, 0);
    for file in files(&folder.join("contract-vectors-v2")) {
        let file = read(&file);
        for vector in file["vectors"].as_array().into_iter().flatten() {
            let id = vector["id"].as_str().unwrap();
            let Some(chain) = outcomes[id]["chain"].as_array() else { continue };
            let input = &vector["input"];
            let mut state = state(&input["state"]).unwrap();
            let segments = input["expectedChainSequence"].as_array().unwrap();
            let mut legal = true;
            for (segment, after) in segments.iter().zip(chain) {
                let kind = if segment["segment"] == 1 {
                    "overtaking_capture"
                } else {
                    "continue_capture_segment"
                };
                let mv = serde_json::json!({
                    "type": kind,
                    "from": segment["from"],
                    "captureTarget": segment["captureTarget"],
                    "to": segment["landing"],
                });
                // The reference trusts the geometry: a theoretical chain parts at its first segment
                // that breaks the distance rule, and is not to be reproduced from there.
                if play(&mut state, &mv).is_err() {
                    assert!(id.contains("theoretical"), "{id}: {}", segment["segment"]);
                    legal = false;
                    break;
                }
                assert_eq!(after["d"], state.digest(), "{id}: {}", state.digest_text());
            }
            if legal {
                let wanted = &vector["expectedOutput"];
                let end = &wanted["finalState"]["finalStackPosition"];
                let key = format!("{},{}", end["x"], end["y"]);
                let cell = state.geometry().cell(&key).unwrap();
                let Cell::Stack(stack) = state.cell(cell) else {
                    panic!("{id}: no stack on {key}")
                };
                let wanted = &wanted["assertions"];
                assert_eq!(wanted["finalStackHeight"], stack.height(), "{id}");
                assert_eq!(wanted["finalStackController"], stack.controller().number(), "{id}");
                assert_eq!(wanted["totalCapturesInChain"], chain.len(), "{id}");
                let markers = count(&state, |cell| matches!(cell, Cell::Marker(_)));
                assert_eq!(wanted["markersCreated"], markers, "{id}");
                whole += 1;
            } else {
                refused += 1;
            }
        }
    }
    println!("{whole} chains reproduced, {refused} part where the rules are broken");
    assert!(whole > 0);
}

#[test]
fn golden_games_replay_up_to_their_first_illegal_move() {
    let Some(folder) = vectors("golden games") else { return };
    let outcomes = read(&folder.join("ts_outcomes.json"));
    let mut moves = 0;
    for path in files(&folder.join("golden-games")) {
        let game = read(&path);
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let outcome = &outcomes[format!("golden.{name}")];
        let config: Config =
            format!("{}_{}p", game["boardType"].as_str().unwrap(), game["numPlayers"])
                .parse()
                .unwrap();
        let mut state = State::new(config, Options::default());
        let first_illegal = outcome["listedAsLegal"]
            .as_array()
            .and_then(|numbers| numbers.iter().filter_map(Value::as_u64).min());
        let digests = outcome["digests"].as_array().unwrap();
        for (number, (mv, digest)) in
            (1..).zip(game["moves"].as_array().unwrap().iter().zip(digests))
        {
            let place = format!("{name}, move {number}");
            if Some(number) == first_illegal {
                assert!(play(&mut state, mv).is_err(), "{place} was accepted");
                break;
            }
            play_to(&mut state, mv, digest, &place);
            moves += 1;
        }
    }
    assert!(moves > 0);
}

#[test]
fn rules_parity_vectors_are_reproduced_or_refused_as_the_reference_lists_them() {
    let Some(folder) = vectors("rules parity") else { return };
    let outcomes = read(&folder.join("ts_outcomes.json"));
    let (mut listed, mut refused, mut steps) = (0, 0, 0);
    for version in ["v1", "v2"] {
        for path in files(&folder.join(format!("rules-parity-{version}"))) {
            let vector = read(&path);
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let id = format!("rules-parity.{version}.{name}");
            let outcome = &outcomes[&id];
            assert!(outcome.is_object(), "{id} has no recorded outcome");
            if let Some(is_listed) = outcome["listed"].as_bool() {
                if is_listed {
                    let mut state = state(&vector["state"]).unwrap();
                    play_to(&mut state, &vector["move"], &outcome["after"]["d"], &id);
                    same_summary(&state, &outcome["after"], &id);
                    listed += 1;
                } else {
                    is_refused(&vector["state"], &vector["move"], &id);
                    refused += 1;
                }
            }
            if let Some(traced) = vector["steps"].as_array() {
                let Ok(mut state) = state(&vector["initialState"]) else { continue };
                for (step, outcome) in traced.iter().zip(outcome["steps"].as_array().unwrap()) {
                    // Traces have no `listed`; where we agree that the move is legal, the
                    // position must agree too.
                    if play(&mut state, &step["move"]).is_err() {
                        break;
                    }
                    assert_eq!(outcome["after"]["d"], state.digest(), "{id}");
                    steps += 1;
                }
            }
        }
    }
    println!("{listed} reproduced, {refused} refused, {steps} steps of traces reproduced");
    assert!(listed > 0 && refused > 0 && steps > 0);
}

#[test]
fn vectors_of_the_python_side_reach_the_positions_of_the_reference() {
    let Some(folder) = vectors("ai parity") else { return };
    let outcomes = read(&folder.join("ts_outcomes.json"));
    let (mut moves, mut lines, mut steps, mut bundles) = (0, 0, 0, 0);
    for path in files(&folder.join("ai-parity-vectors")) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let file = read(&path);
        for vector in file["vectors"].as_array().into_iter().flatten() {
            let id = format!("ai.{}", vector["id"].as_str().unwrap());
            let outcome = &outcomes[&id];
            let mut state = state(&vector["input"]["state"]).unwrap();
            if outcome["accepted"] == true {
                let mv = &vector["input"]["initialMove"];
                play_to(&mut state, mv, &outcome["after"]["d"], &id);
                moves += 1;
            }
            if let Some(wanted) = outcome["lines"].as_array() {
                let least = state.board().detection_length();
                let found: Vec<Value> = state
                    .config()
                    .seats()
                    .flat_map(|seat| state.runs(seat, least).map(move |run| (seat, run)))
                    .map(|(seat, run)| {
                        let eligible = state.lines(seat).any(|line| line == run);
                        let (player, length) = (seat.number(), run.len());
                        serde_json::json!({ "player": player, "length": length, "eligible": eligible })
                    })
                    .collect();
                assert_eq!(&found, wanted, "{id}");
                lines += 1;
            }
        }
        for (number, (step, outcome)) in file
            .as_array()
            .into_iter()
            .flatten()
            .zip(outcomes[format!("ai.{name}")]["steps"].as_array().into_iter().flatten())
            .enumerate()
        {
            if outcome["fullMatch"] == true {
                let mut state = state(&step["stateBefore"]).unwrap();
                let place = format!("{name}, step {number}");
                play_to(&mut state, &step["move"], &outcome["after"]["d"], &place);
                steps += 1;
            }
        }
    }
    for path in files(&folder.join("ai-state-bundles")) {
        let bundle = read(&path);
        let states = &bundle["ts_states"];
        if !states.is_object() {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let Some(outcome) = outcomes.get(format!("ai.{folder}.{name}")) else { continue };
        for transition in outcome["transitions"].as_array().unwrap() {
            if transition["fullMatch"] != true {
                continue;
            }
            let from = transition["from"].as_u64().unwrap();
            let mut state = state(&states[from.to_string()]).unwrap();
            let next = states[(from + 1).to_string()]["moveHistory"].as_array().unwrap();
            play_to(&mut state, next.last().unwrap(), &transition["after"]["d"], name);
            bundles += 1;
        }
    }
    println!("{moves} moves, {lines} line detections, {steps} steps, {bundles} bundles");
    assert!(moves > 0 && lines > 0 && steps > 0 && bundles > 0);
}

/// Positions in the middle of turns, with everything a position may need, and their legal moves.
#[test]
fn positions_of_the_heuristic_reference_offer_the_recorded_moves() {
    let Some(path) = shared("games/heuristic_ref.jsonl.gz", "heuristic reference") else { return };
    let mut positions = 0;
    for line in lines(&path) {
        let value: Value = serde_json::from_str(&line).unwrap();
        let config: Config = value["cfg"].as_str().unwrap().parse().unwrap();
        let options: Options = serde_json::from_value(value["options"].clone()).unwrap();
        let position: Position = serde_json::from_value(value["state"].clone()).unwrap();
        let state = position.state(config, options).unwrap();
        let wanted: Vec<&str> =
            value["moves"].as_array().unwrap().iter().map(|mv| mv["m"].as_str().unwrap()).collect();
        let place = format!("{} after {}\n{}", value["id"], value["after"], state.render());
        assert_eq!(legal_texts(&state), wanted, "{place}");
        positions += 1;
    }
    assert!(positions > 0);
}
