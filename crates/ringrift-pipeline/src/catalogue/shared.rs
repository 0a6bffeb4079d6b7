//! What several nodes have of the work, and what waits for any of them.

use std::collections::{BTreeMap, BTreeSet};

use courier::rusqlite::{Connection, OptionalExtension, params};
use ringrift_rules::Config;

use super::{Catalogue, CatalogueError};
use crate::{BlobHash, NodeId, WorkId};

impl Catalogue {
    /// How many items each node has in hand.
    pub async fn claimed_by_node(&self) -> Result<BTreeMap<NodeId, u64>, CatalogueError> {
        self.ask(|db: &Connection| {
            db.prepare_cached(
                "SELECT node, COUNT(*) FROM works WHERE state = 'claimed' AND node IS NOT NULL
                 GROUP BY node",
            )?
            .query_map([], |row| Ok((NodeId(row.get(0)?), row.get(1)?)))?
            .collect()
        })
        .await
    }

    /// How many games each node committed, ever.
    pub async fn games_by_node(&self) -> Result<BTreeMap<NodeId, u64>, CatalogueError> {
        self.ask(|db: &Connection| {
            db.prepare_cached("SELECT node, games FROM played")?
                .query_map([], |row| Ok((NodeId(row.get(0)?), row.get(1)?)))?
                .collect()
        })
        .await
    }

    /// How many batches of a config wait to be replayed, by the node that played them, if that is known.
    pub async fn unchecked_by_node(
        &self,
        config: Config,
    ) -> Result<BTreeMap<Option<NodeId>, u64>, CatalogueError> {
        self.ask(move |db: &Connection| {
            db.prepare_cached(
                "SELECT works.node, COUNT(*) FROM batches LEFT JOIN works ON works.id = batches.work
                 WHERE batches.config = ?1 AND batches.state = 'committed' GROUP BY works.node",
            )?
            .query_map([config.to_string()], |row| {
                Ok((row.get::<_, Option<String>>(0)?.map(NodeId), row.get(1)?))
            })?
            .collect()
        })
        .await
    }

    /// Batches of a config that wait to be replayed, the oldest first, at most so many of each node that played
    /// them: each with its position, and the node if that is known.
    pub async fn unchecked(
        &self,
        config: Config,
        of_each: u32,
    ) -> Result<Vec<(BlobHash, u64, Option<NodeId>)>, CatalogueError> {
        self.ask(move |db: &Connection| {
            db.prepare_cached(
                "SELECT hash, position, node FROM (
                     SELECT batches.hash, batches.position, works.node, ROW_NUMBER() OVER (
                         PARTITION BY works.node ORDER BY batches.position) AS place
                     FROM batches LEFT JOIN works ON works.id = batches.work
                     WHERE batches.config = ?1 AND batches.state = 'committed')
                 WHERE place <= ?2 ORDER BY position",
            )?
            .query_map(params![config.to_string(), of_each], |row| {
                let node = row.get::<_, Option<String>>(2)?.map(NodeId);
                Ok((BlobHash(row.get(0)?), row.get(1)?, node))
            })?
            .collect()
        })
        .await
    }

    /// Open items that were raised.
    pub async fn raised_works(&self) -> Result<BTreeSet<WorkId>, CatalogueError> {
        self.ask(|db: &Connection| {
            db.prepare_cached(
                "SELECT works.id FROM raised JOIN works ON works.id = raised.work
                 WHERE works.state IN ('queued', 'claimed')",
            )?
            .query_map([], |row| row.get(0).map(WorkId))?
            .collect()
        })
        .await
    }

    /// When the sample file at a position was made, and when the newest of its config that nobody trashed, ms;
    /// none if there is no file at that position.
    pub async fn sample_times(
        &self,
        config: Config,
        position: u64,
    ) -> Result<Option<(i64, i64)>, CatalogueError> {
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        self.ask(move |db: &Connection| {
            db.prepare_cached(
                "SELECT created_ms, (SELECT created_ms FROM samples WHERE config = ?1
                     AND hash NOT IN (SELECT hash FROM trashed) ORDER BY position DESC LIMIT 1)
                 FROM samples WHERE config = ?1 AND position = ?2",
            )?
            .query_row(params![config.to_string(), position], |row| {
                let of: i64 = row.get(0)?;
                Ok((of, row.get::<_, Option<i64>>(1)?.unwrap_or(of)))
            })
            .optional()
        })
        .await
    }
}
