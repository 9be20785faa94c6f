//! The rules of an epoch come into force with it: which peer may send what, from its activation on. Holding a packet
//! against them is the gate's part, in the crate `filter`; the places where it is asked are `inbound.rs`, `opening.rs`
//! and, for what this host sends, `peer.rs`.

use crate::drops::DropReason;
use crate::inbound::Plain;
use crate::peer::Peer;
use crate::tunnel::Tunnel;
use filter::{Access, Groups, Refusal, Room, Rule, Rules};
use keys::WgPublicKey;
use std::sync::Arc;
use std::time::Duration;

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

    /// The installed epoch begins.
    pub(crate) fn activate(&mut self) {
        self.rules = self.next.take();
    }

    /// An epoch is installed that has no rules yet.
    pub(crate) fn forget_next(&mut self) {
        self.next = None;
    }
}

impl Tunnel {
    /// The rules of the epoch that was installed last, for this node in the groups `own`, and the groups of its
    /// peers; a peer that is not among them is in none. They hold from the epoch's activation on, for a newcomer at
    /// once. An epoch without this call has no rules, and everything passes.
    pub fn install_rules(
        &mut self,
        allow: Vec<Rule>,
        own: Groups,
        groups: impl IntoIterator<Item = (WgPublicKey, Groups)>,
    ) {
        let rules = Rules::new(allow, own, Arc::clone(&self.gates.room));
        let mut rules = rules.after(self.gates.rules.as_ref());
        // Nobody is left with what the epoch before said of it.
        let nobody = rules.toward(Groups::default());
        for peer in self.peers.iter_mut() {
            peer.expect_access(nobody.clone());
        }
        for (key, groups) in groups {
            let id = self.peers.id_of(&key);
            if let Some(peer) = id.and_then(|id| self.peers.get_mut(id)) {
                peer.expect_access(rules.toward(groups));
            }
        }
        self.gates.next = Some(rules);
    }

    /// Packets that each rule in force has let in, in the order of the rules; `None`: there are no rules.
    pub fn passed_by_rule(&self) -> Option<Vec<u64>> {
        self.gates.rules.as_ref().map(Rules::passed)
    }
}

impl Peer {
    /// The access that the peer has from its next epoch on; one that has no epoch in force has it at once, because it
    /// may be heard a moment before.
    fn expect_access(&mut self, access: Access) {
        if self.generations.current.is_none() {
            self.gate.set(access.clone());
        }
        self.next_access = access;
    }

    /// Whether the rules let in a packet that was opened into `out`.
    #[inline]
    pub(crate) fn admit(
        &mut self,
        plain: &Plain,
        out: &[u8],
        now: Duration,
    ) -> Result<(), DropReason> {
        if self.gate.is_open() {
            return Ok(());
        }
        let packet = out.get(..plain.len).unwrap_or_default();
        self.gate
            .admit(packet, now)
            .map_err(|refusal| match refusal {
                Refusal::NoRule => DropReason::NoRule,
                Refusal::Fragment => DropReason::StrayFragment,
                Refusal::IcmpError => DropReason::StrayIcmpError,
                Refusal::Unreadable => DropReason::Unreadable,
            })
    }
}
