//! The table of peers, by slot and by key. A thread that has the tunnel to itself reaches any of them;
//! threads that share it lock one at a time.

use crate::allowed_ips::PeerId;
use crate::peer::Peer;
use keys::WgPublicKey;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(crate) struct Peers {
    slots: Vec<Option<Mutex<Peer>>>,
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
        let free = self.slots.iter().position(Option::is_none);
        free.unwrap_or(self.slots.len())
    }

    /// Puts a peer into its slot.
    pub(crate) fn insert(&mut self, peer: Peer) {
        let (id, key) = (peer.id, peer.key);
        if self.slots.len() <= id {
            self.slots.resize_with(id + 1, || None);
        }
        if let Some(slot) = self.slots.get_mut(id) {
            *slot = Some(Mutex::new(peer));
            self.by_key.insert(key, id);
        }
    }

    pub(crate) fn take(&mut self, id: PeerId) -> Option<Peer> {
        let peer = self.slots.get_mut(id)?.take()?;
        let peer = peer.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.by_key.remove(&peer.key);
        Some(peer)
    }

    pub(crate) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        let peer = self.slots.get_mut(id)?.as_mut()?;
        Some(peer.get_mut().unwrap_or_else(PoisonError::into_inner))
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
