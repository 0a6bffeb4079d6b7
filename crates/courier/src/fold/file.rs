//! The file of a projection: fit for use, or made anew.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::Projection;
use crate::pool;

/// The table that says what the file is and how far it is.
pub(super) const META: &str = "courier_fold";

/// A write-ahead log larger than this is cut when it is next reused, bytes.
const WAL_LIMIT_BYTES: i64 = 64 << 20;

/// A file fit for use.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) position: u64,
    /// Why it was made anew; none if it was fit.
    pub(super) rebuilt: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

/// Opens the file if it is sound, of this projection, and from this log; else makes it anew.
pub(super) fn open<P: Projection>(
    path: &Path,
    projection: &P,
    identity: &str,
    head: u64,
) -> Result<Opened, FileError> {
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    let rebuilt = if path.exists() {
        match fit(path, projection, identity, head) {
            Ok(opened) => return Ok(opened),
            Err(Unfit::Reason(reason)) => reason,
            Err(Unfit::Sql(error)) => match error.sqlite_error_code() {
                Some(
                    rusqlite::ErrorCode::DatabaseCorrupt
                    | rusqlite::ErrorCode::NotADatabase
                    // Tables are missing or different.
                    | rusqlite::ErrorCode::Unknown,
                ) => format!("it is damaged: {error}"),
                // Locked, no rights, no memory: not a reason to throw it away.
                _ => return Err(error.into()),
            },
        }
    } else {
        "there is none yet".to_owned()
    };
    remove(path)?;
    let mut connection = connect(path)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(projection.schema())?;
    transaction.execute_batch(&format!(
        "CREATE TABLE {META} (
            name TEXT NOT NULL, version INTEGER NOT NULL, schema TEXT NOT NULL,
            identity TEXT NOT NULL, position INTEGER NOT NULL
        ) STRICT"
    ))?;
    transaction.execute(
        &format!("INSERT INTO {META} VALUES (?1, ?2, ?3, ?4, 0)"),
        params![P::NAME, P::VERSION, projection.schema(), identity],
    )?;
    transaction.commit()?;
    Ok(Opened { connection, position: 0, rebuilt: Some(rebuilt) })
}

/// Moves the position; in the transaction of the rows.
pub(super) fn set_position(transaction: &Transaction<'_>, position: u64) -> rusqlite::Result<()> {
    transaction.prepare_cached(&format!("UPDATE {META} SET position = ?1"))?.execute([position])?;
    Ok(())
}

/// The position of the file that is read.
pub(super) fn position(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row(&format!("SELECT position FROM {META}"), [], |row| row.get(0))
}

/// Why a file is not used.
enum Unfit {
    Reason(String),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Unfit {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

fn fit<P: Projection>(
    path: &Path,
    projection: &P,
    identity: &str,
    head: u64,
) -> Result<Opened, Unfit> {
    let connection = connect(path)?;
    let position = judge(&connection, projection, identity, head)?;
    Ok(Opened { connection, position, rebuilt: None })
}

/// The position of an existing file, read without touching it; none if it is not fit for use.
pub(super) fn peek<P: Projection>(
    path: &Path,
    projection: &P,
    identity: &str,
    head: u64,
) -> Option<u64> {
    let connection = pool::connect(path).ok()?;
    judge(&connection, projection, identity, head).ok()
}

fn judge<P: Projection>(
    connection: &Connection,
    projection: &P,
    identity: &str,
    head: u64,
) -> Result<u64, Unfit> {
    let unfit = |reason: &str| Err(Unfit::Reason(reason.to_owned()));
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Unfit::Reason(format!("it is damaged: {verdict}")));
    }
    let meta = connection
        .query_row(
            &format!("SELECT name, version, schema, identity, position FROM {META}"),
            [],
            |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, u32>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, String>(3)?,
                    row.get::<_, u64>(4)?,
                ))
            },
        )
        .optional()?;
    let Some((name, version, schema, of_log, position)) = meta else {
        return unfit("it was never finished");
    };
    if name != P::NAME {
        return unfit("it is another projection");
    }
    if version != P::VERSION {
        return Err(Unfit::Reason(format!("it has version {version}, not {}", P::VERSION)));
    }
    if schema != projection.schema() {
        return unfit("its tables are different");
    }
    if of_log != identity {
        return unfit("it is from another log");
    }
    if position > head {
        return unfit("it is ahead of the log");
    }
    Ok(position)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    pool::plan_once(&connection)?;
    connection.busy_timeout(pool::BUSY)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // What a power cut takes from the end is folded again.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
    connection.set_prepared_statement_cache_capacity(256);
    Ok(connection)
}

fn remove(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs_err::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
