//! The floor: the rows that a controller wrote, written by SQLite alone, with the same settings, in transactions of
//! the same size and in one transaction for each.

use rusqlite::{Connection, OpenFlags, params};
use std::path::Path;
use tests::harness::now;

/// A row of evidence.
pub(crate) struct Row {
    at_unix_ms: i64,
    kind: String,
    body: String,
}

/// Evidence of a log that nobody has open.
pub(crate) struct Written {
    /// At most as many rows as were asked for, the newest.
    pub(crate) rows: Vec<Row>,
    /// How many rows the log has behind entry `after`.
    pub(crate) count: u64,
    /// How many of them one transaction had, in the mean: the rows of one have the same time.
    pub(crate) in_one: f64,
}

impl Written {
    /// Reads the evidence behind entry `after` of the log at `path`.
    pub(crate) fn read(path: &Path, after: u64, most: u64) -> anyhow::Result<Self> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let of_evidence = "FROM entries WHERE kind = 'evidence_accepted' AND seq > ?1";
        let count: u64 = db.query_row(
            &format!("SELECT count(*) {of_evidence}"),
            [after.cast_signed()],
            |row| row.get::<_, i64>(0).map(i64::cast_unsigned),
        )?;
        let times: u64 = db.query_row(
            &format!("SELECT count(DISTINCT at_unix_ms) {of_evidence}"),
            [after.cast_signed()],
            |row| row.get::<_, i64>(0).map(i64::cast_unsigned),
        )?;
        let mut query = db.prepare(&format!(
            "SELECT at_unix_ms, kind, body {of_evidence} ORDER BY seq DESC LIMIT ?2"
        ))?;
        let rows = query.query_map(params![after.cast_signed(), most.cast_signed()], |row| {
            Ok(Row {
                at_unix_ms: row.get(0)?,
                kind: row.get(1)?,
                body: row.get(2)?,
            })
        })?;
        Ok(Self {
            rows: rows.collect::<Result<_, _>>()?,
            count,
            in_one: count as f64 / times.max(1) as f64,
        })
    }

    /// The mean length of a row's body, in bytes.
    pub(crate) fn body_len(&self) -> f64 {
        let all: usize = self.rows.iter().map(|row| row.body.len()).sum();
        all as f64 / self.rows.len().max(1) as f64
    }
}

/// Inserts `rows` into a new database in `folder`, `in_one` in each transaction; returns how many a second.
pub(crate) fn insert(folder: &Path, rows: &[Row], in_one: usize) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir_in(folder)?;
    let mut db = Connection::open(folder.path().join("raw.db"))?;
    db.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         CREATE TABLE entries (
             seq INTEGER PRIMARY KEY, at_unix_ms INTEGER NOT NULL, author TEXT, kind TEXT NOT NULL,
             body TEXT NOT NULL) STRICT;",
    )?;
    let start = now();
    for rows in rows.chunks(in_one.max(1)) {
        let transaction = db.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO entries (at_unix_ms, author, kind, body) VALUES (?1, NULL, ?2, ?3)",
            )?;
            for row in rows {
                insert.execute(params![row.at_unix_ms, row.kind, row.body])?;
            }
        }
        transaction.commit()?;
    }
    Ok(rows.len() as f64 / start.elapsed().as_secs_f64())
}
