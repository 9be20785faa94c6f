//! The updates that this node holds to build others on: the controller sends what changed since one that the
//! node has acknowledged, or has named in its Hello. Refuses to judge them; they are verified when they come.

use keys::SegmentId;
use std::collections::VecDeque;
use wire::message::MAX_HELD;
use wire::{Digest, EpochUpdate, Verified};

/// The newest updates that were taken.
#[derive(Debug, Default)]
pub(crate) struct Held(VecDeque<Verified<EpochUpdate>>);

impl Held {
    /// An update was taken, of one of so many segments.
    pub(crate) fn keep(&mut self, update: Verified<EpochUpdate>, segments: usize) {
        self.0.retain(|held| held.digest() != update.digest());
        let most = (MAX_HELD / segments.max(1)).clamp(1, HELD);
        let of_segment = |held: &&Verified<EpochUpdate>| held.segment == update.segment;
        let mut surplus = (self.0.iter().filter(of_segment).count() + 1).saturating_sub(most);
        self.0.retain(|held| {
            let goes = surplus > 0 && held.segment == update.segment;
            surplus -= usize::from(goes);
            !goes
        });
        self.0.push_back(update);
    }

    /// The node is not in this segment any more.
    pub(crate) fn forget(&mut self, segment: SegmentId) {
        self.0.retain(|held| held.segment != segment);
    }

    /// The update with this digest. It stays for longer than the others from then on: until it has heard of a newer
    /// acknowledgement, the controller builds on the same one.
    pub(crate) fn get(&mut self, digest: &Digest) -> Option<&EpochUpdate> {
        let at = self.0.iter().position(|held| held.digest() == *digest)?;
        let held = self.0.remove(at)?;
        self.0.push_back(held);
        self.0.back().map(|held| &**held)
    }

    /// The digests of all, oldest first.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        self.0.iter().map(Verified::digest).collect()
    }
}

/// Of a segment, unless there are many: the epoch in force, the one on its way, and some that either may have taken
/// the place of.
const HELD: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use keys::AuthoritySecret;
    use rand_core::OsRng;
    use wire::{Signed, fixtures};

    #[test]
    fn an_update_that_others_build_on_stays_however_many_come() {
        let authority = AuthoritySecret::generate(&mut OsRng);
        let update = |epoch| {
            let update = fixtures::update(epoch, Vec::new());
            let signed = Signed::sign(&update, &authority).unwrap();
            signed.verify(&[authority.public()]).unwrap()
        };
        let base = update(1);
        let mut held = Held::default();
        held.keep(base.clone(), 1);
        for epoch in 2..20 {
            assert!(held.get(&base.digest()).is_some(), "epoch {epoch}");
            held.keep(update(epoch), 1);
        }
        assert_eq!(held.digests().len(), HELD);
        for epoch in 20..24 {
            held.keep(update(epoch), 1);
        }
        assert!(held.get(&base.digest()).is_none());
    }

    #[test]
    fn the_updates_of_many_segments_fit_into_a_hello_and_leave_each_other_alone() {
        let authority = AuthoritySecret::generate(&mut OsRng);
        let update = |segment, epoch| {
            let update = EpochUpdate {
                segment: SegmentId(segment),
                ..fixtures::update(epoch, Vec::new())
            };
            let signed = Signed::sign(&update, &authority).unwrap();
            signed.verify(&[authority.public()]).unwrap()
        };
        let (mut held, quiet) = (Held::default(), update(0, 1));
        held.keep(quiet.clone(), 16);
        for epoch in 1..10 {
            (1..16).for_each(|segment| held.keep(update(segment, epoch), 16));
        }
        assert_eq!(held.digests().len(), MAX_HELD);
        assert!(held.get(&quiet.digest()).is_some());
        held.forget(SegmentId::FIRST);
        assert!(held.get(&quiet.digest()).is_none());
        assert_eq!(held.digests().len(), MAX_HELD - 1);
    }
}
