//! What is where: which nodes of a cluster have which artefacts, by their own word. On one machine
//! nobody says so, and all of this is empty.

use std::collections::{BTreeMap, BTreeSet};

use courier::rusqlite::{Connection, OptionalExtension as _, params};
use ringrift_rules::Config;
use serde::Serialize;

use super::{
    BlobRow, Catalogue, CatalogueError,
    rows::{FromRow, text},
};
use crate::{BlobHash, NodeId};

const HOLDINGS: &str = "SELECT node, COUNT(*), SUM(bytes), SUM(offered), SUM(copies = 1) FROM (
   SELECT holdings.node AS node, offered, blobs.bytes AS bytes,
     COUNT(*) OVER (PARTITION BY hash) AS copies
   FROM blobs JOIN holdings USING (hash) JOIN nodes USING (node)
   WHERE NOT nodes.removed AND hash NOT IN (SELECT hash FROM trashed)
 ) GROUP BY node ORDER BY node";

/// A node's receipt for an artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldingRow {
    /// Who has it.
    pub node: NodeId,
    /// It would give it up: others are to take it.
    pub offered: bool,
    /// Position of the last fact about it.
    pub position: u64,
    /// Since when it has it, by the log's clock, ms.
    pub since_ms: i64,
}

/// Artefacts and their copies, in sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyCounts {
    /// How many artefacts there are.
    pub artefacts: u64,
    /// Those of them of which too few copies are kept.
    pub few: u64,
}

/// Names, as a statement takes them.
fn listed(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(|node| node.0.clone()).collect::<serde_json::Value>().to_string()
}

/// An artefact and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopiesRow {
    /// The artefact.
    pub blob: BlobRow,
    /// Members that have it, by name.
    pub holders: Vec<HoldingRow>,
}

impl CopiesRow {
    /// Copies that stay: those of nodes that count and do not offer theirs.
    pub fn kept(&self, counts: impl Fn(&NodeId) -> bool) -> usize {
        self.holders.iter().filter(|holder| !holder.offered && counts(&holder.node)).count()
    }

    /// Does this node have it?
    pub fn is_held_by(&self, node: &NodeId) -> bool {
        self.holders.iter().any(|holder| holder.node == *node)
    }
}

/// What a node has in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeHoldings {
    /// The node.
    pub node: NodeId,
    /// Artefacts that it has.
    pub artefacts: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that it would give up.
    pub offered: u64,
    /// Those of them that no other member has.
    pub alone: u64,
}

fn holders(db: &Connection, hash: &str) -> courier::rusqlite::Result<Vec<HoldingRow>> {
    // Receipts that count: those of members.
    let sql = "SELECT holdings.node, offered, holdings.position, holdings.since_ms
               FROM holdings JOIN nodes USING (node)
               WHERE NOT nodes.removed AND hash = ?1 ORDER BY holdings.node";
    db.prepare_cached(sql)?
        .query_map([hash], |row| {
            Ok(HoldingRow {
                node: NodeId(row.get(0)?),
                offered: row.get(1)?,
                position: row.get(2)?,
                since_ms: row.get(3)?,
            })
        })?
        .collect()
}

impl Catalogue {
    /// Members that have an artefact, by name.
    pub async fn holders(&self, hash: &BlobHash) -> Result<Vec<HoldingRow>, CatalogueError> {
        let hash = hash.0.clone();
        self.ask(move |db| holders(db, &hash)).await
    }

    /// Artefacts that the log names with a hash that begins so, oldest first, each with why it was trashed, if it was;
    /// no more than `limit`.
    pub async fn beginning_with(
        &self,
        digits: &str,
        limit: u32,
    ) -> Result<Vec<(CopiesRow, Option<String>)>, CatalogueError> {
        let pattern = format!("{digits}*");
        self.ask(move |db| {
            let sql = format!(
                "SELECT {} FROM blobs WHERE hash GLOB ?1 ORDER BY position LIMIT ?2",
                BlobRow::COLUMNS
            );
            let found: Vec<BlobRow> = db
                .prepare_cached(&sql)?
                .query_map(params![pattern, limit], BlobRow::from_row)?
                .collect::<Result<_, _>>()?;
            let with = |blob: BlobRow| {
                let holders = holders(db, blob.hash.as_str())?;
                let trashed = db
                    .prepare_cached("SELECT reason FROM trashed WHERE hash = ?1")?
                    .query_row([blob.hash.as_str()], |row| row.get(0))
                    .optional()?;
                Ok((CopiesRow { blob, holders }, trashed))
            };
            found.into_iter().map(with).collect()
        })
        .await
    }

    /// What a node says it has, and whether it offers that, by hash.
    pub async fn held_by(&self, node: &NodeId) -> Result<Vec<(BlobHash, bool)>, CatalogueError> {
        let node = node.0.clone();
        self.ask(move |db| {
            db.prepare_cached("SELECT hash, offered FROM holdings WHERE node = ?1 ORDER BY hash")?
                .query_map([node], |row| Ok((BlobHash(row.get(0)?), row.get(1)?)))?
                .collect()
        })
        .await
    }

    /// Artefacts that nobody trashed and fewer than `copies` members have for good, oldest first.
    pub async fn with_fewer_copies(
        &self,
        copies: u32,
        limit: u32,
    ) -> Result<Vec<CopiesRow>, CatalogueError> {
        let members = self.nodes().await?.into_iter().filter(|row| !row.removed);
        let members = members.map(|row| row.node).collect();
        self.with_fewer_copies_among(&members, copies, limit).await
    }

    /// The same, counting only the copies of these nodes.
    pub async fn with_fewer_copies_among(
        &self,
        nodes: &BTreeSet<NodeId>,
        copies: u32,
        limit: u32,
    ) -> Result<Vec<CopiesRow>, CatalogueError> {
        let listed = listed(nodes);
        self.ask(move |db| {
            let sql = format!(
                "SELECT {} FROM blobs WHERE hash NOT IN (SELECT hash FROM trashed) AND
                 (SELECT COUNT(*) FROM holdings WHERE holdings.hash = blobs.hash AND NOT offered
                  AND node IN (SELECT value FROM json_each(?3))) < ?1
                 ORDER BY position LIMIT ?2",
                BlobRow::COLUMNS
            );
            let few: Vec<BlobRow> = db
                .prepare_cached(&sql)?
                .query_map(params![copies, limit, listed], BlobRow::from_row)?
                .collect::<Result<_, _>>()?;
            let with = |blob: BlobRow| {
                let holders = holders(db, blob.hash.as_str())?;
                Ok(CopiesRow { blob, holders })
            };
            few.into_iter().map(with).collect()
        })
        .await
    }

    /// How many artefacts of each config there are that nobody trashed, and how many of them fewer than `copies` of
    /// these nodes have for good.
    pub async fn count_copies(
        &self,
        nodes: &BTreeSet<NodeId>,
        copies: u32,
    ) -> Result<BTreeMap<Config, CopyCounts>, CatalogueError> {
        let listed = listed(nodes);
        self.ask(move |db: &Connection| {
            db.prepare_cached(
                "SELECT config, COUNT(*), SUM(
                     (SELECT COUNT(*) FROM holdings WHERE holdings.hash = blobs.hash AND NOT offered
                      AND node IN (SELECT value FROM json_each(?2))) < ?1)
                 FROM blobs WHERE hash NOT IN (SELECT hash FROM trashed) GROUP BY config",
            )?
            .query_map(params![copies, listed], |row| {
                Ok((text(row, 0)?, CopyCounts { artefacts: row.get(1)?, few: row.get(2)? }))
            })?
            .collect()
        })
        .await
    }

    /// How much each node has of what nobody trashed, by name; whoever has nothing is left out.
    pub async fn holdings(&self) -> Result<Vec<NodeHoldings>, CatalogueError> {
        self.ask(|db| {
            db.prepare_cached(HOLDINGS)?
                .query_map([], |row| {
                    Ok(NodeHoldings {
                        node: NodeId(row.get(0)?),
                        artefacts: row.get(1)?,
                        bytes: row.get(2)?,
                        offered: row.get(3)?,
                        alone: row.get(4)?,
                    })
                })?
                .collect()
        })
        .await
    }
}
