//! The table of peers, by slot and by key. A thread that has the tunnel to itself reaches any of them;
//! threads that share it lock one at a time.

use crate::allowed_ips::PeerId;
use crate::peer::Peer;
use keys::WgPublicKey;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(crate) struct Peers {
    /// Boxed, so that a table that grows moves pointers and no peers.
    slots: Vec<Option<Box<Mutex<Peer>>>>,
    /// The slots that were left, each once.
    free: Vec<PeerId>,
    /// Always one entry for each slot that is taken.
    by_key: HashMap<WgPublicKey, PeerId>,
}

impl Peers {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.by_key.len()
    }

    /// All slots, free ones included.
    pub(crate) fn slots(&self) -> std::ops::Range<PeerId> {
        0..self.slots.len()
    }

    /// The slot of a peer.
    pub(crate) fn id_of(&self, key: &WgPublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    /// A slot for a newcomer; it is filled by [`Self::insert`].
    pub(crate) fn free_slot(&self) -> PeerId {
        self.free.last().copied().unwrap_or(self.slots.len())
    }

    /// Puts a peer into the slot that [`Self::free_slot`] gave.
    pub(crate) fn insert(&mut self, peer: Peer) {
        let (id, key) = (peer.id, peer.key);
        if self.free.last() == Some(&id) {
            self.free.pop();
        } else if self.slots.len() == id {
            self.slots.push(None);
        }
        if let Some(slot) = self.slots.get_mut(id) {
            *slot = Some(Box::new(Mutex::new(peer)));
            self.by_key.insert(key, id);
        }
    }

    pub(crate) fn take(&mut self, id: PeerId) -> Option<Peer> {
        let peer = self.slots.get_mut(id)?.take()?;
        self.free.push(id);
        let peer = peer.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.by_key.remove(&peer.key);
        Some(peer)
    }

    pub(crate) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        let peer = self.slots.get_mut(id)?.as_mut()?;
        Some(peer.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// The peer in a slot, for one who has the tunnel alone and does not change it.
    pub(crate) fn get(&mut self, id: PeerId) -> Option<&Peer> {
        self.get_mut(id).map(|peer| &*peer)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        let peers = self.slots.iter_mut().flatten();
        peers.map(|peer| peer.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a peer. A thread holds one at a time.
    pub(crate) fn lock(&self, id: PeerId) -> Option<MutexGuard<'_, Peer>> {
        let peer = self.slots.get(id)?.as_ref()?;
        Some(peer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every peer, one lock after the other.
    pub(crate) fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, Peer>> {
        self.slots().filter_map(|id| self.lock(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::WgSecret;
    use rand_core::OsRng;

    fn newcomer(peers: &mut Peers, own: &WgSecret) -> PeerId {
        let (id, key) = (peers.free_slot(), WgSecret::generate(&mut OsRng).public());
        let shared = own.shared_with(&key).expect("a good key");
        peers.insert(Peer::new(id, key, shared.into(), &own.public()));
        id
    }

    #[test]
    fn a_slot_that_was_left_is_the_next_to_be_taken_and_no_slot_is_taken_twice() {
        let (mut peers, own) = (Peers::default(), WgSecret::generate(&mut OsRng));
        let ids: Vec<_> = (0..5).map(|_| newcomer(&mut peers, &own)).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4]);
        for id in [1, 3, 3] {
            peers.take(id);
        }
        assert_eq!(peers.count(), 3);
        let again: Vec<_> = (0..3).map(|_| newcomer(&mut peers, &own)).collect();
        assert_eq!(again, [3, 1, 5]);
        assert_eq!((peers.count(), peers.slots().len()), (6, 6));
        assert!(
            peers
                .iter_mut()
                .all(|peer| peer.shared.expose() != &[0; 32])
        );
    }
}
