//! The rows of machines.

use courier::rusqlite::{self, Transaction, params};
use serde::Serialize;

use crate::Event;

/// A unit variant as it is written.
fn word(value: &impl Serialize) -> Result<String, rusqlite::Error> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        other => Err(rusqlite::Error::ToSqlConversionFailure(format!("{other:?}: no word").into())),
    }
}

pub(super) fn apply(
    tx: &Transaction<'_>,
    pos: i64,
    ms: i64,
    event: &Event,
) -> Result<(), rusqlite::Error> {
    match event {
        Event::NodeUnhealthy(e) => {
            health(tx, &e.node.0, Some(&word(&e.layer)?), &e.reason, pos, ms)
        }
        Event::NodeRecovered(e) => health(tx, &e.node.0, None, &e.reason, pos, ms),
        Event::RecoveryBegun(e) => {
            // An episode begins with its first step after the end of the one before.
            tx.prepare_cached(
                "INSERT INTO node_recoveries (node, is_open, step, attempt, outcome, sentence, position,
                 began_ms, changed_ms) VALUES (?1, 1, ?2, ?3, NULL, ?4, ?5, ?6, ?6)
                 ON CONFLICT (node) DO UPDATE SET
                 began_ms = CASE WHEN is_open THEN began_ms ELSE ?6 END,
                 is_open = 1, step = ?2, attempt = ?3, outcome = NULL, sentence = ?4, position = ?5,
                 changed_ms = ?6",
            )?
            .execute(params![e.node.0, word(&e.step)?, e.attempt, e.how, pos, ms])?;
            Ok(())
        }
        Event::RecoveryAttempted(e) => {
            tx.prepare_cached(
                "INSERT INTO node_recoveries (node, is_open, step, attempt, outcome, sentence, position,
                 began_ms, changed_ms) VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
                 ON CONFLICT (node) DO UPDATE SET
                 began_ms = CASE WHEN is_open THEN began_ms ELSE ?7 END,
                 is_open = 1, step = ?2, attempt = ?3, outcome = ?4, sentence = ?5, position = ?6,
                 changed_ms = ?7",
            )?
            .execute(params![
                e.node.0,
                word(&e.step)?,
                e.attempt,
                word(&e.outcome)?,
                e.sentence,
                pos,
                ms
            ])?;
            Ok(())
        }
        Event::RecoveryEnded(e) => {
            tx.prepare_cached(
                "UPDATE node_recoveries SET is_open = 0, sentence = ?2, position = ?3,
                 changed_ms = ?4 WHERE node = ?1",
            )?
            .execute(params![e.node.0, e.sentence, pos, ms])?;
            Ok(())
        }
        Event::NodeAvailabilityChanged(e) => {
            tx.prepare_cached(
                "INSERT INTO node_availability (node, provider, instance, state, position, since_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (node) DO UPDATE
                 SET provider = ?2, instance = ?3, state = ?4, position = ?5, since_ms = ?6",
            )?
            .execute(params![e.node.0, e.provider, e.instance, word(&e.state)?, pos, ms])?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn health(
    tx: &Transaction<'_>,
    node: &str,
    failed: Option<&str>,
    reason: &str,
    pos: i64,
    ms: i64,
) -> Result<(), rusqlite::Error> {
    tx.prepare_cached(
        "INSERT INTO node_health (node, failed, reason, position, since_ms)
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (node) DO UPDATE
         SET failed = ?2, reason = ?3, position = ?4, since_ms = ?5",
    )?
    .execute(params![node, failed, reason, pos, ms])?;
    Ok(())
}
