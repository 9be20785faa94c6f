//! The authority's word for the updates that this node has: what it shows a controller, so that one with
//! an old copy of its log learns of it. Keeps the word for an update until the update is in force.

use keys::{AuthorityId, Epoch};
use std::collections::BTreeMap;
use wire::{Digest, Mark, Signed};

/// The marks.
#[derive(Debug)]
pub(crate) struct Marks {
    /// Of updates that may yet be in force here.
    pending: BTreeMap<Epoch, Signed<Mark>>,
    /// Of the newest one that was.
    newest: Option<Signed<Mark>>,
}

impl Marks {
    pub(crate) fn new(newest: Option<Signed<Mark>>) -> Self {
        Self {
            pending: BTreeMap::new(),
            newest,
        }
    }

    /// Takes the mark that came with an update.
    pub(crate) fn handle_update(
        &mut self,
        (epoch, digest): (Epoch, Digest),
        mark: Signed<Mark>,
        trusted: &[AuthorityId],
    ) {
        let fits = |mark: &Mark| mark.epoch == epoch && mark.update == digest;
        // A mark that proves nothing is dropped: the controller would not believe it either, and the one
        // from before, which is true, would be lost for it.
        if mark.verify(trusted).is_ok_and(|mark| fits(&mark)) {
            self.pending.insert(epoch, mark);
        }
    }

    /// The update of this epoch is in force; the newest mark from here on.
    pub(crate) fn handle_in_force(&mut self, epoch: Epoch) -> Option<&Signed<Mark>> {
        if let Some(mark) = self.pending.remove(&epoch) {
            // Without a new one the old one stays: it still proves what it proved.
            self.newest = Some(mark);
        }
        self.pending.retain(|pending, _| *pending > epoch);
        self.newest()
    }

    pub(crate) fn newest(&self) -> Option<&Signed<Mark>> {
        self.newest.as_ref()
    }
}
