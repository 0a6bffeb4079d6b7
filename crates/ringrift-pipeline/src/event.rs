//! Events: everything that can be said about the pipeline, past tense, ids instead of blobs.
//!
//! An event's *topic* is its name for people and subscribers (`model.promoted`); its *subject* is the
//! key of its little state machine in the log (`champion.hex8_2p`): an append may demand that a
//! subject's last fact is still the one the writer saw, so a work item, a model's verdict and a
//! champion cannot be forked.

use std::collections::BTreeMap;

use ringrift_rules::Config;
use serde::{Deserialize, Serialize};

use crate::{
    BlobHash, Capabilities, Job, MatchResult, ModelId, NodeAvailabilityChanged, NodeId,
    NodeRecovered, NodeUnhealthy, RecoveryAttempted, RecoveryBegun, RecoveryEnded, TrainReport,
    WorkId,
    topic::{bodies, facts},
};

facts! {
    /// Any event of the pipeline.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Event in Pipeline;

    /// Work was asked for.
    WorkQueued = "work.queued", |e: &WorkQueued| work_subject(&e.work);
    /// A node took it.
    WorkClaimed = "work.claimed", |e: &WorkClaimed| work_subject(&e.work);
    /// It was given back; no attempt is used up.
    WorkReleased = "work.released", |e: &WorkReleased| work_subject(&e.work);
    /// An attempt failed.
    WorkFailed = "work.failed", |e: &WorkFailed| work_subject(&e.work);
    /// It is done.
    WorkCompleted = "work.completed", |e: &WorkCompleted| work_subject(&e.work);
    /// It is no longer wanted.
    WorkCancelled = "work.cancelled", |e: &WorkCancelled| work_subject(&e.work);
    /// It waited too long: it is taken before others from now on.
    WorkRaised = "work.raised", |e: &WorkRaised| work_subject(&e.work);
    /// A batch of games is safe.
    GamesCommitted = "games.committed", |e: &GamesCommitted| format!("batch.{}", e.batch);
    /// Every game of a batch replays; it counts from now on.
    BatchAccepted = "games.accepted", |e: &BatchAccepted| format!("batch.{}", e.batch);
    /// A batch is refused.
    BatchRejected = "games.rejected", |e: &BatchRejected| format!("batch.{}", e.batch);
    /// Samples were made of batches.
    SamplesExported = "samples.exported", |e: &SamplesExported| format!("samples.{}", e.samples);
    /// Sample files became a training window.
    WindowCombined = "samples.combined", |e: &WindowCombined| format!("window.{}", e.config);
    /// A training can go on from here.
    CheckpointSaved = "training.checkpointed", |e: &CheckpointSaved| format!("checkpoint.{}", e.work);
    /// A training ended well.
    TrainingCompleted = "training.completed", |e: &TrainingCompleted| format!("training.{}", e.config);
    /// A model exists.
    ModelCreated = "model.created", |e: &ModelCreated| model_subject(&e.model);
    /// A match was played.
    MatchPlayed = "match.played", |e: &MatchPlayed| format!("match.{}", e.id);
    /// A candidate's gauntlet is finished.
    EvaluationCompleted = "evaluation.completed", |e: &EvaluationCompleted| format!("evaluation.{}", e.model);
    /// A candidate was judged and not taken.
    ModelRejected = "model.rejected", |e: &ModelRejected| model_subject(&e.model);
    /// A candidate was judged and taken.
    ModelAccepted = "model.accepted", |e: &ModelAccepted| model_subject(&e.model);
    /// Generation 0 plays until something beats it.
    ChampionInstalled = "champion.installed", |e: &ChampionInstalled| champion_subject(e.config);
    /// A model became the champion by a won gauntlet.
    ModelPromoted = "model.promoted", |e: &ModelPromoted| champion_subject(e.config);
    /// Workers of a node play with this model from now on.
    ModelDistributed = "model.distributed", |e: &ModelDistributed| format!("distribution.{}.{}", e.config, e.node);
    /// Self-play and training of a config use these parameters from now on.
    ParametersSet = "parameters.set", |e: &ParametersSet| format!("parameters.{}", e.config);
    /// Somebody advises other parameters.
    AdviceGiven = "advice.given", |e: &AdviceGiven| format!("advice.{}", e.config);
    /// Weights of the configs changed.
    CurriculumRebalanced = "curriculum.rebalanced", |_: &CurriculumRebalanced| "curriculum".to_owned();
    /// Shares of self-play changed.
    AllocationUpdated = "selfplay.allocated", |_: &AllocationUpdated| "allocation".to_owned();
    /// A node of a cluster began to run, from another place or with other abilities than before.
    NodeJoined = "node.joined", |e: &NodeJoined| format!("node.{}", e.node);
    /// A machine may join a cluster, once.
    NodeInvited = "node.invited", |e: &NodeInvited| invitation_subject(&e.invitation);
    /// It was let in.
    NodeAdmitted = "node.admitted", |e: &NodeAdmitted| invitation_subject(&e.invitation);
    /// A node takes no new work, or takes it again.
    NodeDrained = "node.drained", |e: &NodeDrained| format!("node.{}", e.node);
    /// A node was put out of a cluster.
    NodeRemoved = "node.removed", |e: &NodeRemoved| format!("node.{}", e.node);
    /// A node does not do what it should.
    NodeUnhealthy = "node.unhealthy", |e: &NodeUnhealthy| format!("health.{}", e.node);
    /// It does again.
    NodeRecovered = "node.recovered", |e: &NodeRecovered| format!("health.{}", e.node);
    /// Something is about to be done to bring a node back.
    RecoveryBegun = "recovery.begun", |e: &RecoveryBegun| recovery_subject(&e.node);
    /// It was done, or why not.
    RecoveryAttempted = "recovery.attempted", |e: &RecoveryAttempted| recovery_subject(&e.node);
    /// Nothing more is to be done about a node.
    RecoveryEnded = "recovery.ended", |e: &RecoveryEnded| recovery_subject(&e.node);
    /// A provider says something else of a node's machine than before.
    NodeAvailabilityChanged = "node.availability_changed", |e: &NodeAvailabilityChanged| format!("availability.{}", e.node);
    /// An artefact went to the trash.
    ArtefactTrashed = "artefact.trashed", |e: &ArtefactTrashed| format!("artefact.{}", e.hash);
    /// A node of a cluster has artefacts: it hashed and flushed each.
    ArtefactsHeld = "artefacts.held", |e: &ArtefactsHeld| format!("holdings.{}", e.node);
    /// A node that runs out of room would give artefacts up, once two others have them.
    ArtefactsOffered = "artefacts.offered", |e: &ArtefactsOffered| format!("holdings.{}", e.node);
    /// A node has artefacts no longer: told before it gives them up, or after they were found missing.
    ArtefactsReleased = "artefacts.released", |_: &ArtefactsReleased| RELEASES.to_owned();
}

/// The facts that this program understands, as a number that grows when one that does not know the new ones would do
/// harm. A program is refused where one that understands more has joined before; what is merely new changes nothing on
/// an older node, and needs no new number.
pub const SPEAKS: u32 = 1;

/// What a node speaks that does not say so.
fn first() -> u32 {
    1
}

/// Subject of a work item.
pub fn work_subject(work: &WorkId) -> String {
    format!("work.{work}")
}

/// Subject of a model's life.
pub fn model_subject(model: &ModelId) -> String {
    format!("model.{model}")
}

/// Subject of an invitation.
pub fn invitation_subject(invitation: &str) -> String {
    format!("invitation.{invitation}")
}

/// Subject of what is tried to bring a node back.
pub fn recovery_subject(node: &NodeId) -> String {
    format!("recovery.{node}")
}

/// Subject of whatever makes copies fewer: one for a whole cluster, so that two nodes that rely on each
/// other's copy cannot both give theirs up.
pub const RELEASES: &str = "releases";

/// Subject of a config's champion.
pub fn champion_subject(config: Config) -> String {
    format!("champion.{config}")
}

bodies! {
    /// See [`Event::WorkQueued`].
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct WorkQueued {
        /// Its id.
        pub work: WorkId,
        /// Configuration of the game.
        pub config: Config,
        /// What to do.
        pub job: Job,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Event::WorkClaimed`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct WorkClaimed {
        /// The item.
        pub work: WorkId,
        /// Counts from 1; a released attempt keeps its number.
        pub attempt: u32,
        /// Who.
        pub node: NodeId,
        /// Epoch of the claimer's lease; a claim of an older epoch is void.
        pub epoch: u64,
    }

    /// See [`Event::WorkReleased`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct WorkReleased {
        /// The item.
        pub work: WorkId,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Event::WorkFailed`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct WorkFailed {
        /// The item.
        pub work: WorkId,
        /// The attempt that failed.
        pub attempt: u32,
        /// What happened.
        pub error: String,
        /// No further attempt will be made.
        pub last: bool,
    }

    /// See [`Event::WorkCompleted`].
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct WorkCompleted {
        /// The item.
        pub work: WorkId,
        /// Wall seconds of the attempt.
        pub seconds: f64,
    }

    /// See [`Event::WorkCancelled`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct WorkCancelled {
        /// The item.
        pub work: WorkId,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Event::WorkRaised`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct WorkRaised {
        /// The item.
        pub work: WorkId,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Event::GamesCommitted`].
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct GamesCommitted {
        /// The games file.
        pub batch: BlobHash,
        /// Its size, bytes.
        pub bytes: u64,
        /// Configuration of the game.
        pub config: Config,
        /// The item that asked for it.
        pub work: WorkId,
        /// Who played.
        pub model: ModelId,
        /// Games in it.
        pub games: u32,
        /// Searched decisions in it.
        pub positions: u64,
        /// Games won per seat.
        pub seat_wins: Vec<u32>,
        /// Wall seconds of playing.
        pub seconds: f64,
    }

    /// See [`Event::BatchAccepted`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct BatchAccepted {
        /// The batch.
        pub batch: BlobHash,
        /// Configuration of the game.
        pub config: Config,
        /// Games that count.
        pub games: u32,
        /// Ids of those games.
        pub ids: Vec<String>,
    }

    /// See [`Event::BatchRejected`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct BatchRejected {
        /// The batch.
        pub batch: BlobHash,
        /// Configuration of the game.
        pub config: Config,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Event::SamplesExported`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct SamplesExported {
        /// The sample file.
        pub samples: BlobHash,
        /// Its size, bytes.
        pub bytes: u64,
        /// Configuration of the game.
        pub config: Config,
        /// The batches it was made of.
        pub batches: Vec<BlobHash>,
        /// Rows in it.
        pub rows: u64,
        /// Games behind them.
        pub games: u64,
        /// Encoder id of its features.
        pub encoder: String,
    }

    /// See [`Event::WindowCombined`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct WindowCombined {
        /// The window file.
        pub window: BlobHash,
        /// Its size, bytes.
        pub bytes: u64,
        /// Configuration of the game.
        pub config: Config,
        /// The sample files in it.
        pub samples: Vec<BlobHash>,
        /// Rows in it.
        pub rows: u64,
        /// Games behind them.
        pub games: u64,
    }

    /// See [`Event::CheckpointSaved`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct CheckpointSaved {
        /// The training.
        pub work: WorkId,
        /// Configuration of the game.
        pub config: Config,
        /// The checkpoint file.
        pub checkpoint: BlobHash,
        /// Its size, bytes.
        pub bytes: u64,
    }

    /// See [`Event::TrainingCompleted`].
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct TrainingCompleted {
        /// The item.
        pub work: WorkId,
        /// Configuration of the game.
        pub config: Config,
        /// The candidate it made.
        pub model: ModelId,
        /// The window it read.
        pub window: BlobHash,
        /// Figures.
        pub report: TrainReport,
    }

    /// See [`Event::ModelCreated`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ModelCreated {
        /// The model.
        pub model: ModelId,
        /// Configuration of the game.
        pub config: Config,
        /// 0 = random weights.
        pub generation: u32,
        /// The model its training started from.
        pub parent: Option<ModelId>,
        /// The weights file.
        pub weights: BlobHash,
        /// Its size, bytes.
        pub bytes: u64,
    }

    /// See [`Event::MatchPlayed`].
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct MatchPlayed {
        /// Unique; a gauntlet's matches carry its work id.
        pub id: String,
        /// Configuration of the game.
        pub config: Config,
        /// The result.
        pub result: MatchResult,
        /// The games, replayable.
        pub records: Option<BlobHash>,
        /// Size of the records, bytes.
        pub bytes: u64,
    }

    /// See [`Event::EvaluationCompleted`].
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct EvaluationCompleted {
        /// The candidate.
        pub model: ModelId,
        /// Configuration of the game.
        pub config: Config,
        /// The champion it met.
        pub against: ModelId,
        /// Against the champion; none when the file was refused.
        pub main: Option<MatchResult>,
        /// Against the fixed ruler `random`.
        pub guard: Option<Box<MatchResult>>,
        /// Against the fixed ruler `heuristic`; none in facts of before it was played.
        pub heuristic: Option<Box<MatchResult>>,
        /// What is wrong with the candidate's file.
        pub fault: Option<String>,
    }

    /// See [`Event::ModelRejected`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ModelRejected {
        /// The model.
        pub model: ModelId,
        /// Configuration of the game.
        pub config: Config,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Event::ModelAccepted`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ModelAccepted {
        /// The model.
        pub model: ModelId,
        /// Configuration of the game.
        pub config: Config,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Event::ChampionInstalled`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ChampionInstalled {
        /// Generation 0.
        pub model: ModelId,
        /// Configuration of the game.
        pub config: Config,
    }

    /// See [`Event::ModelPromoted`].
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct ModelPromoted {
        /// The new champion.
        pub model: ModelId,
        /// Configuration of the game.
        pub config: Config,
        /// The champion it beat.
        pub over: ModelId,
        /// Elo gain over it.
        pub elo: f64,
        /// Lower end of the gain's 95 % interval.
        pub elo_low: f64,
        /// Upper end of the gain's 95 % interval.
        pub elo_high: f64,
        /// Games behind the figure.
        pub games: u32,
    }

    /// See [`Event::ModelDistributed`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ModelDistributed {
        /// The model.
        pub model: ModelId,
        /// Configuration of the game.
        pub config: Config,
        /// Its weights, verified on that node.
        pub weights: BlobHash,
        /// Whose workers use it.
        pub node: NodeId,
    }

    /// What self-play and training of one config use.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Parameters {
        /// Simulations of a full self-play search.
        pub simulations: u32,
        /// Temperature of the first decisions.
        pub temperature: f32,
        /// Random decisions at the start of a game, at most.
        pub opening_moves: u32,
        /// Factor on the trainer's learning rate.
        pub learning_rate_scale: f32,
        /// Factor on the rows of the training window.
        pub window_scale: f32,
    }
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            simulations: 64,
            temperature: 1.0,
            opening_moves: 4,
            learning_rate_scale: 1.0,
            window_scale: 1.0,
        }
    }
}

bodies! {
    /// See [`Event::ParametersSet`].
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct ParametersSet {
        /// Configuration of the game.
        pub config: Config,
        /// From now on.
        pub parameters: Parameters,
        /// Why, one sentence.
        pub reason: String,
    }
}

/// What an adviser saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// A candidate was clearly weaker than the champion.
    Regression,
    /// Several candidates in a row gained nothing.
    Plateau,
    /// A candidate gained.
    Progress,
}

bodies! {
    /// See [`Event::AdviceGiven`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct AdviceGiven {
        /// Configuration of the game.
        pub config: Config,
        /// The model whose evaluation led to it.
        pub model: ModelId,
        /// What was seen.
        pub advice: Advice,
        /// One sentence.
        pub reason: String,
    }

    /// See [`Event::CurriculumRebalanced`].
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct CurriculumRebalanced {
        /// Weight of each config, 1 = neutral, 0.5..=2.
        pub weights: BTreeMap<Config, f64>,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Event::AllocationUpdated`].
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct AllocationUpdated {
        /// Share of self-play per config; sums to 1.
        pub shares: BTreeMap<Config, f64>,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Event::NodeJoined`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct NodeJoined {
        /// The node.
        pub node: NodeId,
        /// Its public key, 64 hexadecimal digits: what it proves itself with to the others.
        pub peer: String,
        /// Where the others reach it, each as address and port.
        pub addresses: Vec<String>,
        /// What it was asked to run, in words.
        pub role: String,
        /// Version of its program.
        pub version: String,
        /// The newest facts that it understands, see [`SPEAKS`].
        #[serde(default = "first")]
        pub speaks: u32,
        /// Workers that it runs at a time.
        pub slots: u32,
        /// Those of them that may play games; 0 = it plays none.
        pub playing: u32,
        /// What its machine can do; none of a node that did not try.
        #[serde(default)]
        pub can: Option<Capabilities>,
    }

    /// See [`Event::NodeInvited`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct NodeInvited {
        /// Its number: the public key of the ticket.
        pub invitation: String,
        /// What the machine is wanted for: a profile.
        pub role: String,
        /// Until when it holds, ms since the Unix epoch.
        pub expires_ms: i64,
        /// The node where it was made.
        pub by: NodeId,
    }

    /// See [`Event::NodeAdmitted`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct NodeAdmitted {
        /// The invitation, which is used up by this.
        pub invitation: String,
        /// The node.
        pub node: NodeId,
        /// Its public key, as the servers of the log write it.
        pub key: String,
        /// What it is wanted for: a profile.
        pub role: String,
    }

    /// See [`Event::NodeDrained`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct NodeDrained {
        /// The node.
        pub node: NodeId,
        /// False: it takes work again.
        pub draining: bool,
    }

    /// See [`Event::NodeRemoved`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct NodeRemoved {
        /// The node.
        pub node: NodeId,
    }

    /// See [`Event::ArtefactTrashed`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ArtefactTrashed {
        /// The file.
        pub hash: BlobHash,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Event::ArtefactsHeld`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ArtefactsHeld {
        /// Who has them.
        pub node: NodeId,
        /// What it has now, beside what it told before; what it offered it keeps after all.
        pub hashes: Vec<BlobHash>,
    }

    /// See [`Event::ArtefactsOffered`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ArtefactsOffered {
        /// Who has them.
        pub node: NodeId,
        /// What others are to take.
        pub hashes: Vec<BlobHash>,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Event::ArtefactsReleased`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ArtefactsReleased {
        /// Who has them no longer.
        pub node: NodeId,
        /// What is counted as a copy no more.
        pub hashes: Vec<BlobHash>,
        /// Why, one sentence.
        pub reason: String,
    }
}
