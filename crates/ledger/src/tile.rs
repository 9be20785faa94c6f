//! Tiles (C2SP tlog-tiles, height 8): what has to be stored of a tree for any proof. A tile of level `l` has
//! the hashes of 256 neighbouring subtrees, each complete over 256^`l` entries; every other inner node is
//! computed from them.

use crate::hash::Hash;

/// Hashes in a complete tile.
pub const WIDTH: usize = 256;
/// The levels of the tree that one level of tiles spans.
pub const HEIGHT: u8 = 8;

/// A tile that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Its level, from zero: the level of the entries.
    pub level: u8,
    /// Its place among those of its level, from zero.
    pub index: u64,
    /// Its [`WIDTH`] hashes, one behind the other.
    pub hashes: Vec<u8>,
}

/// The place of a subtree among the tiles: the hash of subtree `index` of `level` is that of
/// [`Self::count`] hashes from [`Self::first`] in the tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The tile's level.
    pub level: u8,
    /// The tile's place on its level.
    pub index: u64,
    /// The first hash in the tile.
    pub first: usize,
    /// How many hashes: a power of two.
    pub count: usize,
}

impl Place {
    /// Finds the subtree `index` of a level of the tree.
    pub fn of(level: u8, index: u64) -> Self {
        let inside = level % HEIGHT;
        let first = index << inside;
        let width = WIDTH as u64;
        Self {
            level: level / HEIGHT,
            index: first / width,
            first: usize::try_from(first % width).unwrap_or(0),
            count: 1 << inside,
        }
    }

    /// The subtree's hash, if the tile's hashes, complete or not, have it.
    pub fn hash_in(&self, hashes: &[u8]) -> Option<Hash> {
        let bytes = hashes.get(self.first * 32..(self.first + self.count) * 32)?;
        let (hashes, _) = bytes.as_chunks::<32>();
        let mut row: Vec<Hash> = hashes.iter().copied().map(Hash).collect();
        while row.len() > 1 {
            row = fold(&row);
        }
        row.first().copied()
    }
}

/// The next level of a row of an even number of hashes.
pub(crate) fn fold(row: &[Hash]) -> Vec<Hash> {
    let (pairs, _) = row.as_chunks::<2>();
    let node = |[left, right]: &[Hash; 2]| Hash::of_node(left, right);
    pairs.iter().map(node).collect()
}
