//! The long suite `torch`: a trainer in Python with PyTorch replaces the built-in one.
//!
//! `cargo xtask check --long torch`. PyTorch (a download of 2.8 GB) is installed by package name into a
//! virtual environment below the target folder, once.
#![expect(clippy::print_stderr, reason = "a suite of many minutes tells how far it is")]
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

#[path = "it/bench.rs"]
#[expect(dead_code, reason = "what only the other suite uses")]
mod bench;
#[path = "it/interop.rs"]
mod interop;
#[path = "it/workers.rs"]
mod workers;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ringrift_pipeline::TestDecision;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use bench::RINGRIFT;
use interop::{PACKAGES, Start, client, loads, product, run_tests, write_files};

#[test]
fn a_trainer_in_pytorch_makes_a_model_that_is_promoted() {
    let python = python_with_torch();
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let config = home.path().join("ringrift.toml");
    let package = client("").canonicalize().unwrap();
    let command = format!(
        "[workers.train]\ncommand = [\"env\", \"PYTHONPATH={}\", {:?}, \"-m\", \"ringrift_learning.trainer\"]\n",
        package.to_str().unwrap(),
        python.to_str().unwrap(),
    );
    fs_err::write(&config, command).unwrap();

    let up = Command::new(RINGRIFT)
        .args([
            "up",
            "--configs",
            "hex8_2p",
            "--port",
            "0",
            "--seed",
            "7",
            "--until",
            "promotions>=1",
        ])
        .args(["--timeout", "40m", "--config"])
        .arg(&config)
        .arg("--data")
        .arg(&data)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(up.success(), "no model trained by PyTorch was promoted: {up}");

    let verify = Command::new(RINGRIFT).arg("verify").arg("--data").arg(&data).status().unwrap();
    assert!(verify.success(), "verify: {verify}");
}

#[test]
fn the_network_in_pytorch_says_what_this_program_says() {
    let python = python_with_torch();
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path());
    for file in ["test_learning.py", "test_torch.py"] {
        run_tests(&python, file, ("RINGRIFT_LEARNING_FILES", dir.path()));
    }
}

#[test]
fn a_training_that_was_interrupted_ends_with_the_same_network() {
    let python = python_with_torch();
    let start = Start::new(8, 8);
    let job = start.job(50, 32);
    let whole = start.train(trainer(&python), &job, &[]);
    assert_eq!(whole.report.steps, 50);

    let checkpoint = &whole.checkpoints[0];
    let mut rest = job.clone();
    rest["checkpoint"] = checkpoint.0.as_str().into();
    let resumed = start.train(trainer(&python), &rest, &[checkpoint]);
    assert_eq!((resumed.weights.0, resumed.checkpoints.len()), (whole.weights.0, 1));

    // Asked to stop, it leaves a checkpoint and no candidate.
    let mut long = job;
    long["steps"] = 1_000_000.into();
    let folder = start.bench.folder();
    let mut program = trainer(&python);
    program.current_dir(&folder);
    let mut child = workers::start(program);
    let inputs = [&start.parent, &start.window];
    let stdin = workers::tell(&mut child, &workers::first_line(&folder, &inputs, &long));
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if line["type"] == "progress" && lines.is_empty() {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        }
        if line["type"] != "beat" {
            lines.push(line);
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(stdin);
    let last = lines.last().unwrap();
    assert_eq!(last["role"], "checkpoint", "{lines:?}");
    product(&folder, last);
}

/// The same window, parent and steps; the test accepts "not more than 50 Elo weaker" against "as strong".
#[test]
fn a_network_trained_by_pytorch_is_as_strong_as_ours() {
    let python = python_with_torch();
    eprintln!("playing 1,500 games");
    let start = Start::new(1500, 64);
    let mut job = start.job(3000, 256);
    job["checkpoint_steps"] = 1000.into();
    eprintln!("training, the built-in trainer");
    let ours = start.train(bench::command(Path::new("."), &["worker"]), &job, &[]);
    eprintln!("{:?}\ntraining, PyTorch", ours.report);
    let theirs = start.train(trainer(&python), &job, &[]);
    eprintln!("{:?}\nplaying", theirs.report);
    let report = start.gauntlet([&theirs.weights, &ours.weights], [-50.0, 0.0], [32, 2000]);
    let result = report.main.unwrap();
    eprintln!("{result:?}");
    assert_eq!((report.fault, result.decision), (None, Some(TestDecision::Stronger)));
}

fn trainer(python: &Path) -> Command {
    let mut trainer = Command::new(python);
    trainer.args(["-B", "-m", "ringrift_learning.trainer"]);
    trainer.env("PYTHONPATH", client("").canonicalize().unwrap());
    trainer
}

/// The interpreter of the virtual environment; made if it is not there.
fn python_with_torch() -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("torch-venv");
    let python = venv.join("bin/python");
    let packages = [&PACKAGES[..], &["torch"]].concat();
    if !loads(&python, &packages) {
        eprintln!("installing {} into {}", packages.join(", "), venv.display());
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(&packages));
        assert!(loads(&python, &packages), "{} do not load", packages.join(", "));
    }
    python
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
