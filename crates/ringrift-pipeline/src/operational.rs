//! Operational facts: what operators look back on for a week, and no decision rests on.

use ringrift_rules::Config;
use serde::{Deserialize, Serialize};

use crate::{
    BlobHash, NodeId,
    topic::{bodies, facts},
};

facts! {
    /// A fact of the operational stream.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    enum Operational in Operational;

    /// A daemon changed its state.
    DaemonStatusChanged = "daemon.status_changed", |e: &DaemonStatusChanged| format!("daemon.{}", e.daemon);
    /// The crashes of a daemon, as the next manager must know them.
    DaemonRestartsChanged = "daemon.restarts_changed", |e: &DaemonRestartsChanged| restarts_subject(&e.daemon, e.node.as_ref());
    /// A gate opened, closed, or is closed for another reason.
    GateChanged = "gate.changed", |e: &GateChanged| gate_subject(&e.gate, e.config);
    /// Something needs a person's eye, or no longer does.
    AlarmChanged = "alarm.changed", |e: &AlarmChanged| format!("alarm.{}", e.alarm);
    /// A training may begin with a window that lacks what others have.
    TrainingFellBack = "training.fell_back", |e: &TrainingFellBack| fallback_subject(e.config);
    /// Dead letters were tried again.
    DeadLettersReplayed = "dead_letters.replayed", |_: &DeadLettersReplayed| "dead_letters".to_owned();
}

bodies! {
    /// See [`Operational::DaemonStatusChanged`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct DaemonStatusChanged {
        /// The daemon.
        pub daemon: String,
        /// State before, lower case.
        pub from: String,
        /// State after, lower case.
        pub to: String,
        /// `exception`, `max_restarts_exceeded`, `auto_restart` ...
        pub reason: String,
        /// The last error, if any.
        pub error: Option<String>,
    }

    /// See [`Operational::DaemonRestartsChanged`]; the newest of a daemon counts.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct DaemonRestartsChanged {
        /// The daemon.
        pub daemon: String,
        /// The node of a cluster on which it runs; none where there is one node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub node: Option<NodeId>,
        /// Crashes in a row that were followed by a restart.
        pub crashes: u32,
        /// Crashes of the last hour, milliseconds since the Unix epoch, oldest first.
        pub recent_ms: Vec<i64>,
        /// It is `FAILED` and waits for a person.
        pub given_up: bool,
        /// Since when it is `DEGRADED`, if it is, milliseconds since the Unix epoch.
        pub degraded_since_ms: Option<i64>,
        /// When it is tried again then.
        pub retry_ms: Option<i64>,
        /// The last error, if any.
        pub last_error: Option<String>,
    }

    /// See [`Operational::GateChanged`]: every "no" of the pipeline is one of these.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct GateChanged {
        /// The daemon whose gate it is.
        pub gate: String,
        /// The config concerned; none = all.
        pub config: Option<Config>,
        /// Does it let work through?
        pub open: bool,
        /// Short, stable name of the reason; a fact is written only when it changes.
        pub code: String,
        /// The reason in one sentence.
        pub reason: String,
        /// What would open it.
        pub needs: String,
    }

    /// See [`Operational::AlarmChanged`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct AlarmChanged {
        /// Stable name, e.g. `progress.hex8_2p`.
        pub alarm: String,
        /// Raised or cleared.
        pub raised: bool,
        /// One sentence.
        pub sentence: String,
    }

    /// See [`Operational::TrainingFellBack`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct TrainingFellBack {
        /// Configuration of the game.
        pub config: Config,
        /// How many there were of this config, this one included.
        pub number: u32,
        /// The window that may be used.
        pub window: BlobHash,
        /// How much older its newest samples are than the newest there are, seconds.
        pub behind_seconds: u64,
        /// Why, one sentence.
        pub reason: String,
    }

    /// See [`Operational::DeadLettersReplayed`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct DeadLettersReplayed {
        /// How many were handled at last.
        pub recovered: u32,
        /// How many were given up.
        pub abandoned: u32,
    }
}

/// Subject of a daemon's crashes; in a cluster each node has its own.
pub fn restarts_subject(daemon: &str, node: Option<&NodeId>) -> String {
    match node {
        Some(node) => format!("restarts.{daemon}.{node}"),
        None => format!("restarts.{daemon}"),
    }
}

/// Subject of a config's trainings with old data.
pub fn fallback_subject(config: Config) -> String {
    format!("fallback.{config}")
}

/// Subject of a gate.
pub fn gate_subject(gate: &str, config: Option<Config>) -> String {
    match config {
        Some(config) => format!("gate.{gate}.{config}"),
        None => format!("gate.{gate}"),
    }
}

/// What a gate answers: a pure function's result, stored when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Go on.
    Allow,
    /// Not now.
    Deny {
        /// Short, stable name of the reason.
        code: &'static str,
        /// The reason in one sentence, with figures.
        reason: String,
        /// What would open it.
        needs: String,
    },
}

impl Gate {
    /// A refusal.
    pub fn deny(code: &'static str, reason: impl Into<String>, needs: impl Into<String>) -> Self {
        Self::Deny { code, reason: reason.into(), needs: needs.into() }
    }

    /// May work go through?
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Allow)
    }

    /// The fact that tells it.
    pub fn to_fact(&self, gate: &str, config: Option<Config>) -> GateChanged {
        let (open, code, reason, needs) = match self {
            Self::Allow => {
                (true, "open".to_owned(), "nothing holds it back".to_owned(), String::new())
            }
            Self::Deny { code, reason, needs } => {
                (false, (*code).to_owned(), reason.clone(), needs.clone())
            }
        };
        GateChanged { gate: gate.to_owned(), config, open, code, reason, needs }
    }
}
