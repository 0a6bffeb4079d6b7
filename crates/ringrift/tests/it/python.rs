//! clients/python against the real binary; the snippets of its README are run as they stand there.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::tempdir;

use crate::{
    bench::{Ended, run},
    interop::{PACKAGES, Start, client, loads, run_tests, write_files},
    manager::Manager,
};

#[test]
fn the_python_client_reaches_a_running_manager() {
    let python = PathBuf::from("python3");
    if !loads(&python, &["json"]) {
        eprintln!("absent: python3");
        return;
    }
    let manager = Manager::ready(&["--profile", "minimal"]);
    run_tests(&python, "test_client.py", ("RINGRIFT_DATA_DIR", &manager.data()));
}

#[test]
fn the_learning_curve_example_reads_the_report_of_a_run() {
    let python = PathBuf::from("python3");
    if !loads(&python, &["json"]) {
        eprintln!("absent: python3");
        return;
    }
    let dir = tempdir().unwrap();
    let mut learn = vec!["train", "--config", "hex8_2p", "--steps", "4", "--threads", "1"];
    learn.extend(["--data", "data"]);
    for change in [
        "early=[]",
        "selfplay.games=8",
        "selfplay.simulations=4",
        "selfplay.fast_simulations=2",
        "train.batch=16",
        "train.steps=4",
        "gate.pairs=4",
        "gate.simulations=2",
        "closing.rulers=[]",
        "closing.first_games=2",
    ] {
        learn.extend(["--set", change]);
    }
    let ended = run(dir.path(), &learn);
    assert_eq!(ended.code, 0, "{ended:?}");
    let mut curve = Command::new(python);
    curve.arg("-B").arg(client("examples/learning_curve.py").canonicalize().unwrap());
    curve.args(["data", "--csv"]).current_dir(dir.path());
    let curve: Ended =
        curve.env("PYTHONPATH", client("").canonicalize().unwrap()).output().unwrap().into();
    assert_eq!(curve.code, 0, "{curve:?}");
    let lines: Vec<&str> = curve.out.lines().collect();
    assert_eq!(lines[0], "config,model,minutes,elo,elo_low,elo_high,games");
    assert!(lines.len() == 2 && lines[1].starts_with("hex8_2p,"), "{lines:?}");
}

#[test]
fn the_learning_package_reads_what_this_program_writes() {
    let Some(python) = python_with_packages() else {
        eprintln!("absent: python3 with {}", PACKAGES.join(", "));
        return;
    };
    let dir = tempdir().unwrap();
    write_files(dir.path());
    run_tests(&python, "test_learning.py", ("RINGRIFT_LEARNING_FILES", dir.path()));
}

#[test]
fn a_trainer_in_numpy_makes_a_candidate_that_plays() {
    let Some(python) = python_with_packages() else {
        eprintln!("absent: python3 with {}", PACKAGES.join(", "));
        return;
    };
    let start = Start::new(8, 8);
    let numpy = || {
        let mut program = Command::new(&python);
        program.arg("-B").arg(client("examples/numpy_trainer.py").canonicalize().unwrap());
        program.env("PYTHONPATH", client("").canonicalize().unwrap());
        program
    };
    let job = start.job(10, 32);
    let trained = start.train(numpy(), &job, &[]);
    assert_eq!((trained.report.steps, trained.checkpoints.len()), (10, 0));
    assert_eq!(start.train(numpy(), &job, &[]).weights.0, trained.weights.0, "the same seed");
    let report = start.gauntlet([&trained.weights, &start.parent], [0.0, 50.0], [4, 4]);
    assert_eq!((&report.fault, report.main.unwrap().fault()), (&None, None));
}

/// An interpreter for `ringrift_learning`: what `cargo xtask check` made, else the one on the path. Where there is none,
/// `cargo xtask check` says so too, before the tests.
fn python_with_packages() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools");
    [tools.join("learning/bin/python"), "python3".into()]
        .into_iter()
        .find(|python| loads(python, &PACKAGES))
}
