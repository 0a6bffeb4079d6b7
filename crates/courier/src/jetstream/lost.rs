//! What a stream of the server lost, and this node still knows.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use super::replica::Replica;
use crate::embedded::sql;
use crate::error::Error;
use crate::fact::Stream;
use crate::lost::name_of;

/// One copy at a time: an engine that was given up may still be at it when the next one is opened.
static COPYING: Mutex<()> = Mutex::new(());

/// Puts a copy of the replica aside, which is about to be made anew; none if it knows no fact.
///
/// # Errors
/// It cannot be written. Then nothing may be forgotten.
pub(super) async fn keep(replica: &Replica) -> Result<Option<PathBuf>, Error> {
    let db = replica.connection()?;
    let kept = tokio::task::spawn_blocking(move || {
        let _alone = COPYING.lock().unwrap_or_else(PoisonError::into_inner);
        copy(&db)
    });
    kept.await.map_err(|_| Error::Closed)?.map_err(|error| replica.failed(error))
}

fn copy(db: &Connection) -> rusqlite::Result<Option<PathBuf>> {
    let head = sql::head(db, Stream::Pipeline)?;
    let last = sql::read(db, Stream::Pipeline, head.saturating_sub(1), 1)?.pop();
    let folder = db.path().map(Path::new).and_then(Path::parent);
    let Some((last, folder)) = last.zip(folder) else { return Ok(None) };
    let path = folder.join(name_of(last.position, last.time_ms));
    if path.exists() {
        return Ok(Some(path));
    }
    // Under its name when it is whole.
    let aside = path.with_extension("part");
    drop(fs_err::remove_file(&aside));
    let copied = db.execute("VACUUM INTO ?1", [aside.display().to_string()]);
    if copied.is_err() {
        // Half of it only takes the room that is short.
        drop(fs_err::remove_file(&aside));
    }
    copied?;
    let moved = fs_err::rename(&aside, &path);
    moved.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    Ok(Some(path))
}
