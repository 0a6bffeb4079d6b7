//! What clients/python reads and writes, against this program.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ringrift_learn::{Unwatched, export, outputs, selfplay, train};
use ringrift_pipeline::{GauntletReport, TrainReport, WorkerLine};
use ringrift_player::Network;
use ringrift_rules::Config;
use serde_json::{Value, json};

use crate::workers::{Bench, selfplay as selfplay_job, speak};

/// What `ringrift_learning` needs beside torch; the names are also those to import.
pub const PACKAGES: [&str; 3] = ["blake3", "numpy", "safetensors"];

/// Two boards, and a game of four.
const CONFIGS: [&str; 3] = ["square8_2p", "hex8_2p", "square8_4p"];

/// A folder below clients/python.
pub fn client(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/python").join(folder)
}

/// Whether an interpreter is there and loads these packages.
pub fn loads(python: &Path, packages: &[&str]) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", &format!("import {}", packages.join(", "))]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs the tests in Python of one file of clients/python/tests.
pub fn run_tests(python: &Path, file: &str, variable: (&str, &Path)) {
    let mut command = Command::new(python);
    command.args(["-B", "-m", "unittest", "discover", "--pattern", file, "--start-directory"]);
    command.arg(client("tests")).env(variable.0, variable.1);
    let ended = command.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert!(!said.contains("Ran 0 tests"), "{said}");
}

/// Per config a folder with samples, a network, and what it says of their rows.
pub fn write_files(folder: &Path) {
    for name in CONFIGS {
        let config: Config = name.parse().unwrap();
        let folder = folder.join(name);
        fs_err::create_dir_all(&folder).unwrap();
        let settings = selfplay::Settings {
            games: 18,
            simulations: 4,
            fast_simulations: 2,
            full_share: 0.8,
            ..selfplay::Settings::default()
        };
        let network = Network::random(config, 1).to_bytes();
        let games =
            selfplay::run(&settings, config, &network, &[], &folder, &mut Unwatched).unwrap().file;
        let settings = export::Settings::default();
        let samples =
            export::run(&settings, config, &[games], &folder, &mut Unwatched).unwrap().file;
        // A little training, so that no tensor is left at zero.
        let settings = train::Settings { steps: 30, batch: 64, ..train::Settings::default() };
        let trained =
            train::run(&settings, &samples, Some(&network), &folder, &mut Unwatched).unwrap().file;
        let weights = fs_err::read(trained).unwrap();
        fs_err::write(folder.join("model.safetensors"), &weights).unwrap();
        outputs::write(&weights, &samples, &folder.join("outputs.npz")).unwrap();
    }
}

/// A file with its hash.
pub type Input = (String, PathBuf);

/// What a training starts from.
pub struct Start {
    pub bench: Bench,
    pub parent: Input,
    pub window: Input,
}

impl Start {
    /// Random weights, and a window of games that they played.
    pub fn new(games: u32, simulations: u32) -> Self {
        let bench = Bench::new();
        let parent = bench.seed();
        let mut play = selfplay_job(&parent.0, games);
        play["simulations"] = simulations.into();
        let games = bench.make(&[&parent], &play, "games");
        let export = json!({ "kind": "export", "batches": [games.0] });
        let samples = bench.make(&[&games], &export, "samples");
        let combine = json!({ "kind": "combine", "samples": [samples.0], "max_rows": 250_000 });
        let window = bench.make(&[&samples], &combine, "window");
        Self { bench, parent, window }
    }

    /// A training of generation 7.
    pub fn job(&self, steps: u32, batch: u32) -> Value {
        json!({
            "kind": "train", "candidate": "hex8_2p-m0007", "generation": 7,
            "parent": { "id": "hex8_2p-m0000", "weights": self.parent.0 },
            "window": self.window.0, "steps": steps, "batch": batch, "learning_rate": 0.002,
            "checkpoint_steps": 20, "seed": 1,
        })
    }

    /// Lets a program train; every line that it says is one of the contract, the last one its report.
    pub fn train(&self, mut trainer: Command, job: &Value, more: &[&Input]) -> Trained {
        let folder = self.bench.folder();
        trainer.current_dir(&folder);
        let inputs: Vec<&Input> =
            [&self.parent, &self.window].into_iter().chain(more.iter().copied()).collect();
        let (ended, lines) = speak(trainer, &folder, &inputs, job);
        assert_eq!(ended.code, 0, "{ended:?}");
        for line in &lines {
            let read: Result<WorkerLine, _> = serde_json::from_value(line.clone());
            assert!(read.is_ok(), "{line}: {read:?}");
        }
        let report: TrainReport =
            serde_json::from_value(lines.last().unwrap()["report"].clone()).unwrap();
        assert!(report.policy_loss > 0.0 && report.policy_loss.is_finite(), "{report:?}");
        assert!(report.value_loss > 0.0 && report.value_loss.is_finite(), "{report:?}");
        let files = |role: &str| -> Vec<Input> {
            lines
                .iter()
                .filter(|line| line["role"] == role)
                .map(|line| product(&folder, line))
                .collect()
        };
        let [weights] = &files("weights")[..] else { panic!("one candidate: {lines:?}") };
        Trained { weights: weights.clone(), checkpoints: files("checkpoint"), report }
    }

    /// A match between two candidates, under the bounds of a sequential test.
    pub fn gauntlet(
        &self,
        [candidate, champion]: [&Input; 2],
        [elo0, elo1]: [f64; 2],
        [simulations, max_pairs]: [u32; 2],
    ) -> GauntletReport {
        let job = json!({
            "kind": "gauntlet", "candidate": { "id": "hex8_2p-m0007", "weights": candidate.0 },
            "champion": { "id": "hex8_2p-m0006", "weights": champion.0 },
            "simulations": simulations, "elo0": elo0, "elo1": elo1, "alpha": 0.05, "beta": 0.05,
            "max_pairs": max_pairs, "guard_pairs": 0, "seed": 1,
        });
        let (ended, lines) = self.bench.run(&[candidate, champion], &job);
        assert_eq!(ended.code, 0, "{ended:?}");
        serde_json::from_value(lines.last().unwrap()["report"].clone()).unwrap()
    }
}

/// What came of a training.
#[derive(Debug)]
pub struct Trained {
    pub weights: Input,
    pub checkpoints: Vec<Input>,
    pub report: TrainReport,
}

/// The file of an artefact's line, once it is what the line says.
pub fn product(folder: &Path, line: &Value) -> Input {
    let path = folder.join(line["file"].as_str().unwrap());
    let bytes = fs_err::read(&path).unwrap();
    let hash = depot::Hash::of(&bytes).to_string();
    assert_eq!(
        (line["hash"].as_str(), line["bytes"].as_u64()),
        (Some(&*hash), Some(bytes.len() as u64))
    );
    (hash, path)
}
