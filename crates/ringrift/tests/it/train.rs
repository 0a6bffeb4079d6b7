//! `train` and `play`: learning without a manager, as a person meets it.

use std::{io::Write as _, path::Path, process::Stdio, time::Duration};

use serde_json::Value;

use crate::bench::{Ended, RINGRIFT, check_refused, command, command_of, run, wait_for};

/// A run of seconds.
const SMALL: [&str; 16] = [
    "--set",
    "early=[]",
    "--set",
    "selfplay.games=8",
    "--set",
    "selfplay.simulations=4",
    "--set",
    "selfplay.fast_simulations=2",
    "--set",
    "train.batch=16",
    "--set",
    "train.steps=4",
    "--set",
    "gate.pairs=4",
    "--set",
    "gate.guard_pairs=3",
];
const CLOSING: [&str; 6] = [
    "--set",
    "gate.simulations=2",
    "--set",
    "closing.rulers=[{\"player\":\"random\",\"games\":8,\"simulations\":4}]",
    "--set",
    "closing.first_games=4",
];

fn train(folder: &Path, args: &[&str]) -> Ended {
    run(folder, &[&["train", "--config", "hex8_2p"][..], args, &SMALL, &CLOSING].concat())
}

#[test]
fn a_run_prints_its_proofs_and_the_command_that_repeats_it() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--steps", "8", "--threads", "1", "--seed", "5", "--data", "d", "--out", "net"];
    let ended = train(dir.path(), &args);
    assert_eq!(ended.code, 0, "{ended:?}");
    for part in [
        "1: ",
        "8 games of ",
        " steps on ",
        "against random",
        "won-lost",
        "Elo (95 %)",
        "LOS",
        "hex8_2p, seed 5: ",
        "on 1 threads: 2 iterations, 16 games, ",
        "champion: net ",
        "random = 0",
        "repeat: ringrift train --config hex8_2p --steps 8 --threads 1 --seed 5 ",
        "--set 'early=[]'",
    ] {
        assert!(ended.out.contains(part), "{part} is missing: {}", ended.out);
    }

    // What was kept can be shown, and says the same.
    let shown = run(dir.path(), &["train", "--show", "hex8_2p-seed5-1", "--data", "d", "--json"]);
    let kept = shown.json();
    assert_eq!(kept["stand"], "learned");
    assert_eq!(kept["points"].as_array().map(Vec::len), Some(2));
    assert_eq!(kept["closing"][0]["against"], "random");
    let people = run(dir.path(), &["train", "--show", "d/runs/hex8_2p-seed5-1"]);
    assert!(people.out.contains("won-lost"), "{people:?}");

    // The command that was printed repeats the run: only time differs.
    let line = ended.out.lines().find_map(|line| line.strip_prefix("repeat: ringrift ")).unwrap();
    let script = format!("{RINGRIFT} {line} --json");
    let again: Ended = command_of("sh", dir.path(), &["-c", &script]).output().unwrap().into();
    assert_eq!(timeless(again.json()), timeless(kept));

    // The champion's file is a player.
    let arguments =
        ["match", "model:net@2", "random", "--config", "hex8_2p", "--games", "4", "--json"];
    assert_eq!(run(dir.path(), &arguments).json()["games"], 4);
    let mut game = command(
        dir.path(),
        &["play", "--config", "hex8_2p", "--model", "net", "--simulations", "2"],
    );
    let mut game =
        game.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    game.stdin.take().unwrap().write_all(b"1\n1\nresign\n").unwrap();
    let played: Ended = game.wait_with_output().unwrap().into();
    assert_eq!(played.code, 0, "{played:?}");
    assert!(
        played.out.contains("You are seat 1") && played.out.contains("1. seat 2"),
        "{played:?}"
    );
}

/// A report without what the clock says.
fn timeless(mut report: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|key, _| {
                    !["seconds", "time", "samples_per_second"].contains(&key.as_str())
                });
                map.values_mut().for_each(strip);
            }
            Value::Array(list) => list.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut report);
    report
}

#[test]
fn ctrl_c_ends_a_run_with_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let args =
        ["train", "--config", "hex8_2p", "--steps", "1000000", "--data", "d", "--out", "net"];
    let child = command(dir.path(), &[&args[..], &SMALL, &CLOSING].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let place = dir.path().join("d/runs/hex8_2p-seed1-1");
    let limit = Duration::from_mins(1);
    wait_for("an iteration", limit, || place.join("iteration-002").exists().then_some(()));
    // Killed now, it would be no run.
    let running = run(dir.path(), &["train", "--show", "d/runs/hex8_2p-seed1-1"]);
    check_refused(&running, 2, &["never came to an end"]);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended: Ended = child.wait_with_output().unwrap().into();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("stopped before its end"), "{ended:?}");
    assert!(ended.out.contains("repeat: ringrift train"), "{ended:?}");
    assert!(dir.path().join("net").exists());
    let kept = run(dir.path(), &["train", "--show", "d/runs/hex8_2p-seed1-1", "--json"]).json();
    assert_eq!(kept["stand"], "stopped");
}

#[test]
fn a_wrong_order_gets_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let steps = ["--steps", "4"];
    let refused = |args: &[&str], parts: &[&str]| {
        check_refused(
            &run(dir.path(), &[&["train", "--config", "hex8_2p"][..], args].concat()),
            2,
            parts,
        );
    };
    let set = |change: &'static str, parts: &[&str]| {
        refused(&[&steps[..], &["--set", change]].concat(), parts);
    };
    set("selfplay.gmes=3", &["no key 'selfplay.gmes'", "did you mean selfplay.games?"]);
    set("train.steps=x", &["--set train.steps=x", "expected u32"]);
    set("window.share=2", &["window.share is 2, not within 0..=1"]);
    set("gate.guards=[\"nobody\"]", &["unknown player \"nobody\""]);
    refused(&["--minutes", "0"], &["minutes is 0; allowed is more than 0"]);
    refused(&["--steps", "4", "--threads", "0"], &["threads is 0; allowed are 1 to 256"]);
    let shown = run(dir.path(), &["train", "--show", "nowhere"]);
    check_refused(&shown, 2, &["nowhere holds no run: there is no run.json"]);
    let played =
        run(dir.path(), &["play", "--config", "hex8_2p", "--model", "net", "--simulations", "0"]);
    check_refused(&played, 2, &["\"0\" is no number of simulations"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn the_linear_baseline_is_learned_matched_and_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let order = ["train", "--learner", "linear", "--config", "hex8_2p", "--seed", "3"];
    let with = |args: &[&str]| run(dir.path(), &[&order[..], args].concat());
    let ended = with(&["--games", "20", "--out", "f", "--set", "rate=0.5"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    for part in [
        "hex8_2p, seed 3: 20 games of ",
        "one move ahead",
        "heuristic",
        "a network against it: ringrift match model:champion.safetensors@64 linear:f --config hex8_2p --games 400",
    ] {
        assert!(ended.out.contains(part), "{part} is missing: {}", ended.out);
    }
    let first = fs_err::read(dir.path().join("f")).unwrap();
    fs_err::remove_file(dir.path().join("f")).unwrap();
    let line = ended.out.lines().find_map(|line| line.strip_prefix("repeat: ringrift ")).unwrap();
    let script = format!("{RINGRIFT} {line} --json");
    let again: Ended = command_of("sh", dir.path(), &["-c", &script]).output().unwrap().into();
    let again = again.json();
    assert_eq!((&again["games"], &again["closing"][0]["against"]), (&20.into(), &"random".into()));
    assert!(fs_err::read(dir.path().join("f")).unwrap() == first, "the files differ");
    let played =
        run(dir.path(), &["match", "linear:f", "random", "--config", "hex8_2p", "--games", "4"]);
    assert_eq!(played.code, 0, "{played:?}");

    check_refused(
        &with(&["--steps", "4", "--out", "f"]),
        2,
        &["--minutes or --games, not --steps"],
    );
    check_refused(&with(&["--games", "4"]), 2, &["it needs --out"]);
    check_refused(&with(&["--games", "0", "--out", "f"]), 2, &["games is 0"]);
    check_refused(
        &with(&["--games", "4", "--out", "f", "--set", "rat=1"]),
        2,
        &["did you mean rate?"],
    );
    let network = run(dir.path(), &["train", "--config", "hex8_2p", "--games", "4"]);
    check_refused(&network, 2, &["--games is for --learner linear"]);
}

#[test]
fn a_match_of_four_rotates_the_seats_and_is_rated_by_every_place() {
    let dir = tempfile::tempdir().unwrap();
    let order = ["match", "heuristic", "random", "--config", "hex8_4p", "--games"];
    let with = |args: &[&str]| run(dir.path(), &[&order[..], args].concat());
    let report = with(&["8", "--json"]).json();
    assert_eq!((&report["games"], &report["equal_score"]), (&8.into(), &0.25.into()));
    assert_eq!(report["pairs"].as_array().map(Vec::len), Some(5));
    assert_eq!(report["book"]["openings"], 2);
    assert!(report["rating"]["low"].as_f64() < report["rating"]["high"].as_f64(), "{report}");
    let text = with(&["8"]).out;
    for part in ["share of wins", "of equal players 25.0 %", "by all places: ", "2 openings, book "]
    {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    check_refused(&with(&["6"]), 2, &["6 is no multiple of 4", "from every seat"]);
}

#[test]
fn the_games_of_a_match_are_kept_and_replay() {
    let dir = tempfile::tempdir().unwrap();
    let order = ["match", "heuristic", "random", "--config", "hex8_2p", "--games", "4", "--out"];
    let refused = run(dir.path(), &[&order[..], &["nowhere/games.jsonl.gz"]].concat());
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.err.contains("nowhere/games.jsonl.gz"), "{refused:?}");

    assert_eq!(run(dir.path(), &[&order[..], &["games.jsonl.gz"]].concat()).code, 0);
    let replayed = run(dir.path(), &["rules", "replay", "games.jsonl.gz"]);
    assert_eq!(replayed.code, 0, "{replayed:?}");
    assert!(replayed.out.contains("4 games"), "{replayed:?}");
}

#[test]
fn a_match_with_a_test_ends_when_it_is_decided() {
    let dir = tempfile::tempdir().unwrap();
    // 266 Elo apart, so a test of less than a hundred is soon over.
    let order = ["match", "heuristic", "random", "--games", "400"];
    let with = |args: &[&str]| run(dir.path(), &[&order[..], args].concat());
    let report = with(&["--test=-50,50", "--config", "hex8_2p", "--json"]).json();
    assert_eq!(report["decision"], "H1", "{report}");
    assert!(report["games"].as_u64() < Some(400), "{report}");
    assert!(report["llr"].as_f64() > Some(2.9), "{report}");
    let text = with(&["--test=-50,50", "--config", "hex8_2p"]).out;
    assert!(text.contains("the test of [-50, 50] Elo accepts H1, +50 Elo: LLR "), "{text}");
    check_refused(&with(&["--test=0,50", "--config", "hex8_4p"]), 2, &["hex8_4p has 4 seats"]);
    let wrong = with(&["--test=50,0", "--config", "hex8_2p"]);
    assert!(wrong.code == 2 && wrong.err.contains("the smaller one first"), "{wrong:?}");
}
