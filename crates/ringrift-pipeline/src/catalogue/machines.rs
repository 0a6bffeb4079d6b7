//! What can be asked of machines.

use courier::rusqlite::{self, Row, types::ValueRef};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Catalogue, CatalogueError,
    queries::rows,
    rows::{FromRow, count, word},
};
use crate::{Availability, Layer, NodeId, RecoveryOutcome, RecoveryStep};

/// Whether a node is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeHealthRow {
    /// The node.
    pub node: NodeId,
    /// The first layer that fails; none = it is well again.
    pub failed: Option<Layer>,
    /// What was seen.
    pub reason: String,
    /// Position of the last fact on its subject.
    pub position: u64,
    /// Since when, ms.
    pub since_ms: i64,
}

/// What was tried to bring a node back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryRow {
    /// The node.
    pub node: NodeId,
    /// It is not back yet.
    pub is_open: bool,
    /// The last step.
    pub step: RecoveryStep,
    /// How often it was tried with this step.
    pub attempt: u32,
    /// What became of it; none = that was not told, because its node was cut off in the middle.
    pub outcome: Option<RecoveryOutcome>,
    /// The same in words.
    pub sentence: String,
    /// Position of the last fact on its subject.
    pub position: u64,
    /// When this episode began, ms.
    pub began_ms: i64,
    /// When the last step was, ms.
    pub changed_ms: i64,
}

/// What a provider says of a node's machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AvailabilityRow {
    /// The node.
    pub node: NodeId,
    /// Its provider, as the configuration calls it.
    pub provider: String,
    /// What the provider calls its machine.
    pub instance: String,
    /// How it is.
    pub state: Availability,
    /// Position of the last fact on its subject.
    pub position: u64,
    /// Since when, ms.
    pub since_ms: i64,
}

fn maybe_word<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    if row.get_ref(column)? == ValueRef::Null { Ok(None) } else { word(row, column).map(Some) }
}

impl FromRow for NodeHealthRow {
    const COLUMNS: &'static str = "node, failed, reason, position, since_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            node: NodeId(row.get(0)?),
            failed: maybe_word(row, 1)?,
            reason: row.get(2)?,
            position: count(row, 3)?,
            since_ms: row.get(4)?,
        })
    }
}

impl FromRow for RecoveryRow {
    const COLUMNS: &'static str =
        "node, is_open, step, attempt, outcome, sentence, position, began_ms, changed_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            node: NodeId(row.get(0)?),
            is_open: row.get(1)?,
            step: word(row, 2)?,
            attempt: row.get(3)?,
            outcome: maybe_word(row, 4)?,
            sentence: row.get(5)?,
            position: count(row, 6)?,
            began_ms: row.get(7)?,
            changed_ms: row.get(8)?,
        })
    }
}

impl FromRow for AvailabilityRow {
    const COLUMNS: &'static str = "node, provider, instance, state, position, since_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            node: NodeId(row.get(0)?),
            provider: row.get(1)?,
            instance: row.get(2)?,
            state: word(row, 3)?,
            position: count(row, 4)?,
            since_ms: row.get(5)?,
        })
    }
}

impl Catalogue {
    /// Nodes that were ever unhealthy, by name.
    pub async fn node_health(&self) -> Result<Vec<NodeHealthRow>, CatalogueError> {
        self.ask(|db| rows(db, "node_health", "ORDER BY node", [])).await
    }

    /// Nodes that something was ever tried with, by name.
    pub async fn recoveries(&self) -> Result<Vec<RecoveryRow>, CatalogueError> {
        self.ask(|db| rows(db, "node_recoveries", "ORDER BY node", [])).await
    }

    /// Nodes of which a provider said something, by name.
    pub async fn availability(&self) -> Result<Vec<AvailabilityRow>, CatalogueError> {
        self.ask(|db| rows(db, "node_availability", "ORDER BY node", [])).await
    }
}
