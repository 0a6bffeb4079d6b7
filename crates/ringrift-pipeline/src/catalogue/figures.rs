//! Sums for people and for metrics; no daemon decides by them.

use courier::rusqlite::{Connection, params};
use ringrift_rules::Config;
use serde::Serialize;

use super::{Catalogue, CatalogueError};

/// Everything that one config ever made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Games that queued self-play asked for, cancelled work not counted.
    pub games_allocated: u64,
    /// The same, of the work queued since the time asked for.
    pub games_allocated_recently: u64,
    /// Games of batches that replayed.
    pub games_accepted: u64,
    /// Games of batches not replayed yet.
    pub games_unchecked: u64,
    /// Games of refused batches.
    pub games_rejected: u64,
    /// Searched decisions of accepted games.
    pub positions: u64,
    /// Sample files.
    pub sample_files: u64,
    /// Rows in them.
    pub sample_rows: u64,
    /// Training windows.
    pub windows: u64,
    /// Finished trainings.
    pub trainings: u64,
    /// Models, generation 0 included.
    pub models: u64,
    /// Models without a verdict.
    pub candidates: u64,
    /// Models judged and not taken.
    pub models_rejected: u64,
    /// Matches.
    pub matches: u64,
    /// Promotions.
    pub promotions: u64,
}

/// What one config made in one minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Minute {
    /// Start of the minute, ms.
    pub at_ms: i64,
    /// Games committed, refused ones not counted.
    pub games: u64,
    /// Rows of samples exported.
    pub rows: u64,
}

const TOTALS: &str = "SELECT
  (SELECT COALESCE(SUM(json_extract(job, '$.games')), 0) FROM works
    WHERE config = ?1 AND kind = 'selfplay' AND state != 'cancelled'),
  (SELECT COALESCE(SUM(json_extract(job, '$.games')), 0) FROM works
    WHERE config = ?1 AND kind = 'selfplay' AND state != 'cancelled' AND queued_ms >= ?2),
  (SELECT COALESCE(SUM(games), 0) FROM batches WHERE config = ?1 AND state = 'accepted'),
  (SELECT COALESCE(SUM(games), 0) FROM batches WHERE config = ?1 AND state = 'committed'),
  (SELECT COALESCE(SUM(games), 0) FROM batches WHERE config = ?1 AND state = 'rejected'),
  (SELECT COALESCE(SUM(positions), 0) FROM batches WHERE config = ?1 AND state = 'accepted'),
  (SELECT COUNT(*) FROM samples WHERE config = ?1),
  (SELECT COALESCE(SUM(rows), 0) FROM samples WHERE config = ?1),
  (SELECT COUNT(*) FROM windows WHERE config = ?1),
  (SELECT COUNT(*) FROM trainings WHERE config = ?1),
  (SELECT COUNT(*) FROM models WHERE config = ?1),
  (SELECT COUNT(*) FROM models WHERE config = ?1 AND status = 'candidate'),
  (SELECT COUNT(*) FROM models WHERE config = ?1 AND status = 'rejected'),
  (SELECT COUNT(*) FROM matches WHERE config = ?1),
  (SELECT COUNT(*) FROM promotions WHERE config = ?1)";

const MINUTES: &str = "SELECT minute, SUM(games), SUM(rows) FROM (
  SELECT created_ms / 60000 AS minute, games, 0 AS rows FROM batches
    WHERE config = ?1 AND created_ms >= ?2 AND state != 'rejected'
  UNION ALL
  SELECT created_ms / 60000, 0, rows FROM samples WHERE config = ?1 AND created_ms >= ?2
) GROUP BY minute ORDER BY minute";

impl Catalogue {
    /// Sums over a config's whole history; `since_ms` bounds what is recent.
    pub async fn totals(&self, config: Config, since_ms: i64) -> Result<Totals, CatalogueError> {
        let config = config.to_string();
        self.ask(move |db: &Connection| {
            db.prepare_cached(TOTALS)?.query_row(params![config, since_ms], |row| {
                let count = |column| row.get::<_, u64>(column);
                Ok(Totals {
                    games_allocated: count(0)?,
                    games_allocated_recently: count(1)?,
                    games_accepted: count(2)?,
                    games_unchecked: count(3)?,
                    games_rejected: count(4)?,
                    positions: count(5)?,
                    sample_files: count(6)?,
                    sample_rows: count(7)?,
                    windows: count(8)?,
                    trainings: count(9)?,
                    models: count(10)?,
                    candidates: count(11)?,
                    models_rejected: count(12)?,
                    matches: count(13)?,
                    promotions: count(14)?,
                })
            })
        })
        .await
    }

    /// What a config made minute by minute since a time, oldest first; minutes without anything are
    /// left out.
    pub async fn minutes(
        &self,
        config: Config,
        since_ms: i64,
    ) -> Result<Vec<Minute>, CatalogueError> {
        let config = config.to_string();
        self.ask(move |db: &Connection| {
            db.prepare_cached(MINUTES)?
                .query_map(params![config, since_ms], |row| {
                    Ok(Minute {
                        at_ms: row.get::<_, i64>(0)? * 60_000,
                        games: row.get(1)?,
                        rows: row.get(2)?,
                    })
                })?
                .collect()
        })
        .await
    }
}
