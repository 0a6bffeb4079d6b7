//! The built-in worker as a manager meets it, and as it meets managers that are wrong.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{
    bench::{Ended, command, wait_for},
    workers::{Bench, first_line, selfplay, start, tell},
};

#[test]
fn a_candidate_that_wins_meets_both_rulers_as_often_as_the_job_says() {
    let bench = Bench::new();
    let champion = bench.seed();
    let candidate = bench.make(&[], &json!({ "kind": "seed", "seed": 4 }), "weights");
    let mut gauntlet = json!({
        "kind": "gauntlet", "candidate": { "id": "hex8_2p-m0001", "weights": candidate.0 },
        "champion": { "id": "hex8_2p-m0000", "weights": champion.0 }, "simulations": 4,
        // One random network is no weaker than this against another, and that is seen at once.
        "elo0": -800.0, "elo1": -100.0, "alpha": 0.05, "beta": 0.05, "max_pairs": 20,
        "guard_pairs": 2, "heuristic_pairs": 3, "seed": 1,
    });
    let report = |job: &Value| -> ringrift_pipeline::GauntletReport {
        let (ended, lines) = bench.run(&[&candidate, &champion], job);
        assert_eq!(ended.code, 0, "{ended:?}");
        serde_json::from_value(lines.last().unwrap()["report"].clone()).unwrap()
    };
    let both = report(&gauntlet);
    let (guard, heuristic) = (both.guard.unwrap(), both.heuristic.unwrap());
    assert_eq!((guard.b.as_str(), guard.games), ("random", 4));
    assert_eq!((heuristic.b.as_str(), heuristic.games), ("heuristic-ref-1", 6));
    assert_eq!((guard.fault(), heuristic.fault()), (None, None));
    // A job of before the second ruler asks for the first alone.
    gauntlet.as_object_mut().unwrap().remove("heuristic_pairs");
    let one = report(&gauntlet);
    assert!(one.guard.is_some() && one.heuristic.is_none());
}

#[test]
fn from_a_seed_to_a_window_every_product_is_what_it_is_said_to_be() {
    let bench = Bench::new();
    let weights = bench.seed();
    let games = bench.make(&[&weights], &selfplay(&weights.0, 4), "games");

    let check = json!({ "kind": "check", "batches": [games.0] });
    let (ended, lines) = bench.run(&[&games], &check);
    assert_eq!(ended.code, 0, "{ended:?}");
    let verdict = &lines.last().unwrap()["report"]["batches"][0];
    assert_eq!(verdict["fault"], Value::Null);
    assert_eq!(verdict["games"].as_array().unwrap().len(), 4);

    let samples =
        bench.make(&[&games], &json!({ "kind": "export", "batches": [games.0] }), "samples");
    let combine = json!({ "kind": "combine", "samples": [samples.0], "max_rows": 1000 });
    bench.make(&[&samples], &combine, "window");
    let small = json!({ "kind": "combine", "samples": [samples.0], "max_rows": 150 });
    let (ended, lines) = bench.run(&[&samples], &small);
    assert_eq!(ended.code, 0, "{ended:?}");
    let rows = lines.last().unwrap()["report"]["rows"].as_u64().unwrap();
    assert!((1..=150).contains(&rows), "whole games only, and never more than asked for: {rows}");
}

#[test]
fn the_same_seed_makes_the_same_network() {
    let bench = Bench::new();
    assert_eq!(bench.seed().0, bench.seed().0);
}

fn check_refused(line: &Value, sentence: &str) {
    let dir = tempdir().unwrap();
    let mut child = start(command(dir.path(), &["worker"]));
    let stdin = tell(&mut child, line);
    let ended: Ended = child.wait_with_output().unwrap().into();
    drop(stdin);
    assert_eq!(ended.code, 125, "{ended:?}");
    assert!(ended.err.contains(sentence), "{sentence} is missing: {ended:?}");
    assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
}

#[test]
fn a_job_that_can_never_be_done_is_refused_with_125() {
    let dir = tempdir().unwrap();
    let seed = json!({ "kind": "seed", "seed": 3 });
    let good = first_line(dir.path(), &[], &seed);
    let with = |key: &str, value: Value| {
        let mut line = good.clone();
        line[key] = value;
        line
    };
    check_refused(&with("contract", json!(2)), "version 2 of the worker contract, this worker 1");
    check_refused(&with("contract", Value::Null), "version none");
    check_refused(&with("job", json!({ "kind": "dance" })), "unknown variant `dance`");
    check_refused(&with("config", json!("hex9_2p")), "hex9_2p");
    check_refused(&with("dir", json!("/no/such/folder")), "/no/such/folder is not there");
    check_refused(&with("more", json!(1)), "unknown field `more`");
    check_refused(&json!("no object"), "version none");
    check_refused(&with("job", selfplay(&"0".repeat(64), 1)), "names no file for it");
}

#[test]
fn an_input_that_is_not_what_its_name_says_is_refused() {
    let bench = Bench::new();
    let (hash, path) = bench.seed();
    let mut bytes = fs_err::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs_err::write(&path, bytes).unwrap();
    let (ended, lines) = bench.run(&[&(hash.clone(), path)], &selfplay(&hash, 1));
    assert_eq!(ended.code, 125, "{ended:?}");
    assert!(ended.err.contains("weights.safetensors has the hash"), "{ended:?}");
    assert!(lines.iter().all(|line| line["type"] == "beat"), "{lines:?}");
}

#[test]
fn a_game_that_was_changed_is_a_fault_of_its_batch_and_not_of_the_worker() {
    let bench = Bench::new();
    let weights = bench.seed();
    let (_, games) = bench.make(&[&weights], &selfplay(&weights.0, 1), "games");
    // What a liar would send: a file that is whole and named rightly, and whose games are not legal.
    let other = bench.folder().join("games.jsonl.gz");
    let mut bytes = fs_err::read(games).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs_err::write(&other, &bytes).unwrap();
    let liar = (depot::Hash::of(&bytes).to_string(), other);
    let (ended, lines) = bench.run(&[&liar], &json!({ "kind": "check", "batches": [liar.0] }));
    assert_eq!(ended.code, 0, "{ended:?}");
    let verdict = &lines.last().unwrap()["report"]["batches"][0];
    assert!(verdict["fault"].as_str().unwrap().contains("games.jsonl.gz"), "{verdict}");
    assert_eq!(verdict["games"], json!([]));
}

/// Starts many games and waits until some are played.
fn busy(bench: &Bench) -> (Child, ChildStdin, BufReader<ChildStdout>) {
    let weights = bench.seed();
    let folder = bench.folder();
    let mut child = start(command(&folder, &["worker"]));
    let stdin =
        tell(&mut child, &first_line(&folder, &[&weights], &selfplay(&weights.0, 1_000_000)));
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(r#""type":"progress""#) || line.contains(r#""done":0"#) {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the worker ended");
    }
    (child, stdin, out)
}

#[test]
fn a_worker_asked_to_stop_hands_over_the_games_it_has() {
    let bench = Bench::new();
    let (mut child, stdin, out) = busy(&bench);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let lines: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let status = child.wait().unwrap();
    drop(stdin);
    assert_eq!(status.code(), Some(0));
    let report = &lines.last().unwrap()["report"];
    assert!(report["games"].as_u64().unwrap() > 0, "{report}");
    assert!(lines.iter().any(|line| line["role"] == "games"));
}

#[test]
fn a_worker_leaves_at_once_when_its_manager_is_gone() {
    let bench = Bench::new();
    let (mut child, stdin, _out) = busy(&bench);
    drop(stdin);
    let status =
        wait_for("the worker to leave", Duration::from_secs(5), || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(75));
}
