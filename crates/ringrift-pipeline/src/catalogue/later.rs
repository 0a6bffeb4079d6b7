//! What a node that is cut off says later: kept in an outbox until the log is within reach.

use std::collections::BTreeSet;

use courier::{HandedIn, Outbox, Stream};
use serde_json::Value;

use super::{Catalogue, CatalogueError, Record};
use crate::BlobHash;

/// Hex digits of a hash.
const DIGITS: usize = 64;

impl Catalogue {
    /// The same catalogue, with an outbox for what a log out of reach cannot take.
    #[must_use]
    pub fn with_outbox(&self, outbox: Outbox) -> Self {
        Self { outbox: Some(outbox), ..self.clone() }
    }

    /// Keeps records until the log is within reach; they survive the death of this process.
    ///
    /// Only for statements that hold whatever happens meanwhile, each the first of its subject: they are
    /// handed in without a lease.
    ///
    /// # Errors
    /// There is no outbox, or it cannot be written.
    pub async fn keep(&self, records: Vec<Record>, now_ms: i64) -> Result<(), CatalogueError> {
        let topic = records.first().map_or("nothing", |record| record.event.topic());
        let batch = self.batch_of(records, now_ms)?;
        let Some(outbox) = &self.outbox else {
            let why = "this log has no outbox".to_owned();
            return Err(CatalogueError::Log(courier::Error::Unavailable(why)));
        };
        let kept = outbox.put(Stream::Pipeline, &batch, now_ms).await;
        kept.map_err(|source| CatalogueError::Append { topic, source })?;
        Ok(())
    }

    /// How many batches are kept for later.
    ///
    /// # Errors
    /// The outbox cannot be read.
    pub async fn kept(&self) -> Result<u64, CatalogueError> {
        match &self.outbox {
            Some(outbox) => Ok(outbox.waiting().await?),
            None => Ok(0),
        }
    }

    /// The artefacts that kept records name, whether they wait or the log did not take them.
    ///
    /// # Errors
    /// The outbox cannot be read.
    pub async fn kept_artefacts(&self) -> Result<BTreeSet<BlobHash>, CatalogueError> {
        let mut named = BTreeSet::new();
        if let Some(outbox) = &self.outbox {
            for kept in outbox.all().await? {
                for fact in &kept.batch.facts {
                    hashes(&fact.body, &mut named);
                }
            }
        }
        Ok(named)
    }

    /// Hands in what was kept, the oldest first; says how many batches the log took. What somebody else said
    /// meanwhile is forgotten; what the log refuses for another reason stays, for people.
    ///
    /// # Errors
    /// The log is still out of reach, or the outbox cannot be read.
    pub async fn hand_in(&self) -> Result<u64, CatalogueError> {
        let Some(outbox) = &self.outbox else { return Ok(0) };
        let HandedIn { taken, refused } = outbox.hand_in(&self.log).await?;
        if refused == 0 {
            return Ok(taken);
        }
        for kept in outbox.refused().await? {
            let mut known = true;
            for fact in &kept.batch.facts {
                known &= self.log.last_on(kept.stream, &fact.subject).await?.is_some();
            }
            if known {
                outbox.remove(kept.number).await?;
            }
        }
        Ok(taken)
    }
}

/// Everything that looks like a hash, whatever the event: one too many costs nothing, one too few a file.
fn hashes(body: &Value, found: &mut BTreeSet<BlobHash>) {
    match body {
        Value::String(text) => {
            let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            if text.len() == DIGITS && text.bytes().all(is_digit) {
                found.insert(BlobHash(text.clone()));
            }
        }
        Value::Array(parts) => parts.iter().for_each(|part| hashes(part, found)),
        Value::Object(parts) => parts.values().for_each(|part| hashes(part, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
