//! Jobs of the contract for a worker program, as the manager gives them.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::bench::{Ended, command};

/// A place where workers run, each in a folder of its own.
pub struct Bench {
    dir: TempDir,
    runs: std::cell::Cell<u32>,
}

impl Bench {
    pub fn new() -> Self {
        Self { dir: tempdir().unwrap(), runs: 0.into() }
    }

    /// A folder for the next worker.
    pub fn folder(&self) -> PathBuf {
        self.runs.set(self.runs.get() + 1);
        let folder = self.dir.path().join(self.runs.get().to_string());
        fs_err::create_dir(&folder).unwrap();
        folder
    }

    /// Runs a job to its end; standard input stays open until then.
    pub fn run(&self, inputs: &[&(String, PathBuf)], job: &Value) -> (Ended, Vec<Value>) {
        run_in(&self.folder(), inputs, job)
    }

    /// Runs a job that must succeed; its product of a role.
    pub fn make(
        &self,
        inputs: &[&(String, PathBuf)],
        job: &Value,
        role: &str,
    ) -> (String, PathBuf) {
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

    pub fn seed(&self) -> (String, PathBuf) {
        self.make(&[], &json!({ "kind": "seed", "seed": 3 }), "weights")
    }
}

/// Runs a job in a folder to its end.
pub fn run_in(folder: &Path, inputs: &[&(String, PathBuf)], job: &Value) -> (Ended, Vec<Value>) {
    speak(command(folder, &["worker"]), folder, inputs, job)
}

/// Lets a program do a job.
pub fn speak(
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

pub fn first_line(folder: &Path, inputs: &[&(String, PathBuf)], job: &Value) -> Value {
    let inputs: serde_json::Map<String, Value> =
        inputs.iter().map(|(hash, path)| (hash.clone(), json!(path))).collect();
    json!({
        "contract": 1, "work": "test", "attempt": 1, "dir": folder, "config": "hex8_2p",
        "inputs": inputs, "job": job,
    })
}

pub fn start(mut program: Command) -> Child {
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn tell(child: &mut Child, line: &Value) -> ChildStdin {
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{line}").unwrap();
    stdin
}

pub fn selfplay(weights: &str, games: u32) -> Value {
    json!({
        "kind": "selfplay", "model": { "id": "hex8_2p-m0000", "weights": weights },
        "games": games, "simulations": 8, "fast_simulations": 4, "full_share": 0.5,
        "opening_moves": 4, "temperature_moves": 10, "temperature": 1.0, "seed": 5,
    })
}
