//! What a stream of the server lost, and this node still knows.

use std::path::{Path, PathBuf};

use super::replica::Replica;
use crate::embedded::sql;
use crate::error::Error;
use crate::fact::Stream;
use crate::lost::LOST;

/// Puts a copy of the replica aside, which is about to be made anew; none if it knows no fact.
///
/// # Errors
/// It cannot be written. Then nothing may be forgotten.
pub(super) async fn keep(replica: &Replica) -> Result<Option<PathBuf>, Error> {
    let db = replica.connection()?;
    let kept = tokio::task::spawn_blocking(move || {
        let head = sql::head(&db, Stream::Pipeline)?;
        let folder = db.path().map(Path::new).and_then(Path::parent).filter(|_| head > 0);
        let Some(path) = folder.map(|folder| folder.join(format!("{LOST}{head}.sqlite"))) else {
            return Ok(None);
        };
        let is_kept = path.exists();
        if !is_kept {
            // Under its name when it is whole.
            let aside = path.with_extension("part");
            drop(fs_err::remove_file(&aside));
            db.execute("VACUUM INTO ?1", [aside.display().to_string()])?;
            let moved = fs_err::rename(&aside, &path);
            moved.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        }
        Ok(Some(path))
    });
    kept.await.map_err(|_| Error::Closed)?.map_err(|error| replica.failed(error))
}
