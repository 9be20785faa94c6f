//! Trees, proofs and tiles against `tlog_tiles`, a port of Go's `sumdb/tlog` by others: the same hashes, and the
//! same verdict about proofs that are forged or torn.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ledger::proof::{self, Nodes, check_consistency, check_inclusion};
use ledger::tile::{Place, Tile, WIDTH};
use ledger::{Hash, Tree};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use tlog_tiles as theirs;
use tlog_tiles::{HashReader as _, TileReader as _};

/// Reaches into a second tile of the level above that of the entries.
const ENTRIES: u64 = 66_000;

/// The same log twice: by ours and by theirs.
struct Both {
    tree: Tree,
    tiles: BTreeMap<(u8, u64), Vec<u8>>,
    roots: Vec<Hash>,
    theirs: Stored,
}

struct Stored(Vec<theirs::Hash>);

impl theirs::HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<theirs::Hash>, theirs::Error> {
        let hash = |index: &u64| self.0[usize::try_from(*index).unwrap()];
        Ok(indexes.iter().map(hash).collect())
    }
}

impl Nodes for Both {
    type Error = Place;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Place> {
        let place = Place::of(level, index);
        place
            .hash_in(self.tile(place.level, place.index))
            .ok_or(place)
    }
}

impl Both {
    fn tile(&self, level: u8, index: u64) -> &[u8] {
        match self.tiles.get(&(level, index)) {
            Some(hashes) => hashes,
            None => self.tree.edge(level),
        }
    }

    fn whole(&self, size: u64) -> (u64, Hash) {
        (size, self.roots[usize::try_from(size).unwrap()])
    }
}

/// Serves our tiles to their reader, which holds each against the root.
struct OurTiles<'a>(&'a Both);

impl theirs::TileReader for OurTiles<'_> {
    fn height(&self) -> u8 {
        ledger::tile::HEIGHT
    }

    fn read_tiles(&self, tiles: &[theirs::Tile]) -> Result<Vec<Vec<u8>>, theirs::Error> {
        let data = |tile: &theirs::Tile| {
            let hashes = self.0.tile(tile.level(), tile.level_index());
            hashes[..tile.width() as usize * 32].to_vec()
        };
        Ok(tiles.iter().map(data).collect())
    }

    fn save_tiles(&self, _tiles: &[theirs::Tile], _data: &[Vec<u8>]) {}
}

fn both() -> &'static Both {
    static BOTH: OnceLock<Both> = OnceLock::new();
    BOTH.get_or_init(|| {
        let mut both = Both {
            tree: Tree::default(),
            tiles: BTreeMap::new(),
            roots: vec![Hash::of_nothing()],
            theirs: Stored(Vec::new()),
        };
        for n in 0..ENTRIES {
            let entry = n.to_string();
            let tiles = &mut both.tiles;
            let keep = |tile: Tile| drop(tiles.insert((tile.level, tile.index), tile.hashes));
            both.tree.append(Hash::of_entry(entry.as_bytes()), keep);
            both.roots.push(both.tree.root());
            let more = theirs::stored_hashes(n, entry.as_bytes(), &both.theirs).unwrap();
            both.theirs.0.extend(more);
        }
        both
    })
}

fn leaf(index: u64) -> Hash {
    Hash::of_entry(index.to_string().as_bytes())
}

fn to_theirs(hashes: &[Hash]) -> Vec<theirs::Hash> {
    hashes.iter().map(|hash| theirs::Hash(hash.0)).collect()
}

/// Both verdicts about a proof that an entry is in a tree; they must be one.
fn inclusion_holds(leaf: Hash, index: u64, (size, root): (u64, Hash), proof: &[Hash]) -> bool {
    let ours = check_inclusion(leaf, index, (size, root), proof);
    let (root, leaf) = (theirs::Hash(root.0), theirs::Hash(leaf.0));
    let theirs = theirs::check_record(&to_theirs(proof), size, root, index, leaf);
    assert_eq!(
        ours.is_ok(),
        theirs.is_ok(),
        "{ours:?}, {theirs:?}: {index} of {size}"
    );
    ours.is_ok()
}

/// The same for a proof that a tree extends another. Theirs has none for an empty tree.
fn consistency_holds(old: (u64, Hash), new: (u64, Hash), proof: &[Hash]) -> bool {
    let ours = check_consistency(old, new, proof);
    let root = |(_, root): (u64, Hash)| theirs::Hash(root.0);
    let theirs = theirs::check_tree(&to_theirs(proof), new.0, root(new), old.0, root(old));
    assert_eq!(
        ours.is_ok(),
        theirs.is_ok(),
        "{ours:?}, {theirs:?}: {old:?} to {new:?}"
    );
    ours.is_ok()
}

#[test]
fn hashes_and_small_trees_are_those_of_the_other() {
    let both = both();
    for size in 0..=1100u64 {
        let root = theirs::tree_hash(size, &both.theirs).unwrap();
        assert_eq!(both.whole(size).1.0, root.0, "{size}");
        assert_eq!(
            Hash::from_base64(&root.to_string()),
            Some(both.whole(size).1)
        );
    }
    // Every proof of small trees: both sides of the first powers of two.
    for size in 1..=67u64 {
        for index in 0..size {
            let ours = proof::inclusion(both, index, size).unwrap();
            let theirs = theirs::prove_record(size, index, &both.theirs).unwrap();
            assert_eq!(to_theirs(&ours), theirs, "{index} of {size}");
            assert!(inclusion_holds(leaf(index), index, both.whole(size), &ours));
        }
        for old in 1..=size {
            let ours = proof::consistency(both, old, size).unwrap();
            let theirs = theirs::prove_tree(size, old, &both.theirs).unwrap();
            assert_eq!(to_theirs(&ours), theirs, "{old} to {size}");
            assert!(consistency_holds(both.whole(old), both.whole(size), &ours));
        }
    }
}

#[test]
fn the_tiles_are_those_of_the_other_and_its_reader_believes_them() {
    let both = both();
    for tile in theirs::Tile::new_tiles(8, 0, ENTRIES) {
        let data = tile.read_data(&both.theirs).unwrap();
        let ours = both.tile(tile.level(), tile.level_index());
        assert_eq!(ours, data, "{}", tile.path());
        let is_whole = usize::try_from(tile.width()).unwrap() == WIDTH;
        let key = (tile.level(), tile.level_index());
        assert_eq!(is_whole, both.tiles.contains_key(&key), "{}", tile.path());
    }
    let tiles = OurTiles(both);
    assert_eq!(tiles.height(), 8);
    for size in [1, 255, 256, 257, 512, 65_535, 65_536, 65_537, ENTRIES] {
        let root = theirs::Hash(both.whole(size).1.0);
        let reader = theirs::TileHashReader::new(size, root, &tiles);
        for index in [0, size / 3, size / 2, size - 1] {
            let hashes = reader
                .read_hashes(&[theirs::stored_hash_index(0, index)])
                .unwrap();
            assert_eq!(hashes, to_theirs(&[leaf(index)]), "{index} of {size}");
        }
        // A reader that is told another root believes none of them.
        let other = theirs::TileHashReader::new(size, theirs::Hash(leaf(0).0), &tiles);
        let read = other.read_hashes(&[theirs::stored_hash_index(0, 0)]);
        assert_eq!(read.is_ok(), size == 1, "{size}");
    }
}

/// A change to a proof, or to the statement that it is for.
#[derive(Debug, Clone)]
enum Change {
    Flip(prop::sample::Index, u8),
    Drop(prop::sample::Index),
    Double(prop::sample::Index),
    Insert(prop::sample::Index, [u8; 32]),
    Swap(prop::sample::Index, prop::sample::Index),
    Place(u64),
    Size(i64),
    Root(u8),
    Leaf(u8),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || any::<prop::sample::Index>();
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, bit)),
        at().prop_map(Change::Drop),
        at().prop_map(Change::Double),
        (at(), any::<[u8; 32]>()).prop_map(|(at, hash)| Change::Insert(at, hash)),
        (at(), at()).prop_map(|(a, b)| Change::Swap(a, b)),
        (0..ENTRIES).prop_map(Change::Place),
        (-300i64..300).prop_map(Change::Size),
        any::<u8>().prop_map(Change::Root),
        any::<u8>().prop_map(Change::Leaf),
    ]
}

/// A statement with its proof: (number, hash) in or before (size, root).
#[derive(Debug, Clone, PartialEq)]
struct Stated {
    part: (u64, Hash),
    whole: (u64, Hash),
    proof: Vec<Hash>,
}

impl Stated {
    fn change(&mut self, change: &Change) {
        let flip = |hash: &mut Hash, bit: u8| hash.0[usize::from(bit / 8)] ^= 1 << (bit % 8);
        let len = self.proof.len();
        match change {
            Change::Place(place) => self.part.0 = *place,
            Change::Size(by) => self.whole.0 = self.whole.0.saturating_add_signed(*by),
            Change::Root(bit) => flip(&mut self.whole.1, *bit),
            Change::Leaf(bit) => flip(&mut self.part.1, *bit),
            Change::Insert(at, hash) => self.proof.insert(at.index(len + 1), Hash(*hash)),
            _ if len == 0 => {}
            Change::Flip(at, bit) => flip(&mut self.proof[at.index(len)], *bit),
            Change::Drop(at) => drop(self.proof.remove(at.index(len))),
            Change::Double(at) => self.proof.insert(at.index(len), self.proof[at.index(len)]),
            Change::Swap(a, b) => self.proof.swap(a.index(len), b.index(len)),
        }
    }
}

/// The hash that a path leads to, by the recursion in RFC 6962, section 2.1.1, for a tree of any size.
fn climb(index: u64, size: u64, hash: Hash, path: &[Hash]) -> Hash {
    if size == 1 {
        return hash;
    }
    let (sibling, below) = path.split_last().unwrap();
    let left = 1u64 << (size - 1).ilog2();
    if index < left {
        Hash::of_node(&climb(index, left, hash, below), sibling)
    } else {
        Hash::of_node(sibling, &climb(index - left, size - left, hash, below))
    }
}

/// The length of that path.
fn depth(index: u64, size: u64) -> usize {
    if size == 1 {
        return 0;
    }
    let left = 1u64 << (size - 1).ilog2();
    1 + if index < left {
        depth(index, left)
    } else {
        depth(index - left, size - left)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn roots_and_proofs_of_any_size_are_those_of_the_other(
        size in 1..=ENTRIES, pick: prop::sample::Index,
    ) {
        let both = both();
        let root = theirs::tree_hash(size, &both.theirs).unwrap();
        prop_assert_eq!(both.whole(size).1.0, root.0);
        prop_assert_eq!(proof::root(both, size).unwrap().0, root.0);
        let index = pick.index(usize::try_from(size).unwrap()) as u64;
        let ours = proof::inclusion(both, index, size).unwrap();
        prop_assert_eq!(to_theirs(&ours), theirs::prove_record(size, index, &both.theirs).unwrap());
        prop_assert!(inclusion_holds(leaf(index), index, both.whole(size), &ours));
        let old = index + 1;
        let ours = proof::consistency(both, old, size).unwrap();
        prop_assert_eq!(to_theirs(&ours), theirs::prove_tree(size, old, &both.theirs).unwrap());
        prop_assert!(consistency_holds(both.whole(old), both.whole(size), &ours));
    }

    #[test]
    fn a_changed_proof_is_refused_by_both(
        size in 2..=ENTRIES, pick: prop::sample::Index, changes in vec(change(), 1..4),
    ) {
        let both = both();
        let index = pick.index(usize::try_from(size).unwrap()) as u64;
        let mut stated = Stated {
            part: (index, leaf(index)),
            whole: both.whole(size),
            proof: proof::inclusion(both, index, size).unwrap(),
        };
        let honest = stated.clone();
        changes.iter().for_each(|change| stated.change(change));
        let holds = inclusion_holds(stated.part.1, stated.part.0, stated.whole, &stated.proof);
        // A proof does not bind the size: another one with the same way to the root is as good.
        let is_same = Stated { whole: (size, stated.whole.1), ..stated.clone() } == honest;
        prop_assert!(!holds || is_same, "{:?}", changes);
        prop_assert!(stated != honest || holds);

        let old = index.max(1);
        let mut stated = Stated {
            part: both.whole(old),
            whole: both.whole(size),
            proof: proof::consistency(both, old, size).unwrap(),
        };
        let honest = stated.clone();
        changes.iter().for_each(|change| stated.change(change));
        // Theirs knows no proof from nothing, ours has the empty one.
        prop_assume!(stated.part.0 > 0 && stated.whole.0 > 0);
        let holds = consistency_holds(stated.part, stated.whole, &stated.proof);
        let is_same = stated.part.1 == honest.part.1
            && stated.whole.1 == honest.whole.1
            && stated.proof == honest.proof;
        prop_assert!(!holds || is_same, "{:?}", changes);
    }

    /// A tree of 2^62 entries cannot be made, but a path through one can.
    #[test]
    fn proofs_in_trees_of_any_size_are_judged_alike(
        size in prop_oneof![1u64..u64::MAX, (0u32..63, -2i64..3).prop_map(
            |(power, by)| (1u64 << power).saturating_add_signed(by).max(1))],
        pick: u64, path in vec(any::<[u8; 32]>(), 64), changes in vec(change(), 0..2),
    ) {
        // Theirs is a port of code with signed numbers.
        let size = size.min(1 << 62);
        let index = pick % size;
        let path: Vec<Hash> = path.into_iter().map(Hash).take(depth(index, size)).collect();
        let mut stated = Stated {
            part: (index, leaf(7)),
            whole: (size, climb(index, size, leaf(7), &path)),
            proof: path,
        };
        let honest = stated.clone();
        changes.iter().for_each(|change| stated.change(change));
        prop_assume!(stated.whole.0 > 0);
        let holds = inclusion_holds(stated.part.1, stated.part.0, stated.whole, &stated.proof);
        prop_assert!(stated != honest || holds);
        prop_assert!(!holds || stated.proof == honest.proof);
    }

    #[test]
    fn a_path_through_the_largest_trees_is_checked(
        below in 0u64..5, from_the_end in 0u64..5, path in vec(any::<[u8; 32]>(), 64),
    ) {
        let size = u64::MAX - below;
        for index in [from_the_end, size / 2 + from_the_end, size - 1 - from_the_end] {
            let path: Vec<Hash> = path.iter().copied().map(Hash).take(depth(index, size)).collect();
            let whole = (size, climb(index, size, leaf(7), &path));
            prop_assert_eq!(check_inclusion(leaf(7), index, whole, &path), Ok(()));
            prop_assert!(check_inclusion(leaf(7), index, whole, &path[1..]).is_err());
            prop_assert!(check_inclusion(leaf(8), index, whole, &path).is_err());
        }
    }
}
