//! An outbox: facts of a node that cannot reach the log, kept until it can.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::courier::Courier;
use crate::embedded::writer::{Steps, Writer};
use crate::error::{AppendError, Error, OpenError};
use crate::fact::{Batch, Stream};
use crate::pool::{BUSY, Reader};

/// "CROB" in the header of the file.
const APPLICATION_ID: i64 = 0x4352_4f42;

const FORMAT: i64 = 1;

/// Batches read at a time.
const PAGE: usize = 64;

/// Writes that may wait.
const QUEUE: usize = 64;

const SCHEMA: &str = "
CREATE TABLE batch (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    stream  TEXT NOT NULL,
    batch   TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    -- Why the log did not take it; NULL while it waits.
    refused TEXT
) STRICT;
CREATE INDEX batch_refused ON batch (refused);
";

/// Batches that wait for the log, in one SQLite file, in order.
///
/// What is put in survives the death of the process and a power cut. Handing in repeats nothing: facts
/// have ids, so a batch whose answer was not heard is taken once. One task hands in at a time.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    /// Before the writer, which folds the write-ahead log into the file when it closes.
    reader: Reader,
    writer: Writer,
}

/// A batch in the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Grows with every batch.
    pub number: u64,
    /// Where it belongs.
    pub stream: Stream,
    /// The batch.
    pub batch: Batch,
    /// When it was put in, milliseconds since the Unix epoch: the time of its facts.
    pub time_ms: i64,
    /// What the log said when it did not take it.
    pub refused: Option<String>,
}

/// What came of handing in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedIn {
    /// Batches that are in the log now.
    pub taken: u64,
    /// Batches that the log does not take: the subject moved on, or the lease was lost.
    pub refused: u64,
}

impl Outbox {
    /// Opens the file, or makes it. Blocks.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        let sorted = |error| OpenError::from(Error::storage(path, error));
        let mut connection = Connection::open(path).map_err(sorted)?;
        let found = prepare(&mut connection).map_err(sorted)?;
        match found {
            (APPLICATION_ID, FORMAT) => {}
            (APPLICATION_ID, found) => {
                let path = path.to_path_buf();
                return Err(OpenError::TooNew { path, found, known: FORMAT });
            }
            (found, _) => return Err(OpenError::Foreign { path: path.to_path_buf(), found }),
        }
        let writer = Writer::spawn(path, connection, QUEUE, || {})?;
        Ok(Self(Arc::new(Inner { reader: Reader::new(path), writer })))
    }

    /// Puts a batch behind all others; returns its number.
    ///
    /// # Errors
    /// [`AppendError::Invalid`] and [`AppendError::TooLarge`] for what no log takes.
    pub async fn put(
        &self,
        stream: Stream,
        batch: &Batch,
        now_ms: i64,
    ) -> Result<u64, AppendError> {
        batch.checked()?;
        let text = serde_json::to_string(batch);
        let text = text.map_err(|error| AppendError::Invalid { what: error.to_string() })?;
        let work = move |db: &Connection| {
            db.prepare_cached("INSERT INTO batch (stream, batch, time_ms) VALUES (?1, ?2, ?3)")?
                .execute(params![stream.name(), text, now_ms])?;
            Ok(u64::try_from(db.last_insert_rowid()).unwrap_or_default())
        };
        Ok(self.0.writer.write::<u64, Error>(Steps::One, work, |_| {}).await?)
    }

    /// How many batches wait.
    pub async fn waiting(&self) -> Result<u64, Error> {
        let count = |db: &Connection| {
            db.query_row("SELECT count(*) FROM batch WHERE refused IS NULL", [], |row| row.get(0))
        };
        self.0.reader.read(count).await
    }

    /// The batches that the log did not take, the oldest first.
    pub async fn refused(&self) -> Result<Vec<Kept>, Error> {
        let list = |db: &Connection| {
            db.prepare_cached(
                "SELECT number, stream, batch, time_ms, refused FROM batch
                 WHERE refused IS NOT NULL ORDER BY number",
            )?
            .query_map([], kept)?
            .collect()
        };
        self.0.reader.read(list).await
    }

    /// All batches, those that wait and those that the log did not take, the oldest first.
    pub async fn all(&self) -> Result<Vec<Kept>, Error> {
        let list = |db: &Connection| {
            db.prepare_cached(
                "SELECT number, stream, batch, time_ms, refused FROM batch ORDER BY number",
            )?
            .query_map([], kept)?
            .collect()
        };
        self.0.reader.read(list).await
    }

    /// Removes a batch, for good.
    pub async fn remove(&self, number: u64) -> Result<(), Error> {
        let work = move |db: &Connection| {
            db.prepare_cached("DELETE FROM batch WHERE number = ?1")?.execute([number])?;
            Ok(())
        };
        self.0.writer.write(Steps::One, work, |()| {}).await
    }

    /// Hands the waiting batches in, the oldest first, and removes what the log took.
    ///
    /// What the log refuses stays, with the reason, and does not hold up those behind it: their own
    /// expectations say whether they needed it.
    ///
    /// # Errors
    /// Why the log took no more: all that is left still waits, in order.
    pub async fn hand_in(&self, log: &Courier) -> Result<HandedIn, Error> {
        let mut handed_in = HandedIn::default();
        loop {
            let page = self.0.reader.read(oldest).await?;
            if page.is_empty() {
                if handed_in != HandedIn::default() {
                    info!(taken = handed_in.taken, refused = handed_in.refused, "outbox handed in");
                }
                return Ok(handed_in);
            }
            for Kept { number, stream, batch, time_ms, .. } in page {
                match log.append(stream, batch, time_ms).await {
                    Ok(_) => {
                        self.remove(number).await?;
                        handed_in.taken += 1;
                    }
                    Err(AppendError::Failed(error)) => return Err(error),
                    Err(refusal) => {
                        warn!(number, error = %refusal, "a batch of the outbox is refused");
                        self.refuse(number, refusal.to_string()).await?;
                        handed_in.refused += 1;
                    }
                }
            }
        }
    }

    async fn refuse(&self, number: u64, why: String) -> Result<(), Error> {
        let work = move |db: &Connection| {
            db.prepare_cached("UPDATE batch SET refused = ?2 WHERE number = ?1")?
                .execute(params![number, why])?;
            Ok(())
        };
        self.0.writer.write(Steps::One, work, |()| {}).await
    }
}

/// Gives the application id and the format.
fn prepare(db: &mut Connection) -> rusqlite::Result<(i64, i64)> {
    db.busy_timeout(BUSY)?;
    let number =
        |db: &Connection, name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let found = (number(db, "application_id")?, number(db, "user_version")?);
    if found != (0, 0) && found.0 != APPLICATION_ID {
        return Ok(found);
    }
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
    }
    transaction.commit()?;
    Ok((number(db, "application_id")?, number(db, "user_version")?))
}

fn oldest(db: &Connection) -> rusqlite::Result<Vec<Kept>> {
    db.prepare_cached(
        "SELECT number, stream, batch, time_ms, refused FROM batch
         WHERE refused IS NULL ORDER BY number LIMIT ?1",
    )?
    .query_map([PAGE], kept)?
    .collect()
}

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let unreadable = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    let stream: String = row.get(1)?;
    let stream = Stream::ALL.into_iter().find(|known| known.name() == stream);
    let batch = serde_json::from_str(row.get_ref(2)?.as_str()?);
    Ok(Kept {
        number: row.get(0)?,
        stream: stream.ok_or_else(|| unreadable(1, "an unknown stream".into()))?,
        batch: batch.map_err(|error| unreadable(2, error.into()))?,
        time_ms: row.get(3)?,
        refused: row.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::embedded::{Embedded, Options};
    use crate::fact::NewFact;

    fn fact(id: &str, subject: &str) -> NewFact {
        NewFact::new(id, subject, "node", json!({ "of": id }))
    }

    #[tokio::test]
    async fn batches_wait_through_a_restart_and_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("outbox.sqlite");
        let outbox = Outbox::open(&file).unwrap();
        for n in 0..200 {
            let batch = fact(&n.to_string(), "s").caused_by("x").into();
            outbox.put(Stream::Pipeline, &batch, n).await.unwrap();
        }
        drop(outbox);
        let outbox = Outbox::open(&file).unwrap();
        assert_eq!(outbox.waiting().await.unwrap(), 200);
        let log = Embedded::open(&dir.path().join("log"), Options::default()).unwrap();
        let handed_in = outbox.hand_in(&log).await.unwrap();
        assert_eq!(handed_in, HandedIn { taken: 200, refused: 0 });
        let facts = log.read(Stream::Pipeline, 0, 1000).await.unwrap();
        let seen: Vec<_> = facts.iter().map(|fact| (fact.id.clone(), fact.time_ms)).collect();
        assert_eq!(seen, (0..200).map(|n| (n.to_string(), n)).collect::<Vec<_>>());
        assert_eq!(outbox.waiting().await.unwrap(), 0);
        assert_eq!(outbox.hand_in(&log).await.unwrap(), HandedIn::default());
    }

    #[tokio::test]
    async fn what_the_log_refuses_stays_with_the_reason_and_holds_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(&dir.path().join("outbox")).unwrap();
        let log = Embedded::open(&dir.path().join("log"), Options::default()).unwrap();
        let stream = Stream::Pipeline;
        let impossible = outbox.put(stream, &fact("x", "a..b").into(), 1).await;
        assert!(matches!(impossible, Err(AppendError::Invalid { .. })), "{impossible:?}");
        log.append(stream, fact("first", "taken").into(), 1).await.unwrap();
        outbox.put(stream, &fact("late", "taken").after(0).into(), 2).await.unwrap();
        outbox.put(stream, &fact("free", "other").after(0).into(), 3).await.unwrap();
        let handed_in = outbox.hand_in(&log).await.unwrap();
        assert_eq!(handed_in, HandedIn { taken: 1, refused: 1 });
        let refused = outbox.refused().await.unwrap();
        assert_eq!(refused.len(), 1);
        let waits = fact("waits", "third").into();
        outbox.put(stream, &waits, 4).await.unwrap();
        let all = outbox.all().await.unwrap();
        assert_eq!((&all[0], &all[1].batch, all.len()), (&refused[0], &waits, 2));
        assert_eq!(refused[0].batch, fact("late", "taken").after(0).into());
        let why = refused[0].refused.clone().unwrap();
        assert!(why.contains("the last fact on taken is at position 1"), "{why}");
        outbox.remove(refused[0].number).await.unwrap();
        assert_eq!(outbox.refused().await.unwrap(), []);
    }

    #[test]
    fn a_file_of_others_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        drop(Embedded::open(&file, Options::default()).unwrap());
        let refused = Outbox::open(&file).map(drop);
        assert!(matches!(refused, Err(OpenError::Foreign { .. })), "{refused:?}");
    }
}
