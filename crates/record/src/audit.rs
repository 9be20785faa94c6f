//! The verification of everything: each entry against its leaf, each tile against the tiles above it, the whole
//! against the signed checkpoint, the missing entries against those that the log says have left.

use crate::entry::Entry;
use crate::error::LogError;
use crate::open::hold;
use crate::retention::{KIND, Pruned, hash_of};
use crate::snapshot::Snapshot;
use crate::store::{copy, read_checkpoint, read_entry};
use crate::tiles;
use ledger::note::{Note, Verifier};
use ledger::tile::WIDTH;
use ledger::{Checkpoint, Hash, Tree};
use rusqlite::Connection;
use std::path::Path;

/// A log that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The log's name.
    pub origin: String,
    /// The key that signed, with its name.
    pub verifier: String,
    /// How many entries the log has.
    pub size: u64,
    /// The root of its tree.
    pub root: Hash,
    /// How many of the entries are no longer kept.
    pub pruned: u64,
    /// The entry that the snapshot is of; zero without one.
    pub snapshot: u64,
    /// The signed checkpoint, as a note.
    pub checkpoint: String,
}

/// Verifies a copy of a log, of which nothing is changed; each entry that is kept goes to `each`.
///
/// # Errors
/// [`LogError`] for the first thing that does not fit.
pub fn verify_copy(
    path: &Path,
    verifier: &Verifier,
    each: impl FnMut(&Entry),
) -> Result<Audit, LogError> {
    let db = copy(path)?;
    verify(&db, verifier, each)
}

/// The name of the log by the checkpoint in a copy. Believes nothing: the name is a part of what a key signs.
///
/// # Errors
/// [`LogError`] where there is none.
pub fn origin_of(path: &Path) -> Result<String, LogError> {
    let text = read_checkpoint(&copy(path)?)?;
    let text = text.ok_or(LogError::Lost("it has no checkpoint"))?;
    Ok(text.split('\n').next().unwrap_or_default().to_owned())
}

pub(crate) fn verify(
    db: &Connection,
    verifier: &Verifier,
    mut each: impl FnMut(&Entry),
) -> Result<Audit, LogError> {
    let text = read_checkpoint(db)?;
    let text = text.ok_or(LogError::Lost("it has no checkpoint"))?;
    let unbelieved = |error: String| LogError::Checkpoint(error);
    let note = Note::parse(text.as_bytes()).map_err(|error| unbelieved(error.to_string()))?;
    let checkpoint =
        Checkpoint::verify(&note, verifier).map_err(|error| unbelieved(error.to_string()))?;

    let mut query =
        db.prepare("SELECT seq, at_unix_ms, author, kind, body FROM entries ORDER BY seq")?;
    let mut rows = query.query([])?;
    let mut next = rows.next()?.map(read_entry).transpose()?;
    let (mut tree, mut missing, mut said) = (Tree::default(), Vec::new(), Vec::new());
    let mut tile = None;
    while tree.size() < checkpoint.size || next.is_some() {
        let index = tree.size();
        let seq = index + 1;
        if index.is_multiple_of(WIDTH as u64) {
            tile = tiles::read(db, 0, index / WIDTH as u64)?;
        }
        let stored = leaf_in(tile.as_deref(), index);
        let leaf = match next.take_if(|entry| entry.seq == seq) {
            Some(entry) => {
                let leaf = entry.leaf();
                if stored.is_some_and(|stored| stored != leaf) {
                    let what = "its hash differs from the one in the tree";
                    return Err(LogError::Entry { seq, what });
                }
                if entry.kind == KIND {
                    let pruned: Result<Pruned, _> = serde_json::from_str(&entry.body);
                    said.push(pruned.map_err(|error| LogError::Damaged(error.to_string()))?);
                }
                each(&entry);
                next = rows.next()?.map(read_entry).transpose()?;
                leaf
            }
            None => {
                missing.push(seq);
                let what = "it is missing";
                stored.ok_or(LogError::Entry { seq, what })?
            }
        };
        let mut wrong = None;
        tree.append(leaf, |tile| {
            let stored = tiles::read(db, tile.level, tile.index);
            if wrong.is_none() && !stored.is_ok_and(|stored| stored.as_ref() == Some(&tile.hashes))
            {
                wrong = Some(());
            }
        });
        if wrong.is_some() {
            let what = "the tile of the tree that ends with it is missing or differs";
            return Err(LogError::Entry { seq, what });
        }
    }
    hold(&checkpoint, &tree)?;
    account_for(&missing, &said)?;
    let snapshot = Snapshot::read(db)?;
    if let Some(snapshot) = &snapshot {
        snapshot
            .verify(verifier.key())
            .map_err(LogError::Snapshot)?;
    }
    Ok(Audit {
        origin: checkpoint.origin,
        verifier: verifier.to_string(),
        size: checkpoint.size,
        root: checkpoint.root,
        pruned: missing.len() as u64,
        snapshot: snapshot.map_or(0, |snapshot| snapshot.seq),
        checkpoint: text,
    })
}

fn leaf_in(tile: Option<&[u8]>, index: u64) -> Option<Hash> {
    let at = usize::try_from(index % WIDTH as u64).ok()? * 32;
    let bytes = tile?.get(at..at + 32)?;
    bytes.try_into().ok().map(Hash)
}

/// Holds what is missing against what the log says has left.
fn account_for(missing: &[u64], said: &[Pruned]) -> Result<(), LogError> {
    let mut left = missing;
    let mut after = 0;
    for pruned in said {
        let in_range = left.partition_point(|seq| *seq <= pruned.through);
        let (numbers, rest) = left.split_at(in_range);
        let fits = pruned.from == after + 1
            && numbers.len() as u64 == pruned.count
            && hash_of(numbers) == pruned.numbers;
        if !fits {
            let seq = numbers.first().copied().unwrap_or(pruned.from);
            let what = "other entries are missing around it than the log says have left";
            return Err(LogError::Entry { seq, what });
        }
        (left, after) = (rest, pruned.through);
    }
    match left.first() {
        None => Ok(()),
        Some(seq) => Err(LogError::Entry {
            seq: *seq,
            what: "it is missing, and the log does not say that it has left",
        }),
    }
}
