//! The growing tree: its right edge, which is all that appending needs, and its root.

use crate::hash::Hash;
use crate::tile::{HEIGHT, Place, Tile, WIDTH};

/// A tree's right edge: the tiles that are not complete yet. Holds at most 255 hashes for each level of
/// tiles, which makes 8 KiB for every factor of 256 in the number of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// By level: the hashes of the tile that is not complete, one behind the other.
    edge: Vec<Vec<u8>>,
    /// The roots of the complete subtrees that the tree consists of, largest first: one for each bit that is
    /// set in the size.
    peaks: Vec<Hash>,
}

/// Why tiles make no tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tile of level {level} at the tree's edge holds {has} bytes instead of {needs}")]
pub struct EdgeError {
    /// The level of tiles.
    pub level: u8,
    /// How many bytes there are.
    pub has: usize,
    /// How many there have to be.
    pub needs: usize,
}

impl Tree {
    /// A tree of `size` entries from the hashes of its incomplete tiles, by level. A level whose tiles are all
    /// complete has none, and the levels end where the tree does.
    ///
    /// # Errors
    /// [`EdgeError`] for a level that has not as many hashes as the size says.
    pub fn from_edge(size: u64, edge: Vec<Vec<u8>>) -> Result<Self, EdgeError> {
        let (mut left, mut peaks) = (size, Vec::new());
        if let Some(hashes) = edge.get(usize::from(LEVELS)) {
            let (level, has, needs) = (LEVELS, hashes.len(), 0);
            return Err(EdgeError { level, has, needs });
        }
        for (level, hashes) in (0u8..).zip(&edge) {
            let needs = usize::try_from(left % WIDTH as u64).unwrap_or(0) * 32;
            if hashes.len() != needs {
                let has = hashes.len();
                return Err(EdgeError { level, has, needs });
            }
            // The smaller peaks are at the right: from the end of the tile, in powers of two.
            let mut end = needs / 32;
            while end > 0 {
                let count = 1 << end.trailing_zeros();
                let place = Place {
                    level,
                    index: 0,
                    first: end - count,
                    count,
                };
                peaks.extend(place.hash_in(hashes));
                end -= count;
            }
            left /= WIDTH as u64;
        }
        if left > 0 {
            let level = u8::try_from(edge.len()).unwrap_or(u8::MAX);
            let needs = usize::try_from(left % WIDTH as u64).unwrap_or(0) * 32;
            return Err(EdgeError {
                level,
                has: 0,
                needs,
            });
        }
        peaks.reverse();
        Ok(Self { size, edge, peaks })
    }

    /// How many entries it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its root.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else {
            return Hash::of_nothing();
        };
        peaks.fold(*last, |right, left| Hash::of_node(left, &right))
    }

    /// The hashes of the incomplete tile of a level, one behind the other; empty where there is none.
    pub fn edge(&self, level: u8) -> &[u8] {
        let edge = self.edge.get(usize::from(level));
        edge.map_or(&[], Vec::as_slice)
    }

    /// The index of the incomplete tile of a level.
    pub fn edge_index(&self, level: u8) -> u64 {
        let width = (u32::from(level) + 1) * u32::from(HEIGHT);
        self.size.checked_shr(width).unwrap_or(0)
    }

    /// Appends an entry by its hash; each tile that is complete now goes to `complete`.
    pub fn append(&mut self, entry: Hash, mut complete: impl FnMut(Tile)) {
        let mut index = self.size;
        let mut hash = entry;
        for level in 0u8.. {
            if self.edge.len() <= usize::from(level) {
                self.edge.push(Vec::new());
            }
            let Some(edge) = self.edge.get_mut(usize::from(level)) else {
                break;
            };
            edge.extend_from_slice(&hash.0);
            if edge.len() < WIDTH * 32 {
                break;
            }
            let whole = Place {
                level,
                index: 0,
                first: 0,
                count: WIDTH,
            };
            let above = whole.hash_in(edge);
            index /= WIDTH as u64;
            complete(Tile {
                level,
                index,
                hashes: std::mem::take(edge),
            });
            let Some(above) = above else { break };
            hash = above;
        }
        let mut peak = entry;
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            peak = Hash::of_node(&left, &peak);
        }
        self.peaks.push(peak);
        self.size += 1;
    }
}

/// The levels of tiles that a tree of 2^64 entries has.
const LEVELS: u8 = 64 / HEIGHT;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::{self, Nodes};
    use std::collections::BTreeMap;

    /// A tree with its tiles, as a store keeps them.
    #[derive(Default)]
    struct Stored {
        tree: Tree,
        tiles: BTreeMap<(u8, u64), Vec<u8>>,
    }

    impl Stored {
        fn append(&mut self, n: u64) {
            let tiles = &mut self.tiles;
            self.tree.append(Hash::of_entry(&n.to_be_bytes()), |tile| {
                let before = tiles.insert((tile.level, tile.index), tile.hashes);
                assert!(before.is_none());
            });
        }
    }

    impl Nodes for Stored {
        type Error = Place;

        fn node(&self, level: u8, index: u64) -> Result<Hash, Place> {
            let place = Place::of(level, index);
            let tile = self.tiles.get(&(place.level, place.index));
            let is_edge = self.tree.edge_index(place.level) == place.index;
            let edge = is_edge.then(|| self.tree.edge(place.level));
            let hashes = tile.map(Vec::as_slice).or(edge).ok_or(place)?;
            place.hash_in(hashes).ok_or(place)
        }
    }

    #[test]
    fn any_proof_can_be_made_of_the_tiles() {
        let mut stored = Stored::default();
        let mut roots = vec![stored.tree.root()];
        for n in 0..70_000 {
            stored.append(n);
            roots.push(stored.tree.root());
        }
        assert_eq!(stored.tiles.len(), 273 + 1);
        let size = 70_000;
        let whole = (size, roots[size as usize]);
        for old in [
            1, 2, 255, 256, 257, 511, 65_535, 65_536, 65_537, 69_999, 70_000,
        ] {
            assert_eq!(
                proof::root(&stored, old).unwrap(),
                roots[old as usize],
                "{old}"
            );
            let proof = proof::consistency(&stored, old, size).unwrap();
            let before = (old, roots[old as usize]);
            assert_eq!(proof::check_consistency(before, whole, &proof), Ok(()));
            let leaf = Hash::of_entry(&(old - 1).to_be_bytes());
            let proof = proof::inclusion(&stored, old - 1, size).unwrap();
            assert_eq!(proof::check_inclusion(leaf, old - 1, whole, &proof), Ok(()));
        }
    }

    #[test]
    fn a_tree_goes_on_from_its_edge() {
        let mut stored = Stored::default();
        for n in 0..66_000 {
            if [1, 255, 256, 257, 768, 65_535, 65_536, 65_537, 65_999].contains(&n) {
                let edge = stored.tree.edge.clone();
                let again = Tree::from_edge(n, edge.clone()).unwrap();
                assert_eq!(again, stored.tree, "{n}");
                let wrong = Tree::from_edge(n + 1, edge).unwrap_err();
                assert_eq!(wrong.level, 0);
            }
            stored.append(n);
        }
        assert_eq!(stored.tree.edge_index(u8::MAX), 0);
        let deep = Tree::from_edge(0, vec![Vec::new(); 300]).unwrap_err();
        assert_eq!((deep.level, deep.has), (8, 0));
        let none = Tree::from_edge(300, vec![vec![0; 44 * 32]]).unwrap_err();
        assert_eq!((none.level, none.needs), (1, 32));
    }
}
