//! Which inner address belongs to which peer. Host routes only: a mesh member has one IPv4 and one
//! IPv6 address, so the longest prefix is the only one.

use std::collections::HashMap;
use std::net::IpAddr;

/// A peer's slot in the tunnel's table.
pub(crate) type PeerId = usize;

#[derive(Default)]
pub(crate) struct AllowedIps(HashMap<IpAddr, PeerId>);

impl AllowedIps {
    pub(crate) fn insert(&mut self, address: IpAddr, peer: PeerId) {
        self.0.insert(address, peer);
    }

    pub(crate) fn get(&self, address: IpAddr) -> Option<PeerId> {
        self.0.get(&address).copied()
    }

    pub(crate) fn remove_peer(&mut self, peer: PeerId) {
        self.0.retain(|_, owner| *owner != peer);
    }
}
