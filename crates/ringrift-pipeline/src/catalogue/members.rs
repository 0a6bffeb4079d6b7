//! Rows of the nodes of a cluster.

use courier::rusqlite::{self, Row};
use serde::Serialize;

use super::rows::{FromRow, count, json};
use crate::{Capabilities, NodeId};

/// A node of a cluster, as it said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeRow {
    /// The node.
    pub node: NodeId,
    /// Its public key, 64 hexadecimal digits.
    pub peer: String,
    /// Where the others reach it, each as address and port.
    pub addresses: Vec<String>,
    /// What it was asked to run, in words.
    pub role: String,
    /// Version of its program.
    pub version: String,
    /// The newest facts that it understands.
    pub speaks: u32,
    /// Workers that it runs at a time.
    pub slots: u32,
    /// Those of them that may play games.
    pub playing: u32,
    /// What its machine can do; none of a node that did not say.
    pub can: Option<Capabilities>,
    /// Position of the last fact about it.
    pub position: u64,
    /// Since when, ms.
    pub since_ms: i64,
    /// It takes no new work.
    pub draining: bool,
    /// It was put out.
    pub removed: bool,
}

/// An invitation to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InvitationRow {
    /// What the machine is wanted for: a profile.
    pub role: String,
    /// Until when it holds, ms since the Unix epoch.
    pub expires_ms: i64,
    /// The node that used it, and its public key.
    pub used_by: Option<(NodeId, String)>,
    /// Position of the last fact about it.
    pub position: u64,
}

impl FromRow for NodeRow {
    const COLUMNS: &'static str = "node, peer, addresses, role, version, slots, playing, position, since_ms, draining, removed, speaks, can";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            node: NodeId(row.get(0)?),
            peer: row.get(1)?,
            addresses: json(row, 2)?,
            role: row.get(3)?,
            version: row.get(4)?,
            slots: row.get(5)?,
            playing: row.get(6)?,
            position: count(row, 7)?,
            since_ms: row.get(8)?,
            draining: row.get(9)?,
            removed: row.get(10)?,
            speaks: row.get(11)?,
            can: json(row, 12)?,
        })
    }
}

impl FromRow for InvitationRow {
    const COLUMNS: &'static str = "role, expires_ms, node, key, position";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (node, key): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
        let (used_by, position) = (node.map(NodeId).zip(key), count(row, 4)?);
        Ok(Self { role: row.get(0)?, expires_ms: row.get(1)?, used_by, position })
    }
}
