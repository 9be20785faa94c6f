//! The table of peers. Whoever has the tunnel to itself reaches any of them; those that share it
//! lock one at a time.

use crate::allowed_ips::PeerId;
use crate::peer::Peer;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(crate) struct Peers(Vec<Option<Mutex<Peer>>>);

impl Peers {
    /// Slots, free ones included.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A slot for a newcomer; it is filled by [`Self::insert`].
    pub(crate) fn free_slot(&self) -> PeerId {
        let free = self.0.iter().position(Option::is_none);
        free.unwrap_or(self.0.len())
    }

    /// Puts a peer into its slot.
    pub(crate) fn insert(&mut self, peer: Peer) {
        let id = peer.id;
        if self.0.len() <= id {
            self.0.resize_with(id + 1, || None);
        }
        if let Some(slot) = self.0.get_mut(id) {
            *slot = Some(Mutex::new(peer));
        }
    }

    pub(crate) fn take(&mut self, id: PeerId) -> Option<Peer> {
        let peer = self.0.get_mut(id)?.take()?;
        Some(peer.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        let peer = self.0.get_mut(id)?.as_mut()?;
        Some(peer.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        let peers = self.0.iter_mut().flatten();
        peers.map(|peer| peer.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a peer. A thread holds one at a time.
    pub(crate) fn lock(&self, id: PeerId) -> Option<MutexGuard<'_, Peer>> {
        let peer = self.0.get(id)?.as_ref()?;
        Some(peer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every peer, one lock after the other.
    pub(crate) fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, Peer>> {
        (0..self.0.len()).filter_map(|id| self.lock(id))
    }
}
