//! Proofs: that an entry is in a tree, and that one tree extends another. They are made from the hashes of
//! complete subtrees, and checked without any of the tree.

use crate::hash::Hash;

/// Most hashes in a proof: a tree of 2^64 entries has as many levels.
pub const MAX_PROOF: usize = 64;

/// A tree, as far as proofs need it.
pub trait Nodes {
    /// Why a hash cannot be had.
    type Error;

    /// The hash of the complete subtree over the entries `index << level` to `(index + 1) << level`, the end
    /// excluded.
    ///
    /// # Errors
    /// When it cannot be read.
    fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The sizes, or the entry's number, do not go together.
    #[error("the proof is for {0} of {1}, which is impossible")]
    Size(u64, u64),
    /// The proof has too many hashes, or too few.
    #[error("the proof has {0} hashes, which does not fit the sizes")]
    Length(usize),
    /// The hashes lead to another root.
    #[error("the proof leads to another root than the one that was given")]
    Root,
}

/// The root of the first `size` entries.
///
/// # Errors
/// When a hash cannot be read.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    if size == 0 {
        return Ok(Hash::of_nothing());
    }
    subtree(nodes, 0, size)
}

/// The hashes that lead from entry `index`, counted from zero, to the root of the first `size` entries, from
/// the leaf upwards (RFC 6962, section 2.1.1). Of no use, and refused by [`check_inclusion`], unless `index` is
/// less than `size`.
///
/// # Errors
/// When a hash cannot be read.
pub fn inclusion<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let mut proof = Vec::new();
    let (mut start, mut end) = (0, size);
    // From the root down; the order of a proof is the other way round.
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(subtree(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(subtree(nodes, start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The hashes that prove that the first `old` entries of a tree are those of the tree of `new` entries
/// (RFC 6962, section 2.1.2). Empty if there is nothing to prove: `old` is zero or `new`. Empty too where
/// `old` is more than `new`, which no proof can prove.
///
/// # Errors
/// When a hash cannot be read.
pub fn consistency<N: Nodes>(nodes: &N, old: u64, new: u64) -> Result<Vec<Hash>, N::Error> {
    let mut proof = Vec::new();
    if old == 0 || old >= new {
        return Ok(proof);
    }
    let (mut start, mut end) = (0, new);
    // The subtree that holds the last of the old entries, until the old entries end with it.
    while end != old {
        let middle = start + split(end - start);
        if old <= middle {
            proof.push(subtree(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(subtree(nodes, start, middle)?);
            start = middle;
        }
    }
    if start > 0 {
        proof.push(subtree(nodes, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that the entry with hash `leaf` is entry `index` of the tree with `size` entries and this `root`.
///
/// # Errors
/// [`ProofError`].
pub fn check_inclusion(
    leaf: Hash,
    index: u64,
    (size, root): (u64, Hash),
    proof: &[Hash],
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Size(index, size));
    }
    let length = Err(ProofError::Length(proof.len()));
    // RFC 9162, section 2.1.3.2.
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return length;
        }
        if at & 1 == 1 || at == last {
            hash = Hash::of_node(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = Hash::of_node(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    match (last, hash == root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::Root),
        _ => length,
    }
}

/// Checks that the tree of `new` extends the tree of `old`: same entries, in the same places, and more behind
/// them. Each is a size with its root.
///
/// # Errors
/// [`ProofError`]; [`ProofError::Root`] if either root is not the one that the proof leads to.
pub fn check_consistency(
    old: (u64, Hash),
    new: (u64, Hash),
    proof: &[Hash],
) -> Result<(), ProofError> {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size > new_size {
        return Err(ProofError::Size(old_size, new_size));
    }
    let length = Err(ProofError::Length(proof.len()));
    if old_size == 0 || old_size == new_size {
        // The root of nothing is known: a log that signed another one for size zero lies about something.
        let same = match old_size {
            0 => old_root == Hash::of_nothing(),
            _ => old_root == new_root,
        } && (new_size > 0 || new_root == Hash::of_nothing());
        return match (proof, same) {
            ([], true) => Ok(()),
            ([], false) => Err(ProofError::Root),
            _ => length,
        };
    }
    // RFC 9162, section 2.1.4.2.
    let (first, rest) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        match proof.split_first() {
            Some((first, rest)) => (*first, rest),
            None => return length,
        }
    };
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in rest {
        if last == 0 {
            return length;
        }
        if at & 1 == 1 || at == last {
            old_hash = Hash::of_node(sibling, &old_hash);
            new_hash = Hash::of_node(sibling, &new_hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            new_hash = Hash::of_node(&new_hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last != 0 {
        length
    } else if old_hash == old_root && new_hash == new_root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// The hash of the entries from `start` to `end`, which the tree has as a subtree.
fn subtree<N: Nodes>(nodes: &N, start: u64, end: u64) -> Result<Hash, N::Error> {
    let mut end = end;
    let mut right: Option<Hash> = None;
    // An incomplete subtree is a row of complete ones, which grow smaller to the right.
    let mut parts = Vec::new();
    while end > start {
        let width = 1u64 << (end - start).trailing_zeros();
        parts.push((width.trailing_zeros(), (end - width) / width));
        end -= width;
    }
    for (level, index) in parts {
        let level = u8::try_from(level).unwrap_or(u8::MAX);
        let node = nodes.node(level, index)?;
        right = Some(match right {
            Some(right) => Hash::of_node(&node, &right),
            None => node,
        });
    }
    Ok(right.unwrap_or_else(Hash::of_nothing))
}

/// How many of `size` entries are left of the middle: the largest power of two below `size`, which is at
/// least 2.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    /// The definition in RFC 6962, section 2.1, word by word.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::of_nothing(),
            [leaf] => *leaf,
            leaves => {
                let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
                Hash::of_node(&by_definition(left), &by_definition(right))
            }
        }
    }

    struct Leaves(Vec<Hash>);

    impl Nodes for Leaves {
        type Error = Infallible;

        fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
            let width = 1 << level;
            let start = usize::try_from(index).unwrap() * width;
            Ok(by_definition(&self.0[start..start + width]))
        }
    }

    fn leaves(count: u64) -> Leaves {
        let leaf = |n: u64| Hash::of_entry(&n.to_be_bytes());
        Leaves((0..count).map(leaf).collect())
    }

    #[test]
    fn roots_and_proofs_of_all_small_trees_are_those_of_the_definition() {
        let all = leaves(70);
        for size in 0..=70u64 {
            let tree = &all.0[..size as usize];
            let whole = (size, root(&all, size).unwrap());
            assert_eq!(whole.1, by_definition(tree));
            for index in 0..size {
                let leaf = tree[index as usize];
                let proof = inclusion(&all, index, size).unwrap();
                assert_eq!(check_inclusion(leaf, index, whole, &proof), Ok(()));
            }
            for old in 0..=size {
                let before = (old, root(&all, old).unwrap());
                let proof = consistency(&all, old, size).unwrap();
                assert_eq!(check_consistency(before, whole, &proof), Ok(()));
            }
        }
    }

    /// RFC 6962, section 2.1.3, has a tree of seven and its proofs.
    #[test]
    fn the_proofs_of_the_rfcs_example_have_its_hashes() {
        let all = leaves(7);
        let node = |level, index| all.node(level, index).unwrap();
        let proof = |index| inclusion(&all, index, 7).unwrap();
        let l = node(1, 2);
        let (k, i, j) = (node(2, 0), node(1, 1), node(0, 6));
        let right = Hash::of_node(&l, &j);
        assert_eq!(proof(0), [node(0, 1), i, right]);
        assert_eq!(proof(3), [node(0, 2), node(1, 0), right]);
        assert_eq!(proof(4), [node(0, 5), j, k]);
        assert_eq!(proof(6), [l, k]);
        let consistent = |old| consistency(&all, old, 7).unwrap();
        assert_eq!(consistent(3), [node(0, 2), node(0, 3), node(1, 0), right]);
        assert_eq!(consistent(4), [right]);
        assert_eq!(consistent(6), [l, j, k]);
    }

    #[test]
    fn an_empty_tree_has_one_root() {
        let (nothing, other) = (Hash::of_nothing(), Hash::of_entry(b"another"));
        let check = |old, new| check_consistency(old, new, &[]);
        assert_eq!(check((0, nothing), (0, nothing)), Ok(()));
        assert_eq!(check((0, nothing), (7, other)), Ok(()));
        assert_eq!(check((0, other), (7, other)), Err(ProofError::Root));
        assert_eq!(check((0, other), (0, other)), Err(ProofError::Root));
        assert_eq!(check((0, nothing), (0, other)), Err(ProofError::Root));
    }

    #[test]
    fn a_proof_of_what_cannot_be_proved_is_refused_and_not_made_up() {
        let all = leaves(9);
        let root = |size| (size, root(&all, size).unwrap());
        for (old, new) in [(9, 8), (9, 1), (9, 0), (u64::MAX, 9)] {
            let proof = consistency(&all, old, new).unwrap();
            let size = old.min(9);
            let refused = check_consistency((old, root(size).1), root(new), &proof);
            assert_eq!(refused, Err(ProofError::Size(old, new)));
        }
        for (index, size) in [(0, 0), (9, 9), (u64::MAX, 5)] {
            let proof = inclusion(&all, index, size).unwrap();
            let refused = check_inclusion(all.0[0], index, root(size), &proof);
            assert_eq!(refused, Err(ProofError::Size(index, size)));
        }
    }

    proptest! {
        #[test]
        fn a_changed_proof_proves_nothing(
            size in 2u64..300, pick: u64, change: usize, bit in 0usize..256,
        ) {
            let all = leaves(size);
            let whole = (size, root(&all, size).unwrap());
            let index = pick % size;
            let flip = |proof: &mut Vec<Hash>| {
                let at = change % proof.len();
                proof[at].0[bit / 8] ^= 1 << (bit % 8);
            };
            let mut proof = inclusion(&all, index, size).unwrap();
            let leaf = all.0[index as usize];
            let other = check_inclusion(leaf, (index + 1) % size, whole, &proof);
            prop_assert!(other.is_err());
            flip(&mut proof);
            prop_assert!(check_inclusion(leaf, index, whole, &proof).is_err());
            proof.push(leaf);
            prop_assert!(check_inclusion(leaf, index, whole, &proof).is_err());

            let old = 1 + pick % (size - 1);
            let before = (old, root(&all, old).unwrap());
            let mut proof = consistency(&all, old, size).unwrap();
            let forged = (old, Hash::of_entry(b"another"));
            prop_assert!(check_consistency(forged, whole, &proof).is_err());
            prop_assert!(check_consistency(before, forged, &proof).is_err());
            flip(&mut proof);
            prop_assert!(check_consistency(before, whole, &proof).is_err());
            proof.pop();
            prop_assert!(check_consistency(before, whole, &proof).is_err());
        }

        #[test]
        fn no_proof_panics(index: u64, size: u64, old: u64, length in 0usize..70) {
            let hash = Hash::of_nothing();
            let proof = vec![hash; length];
            let _ = check_inclusion(hash, index, (size, hash), &proof);
            let _ = check_consistency((old, hash), (size, hash), &proof);
        }
    }
}
