//! Rows as JSON, for `/api` and for the page.

use courier::{Courier, Fact, Stream};
use ringrift_pipeline::{Catalogue, CatalogueError, Config, ModelRow};
use serde_json::{Value, json};

use super::{Sources, guard::Refusal};
use crate::facts;

/// How far back the newest facts are looked for: positions may have gaps.
const LOOK_BACK: u64 = 4;

/// A model: the same shape as `ringrift models --json`.
pub(super) fn model(row: &ModelRow) -> Value {
    json!({
        "id": row.id,
        "config": row.config,
        "generation": row.generation,
        "parent": row.parent,
        "status": row.status,
        "created": row.created_ms,
        "verdict": row.verdict,
        "gauntlet": row.evaluation,
        "weights": row.weights,
        "bytes": row.bytes,
    })
}

fn fact(stream: Stream, fact: &Fact) -> Value {
    let told = facts::tell(stream, &fact.body);
    json!({
        "position": fact.position,
        "stream": stream,
        "time_ms": fact.time_ms,
        "topic": told.topic,
        "config": told.config,
        "tone": told.tone,
        "sentence": told.sentence,
        "source": fact.source,
    })
}

/// Facts after a position, oldest first, or the newest; with the position to go on from.
pub(super) async fn facts(
    log: &Courier,
    stream: Stream,
    after: Option<u64>,
    limit: u32,
) -> Result<Value, Refusal> {
    let found = match after {
        Some(after) => log.read(stream, after, rows(limit)).await?,
        None => newest(log, stream, limit).await?,
    };
    let next = found.last().map_or(after.unwrap_or(0), |fact| fact.position);
    let told: Vec<Value> = found
        .iter()
        .map(|found| {
            let mut told = fact(stream, found);
            told["id"] = json!(found.id);
            told["subject"] = json!(found.subject);
            told["cause"] = json!(found.cause);
            told["body"] = found.body.clone();
            told
        })
        .collect();
    Ok(json!({ "facts": told, "next": next, "head": log.head(stream).await? }))
}

fn rows(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

async fn newest(log: &Courier, stream: Stream, limit: u32) -> Result<Vec<Fact>, courier::Error> {
    let head = log.head(stream).await?;
    let mut span = u64::from(limit);
    loop {
        let after = head.saturating_sub(span);
        // Facts that came since `head` was asked for fit in as well.
        let mut found = log.read(stream, after, rows(limit) + usize::from(u8::MAX)).await?;
        if found.len() >= rows(limit) || after == 0 || span > LOOK_BACK * u64::from(limit) {
            let surplus = found.len().saturating_sub(rows(limit));
            return Ok(found.split_off(surplus));
        }
        span *= 2;
    }
}

/// The newest facts of both streams, newest first.
pub(super) async fn newest_facts(
    catalogue: &Catalogue,
    limit: u32,
) -> Result<Value, CatalogueError> {
    let log = catalogue.log();
    let mut found = Vec::new();
    for stream in Stream::ALL {
        found.extend(newest(log, stream, limit).await?.into_iter().map(|fact| (stream, fact)));
    }
    found.sort_by_key(|(_, fact)| std::cmp::Reverse(fact.time_ms));
    found.truncate(rows(limit));
    Ok(found.iter().map(|(stream, found)| fact(*stream, found)).collect())
}

/// Why a config's loop stands where it stands: the sentences of `ringrift why CONFIG`.
pub(super) async fn why(sources: &dyn Sources, config: Config) -> Result<Value, CatalogueError> {
    let sentences =
        ringrift_daemons::explain(sources.catalogue(), sources.pressure(), config).await?;
    Ok(json!({ "config": config, "sentences": sentences }))
}
