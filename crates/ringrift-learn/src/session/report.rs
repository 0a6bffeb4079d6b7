//! What is known of a run: `run.json`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use ringrift_player::ENCODER_ID;
use ringrift_rules::{Config, RULES_VERSION};
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::arena;
use crate::files::write_bytes;
use crate::rating::{MatchResult, Rating};
use crate::train::CurvePoint;

/// Name of the report in the folder of a run.
pub const RUN_FILE: &str = "run.json";
/// Version of its layout.
const FORMAT: &str = "ringrift-run-1";

/// How long a run learns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Until so many minutes are over, by the caller's clock.
    Minutes(f64),
    /// Until the trainings had so many steps of the optimiser.
    Steps(u32),
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stand {
    /// It learns, or was killed while it did.
    Learning,
    /// It was asked to stop before its end.
    Stopped,
    /// It learned to its end.
    Learned,
    /// A step failed or refused what the step before it made; why.
    Failed(String),
}

/// A run: what was asked for, what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Layout of this report.
    pub format: String,
    /// Rules that were played.
    pub rules: String,
    /// Encoder of the networks.
    pub encoder: String,
    /// Board and number of seats.
    pub config: Config,
    /// Where all chance came from.
    pub seed: u64,
    /// Threads that worked.
    pub threads: usize,
    /// How long it was to learn.
    pub limit: Limit,
    /// All other numbers.
    pub settings: Settings,
    /// How far it came.
    pub stand: Stand,
    /// Time it learned, in seconds.
    pub seconds: f64,
    /// Games of self-play.
    pub games: u64,
    /// Rows of samples.
    pub rows: u64,
    /// Steps of the optimiser.
    pub steps: u32,
    /// The networks; the first one is random.
    pub nets: Vec<Net>,
    /// The champion, as a number in `nets`.
    pub champion: usize,
    /// The champion when half of the run was over, once it was.
    pub half: Option<usize>,
    /// What happened in each iteration.
    pub points: Vec<Point>,
    /// All matches of the run; networks are named by their hash and the simulations of their search.
    pub matches: Vec<MatchResult>,
    /// Ratings of all players of these matches, random pinned at 0.
    pub ratings: Vec<Rating>,
    /// Matches after the end.
    pub closing: Vec<Duel>,
}

/// A network of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// BLAKE3 of its file, hexadecimal.
    pub hash: String,
    /// Its file, seen from the folder of the run.
    pub file: String,
    /// When it was there, in seconds from the start.
    pub seconds: f64,
    /// Network it was trained from, as a number; none for the first.
    pub parent: Option<usize>,
}

/// One iteration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// When it was over, in seconds from the start.
    pub seconds: f64,
    /// Simulations of a full and of a fast search.
    pub simulations: [u32; 2],
    /// New games.
    pub games: u64,
    /// Games won per seat, seat 1 first.
    pub wins: Vec<u64>,
    /// Games per reason of their end.
    pub reasons: BTreeMap<String, u64>,
    /// Mean recorded moves per game.
    pub mean_length: f64,
    /// New rows.
    pub rows: u64,
    /// Rows of the window, if it came to a training.
    pub window: Option<u64>,
    /// The training, if it came to an end.
    pub training: Option<Training>,
    /// The candidate, as a number in `nets`, if it passed the file checks.
    pub net: Option<usize>,
    /// Its match against the champion.
    pub gate: Option<arena::Report>,
    /// Its matches against the guards, if it won.
    pub guards: Vec<arena::Report>,
    /// Whether it became champion; if not, why.
    pub verdict: Verdict,
    /// Rating of the champion after this iteration.
    pub rating: Option<Rating>,
    /// Where the time went.
    pub time: Time,
}

/// A training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Steps of the optimiser.
    pub steps: u32,
    /// Losses over the last stretch.
    pub loss: CurvePoint,
    /// Losses on the games kept out, before and after.
    pub validation: Option<[CurvePoint; 2]>,
    /// Samples per second.
    pub samples_per_second: f64,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is the champion.
    Promoted,
    /// It is not, and this is why.
    Kept(String),
}

/// Where the time of an iteration went, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// All threads played.
    pub play: f64,
    /// Games became samples.
    pub export: f64,
    /// One thread trained, the others played.
    pub train: f64,
    /// All threads matched.
    pub gate: f64,
}

/// A match after the end, seen from the champion, or from what else was learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Duel {
    /// The opponent, for people.
    pub against: String,
    /// Simulations of the champion; 0 = it looks one move ahead.
    pub simulations: u32,
    /// The match.
    pub result: arena::Report,
    /// 95 % interval of the share of games won (Wilson).
    pub interval: [f64; 2],
    /// Likelihood that the champion is the better one.
    pub los: f64,
}

impl Net {
    /// The bytes of its file in the folder of the run.
    ///
    /// # Errors
    /// A file that is not what was made.
    pub fn read(&self, folder: &Path) -> anyhow::Result<Vec<u8>> {
        let path = folder.join(&self.file);
        let bytes = fs_err::read(&path)?;
        let found = crate::games::hash(&bytes);
        ensure!(
            found == self.hash,
            "{} is damaged: its hash is {found}, it was made with {}",
            path.display(),
            self.hash
        );
        Ok(bytes)
    }
}

impl Duel {
    /// Judges a match.
    pub fn new(against: String, simulations: u32, result: arena::Report) -> Self {
        let (low, high) = arena::interval(&result.pairs);
        let los = likelihood_of_superiority(result.wins, result.games, result.equal_score);
        Self { against, simulations, interval: [low, high], los, result }
    }
}

impl Report {
    pub(super) fn new(
        config: Config,
        seed: u64,
        threads: usize,
        limit: Limit,
        settings: Settings,
    ) -> Self {
        Self {
            format: FORMAT.to_owned(),
            rules: RULES_VERSION.to_owned(),
            encoder: ENCODER_ID.to_owned(),
            config,
            seed,
            threads,
            limit,
            settings,
            stand: Stand::Learning,
            seconds: 0.0,
            games: 0,
            rows: 0,
            steps: 0,
            nets: Vec::new(),
            champion: 0,
            half: None,
            points: Vec::new(),
            matches: Vec::new(),
            ratings: Vec::new(),
            closing: Vec::new(),
        }
    }

    /// Candidates that became champion.
    pub fn promotions(&self) -> usize {
        self.points.iter().filter(|point| point.verdict == Verdict::Promoted).count()
    }

    /// Writes [`RUN_FILE`].
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        write_bytes(&folder.join(RUN_FILE), &serde_json::to_vec_pretty(self)?)
    }

    /// Reads the report of a run in a folder.
    ///
    /// # Errors
    /// A folder that holds no run, a run of another version, and a run that never came to an end.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(RUN_FILE);
        ensure!(path.exists(), "{} holds no run: there is no {RUN_FILE}", folder.display());
        let read = || format!("read the run {}", folder.display());
        let raw: serde_json::Value =
            serde_json::from_slice(&fs_err::read(&path)?).with_context(read)?;
        let format = raw.get("format").and_then(serde_json::Value::as_str).unwrap_or("none");
        ensure!(
            format == FORMAT,
            "read the run {}: its format is {format:?}, this program reads {FORMAT:?}",
            folder.display()
        );
        let report: Self = serde_json::from_value(raw).with_context(read)?;
        ensure!(
            report.stand != Stand::Learning,
            "the run {} never came to an end: it still learns, or was killed",
            folder.display()
        );
        let nets = report.nets.len();
        let known = report.champion < nets && report.half.is_none_or(|half| half < nets);
        ensure!(known, "the run {} names a network that it does not have", folder.display());
        Ok(report)
    }
}

/// Chance that the player is the better one, by its wins and the share of equal players. Source: spec/learning.md section 1.2.
fn likelihood_of_superiority(wins: u64, games: u64, equal: f64) -> f64 {
    if games == 0 {
        return 0.5;
    }
    let (wins, games) = (crate::progress::float(wins), crate::progress::float(games));
    normal((wins - games * equal) / (games * equal * (1.0 - equal)).sqrt())
}

/// Distribution function of the normal distribution, to 1e-7. Source: Abramowitz and Stegun, 26.2.17.
fn normal(x: f64) -> f64 {
    const FACTORS: [f64; 5] =
        [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let sum = FACTORS.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    let tail = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum;
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likelihood_of_superiority_has_the_tabled_values() {
        let check = |wins, losses, expected: f64| {
            let found = likelihood_of_superiority(wins, wins + losses, 0.5);
            assert!((found - expected).abs() < 1e-5, "{wins}:{losses} gives {found}");
        };
        check(0, 0, 0.5);
        check(50, 50, 0.5);
        // 1 and 1.96 deviations.
        check(55, 45, 0.841_345);
        check(5_098, 4_902, 0.975_002);
        check(4_902, 5_098, 0.024_998);
        // A quarter of 1200 games with one deviation, 15, more.
        assert!((likelihood_of_superiority(315, 1200, 0.25) - 0.841_345).abs() < 1e-5);
    }
}
