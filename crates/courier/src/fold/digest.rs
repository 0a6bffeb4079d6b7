//! What a projection contains, short enough to compare.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::file;
use crate::error::Error;
use crate::pool::Reader;

/// The contents of a projection's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// The last position folded into it.
    pub position: u64,
    /// Its tables by name.
    pub tables: BTreeMap<String, TableDigest>,
}

/// The contents of a table, whatever the order of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDigest {
    /// How many rows.
    pub rows: u64,
    /// BLAKE3 of the rows in the order of their columns, hexadecimal.
    pub hash: String,
}

impl Digest {
    /// Reads all tables.
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let names: Vec<String> = connection
            .prepare(
                "SELECT name FROM sqlite_schema
                 WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> ?1",
            )?
            .query_map([file::META], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut tables = BTreeMap::new();
        for name in names {
            let digest = table(connection, &name)?;
            tables.insert(name, digest);
        }
        Ok(Self { position: file::position(connection)?, tables })
    }

    /// The tables in which two digests differ.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut names: Vec<&String> = self.tables.keys().chain(other.tables.keys()).collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .filter(|name| self.tables.get(*name) != other.tables.get(*name))
            .cloned()
            .collect()
    }
}

impl Reader {
    /// Digests the file of a projection, all tables in one state.
    pub async fn digest(&self) -> Result<Digest, Error> {
        self.read(Digest::of).await
    }
}

fn table(connection: &Connection, name: &str) -> rusqlite::Result<TableDigest> {
    let quoted = name.replace('"', "\"\"");
    let columns = connection.prepare(&format!("SELECT * FROM \"{quoted}\""))?.column_count();
    let order: Vec<String> = (1..=columns).map(|column| column.to_string()).collect();
    let sql = format!("SELECT * FROM \"{quoted}\" ORDER BY {}", order.join(", "));
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut hash = blake3::Hasher::new();
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        for column in 0..columns {
            // Tag and length first: no two different rows give the same bytes.
            match row.get_ref(column)? {
                ValueRef::Null => hash.update(b"n"),
                ValueRef::Integer(number) => hash.update(b"i").update(&number.to_le_bytes()),
                ValueRef::Real(number) => hash.update(b"r").update(&number.to_le_bytes()),
                ValueRef::Text(bytes) => {
                    hash.update(b"t").update(&(bytes.len() as u64).to_le_bytes()).update(bytes)
                }
                ValueRef::Blob(bytes) => {
                    hash.update(b"b").update(&(bytes.len() as u64).to_le_bytes()).update(bytes)
                }
            };
        }
    }
    Ok(TableDigest { rows: count, hash: hash.finalize().to_hex().to_string() })
}
