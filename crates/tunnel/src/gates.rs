//! The rules of an epoch come into force with it: which peer may send what, from its activation on. Holding a packet
//! against them is the gate's part, in the crate `filter`; the places where it is asked are `inbound.rs`, `opening.rs`
//! and, for the packets of this host, `peer.rs`.

use crate::peers::Peers;
use filter::{Access, Groups, Room, Rule, Rules};
use keys::WgPublicKey;
use std::sync::Arc;

/// The rules that are in force, and those of the epoch that is installed.
pub(crate) struct Gates {
    rules: Option<Rules>,
    next: Option<Rules>,
    /// Of all peers' flows.
    room: Arc<Room>,
}

impl Gates {
    /// Without rules. `seed`: as in [`crate::Config`].
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rules: None,
            next: None,
            room: Arc::new(Room::new(seed)),
        }
    }

    /// Another epoch is installed, which has no rules yet.
    pub(crate) fn forget_next(&mut self) {
        self.next = None;
    }

    /// The rules of the epoch that is being installed, in parts: what they say of each peer is asked for with
    /// [`Self::next_access`] when it is installed.
    pub(crate) fn prepare(&mut self, allow: Vec<Rule>, own: Groups) {
        let rules = Rules::new(allow, own, Arc::clone(&self.room));
        self.next = Some(rules.after(self.rules.as_ref()));
    }

    /// The access of a peer in these groups, from the next epoch on.
    pub(crate) fn next_access(&mut self, groups: Groups) -> Access {
        let rules = self.next.as_mut();
        rules.map_or(Access::All, |rules| rules.toward(groups))
    }

    /// The rules of the epoch that is installed.
    pub(crate) fn install(
        &mut self,
        allow: Vec<Rule>,
        own: Groups,
        groups: impl IntoIterator<Item = (WgPublicKey, Groups)>,
        peers: &mut Peers,
    ) {
        let rules = Rules::new(allow, own, Arc::clone(&self.room));
        let mut rules = rules.after(self.rules.as_ref());
        // Nobody is left with what the epoch before said of it.
        let nobody = rules.toward(Groups::default());
        for peer in peers.iter_mut() {
            peer.expect_access(nobody.clone());
        }
        for (key, groups) in groups {
            let id = peers.id_of(&key);
            if let Some(peer) = id.and_then(|id| peers.get_mut(id)) {
                peer.expect_access(rules.toward(groups));
            }
        }
        self.next = Some(rules);
    }

    /// The installed epoch begins.
    pub(crate) fn activate(&mut self) {
        self.rules = self.next.take();
    }

    /// Packets that each rule in force has let in.
    pub(crate) fn passed(&self) -> Option<Vec<u64>> {
        self.rules.as_ref().map(Rules::passed)
    }
}
