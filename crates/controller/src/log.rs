//! The append-only event log in SQLite, and beside it the few epochs whose secrets are still of use.
//!
//! Each event is chained to the one before by its hash (`log/chain.rs`). The authority signs the head, the
//! newest event's number and hash, with every commit, and only the newest signature is kept: nobody without
//! the key can append an event, nor cut any off, because no signature of a shorter log is left to end it
//! with. Opening reads and verifies the whole chain: a log that was changed, cut, lengthened or torn is
//! refused, never repaired. One [`Log::append`] is one transaction: all of its events are durable, or none
//! is. A whole copy of an earlier state, with its own signature, cannot be told from the log itself; the
//! nodes can, by their marks.

use crate::event::Event;
use crate::reserve::Reserve;
use chain::{check_head, insert, read_chain, sign_head};
use jiff::Timestamp;
use keys::{AuthorityId, AuthoritySecret, Epoch, EpochSecret, SegmentId};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::admin::{EventInfo, EventList};
use wire::{Digest, EpochUpdate, Signed};
use zeroize::Zeroizing;

mod chain;
mod error;

pub use error::LogError;

/// The log, open and locked for this process.
#[derive(Debug)]
pub struct Log {
    db: Connection,
    head: Head,
    reserve: Reserve,
    no_room_for_evidence: bool,
    signer: Option<AuthorityId>,
    /// The write-ahead log still holds secrets that the table has lost.
    unwiped: bool,
}

/// The newest event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number; zero for an empty log.
    pub seq: u64,
    /// The chain's hash up to and with it.
    pub hash: [u8; 32],
}

/// An event in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it was written.
    pub at: Timestamp,
    /// The event itself.
    pub event: Event,
}

/// An epoch that a node may still need.
#[derive(Debug)]
pub struct StoredEpoch {
    /// Its segment.
    pub segment: SegmentId,
    /// Its number.
    pub epoch: Epoch,
    /// Its update.
    pub signed: Signed<EpochUpdate>,
    /// Its secret.
    pub secret: EpochSecret,
}

/// An epoch to store together with the event that publishes it.
#[derive(Debug)]
pub struct NewEpoch<'a> {
    /// Its segment.
    pub segment: SegmentId,
    /// Its number.
    pub epoch: Epoch,
    /// Its update.
    pub signed: &'a Signed<EpochUpdate>,
    /// Its secret.
    pub secret: &'a EpochSecret,
    /// The epoch in force, the only other one of the segment that is kept.
    pub keep: Option<Epoch>,
}

impl Log {
    /// Opens the log and verifies it; `each` is given every event, oldest first. Creates an empty one
    /// if there is none. Its end must be signed by one of `trusted`. Also returns the epochs that are kept,
    /// oldest first.
    ///
    /// # Errors
    /// [`LogError`], with the way out. The events that `each` was given are then worth nothing.
    pub fn open(
        path: &Path,
        trusted: &[AuthorityId],
        each: impl FnMut(Entry),
    ) -> Result<(Self, Vec<StoredEpoch>), LogError> {
        create_private(path)?;
        let db = connect(path)?;
        db.execute_batch(PRAGMAS)?;
        match schema_of(&db)? {
            // Nothing is written then: a controller must come up on a full disk.
            SCHEMA_VERSION => {}
            0 => db.execute_batch(SCHEMA)?,
            _ => return Err(LogError::Schema),
        }
        Self::read(path, db, trusted, each)
    }

    /// The same for a log that must be there, with a mesh in it. Changes nothing where there is none: what is
    /// left may be of use to whoever restores it.
    ///
    /// # Errors
    /// [`LogError`], with the way out; [`LogError::Lost`] where there is no mesh.
    pub fn resume(
        path: &Path,
        trusted: &[AuthorityId],
        each: impl FnMut(Entry),
    ) -> Result<(Self, Vec<StoredEpoch>), LogError> {
        match std::fs::metadata(path) {
            Ok(meta) if meta.len() == 0 => return Err(LogError::Lost("the file is empty")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(LogError::Lost("there is no such file"));
            }
            Ok(_) | Err(_) => {}
        }
        let db = connect(path)?;
        match schema_of(&db)? {
            SCHEMA_VERSION if has_tables(&db)? => {}
            0 | SCHEMA_VERSION => {
                return Err(LogError::Lost("it is a database without the log's tables"));
            }
            _ => return Err(LogError::Schema),
        }
        db.execute_batch(PRAGMAS)?;
        let (log, epochs) = Self::read(path, db, trusted, each)?;
        if log.head.seq == 0 {
            return Err(LogError::Lost(
                "it holds no event, not even the mesh's first",
            ));
        }
        Ok((log, epochs))
    }

    fn read(
        path: &Path,
        db: Connection,
        trusted: &[AuthorityId],
        each: impl FnMut(Entry),
    ) -> Result<(Self, Vec<StoredEpoch>), LogError> {
        let (head, unknown) = read_chain(&db, each)?;
        let signer = check_head(&db, head, trusted)?;
        // Only now: an event that anybody could have put there asks for no newer version.
        if let Some(seq) = unknown {
            return Err(LogError::Newer(seq));
        }
        let epochs = read_epochs(&db)?;
        let log = Self {
            db,
            head,
            reserve: Reserve::beside(path),
            no_room_for_evidence: false,
            signer,
            unwiped: true,
        };
        Ok((log, epochs))
    }

    /// The newest event.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Makes `events` durable, and the epochs that they publish; `authority` signs the new head. On an
    /// error nothing has changed.
    ///
    /// On a full disk, evidence is refused, and everything else is written in the room that was held for it.
    ///
    /// # Errors
    /// [`LogError`]; the same call may succeed later.
    pub fn append(
        &mut self,
        at: Timestamp,
        events: &[Event],
        epochs: &[NewEpoch<'_>],
        authority: &AuthoritySecret,
    ) -> Result<(), LogError> {
        if epochs.is_empty() && is_evidence(events) {
            return self.append_evidence(at, events, authority);
        }
        match self.try_append(at, events, epochs, authority) {
            Err(LogError::Full | LogError::NotTaken) if self.reserve.spend() => {
                self.try_append(at, events, epochs, authority)
            }
            result => result,
        }
    }

    /// Evidence never gets into the room that is held for the rest.
    fn append_evidence(
        &mut self,
        at: Timestamp,
        events: &[Event],
        authority: &AuthoritySecret,
    ) -> Result<(), LogError> {
        let result = if self.reserve.is_spent() {
            Err(LogError::Full)
        } else {
            self.try_append(at, events, &[], authority)
        };
        match &result {
            Err(LogError::Full | LogError::NotTaken)
                if !std::mem::replace(&mut self.no_room_for_evidence, true) =>
            {
                tracing::warn!("the disk is full: evidence is refused; free some space");
            }
            Ok(()) if std::mem::take(&mut self.no_room_for_evidence) => {
                tracing::info!("there is room for evidence again");
            }
            _ => {}
        }
        result
    }

    fn try_append(
        &mut self,
        at: Timestamp,
        events: &[Event],
        epochs: &[NewEpoch<'_>],
        authority: &AuthoritySecret,
    ) -> Result<(), LogError> {
        let mut head = self.head;
        let transaction = self.db.transaction()?;
        for event in events {
            head = insert(&transaction, head, at, event)?;
        }
        for epoch in epochs {
            insert_epoch(&transaction, epoch)?;
        }
        sign_head(&transaction, head, authority)?;
        transaction.commit()?;
        self.head = head;
        self.unwiped |= !epochs.is_empty();
        Ok(())
    }

    /// Whether no room could be held, whatever the disk says now.
    pub fn holds_no_room(&self) -> bool {
        self.reserve.is_absent()
    }

    /// Whether the disk was full when it was last written to, or there is no room yet to hold for the next
    /// time.
    pub fn is_short_of_room(&self) -> bool {
        self.reserve.is_spent() || self.no_room_for_evidence
    }

    /// Lets wiped secrets leave the write-ahead log too, and holds room for a mesh of `nodes`. Apart from
    /// [`Self::append`], because it takes as long again and nobody has to wait for it. A failure is
    /// made up for with the next epoch.
    pub fn tidy(&mut self, nodes: usize, now: Duration) {
        if std::mem::take(&mut self.unwiped) {
            let _ = self
                .db
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        let was_spent = self.reserve.is_spent();
        self.reserve.keep(nodes, now);
        if was_spent && !self.reserve.is_spent() {
            self.no_room_for_evidence = false;
        }
    }

    /// The chain's hash up to and with event `seq`; `None` if there is none yet.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn hash_at(&self, seq: u64) -> Result<Option<[u8; 32]>, LogError> {
        if seq > self.head.seq {
            return Ok(None);
        }
        let mut query = self
            .db
            .prepare_cached("SELECT hash FROM events WHERE seq = ?1")?;
        let hash = query.query_row([seq.cast_signed()], |row| row.get(0));
        Ok(hash.optional()?)
    }

    /// The key that signed the log's end when it was opened; `None`: it was empty.
    pub fn signer(&self) -> Option<AuthorityId> {
        self.signer
    }

    /// The events after number `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn page(&self, after: u64, limit: u64) -> Result<EventList, LogError> {
        let mut query = self.db.prepare_cached(
            "SELECT seq, at_unix_ms, kind, body, hash FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let bound = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let rows = query.query_map(params![bound(after), bound(limit)], |row| {
            let (at, body): (i64, String) = (row.get(1)?, row.get(3)?);
            Ok(EventInfo {
                seq: row.get::<_, i64>(0)?.unsigned_abs(),
                at_utc: Timestamp::from_millisecond(at)
                    .map_or_else(|_| String::new(), crate::format::utc),
                kind: row.get(2)?,
                body: serde_json::from_str(&body).unwrap_or(serde_json::Value::Null),
                hash: Digest(row.get(4)?).to_string(),
            })
        })?;
        Ok(EventList {
            events: rows.collect::<Result<_, _>>()?,
            head: self.head.seq,
        })
    }

    /// Lets the database grow no further, as a full disk would.
    #[cfg(test)]
    pub(crate) fn fill_up(&self) {
        self.limit_pages("PRAGMA max_page_count = 1");
    }

    /// Whether the room that was held has been given up, as evidence alone never does.
    #[cfg(test)]
    pub(crate) fn has_spent_its_room(&self) -> bool {
        self.reserve.is_spent()
    }

    /// Ends [`Self::fill_up`].
    #[cfg(test)]
    pub(crate) fn free_up(&self) {
        self.limit_pages("PRAGMA max_page_count = 1000000");
    }

    #[cfg(test)]
    fn limit_pages(&self, pragma: &str) {
        let set: rusqlite::Result<i64> = self.db.query_row(pragma, [], |row| row.get(0));
        set.unwrap();
    }
}

/// Whether there is nothing but evidence.
pub(crate) fn is_evidence(events: &[Event]) -> bool {
    let mut events = events.iter();
    events.all(|event| matches!(event, Event::EvidenceAccepted(_)))
}

fn insert_epoch(transaction: &Transaction<'_>, new: &NewEpoch<'_>) -> Result<(), LogError> {
    let number = |epoch: Epoch| epoch.0.cast_signed();
    let signed = postcard::to_stdvec(new.signed).map_err(|e| LogError::Damaged(e.to_string()))?;
    // The secrets of older epochs leave the table with the commit that makes them useless. Kept, they would be
    // in every later copy of this disk, for somebody who recorded the traffic and can break X25519 some day.
    // The write-ahead log loses them in `tidy`.
    let (segment, keep) = (new.segment.0, number(new.keep.unwrap_or_default()));
    transaction.execute(
        "DELETE FROM epochs WHERE segment = ?1 AND epoch <> ?2",
        params![segment, keep],
    )?;
    transaction.execute(
        "INSERT INTO epochs (segment, epoch, signed, secret) VALUES (?1, ?2, ?3, ?4)",
        params![segment, number(new.epoch), signed, new.secret.expose()],
    )?;
    Ok(())
}

fn read_epochs(db: &Connection) -> Result<Vec<StoredEpoch>, LogError> {
    let mut query =
        db.prepare("SELECT segment, epoch, signed, secret FROM epochs ORDER BY segment, epoch")?;
    let rows = query.query_map([], |row| {
        let secret = Zeroizing::new(row.get::<_, [u8; 32]>(3)?);
        Ok((
            SegmentId(row.get(0)?),
            row.get::<_, i64>(1)?,
            row.get::<_, Vec<u8>>(2)?,
            EpochSecret::from_bytes(*secret),
        ))
    })?;
    let mut epochs = Vec::new();
    for row in rows {
        let (segment, epoch, signed, secret) = row?;
        // An update that cannot be read is as good as none: the controller publishes a new one.
        if let Ok(signed) = postcard::from_bytes(&signed) {
            let epoch = Epoch(epoch.cast_unsigned());
            epochs.push(StoredEpoch {
                segment,
                epoch,
                signed,
                secret,
            });
        }
    }
    Ok(epochs)
}

fn connect(path: &Path) -> Result<Connection, LogError> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY_TIME)?;
    db.execute_batch(ALONE)?;
    Ok(db)
}

/// The schema's version; zero: there is none.
fn schema_of(db: &Connection) -> Result<i64, LogError> {
    Ok(db.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn has_tables(db: &Connection) -> Result<bool, LogError> {
    let query = "SELECT count(*) FROM sqlite_schema WHERE name IN ('events', 'head', 'epochs')";
    let tables: i64 = db.query_row(query, [], |row| row.get(0))?;
    Ok(tables == 3)
}

/// SQLite gives its side files the mode of the main file, which therefore exists first.
fn create_private(path: &Path) -> Result<(), LogError> {
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

/// Where the log lies in a state directory.
pub fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join("controller.db")
}

/// A controller that is just stopping may still have the log.
const BUSY_TIME: Duration = Duration::from_secs(1);
const SCHEMA_VERSION: i64 = 3;
/// One process, and no shared-memory file beside the log.
const ALONE: &str = "PRAGMA locking_mode = EXCLUSIVE;";
const PRAGMAS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
";
const SCHEMA: &str = "
    BEGIN IMMEDIATE;
    CREATE TABLE IF NOT EXISTS events (
        seq INTEGER PRIMARY KEY, at_unix_ms INTEGER NOT NULL, kind TEXT NOT NULL,
        body TEXT NOT NULL, hash BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS head (
        one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash BLOB NOT NULL,
        signer BLOB NOT NULL, signature BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS epochs (
        segment INTEGER NOT NULL, epoch INTEGER NOT NULL, signed BLOB NOT NULL,
        secret BLOB NOT NULL, PRIMARY KEY (segment, epoch)) STRICT;
    PRAGMA user_version = 3;
    COMMIT;
";

#[cfg(test)]
mod tests;
