//! The long suite `torch`: a trainer in Python with PyTorch replaces the built-in one.
//!
//! `cargo xtask check --long torch`. PyTorch (a download of 2.8 GB) is installed by package name into a
//! virtual environment below the target folder, once.
#![expect(clippy::print_stderr, reason = "a suite of many minutes tells how far it is")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const RINGRIFT: &str = env!("CARGO_BIN_EXE_ringrift");

#[test]
fn a_trainer_in_pytorch_makes_a_model_that_is_promoted() {
    let python = python_with_torch();
    let trainer = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/trainers/torch_trainer.py")
        .canonicalize()
        .unwrap();
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let config = home.path().join("ringrift.toml");
    let command = format!(
        "[workers.train]\ncommand = [{:?}, {:?}]\n",
        python.to_str().unwrap(),
        trainer.to_str().unwrap()
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

/// The interpreter of the virtual environment; made if it is not there.
fn python_with_torch() -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("torch-venv");
    let python = venv.join("bin/python");
    let works = |python: &Path| {
        Command::new(python)
            .args(["-c", "import numpy, torch"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    if !works(&python) {
        eprintln!("installing numpy and torch into {}", venv.display());
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "numpy", "torch"]));
        assert!(works(&python), "numpy and torch are installed but do not load");
    }
    python
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
