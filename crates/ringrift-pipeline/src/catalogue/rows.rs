//! Rows of the catalogue, as daemons and people read them.

use courier::rusqlite::{self, Row, types::Type};
use ringrift_rules::Config;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Advice, BlobHash, EvaluationCompleted, Job, MatchResult, ModelId, ModelRef, NodeId, Parameters,
    TrainReport, WorkId, WorkKind,
};

/// State of a work item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkState {
    /// Waits for somebody to claim it.
    Queued,
    /// Somebody works on it.
    Claimed,
    /// Done.
    Done,
    /// All attempts failed.
    Dead,
    /// No longer wanted.
    Cancelled,
}

/// A work item.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkRow {
    /// Its id.
    pub id: WorkId,
    /// Its kind.
    pub kind: WorkKind,
    /// Configuration of the game.
    pub config: Config,
    /// Where it stands.
    pub state: WorkState,
    /// What to do.
    pub job: Job,
    /// Why it was asked for.
    pub reason: String,
    /// Attempts begun.
    pub attempt: u32,
    /// Who holds it.
    pub node: Option<NodeId>,
    /// Epoch of the holder's lease.
    pub epoch: u64,
    /// Last error or reason of release.
    pub error: Option<String>,
    /// Position of the last fact on its subject: what the next one must expect.
    pub position: u64,
    /// When it was queued, ms.
    pub queued_ms: i64,
    /// When its state changed last, ms.
    pub changed_ms: i64,
}

/// How many work items are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WorkCounts {
    /// Waiting.
    pub queued: u64,
    /// In work.
    pub claimed: u64,
    /// Done.
    pub done: u64,
    /// Given up.
    pub dead: u64,
    /// Cancelled.
    pub cancelled: u64,
}

/// State of a batch of games.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Safe, not yet replayed.
    Committed,
    /// Every game replays.
    Accepted,
    /// Refused.
    Rejected,
}

/// A batch of games.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatchRow {
    /// The file.
    pub hash: BlobHash,
    /// Configuration of the game.
    pub config: Config,
    /// Where it stands.
    pub state: BatchState,
    /// The item that asked for it.
    pub work: WorkId,
    /// Who played.
    pub model: ModelId,
    /// Games.
    pub games: u32,
    /// Searched decisions.
    pub positions: u64,
    /// Size.
    pub bytes: u64,
    /// Games won per seat.
    pub seat_wins: Vec<u32>,
    /// Wall seconds of playing.
    pub seconds: f64,
    /// Why it was refused.
    pub reason: Option<String>,
    /// Have samples been made of it?
    pub exported: bool,
    /// Position of the last fact on its subject.
    pub position: u64,
    /// When it was committed, ms.
    pub created_ms: i64,
}

/// Sums over batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GameTotals {
    /// Games committed (accepted ones included, refused ones not).
    pub games: u64,
    /// Searched decisions in them.
    pub positions: u64,
    /// Games not yet replayed.
    pub unchecked: u64,
    /// Games committed since the time asked for.
    pub recent: u64,
}

/// A sample file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SamplesRow {
    /// The file.
    pub hash: BlobHash,
    /// Configuration of the game.
    pub config: Config,
    /// Rows.
    pub rows: u64,
    /// Games behind them.
    pub games: u64,
    /// Size.
    pub bytes: u64,
    /// Encoder id.
    pub encoder: String,
    /// Position in the log.
    pub position: u64,
    /// When, ms.
    pub created_ms: i64,
}

/// A training window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowRow {
    /// The file.
    pub hash: BlobHash,
    /// Configuration of the game.
    pub config: Config,
    /// Rows.
    pub rows: u64,
    /// Games behind them.
    pub games: u64,
    /// Size.
    pub bytes: u64,
    /// The sample files in it.
    pub samples: Vec<BlobHash>,
    /// Position of the newest sample file in it.
    pub newest_samples: u64,
    /// Has a training read it?
    pub trained: bool,
    /// Position of the last fact on its subject.
    pub position: u64,
    /// When, ms.
    pub created_ms: i64,
}

/// Where a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelStatus {
    /// Not judged yet.
    Candidate,
    /// Plays.
    Champion,
    /// Was champion.
    Former,
    /// Judged and not taken.
    Rejected,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelRow {
    /// Its id.
    pub id: ModelId,
    /// Configuration of the game.
    pub config: Config,
    /// 0 = random weights.
    pub generation: u32,
    /// The model its training started from.
    pub parent: Option<ModelId>,
    /// Weights file.
    pub weights: BlobHash,
    /// Its size.
    pub bytes: u64,
    /// Where it stands.
    pub status: ModelStatus,
    /// The verdict's sentence.
    pub verdict: Option<String>,
    /// Its gauntlet, once finished.
    pub evaluation: Option<EvaluationCompleted>,
    /// Position of the last fact on its subject.
    pub position: u64,
    /// When it was made, ms.
    pub created_ms: i64,
}

impl ModelRow {
    /// The model and its weights.
    pub fn reference(&self) -> ModelRef {
        ModelRef { id: self.id.clone(), weights: self.weights.clone() }
    }
}

/// The champion of a config.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Champion {
    /// The model.
    pub model: ModelRow,
    /// Position of the last fact on the champion's subject.
    pub position: u64,
    /// Since when, ms.
    pub since_ms: i64,
}

/// A promotion.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PromotionRow {
    /// Configuration of the game.
    pub config: Config,
    /// The new champion.
    pub model: ModelId,
    /// The one it beat.
    pub over: ModelId,
    /// Elo gain.
    pub elo: f64,
    /// Lower end of its 95 % interval.
    pub elo_low: f64,
    /// Upper end of its 95 % interval.
    pub elo_high: f64,
    /// Games behind the figure.
    pub games: u32,
    /// Position in the log.
    pub position: u64,
    /// When, ms.
    pub created_ms: i64,
}

/// A match.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatchRow {
    /// Its id.
    pub id: String,
    /// Configuration of the game.
    pub config: Config,
    /// The result.
    pub result: MatchResult,
    /// The games.
    pub records: Option<BlobHash>,
    /// Position in the log.
    pub position: u64,
    /// When, ms.
    pub created_ms: i64,
}

/// Parameters in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParametersRow {
    /// Configuration of the game.
    pub config: Config,
    /// The parameters.
    pub parameters: Parameters,
    /// Why.
    pub reason: String,
    /// Position of the last fact on their subject.
    pub position: u64,
    /// Since when, ms.
    pub since_ms: i64,
}

/// A config's share of self-play.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AllocationRow {
    /// Configuration of the game.
    pub config: Config,
    /// Its share, 0..=1.
    pub share: f64,
    /// Why.
    pub reason: String,
    /// Position of the last fact on the subject.
    pub position: u64,
    /// Since when, ms.
    pub since_ms: i64,
}

/// What an adviser said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdviceRow {
    /// Configuration of the game.
    pub config: Config,
    /// The model whose evaluation led to it.
    pub model: ModelId,
    /// What was seen.
    pub advice: Advice,
    /// One sentence.
    pub reason: String,
    /// Position in the log.
    pub position: u64,
    /// When, ms.
    pub created_ms: i64,
}

/// A finished training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingRow {
    /// The item.
    pub work: WorkId,
    /// Configuration of the game.
    pub config: Config,
    /// The candidate.
    pub model: ModelId,
    /// What it read.
    pub window: BlobHash,
    /// Figures.
    pub report: TrainReport,
    /// Position in the log.
    pub position: u64,
    /// When, ms.
    pub created_ms: i64,
}

/// A model that a node's workers use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DistributionRow {
    /// The model and its weights.
    pub model: ModelRef,
    /// Position of the last fact on the subject.
    pub position: u64,
    /// Since when, ms.
    pub since_ms: i64,
}

/// An artefact that the log names and nobody trashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlobRow {
    /// Its hash.
    pub hash: BlobHash,
    /// `games`, `samples`, `window`, `weights`, `checkpoint`, `records`.
    pub role: String,
    /// Configuration of the game.
    pub config: Config,
    /// Its size.
    pub bytes: u64,
    /// Position of the fact that named it.
    pub position: u64,
}

/// A text column that must parse; what does not is a fault of the fold, named by its column.
pub(super) fn text<T: std::str::FromStr<Err: std::fmt::Display>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let raw: String = row.get(column)?;
    raw.parse().map_err(|e: T::Err| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, e.to_string().into())
    })
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let raw: String = row.get(column)?;
    serde_json::from_str(&raw)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}

/// A lower-case word that names a unit variant.
pub(super) fn word<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let raw: String = row.get(column)?;
    serde_json::from_value(serde_json::Value::String(raw))
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}

/// SQLite's integers are signed; what the fold wrote never is negative.
pub(super) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<BlobHash> {
    row.get(column).map(BlobHash)
}

/// A row type and the columns it is read from.
pub(super) trait FromRow: Sized {
    const COLUMNS: &'static str;
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self>;
}

impl FromRow for WorkRow {
    const COLUMNS: &'static str = "id, kind, config, state, job, reason, attempt, node, epoch, error, position, queued_ms, changed_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: WorkId(row.get(0)?),
            kind: text(row, 1)?,
            config: text(row, 2)?,
            state: word(row, 3)?,
            job: json(row, 4)?,
            reason: row.get(5)?,
            attempt: row.get(6)?,
            node: row.get::<_, Option<String>>(7)?.map(NodeId),
            epoch: count(row, 8)?,
            error: row.get(9)?,
            position: count(row, 10)?,
            queued_ms: row.get(11)?,
            changed_ms: row.get(12)?,
        })
    }
}

impl FromRow for BatchRow {
    const COLUMNS: &'static str = "hash, config, state, work, model, games, positions, bytes, seat_wins, \
         seconds, reason, exported, position, created_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            hash: hash(row, 0)?,
            config: text(row, 1)?,
            state: word(row, 2)?,
            work: WorkId(row.get(3)?),
            model: ModelId(row.get(4)?),
            games: row.get(5)?,
            positions: count(row, 6)?,
            bytes: count(row, 7)?,
            seat_wins: json(row, 8)?,
            seconds: row.get(9)?,
            reason: row.get(10)?,
            exported: row.get(11)?,
            position: count(row, 12)?,
            created_ms: row.get(13)?,
        })
    }
}

impl FromRow for SamplesRow {
    const COLUMNS: &'static str = "hash, config, rows, games, bytes, encoder, position, created_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            hash: hash(row, 0)?,
            config: text(row, 1)?,
            rows: count(row, 2)?,
            games: count(row, 3)?,
            bytes: count(row, 4)?,
            encoder: row.get(5)?,
            position: count(row, 6)?,
            created_ms: row.get(7)?,
        })
    }
}

impl FromRow for WindowRow {
    const COLUMNS: &'static str =
        "hash, config, rows, games, bytes, samples, newest_samples, trained, position, created_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            hash: hash(row, 0)?,
            config: text(row, 1)?,
            rows: count(row, 2)?,
            games: count(row, 3)?,
            bytes: count(row, 4)?,
            samples: json(row, 5)?,
            newest_samples: count(row, 6)?,
            trained: row.get(7)?,
            position: count(row, 8)?,
            created_ms: row.get(9)?,
        })
    }
}

impl FromRow for ModelRow {
    const COLUMNS: &'static str = "id, config, generation, parent, weights, bytes, status, verdict, evaluation, position, created_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let evaluated: Option<String> = row.get(8)?;
        Ok(Self {
            id: ModelId(row.get(0)?),
            config: text(row, 1)?,
            generation: row.get(2)?,
            parent: row.get::<_, Option<String>>(3)?.map(ModelId),
            weights: hash(row, 4)?,
            bytes: count(row, 5)?,
            status: word(row, 6)?,
            verdict: row.get(7)?,
            evaluation: if evaluated.is_some() { Some(json(row, 8)?) } else { None },
            position: count(row, 9)?,
            created_ms: row.get(10)?,
        })
    }
}

impl FromRow for PromotionRow {
    const COLUMNS: &'static str =
        "config, model, over, elo, elo_low, elo_high, games, position, created_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            config: text(row, 0)?,
            model: ModelId(row.get(1)?),
            over: ModelId(row.get(2)?),
            elo: row.get(3)?,
            elo_low: row.get(4)?,
            elo_high: row.get(5)?,
            games: row.get(6)?,
            position: count(row, 7)?,
            created_ms: row.get(8)?,
        })
    }
}

impl FromRow for MatchRow {
    const COLUMNS: &'static str = "id, config, result, records, position, created_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            config: text(row, 1)?,
            result: json(row, 2)?,
            records: row.get::<_, Option<String>>(3)?.map(BlobHash),
            position: count(row, 4)?,
            created_ms: row.get(5)?,
        })
    }
}

impl FromRow for ParametersRow {
    const COLUMNS: &'static str = "config, parameters, reason, position, since_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            config: text(row, 0)?,
            parameters: json(row, 1)?,
            reason: row.get(2)?,
            position: count(row, 3)?,
            since_ms: row.get(4)?,
        })
    }
}

impl FromRow for AllocationRow {
    const COLUMNS: &'static str = "config, share, reason, position, since_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            config: text(row, 0)?,
            share: row.get(1)?,
            reason: row.get(2)?,
            position: count(row, 3)?,
            since_ms: row.get(4)?,
        })
    }
}

impl FromRow for AdviceRow {
    const COLUMNS: &'static str = "config, model, advice, reason, position, created_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            config: text(row, 0)?,
            model: ModelId(row.get(1)?),
            advice: json(row, 2)?,
            reason: row.get(3)?,
            position: count(row, 4)?,
            created_ms: row.get(5)?,
        })
    }
}

impl FromRow for TrainingRow {
    const COLUMNS: &'static str = "work, config, model, window, report, position, created_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            work: WorkId(row.get(0)?),
            config: text(row, 1)?,
            model: ModelId(row.get(2)?),
            window: hash(row, 3)?,
            report: json(row, 4)?,
            position: count(row, 5)?,
            created_ms: row.get(6)?,
        })
    }
}

impl FromRow for DistributionRow {
    const COLUMNS: &'static str = "model, weights, position, since_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            model: ModelRef { id: ModelId(row.get(0)?), weights: hash(row, 1)? },
            position: count(row, 2)?,
            since_ms: row.get(3)?,
        })
    }
}

impl FromRow for BlobRow {
    const COLUMNS: &'static str = "hash, role, config, bytes, position";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            hash: hash(row, 0)?,
            role: row.get(1)?,
            config: text(row, 2)?,
            bytes: count(row, 3)?,
            position: count(row, 4)?,
        })
    }
}
