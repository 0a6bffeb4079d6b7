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
    retired(
        "SYNC_COORDINATOR",
        "sync",
        Some("AUTO_SYNC"),
        "Nobody plans for all: each node fetches by itself, AUTO_SYNC by its strategy.",
    ),
    retired(
        "EPHEMERAL_SYNC",
        "sync",
        Some("AUTO_SYNC"),
        "AUTO_SYNC with the strategy `ephemeral` stops in good order once others have its batches.",
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
        Some("TRAINING_DATA_SYNC"),
        "TRAINING_DATA_SYNC fetches windows on the nodes that train; nobody sends them.",
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
        "Nothing ends rented machines here: NODE_RECOVERY starts and reboots them, people end them.",
    ),
    retired(
        "VAST_IDLE",
        "provider",
        None,
        "Nothing ends rented machines here: NODE_RECOVERY starts and reboots them, people end them.",
    ),
    retired(
        "CLUSTER_DATA_SYNC",
        "misc",
        Some("AUTO_SYNC"),
        "AUTO_SYNC with the strategy `broadcast` has each node fetch models and windows by itself.",
    ),
];
