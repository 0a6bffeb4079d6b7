//! The fold: from events to tables. Pure: rows depend on the log alone, never on time or order of
//! arrival, so a deleted catalogue comes back equal.

mod machines;

use courier::{Fact, Projection, rusqlite};
use rusqlite::{Transaction, params};
use serde::Serialize;

use crate::{Event, WorkKind, event, job::Job};

/// Projects the pipeline stream into the catalogue's tables.
#[derive(Debug, Default, Clone, Copy)]
pub struct PipelineFold;

const SCHEMA: &str = "
CREATE TABLE works (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, config TEXT NOT NULL, state TEXT NOT NULL,
  job TEXT NOT NULL, reason TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
  node TEXT, epoch INTEGER NOT NULL DEFAULT 0, error TEXT, seconds REAL,
  position INTEGER NOT NULL, queued_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX works_open ON works (state, kind, config);
CREATE INDEX works_of_kind ON works (kind, config);
CREATE INDEX works_by_age ON works (kind, queued_ms);
CREATE TABLE raised (
  work TEXT PRIMARY KEY, position INTEGER NOT NULL
) STRICT;
CREATE TABLE batches (
  hash TEXT PRIMARY KEY, config TEXT NOT NULL, state TEXT NOT NULL, work TEXT NOT NULL,
  model TEXT NOT NULL, games INTEGER NOT NULL, positions INTEGER NOT NULL, bytes INTEGER NOT NULL,
  seat_wins TEXT NOT NULL, seconds REAL NOT NULL, reason TEXT, exported INTEGER NOT NULL DEFAULT 0,
  position INTEGER NOT NULL, created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX batches_state ON batches (config, state, exported);
CREATE INDEX batches_unused ON batches (config, exported);
CREATE INDEX batches_by_age ON batches (config, position);
CREATE TABLE games (
  id TEXT PRIMARY KEY, config TEXT NOT NULL, batch TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX games_batch ON games (batch);
CREATE TABLE samples (
  hash TEXT PRIMARY KEY, config TEXT NOT NULL, rows INTEGER NOT NULL, games INTEGER NOT NULL,
  bytes INTEGER NOT NULL, encoder TEXT NOT NULL, batches TEXT NOT NULL,
  position INTEGER NOT NULL, created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX samples_by_age ON samples (config, position);
CREATE TABLE windows (
  hash TEXT PRIMARY KEY, config TEXT NOT NULL, rows INTEGER NOT NULL, games INTEGER NOT NULL,
  bytes INTEGER NOT NULL, samples TEXT NOT NULL, newest_samples INTEGER NOT NULL,
  trained INTEGER NOT NULL DEFAULT 0, position INTEGER NOT NULL, created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX windows_by_age ON windows (config, position);
CREATE TABLE checkpoints (
  work TEXT PRIMARY KEY, hash TEXT NOT NULL, bytes INTEGER NOT NULL, position INTEGER NOT NULL
) STRICT;
CREATE TABLE trainings (
  work TEXT PRIMARY KEY, config TEXT NOT NULL, model TEXT NOT NULL, window TEXT NOT NULL,
  report TEXT NOT NULL, position INTEGER NOT NULL, created_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE models (
  id TEXT PRIMARY KEY, config TEXT NOT NULL, generation INTEGER NOT NULL, parent TEXT,
  weights TEXT NOT NULL, bytes INTEGER NOT NULL, status TEXT NOT NULL, verdict TEXT,
  evaluation TEXT, position INTEGER NOT NULL, created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX models_config ON models (config, generation);
CREATE TABLE champions (
  config TEXT PRIMARY KEY, model TEXT NOT NULL, position INTEGER NOT NULL, since_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE promotions (
  position INTEGER PRIMARY KEY, config TEXT NOT NULL, model TEXT NOT NULL, over TEXT NOT NULL,
  elo REAL NOT NULL, elo_low REAL NOT NULL, elo_high REAL NOT NULL, games INTEGER NOT NULL,
  created_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE matches (
  id TEXT PRIMARY KEY, config TEXT NOT NULL, a TEXT NOT NULL, b TEXT NOT NULL, result TEXT NOT NULL,
  records TEXT, bytes INTEGER NOT NULL, position INTEGER NOT NULL, created_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE distributions (
  config TEXT NOT NULL, node TEXT NOT NULL, model TEXT NOT NULL, weights TEXT NOT NULL,
  position INTEGER NOT NULL, since_ms INTEGER NOT NULL, PRIMARY KEY (config, node)
) STRICT;
CREATE TABLE parameters (
  config TEXT PRIMARY KEY, parameters TEXT NOT NULL, reason TEXT NOT NULL,
  position INTEGER NOT NULL, since_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE advices (
  position INTEGER PRIMARY KEY, config TEXT NOT NULL, model TEXT NOT NULL, advice TEXT NOT NULL,
  reason TEXT NOT NULL, created_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE curriculum (
  config TEXT PRIMARY KEY, weight REAL NOT NULL, reason TEXT NOT NULL, position INTEGER NOT NULL
) STRICT;
CREATE TABLE allocation (
  config TEXT PRIMARY KEY, share REAL NOT NULL, reason TEXT NOT NULL, position INTEGER NOT NULL,
  since_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX matches_by_age ON matches (config, position);
CREATE TABLE nodes (
  node TEXT PRIMARY KEY, peer TEXT NOT NULL, addresses TEXT NOT NULL, role TEXT NOT NULL,
  version TEXT NOT NULL, slots INTEGER NOT NULL, playing INTEGER NOT NULL, can TEXT NOT NULL,
  position INTEGER NOT NULL, since_ms INTEGER NOT NULL,
  draining INTEGER NOT NULL DEFAULT 0, removed INTEGER NOT NULL DEFAULT 0, speaks INTEGER NOT NULL
) STRICT;
CREATE TABLE played (
  node TEXT PRIMARY KEY, games INTEGER NOT NULL, position INTEGER NOT NULL
) STRICT;
CREATE TABLE invitations (
  invitation TEXT PRIMARY KEY, role TEXT NOT NULL, expires_ms INTEGER NOT NULL, node TEXT, key TEXT,
  put_out INTEGER NOT NULL DEFAULT 0, position INTEGER NOT NULL
) STRICT;
CREATE INDEX invitations_used ON invitations (node);
CREATE TABLE node_health (
  node TEXT PRIMARY KEY, failed TEXT, reason TEXT NOT NULL, position INTEGER NOT NULL,
  since_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE node_recoveries (
  node TEXT PRIMARY KEY, is_open INTEGER NOT NULL, step TEXT NOT NULL, attempt INTEGER NOT NULL,
  outcome TEXT, sentence TEXT NOT NULL, position INTEGER NOT NULL, began_ms INTEGER NOT NULL,
  changed_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE node_availability (
  node TEXT PRIMARY KEY, provider TEXT NOT NULL, instance TEXT NOT NULL, state TEXT NOT NULL,
  position INTEGER NOT NULL, since_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE trashed (
  hash TEXT PRIMARY KEY, reason TEXT NOT NULL, position INTEGER NOT NULL
) STRICT;
CREATE TABLE holdings (
  hash TEXT NOT NULL, node TEXT NOT NULL, offered INTEGER NOT NULL DEFAULT 0,
  position INTEGER NOT NULL, since_ms INTEGER NOT NULL, PRIMARY KEY (hash, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX holdings_of_node ON holdings (node, hash);
CREATE TABLE blobs (
  hash TEXT PRIMARY KEY, role TEXT NOT NULL, config TEXT NOT NULL, bytes INTEGER NOT NULL,
  position INTEGER NOT NULL
) STRICT;
";

impl Projection for PipelineFold {
    const NAME: &'static str = "catalogue";
    const VERSION: u32 = 8;

    fn schema(&self) -> &'static str {
        SCHEMA
    }

    fn apply(
        &mut self,
        tx: &Transaction<'_>,
        fact: &Fact,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let event: Event = match serde_json::from_value(fact.body.clone()) {
            Ok(event) => event,
            // A fact of a newer version must not stop an older node; the router buries it, where
            // people see it. Here it changes nothing.
            Err(_) => return Ok(()),
        };
        apply(tx, position(fact), fact.time_ms, &event)?;
        Ok(())
    }
}

/// SQLite has signed integers only; a log of 2^63 facts is out of reach.
fn position(fact: &Fact) -> i64 {
    i64::try_from(fact.position).unwrap_or(i64::MAX)
}

fn json<T: Serialize>(value: &T) -> Result<String, rusqlite::Error> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn blob(
    tx: &Transaction<'_>,
    hash: &crate::BlobHash,
    role: &str,
    config: ringrift_rules::Config,
    bytes: u64,
    pos: i64,
) -> Result<(), rusqlite::Error> {
    tx.prepare_cached(
        "INSERT INTO blobs (hash, role, config, bytes, position) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (hash) DO NOTHING",
    )?
    .execute(params![hash.0, role, config.to_string(), int(bytes), pos])?;
    // What is made again comes back from the trash.
    tx.prepare_cached("DELETE FROM trashed WHERE hash = ?1")?.execute(params![hash.0])?;
    Ok(())
}

fn apply(tx: &Transaction<'_>, pos: i64, ms: i64, event: &Event) -> Result<(), rusqlite::Error> {
    match event {
        Event::WorkQueued(e) => {
            let kind = match &e.job {
                Job::Selfplay(_) => WorkKind::Selfplay,
                Job::Train(_) => WorkKind::Train,
                Job::Gauntlet(_) => WorkKind::Gauntlet,
                Job::Seed(_) | Job::Check(_) | Job::Export(_) | Job::Combine(_) => return Ok(()),
            };
            tx.prepare_cached(
                "INSERT INTO works (id, kind, config, state, job, reason, position, queued_ms, changed_ms)
                 VALUES (?1, ?2, ?3, 'queued', ?4, ?5, ?6, ?7, ?7) ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![e.work.0, kind.as_str(), e.config.to_string(), json(&e.job)?, e.reason, pos, ms])?;
        }
        Event::WorkClaimed(e) => {
            tx.prepare_cached(
                "UPDATE works SET state = 'claimed', attempt = ?2, node = ?3, epoch = ?4, position = ?5,
                 changed_ms = ?6 WHERE id = ?1",
            )?
            .execute(params![e.work.0, e.attempt, e.node.0, int(e.epoch), pos, ms])?;
        }
        Event::WorkReleased(e) => {
            tx.prepare_cached(
                "UPDATE works SET state = 'queued', attempt = attempt - 1, node = NULL, error = ?2,
                 position = ?3, changed_ms = ?4 WHERE id = ?1",
            )?
            .execute(params![e.work.0, e.reason, pos, ms])?;
        }
        Event::WorkFailed(e) => {
            tx.prepare_cached(
                "UPDATE works SET state = ?2, node = NULL, error = ?3, position = ?4, changed_ms = ?5
                 WHERE id = ?1",
            )?
            .execute(params![e.work.0, if e.last { "dead" } else { "queued" }, e.error, pos, ms])?;
        }
        Event::WorkCompleted(e) => {
            tx.prepare_cached(
                "UPDATE works SET state = 'done', seconds = ?2, error = NULL, position = ?3,
                 changed_ms = ?4 WHERE id = ?1",
            )?
            .execute(params![e.work.0, e.seconds, pos, ms])?;
        }
        Event::WorkCancelled(e) => {
            tx.prepare_cached(
                "UPDATE works SET state = 'cancelled', error = ?2, position = ?3, changed_ms = ?4
                 WHERE id = ?1",
            )?
            .execute(params![e.work.0, e.reason, pos, ms])?;
        }
        Event::WorkRaised(e) => {
            tx.prepare_cached(
                "INSERT INTO raised (work, position) VALUES (?1, ?2) ON CONFLICT (work) DO NOTHING",
            )?
            .execute(params![e.work.0, pos])?;
            tx.prepare_cached("UPDATE works SET position = ?2 WHERE id = ?1")?
                .execute(params![e.work.0, pos])?;
        }
        Event::GamesCommitted(e) => {
            tx.prepare_cached(
                "INSERT INTO batches (hash, config, state, work, model, games, positions, bytes, seat_wins,
                 seconds, position, created_ms)
                 VALUES (?1, ?2, 'committed', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT (hash) DO NOTHING",
            )?
            .execute(params![
                e.batch.0,
                e.config.to_string(),
                e.work.0,
                e.model.0,
                e.games,
                int(e.positions),
                int(e.bytes),
                json(&e.seat_wins)?,
                e.seconds,
                pos,
                ms
            ])?;
            blob(tx, &e.batch, "games", e.config, e.bytes, pos)?;
            tx.prepare_cached(
                "INSERT INTO played (node, games, position)
                 SELECT node, ?2, ?3 FROM works WHERE id = ?1 AND node IS NOT NULL
                 ON CONFLICT (node) DO UPDATE SET games = games + ?2, position = ?3",
            )?
            .execute(params![e.work.0, e.games, pos])?;
        }
        Event::BatchAccepted(e) => {
            tx.prepare_cached(
                "UPDATE batches SET state = 'accepted', games = ?2, position = ?3 WHERE hash = ?1",
            )?
            .execute(params![e.batch.0, e.games, pos])?;
            let mut insert = tx.prepare_cached(
                "INSERT INTO games (id, config, batch) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING",
            )?;
            for id in &e.ids {
                insert.execute(params![id, e.config.to_string(), e.batch.0])?;
            }
        }
        Event::BatchRejected(e) => {
            tx.prepare_cached(
                "UPDATE batches SET state = 'rejected', reason = ?2, position = ?3 WHERE hash = ?1",
            )?
            .execute(params![e.batch.0, e.reason, pos])?;
            // A game of a refused batch counts nowhere, so another batch may bring it.
            tx.prepare_cached("DELETE FROM games WHERE batch = ?1")?.execute(params![e.batch.0])?;
        }
        Event::SamplesExported(e) => samples_exported(tx, pos, ms, e)?,
        Event::WindowCombined(e) => window_combined(tx, pos, ms, e)?,
        Event::CheckpointSaved(e) => {
            tx.prepare_cached(
                "INSERT INTO checkpoints (work, hash, bytes, position) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (work) DO UPDATE SET hash = ?2, bytes = ?3, position = ?4",
            )?
            .execute(params![e.work.0, e.checkpoint.0, int(e.bytes), pos])?;
            blob(tx, &e.checkpoint, "checkpoint", e.config, e.bytes, pos)?;
        }
        Event::TrainingCompleted(e) => {
            tx.prepare_cached(
                "INSERT INTO trainings (work, config, model, window, report, position, created_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (work) DO NOTHING",
            )?
            .execute(params![
                e.work.0,
                e.config.to_string(),
                e.model.0,
                e.window.0,
                json(&e.report)?,
                pos,
                ms
            ])?;
            tx.prepare_cached("UPDATE windows SET trained = 1 WHERE hash = ?1")?
                .execute(params![e.window.0])?;
        }
        Event::ModelCreated(e) => {
            tx.prepare_cached(
                "INSERT INTO models (id, config, generation, parent, weights, bytes, status, position, created_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'candidate', ?7, ?8)
                 ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![
                e.model.0,
                e.config.to_string(),
                e.generation,
                e.parent.as_ref().map(|parent| parent.0.clone()),
                e.weights.0,
                int(e.bytes),
                pos,
                ms
            ])?;
            blob(tx, &e.weights, "weights", e.config, e.bytes, pos)?;
        }
        Event::MatchPlayed(e) => {
            tx.prepare_cached(
                "INSERT INTO matches (id, config, a, b, result, records, bytes, position, created_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![
                e.id,
                e.config.to_string(),
                e.result.a,
                e.result.b,
                json(&e.result)?,
                e.records.as_ref().map(|hash| hash.0.clone()),
                int(e.bytes),
                pos,
                ms
            ])?;
            if let Some(records) = &e.records {
                blob(tx, records, "records", e.config, e.bytes, pos)?;
            }
        }
        Event::EvaluationCompleted(e) => {
            tx.prepare_cached("UPDATE models SET evaluation = ?2 WHERE id = ?1")?
                .execute(params![e.model.0, json(e)?])?;
        }
        Event::ModelRejected(e) => {
            tx.prepare_cached(
                "UPDATE models SET status = 'rejected', verdict = ?2, position = ?3 WHERE id = ?1",
            )?
            .execute(params![e.model.0, e.reason, pos])?;
        }
        Event::ModelAccepted(e) => {
            tx.prepare_cached("UPDATE models SET verdict = ?2, position = ?3 WHERE id = ?1")?
                .execute(params![e.model.0, e.reason, pos])?;
        }
        Event::ChampionInstalled(e) => crown(tx, pos, ms, e.config, &e.model)?,
        Event::ModelPromoted(e) => {
            crown(tx, pos, ms, e.config, &e.model)?;
            tx.prepare_cached(
                "INSERT INTO promotions (position, config, model, over, elo, elo_low, elo_high, games, created_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                pos,
                e.config.to_string(),
                e.model.0,
                e.over.0,
                e.elo,
                e.elo_low,
                e.elo_high,
                e.games,
                ms
            ])?;
        }
        Event::ModelDistributed(e) => {
            tx.prepare_cached(
                "INSERT INTO distributions (config, node, model, weights, position, since_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (config, node)
                 DO UPDATE SET model = ?3, weights = ?4, position = ?5, since_ms = ?6",
            )?
            .execute(params![
                e.config.to_string(),
                e.node.0,
                e.model.0,
                e.weights.0,
                pos,
                ms
            ])?;
        }
        Event::ParametersSet(e) => {
            tx.prepare_cached(
                "INSERT INTO parameters (config, parameters, reason, position, since_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (config)
                 DO UPDATE SET parameters = ?2, reason = ?3, position = ?4, since_ms = ?5",
            )?
            .execute(params![
                e.config.to_string(),
                json(&e.parameters)?,
                e.reason,
                pos,
                ms
            ])?;
        }
        Event::AdviceGiven(e) => {
            tx.prepare_cached(
                "INSERT INTO advices (position, config, model, advice, reason, created_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                pos,
                e.config.to_string(),
                e.model.0,
                json(&e.advice)?,
                e.reason,
                ms
            ])?;
        }
        Event::CurriculumRebalanced(e) => {
            tx.execute("DELETE FROM curriculum", [])?;
            for (config, weight) in &e.weights {
                tx.execute(
                    "INSERT INTO curriculum (config, weight, reason, position) VALUES (?1, ?2, ?3, ?4)",
                    params![config.to_string(), weight, e.reason, pos],
                )?;
            }
        }
        Event::AllocationUpdated(e) => {
            tx.execute("DELETE FROM allocation", [])?;
            for (config, share) in &e.shares {
                tx.execute(
                    "INSERT INTO allocation (config, share, reason, position, since_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![config.to_string(), share, e.reason, pos, ms],
                )?;
            }
        }
        Event::NodeJoined(e) => {
            tx.prepare_cached(
                "INSERT INTO nodes (node, peer, addresses, role, version, slots, playing, position,
                 since_ms, speaks, can) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT (node) DO UPDATE
                 SET peer = ?2, addresses = ?3, role = ?4, version = ?5, slots = ?6, playing = ?7,
                 position = ?8, since_ms = ?9, speaks = ?10, can = ?11, removed = 0",
            )?
            .execute(params![
                e.node.0,
                e.peer,
                json(&e.addresses)?,
                e.role,
                e.version,
                e.slots,
                e.playing,
                pos,
                ms,
                e.speaks,
                json(&e.can)?
            ])?;
        }
        Event::NodeInvited(e) => {
            tx.prepare_cached(
                "INSERT INTO invitations (invitation, role, expires_ms, position)
                 VALUES (?1, ?2, ?3, ?4) ON CONFLICT (invitation) DO NOTHING",
            )?
            .execute(params![e.invitation, e.role, e.expires_ms, pos])?;
        }
        Event::NodeAdmitted(e) => {
            tx.prepare_cached(
                "UPDATE invitations SET node = ?2, key = ?3, position = ?4
                 WHERE invitation = ?1 AND node IS NULL",
            )?
            .execute(params![e.invitation, e.node.0, e.key, pos])?;
        }
        Event::NodeDrained(e) => {
            tx.prepare_cached("UPDATE nodes SET draining = ?2, position = ?3 WHERE node = ?1")?
                .execute(params![e.node.0, e.draining, pos])?;
        }
        Event::NodeRemoved(e) => {
            tx.prepare_cached(
                "UPDATE nodes SET removed = 1, draining = 0, position = ?2 WHERE node = ?1",
            )?
            .execute(params![e.node.0, pos])?;
            tx.prepare_cached("UPDATE invitations SET put_out = 1 WHERE node = ?1")?
                .execute([&e.node.0])?;
            // Should it come back, it says anew what it has.
            tx.prepare_cached("DELETE FROM holdings WHERE node = ?1")?.execute([&e.node.0])?;
        }
        Event::NodeUnhealthy(_)
        | Event::NodeRecovered(_)
        | Event::RecoveryBegun(_)
        | Event::RecoveryAttempted(_)
        | Event::RecoveryEnded(_)
        | Event::NodeAvailabilityChanged(_) => machines::apply(tx, pos, ms, event)?,
        Event::ArtefactTrashed(e) => {
            tx.prepare_cached(
                "INSERT INTO trashed (hash, reason, position) VALUES (?1, ?2, ?3)
                 ON CONFLICT (hash) DO UPDATE SET reason = ?2, position = ?3",
            )?
            .execute(params![e.hash.0, e.reason, pos])?;
            tx.prepare_cached("DELETE FROM holdings WHERE hash = ?1")?.execute([&e.hash.0])?;
        }
        Event::ArtefactsHeld(e) => {
            // A node may hash for minutes what the log lets go meanwhile.
            let mut insert = tx.prepare_cached(
                "INSERT INTO holdings (hash, node, position, since_ms) SELECT ?1, ?2, ?3, ?4
                 WHERE NOT EXISTS (SELECT 1 FROM trashed WHERE hash = ?1)
                 ON CONFLICT (hash, node) DO UPDATE SET offered = 0, position = ?3",
            )?;
            for hash in &e.hashes {
                insert.execute(params![hash.0, e.node.0, pos, ms])?;
            }
        }
        Event::ArtefactsOffered(e) => {
            let mut offer = tx.prepare_cached(
                "UPDATE holdings SET offered = 1, position = ?3 WHERE hash = ?1 AND node = ?2",
            )?;
            for hash in &e.hashes {
                offer.execute(params![hash.0, e.node.0, pos])?;
            }
        }
        Event::ArtefactsReleased(e) => {
            let mut release =
                tx.prepare_cached("DELETE FROM holdings WHERE hash = ?1 AND node = ?2")?;
            for hash in &e.hashes {
                release.execute(params![hash.0, e.node.0])?;
            }
        }
    }
    Ok(())
}

fn samples_exported(
    tx: &Transaction<'_>,
    pos: i64,
    ms: i64,
    e: &event::SamplesExported,
) -> Result<(), rusqlite::Error> {
    tx.prepare_cached(
        "INSERT INTO samples (hash, config, rows, games, bytes, encoder, batches, position, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (hash) DO NOTHING",
    )?
    .execute(params![
        e.samples.0,
        e.config.to_string(),
        int(e.rows),
        int(e.games),
        int(e.bytes),
        e.encoder,
        json(&e.batches)?,
        pos,
        ms
    ])?;
    let mut mark = tx.prepare_cached("UPDATE batches SET exported = 1 WHERE hash = ?1")?;
    for batch in &e.batches {
        mark.execute(params![batch.0])?;
    }
    blob(tx, &e.samples, "samples", e.config, e.bytes, pos)
}

fn window_combined(
    tx: &Transaction<'_>,
    pos: i64,
    ms: i64,
    e: &event::WindowCombined,
) -> Result<(), rusqlite::Error> {
    let mut newest = 0_i64;
    {
        let mut find = tx.prepare_cached("SELECT position FROM samples WHERE hash = ?1")?;
        for hash in &e.samples {
            let mut rows = find.query(params![hash.0])?;
            if let Some(row) = rows.next()? {
                newest = newest.max(row.get(0)?);
            }
        }
    }
    tx.prepare_cached(
        "INSERT INTO windows (hash, config, rows, games, bytes, samples, newest_samples, position, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (hash) DO UPDATE SET newest_samples = ?7, position = ?8",
    )?
    .execute(params![
        e.window.0,
        e.config.to_string(),
        int(e.rows),
        int(e.games),
        int(e.bytes),
        json(&e.samples)?,
        newest,
        pos,
        ms
    ])?;
    blob(tx, &e.window, "window", e.config, e.bytes, pos)
}

fn crown(
    tx: &Transaction<'_>,
    pos: i64,
    ms: i64,
    config: ringrift_rules::Config,
    model: &crate::ModelId,
) -> Result<(), rusqlite::Error> {
    tx.prepare_cached(
        "UPDATE models SET status = 'former' WHERE config = ?1 AND status = 'champion'",
    )?
    .execute(params![config.to_string()])?;
    tx.prepare_cached("UPDATE models SET status = 'champion' WHERE id = ?1")?
        .execute(params![model.0])?;
    tx.prepare_cached(
        "INSERT INTO champions (config, model, position, since_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (config) DO UPDATE SET model = ?2, position = ?3, since_ms = ?4",
    )?
    .execute(params![config.to_string(), model.0, pos, ms])?;
    Ok(())
}
