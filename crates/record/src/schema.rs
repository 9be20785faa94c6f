//! The tables, and how the file is opened.

use crate::error::LogError;
use rusqlite::{Connection, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// Opens the file for this process alone.
pub(crate) fn connect(path: &Path) -> Result<Connection, LogError> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY_TIME)?;
    db.execute_batch(ALONE)?;
    Ok(db)
}

/// Opens a copy, of which nothing is changed: neither the file nor anything beside it.
pub(crate) fn connect_to_copy(path: &Path) -> Result<Connection, LogError> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(BUSY_TIME)?;
    Ok(db)
}

/// The schema's version; zero: there is none.
pub(crate) fn version_of(db: &Connection) -> Result<i64, LogError> {
    Ok(db.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

pub(crate) fn has_tables(db: &Connection) -> Result<bool, LogError> {
    let query = "SELECT count(*) FROM sqlite_schema WHERE name IN \
                 ('entries', 'tiles', 'head', 'snapshot', 'epochs')";
    let tables: i64 = db.query_row(query, [], |row| row.get(0))?;
    Ok(tables == 5)
}

/// SQLite gives its side files the mode of the main file, which therefore exists first.
pub(crate) fn create_private(path: &Path) -> Result<(), LogError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                LogError::ReadOnly
            }
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => LogError::Full,
            _ => LogError::Io(error),
        }),
    }
}

/// A controller that is just stopping may still have the log.
const BUSY_TIME: Duration = Duration::from_secs(1);
pub(crate) const VERSION: i64 = 5;
/// One process, and no shared-memory file beside the log.
const ALONE: &str = "PRAGMA locking_mode = EXCLUSIVE;";
pub(crate) const PRAGMAS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
";
/// `epochs` is the controller's: it changes together with the entries.
pub(crate) const SCHEMA: &str = "
    BEGIN IMMEDIATE;
    CREATE TABLE IF NOT EXISTS entries (
        seq INTEGER PRIMARY KEY, at_unix_ms INTEGER NOT NULL, author TEXT, kind TEXT NOT NULL,
        body TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS tiles (
        level INTEGER NOT NULL, place INTEGER NOT NULL, hashes BLOB NOT NULL,
        PRIMARY KEY (level, place)) STRICT;
    CREATE TABLE IF NOT EXISTS head (
        one INTEGER PRIMARY KEY CHECK (one = 1), checkpoint TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS snapshot (
        one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, root BLOB NOT NULL,
        state BLOB NOT NULL, signature BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS epochs (
        segment INTEGER NOT NULL, epoch INTEGER NOT NULL, signed BLOB NOT NULL,
        secret BLOB NOT NULL, PRIMARY KEY (segment, epoch)) STRICT;
    PRAGMA user_version = 5;
    COMMIT;
";
