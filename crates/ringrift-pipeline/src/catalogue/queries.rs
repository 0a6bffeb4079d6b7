//! The questions that can be asked.

use courier::rusqlite::{Connection, OptionalExtension, Params, params};
use ringrift_rules::Config;

use super::rows::{
    AdviceRow, AllocationRow, BatchRow, BlobRow, Champion, DistributionRow, FromRow, GameTotals,
    MatchRow, ModelRow, ParametersRow, PromotionRow, SamplesRow, TrainingRow, WindowRow,
    WorkCounts, WorkRow,
};
use super::{BatchState, Catalogue, CatalogueError, InvitationRow, NodeRow};
use crate::{BlobHash, ModelId, NodeId, Parameters, WorkId, WorkKind};

fn rows<T: FromRow>(
    db: &Connection,
    table: &str,
    tail: &str,
    with: impl Params,
) -> courier::rusqlite::Result<Vec<T>> {
    let sql = format!("SELECT {} FROM {table} {tail}", T::COLUMNS);
    db.prepare_cached(&sql)?.query_map(with, T::from_row)?.collect()
}

fn row<T: FromRow>(
    db: &Connection,
    table: &str,
    tail: &str,
    with: impl Params,
) -> courier::rusqlite::Result<Option<T>> {
    let sql = format!("SELECT {} FROM {table} {tail}", T::COLUMNS);
    db.prepare_cached(&sql)?.query_row(with, T::from_row).optional()
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A list of every row, or of one config's.
fn of_config(config: Option<Config>) -> (&'static str, String) {
    match config {
        Some(config) => ("WHERE config = ?1", config.to_string()),
        None => ("WHERE ?1 = ''", String::new()),
    }
}

impl Catalogue {
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> courier::rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, CatalogueError> {
        self.settled().await?;
        Ok(self.reader.read(question).await?)
    }

    /// Items that are queued or claimed: those that were raised first, of each the oldest first.
    pub async fn open_works(&self) -> Result<Vec<WorkRow>, CatalogueError> {
        self.ask(|db| {
            let order = "WHERE state IN ('queued', 'claimed')
                 ORDER BY id IN (SELECT work FROM raised) DESC, queued_ms, id";
            rows(db, "works", order, [])
        })
        .await
    }

    /// The newest items of any state.
    pub async fn works(
        &self,
        config: Option<Config>,
        limit: u32,
    ) -> Result<Vec<WorkRow>, CatalogueError> {
        self.ask(move |db| {
            let (filter, key) = of_config(config);
            rows(
                db,
                "works",
                &format!("{filter} ORDER BY changed_ms DESC, id DESC LIMIT ?2"),
                params![key, limit],
            )
        })
        .await
    }

    /// One item.
    pub async fn work(&self, id: &WorkId) -> Result<Option<WorkRow>, CatalogueError> {
        let id = id.0.clone();
        self.ask(move |db| row(db, "works", "WHERE id = ?1", params![id])).await
    }

    /// How many items of a kind are in which state; of one config or of all.
    pub async fn work_counts(
        &self,
        kind: WorkKind,
        config: Option<Config>,
    ) -> Result<WorkCounts, CatalogueError> {
        self.ask(move |db| {
            let (filter, key) = of_config(config);
            let sql =
                format!("SELECT state, COUNT(*) FROM works {filter} AND kind = ?2 GROUP BY state");
            let mut counts = WorkCounts::default();
            let mut statement = db.prepare_cached(&sql)?;
            let mut found = statement.query(params![key, kind.as_str()])?;
            while let Some(row) = found.next()? {
                let number = unsigned(row.get(1)?);
                match row.get_ref(0)?.as_str()? {
                    "queued" => counts.queued = number,
                    "claimed" => counts.claimed = number,
                    "done" => counts.done = number,
                    "dead" => counts.dead = number,
                    _ => counts.cancelled = number,
                }
            }
            Ok(counts)
        })
        .await
    }

    /// The id that the next item of this kind gets.
    pub async fn next_work(
        &self,
        kind: WorkKind,
        config: Config,
    ) -> Result<WorkId, CatalogueError> {
        let number: i64 = self
            .ask(move |db| {
                db.prepare_cached("SELECT COUNT(*) FROM works WHERE kind = ?1 AND config = ?2")?
                    .query_row(params![kind.as_str(), config.to_string()], |row| row.get(0))
            })
            .await?;
        Ok(WorkId::new(kind, config, unsigned(number) + 1))
    }

    /// How many of the newest finished items of a kind failed for good, and when the last did (ms).
    pub async fn deaths_in_a_row(
        &self,
        kind: WorkKind,
        config: Config,
    ) -> Result<(u32, i64), CatalogueError> {
        self.ask(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT state, changed_ms FROM works WHERE kind = ?1 AND config = ?2
                 AND state IN ('done', 'dead') ORDER BY changed_ms DESC, id DESC LIMIT 32",
            )?;
            let mut found = statement.query(params![kind.as_str(), config.to_string()])?;
            let (mut deaths, mut last_ms) = (0, 0);
            while let Some(row) = found.next()? {
                if row.get_ref(0)?.as_str()? != "dead" {
                    break;
                }
                deaths += 1;
                last_ms = last_ms.max(row.get(1)?);
            }
            Ok((deaths, last_ms))
        })
        .await
    }

    /// The configs of the newest items of a kind, of any state, newest first.
    pub async fn recent_configs(
        &self,
        kind: WorkKind,
        limit: u32,
    ) -> Result<Vec<Config>, CatalogueError> {
        let found: Vec<String> = self
            .ask(move |db| {
                db.prepare_cached(
                    "SELECT config FROM works WHERE kind = ?1 AND state != 'cancelled'
                     ORDER BY queued_ms DESC, position DESC LIMIT ?2",
                )?
                .query_map(params![kind.as_str(), limit], |row| row.get(0))?
                .collect()
            })
            .await?;
        Ok(found.iter().filter_map(|config| config.parse().ok()).collect())
    }

    /// One batch.
    pub async fn batch(&self, hash: &BlobHash) -> Result<Option<BatchRow>, CatalogueError> {
        let hash = hash.0.clone();
        self.ask(move |db| row(db, "batches", "WHERE hash = ?1", params![hash])).await
    }

    /// Batches in a state, oldest first.
    pub async fn batches(
        &self,
        config: Config,
        state: BatchState,
        limit: u32,
    ) -> Result<Vec<BatchRow>, CatalogueError> {
        let state = match state {
            BatchState::Committed => "committed",
            BatchState::Accepted => "accepted",
            BatchState::Rejected => "rejected",
        };
        self.ask(move |db| {
            rows(
                db,
                "batches",
                "WHERE config = ?1 AND state = ?2 ORDER BY position LIMIT ?3",
                params![config.to_string(), state, limit],
            )
        })
        .await
    }

    /// Accepted batches of which no samples were made, oldest first.
    pub async fn unexported(
        &self,
        config: Config,
        limit: u32,
    ) -> Result<Vec<BatchRow>, CatalogueError> {
        self.ask(move |db| {
            rows(
                db,
                "batches",
                "WHERE config = ?1 AND state = 'accepted' AND exported = 0 ORDER BY position LIMIT ?2",
                params![config.to_string(), limit],
            )
        })
        .await
    }

    /// The newest batches, of one config or of all.
    pub async fn recent_batches(
        &self,
        config: Option<Config>,
        limit: u32,
    ) -> Result<Vec<BatchRow>, CatalogueError> {
        self.ask(move |db| {
            let (filter, key) = of_config(config);
            rows(
                db,
                "batches",
                &format!("{filter} ORDER BY position DESC LIMIT ?2"),
                params![key, limit],
            )
        })
        .await
    }

    /// Sums over a config's batches; `since_ms` bounds `recent`.
    pub async fn game_totals(
        &self,
        config: Config,
        since_ms: i64,
    ) -> Result<GameTotals, CatalogueError> {
        self.ask(move |db| {
            db.prepare_cached(
                "SELECT COALESCE(SUM(games), 0), COALESCE(SUM(positions), 0),
                 COALESCE(SUM(CASE WHEN state = 'committed' THEN games ELSE 0 END), 0),
                 COALESCE(SUM(CASE WHEN created_ms >= ?2 THEN games ELSE 0 END), 0)
                 FROM batches WHERE config = ?1 AND state != 'rejected'",
            )?
            .query_row(params![config.to_string(), since_ms], |row| {
                Ok(GameTotals {
                    games: unsigned(row.get(0)?),
                    positions: unsigned(row.get(1)?),
                    unchecked: unsigned(row.get(2)?),
                    recent: unsigned(row.get(3)?),
                })
            })
        })
        .await
    }

    /// Which of these game ids count already, and in which batch.
    pub async fn known_games(
        &self,
        ids: Vec<String>,
    ) -> Result<Vec<(String, BlobHash)>, CatalogueError> {
        self.ask(move |db| {
            let mut find = db.prepare_cached("SELECT batch FROM games WHERE id = ?1")?;
            let mut known = Vec::new();
            for id in ids {
                if let Some(batch) = find.query_row([&id], |row| row.get(0)).optional()? {
                    known.push((id, BlobHash(batch)));
                }
            }
            Ok(known)
        })
        .await
    }

    /// Sample files that nobody trashed, newest first.
    pub async fn samples(
        &self,
        config: Config,
        limit: u32,
    ) -> Result<Vec<SamplesRow>, CatalogueError> {
        self.ask(move |db| {
            rows(
                db,
                "samples",
                "WHERE config = ?1 AND hash NOT IN (SELECT hash FROM trashed)
                 ORDER BY position DESC LIMIT ?2",
                params![config.to_string(), limit],
            )
        })
        .await
    }

    /// Rows that no training has read: searched decisions of batches without samples, and rows of
    /// sample files newer than every trained window.
    pub async fn unused_rows(&self, config: Config) -> Result<u64, CatalogueError> {
        self.ask(move |db| {
            db.prepare_cached(
                "SELECT
                 (SELECT COALESCE(SUM(positions), 0) FROM batches
                  WHERE config = ?1 AND state != 'rejected' AND exported = 0)
                 + (SELECT COALESCE(SUM(rows), 0) FROM samples WHERE config = ?1 AND position >
                    (SELECT COALESCE(MAX(newest_samples), 0) FROM windows
                     WHERE config = ?1 AND trained = 1))",
            )?
            .query_row(params![config.to_string()], |row| Ok(unsigned(row.get(0)?)))
        })
        .await
    }

    /// Rows of sample files after a position, and how many files they are.
    pub async fn rows_after(
        &self,
        config: Config,
        position: u64,
    ) -> Result<(u64, u64), CatalogueError> {
        self.ask(move |db| {
            db.prepare_cached(
                "SELECT COALESCE(SUM(rows), 0), COUNT(*) FROM samples
                 WHERE config = ?1 AND position > ?2",
            )?
            .query_row(
                params![config.to_string(), i64::try_from(position).unwrap_or(i64::MAX)],
                |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))),
            )
        })
        .await
    }

    /// Training windows, newest first.
    pub async fn windows(
        &self,
        config: Config,
        limit: u32,
    ) -> Result<Vec<WindowRow>, CatalogueError> {
        self.ask(move |db| {
            rows(
                db,
                "windows",
                "WHERE config = ?1 ORDER BY position DESC LIMIT ?2",
                params![config.to_string(), limit],
            )
        })
        .await
    }

    /// Newest checkpoint of a training.
    pub async fn checkpoint(
        &self,
        work: &WorkId,
    ) -> Result<Option<(BlobHash, u64)>, CatalogueError> {
        let work = work.0.clone();
        self.ask(move |db| {
            db.prepare_cached("SELECT hash, position FROM checkpoints WHERE work = ?1")?
                .query_row([work], |row| Ok((BlobHash(row.get(0)?), unsigned(row.get(1)?))))
                .optional()
        })
        .await
    }

    /// Finished trainings, newest first.
    pub async fn trainings(
        &self,
        config: Config,
        limit: u32,
    ) -> Result<Vec<TrainingRow>, CatalogueError> {
        self.ask(move |db| {
            rows(
                db,
                "trainings",
                "WHERE config = ?1 ORDER BY position DESC LIMIT ?2",
                params![config.to_string(), limit],
            )
        })
        .await
    }

    /// Models, newest generation first; of one config or of all.
    pub async fn models(&self, config: Option<Config>) -> Result<Vec<ModelRow>, CatalogueError> {
        self.ask(move |db| {
            let (filter, key) = of_config(config);
            rows(db, "models", &format!("{filter} ORDER BY config, generation DESC"), params![key])
        })
        .await
    }

    /// One model.
    pub async fn model(&self, id: &ModelId) -> Result<Option<ModelRow>, CatalogueError> {
        let id = id.0.clone();
        self.ask(move |db| row(db, "models", "WHERE id = ?1", params![id])).await
    }

    /// Models without a verdict, oldest first.
    pub async fn candidates(&self, config: Config) -> Result<Vec<ModelRow>, CatalogueError> {
        self.ask(move |db| {
            rows(
                db,
                "models",
                "WHERE config = ?1 AND status = 'candidate' ORDER BY generation",
                params![config.to_string()],
            )
        })
        .await
    }

    /// The champion; none before generation 0 is installed.
    pub async fn champion(&self, config: Config) -> Result<Option<Champion>, CatalogueError> {
        self.ask(move |db| {
            let Some((model, position, since_ms)) = db
                .prepare_cached(
                    "SELECT model, position, since_ms FROM champions WHERE config = ?1",
                )?
                .query_row(params![config.to_string()], |row| {
                    Ok((row.get::<_, String>(0)?, unsigned(row.get(1)?), row.get(2)?))
                })
                .optional()?
            else {
                return Ok(None);
            };
            let model = row::<ModelRow>(db, "models", "WHERE id = ?1", params![model])?;
            Ok(model.map(|model| Champion { model, position, since_ms }))
        })
        .await
    }

    /// Promotions, oldest first; of one config or of all.
    pub async fn promotions(
        &self,
        config: Option<Config>,
    ) -> Result<Vec<PromotionRow>, CatalogueError> {
        self.ask(move |db| {
            let (filter, key) = of_config(config);
            rows(db, "promotions", &format!("{filter} ORDER BY position"), params![key])
        })
        .await
    }

    /// Matches, newest first; of one config or of all.
    pub async fn matches(
        &self,
        config: Option<Config>,
        limit: u32,
    ) -> Result<Vec<MatchRow>, CatalogueError> {
        self.ask(move |db| {
            let (filter, key) = of_config(config);
            rows(
                db,
                "matches",
                &format!("{filter} ORDER BY position DESC LIMIT ?2"),
                params![key, limit],
            )
        })
        .await
    }

    /// What a node's workers play with.
    pub async fn distribution(
        &self,
        config: Config,
        node: &NodeId,
    ) -> Result<Option<DistributionRow>, CatalogueError> {
        let node = node.0.clone();
        self.ask(move |db| {
            row(
                db,
                "distributions",
                "WHERE config = ?1 AND node = ?2",
                params![config.to_string(), node],
            )
        })
        .await
    }

    /// Nodes that were handed a model of a config, by name.
    pub async fn playing_nodes(&self, config: Config) -> Result<Vec<NodeId>, CatalogueError> {
        self.ask(move |db| {
            db.prepare_cached("SELECT node FROM distributions WHERE config = ?1 ORDER BY node")?
                .query_map([config.to_string()], |row| row.get(0).map(NodeId))?
                .collect()
        })
        .await
    }

    /// Parameters in force; none while nobody set any.
    pub async fn parameters(
        &self,
        config: Config,
    ) -> Result<Option<ParametersRow>, CatalogueError> {
        self.ask(move |db| row(db, "parameters", "WHERE config = ?1", params![config.to_string()]))
            .await
    }

    /// Parameters in force, or the defaults.
    pub async fn parameters_or_default(
        &self,
        config: Config,
    ) -> Result<Parameters, CatalogueError> {
        Ok(self.parameters(config).await?.map_or_else(Parameters::default, |row| row.parameters))
    }

    /// Advice, newest first.
    pub async fn advice(
        &self,
        config: Config,
        limit: u32,
    ) -> Result<Vec<AdviceRow>, CatalogueError> {
        self.ask(move |db| {
            rows(
                db,
                "advices",
                "WHERE config = ?1 ORDER BY position DESC LIMIT ?2",
                params![config.to_string(), limit],
            )
        })
        .await
    }

    /// Curriculum weights (config, weight) and the position of the fact that set them; empty = 1 each.
    pub async fn curriculum(&self) -> Result<Vec<(Config, f64, u64)>, CatalogueError> {
        let found: Vec<(String, f64, u64)> = self
            .ask(|db| {
                db.prepare_cached(
                    "SELECT config, weight, position FROM curriculum ORDER BY config",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, unsigned(row.get(2)?))))?
                .collect()
            })
            .await?;
        Ok(found
            .into_iter()
            .filter_map(|(config, weight, position)| Some((config.parse().ok()?, weight, position)))
            .collect())
    }

    /// Shares of self-play; empty before the first decision.
    pub async fn allocation(&self) -> Result<Vec<AllocationRow>, CatalogueError> {
        self.ask(|db| rows(db, "allocation", "ORDER BY config", [])).await
    }

    /// Artefacts that the log names and nobody trashed, oldest first.
    pub async fn blobs(&self, role: Option<&'static str>) -> Result<Vec<BlobRow>, CatalogueError> {
        self.ask(move |db| {
            rows(
                db,
                "blobs",
                "WHERE hash NOT IN (SELECT hash FROM trashed) AND (?1 = '' OR role = ?1) ORDER BY position",
                params![role.unwrap_or("")],
            )
        })
        .await
    }

    /// An artefact that the log names, trashed or not.
    pub async fn blob(&self, hash: &BlobHash) -> Result<Option<BlobRow>, CatalogueError> {
        let hash = hash.0.clone();
        self.ask(move |db| row(db, "blobs", "WHERE hash = ?1", [hash])).await
    }

    /// The nodes of the cluster that ever ran, by name.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, CatalogueError> {
        self.ask(|db| rows(db, "nodes", "ORDER BY node", [])).await
    }

    /// An invitation to the cluster.
    pub async fn invitation(
        &self,
        invitation: &str,
    ) -> Result<Option<InvitationRow>, CatalogueError> {
        let invitation = invitation.to_owned();
        self.ask(move |db| row(db, "invitations", "WHERE invitation = ?1", [invitation])).await
    }

    /// Who was let in and not put out: names, and public keys as the servers write them.
    pub async fn admitted(&self) -> Result<Vec<(NodeId, String)>, CatalogueError> {
        self.ask(|db| {
            let sql = "SELECT node, key FROM invitations WHERE node IS NOT NULL AND NOT put_out \
                       ORDER BY position";
            let pair = |row: &courier::rusqlite::Row<'_>| Ok((NodeId(row.get(0)?), row.get(1)?));
            db.prepare_cached(sql)?.query_map([], pair)?.collect()
        })
        .await
    }

    /// Public keys of all nodes that were ever put out.
    pub async fn keys_put_out(&self) -> Result<Vec<String>, CatalogueError> {
        self.ask(|db| {
            let sql = "SELECT key FROM invitations WHERE put_out AND key IS NOT NULL ORDER BY key";
            db.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
        })
        .await
    }

    /// Is this artefact in the trash by decision?
    pub async fn is_trashed(&self, hash: &BlobHash) -> Result<bool, CatalogueError> {
        let hash = hash.0.clone();
        self.ask(move |db| {
            db.prepare_cached("SELECT 1 FROM trashed WHERE hash = ?1")?.exists([hash])
        })
        .await
    }
}
