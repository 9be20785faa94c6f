//! How old entries leave the disk. Their hashes stay in the tiles, so that every proof goes on working, for
//! whoever has kept the line as well. Which entries left is itself an entry: a row that is missing without one
//! is a fault.
//!
//! Entries leave in ranges, from the first of the log on; from a range, all entries of the named kinds leave, and
//! all others stay. Only entries before the snapshot, and in complete tiles, can leave.

use crate::entry::NewEntry;
use crate::error::LogError;
use crate::store::Store;
use ledger::tile::WIDTH;
use rusqlite::params;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The kind of the entry that says what left.
pub const KIND: &str = "entries_pruned";

/// The entries that left, as the body of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// The kind of entry that left.
    pub of: String,
    /// The first number of the range.
    pub from: u64,
    /// The last number of the range.
    pub through: u64,
    /// How many left.
    pub count: u64,
    /// SHA-256 of their numbers, 8 bytes each, big-endian, in hex.
    pub numbers: String,
}

impl Store {
    /// Where the next range begins.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn pruned_through(&self) -> Result<u64, LogError> {
        let mut query = self
            .db
            .prepare_cached("SELECT body FROM entries WHERE kind = ?1 ORDER BY seq DESC LIMIT 1")?;
        let mut rows = query.query([KIND])?;
        let Some(row) = rows.next()? else {
            return Ok(0);
        };
        let body: String = row.get(0)?;
        let pruned: Result<Pruned, _> = serde_json::from_str(&body);
        pruned
            .map(|pruned| pruned.through)
            .map_err(|error| LogError::Damaged(error.to_string()))
    }

    /// Lets the entries of kind `of` that were written before a time leave, at most those among the next `most`
    /// entries. `at_unix_ms` is the time of the entry that says so, which is returned; `None`: there are none.
    ///
    /// # Errors
    /// [`LogError`]; then nothing has changed.
    pub fn prune(
        &mut self,
        of: &str,
        before_unix_ms: i64,
        most: u64,
        at_unix_ms: i64,
    ) -> Result<Option<Pruned>, LogError> {
        let after = self.pruned_through()?;
        let width = WIDTH as u64;
        let last = self.snapshot - self.snapshot % width;
        // By number and not by time alone: the clock may have been set, and ranges must not overlap.
        let young: Option<i64> = self.db.query_row(
            "SELECT min(seq) FROM entries WHERE seq > ?1 AND seq <= ?2 AND at_unix_ms >= ?3",
            params![after.cast_signed(), last.cast_signed(), before_unix_ms],
            |row| row.get(0),
        )?;
        let through = young.map_or(last, |seq| seq.cast_unsigned() - 1);
        let through = through.min(after.saturating_add(most));
        if through <= after {
            return Ok(None);
        }
        let range = params![after.cast_signed(), through.cast_signed(), of];
        let mut hash = Sha256::new();
        let mut count = 0;
        {
            let mut query = self.db.prepare_cached(
                "SELECT seq FROM entries WHERE seq > ?1 AND seq <= ?2 AND kind = ?3 ORDER BY seq",
            )?;
            let mut rows = query.query(range)?;
            while let Some(row) = rows.next()? {
                hash.update(row.get::<_, i64>(0)?.to_be_bytes());
                count += 1;
            }
        }
        let pruned = Pruned {
            of: of.to_owned(),
            from: after + 1,
            through,
            count,
            numbers: hex(hash),
        };
        let body = serde_json::to_string(&pruned);
        let entry = NewEntry {
            at_unix_ms,
            by: None,
            kind: KIND.to_owned(),
            body: body.map_err(|error| LogError::Damaged(error.to_string()))?,
        };
        self.append(&[entry], |transaction| {
            transaction.execute(
                "DELETE FROM entries WHERE seq > ?1 AND seq <= ?2 AND kind = ?3",
                range,
            )?;
            Ok(())
        })?;
        Ok(Some(pruned))
    }
}

/// The hash of numbers that are missing, as [`Pruned::numbers`] has it.
pub(crate) fn hash_of(numbers: &[u64]) -> String {
    let mut hash = Sha256::new();
    numbers
        .iter()
        .for_each(|seq| hash.update(seq.to_be_bytes()));
    hex(hash)
}

fn hex(hash: Sha256) -> String {
    let bytes: [u8; 32] = hash.finalize().into();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
