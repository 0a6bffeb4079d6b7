//! What a node that is cut off says later: kept in an outbox until the log is within reach.

use courier::{HandedIn, Outbox, Stream};

use super::{Catalogue, CatalogueError, Record};

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
