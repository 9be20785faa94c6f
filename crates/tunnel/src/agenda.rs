//! When which peer's next handshake message is due. One entry per peer at most; a peer says itself
//! when its own changes.

use crate::allowed_ips::PeerId;
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Agenda(BTreeSet<(Duration, PeerId)>);

impl Agenda {
    /// The first that is due, and for whom.
    pub(crate) fn first(&self) -> Option<(Duration, PeerId)> {
        self.0.first().copied()
    }

    /// The peer's message is due at `after`, no longer at `before`.
    pub(crate) fn change(
        &mut self,
        peer: PeerId,
        before: Option<Duration>,
        after: Option<Duration>,
    ) {
        if let Some(before) = before {
            self.0.remove(&(before, peer));
        }
        if let Some(after) = after {
            self.0.insert((after, peer));
        }
    }

    /// Nothing is due for a peer that is not there.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.0.retain(|(_, owner)| *owner != peer);
    }

    #[cfg(test)]
    pub(crate) fn of(&self, peer: PeerId) -> Vec<Duration> {
        let own = self.0.iter().filter(|(_, owner)| *owner == peer);
        own.map(|(due, _)| *due).collect()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
