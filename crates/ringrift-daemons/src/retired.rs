//! Retired types: they keep their name, so that an operator who uses it is told what took over.

use crate::Category;

/// A type that no longer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// Its name.
    pub name: &'static str,
    /// Its category.
    pub category: Category,
    /// What took over, if anything.
    pub successor: Option<&'static str>,
    /// One sentence for whoever asks for it.
    pub sentence: &'static str,
}

impl Retired {
    /// The sentence for whoever wants it to run.
    pub fn refusal(&self) -> String {
        format!("{} is retired and never runs: {}", self.name, self.sentence)
    }
}

const fn retired(
    name: &'static str,
    category: &'static str,
    successor: Option<&'static str>,
    sentence: &'static str,
) -> Retired {
    Retired { name, category: Category(category), successor, sentence }
}

/// The 11 retired types. Source: manager contract, section 20.
pub const RETIRED: &[Retired] = &[
    retired("SYNC_COORDINATOR", "sync", Some("AUTO_SYNC"), "AUTO_SYNC plans and runs all syncs."),
    retired(
        "EPHEMERAL_SYNC",
        "sync",
        Some("AUTO_SYNC"),
        "AUTO_SYNC has a strategy for nodes that may vanish.",
    ),
    retired(
        "HEALTH_CHECK",
        "health",
        Some("HEALTH_SERVER"),
        "The supervisor computes health and HEALTH_SERVER shows it.",
    ),
    retired(
        "NODE_HEALTH_MONITOR",
        "health",
        Some("CLUSTER_MONITOR"),
        "CLUSTER_MONITOR watches the nodes.",
    ),
    retired(
        "SYSTEM_HEALTH_MONITOR",
        "health",
        Some("HEALTH_SERVER"),
        "HEALTH_SERVER shows the health of the whole.",
    ),
    retired(
        "NPZ_DISTRIBUTION",
        "distribution",
        Some("MODEL_DISTRIBUTION"),
        "MODEL_DISTRIBUTION hands out samples as well as models.",
    ),
    retired(
        "REPLICATION_MONITOR",
        "replication",
        None,
        "Every artefact's copies are counted by the store itself.",
    ),
    retired(
        "REPLICATION_REPAIR",
        "replication",
        None,
        "Missing copies are made by the store itself.",
    ),
    retired(
        "LAMBDA_IDLE",
        "provider",
        None,
        "Idle rented nodes are ended by their provider's budget rule.",
    ),
    retired(
        "VAST_IDLE",
        "provider",
        None,
        "Idle rented nodes are ended by their provider's budget rule.",
    ),
    retired(
        "CLUSTER_DATA_SYNC",
        "misc",
        Some("AUTO_SYNC"),
        "AUTO_SYNC has a strategy that sends to every node.",
    ),
];
