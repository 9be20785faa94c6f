//! The tree's tiles in the database, and what is computed of them.

use crate::error::LogError;
use ledger::proof::Nodes;
use ledger::tile::{Place, Tile, WIDTH};
use ledger::{Hash, Tree};
use rusqlite::{Connection, OptionalExtension as _, params};

/// A tree with its complete tiles in a database.
pub(crate) struct Stored<'s> {
    pub(crate) db: &'s Connection,
    pub(crate) tree: &'s Tree,
}

impl Nodes for Stored<'_> {
    type Error = LogError;

    fn node(&self, level: u8, index: u64) -> Result<Hash, LogError> {
        let place = Place::of(level, index);
        let missing = || LogError::Damaged("a tile of its tree is missing or short".to_owned());
        let hash = if self.tree.edge_index(place.level) == place.index {
            place.hash_in(self.tree.edge(place.level))
        } else {
            let tile = read(self.db, place.level, place.index)?;
            tile.and_then(|hashes| place.hash_in(&hashes))
        };
        hash.ok_or_else(missing)
    }
}

pub(crate) fn read(db: &Connection, level: u8, index: u64) -> Result<Option<Vec<u8>>, LogError> {
    let mut query =
        db.prepare_cached("SELECT hashes FROM tiles WHERE level = ?1 AND place = ?2")?;
    let hashes = query.query_row(params![level, index.cast_signed()], |row| row.get(0));
    Ok(hashes.optional()?)
}

pub(crate) fn write(db: &Connection, tile: &Tile) -> Result<(), LogError> {
    db.prepare_cached("INSERT OR REPLACE INTO tiles (level, place, hashes) VALUES (?1, ?2, ?3)")?
        .execute(params![tile.level, tile.index.cast_signed(), tile.hashes])?;
    Ok(())
}

/// The tree as it was with `size` entries, from the tiles of a later one. `None` where they are missing: a tile
/// that was not complete then is one now, or is computed of the entries.
pub(crate) fn tree_at(db: &Connection, size: u64) -> Result<Option<Tree>, LogError> {
    let (mut edge, mut left, mut level) = (Vec::new(), size, 0);
    while left > 0 {
        let width = WIDTH as u64;
        let count = usize::try_from(left % width).unwrap_or(0);
        let hashes = if count == 0 {
            Vec::new()
        } else {
            let tile = read(db, level, left / width)?;
            let hashes = tile.and_then(|tile| tile.get(..count * 32).map(<[u8]>::to_vec));
            match hashes {
                Some(hashes) => hashes,
                None => match of_tiles_below(db, level, left)? {
                    Some(hashes) => hashes,
                    None => return Ok(None),
                },
            }
        };
        edge.push(hashes);
        (left, level) = (left / width, level + 1);
    }
    Ok(Tree::from_edge(size, edge).ok())
}

/// The last hashes of a level whose tile is not complete, from the complete tiles of the level below.
fn of_tiles_below(db: &Connection, level: u8, count: u64) -> Result<Option<Vec<u8>>, LogError> {
    let Some(below) = level.checked_sub(1) else {
        return Ok(None);
    };
    let mut hashes = Vec::new();
    for index in count - count % WIDTH as u64..count {
        let whole = Place {
            level: below,
            index,
            first: 0,
            count: WIDTH,
        };
        let tile = read(db, below, index)?;
        match tile.and_then(|tile| whole.hash_in(&tile)) {
            Some(hash) => hashes.extend_from_slice(&hash.0),
            None => return Ok(None),
        }
    }
    Ok(Some(hashes))
}
