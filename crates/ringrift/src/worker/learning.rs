//! The jobs that make models and judge them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use ringrift_learn::{
    Flow, Progress,
    arena::{self, Bounds, Seating},
    train,
};
use ringrift_pipeline::{GauntletJob, GauntletReport, ModelRef, TrainJob, TrainReport};
use ringrift_player::{ModelPlayer, Network, PlayerSpec};

use super::{
    bad_input,
    jobs::{Bench, file_name},
    line,
    meter::Meter,
};
use crate::matches::result_of;

/// Name of the file with the games of all matches.
const RECORDS_FILE: &str = "records.jsonl.gz";

/// Trains a candidate; every checkpoint is handed over as soon as it is there.
pub fn train(bench: &Bench<'_>, job: &TrainJob) -> anyhow::Result<()> {
    let window = bench.input(&job.window)?;
    let parent = bench.bytes(&job.parent.weights)?;
    let mut first = 0;
    if let Some(checkpoint) = &job.checkpoint {
        let from = bench.input(checkpoint)?;
        fs_err::copy(from, bench.dir().join(train::CHECKPOINT_FILE))?;
        first = u32::MAX; // whatever step it holds: that one is known to the manager
    }
    let settings = train::Settings {
        steps: job.steps,
        batch: job.batch,
        rate: job.learning_rate,
        checkpoint_steps: job.checkpoint_steps,
        seed: job.seed,
        ..train::Settings::default()
    };
    let mut watch = Checkpoints {
        bench,
        meter: bench.meter("steps"),
        every: job.checkpoint_steps.into(),
        handed: first,
        failed: None,
    };
    let report = train::run(&settings, &window, Some(&parent), bench.dir(), &mut watch)?;
    if let Some(error) = watch.failed.take() {
        return Err(error.context("hand a checkpoint over"));
    }
    if !report.finished {
        // Asked to stop: the next attempt goes on from here.
        return watch.hand_over(report.steps);
    }
    // The trainer counts from the parent; rejected candidates in between have their numbers too.
    let trained = fs_err::read(&report.file)?;
    let network = Network::for_config(&trained, bench.job.config).context("the trained network")?;
    let weights = network.weights().clone();
    let network = Network::from_weights(bench.job.config, weights, job.generation);
    fs_err::write(&report.file, network.to_bytes())?;
    line::hand_over(bench.dir(), "weights", file_name(&report.file)?)?;
    let last = match report.validation {
        Some([_, after]) => after,
        None => report.curve.last().copied().context("the training has no loss to report")?,
    };
    line::report(&TrainReport {
        steps: report.steps,
        samples: u64::from(report.steps) * u64::from(job.batch),
        policy_loss: last.policy_loss,
        value_loss: last.value_loss,
        seconds: report.seconds,
    })
}

/// Progress that hands checkpoints over as they are written.
struct Checkpoints<'a> {
    bench: &'a Bench<'a>,
    meter: Meter,
    every: u64,
    /// Step of the checkpoint that was handed over last; `u32::MAX` = one that came with the job.
    handed: u32,
    failed: Option<anyhow::Error>,
}

impl Checkpoints<'_> {
    fn hand_over(&mut self, step: u32) -> anyhow::Result<()> {
        // A name of its own: the trainer replaces its file while the manager takes this one.
        let file = format!("checkpoint-{step}.safetensors");
        let dir = self.bench.dir();
        fs_err::copy(dir.join(train::CHECKPOINT_FILE), dir.join(&file))?;
        line::hand_over(dir, "checkpoint", &file)?;
        self.handed = step;
        Ok(())
    }
}

impl Progress for Checkpoints<'_> {
    fn beat(&mut self, done: u64, total: u64) -> Flow {
        let step = u32::try_from(done).unwrap_or(u32::MAX);
        if self.handed == u32::MAX {
            self.handed = step; // the step that the job's checkpoint holds
        }
        // The trainer beats before a step, so what the step before wrote is there.
        let due = done > 0 && done.is_multiple_of(self.every) && step > self.handed;
        if due && let Err(error) = self.hand_over(step) {
            self.failed = Some(error);
            return Flow::Stop;
        }
        self.meter.beat(done, total)
    }

    fn elapsed(&self) -> Duration {
        self.meter.elapsed()
    }
}

/// Matches a candidate against the champion, and if it won, against the fixed rulers.
pub fn gauntlet(bench: &Bench<'_>, job: &GauntletJob) -> anyhow::Result<()> {
    let candidate = bench.bytes(&job.candidate.weights)?;
    let champion = bench.bytes(&job.champion.weights)?;
    let config = bench.job.config;
    let candidate = match Network::for_config(&candidate, config) {
        Ok(network) => network,
        Err(error) => {
            // Its maker's fault, and a verdict: not the failure of this job.
            let fault = Some(format!("{error:#}"));
            return line::report(&GauntletReport {
                main: None,
                guard: None,
                heuristic: None,
                fault,
            });
        }
    };
    let champion = Network::for_config(&champion, config)
        .map_err(|error| bad_input(format!("the champion {}: {error:#}", job.champion.id)))?;
    let player = |model: &ModelRef, network: Network| {
        let name = PlayerSpec::Model { source: model.id.to_string(), simulations: job.simulations };
        ModelPlayer::new(name.to_string(), network, job.simulations)
    };
    let mut a = player(&job.candidate, candidate);
    let mut b = player(&job.champion, champion);
    let bounds = Bounds { elo0: job.elo0, elo1: job.elo1, alpha: job.alpha, beta: job.beta };
    let settings = arena::Settings {
        pairs: job.max_pairs,
        test: Some(bounds),
        seed: job.seed,
        seating: Seating::Shared,
    };
    let meter = &mut bench.meter("pairs against the champion");
    let main = arena::run(&settings, config, &mut a, &mut b, Some(bench.dir()), meter)?;
    if main.stopped {
        return Ok(());
    }
    let mut files: Vec<PathBuf> = main.file.clone().into_iter().collect();
    let mut results = [None, None];
    if main.decision == Some(arena::Decision::H1) {
        let rulers = [
            (PlayerSpec::Random, job.guard_pairs, "pairs against random"),
            (PlayerSpec::Heuristic, job.heuristic_pairs, "pairs against heuristic"),
        ];
        for ((ruler, pairs, note), result) in rulers.into_iter().zip(&mut results) {
            if pairs == 0 {
                continue;
            }
            let settings = arena::Settings { pairs, test: None, ..settings };
            let mut b = ruler.open(config, |_| Ok(Vec::new()))?;
            // A folder of its own: every match makes a file of one name.
            let folder = bench.dir().join(ruler.to_string());
            fs_err::create_dir_all(&folder)?;
            let meter = &mut bench.meter(note);
            let report = arena::run(&settings, config, &mut a, b.as_mut(), Some(&folder), meter)?;
            if report.stopped {
                return Ok(());
            }
            files.extend(report.file.clone());
            *result = Some(result_of(&report)?);
        }
    }
    let [guard, heuristic] = results;
    join(&files, &bench.dir().join(RECORDS_FILE))?;
    line::hand_over(bench.dir(), "records", RECORDS_FILE)?;
    line::report(&GauntletReport { main: Some(result_of(&main)?), guard, heuristic, fault: None })
}

/// One file out of several: members of a gzip file may follow each other.
fn join(files: &[PathBuf], to: &Path) -> anyhow::Result<()> {
    let mut joined = fs_err::File::create(to)?;
    for file in files {
        std::io::copy(&mut fs_err::File::open(file)?, &mut joined)?;
    }
    joined.sync_all()?;
    Ok(())
}
