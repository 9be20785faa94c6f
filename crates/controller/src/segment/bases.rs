//! Updates that nodes may hold, and what changed since: an epoch is pushed as its changes against the newest one
//! that its node has acknowledged. Each set of changes is made once and shared by all whom it serves.

use super::Issue;
use keys::Epoch;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use wire::{Changes, Digest, EpochUpdate};

/// The newest updates.
#[derive(Debug, Default)]
pub(super) struct Bases {
    /// Oldest first.
    updates: VecDeque<(Digest, Arc<EpochUpdate>)>,
    /// By base and by the digest of what they make; `None`: they would be as large as the whole.
    changes: RefCell<BTreeMap<(Digest, Digest), Option<Changes>>>,
}

impl Bases {
    /// An update is on its way to the nodes.
    pub(super) fn add(&mut self, issue: &Issue) {
        let digest = issue.digest;
        self.updates.push_back((digest, Arc::clone(&issue.update)));
        if self.updates.len() > BASES {
            self.updates.pop_front();
        }
        self.changes.borrow_mut().clear();
    }

    /// The digest of the update of this epoch.
    pub(super) fn digest(&self, epoch: Epoch) -> Option<Digest> {
        let mut updates = self.updates.iter();
        let found = updates.find(|(_, update)| update.epoch == epoch);
        found.map(|(digest, _)| *digest)
    }

    /// How `issue` is best told to a node that holds these updates; `None`: whole.
    pub(super) fn changes(&self, held: &[Digest], issue: &Issue) -> Option<Changes> {
        let newest = self.updates.iter().rev();
        let mut known = newest.filter(|(digest, _)| held.contains(digest));
        let (base, update) = known.next()?;
        let between = || {
            let changes = Changes::between((update, *base), &issue.update, &issue.signed);
            changes.filter(|changes| changes.size() < issue.signed.payload_len())
        };
        let mut made = self.changes.borrow_mut();
        let made = made.entry((*base, issue.digest));
        made.or_insert_with(between).clone()
    }
}

/// Updates that are kept to build on: as many as operators make in a moment, and more than a node keeps.
const BASES: usize = 8;
