//! Published vectors, read in place where they exist: `vectors/README.md`, "What to reproduce".

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringrift_rules::vectors::{
    Checked, Decision, Judge, Outcomes, Source, Verdict, check, check_line,
};
use serde_json::{Value, json};

use crate::corpus::{testdata, values};

/// A file or folder that lies beside the repository, if it is here. An isolated build cannot have
/// it; a build server must.
#[expect(clippy::print_stdout, reason = "a test that could not run must say so")]
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("absent: {}", path.display());
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

fn source(path: &Path) -> Source {
    let name = |part: Option<&std::ffi::OsStr>| part.unwrap().to_str().unwrap().to_owned();
    Source { folder: name(path.parent().unwrap().file_name()), stem: name(path.file_stem()) }
}

fn all(with_outcomes: bool) -> Option<Vec<Checked>> {
    let folder = shared("vectors")?;
    let mut outcomes = Outcomes::default();
    if with_outcomes {
        assert!(outcomes.absorb(&read(&folder.join("ts_outcomes.json"))));
    }
    let mut checked = Vec::new();
    for path in files(&folder) {
        checked.extend(check(&read(&path), &source(&path), &outcomes).into_iter().flatten());
    }
    Some(checked)
}

/// By kind: passed, failed, not applicable.
fn tally(checked: &[Checked]) -> BTreeMap<&'static str, [usize; 3]> {
    let mut tally = BTreeMap::new();
    for one in checked {
        let counts: &mut [usize; 3] = tally.entry(one.kind).or_default();
        counts[match one.verdict {
            Verdict::Passed => 0,
            Verdict::Failed { .. } => 1,
            Verdict::NotApplicable { .. } => 2,
        }] += 1;
    }
    tally
}

#[test]
fn every_published_vector_is_reproduced_or_refused_as_the_reference_lists_it() {
    let Some(checked) = all(true) else { return };
    for one in &checked {
        if let Verdict::Failed { reason, board } = &one.verdict {
            panic!("{} {}: {reason}\n{board}", one.kind, one.id);
        }
    }
    let tally = tally(&checked);
    // Two of the contract vectors are chains that break the distance rule on purpose.
    assert_eq!(tally["contract-vectors-v2"], [55, 0, 2]);
    assert_eq!(tally["fsm-parity-v1"], [14, 0, 0]);
    assert!(tally["rules-parity"][0] >= 16, "{tally:?}");
    assert_eq!(tally["golden-games"], [3, 0, 0]);
    assert_eq!(tally["ai-fe-fixtures"], [0, 0, 11]);
    assert!(tally["ai-parity-vectors"][0] >= 8, "{tally:?}");
    assert!(tally["ai-snapshots"][0] >= 18, "{tally:?}");
    assert!(tally["ai-state-bundles"][0] >= 1, "{tally:?}");
}

#[test]
fn without_outcomes_no_vector_is_held_against_the_rules() {
    let Some(checked) = all(false) else { return };
    for one in &checked {
        assert!(!matches!(one.verdict, Verdict::Failed { .. }), "{one:?}");
    }
    let passed: usize = tally(&checked).values().map(|counts| counts[0]).sum();
    assert!(passed > 40, "{passed}");
}

fn fsm(phase: &str, event: &str, context: &Value, expected: &Value) -> Checked {
    let vector = json!({
        "id": "made here",
        "input": {
            "currentPhase": phase,
            "currentPlayer": 3,
            "numPlayers": 3,
            "event": { "type": event },
            "stateContext": context,
        },
        "expectedOutput": expected,
    });
    check(&json!({ "vectors": [vector] }), &Source::default(), &Outcomes::default())
        .unwrap()
        .remove(0)
}

#[test]
fn the_abstract_table_answers_every_event_and_is_compared() {
    let check = |phase: &str, event: &str, context: Value, next: &str, player: u8| {
        let wanted = json!({ "ok": true, "nextPhase": next, "nextPlayer": player });
        let one = fsm(phase, event, &context, &wanted);
        assert_eq!(one.verdict, Verdict::Passed, "{phase} {event}: {one:?}");
        let wrong = json!({ "ok": true, "nextPhase": next, "nextPlayer": player % 3 + 1 });
        let one = fsm(phase, event, &context, &wrong);
        assert!(matches!(one.verdict, Verdict::Failed { .. }), "{phase} {event}");
    };
    check("ring_placement", "NO_PLACEMENT_ACTION", json!({}), "movement", 3);
    check("movement", "NO_MOVEMENT_ACTION", json!({}), "line_processing", 3);
    check("movement", "CAPTURE", json!({}), "chain_capture", 3);
    check("capture", "CAPTURE", json!({}), "chain_capture", 3);
    check(
        "line_processing",
        "PROCESS_LINE",
        json!({ "detectedLines": [1] }),
        "territory_processing",
        3,
    );
    check("territory_processing", "NO_TERRITORY_ACTION", json!({}), "turn_end", 1);
    let more = json!({ "ringsOverLimit": 3, "eliminationsDone": 0 });
    check("forced_elimination", "FORCED_ELIMINATE", more, "forced_elimination", 3);
    check("movement", "RESIGN", json!({}), "game_over", 3);
    check("capture", "TIMEOUT", json!({}), "game_over", 3);
    let refused = json!({ "ok": false, "errorCode": "INVALID_EVENT" });
    assert_eq!(fsm("movement", "PROCESS_LINE", &json!({}), &refused).verdict, Verdict::Passed);
}

#[test]
fn a_vector_that_differs_fails_with_the_position_drawn() {
    let Some(folder) = shared("vectors") else { return };
    let mut outcomes = Outcomes::default();
    outcomes.absorb(&read(&folder.join("ts_outcomes.json")));
    let mut file = read(&folder.join("contract-vectors-v2/capture.vectors.json"));
    // Another hand: the digest cannot be reached.
    for vector in file["vectors"].as_array_mut().unwrap() {
        vector["input"]["state"]["players"][0]["ringsInHand"] = 7.into();
    }
    let checked = check(&file, &Source::default(), &outcomes).unwrap();
    let failed = checked.iter().find(|one| matches!(one.verdict, Verdict::Failed { .. })).unwrap();
    let Verdict::Failed { reason, board } = &failed.verdict else { unreachable!() };
    assert!(reason.contains("hand of seat 1"), "{reason}");
    assert!(board.contains("to move"), "{board}");
}

#[test]
fn the_end_of_a_turn_is_judged_as_by_the_reference() {
    let mut cases = 0;
    for value in values(&testdata().join("victory_cases.jsonl.gz")) {
        let one = check_line(&value, AGREE).unwrap();
        assert_eq!(one.verdict, Verdict::Passed, "{one:?}");
        let mut wrong = value.clone();
        wrong["expect"]["over"] = (value["expect"]["over"] == false).into();
        assert!(matches!(check_line(&wrong, AGREE).unwrap().verdict, Verdict::Failed { .. }));
        cases += 1;
    }
    assert_eq!(cases, 600);
}

/// Leaves the numbers of a decision to those who have a heuristic.
const AGREE: Judge<'static> = &|_| Ok(String::new());

/// Positions in the middle of turns, with everything a position may need, and their legal moves.
#[test]
fn positions_of_the_heuristic_reference_offer_the_recorded_moves() {
    let (mut positions, mut asked) = (0, Cell::new(0));
    for value in values(&testdata().join("heuristic_ref.jsonl.gz")) {
        let count = |decision: &Decision| {
            asked.set(asked.get() + 1);
            assert_eq!(decision.features.len(), 21);
            assert!(decision.value.is_some() && decision.best.is_some());
            Ok(String::new())
        };
        let one = check_line(&value, &count).unwrap();
        assert_eq!(one.verdict, Verdict::Passed, "{one:?}");
        let mut short = value.clone();
        short["moves"].as_array_mut().unwrap().pop();
        let one = check_line(&short, AGREE).unwrap();
        assert!(matches!(one.verdict, Verdict::Failed { .. }), "{one:?}");
        positions += 1;
    }
    assert_eq!((positions, *asked.get_mut()), (523, 523));
    let first = values(&testdata().join("heuristic_ref.jsonl.gz")).next().unwrap();
    let refuse = |_: &Decision| Err("a number differs".to_owned());
    let Verdict::Failed { reason, board } = check_line(&first, &refuse).unwrap().verdict else {
        panic!("it passed");
    };
    assert!(reason.contains("a number differs") && board.contains("to move"), "{reason} {board}");
}

#[test]
fn a_departure_ends_a_game_for_two_with_a_winner_and_for_three_without() {
    use ringrift_rules::{Config, Departure, Options, Reason, Seat, State};
    let start = |name: &str| State::new(name.parse::<Config>().unwrap(), Options::default());
    let mut two = start("hex8_2p");
    two.depart(Seat::ALL[1], Departure::Timeout);
    let outcome = two.outcome().unwrap();
    assert_eq!((outcome.winner, outcome.reason), (Seat::ALL[0], Reason::Timeout));
    let mut three = start("hex8_3p");
    three.depart(Seat::ALL[2], Departure::Resignation);
    assert!(three.is_over() && three.outcome().is_none());
    assert!(three.legal_texts().is_empty());
    assert!(three.digest_text().starts_with("0;game_over;completed;0;0#"));
    three.depart(Seat::ALL[0], Departure::Timeout);
    assert!(three.outcome().is_none());
}
