//! The built-in worker as a manager meets it, and as it meets managers that are wrong.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::bench::{Ended, command, wait_for};

struct Bench {
    dir: TempDir,
    runs: std::cell::Cell<u32>,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempdir().unwrap(), runs: 0.into() }
    }

    /// A folder for the next worker.
    fn folder(&self) -> PathBuf {
        self.runs.set(self.runs.get() + 1);
        let folder = self.dir.path().join(self.runs.get().to_string());
        fs_err::create_dir(&folder).unwrap();
        folder
    }

    /// Runs a job to its end; standard input stays open until then.
    fn run(&self, inputs: &[&(String, PathBuf)], job: &Value) -> (Ended, Vec<Value>) {
        run_in(&self.folder(), inputs, job)
    }

    /// Runs a job that must succeed; its product of a role.
    fn make(&self, inputs: &[&(String, PathBuf)], job: &Value, role: &str) -> (String, PathBuf) {
        let folder = self.folder();
        let (ended, lines) = run_in(&folder, inputs, job);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(lines.last().unwrap()["type"], "result");
        let product = lines.iter().find(|line| line["role"] == role).unwrap();
        let path = folder.join(product["file"].as_str().unwrap());
        assert_eq!(fs_err::metadata(&path).unwrap().len(), product["bytes"].as_u64().unwrap());
        let hash = depot::Hash::of(&fs_err::read(&path).unwrap()).to_string();
        assert_eq!(product["hash"], hash.as_str());
        (hash, path)
    }

    fn seed(&self) -> (String, PathBuf) {
        self.make(&[], &json!({ "kind": "seed", "seed": 3 }), "weights")
    }
}

/// Runs a job in a folder to its end.
fn run_in(folder: &Path, inputs: &[&(String, PathBuf)], job: &Value) -> (Ended, Vec<Value>) {
    speak(command(folder, &["worker"]), folder, inputs, job)
}

/// Lets a program do a job.
fn speak(
    program: Command,
    folder: &Path,
    inputs: &[&(String, PathBuf)],
    job: &Value,
) -> (Ended, Vec<Value>) {
    let mut child = start(program);
    let stdin = tell(&mut child, &first_line(folder, inputs, job));
    let stdout = child.stdout.take().unwrap();
    let lines: Vec<Value> = BufReader::new(stdout)
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    let ended = child.wait_with_output().unwrap().into();
    drop(stdin);
    (ended, lines)
}

#[test]
fn a_trainer_in_numpy_makes_a_candidate_that_plays() {
    let numpy = Command::new("python3").args(["-c", "import numpy"]).output();
    if !numpy.is_ok_and(|output| output.status.success()) {
        println!("absent: numpy");
        return;
    }
    let bench = Bench::new();
    let parent = bench.seed();
    let games = bench.make(&[&parent], &selfplay(&parent.0, 8), "games");
    let export = json!({ "kind": "export", "batches": [games.0] });
    let samples = bench.make(&[&games], &export, "samples");
    let combine = json!({ "kind": "combine", "samples": [samples.0], "max_rows": 10_000 });
    let window = bench.make(&[&samples], &combine, "window");

    let train = json!({
        "kind": "train", "candidate": "hex8_2p-m0007", "generation": 7,
        "parent": { "id": "hex8_2p-m0000", "weights": parent.0 }, "window": window.0,
        "steps": 10, "batch": 32, "learning_rate": 0.002, "checkpoint_steps": 100, "seed": 1,
    });
    let trainer = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/trainers/numpy_trainer.py")
        .canonicalize()
        .unwrap();
    let folder = bench.folder();
    let mut python = Command::new("python3");
    python.arg(trainer).current_dir(&folder);
    let (ended, lines) = speak(python, &folder, &[&parent, &window], &train);
    assert_eq!(ended.code, 0, "{ended:?}");
    for line in &lines {
        let read: Result<ringrift_pipeline::WorkerLine, _> = serde_json::from_value(line.clone());
        assert!(read.is_ok(), "{line}: {read:?}");
    }
    let report: ringrift_pipeline::TrainReport =
        serde_json::from_value(lines.last().unwrap()["report"].clone()).unwrap();
    assert!(report.policy_loss > 0.0 && report.policy_loss.is_finite(), "{report:?}");

    let product = lines.iter().find(|line| line["role"] == "weights").unwrap();
    let path = folder.join(product["file"].as_str().unwrap());
    let candidate = (product["hash"].as_str().unwrap().to_owned(), path.clone());
    assert_eq!(depot::Hash::of(&fs_err::read(path).unwrap()).to_string(), candidate.0);
    let gauntlet = json!({
        "kind": "gauntlet", "candidate": { "id": "hex8_2p-m0007", "weights": candidate.0 },
        "champion": { "id": "hex8_2p-m0000", "weights": parent.0 }, "simulations": 4,
        "elo0": 0.0, "elo1": 50.0, "alpha": 0.05, "beta": 0.05, "max_pairs": 4,
        "guard_pairs": 0, "seed": 1,
    });
    let (ended, lines) = bench.run(&[&candidate, &parent], &gauntlet);
    assert_eq!(ended.code, 0, "{ended:?}");
    let report: ringrift_pipeline::GauntletReport =
        serde_json::from_value(lines.last().unwrap()["report"].clone()).unwrap();
    assert_eq!((&report.fault, report.main.unwrap().fault()), (&None, None));
}

fn first_line(folder: &Path, inputs: &[&(String, PathBuf)], job: &Value) -> Value {
    let inputs: serde_json::Map<String, Value> =
        inputs.iter().map(|(hash, path)| (hash.clone(), json!(path))).collect();
    json!({
        "contract": 1, "work": "test", "attempt": 1, "dir": folder, "config": "hex8_2p",
        "inputs": inputs, "job": job,
    })
}

fn start(mut program: Command) -> Child {
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn tell(child: &mut Child, line: &Value) -> ChildStdin {
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{line}").unwrap();
    stdin
}

fn selfplay(weights: &str, games: u32) -> Value {
    json!({
        "kind": "selfplay", "model": { "id": "hex8_2p-m0000", "weights": weights },
        "games": games, "simulations": 8, "fast_simulations": 4, "full_share": 0.5,
        "opening_moves": 4, "temperature_moves": 10, "temperature": 1.0, "seed": 5,
    })
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
fn busy(bench: &Bench) -> (Child, ChildStdin, BufReader<std::process::ChildStdout>) {
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
