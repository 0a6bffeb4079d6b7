//! Read connections to one SQLite file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use crate::error::Error;

/// Most queries at a time. More readers than cores only take each other's page cache.
const CONNECTIONS: usize = 4;

/// How long SQLite waits for a lock that another process holds. In WAL mode readers meet one only
/// while the file is recovered or closed.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// Read-only access to one SQLite file; a clone shares the connections.
///
/// Queries run on blocking threads, four at a time, each in a transaction of its own: what it reads
/// is one state of the file.
#[derive(Debug, Clone)]
pub struct Reader(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Reader {
    /// Reads this file, also beside the process that writes it. Connections are made when needed: a
    /// file that is not there is an error of the first query.
    pub fn new(path: &Path) -> Self {
        Self(Arc::new(Pool {
            path: path.to_path_buf(),
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
        }))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Runs a query. What it decodes beyond SQL it may return as `T = Result<..>`.
    ///
    /// # Errors
    /// [`Error::Storage`] with what SQLite says.
    ///
    /// # Panics
    /// If the query does.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.0.permits).acquire_owned().await;
        let permit = permit.map_err(|_| Error::Closed)?;
        let pool = Arc::clone(&self.0);
        let answer = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            pool.run(query)
        });
        match answer.await {
            Ok(result) => result,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Closed), // the runtime is going down
            },
        }
    }

    /// The same from a thread that may block.
    pub fn read_blocking<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        self.0.run(query)
    }
}

impl Reader {
    /// Closes the connections that are not in use: the last connection to a file that closes folds
    /// the write-ahead log into it, and one that only reads cannot.
    pub(crate) fn close_idle(&self) {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Pool {
    fn run<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let answer = (|| {
            let connection = match idle {
                Some(connection) => connection,
                None => connect(&self.path)?,
            };
            let transaction = connection.unchecked_transaction()?;
            let answer = query(&transaction);
            // Nothing was written; ending the transaction lets checkpoints go past it.
            transaction.rollback()?;
            Ok((connection, answer?))
        })();
        // A connection that failed is closed rather than kept.
        let (connection, answer) = answer.map_err(|source| Error::storage(&self.path, source))?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answer)
    }
}

/// Opens a file for reading only.
pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    plan_once(&connection)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Has SQLite plan a prepared statement once. Else it plans some of ours anew for each value that is bound, the last
/// fact on a subject among them, which takes three times as long as to find it.
pub(crate) fn plan_once(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::sql;
    use crate::fact::Stream;

    #[test]
    fn what_is_asked_often_is_planned_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        drop(crate::Embedded::open(&file, crate::Options::default()).unwrap());
        let db = connect(&file).unwrap();
        for subject in ["a", "b", "c"] {
            sql::last_position_on(&db, Stream::Pipeline, subject).unwrap();
        }
        let sql = "SELECT position FROM pipeline WHERE subject = ?1 ORDER BY position DESC LIMIT 1";
        let asked = db.prepare_cached(sql).unwrap();
        assert_eq!(asked.get_status(rusqlite::StatementStatus::RePrepare), 0);
        assert!(asked.get_status(rusqlite::StatementStatus::Run) >= 3, "another statement");
    }
}
