//! The event log as the controller uses it: events as the entries of a [`record::Store`], and in the same
//! transactions the few epochs whose secrets are still of use.
//!
//! A log that is opened is verified, and folded into a [`Fleet`]. A whole copy of an earlier state, with its own
//! checkpoint, cannot be told from the log itself; the nodes can, by the checkpoints that they keep.
//!
//! The file is long because opening, writing and letting go of old entries share one open log.

use crate::by::By;
use crate::clock::Now;
use crate::event::Event;
use crate::fleet::Fleet;
use crate::reserve::Reserve;
use jiff::Timestamp;
use keys::{AuthorityId, AuthoritySecret, Epoch, EpochSecret, LogSecret, SegmentId};
use record::open::{Item, Trust};
use record::{Entry, NewEntry, Store};
use rusqlite::{Connection, Transaction, params};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::admin::{EventInfo, EventList};
use wire::log::{LogEnd, LogNews};
use wire::{Digest, EpochUpdate, Signed};
use zeroize::Zeroizing;

pub(crate) mod next_key;

pub use record::store::path_in;
pub use record::{Head, LogError};

/// The log, open and locked for this process.
#[derive(Debug)]
pub struct Log {
    store: Store,
    path: PathBuf,
    reserve: Reserve,
    no_room_for_evidence: bool,
    /// The write-ahead log still holds what the tables have lost.
    unwiped: bool,
    /// No snapshot is tried before this.
    snapshot_at: Duration,
    /// When to look for evidence that is too old to be kept.
    prune_at: Duration,
    /// The proofs that were made last: with an epoch, all nodes need the same few.
    proofs: RefCell<Proofs>,
}

/// Proofs that the log of `to` events extends earlier ones, by the number of events of those.
#[derive(Debug, Default)]
struct Proofs {
    to: u64,
    from: BTreeMap<u64, Vec<[u8; 32]>>,
}

/// A log that was opened, with all that is in it.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub log: Log,
    /// The fold of its events.
    pub fleet: Fleet,
    /// The epochs that are kept beside them, oldest first.
    pub epochs: Vec<StoredEpoch>,
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
    /// Opens the log, verifies and folds it; creates an empty one if there is none. The mesh in it must be of one
    /// of the authorities that are `trusted`.
    ///
    /// # Errors
    /// [`LogError`], with the way out.
    pub fn open(
        path: &Path,
        secret: LogSecret,
        trusted: &[AuthorityId],
    ) -> Result<Opened, LogError> {
        let mut fleet = Fleet::default();
        let store = record::open(path, trust(path, secret), |item| fold(&mut fleet, item))?;
        Self::opened(path, store, fleet, trusted)
    }

    /// The same for a log that must be there, with a mesh in it. Changes nothing where there is none: what is
    /// left may be of use to whoever restores it.
    ///
    /// # Errors
    /// [`LogError`], with the way out; [`LogError::Lost`] where there is no mesh.
    pub fn resume(
        path: &Path,
        secret: LogSecret,
        trusted: &[AuthorityId],
    ) -> Result<Opened, LogError> {
        let mut fleet = Fleet::default();
        let store = record::resume(path, trust(path, secret), |item| fold(&mut fleet, item))?;
        Self::opened(path, store, fleet, trusted)
    }

    fn opened(
        path: &Path,
        store: Store,
        fleet: Fleet,
        trusted: &[AuthorityId],
    ) -> Result<Opened, LogError> {
        if let Some(authority) = fleet.authority().filter(|it| !trusted.contains(it)) {
            return Err(LogError::Authority(authority));
        }
        let epochs = read_epochs(store.database())?;
        next_key::settle::<LogSecret>(path, &store.key())?;
        let log = Self {
            store,
            path: path.to_owned(),
            reserve: Reserve::beside(path),
            no_room_for_evidence: false,
            unwiped: true,
            snapshot_at: Duration::ZERO,
            prune_at: Duration::ZERO,
            proofs: RefCell::default(),
        };
        Ok(Opened { log, fleet, epochs })
    }

    /// The newest event, and the root of the tree with it.
    pub fn head(&self) -> Head {
        self.store.head()
    }

    /// The number of the newest event.
    pub fn events(&self) -> u64 {
        self.store.size()
    }

    /// The newest event, and the root of the tree with it, as nodes hear of it.
    pub fn end(&self) -> LogEnd {
        let Head { seq, hash } = self.head();
        LogEnd {
            events: seq,
            root: Digest(hash),
        }
    }

    /// Whether the log is one that goes on from `end`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn extends(&self, end: &LogEnd) -> Result<bool, LogError> {
        let root = self.store.root_at(end.events)?;
        Ok(root.is_some_and(|root| root.0 == end.root.0))
    }

    /// The newest checkpoint, and the proof that it extends the log of `from` events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn news_since(&self, from: u64) -> Result<LogNews, LogError> {
        let to = self.events();
        let mut proofs = self.proofs.borrow_mut();
        if proofs.to != to || proofs.from.len() >= MAX_PROOFS {
            *proofs = Proofs {
                to,
                from: BTreeMap::new(),
            };
        }
        let proof = match proofs.from.get(&from) {
            Some(proof) => proof.clone(),
            None => {
                let hashes = self.store.consistency(from, to)?.unwrap_or_default();
                let proof: Vec<[u8; 32]> = hashes.iter().map(|hash| hash.0).collect();
                proofs.from.insert(from, proof.clone());
                proof
            }
        };
        Ok(LogNews {
            checkpoint: self.store.checkpoint().to_owned(),
            from,
            proof,
            restored: None,
        })
    }

    /// The log with its tree, to be read.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Names a log that holds nothing yet.
    pub fn found(&mut self, origin: &str) {
        self.store.found(origin);
    }

    /// Makes `events` durable, and the epochs that they publish, at the word of `by`; the log's key signs the new
    /// end. On an error nothing has changed.
    ///
    /// On a full disk, evidence is refused, and everything else is written in the room that was held for it.
    ///
    /// # Errors
    /// [`LogError`]; the same call may succeed later.
    pub fn append(
        &mut self,
        at: Timestamp,
        by: Option<By>,
        events: &[Event],
        epochs: &[NewEpoch<'_>],
    ) -> Result<(), LogError> {
        let entries: Vec<_> = events.iter().map(|event| entry(at, by, event)).collect();
        if epochs.is_empty() && is_evidence(events) {
            return self.append_evidence(&entries);
        }
        let mut result = self.try_append(&entries, epochs);
        // Somebody else may take the piece that was given up: then there is another, but not all of them for one write.
        for _ in 0..PIECES_AT_ONCE {
            let is_full = matches!(result, Err(LogError::Full | LogError::NotTaken));
            if !is_full || !self.reserve.spend() {
                break;
            }
            result = self.try_append(&entries, epochs);
        }
        result
    }

    /// Evidence never gets into the room that is held for the rest.
    fn append_evidence(&mut self, entries: &[NewEntry]) -> Result<(), LogError> {
        let result = if self.reserve.is_spent() {
            Err(LogError::Full)
        } else {
            self.try_append(entries, &[])
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
        entries: &[NewEntry],
        epochs: &[NewEpoch<'_>],
    ) -> Result<(), LogError> {
        self.store.append(entries, |transaction| {
            let mut epochs = epochs.iter();
            epochs.try_for_each(|epoch| insert_epoch(transaction, epoch))
        })?;
        self.unwiped |= !epochs.is_empty();
        Ok(())
    }

    /// Gives the log a new key, whose public half `event` is to say. The checkpoint with that event has the
    /// signatures of both; the file of the new key takes the place of the old one's.
    ///
    /// # Errors
    /// [`LogError`]; then the old key goes on.
    pub fn rotate_key(
        &mut self,
        at: Timestamp,
        by: Option<By>,
        new: LogSecret,
        event: &Event,
    ) -> Result<(), LogError> {
        let public = new.public();
        next_key::write_next(&self.path, &new)?;
        let entries = [entry(at, by, event)];
        self.store.append_with_new_key(&entries, new, |_| Ok(()))?;
        // Should that fail, the next start does it.
        if let Err(error) = next_key::settle::<LogSecret>(&self.path, &public) {
            tracing::warn!(%error, "the log's new key waits in log.key.new for its name");
        }
        Ok(())
    }

    /// Puts the key on the disk that is about to sign for the mesh.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_next_authority(&self, new: &AuthoritySecret) -> std::io::Result<()> {
        next_key::write_next(&self.path, new)
    }

    /// Leaves the key of the authority that the log names alone on the disk.
    pub(crate) fn settle_authority(&self, key: AuthorityId) {
        // Should that fail, the next start does it.
        if let Err(error) = next_key::settle::<AuthoritySecret>(&self.path, &key) {
            tracing::warn!(%error, "the authority's new key waits in authority.key.new for its name");
        }
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
            self.store.wipe();
        }
        let was_spent = self.reserve.is_spent();
        self.reserve.keep(nodes, now);
        if was_spent && !self.reserve.is_spent() {
            self.no_room_for_evidence = false;
        }
    }

    /// Keeps a snapshot of `fleet`, which is the fold of the log, where enough has been written since the last
    /// one; and lets evidence leave that is older than `keep`. Little at a time, because nobody is served
    /// meanwhile. Returns the event that says what left.
    pub fn retain(&mut self, fleet: &Fleet, keep: Duration, now: Now) -> Option<Event> {
        let written = self.events() - self.store.snapshot_seq();
        let is_due = now.boot >= self.prune_at;
        let wanted = written >= SNAPSHOT_AFTER || (is_due && written >= PRUNE_AFTER);
        if wanted && now.boot >= self.snapshot_at {
            self.snapshot(fleet);
            // One that fails is not tried again with every commit: it takes as long as one that succeeds.
            self.snapshot_at = now.boot + SNAPSHOT_PAUSE;
        }
        if !is_due || keep.is_zero() {
            return None;
        }
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let at = now.wall.as_millisecond();
        let before = at.saturating_sub(keep_ms);
        let pruned = self.store.prune(EVIDENCE, before, PRUNED_AT_ONCE, at);
        let (event, wait) = match pruned {
            Ok(Some(pruned)) => (Some(Event::EntriesPruned(pruned)), PRUNE_PAUSE),
            Ok(None) => (None, PRUNE_EVERY),
            Err(error) => {
                tracing::warn!(%error, "evidence that is too old cannot leave the event log");
                (None, PRUNE_EVERY)
            }
        };
        self.prune_at = now.boot + wait;
        self.unwiped |= event.is_some();
        event
    }

    pub(crate) fn snapshot(&mut self, fleet: &Fleet) {
        let state = fleet.to_snapshot();
        match self.store.keep_snapshot(&state) {
            Ok(()) => tracing::debug!(bytes = state.len(), "snapshot of the event log"),
            Err(error) => tracing::warn!(
                %error,
                "no snapshot of the event log: the next start reads more of it"
            ),
        }
    }

    /// The events after number `after`, at most `limit` of them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn page(&self, after: u64, limit: u64) -> Result<EventList, LogError> {
        let entries = self.store.page(after, limit)?;
        Ok(EventList {
            events: entries.into_iter().map(info).collect(),
            head: self.events(),
            next: 0,
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
        let db = self.store.database();
        let set: rusqlite::Result<i64> = db.query_row(pragma, [], |row| row.get(0));
        set.unwrap();
    }
}

fn trust(path: &Path, secret: LogSecret) -> Trust {
    Trust {
        next: next_key::read_next(path),
        secret,
    }
}

/// Folds what the log holds; whether this version knows it.
fn fold(fleet: &mut Fleet, item: Item) -> bool {
    match item {
        Item::State { state, .. } => match Fleet::from_snapshot(&state) {
            Ok(state) => {
                *fleet = state;
                true
            }
            Err(_) => false,
        },
        Item::Entry(entry) => match read(&entry) {
            Some((at, by, event)) => {
                fleet.apply(at, by, &event);
                true
            }
            None => false,
        },
    }
}

/// The event in an entry, when it happened, and at whose word; `None` if this version does not know it.
pub fn read(entry: &Entry) -> Option<(Timestamp, Option<By>, Event)> {
    let at = Timestamp::from_millisecond(entry.at_unix_ms).ok()?;
    let by = entry.by.as_deref().map(str::parse).transpose().ok()?;
    let event = Event::from_columns(&entry.kind, &entry.body).ok()?;
    Some((at, by, event))
}

fn entry(at: Timestamp, by: Option<By>, event: &Event) -> NewEntry {
    let (kind, body) = event.columns();
    NewEntry {
        at_unix_ms: at.as_millisecond(),
        by: by.map(|by| by.to_string()),
        kind,
        body,
    }
}

fn info(entry: Entry) -> EventInfo {
    let leaf = Digest(entry.leaf().0).to_string();
    let at = Timestamp::from_millisecond(entry.at_unix_ms);
    EventInfo {
        seq: entry.seq,
        at_utc: at.map_or_else(|_| String::new(), crate::format::utc),
        by: entry.by,
        kind: entry.kind,
        body: serde_json::from_str(&entry.body).unwrap_or(serde_json::Value::Null),
        leaf,
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

/// Events after which a snapshot is kept: a start reads no more of them than that, in about a second.
const SNAPSHOT_AFTER: u64 = 65_536;
/// The same when evidence is due to leave, which only events before a snapshot can.
const PRUNE_AFTER: u64 = 4_096;
const MAX_PROOFS: usize = 4_096;
/// Pieces of the room that was held that one write may use up.
const PIECES_AT_ONCE: usize = 8;
/// Between two snapshots, or attempts at one.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(10);
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
/// Between two lots, while there are more.
const PRUNE_PAUSE: Duration = Duration::from_secs(1);
/// Events that are looked through for one lot.
const PRUNED_AT_ONCE: u64 = 1_024;
/// The kind of [`Event::EvidenceAccepted`].
const EVIDENCE: &str = "evidence_accepted";

#[cfg(test)]
mod tests;
