//! `ringrift rules`: what it prints, and how it refuses.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::bench::{Ended, check_refused, command, run};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/rules").join(name)
}

fn unpacked(name: &str) -> String {
    let mut text = String::new();
    let file = fs_err::File::open(testdata(name)).unwrap();
    MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn recorded_games_replay_whatever_their_file_is_called() {
    let dir = tempdir().unwrap();
    let text = unpacked("hex8_3p.jsonl.gz");
    let games: Vec<&str> = text.lines().take(400).collect();
    let last = games.iter().rposition(|line| line.contains("\"kind\":\"end\"")).unwrap();
    fs_err::write(dir.path().join("holiday photo"), games[..=last].join("\n")).unwrap();
    let cases = testdata("victory_cases.jsonl.gz");
    let cases = cases.to_str().unwrap();
    let ended = run(dir.path(), &["rules", "replay", "holiday photo", cases, "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let shown = ended.json();
    assert!(shown["games"].as_u64().unwrap() > 1, "{shown}");
    assert_eq!((&shown["failed"], &shown["faults"]), (&json!(0), &json!(0)));
    assert_eq!(shown["files"][1]["vectors"], 600);
}

#[test]
fn the_first_divergence_is_shown_with_its_place_and_the_board() {
    let dir = tempdir().unwrap();
    let text = unpacked("hex8_3p.jsonl.gz").replacen("\"m\":\"NL\"", "\"m\":\"NT\"", 1);
    let lines: Vec<&str> = text.lines().take(300).collect();
    fs_err::write(dir.path().join("g"), lines.join("\n")).unwrap();
    let ended = run(dir.path(), &["rules", "replay", "g"]);
    assert_eq!(ended.code, 1);
    for part in ["first divergence, g: game ", "line ", "NT", "territory_processing", "to move"] {
        assert!(ended.out.contains(part), "{part} is missing: {ended:?}");
    }
}

#[test]
fn files_that_are_broken_are_named_with_the_place() {
    let dir = tempdir().unwrap();
    let whole = fs_err::read(testdata("hex8_3p.jsonl.gz")).unwrap();
    fs_err::write(dir.path().join("cut.gz"), &whole[..whole.len() / 2]).unwrap();
    fs_err::write(dir.path().join("text"), "just words\n").unwrap();
    fs_err::write(dir.path().join("half"), "{\"kind\":\"game\"\n").unwrap();
    fs_err::write(dir.path().join("other"), "{\"a\":1}\n{\"b\":2}\n").unwrap();
    fs_err::write(dir.path().join("empty"), "").unwrap();
    let deep = "[".repeat(200_000);
    fs_err::write(dir.path().join("deep"), deep).unwrap();
    for command in ["replay", "verify"] {
        let check = |file: &str, part: &str| {
            let ended = run(dir.path(), &["rules", command, file]);
            assert_eq!(ended.code, 1, "{command} {file}: {ended:?}");
            let line = ended.out.lines().find(|line| line.starts_with("unreadable, ")).unwrap();
            assert!(line.contains(file) && line.contains(part), "{command}: {line}");
            assert!(!ended.err.contains("panicked"), "{ended:?}");
        };
        check("cut.gz", "line ");
        check("text", "no JSON");
        check("half", "line ");
        check("other", "line 1");
        check("empty", "empty");
        check("deep", "recursion limit");
    }
    let ended = run(dir.path(), &["rules", "replay", "nowhere"]);
    check_refused(&ended, 2, &["nowhere"]);
}

#[test]
fn vectors_are_judged_by_kind() {
    let dir = tempdir().unwrap();
    let text = unpacked("victory_cases.jsonl.gz");
    fs_err::write(dir.path().join("v"), &text).unwrap();
    let ended = run(dir.path(), &["rules", "verify", "v", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.json()["kinds"]["victory_cases"]["passed"], 600);

    // Decisions of the heuristic reference, and one whose best move is said to be another.
    let text = unpacked("heuristic_ref.jsonl.gz");
    fs_err::write(dir.path().join("d"), &text).unwrap();
    let ended = run(dir.path(), &["rules", "verify", "d", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let counts = json!({ "passed": 523, "failed": 0, "not_applicable": 0 });
    assert_eq!(ended.json()["kinds"]["heuristic_ref"], counts);
    let mut line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    line["moves"][0]["value"] = json!(1.5);
    fs_err::write(dir.path().join("d"), line.to_string()).unwrap();
    let ended = run(dir.path(), &["rules", "verify", "d"]);
    assert_eq!(ended.code, 1);
    let parts =
        ["failed, d, heuristic_ref v-rec-", "value of C 4,3*3,3>0,3: recorded 1.5", "to move"];
    assert!(parts.iter().all(|part| ended.out.contains(part)), "{ended:?}");

    let vector = json!({ "vectors": [{
        "id": "mine",
        "input": {
            "currentPhase": "movement", "currentPlayer": 1, "numPlayers": 2,
            "event": { "type": "NO_MOVEMENT_ACTION" }, "stateContext": {},
        },
        "expectedOutput": { "ok": true, "nextPhase": "capture", "nextPlayer": 1 },
    }] });
    fs_err::create_dir(dir.path().join("folder")).unwrap();
    fs_err::write(dir.path().join("folder/README.md"), "# no vector\n").unwrap();
    fs_err::write(dir.path().join("folder/x"), vector.to_string()).unwrap();
    let ended = run(dir.path(), &["rules", "verify", "folder"]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("failed, folder/x, fsm-parity-v1 mine: nextPhase"), "{ended:?}");

    fs_err::remove_file(dir.path().join("folder/x")).unwrap();
    check_refused(&run(dir.path(), &["rules", "verify", "folder"]), 2, &["no vector", "folder"]);
}

#[test]
fn counts_are_those_of_the_reference() {
    let dir = tempdir().unwrap();
    let perft: Value =
        serde_json::from_str(&fs_err::read_to_string(testdata("perft.json")).unwrap()).unwrap();
    for config in ["square8_2p", "hex8_2p"] {
        let args = ["rules", "perft", "--config", config, "--depth", "4", "--json", "--divide"];
        let shown = run(dir.path(), &args).json();
        assert_eq!(shown["count"], perft["initial"][config]["all"]["4"]);
        let divided = shown["divide"].as_object().unwrap().values();
        let sum: u64 = divided.filter_map(Value::as_u64).sum();
        assert_eq!(shown["count"], sum);
    }
    let args = ["rules", "perft", "--config", "hexagonal_4p", "--depth", "1"];
    assert!(run(dir.path(), &args).out.starts_with("hexagonal_4p, depth 1: "));
    let ended = run(dir.path(), &["rules", "perft", "--config", "hex8_5p", "--depth", "1"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("did you mean"), "{ended:?}");
}

fn typed(args: &[&str], lines: &str) -> Ended {
    let dir = tempdir().unwrap();
    let mut child = command(dir.path(), args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_game_that_was_left_is_saved_and_replays() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("evening.game");
    let path = path.to_str().unwrap();
    let args = ["rules", "play", "--config", "hex8_3p", "--seat", "2", "--save", path];
    let ended = typed(&args, "1\n1\n1\n1\nquit\n");
    assert_eq!(ended.code, 0, "{ended:?}");
    for command in ["replay", "verify"] {
        let ended = run(dir.path(), &["rules", command, path]);
        assert_eq!(ended.code, 0, "{ended:?}");
    }
    let mut bytes = fs_err::read(path).unwrap();
    let last = bytes.len() - 12;
    bytes[last] ^= 0x55;
    fs_err::write(path, &bytes).unwrap();
    let ended = run(dir.path(), &["rules", "replay", path]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("unreadable") && ended.out.contains("byte "), "{ended:?}");
}

#[test]
fn the_cost_is_measured_and_the_signature_told() {
    let dir = tempdir().unwrap();
    let args = ["rules", "bench", "--config", "hex8_2p", "--seconds", "1", "--json"];
    let shown = run(dir.path(), &args).json();
    assert!(shown["signature"].as_u64().unwrap() > 0, "{shown}");
    assert!(shown["costs"][0]["moves_per_second"].as_f64().unwrap() > 0.0, "{shown}");
}

#[test]
fn a_person_plays_on_the_terminal() {
    let args = ["rules", "play", "--config", "square8_2p", "--seed", "3"];
    let ended = typed(&args, "help\nmoves P 3,3\nP 9,9 1\nNT\n9999\nP 3,3 2\n1\nresign\n");
    assert_eq!(ended.code, 0, "{ended:?}");
    for part in [
        "You are seat 1",
        "A move in notation",
        ") P 3,3 1   ",
        "not on the board",
        "territory_processing",
        "9999 is no number in the list; allowed are 1 to ",
        "1 P 3,3 2   places 2 rings on 3,3",
        "2 won: resignation",
        "1. seat 2",
    ] {
        assert!(ended.out.contains(part), "{part} is missing: {}", ended.out);
    }
    let ended = typed(&args, "");
    assert_eq!(ended.code, 0, "{ended:?}");
    let ended = typed(&["rules", "play", "--config", "hex8_2p", "--seat", "3"], "");
    check_refused(&ended, 2, &["--seat: 3", "1 to 2"]);
    let ended = typed(&["rules", "play", "--config", "hex8_2p", "--against", "model:x@8"], "");
    check_refused(&ended, 2, &["ringrift-data"]);
}
