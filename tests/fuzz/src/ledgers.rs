//! The transparency log, as others see it: a proof is judged as the recursion in RFC 6962 does, and nothing is
//! believed that the log's key did not sign.

use crate::fixed::{LOG, NODE};
use keys::LogId;
use ledger::note::{Note, Verifier};
use ledger::proof::{self, Nodes, check_consistency, check_inclusion};
use ledger::{Checkpoint, Hash, cosignature};
use std::convert::Infallible;
use std::sync::LazyLock;

/// The log's name.
pub const ORIGIN: &str = "meshd/fuzz";
/// The name of the node that is its witness.
pub const WITNESS: &str = "node-1";
/// When the witness saw what it cosigned.
pub const SEEN: u64 = 1_700_000_000;
/// Entries in the log that honest proofs are of.
const ENTRIES: usize = 300;

/// The log's key with its name.
pub static VERIFIER: LazyLock<Verifier> =
    LazyLock::new(|| Verifier::new(ORIGIN, LOG.public()).expect("it is a name"));
/// The witness's.
pub static COSIGNER: LazyLock<Verifier> =
    LazyLock::new(|| Verifier::new(WITNESS, LogId(NODE.public().0)).expect("it is a name"));

/// By level, the hashes of all complete subtrees.
struct Levels(Vec<Vec<Hash>>);

impl Nodes for Levels {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        Ok(self.0[usize::from(level)][usize::try_from(index).expect("it is small")])
    }
}

static TREE: LazyLock<Levels> = LazyLock::new(|| {
    let entry = |n: usize| Hash::of_entry(&n.to_be_bytes());
    let mut levels = vec![(0..ENTRIES).map(entry).collect::<Vec<_>>()];
    while levels.last().is_some_and(|row| row.len() > 1) {
        let pairs = levels.last().expect("there is one").chunks_exact(2);
        levels.push(
            pairs
                .map(|pair| Hash::of_node(&pair[0], &pair[1]))
                .collect(),
        );
    }
    Levels(levels)
});

static ROOTS: LazyLock<Vec<Hash>> = LazyLock::new(|| {
    let Ok(roots) = (0..=ENTRIES as u64)
        .map(|size| proof::root(&*TREE, size))
        .collect();
    roots
});

/// `data` is where an entry is said to be, and what was done to the proof of it.
pub fn inclusion(data: &[u8]) {
    let Some((mut said, changes)) = Said::read(data, |part, whole| {
        let Ok(proof) = proof::inclusion(&*TREE, part, whole);
        (
            part,
            TREE.0[0][usize::try_from(part).expect("it is small")],
            proof,
        )
    }) else {
        return;
    };
    let honest = said.clone();
    said.change(changes);
    let holds = check_inclusion(said.part.1, said.part.0, said.whole, &said.proof).is_ok();
    let climbed = (said.part.0 < said.whole.0)
        .then(|| climb(said.part.0, said.whole.0, said.part.1, &said.proof))
        .flatten();
    assert_eq!(holds, climbed == Some(said.whole.1), "{said:?}");
    assert!(
        holds || said != honest,
        "an honest proof is refused: {said:?}"
    );
    if holds && said.place() == honest.place() && said.whole.1 == honest.whole.1 {
        assert_eq!(said, honest, "a forged proof is believed");
    }
}

/// `data` is what an earlier log is said to have been, and what was done to the proof of it.
pub fn consistency(data: &[u8]) {
    let Some((mut said, changes)) = Said::read(data, |part, whole| {
        let old = part + 1;
        let Ok(proof) = proof::consistency(&*TREE, old, whole);
        (
            old,
            ROOTS[usize::try_from(old).expect("it is small")],
            proof,
        )
    }) else {
        return;
    };
    let honest = said.clone();
    said.change(changes);
    let ((old, old_root), (new, new_root)) = (said.part, said.whole);
    let holds = check_consistency(said.part, said.whole, &said.proof).is_ok();
    let nothing = Hash::of_nothing();
    let expected = match old {
        0 => said.proof.is_empty() && old_root == nothing && (new > 0 || new_root == nothing),
        _ if old > new => false,
        _ => extend(old, new, (old_root, true), &said.proof) == Some((old_root, new_root)),
    };
    assert_eq!(holds, expected, "{said:?}");
    assert!(
        holds || said != honest,
        "an honest proof is refused: {said:?}"
    );
    if holds && said.place() == honest.place() && said.whole.1 == honest.whole.1 {
        assert_eq!(said, honest, "a forged proof is believed");
    }
}

/// A statement with its proof.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    /// The entry and its hash, or the earlier size and its root.
    part: (u64, Hash),
    whole: (u64, Hash),
    proof: Vec<Hash>,
}

impl Said {
    /// The honest statement that the first four bytes choose; the rest is what is done to it.
    fn read(
        data: &[u8],
        honest: impl FnOnce(u64, u64) -> (u64, Hash, Vec<Hash>),
    ) -> Option<(Self, &[u8])> {
        let (head, changes) = data.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let whole = 1 + u64::from(u16::from_be_bytes([a, b])) % ENTRIES as u64;
        let part = u64::from(u16::from_be_bytes([c, d])) % whole;
        let (number, hash, proof) = honest(part, whole);
        let said = Self {
            part: (number, hash),
            whole: (whole, ROOTS[usize::try_from(whole).expect("it is small")]),
            proof,
        };
        Some((said, changes))
    }

    fn place(&self) -> (u64, u64) {
        (self.part.0, self.whole.0)
    }

    /// Each change is a byte that chooses it and a byte that says where; some take what follows.
    fn change(&mut self, mut changes: &[u8]) {
        while let Some(([kind, at], rest)) = changes.split_first_chunk::<2>() {
            changes = rest;
            let at = usize::from(*at);
            let len = self.proof.len();
            let flip = |hash: &mut Hash| hash.0[at / 8] ^= 1 << (at % 8);
            match kind % 9 {
                0 => flip(&mut self.part.1),
                1 => flip(&mut self.whole.1),
                2 | 3 => {
                    let Some((number, rest)) = changes.split_first_chunk::<8>() else {
                        return;
                    };
                    changes = rest;
                    let to = match kind % 9 {
                        2 => &mut self.part.0,
                        _ => &mut self.whole.0,
                    };
                    *to = u64::from_be_bytes(*number);
                }
                4 if len < 80 => {
                    let Some((hash, rest)) = changes.split_first_chunk::<32>() else {
                        return;
                    };
                    changes = rest;
                    self.proof.insert(at % (len + 1), Hash(*hash));
                }
                _ if len == 0 => {}
                5 => drop(self.proof.remove(at % len)),
                6 if len < 80 => self.proof.insert(at % len, self.proof[at / 16 % len]),
                7 => self.proof.swap(at % len, at / 16 % len),
                _ => flip(&mut self.proof[at % len]),
            }
        }
    }
}

/// The root that a path leads to, from the recursion in RFC 6962, section 2.1.1, and not from the product.
fn climb(index: u64, size: u64, leaf: Hash, path: &[Hash]) -> Option<Hash> {
    if size == 1 {
        return path.is_empty().then_some(leaf);
    }
    let (sibling, below) = path.split_last()?;
    let left = 1u64 << (size - 1).ilog2();
    if index < left {
        Some(Hash::of_node(&climb(index, left, leaf, below)?, sibling))
    } else {
        let right = climb(index - left, size - left, leaf, below)?;
        Some(Hash::of_node(sibling, &right))
    }
}

/// Both roots that a proof leads to, from the recursion in RFC 6962, section 2.1.2. `known` is the old root, and
/// whether it is that of the subtree in hand.
fn extend(old: u64, new: u64, known: (Hash, bool), path: &[Hash]) -> Option<(Hash, Hash)> {
    if old == new {
        return match (known, path) {
            ((root, true), []) => Some((root, root)),
            ((_, false), [root]) => Some((*root, *root)),
            _ => None,
        };
    }
    let (sibling, below) = path.split_last()?;
    let left = 1u64 << (new - 1).ilog2();
    if old <= left {
        let (was, is) = extend(old, left, known, below)?;
        Some((was, Hash::of_node(&is, sibling)))
    } else {
        let (was, is) = extend(old - left, new - left, (known.0, false), below)?;
        Some((Hash::of_node(sibling, &was), Hash::of_node(sibling, &is)))
    }
}

/// `data` is a note from anybody, or a verifier key.
pub fn note(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = text.parse::<Verifier>()
    {
        assert_eq!(key.to_string(), text);
    }
    let Ok(note) = Note::parse(data) else { return };
    assert_eq!(note.to_string().as_bytes(), data);
    let signed = signed();
    if let Ok(text) = note.verify(&VERIFIER) {
        assert_eq!(text, signed.to_string(), "nobody signed that");
    }
    if let Ok(checkpoint) = Checkpoint::verify(&note, &VERIFIER) {
        assert_eq!(checkpoint, signed);
    }
    if let Ok(seen) = cosignature::verify(&note, &COSIGNER) {
        assert_eq!((note.text(), seen), (&*signed.to_string(), SEEN));
    }
    assert!(note.verify(&COSIGNER).is_err(), "a witness signs no notes");
    assert!(
        cosignature::verify(&note, &VERIFIER).is_err(),
        "a log cosigns nothing"
    );
}

/// `data` is a text that the log signs, whatever it is.
pub fn checkpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(checkpoint) = Checkpoint::parse(text) else {
        return;
    };
    assert_eq!(checkpoint.to_string(), text);
    let Ok(note) = checkpoint.sign(&LOG) else {
        return;
    };
    let read = Note::parse(note.to_string().as_bytes()).expect("it was just signed");
    assert_eq!(read, note);
    let log = Verifier::new(&checkpoint.origin, LOG.public()).expect("it has signed");
    assert_eq!(Checkpoint::verify(&read, &log), Ok(checkpoint));
    assert_eq!(read.verify(&VERIFIER).is_ok(), log.name() == ORIGIN);
}

/// The one checkpoint that is signed in the seeds.
pub fn signed() -> Checkpoint {
    Checkpoint {
        origin: ORIGIN.to_owned(),
        size: ENTRIES as u64,
        root: ROOTS[ENTRIES],
        extensions: Vec::new(),
    }
}

/// The same as a note, cosigned.
pub fn seed() -> Note {
    let mut note = signed().sign(&LOG).expect("it is a checkpoint");
    let line = cosignature::cosign(&note, WITNESS, SEEN, &NODE).expect("it is a name");
    note.push(line);
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_believed() {
        let note = seed();
        assert!(note.verify(&VERIFIER).is_ok());
        assert_eq!(cosignature::verify(&note, &COSIGNER), Ok(SEEN));
    }

    #[test]
    fn every_honest_proof_is_believed() {
        for whole in 0..ENTRIES as u16 {
            for part in 0..=whole {
                let data = [whole.to_be_bytes(), part.to_be_bytes()].concat();
                inclusion(&data);
                consistency(&data);
            }
        }
    }
}
