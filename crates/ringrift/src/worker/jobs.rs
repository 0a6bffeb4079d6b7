//! From a job of the contract to a call of the learning library, and back.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use ringrift_learn::{combine, export, games, selfplay};
use ringrift_pipeline::{
    BatchCheck, BlobHash, CheckJob, CheckReport, CombineJob, ExportJob, Job, SamplesReport,
    SeedJob, SeedReport, SelfplayJob, SelfplayReport, WorkerJob,
};
use ringrift_player::{ENCODER_ID, Network};

use super::{bad_input, learning, line, meter::Meter, pulse::Pulse};

/// Name of the file that a seed makes.
const WEIGHTS_FILE: &str = "weights.safetensors";

/// One job at work.
pub(super) struct Bench<'a> {
    pub(super) job: &'a WorkerJob,
    pub(super) pulse: Pulse,
}

/// Does a job: its inputs are verified, its products handed over, its report said.
///
/// Stopped before there is anything worth keeping, it says no report: the manager knows that as
/// "stopped".
pub fn run(job: &WorkerJob, pulse: Pulse) -> anyhow::Result<()> {
    let bench = Bench { job, pulse };
    match &job.job {
        Job::Seed(seed) => bench.seed(seed),
        Job::Selfplay(play) => bench.selfplay(play),
        Job::Check(check) => bench.check(check),
        Job::Export(export) => bench.export(export),
        Job::Combine(combine) => bench.combine(combine),
        Job::Train(train) => learning::train(&bench, train),
        Job::Gauntlet(gauntlet) => learning::gauntlet(&bench, gauntlet),
    }
}

impl Bench<'_> {
    pub(super) fn meter(&self, note: &'static str) -> Meter {
        Meter::new(self.pulse.clone(), note)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.job.dir
    }

    /// The file of an input, once its bytes are what its name says.
    pub(super) fn input(&self, hash: &BlobHash) -> anyhow::Result<PathBuf> {
        let path = self.place_of(hash)?;
        let file = fs_err::File::open(path);
        let file = file.map_err(|error| bad_input(format!("input {hash}: {error}")))?;
        let (found, _) = depot::Hash::of_reader(file, |_| Ok(()))?;
        self.same(hash, &found)?;
        self.pulse.moved();
        Ok(path.clone())
    }

    /// The bytes of an input, once they are what its name says.
    pub(super) fn bytes(&self, hash: &BlobHash) -> anyhow::Result<Vec<u8>> {
        let path = self.place_of(hash)?;
        let bytes = fs_err::read(path);
        let bytes = bytes.map_err(|error| bad_input(format!("input {hash}: {error}")))?;
        self.same(hash, &depot::Hash::of(&bytes))?;
        Ok(bytes)
    }

    fn place_of(&self, hash: &BlobHash) -> anyhow::Result<&PathBuf> {
        self.job.inputs.get(hash).ok_or_else(|| {
            bad_input(format!("the job needs the input {hash} and names no file for it"))
        })
    }

    fn same(&self, hash: &BlobHash, found: &depot::Hash) -> anyhow::Result<()> {
        if found.to_string() == hash.as_str() {
            return Ok(());
        }
        let path = self.place_of(hash)?.display();
        Err(bad_input(format!("{path} has the hash {found}: it is damaged")))
    }

    fn seed(&self, job: &SeedJob) -> anyhow::Result<()> {
        let bytes = Network::random(self.job.config, job.seed).to_bytes();
        fs_err::write(self.dir().join(WEIGHTS_FILE), bytes)?;
        line::hand_over(self.dir(), "weights", WEIGHTS_FILE)?;
        line::report(&SeedReport {})
    }

    fn selfplay(&self, job: &SelfplayJob) -> anyhow::Result<()> {
        let network = self.bytes(&job.model.weights)?;
        let opponents = job.opponents.iter().map(|model| self.bytes(&model.weights));
        let opponents = opponents.collect::<anyhow::Result<Vec<_>>>()?;
        let settings = selfplay::Settings {
            opponent_share: job.opponent_share,
            games: job.games,
            simulations: job.simulations,
            fast_simulations: job.fast_simulations,
            full_share: job.full_share,
            temperature_moves: job.temperature_moves,
            temperature: job.temperature,
            opening_moves: job.opening_moves,
            seed: job.seed,
            ..selfplay::Settings::default()
        };
        let meter = &mut self.meter("games");
        let config = self.job.config;
        let report = selfplay::run(&settings, config, &network, &opponents, self.dir(), meter)?;
        if report.games == 0 {
            return Ok(());
        }
        line::hand_over(self.dir(), "games", file_name(&report.file)?)?;
        line::report(&SelfplayReport {
            games: count(report.games)?,
            positions: report.positions,
            moves: report.moves,
            seat_wins: report.wins.iter().map(|wins| count(*wins)).collect::<Result<_, _>>()?,
            reasons: report
                .reasons
                .iter()
                .map(|(reason, games)| Ok((reason.clone(), count(*games)?)))
                .collect::<anyhow::Result<_>>()?,
            seconds: report.seconds,
        })
    }

    fn check(&self, job: &CheckJob) -> anyhow::Result<()> {
        let mut batches = Vec::with_capacity(job.batches.len());
        for batch in &job.batches {
            let path = self.input(batch)?;
            let checked = games::check(&path, &mut self.meter("games replayed"));
            let (games, fault) = match checked {
                Ok(report) if report.stopped => return Ok(()),
                Ok(_) => (self.ids(&path)?, None),
                Err(error) => (Vec::new(), Some(format!("{error:#}"))),
            };
            batches.push(BatchCheck { batch: batch.clone(), games, fault });
        }
        line::report(&CheckReport { batches })
    }

    /// Ids of the games of a sound file; two games of one id in it are a fault of its maker.
    fn ids(&self, path: &Path) -> anyhow::Result<Vec<String>> {
        let mut ids = Vec::new();
        for game in games::Games::open(path)? {
            let game = game?;
            ensure!(
                game.record.config == self.job.config,
                "game {} is of {}, not of {}",
                game.record.id,
                game.record.config,
                self.job.config
            );
            ids.push(game.record.id);
        }
        Ok(ids)
    }

    fn export(&self, job: &ExportJob) -> anyhow::Result<()> {
        let inputs = self.inputs(&job.batches)?;
        let settings = export::Settings::default();
        let meter = &mut self.meter("games exported");
        let report = export::run(&settings, self.job.config, &inputs, self.dir(), meter)?;
        if report.stopped {
            return Ok(());
        }
        line::hand_over(self.dir(), "samples", file_name(&report.file)?)?;
        line::report(&SamplesReport {
            rows: report.rows,
            games: report.games,
            encoder: ENCODER_ID.to_owned(),
            report: without_file(&report)?,
        })
    }

    fn combine(&self, job: &CombineJob) -> anyhow::Result<()> {
        let inputs = self.inputs(&job.samples)?;
        let settings = combine::Settings { rows: job.max_rows, ..Default::default() };
        let meter = &mut self.meter("files combined");
        let report = combine::run(&settings, &inputs, self.dir(), meter)?;
        if report.stopped {
            return Ok(());
        }
        line::hand_over(self.dir(), "window", file_name(&report.file)?)?;
        line::report(&SamplesReport {
            rows: report.rows,
            games: report.games,
            encoder: ENCODER_ID.to_owned(),
            report: without_file(&report)?,
        })
    }

    fn inputs(&self, hashes: &[BlobHash]) -> anyhow::Result<Vec<PathBuf>> {
        hashes.iter().map(|hash| self.input(hash)).collect()
    }
}

/// A library's report for people; where the file lay for a moment is of no interest.
fn without_file(report: &impl serde::Serialize) -> anyhow::Result<serde_json::Value> {
    let mut value = serde_json::to_value(report).context("write the report")?;
    if let Some(map) = value.as_object_mut() {
        map.remove("file");
        map.remove("stopped");
    }
    Ok(value)
}

pub(super) fn file_name(path: &Path) -> anyhow::Result<&str> {
    path.file_name().and_then(|name| name.to_str()).context("name the product")
}

pub(super) fn count(number: u64) -> anyhow::Result<u32> {
    u32::try_from(number).context("count")
}
