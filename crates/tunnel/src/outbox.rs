//! Datagrams of the tunnel's own that wait for the owner to send them: handshake messages, cookie
//! replies, keepalives, and packets that had waited for a session. Sends nothing itself.

use crate::allowed_ips::PeerId;
use crate::outer::{Outer, Route, TrafficClass};
use crate::path::Path;
use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;

/// A datagram of the tunnel's own: handshake messages, keepalives, packets that had waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Path,
    /// The datagram.
    pub payload: Vec<u8>,
    here: Option<IpAddr>,
    class: TrafficClass,
    /// The peer that it is for; `None` for a cookie reply, which anybody may get.
    peer: Option<PeerId>,
}

#[derive(Default)]
pub(crate) struct Outbox(VecDeque<Transmit>);

impl Outbox {
    pub(crate) fn put(&mut self, transmit: Transmit) {
        self.0.push_back(transmit);
    }

    /// The next to send, oldest first.
    pub(crate) fn take(&mut self) -> Option<Transmit> {
        self.0.pop_front()
    }

    /// Nothing of what waits is to be sent any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes back what waits for peers that are removed. A packet that was sealed for one before would
    /// otherwise leave after the removal, on a session that the peer still has.
    pub(crate) fn forget(&mut self, peers: &HashSet<PeerId>) {
        if !self.0.is_empty() && !peers.is_empty() {
            let is_gone = |transmit: &Transmit| transmit.peer.is_some_and(|it| peers.contains(&it));
            self.0.retain(|transmit| !is_gone(transmit));
        }
    }
}

impl Transmit {
    pub(crate) fn to_peer(peer: PeerId, to: impl Into<Outer>, payload: Vec<u8>) -> Self {
        Self {
            peer: Some(peer),
            ..Self::to_anybody(to, payload)
        }
    }

    /// A message that shakes hands with a peer.
    pub(crate) fn handshake(peer: PeerId, route: Route, payload: Vec<u8>) -> Self {
        let class = TrafficClass::HANDSHAKE;
        Self::to_peer(peer, Outer { route, class }, payload)
    }

    /// To somebody who need be no peer.
    pub(crate) fn to_anybody(to: impl Into<Outer>, payload: Vec<u8>) -> Self {
        let Outer { route, class } = to.into();
        Self {
            to: route.path,
            payload,
            here: route.here,
            class,
            peer: None,
        }
    }

    /// The outer header to send it with.
    pub fn outer(&self) -> Outer {
        let (path, here) = (self.to, self.here);
        Outer {
            route: Route { path, here },
            class: self.class,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_removed_peer_is_taken_back_and_the_rest_stays_in_order() {
        let to = Path::Udp(([192, 0, 2, 1], 51_820).into());
        let mut outbox = Outbox::default();
        for (number, peer) in [1, 2, 1, 3].into_iter().enumerate() {
            outbox.put(Transmit::to_peer(peer, to, vec![number as u8]));
        }
        outbox.put(Transmit::to_anybody(to, vec![4]));
        outbox.forget(&HashSet::from([1]));
        let left: Vec<_> = std::iter::from_fn(|| outbox.take()).collect();
        let numbers: Vec<_> = left.iter().map(|transmit| transmit.payload[0]).collect();
        assert_eq!(numbers, [1, 3, 4]);
    }
}
