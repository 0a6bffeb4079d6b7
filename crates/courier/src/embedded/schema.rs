//! The file: its tables, its format number, and what is checked before it is used.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Durability, sql};
use crate::error::{Error, OpenError};
use crate::fact::Stream;
use crate::pool;

/// "CRLG" in the header of the file.
const APPLICATION_ID: i64 = 0x4352_4c47;

/// The newest format this program writes and reads.
const FORMAT: i64 = 1;

/// "CRPL" in the header of the file: no log, only a node's copy of one, with more tables. May be read.
pub(crate) const REPLICA_ID: i64 = 0x4352_504c;

/// The format of a replica.
pub(crate) const REPLICA_FORMAT: i64 = 2;

/// A write-ahead log larger than this is cut when it is next reused, bytes.
const WAL_LIMIT_BYTES: i64 = 64 << 20;

/// Bytes of a page of a new file, a log or a replica. Each fact is entered into two indexes at random places, and a commit
/// writes whole pages: half of SQLite's own 4096 is a tenth faster for single facts, as fast in batches.
pub(crate) const PAGE_BYTES: i64 = 2048;

/// Pages after which a commit folds the write-ahead log into the file: 32 MiB. SQLite's own 1000 make
/// a writer of many small facts wait for the disk far more often.
const FOLD_EVERY_PAGES: i64 = (32 << 20) / PAGE_BYTES;

/// Memory for pages of the file, KiB; four times SQLite's own: the two indexes of the facts are
/// entered at random places.
const CACHE_KIB: i64 = 8 << 10;

/// The tables of a log.
pub(crate) const SCHEMA: &str = "
CREATE TABLE identity (id TEXT NOT NULL) STRICT;
INSERT INTO identity VALUES (lower(hex(randomblob(16))));

-- AUTOINCREMENT: a position is never given again, whatever retention removed.
CREATE TABLE pipeline (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT NOT NULL UNIQUE,
    subject  TEXT NOT NULL,
    time_ms  INTEGER NOT NULL,
    source   TEXT NOT NULL,
    cause    TEXT,
    body     TEXT NOT NULL
) STRICT;
CREATE INDEX pipeline_subject ON pipeline (subject, position);
CREATE TRIGGER pipeline_is_kept BEFORE DELETE ON pipeline
    BEGIN SELECT raise(ABORT, 'facts of the pipeline stream are kept'); END;
CREATE TRIGGER pipeline_is_fixed BEFORE UPDATE ON pipeline
    BEGIN SELECT raise(ABORT, 'facts do not change'); END;

CREATE TABLE operational (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT NOT NULL UNIQUE,
    subject  TEXT NOT NULL,
    time_ms  INTEGER NOT NULL,
    source   TEXT NOT NULL,
    cause    TEXT,
    body     TEXT NOT NULL
) STRICT;
CREATE INDEX operational_subject ON operational (subject, position);
CREATE TRIGGER operational_is_fixed BEFORE UPDATE ON operational
    BEGIN SELECT raise(ABORT, 'facts do not change'); END;

CREATE TABLE subscriber (
    stream   TEXT NOT NULL,
    name     TEXT NOT NULL,
    position INTEGER NOT NULL,
    -- Deliveries of the fact in hand.
    in_hand  INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE letter (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    subscriber TEXT NOT NULL,
    stream     TEXT NOT NULL,
    position   INTEGER NOT NULL,
    fact       TEXT NOT NULL,
    subject    TEXT NOT NULL,
    error      TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    buried_ms  INTEGER NOT NULL,
    retried_ms INTEGER,
    state      TEXT NOT NULL,
    UNIQUE (subscriber, stream, position)
) STRICT;
CREATE INDEX letter_state ON letter (state, subscriber);

CREATE TABLE lease (
    name       TEXT PRIMARY KEY,
    -- NULL: given back. The row stays, for its epoch.
    holder     TEXT,
    epoch      INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    note       TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
";

/// Adds what the tables of an older program lack. That program goes on with them as well, so the format
/// is the same.
pub(crate) fn complete(connection: &Connection) -> rusqlite::Result<()> {
    let has_notes = connection
        .prepare("SELECT 1 FROM pragma_table_info('lease') WHERE name = 'note'")?
        .exists([])?;
    if !has_notes {
        connection.execute_batch("ALTER TABLE lease ADD COLUMN note TEXT NOT NULL DEFAULT ''")?;
    }
    Ok(())
}

/// What a writer of many facts needs.
pub(crate) fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
    connection.pragma_update(None, "wal_autocheckpoint", FOLD_EVERY_PAGES)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Opens or makes the file for its one writer.
pub(super) fn open(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sorted = |error| sort(path, error);
    let mut connection = Connection::open_with_flags(path, flags).map_err(sorted)?;
    pool::plan_once(&connection).map_err(sorted)?;
    connection.busy_timeout(pool::BUSY).map_err(sorted)?;
    let new = check(path, &connection, &[(APPLICATION_ID, FORMAT)])?;
    (|| {
        // Of a new file; one that is there keeps its own.
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        let level = match durability {
            Durability::Normal => "normal",
            Durability::Full => "full",
        };
        connection.pragma_update(None, "synchronous", level)?;
        tune(&connection)?;
        if new {
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            // Another process may have made it since we looked.
            if transaction.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?
                == 0
            {
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
                transaction.pragma_update(None, "user_version", FORMAT)?;
            }
            transaction.commit()?;
        }
        complete(&connection)
    })()
    .map_err(sorted)?;
    Ok(connection)
}

/// Opens an existing file for reading.
pub(super) fn open_read_only(path: &Path) -> Result<Connection, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing { path: path.to_path_buf() });
    }
    let connection = pool::connect(path).map_err(|error| sort(path, error))?;
    if check(path, &connection, &[(APPLICATION_ID, FORMAT), (REPLICA_ID, REPLICA_FORMAT)])? {
        return Err(OpenError::Foreign { path: path.to_path_buf(), found: 0 });
    }
    Ok(connection)
}

/// The position of the last fact, for the wake-ups.
pub(super) fn head(connection: &Connection, path: &Path, stream: Stream) -> Result<u64, OpenError> {
    sql::head(connection, stream).map_err(|error| sort(path, error))
}

/// Refuses what is not a sound file of these kinds and formats; tells whether the file is still empty.
fn check(path: &Path, connection: &Connection, kinds: &[(i64, i64)]) -> Result<bool, OpenError> {
    let number = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(|error| sort(path, error))
    };
    let (application, format) = (number("application_id")?, number("user_version")?);
    if application == 0 && format == 0 {
        // Empty, or made by a process that died before it got to the tables.
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(|error| sort(path, error))?;
        if tables == 0 {
            return Ok(true);
        }
    }
    let path_of = || path.to_path_buf();
    match kinds.iter().find(|(kind, _)| *kind == application) {
        None => return Err(OpenError::Foreign { path: path_of(), found: application }),
        Some((_, known)) if format > *known => {
            return Err(OpenError::TooNew { path: path_of(), found: format, known: *known });
        }
        Some(_) => {}
    }
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| sort(path, error))?;
    if verdict != "ok" {
        return Err(OpenError::Damaged { path: path.to_path_buf(), detail: verdict });
    }
    Ok(false)
}

/// Tells damage from other failures.
fn sort(path: &Path, error: rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            OpenError::Damaged { path: path.to_path_buf(), detail: error.to_string() }
        }
        _ => Error::storage(path, error).into(),
    }
}
