//! How a log is opened, and what is verified then.
//!
//! ```text
//! with a snapshot      its signature ─▶ the tree at its place, from tiles ─▶ its root ─▶ the entries behind it
//! without              the entries from the first
//! then                 the root of them all is the one in the checkpoint, which the log's key has signed
//! ```
//!
//! A log that was changed, cut, lengthened or torn behind its snapshot is refused, never repaired. What lies before
//! it has no part in the state that is resumed; [`crate::audit`] verifies that.

use crate::entry::Entry;
use crate::error::LogError;
use crate::schema::{self, PRAGMAS, SCHEMA, VERSION};
use crate::snapshot::Snapshot;
use crate::store::{Store, read_checkpoint, read_entry};
use crate::tiles::tree_at;
use keys::LogSecret;
use ledger::note::{Note, Verifier};
use ledger::tile::WIDTH;
use ledger::{Checkpoint, Hash, Tree};
use rusqlite::Connection;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

/// The key that has to have signed, and that signs from now on.
#[derive(Debug)]
pub struct Trust {
    /// The log's key.
    pub secret: LogSecret,
    /// The key that was about to take its place when the log was used last: it does, if it has signed.
    pub next: Option<LogSecret>,
}

impl Trust {
    /// The key that goes on from this checkpoint. Believes nothing: it says which key has to have signed.
    fn signer(self, note: Option<&str>) -> LogSecret {
        let Some(next) = self.next else {
            return self.secret;
        };
        let note = note.and_then(|text| Note::parse(text.as_bytes()).ok());
        let has_signed = note.is_some_and(|note| {
            let origin = note.text().split('\n').next().unwrap_or_default();
            let verifier = Verifier::new(origin, next.public());
            verifier.is_ok_and(|verifier| note.verify(&verifier).is_ok())
        });
        if has_signed { next } else { self.secret }
    }
}

/// The content of a log as it is opened, in this order: the snapshot, if there is one, and then
/// each entry behind it, oldest first.
#[derive(Debug)]
pub enum Item {
    /// The state at entry `seq`, as it was when the snapshot was taken.
    State {
        /// The newest entry that it holds.
        seq: u64,
        /// The state.
        state: Vec<u8>,
    },
    /// An entry.
    Entry(Entry),
}

/// Opens the log and verifies it; creates an empty one if there is none.
///
/// # Errors
/// [`LogError`], with the way out. What `each` was given is then worth nothing. [`LogError::Newer`] for the
/// first entry that `each` does not know: it says so by `false`.
pub fn open(path: &Path, trust: Trust, each: impl FnMut(Item) -> bool) -> Result<Store, LogError> {
    schema::create_private(path)?;
    let db = schema::connect(path)?;
    db.execute_batch(PRAGMAS)?;
    match schema::version_of(&db)? {
        // Nothing is written then: a controller must come up on a full disk.
        VERSION => {}
        0 => db.execute_batch(SCHEMA)?,
        _ => return Err(LogError::Schema),
    }
    read(db, trust, each)
}

/// The same for a log that must be there, with an entry in it. Changes nothing where there is none: what is
/// left may be of use to whoever restores it.
///
/// # Errors
/// [`LogError`], with the way out; [`LogError::Lost`] where there is nothing.
pub fn resume(
    path: &Path,
    trust: Trust,
    each: impl FnMut(Item) -> bool,
) -> Result<Store, LogError> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() == 0 => return Err(LogError::Lost("the file is empty")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(LogError::Lost("there is no such file"));
        }
        Ok(_) | Err(_) => {}
    }
    let db = schema::connect(path)?;
    match schema::version_of(&db)? {
        VERSION if schema::has_tables(&db)? => {}
        0 | VERSION => {
            return Err(LogError::Lost("it is a database without the log's tables"));
        }
        _ => return Err(LogError::Schema),
    }
    db.execute_batch(PRAGMAS)?;
    let store = read(db, trust, each)?;
    if store.head().seq == 0 {
        return Err(LogError::Lost(
            "it holds no event, not even the mesh's first",
        ));
    }
    Ok(store)
}

fn read(
    db: Connection,
    trust: Trust,
    mut each: impl FnMut(Item) -> bool,
) -> Result<Store, LogError> {
    let note = read_checkpoint(&db)?;
    let secret = trust.signer(note.as_deref());
    let signed = note.map(|text| Ok::<_, LogError>((believed(&text, &secret)?, text)));
    let signed = signed.transpose()?;
    let snapshot = Snapshot::read(&db)?;
    if let Some(snapshot) = &snapshot {
        snapshot
            .verify(secret.public())
            .map_err(LogError::Snapshot)?;
    }
    let from = snapshot.as_ref().map_or(0, |snapshot| snapshot.seq);
    let snapshot_root = snapshot.as_ref().map(|snapshot| snapshot.root);
    let mut unknown = None;
    if let Some(snapshot) = snapshot {
        let (seq, state) = (snapshot.seq, snapshot.state);
        if !each(Item::State { seq, state }) {
            return Err(LogError::Snapshot("of another version"));
        }
    }
    let tree = verify_from(&db, from, snapshot_root, |entry| {
        let seq = entry.seq;
        if unknown.is_none() && !each(Item::Entry(entry)) {
            unknown = Some(seq);
        }
    })?;
    let (origin, checkpoint) = match signed {
        None if tree.size() == 0 => (String::new(), String::new()),
        None => {
            let (seq, what) = (tree.size(), "nothing signs it");
            return Err(LogError::Entry { seq, what });
        }
        Some((checkpoint, text)) => {
            hold(&checkpoint, &tree)?;
            (checkpoint.origin, text)
        }
    };
    // Only now: an event that anybody could have put there asks for no newer version.
    if let Some(seq) = unknown {
        return Err(LogError::Newer(seq));
    }
    Ok(Store {
        db,
        tree,
        secret,
        origin,
        checkpoint,
        snapshot: from,
        roots: RefCell::new(BTreeMap::new()),
    })
}

/// Reads every entry behind `from` against the tree; returns the tree of all.
pub(crate) fn verify_from(
    db: &Connection,
    from: u64,
    root: Option<Hash>,
    mut each: impl FnMut(Entry),
) -> Result<Tree, LogError> {
    // The tile that `from` lies in may not be complete; what is in it is read from the entries.
    let whole = from - from % WIDTH as u64;
    let tree = tree_at(db, whole)?;
    let mut tree = tree.ok_or(LogError::Snapshot("without the tree that leads to it"))?;
    let mut query = db.prepare(
        "SELECT seq, at_unix_ms, author, kind, body FROM entries WHERE seq > ?1 ORDER BY seq",
    )?;
    let mut rows = query.query([whole.cast_signed()])?;
    let differs = LogError::Snapshot("not of the events before it");
    while let Some(row) = rows.next()? {
        let seq = tree.size() + 1;
        let broken = |what| LogError::Entry { seq, what };
        if row.get::<_, i64>(0)?.cast_unsigned() != seq {
            return Err(broken("it is missing"));
        }
        let entry = read_entry(row).map_err(|_| broken("its columns are not of their types"))?;
        if tree.size() == from && root.is_some_and(|root| root != tree.root()) {
            return Err(differs);
        }
        tree.append(entry.leaf(), |_| {});
        if seq > from {
            each(entry);
        }
    }
    if tree.size() < from {
        let (seq, what) = (tree.size() + 1, "it is missing");
        return Err(LogError::Entry { seq, what });
    }
    if tree.size() == from && root.is_some_and(|root| root != tree.root()) {
        return Err(differs);
    }
    Ok(tree)
}

/// The checkpoint in a note, if the log's key signed it.
fn believed(text: &str, secret: &LogSecret) -> Result<Checkpoint, LogError> {
    let key = secret.public();
    let note = Note::parse(text.as_bytes());
    let note = note.map_err(|error| LogError::Checkpoint(error.to_string()))?;
    let origin = note.text().split('\n').next().unwrap_or_default();
    let verifier = Verifier::new(origin, key);
    let verifier = verifier.map_err(|error| LogError::Checkpoint(error.to_string()))?;
    let is_its = |line: &ledger::note::Line| line.id == verifier.id(ledger::note::ALGORITHM_NOTE);
    if !note.signatures().iter().any(is_its) {
        return Err(LogError::Signer(key));
    }
    let checkpoint = Checkpoint::verify(&note, &verifier);
    checkpoint.map_err(|error| LogError::Checkpoint(error.to_string()))
}

/// Holds a checkpoint against the tree of the entries.
pub(crate) fn hold(checkpoint: &Checkpoint, tree: &Tree) -> Result<(), LogError> {
    let (signed, there) = (checkpoint.size, tree.size());
    let broken = |seq, what| Err(LogError::Entry { seq, what });
    if signed > there {
        broken(there + 1, "it was signed and is missing")
    } else if signed < there {
        broken(signed + 1, "it was added behind the signed end")
    } else if checkpoint.root != tree.root() {
        Err(LogError::Checkpoint(format!(
            "it says {} for {signed} events, which have {}",
            checkpoint.root,
            tree.root()
        )))
    } else {
        Ok(())
    }
}
