//! The folded state at one place of the log, signed by the log's key: a controller that opens a log of any age
//! reads it, and the entries behind it.

use crate::error::LogError;
use crate::store::Store;
use keys::{LogId, LogSecret, Signature};
use ledger::Hash;
use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};

/// A snapshot as it is stored.
pub(crate) struct Snapshot {
    pub(crate) seq: u64,
    pub(crate) root: Hash,
    pub(crate) state: Vec<u8>,
    signature: [u8; 64],
}

impl Snapshot {
    pub(crate) fn read(db: &Connection) -> Result<Option<Self>, LogError> {
        let row = db.query_row(
            "SELECT seq, root, state, signature FROM snapshot",
            [],
            |row| {
                Ok(Self {
                    seq: row.get::<_, i64>(0)?.cast_unsigned(),
                    root: Hash(row.get(1)?),
                    state: row.get(2)?,
                    signature: row.get(3)?,
                })
            },
        );
        Ok(row.optional()?)
    }

    pub(crate) fn verify(&self, key: LogId) -> Result<(), &'static str> {
        let message = message(self.seq, self.root, &self.state);
        if key.verifies(LABEL, &message, &Signature(self.signature)) {
            Ok(())
        } else {
            Err("not signed by the log's key")
        }
    }
}

impl Store {
    /// The entry that the newest snapshot is of; zero without one.
    pub fn snapshot_seq(&self) -> u64 {
        self.snapshot
    }

    /// The signature of the snapshot that is kept, by another key; `None`: there is no snapshot.
    pub(crate) fn resigned_snapshot(&self, new: &LogSecret) -> Result<Option<[u8; 64]>, LogError> {
        let snapshot = Snapshot::read(&self.db)?;
        let Some(snapshot) = snapshot else {
            return Ok(None);
        };
        snapshot.verify(self.key()).map_err(LogError::Snapshot)?;
        let message = message(snapshot.seq, snapshot.root, &snapshot.state);
        Ok(Some(new.sign(LABEL, &message).0))
    }

    /// Keeps `state`, which is the fold of all entries, in place of the snapshot before. On an error nothing
    /// has changed.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn keep_snapshot(&mut self, state: &[u8]) -> Result<(), LogError> {
        let (seq, root) = (self.tree.size(), self.tree.root());
        let signature = self.secret.sign(LABEL, &message(seq, root, state)).0;
        self.db.execute(
            "INSERT OR REPLACE INTO snapshot (one, seq, root, state, signature) VALUES (1, ?1, ?2, ?3, ?4)",
            params![seq.cast_signed(), root.0, state, signature],
        )?;
        self.snapshot = seq;
        Ok(())
    }
}

fn message(seq: u64, root: Hash, state: &[u8]) -> Vec<u8> {
    let digest: [u8; 32] = Sha256::digest(state).into();
    [seq.to_be_bytes().as_slice(), &root.0, &digest].concat()
}

const LABEL: &[u8] = b"meshd/v1 log snapshot";
