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

    /// The update with this digest.
    pub(crate) fn get(&self, digest: &Digest) -> Option<&EpochUpdate> {
        let found = self.0.iter().find(|held| held.digest() == *digest);
        found.map(|held| &**held)
    }

    /// The digests of all, oldest first.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        self.0.iter().map(Verified::digest).collect()
    }
}

/// The epoch in force, the one on its way, and some that either may have taken the place of.
const HELD: usize = 4;
