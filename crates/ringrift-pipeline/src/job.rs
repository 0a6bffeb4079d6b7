//! Job specs: what a worker process is asked to do, and what it must hand back.
//!
//! The same types are stored in the log (`work.queued`) and sent to the worker on the first line of
//! its stdin. Two things may be newer in the job that runs: the model that plays (the one that its
//! node was handed last), and the checkpoint that a training goes on from.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use ringrift_rules::Config;
use serde::{Deserialize, Serialize};

use crate::{BlobHash, ModelId, WorkId, topic::bodies};

/// Version of the worker contract. A worker refuses a job of another version with exit code 125.
pub const WORKER_CONTRACT: u32 = 1;

/// The kinds of work that are queued, claimed and counted. (Derivations such as an export need no
/// queue: the catalogue shows that they are due.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Play games.
    Selfplay,
    /// Train a candidate.
    Train,
    /// Match a candidate against the champion.
    Gauntlet,
}

impl WorkKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Selfplay, Self::Train, Self::Gauntlet];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Selfplay => "selfplay",
            Self::Train => "train",
            Self::Gauntlet => "gauntlet",
        }
    }
}

impl fmt::Display for WorkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WorkKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            format!("unknown kind of work '{text}': allowed are selfplay, train, gauntlet")
        })
    }
}

/// A model and its weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRef {
    /// The model.
    pub id: ModelId,
    /// Its weights file.
    pub weights: BlobHash,
}

/// Play games with one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfplayJob {
    /// Who learns from the games: it plays all seats, or all but one where an opponent takes part.
    pub model: ModelRef,
    /// Former champions that it meets in a share of the games, so that it does not forget how to beat them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub opponents: Vec<ModelRef>,
    /// That share, 0..=1; without opponents no effect.
    #[serde(default)]
    pub opponent_share: f32,
    /// Games to play.
    pub games: u32,
    /// Simulations of a full search.
    pub simulations: u32,
    /// Simulations of a fast search (playout-cap randomisation).
    pub fast_simulations: u32,
    /// Share of decisions searched in full, 0..=1.
    pub full_share: f32,
    /// Random decisions at the start of a game, at most.
    pub opening_moves: u32,
    /// Decisions sampled by temperature before play turns greedy.
    pub temperature_moves: u32,
    /// Temperature of those decisions.
    pub temperature: f32,
    /// Seed of this batch.
    pub seed: u64,
}

/// Make a sample file from game batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportJob {
    /// The batches, all of the job's config.
    pub batches: Vec<BlobHash>,
}

/// Merge sample files into one training window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CombineJob {
    /// The sample files, oldest first.
    pub samples: Vec<BlobHash>,
    /// Most rows of the window; the newest win.
    pub max_rows: u64,
}

/// Train a candidate from a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainJob {
    /// Id of the model to make.
    pub candidate: ModelId,
    /// Its generation.
    pub generation: u32,
    /// Where training starts from.
    pub parent: ModelRef,
    /// The training window.
    pub window: BlobHash,
    /// Optimiser steps.
    pub steps: u32,
    /// Samples per step.
    pub batch: u32,
    /// Highest learning rate of the schedule.
    pub learning_rate: f32,
    /// Steps between two checkpoints.
    pub checkpoint_steps: u32,
    /// Newest checkpoint of an earlier attempt at this very job.
    #[serde(default)]
    pub checkpoint: Option<BlobHash>,
    /// Seed of the run.
    pub seed: u64,
}

/// Match a candidate against the champion, then against the fixed rulers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GauntletJob {
    /// The model on trial.
    pub candidate: ModelRef,
    /// The champion of the moment.
    pub champion: ModelRef,
    /// Simulations per decision, both sides.
    pub simulations: u32,
    /// Elo difference of H0.
    pub elo0: f64,
    /// Elo difference of H1.
    pub elo1: f64,
    /// Rate of false acceptances of H1.
    pub alpha: f64,
    /// Rate of false acceptances of H0.
    pub beta: f64,
    /// Most pairs before the test ends undecided.
    pub max_pairs: u32,
    /// Pairs against the player `random`, the guard against rock-paper-scissors.
    pub guard_pairs: u32,
    /// Pairs against the player `heuristic`, a second guard.
    #[serde(default)]
    pub heuristic_pairs: u32,
    /// Seed of openings and searches.
    pub seed: u64,
}

/// Replay game batches through the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckJob {
    /// The batches.
    pub batches: Vec<BlobHash>,
}

/// Make the random weights of generation 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedJob {
    /// Seed of the weights.
    pub seed: u64,
}

/// What a worker can be asked to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Job {
    /// Random weights of generation 0.
    Seed(SeedJob),
    /// Play games.
    Selfplay(SelfplayJob),
    /// Replay batches.
    Check(CheckJob),
    /// Games to samples.
    Export(ExportJob),
    /// Samples to a window.
    Combine(CombineJob),
    /// Window to candidate.
    Train(TrainJob),
    /// Candidate against champion.
    Gauntlet(GauntletJob),
}

impl Job {
    /// The name on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Seed(_) => "seed",
            Self::Selfplay(_) => "selfplay",
            Self::Check(_) => "check",
            Self::Export(_) => "export",
            Self::Combine(_) => "combine",
            Self::Train(_) => "train",
            Self::Gauntlet(_) => "gauntlet",
        }
    }

    /// Blobs that the worker reads.
    pub fn inputs(&self) -> Vec<BlobHash> {
        match self {
            Self::Seed(_) => Vec::new(),
            Self::Selfplay(job) => {
                let players = std::iter::once(&job.model).chain(&job.opponents);
                players.map(|model| model.weights.clone()).collect()
            }
            Self::Check(job) => job.batches.clone(),
            Self::Export(job) => job.batches.clone(),
            Self::Combine(job) => job.samples.clone(),
            Self::Train(job) => {
                let mut inputs = vec![job.window.clone(), job.parent.weights.clone()];
                inputs.extend(job.checkpoint.clone());
                inputs
            }
            Self::Gauntlet(job) => {
                vec![job.candidate.weights.clone(), job.champion.weights.clone()]
            }
        }
    }
}

/// The first line of a worker's stdin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerJob {
    /// [`WORKER_CONTRACT`].
    pub contract: u32,
    /// Names this run in logs; a queued item's id, or the daemon's name for a derivation.
    pub work: WorkId,
    /// Counts from 1.
    pub attempt: u32,
    /// The only folder that the worker may write into; its working directory.
    pub dir: PathBuf,
    /// Configuration of the game.
    pub config: Config,
    /// Hash of each input -> its path, read-only.
    pub inputs: BTreeMap<BlobHash, PathBuf>,
    /// What to do.
    pub job: Job,
}

/// One line of a worker's stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum WorkerLine {
    /// "I live"; at least every 10 s when nothing else is said.
    Beat,
    /// How far the work is.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all, 0 when unknown.
        total: u64,
        /// One short phrase for people.
        #[serde(default)]
        note: String,
        /// Anything that a page may draw (a running game's position, a loss).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        view: Option<serde_json::Value>,
    },
    /// A finished file in the job's folder.
    Artefact(Artefact),
    /// The report; the last line of a successful run. Its shape depends on the job.
    Result {
        /// One of the `...Report` types of this module.
        report: serde_json::Value,
    },
}

/// A file that a worker hands over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artefact {
    /// What it is: `weights`, `games`, `samples`, `window`, `checkpoint`, `records`.
    pub role: String,
    /// File name inside the job's folder, without a path.
    pub file: String,
    /// BLAKE3 of its bytes.
    pub hash: BlobHash,
    /// Its size.
    pub bytes: u64,
}

/// Report of [`Job::Seed`]; artefact `weights`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedReport {}

/// Report of [`Job::Selfplay`]; artefact `games`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelfplayReport {
    /// Finished games in the file.
    pub games: u32,
    /// Searched decisions in them.
    pub positions: u64,
    /// Recorded moves in them.
    pub moves: u64,
    /// Games won per seat.
    pub seat_wins: Vec<u32>,
    /// Games per reason of their end.
    pub reasons: BTreeMap<String, u32>,
    /// Wall seconds.
    pub seconds: f64,
}

/// Report of [`Job::Check`]; one entry per batch, in the job's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Verdicts.
    pub batches: Vec<BatchCheck>,
}

/// Verdict on one batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchCheck {
    /// The batch.
    pub batch: BlobHash,
    /// Ids of its games.
    pub games: Vec<String>,
    /// First fault, as a sentence; none = every game replays.
    pub fault: Option<String>,
}

/// Report of [`Job::Export`] and [`Job::Combine`]; artefact `samples` or `window`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplesReport {
    /// Rows in the file.
    pub rows: u64,
    /// Games behind them.
    pub games: u64,
    /// Encoder id of the features.
    pub encoder: String,
    /// Figures on balance and content, for people.
    #[serde(default)]
    pub report: serde_json::Value,
}

bodies! {
    /// Report of [`Job::Train`]; artefacts `checkpoint` (several) and `weights`.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct TrainReport {
        /// Optimiser steps in all, earlier attempts included.
        pub steps: u32,
        /// Samples seen.
        pub samples: u64,
        /// Policy cross-entropy on the validation split, nats.
        pub policy_loss: f64,
        /// Cross-entropy of the chances to win on the validation split, nats.
        pub value_loss: f64,
        /// Wall seconds of this attempt.
        pub seconds: f64,
    }
}

/// Report of [`Job::Gauntlet`]; artefact `records` (the games of all matches, replayable), none
/// when the file was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GauntletReport {
    /// Candidate against champion; none when the file was refused.
    #[serde(default)]
    pub main: Option<MatchResult>,
    /// Candidate against `random`; none when the main match was not won.
    #[serde(default)]
    pub guard: Option<MatchResult>,
    /// Candidate against `heuristic`; none when the main match was not won, or none was asked for.
    #[serde(default)]
    pub heuristic: Option<MatchResult>,
    /// What is wrong with the candidate's file, if anything; then no game was played.
    #[serde(default)]
    pub fault: Option<String>,
}

/// How a sequential test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestDecision {
    /// The candidate is stronger (H1).
    Stronger,
    /// It is not (H0).
    NotStronger,
    /// The limit of games came first.
    Undecided,
}

bodies! {
    /// A finished match, seen from its first player.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct MatchResult {
        /// Text of the first player, e.g. `model:hex8_2p-m0003@32`.
        pub a: String,
        /// Text of the second player.
        pub b: String,
        /// Games played.
        pub games: u32,
        /// Games won by `a`.
        pub wins: u32,
        /// Games won by `b`.
        pub losses: u32,
        /// Pairs in which `a` won 0, 1, 2 games.
        pub pairs: [u32; 3],
        /// Share of games won by `a`, 0..=1.
        pub score: f64,
        /// Elo difference by the score.
        pub elo: f64,
        /// Lower end of its 95 % interval.
        pub elo_low: f64,
        /// Upper end of its 95 % interval.
        pub elo_high: f64,
        /// Log-likelihood ratio of the sequential test; 0 for a match of fixed length.
        pub llr: f64,
        /// How that test ended; none for a match of fixed length.
        pub decision: Option<TestDecision>,
        /// Games of three or four seats by how they finished, e.g. `a>b=b`; none where two played.
        pub finishes: Option<BTreeMap<String, u32>>,
        /// Different final positions; few of them = a meaningless match.
        pub distinct_games: u32,
        /// The book of openings, by its moves; none in results of an older program.
        pub book: Option<BlobHash>,
        /// Wall seconds.
        pub seconds: f64,
    }
}

impl MatchResult {
    /// Says what cannot be true of this result, if anything.
    pub fn fault(&self) -> Option<String> {
        let pairs: u32 = self.pairs.iter().sum();
        if self.games == 0 {
            return Some("a match without a game".into());
        }
        if self.wins + self.losses != self.games {
            return Some(format!(
                "{} wins and {} losses do not make {} games",
                self.wins, self.losses, self.games
            ));
        }
        if pairs * 2 != self.games || self.pairs[1] + 2 * self.pairs[2] != self.wins {
            return Some(format!("pairs {:?} contradict {} wins", self.pairs, self.wins));
        }
        let share = f64::from(self.wins) / f64::from(self.games);
        if !self.score.is_finite() || (self.score - share).abs() > 1e-6 {
            return Some(format!("score {} is impossible: allowed is {share:.6}", self.score));
        }
        if let Some(finishes) = &self.finishes
            && finishes.values().sum::<u32>() != self.games
        {
            return Some(format!("finishes {finishes:?} are not those of {} games", self.games));
        }
        if self.distinct_games > self.games {
            return Some(format!("{} distinct of {} games", self.distinct_games, self.games));
        }
        None
    }
}
