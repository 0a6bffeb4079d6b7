//! Candidates that something happened to, on trial before a champion that has learned: none may come through.

use std::path::PathBuf;

use ringrift_pipeline::{GauntletReport, TestDecision};
use ringrift_player::{Network, Weights};
use ringrift_rules::Config;

use crate::{
    bench::command,
    interop::{Input, Start},
};

/// Games and steps that make a champion which beats its random parent nearly always.
const GAMES: u32 = 300;
const STEPS: u32 = 300;

struct Trial {
    start: Start,
    champion: Input,
}

impl Trial {
    /// A champion out of one training.
    fn new() -> Self {
        let start = Start::new(GAMES, 16);
        let worker = command(start.bench.folder().as_path(), &["worker"]);
        let champion = start.train(worker, &start.job(STEPS, 128), &[]).weights;
        Self { start, champion }
    }

    fn file(&self, bytes: &[u8]) -> Input {
        let path: PathBuf = self.start.bench.folder().join("candidate.safetensors");
        fs_err::write(&path, bytes).unwrap();
        (depot::Hash::of(bytes).to_string(), path)
    }

    /// The gauntlet of the loop: H1 is 50 Elo, both error rates 5 %.
    fn judge(&self, candidate: &[u8]) -> GauntletReport {
        let candidate = self.file(candidate);
        self.start.gauntlet([&candidate, &self.champion], [0.0, 50.0], [8, 100])
    }

    /// The champion with other numbers.
    fn changed(&self, change: impl FnOnce(&mut Weights)) -> Vec<u8> {
        let config: Config = "hex8_2p".parse().unwrap();
        let bytes = fs_err::read(&self.champion.1).unwrap();
        let network = Network::for_config(&bytes, config).unwrap();
        let mut weights = network.weights().clone();
        change(&mut weights);
        Network::from_weights(config, weights, network.generation()).to_bytes()
    }

    /// It plays, and loses its match.
    fn check_beaten(&self, candidate: &[u8]) {
        let report = self.judge(candidate);
        assert_eq!(report.fault, None);
        let main = report.main.unwrap();
        assert_eq!(main.decision, Some(TestDecision::NotStronger), "{main:?}");
        assert!(main.score < 0.5, "{main:?}");
        assert!(report.guard.is_none(), "a match that is not won needs no guard");
    }

    /// It never gets as far as playing: its file is refused with a sentence.
    fn check_refused(&self, candidate: &[u8], sentence: &str) {
        let report = self.judge(candidate);
        assert_eq!(report.main, None);
        let fault = report.fault.unwrap();
        assert!(fault.contains(sentence), "{fault}");
    }
}

/// Bytes with one text in place of another of the same length.
fn altered(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn a_damaged_candidate_is_never_promoted() {
    let trial = Trial::new();

    // Random weights: a checkpoint that was never loaded.
    trial.check_beaten(&trial.changed(|weights| {
        let config = "hex8_2p".parse().unwrap();
        *weights = Network::random(config, 99).weights().clone();
    }));
    // A permuted policy: every move has the row of another one.
    trial.check_beaten(&trial.changed(|weights| {
        fastrand::Rng::with_seed(7).shuffle(&mut weights.moves);
        fastrand::Rng::with_seed(8).shuffle(&mut weights.moves_bias);
    }));
    // A value with its sign turned: what is good for me is good for the other one.
    trial.check_beaten(&trial.changed(|weights| {
        for x in &mut weights.value {
            *x = -*x;
        }
    }));

    // A number that is none.
    let broken = trial.changed(|weights| weights.hidden[3][5] = f32::NAN);
    trial.check_refused(&broken, "tensor hidden.weight of the network file contains a number that");
    // Trained for another encoder, or other rules.
    let good = fs_err::read(&trial.champion.1).unwrap();
    let encoder = ringrift_player::ENCODER_ID;
    let foreign = format!("{}9", &encoder[..encoder.len() - 1]);
    trial.check_refused(&altered(&good, encoder, &foreign), "has encoder");
    // Of another board.
    let square = Network::random("square8_2p".parse().unwrap(), 1).to_bytes();
    trial.check_refused(&square, "has config \"square8_2p\"");
    // Cut off on its way.
    trial.check_refused(&good[..good.len() / 2], "the network file is damaged");
}
