//! The updates that this node holds to build others on: the controller sends what changed since one that the
//! node has acknowledged, or has named in its Hello. Refuses to judge them; they are verified when they come.

use std::collections::VecDeque;
use wire::{Digest, EpochUpdate, Verified};

/// The newest updates that were taken.
#[derive(Debug, Default)]
pub(crate) struct Held(VecDeque<Verified<EpochUpdate>>);

impl Held {
    /// An update was taken.
    pub(crate) fn keep(&mut self, update: Verified<EpochUpdate>) {
        self.0.retain(|held| held.digest() != update.digest());
        if self.0.len() >= HELD {
            self.0.pop_front();
        }
        self.0.push_back(update);
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

/// The epoch in force, the one on its way, and some that either may have taken the place of.
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
        held.keep(base.clone());
        for epoch in 2..20 {
            assert!(held.get(&base.digest()).is_some(), "epoch {epoch}");
            held.keep(update(epoch));
        }
        assert_eq!(held.digests().len(), HELD);
        for epoch in 20..24 {
            held.keep(update(epoch));
        }
        assert!(held.get(&base.digest()).is_none());
    }
}
