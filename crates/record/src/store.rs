//! The log, open for writing. One [`Store::append`] is one transaction: all of its entries are durable, with
//! the tree over them and a checkpoint that the log's key has signed, or nothing has changed.

use crate::entry::{Entry, NewEntry, line};
use crate::error::LogError;
use crate::schema;
use crate::tiles::{self, Stored};
use keys::{LogId, LogSecret};
use ledger::note::{Note, Verifier};
use ledger::{Checkpoint, Hash, Tree, proof};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

/// The log, open and locked for this process.
#[derive(Debug)]
pub struct Store {
    pub(crate) db: Connection,
    pub(crate) tree: Tree,
    pub(crate) secret: LogSecret,
    /// The log's name; empty until the first entry.
    pub(crate) origin: String,
    /// The newest checkpoint, as a note; empty for an empty log.
    pub(crate) checkpoint: String,
    /// The entry that the newest snapshot is of; zero without one.
    pub(crate) snapshot: u64,
    /// Roots of earlier sizes: whoever asks, asks for the same few.
    pub(crate) roots: RefCell<BTreeMap<u64, Hash>>,
}

/// The end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the newest entry; zero for an empty log.
    pub seq: u64,
    /// The root of the tree up to and with it.
    pub hash: [u8; 32],
}

/// That an entry is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The entry; `None`: it is no longer kept, but its hash is.
    pub entry: Option<Entry>,
    /// The hash of its leaf.
    pub leaf: Hash,
    /// The size of the tree that it is proved to be in.
    pub size: u64,
    /// The hashes from the leaf to the root.
    pub hashes: Vec<Hash>,
    /// The log's newest checkpoint, as a note: of that size.
    pub checkpoint: String,
}

impl Store {
    /// The end of the log.
    pub fn head(&self) -> Head {
        Head {
            seq: self.tree.size(),
            hash: self.tree.root().0,
        }
    }

    /// How many entries there are.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The log's name, which its checkpoints and its key have; empty until [`Self::found`].
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The key that signs.
    pub fn key(&self) -> LogId {
        self.secret.public()
    }

    /// The key with its name, as verifiers of notes take it.
    ///
    /// # Errors
    /// When the log has no name yet.
    pub fn verifier(&self) -> Result<Verifier, LogError> {
        let verifier = Verifier::new(&self.origin, self.key());
        verifier.map_err(|error| LogError::Number(error.to_string()))
    }

    /// The newest checkpoint, as a note; empty for an empty log.
    pub fn checkpoint(&self) -> &str {
        &self.checkpoint
    }

    /// Names a log that has no entry yet.
    pub fn found(&mut self, origin: &str) {
        if self.tree.size() == 0 {
            origin.clone_into(&mut self.origin);
        }
    }

    /// Makes `entries` durable, with whatever `also` writes, and signs the new end. On an error nothing has
    /// changed.
    ///
    /// # Errors
    /// [`LogError`]; the same call may succeed later.
    pub fn append(
        &mut self,
        entries: &[NewEntry],
        also: impl FnOnce(&Transaction<'_>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        self.write(entries, None, also)
    }

    /// The same, and from then on another key signs. This one checkpoint has both signatures: the old key's
    /// word for the new one.
    ///
    /// # Errors
    /// As [`Self::append`]; then the old key goes on.
    pub fn append_with_new_key(
        &mut self,
        entries: &[NewEntry],
        new: LogSecret,
        also: impl FnOnce(&Transaction<'_>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let snapshot = self.resigned_snapshot(&new)?;
        self.write(entries, Some(&new), |transaction| {
            also(transaction)?;
            if let Some(signature) = snapshot {
                transaction.execute("UPDATE snapshot SET signature = ?1", [signature])?;
            }
            Ok(())
        })?;
        self.secret = new;
        Ok(())
    }

    fn write(
        &mut self,
        entries: &[NewEntry],
        new: Option<&LogSecret>,
        also: impl FnOnce(&Transaction<'_>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let mut tree = self.tree.clone();
        let mut complete = Vec::new();
        let transaction = self.db.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO entries (seq, at_unix_ms, author, kind, body) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for new in entries {
                let (seq, at, by) = (tree.size() + 1, new.at_unix_ms, new.by.as_deref());
                let line = line(seq, at, by, (&new.kind, &new.body));
                insert.execute(params![seq.cast_signed(), at, by, new.kind, new.body])?;
                tree.append(Hash::of_entry(line.as_bytes()), |tile| complete.push(tile));
            }
        }
        for tile in &complete {
            tiles::write(&transaction, tile)?;
        }
        also(&transaction)?;
        let note = sign(&self.origin, &tree, &self.secret, new)?;
        transaction
            .prepare_cached("INSERT OR REPLACE INTO head (one, checkpoint) VALUES (1, ?1)")?
            .execute([&note])?;
        transaction.commit()?;
        let roots = self.roots.get_mut();
        roots.insert(tree.size(), tree.root());
        while roots.len() > MAX_ROOTS {
            roots.pop_first();
        }
        (self.tree, self.checkpoint) = (tree, note);
        Ok(())
    }

    /// The root of the tree of the first `size` entries; `None` if there are not so many.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn root_at(&self, size: u64) -> Result<Option<Hash>, LogError> {
        if size > self.tree.size() {
            return Ok(None);
        }
        if let Some(root) = self.roots.borrow().get(&size) {
            return Ok(Some(*root));
        }
        let root = proof::root(&self.stored(), size)?;
        let mut roots = self.roots.borrow_mut();
        // Anybody who is connected may ask for any size.
        if roots.len() >= MAX_ROOTS {
            roots.clear();
        }
        roots.insert(size, root);
        Ok(Some(root))
    }

    /// Proves that the log of now extends the one of `size` entries; `None` if there are not so many.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn consistency(&self, old: u64, new: u64) -> Result<Option<Vec<Hash>>, LogError> {
        if old > new || new > self.tree.size() {
            return Ok(None);
        }
        proof::consistency(&self.stored(), old, new).map(Some)
    }

    /// Proves that entry `seq` is in the log.
    ///
    /// # Errors
    /// [`LogError::Number`] if there is none; otherwise when the database cannot be read.
    pub fn prove(&self, seq: u64) -> Result<Proof, LogError> {
        let size = self.tree.size();
        if seq == 0 || seq > size {
            let what = format!("there is no event {seq}: the log has the events 1 to {size}");
            return Err(LogError::Number(what));
        }
        let leaf = proof::Nodes::node(&self.stored(), 0, seq - 1)?;
        let hashes = proof::inclusion(&self.stored(), seq - 1, size)?;
        // Made of what is stored: it is checked before anybody is told, as they would.
        proof::check_inclusion(leaf, seq - 1, (size, self.tree.root()), &hashes)?;
        let entry = self.page(seq - 1, 1)?.into_iter().find(|it| it.seq == seq);
        if let Some(entry) = entry.as_ref().filter(|entry| entry.leaf() != leaf) {
            let (seq, what) = (entry.seq, "its hash differs from the one in the tree");
            return Err(LogError::Entry { seq, what });
        }
        Ok(Proof {
            entry,
            leaf,
            size,
            hashes,
            checkpoint: self.checkpoint.clone(),
        })
    }

    /// The hash of each leaf from number `after + 1`, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn leaves(&self, after: u64, limit: u64) -> Result<Vec<Hash>, LogError> {
        let end = self.tree.size().min(after.saturating_add(limit));
        let stored = self.stored();
        (after..end)
            .map(|index| proof::Nodes::node(&stored, 0, index))
            .collect()
    }

    /// The entries that are kept after number `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn page(&self, after: u64, limit: u64) -> Result<Vec<Entry>, LogError> {
        let mut query = self.db.prepare_cached(
            "SELECT seq, at_unix_ms, author, kind, body FROM entries WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let bound = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let rows = query.query_map(params![bound(after), bound(limit)], read_entry)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Gives every entry that is kept after number `after` to `each`, oldest first, until it says that it has
    /// enough.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn replay(&self, after: u64, mut each: impl FnMut(Entry) -> bool) -> Result<(), LogError> {
        let mut query = self.db.prepare(
            "SELECT seq, at_unix_ms, author, kind, body FROM entries WHERE seq > ?1 ORDER BY seq",
        )?;
        let mut rows = query.query([i64::try_from(after).unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            if !each(read_entry(row)?) {
                break;
            }
        }
        Ok(())
    }

    /// Lets what was deleted leave the write-ahead log too.
    pub fn wipe(&self) -> bool {
        let query = "PRAGMA wal_checkpoint(TRUNCATE)";
        self.db.query_row(query, [], |_| Ok(())).is_ok()
    }

    /// The database, for the tables that are the caller's.
    pub fn database(&self) -> &Connection {
        &self.db
    }

    pub(crate) fn stored(&self) -> Stored<'_> {
        Stored {
            db: &self.db,
            tree: &self.tree,
        }
    }
}

/// Where the log lies in a state directory.
pub fn path_in(state_dir: &Path) -> std::path::PathBuf {
    state_dir.join("controller.db")
}

/// Opens a copy of a log to be read alone.
///
/// # Errors
/// [`LogError`].
pub(crate) fn copy(path: &Path) -> Result<Connection, LogError> {
    let db = schema::connect_to_copy(path)?;
    match schema::version_of(&db)? {
        schema::VERSION if schema::has_tables(&db)? => Ok(db),
        0 => Err(LogError::Lost("it is a database without the log's tables")),
        _ => Err(LogError::Schema),
    }
}

pub(crate) fn read_checkpoint(db: &Connection) -> Result<Option<String>, LogError> {
    let note = db.query_row("SELECT checkpoint FROM head", [], |row| row.get(0));
    Ok(note.optional()?)
}

pub(crate) fn read_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        at_unix_ms: row.get(1)?,
        by: row.get(2)?,
        kind: row.get(3)?,
        body: row.get(4)?,
    })
}

fn sign(
    origin: &str,
    tree: &Tree,
    secret: &LogSecret,
    new: Option<&LogSecret>,
) -> Result<String, LogError> {
    let checkpoint = Checkpoint {
        origin: origin.to_owned(),
        size: tree.size(),
        root: tree.root(),
        extensions: Vec::new(),
    };
    let signed = checkpoint.sign(secret).and_then(|mut note: Note| {
        if let Some(new) = new {
            note.add(origin, new)?;
        }
        Ok(note.to_string())
    });
    signed.map_err(|error| LogError::Number(error.to_string()))
}

const MAX_ROOTS: usize = 4096;
