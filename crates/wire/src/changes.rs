//! An epoch update as what changed against an earlier one, so that an epoch costs as much as it changes.
//!
//! The signature is the whole update's: the receiver puts the update together from the one that it holds, and
//! then verifies it as if it had arrived whole. A wrong base, or a wrong change, is a signature that does not fit.

use crate::signed::{Digest, Signed};
use crate::update::{EpochUpdate, Excluded, Member};
use bytes::Bytes;
use keys::NodeId;
use serde::{Deserialize, Serialize};

/// The changes that make an update out of an earlier one, encoded. A copy shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes(Bytes);

/// The encoded changes in full.
#[derive(Debug, Serialize, Deserialize)]
struct Plain {
    /// Digest of the update that they build on.
    base: Digest,
    /// Digest of the update that they make.
    result: Digest,
    /// The signed update without its payload.
    signed: Signed<EpochUpdate>,
    /// The update with an empty roster and nobody excluded.
    bare: EpochUpdate,
    /// Members of the base that are none any more.
    left: Vec<NodeId>,
    /// Members that are new or changed, in increasing order of [`NodeId`].
    members: Vec<Member>,
    /// Nodes that were excluded and are not any more.
    cleared: Vec<NodeId>,
    /// Nodes that are excluded anew or otherwise, in increasing order of [`NodeId`].
    excluded: Vec<Excluded>,
}

/// Why changes do not make an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangesError {
    /// The update that they build on is not there.
    #[error("changes against update {0}, which this node does not hold")]
    NoBase(Digest),
    /// The bytes are no changes.
    #[error("malformed changes")]
    Malformed,
    /// They make another update than they say.
    #[error("changes that make another update than they say")]
    OtherResult,
}

impl Changes {
    /// The changes from `base`, whose digest is given, to the update that was signed as `signed`; `None` if they
    /// cannot be encoded.
    pub fn between(
        base: (&EpochUpdate, Digest),
        update: &EpochUpdate,
        signed: &Signed<EpochUpdate>,
    ) -> Option<Self> {
        let (base, base_digest) = base;
        let (left, members) = changes(&base.roster, &update.roster, |it| it.node);
        let (cleared, excluded) = changes(&base.excluded, &update.excluded, |it| it.node);
        let mut bare = signed.clone();
        bare.take_payload();
        let plain = Plain {
            base: base_digest,
            result: signed.digest(),
            signed: bare,
            bare: update.bare(),
            left,
            members,
            cleared,
            excluded,
        };
        postcard::to_stdvec(&plain).ok().map(|it| Self(it.into()))
    }

    /// Digest of the update that they build on.
    ///
    /// # Errors
    /// When the bytes are no changes.
    pub fn base(&self) -> Result<Digest, ChangesError> {
        let read = postcard::take_from_bytes::<Digest>(&self.0);
        let (base, _) = read.map_err(|_| ChangesError::Malformed)?;
        Ok(base)
    }

    /// Encoded size in bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// Puts the update together from what `held` finds under a digest. What comes back has to be verified.
    ///
    /// # Errors
    /// [`ChangesError`].
    pub fn apply<'u>(
        &self,
        held: impl FnOnce(&Digest) -> Option<&'u EpochUpdate>,
    ) -> Result<Signed<EpochUpdate>, ChangesError> {
        let Ok((plain, [])) = postcard::take_from_bytes::<Plain>(&self.0) else {
            return Err(ChangesError::Malformed);
        };
        let base = held(&plain.base).ok_or(ChangesError::NoBase(plain.base))?;
        let mut update = plain.bare;
        update.roster = changed(&base.roster, &plain.left, plain.members, |it| it.node);
        update.excluded = changed(&base.excluded, &plain.cleared, plain.excluded, |it| it.node);
        let payload = postcard::to_stdvec(&update).map_err(|_| ChangesError::Malformed)?;
        let signed = plain.signed.with_payload(payload);
        if signed.digest() != plain.result {
            return Err(ChangesError::OtherResult);
        }
        Ok(signed)
    }

    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }
}

/// The keys that `after` lacks, and the entries that `before` lacks or has otherwise. Both are sorted by key.
fn changes<T: Clone + PartialEq>(
    before: &[T],
    after: &[T],
    key: impl Fn(&T) -> NodeId,
) -> (Vec<NodeId>, Vec<T>) {
    let find = |list: &[T], wanted: &NodeId| -> Option<usize> {
        list.binary_search_by_key(wanted, &key).ok()
    };
    let gone = before.iter().map(&key);
    let gone = gone.filter(|node| find(after, node).is_none()).collect();
    let is_news = |entry: &&T| {
        let at = find(before, &key(entry));
        at.and_then(|at| before.get(at)) != Some(*entry)
    };
    let news = after.iter().filter(is_news).cloned().collect();
    (gone, news)
}

/// The entries of `before` without those that are `gone` or anew in `news`, together with `news`.
fn changed<T: Clone>(
    before: &[T],
    gone: &[NodeId],
    news: Vec<T>,
    key: impl Fn(&T) -> NodeId,
) -> Vec<T> {
    let gone: std::collections::HashSet<&NodeId> = gone.iter().collect();
    let anew: std::collections::HashSet<NodeId> = news.iter().map(&key).collect();
    let stays = |entry: &&T| {
        let node = key(entry);
        !gone.contains(&node) && !anew.contains(&node)
    };
    let mut after: Vec<T> = before.iter().filter(stays).cloned().collect();
    after.extend(news);
    after.sort_by_key(&key);
    after
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, member};
    use keys::AuthoritySecret;
    use proptest::prelude::*;
    use rand_core::OsRng;
    use std::collections::BTreeMap;

    fn update(epoch: u64, fates: &BTreeMap<u8, bool>) -> EpochUpdate {
        let of = |fate: bool| fates.iter().filter(move |(_, it)| **it == fate);
        EpochUpdate {
            excluded: of(false).map(|(n, _)| fixtures::excluded(*n)).collect(),
            ..fixtures::update(epoch, of(true).map(|(n, _)| member(*n)).collect())
        }
    }

    proptest! {
        #[test]
        fn changes_make_the_update_that_was_signed_and_no_other(
            before in proptest::collection::btree_map(1u8..60, any::<bool>(), 0..40),
            after in proptest::collection::btree_map(1u8..60, any::<bool>(), 0..40),
        ) {
            let authority = AuthoritySecret::generate(&mut OsRng);
            let (base, update) = (update(3, &before), update(4, &after));
            let digest = Signed::sign(&base, &authority).unwrap().digest();
            let signed = Signed::sign(&update, &authority).unwrap();
            let changes = Changes::between((&base, digest), &update, &signed).unwrap();
            prop_assert_eq!(changes.base(), Ok(digest));
            let made = changes.apply(|asked| (*asked == digest).then_some(&base)).unwrap();
            prop_assert_eq!(&made, &signed);
            prop_assert_eq!(&*made.verify(&[authority.public()]).unwrap(), &update);

            let absent = changes.apply(|_| None).unwrap_err();
            prop_assert_eq!(absent, ChangesError::NoBase(digest));
            // A base that is not the one which was meant makes no update that anybody signed.
            let mut other = base.clone();
            other.roster.push(member(77));
            let wrong = changes.apply(|_| Some(&other));
            prop_assert_eq!(wrong.unwrap_err(), ChangesError::OtherResult);
        }

        #[test]
        fn any_bytes_are_changes_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let base = update(3, &BTreeMap::from([(1, true)]));
            let _ = Changes(bytes.into()).apply(|_| Some(&base));
        }
    }
}
