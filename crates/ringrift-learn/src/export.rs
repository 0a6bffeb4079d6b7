//! Export: from game files to one sample file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ringrift_player::{Encoded, Encoder, Values};
use ringrift_rules::{Config, Phase};
use serde::{Deserialize, Serialize};

use crate::games::{self, Games, PlayedGame, Visited};
use crate::outcomes::{Limits, Outcomes};
use crate::progress::{Flow, Progress, float};
use crate::samples::{Samples, offset};

/// Name of the file in the output folder.
pub const SAMPLES_FILE: &str = "samples.npz";

/// Limits that a sample file must keep: outside of them the games or the export are broken.
///
/// Source of the idea: spec/learning.md section 5, row 6. The defaults are wider than there (5 %, 0.1), as a set of a hundred games
/// has that much chance in it; small sets are not judged at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Fewest rows that are judged.
    pub judged_rows: u64,
    /// Largest difference between a seat's share of the rows and an equal share.
    pub seat_balance: f64,
    /// Largest size of the mean result of the player to move, apart from what an equal share gives.
    pub value_mean: f64,
    /// Smallest share of the rows that any third of the games must have.
    pub third_share: f64,
    /// Largest share of the rows that one phase may have.
    pub phase_share: f64,
    /// How far the ends of the games may lie from those of earlier ones.
    pub outcomes: Limits,
    /// Ends of earlier games of the same loop; none = there are none to compare with.
    #[serde(skip_serializing_if = "Outcomes::is_empty")]
    pub earlier: Outcomes,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            judged_rows: 2000,
            seat_balance: 0.15,
            value_mean: 0.35,
            third_share: 0.05,
            phase_share: 0.95,
            outcomes: Limits::default(),
            earlier: Outcomes::default(),
        }
    }
}

/// What was exported, and the figures by which to judge it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// Games with rows in it.
    pub games: u64,
    /// Games left out because their moves were there already.
    pub doubled_games: u64,
    /// Rows.
    pub rows: u64,
    /// Rows with a policy target.
    pub policies: u64,
    /// Rows per seat to move, seat 1 first.
    pub rows_per_seat: Vec<u64>,
    /// Rows per phase.
    pub phases: BTreeMap<String, u64>,
    /// Wins per reason of the end, seat 1 first.
    pub outcomes: Outcomes,
    /// Rows from the first, second and last third of their games.
    pub thirds: [u64; 3],
    /// Mean result of the player to move, as utility.
    pub result_mean: f64,
    /// Mean opinion of the search for the player to move, as utility.
    pub search_mean: f64,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// Whether the caller stopped before the end; then nothing was written.
    pub stopped: bool,
}

/// Replays the games of all files, translates their decisions, and writes [`SAMPLES_FILE`] to `out_dir`.
///
/// Only decisions of full searches get a policy target; all get values.
///
/// # Errors
/// A faulty game (named), no rows, limits of `settings` not kept, or a file that cannot be written.
pub fn run(
    settings: &Settings,
    config: Config,
    inputs: &[PathBuf],
    out_dir: &Path,
    progress: &mut dyn Progress,
) -> anyhow::Result<Report> {
    let mut exporter = Exporter {
        encoder: Encoder::new(config),
        samples: Samples::new(config),
        encoded: Encoded::default(),
        rows: Vec::new(),
    };
    let mut report = Report { file: out_dir.join(SAMPLES_FILE), ..Report::default() };
    for input in inputs {
        let read = || format!("export {}", input.display());
        let source = games::hash(&fs_err::read(input)?);
        if exporter.samples.sources.contains(&source) {
            anyhow::bail!("{} is given twice", input.display());
        }
        exporter.samples.sources.push(source);
        for game in Games::open(input).with_context(read)? {
            let game = game.with_context(read)?;
            if progress.beat(report.games + report.doubled_games, 0) == Flow::Stop {
                report.stopped = true;
                return Ok(report);
            }
            games::expect_config(&game, config).with_context(read)?;
            if exporter.add(&game).with_context(read)? {
                report.games += 1;
                if let Some(result) = &game.record.result {
                    report.outcomes.add(exporter.samples.seats(), result);
                }
            } else {
                report.doubled_games += 1;
            }
        }
    }
    let samples = exporter.samples;
    report.describe(&samples);
    report.judge(settings, config)?;
    samples.write(&report.file)?;
    report.seconds = progress.elapsed().as_secs_f64();
    Ok(report)
}

struct Exporter {
    encoder: Encoder,
    samples: Samples,
    encoded: Encoded,
    rows: Vec<ringrift_player::MoveRows>,
}

impl Exporter {
    /// Adds the decisions of a game; `false` if it is a double.
    fn add(&mut self, game: &PlayedGame) -> anyhow::Result<bool> {
        let fingerprint = games::fingerprint(&game.record);
        if self.samples.game_fingerprints.contains(&fingerprint) {
            return Ok(false);
        }
        let end = games::check_game(game)?;
        let result = game.record.result.as_ref().context("a checked game has a result")?;
        let seats = self.samples.seats();
        let result = Values::won(seats, usize::from(result.winner) - 1);
        let number = self.samples.push_game(fingerprint, game.record.moves.len(), &end)?;
        games::visit(game, |visited| self.add_row(visited, number, &result))?;
        Ok(true)
    }

    fn add_row(&mut self, visited: &Visited<'_>, game: i32, result: &Values) -> anyhow::Result<()> {
        let samples = &mut self.samples;
        self.encoder.encode(visited.state, &mut self.encoded);
        let features = self.encoded.features.iter().map(|&feature| feature.cast_signed());
        samples.features.extend(features);
        samples.feature_offsets.push(offset(samples.features.len()));

        let mover = usize::from(self.encoded.mover);
        samples.result_values.extend_from_slice(result.from_view(mover).seats());
        let mut values = visited.decision.values.clone();
        values.rotate_left(mover);
        samples.search_values.extend_from_slice(&values);

        if !visited.policy.is_empty() {
            self.encoder.encode_moves(visited.state, visited.moves, &mut self.rows);
            samples.policy_rows.extend_from_slice(&self.rows);
            // Rounding in the game file is undone here.
            let sum: f32 = visited.policy.iter().sum();
            samples.policy_values.extend(visited.policy.iter().map(|p| p / sum));
        }
        samples.policy_offsets.push(offset(samples.policy_rows.len()));
        samples.mover.push(i8::try_from(mover)?);
        samples.phase.push(i8::try_from(visited.state.phase() as usize)?);
        samples.move_number.push(i32::try_from(visited.decision.at)?);
        samples.game.push(game);
        Ok(())
    }
}

impl Report {
    fn describe(&mut self, samples: &Samples) {
        let seats = samples.seats();
        self.rows = samples.len() as u64;
        self.policies = samples.policies() as u64;
        self.rows_per_seat = vec![0; seats];
        for row in 0..samples.len() {
            let index = |number: i32| usize::try_from(number).expect("written above");
            self.rows_per_seat[index(samples.mover[row].into())] += 1;
            let phase = Phase::ALL[index(samples.phase[row].into())];
            *self.phases.entry(phase.to_string()).or_default() += 1;
            let length = samples.game_lengths[index(samples.game[row])];
            self.thirds[index(samples.move_number[row] * 3 / length).min(2)] += 1;
            self.result_mean += f64::from(samples.result_values[row * seats]);
            self.search_mean += f64::from(samples.search_values[row * seats]);
        }
        let rows = float(self.rows.max(1));
        self.result_mean /= rows;
        self.search_mean /= rows;
    }

    fn judge(&self, settings: &Settings, config: Config) -> anyhow::Result<()> {
        ensure!(self.rows > 0, "the game files have no searched decision");
        ensure!(self.policies > 0, "no decision has a policy target: every search was a fast one");
        if self.rows < settings.judged_rows {
            return Ok(());
        }
        let equal = 1.0 / f64::from(config.players);
        for (seat, &rows) in (1..).zip(&self.rows_per_seat) {
            let share = float(rows) / float(self.rows);
            ensure!(
                (share - equal).abs() <= settings.seat_balance,
                "seat {seat} has {share:.2} of the rows, allowed is {equal:.2} +- {:.2}",
                settings.seat_balance
            );
        }
        let expected = if config.players == 2 { 0.0 } else { equal };
        let mean = self.result_mean;
        ensure!(
            (mean - expected).abs() <= settings.value_mean,
            "the mean result of the player to move is {mean:.2}, allowed is {expected:.2} +- {:.2}",
            settings.value_mean
        );
        for (third, &rows) in ["first", "second", "last"].iter().zip(&self.thirds) {
            let share = float(rows) / float(self.rows);
            ensure!(
                share >= settings.third_share,
                "only {share:.3} of the rows lie in the {third} third of their games"
            );
        }
        for (phase, &rows) in &self.phases {
            let share = float(rows) / float(self.rows);
            ensure!(
                share <= settings.phase_share,
                "{:.1} % of the rows are of the phase {phase}, at most {:.1} % are usual",
                share * 100.0,
                settings.phase_share * 100.0
            );
        }
        self.outcomes.judge(&settings.earlier, &settings.outcomes)
    }
}
