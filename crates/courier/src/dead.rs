//! Dead letters: facts that a subscriber could not digest, kept where people see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fact::{Fact, Stream};

/// What is to become of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// Waits for somebody to decide.
    Pending,
    /// Is delivered again when its subscriber looks next.
    Retrying,
    /// A later delivery succeeded.
    Recovered,
    /// Given up, by a person or after too many retries.
    Abandoned,
}

impl LetterState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Retrying, Self::Recovered, Self::Abandoned];

    /// The name in stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Recovered => "recovered",
            Self::Abandoned => "abandoned",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A fact that a subscriber could not digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Number of the letter.
    pub id: u64,
    /// Who could not digest it.
    pub subscriber: String,
    /// The stream of the fact.
    pub stream: Stream,
    /// A copy of the fact: the letter outlives the retention of its stream.
    pub fact: Fact,
    /// What the handler said last.
    pub error: String,
    /// Deliveries that failed, retries included.
    pub attempts: u32,
    /// When it was buried, milliseconds since the Unix epoch.
    pub buried_ms: i64,
    /// When a retry was last asked for, milliseconds since the Unix epoch.
    pub retried_ms: Option<i64>,
    /// What is to become of it.
    pub state: LetterState,
}

/// A letter to be buried; one per subscriber and fact, a second one renews the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLetter {
    /// Who could not digest it.
    pub subscriber: String,
    /// The stream of the fact.
    pub stream: Stream,
    /// The position of the fact.
    pub position: u64,
    /// What the handler said.
    pub error: String,
    /// Deliveries that failed.
    pub attempts: u32,
}

/// Which letters to list; the default lists the newest 1000 of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterFilter {
    /// Only the one with this number.
    pub id: Option<u64>,
    /// Only of this subscriber.
    pub subscriber: Option<String>,
    /// Only facts whose subject is this or begins with this and a dot; empty = all.
    pub prefix: String,
    /// Only in this state.
    pub state: Option<LetterState>,
    /// At most so many, the newest first.
    pub limit: usize,
}

impl Default for LetterFilter {
    fn default() -> Self {
        Self { id: None, subscriber: None, prefix: String::new(), state: None, limit: 1000 }
    }
}

/// How many letters there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LetterCounts {
    /// Waiting for a decision.
    pub pending: u64,
    /// About to be delivered again.
    pub retrying: u64,
    /// Delivered after all.
    pub recovered: u64,
    /// Given up.
    pub abandoned: u64,
    /// Those pending or retrying, by subject.
    pub open_by_subject: BTreeMap<String, u64>,
    /// When the oldest pending one was buried, milliseconds since the Unix epoch.
    pub oldest_pending_ms: Option<i64>,
}
