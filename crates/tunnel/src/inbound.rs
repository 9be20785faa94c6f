//! UDP → TUN, behind the front door: a message becomes an inner packet, a step of a handshake, or a
//! counted drop. Its peer has been looked up before; its claims are checked here.

use crate::allowed_ips::{AllowedIps, PeerId};
use crate::drops::DropReason;
use crate::generation::Generation;
use crate::handshake;
use crate::inside::Inside;
use crate::limits::*;
use crate::networks::Networks;
use crate::outbox::Transmit;
use crate::outer::Route;
use crate::packet;
use crate::path::Path;
use crate::peer::Peer;
use crate::tunnel::Tunnel;
use boringtun::noise::TunnResult;
use filter::Refusal;
use std::net::IpAddr;
use std::time::Duration;

/// The outcome of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbound {
    /// `len` bytes of the lent buffer are an inner packet for the TUN device.
    Deliver {
        /// Bytes in the buffer.
        len: usize,
    },
    /// It was a handshake message or a keepalive.
    Consumed,
    /// It was dropped and counted.
    Dropped(DropReason),
}

/// An opened datagram.
pub(crate) struct Plain {
    /// Bytes of the inner packet; 0 for a keepalive.
    pub(crate) len: usize,
    /// `None` for a keepalive.
    pub(crate) ends: Option<Ends>,
    is_unconfirmed: bool,
}

/// Source and destination of an inner packet.
pub(crate) type Ends = (IpAddr, IpAddr);

impl Tunnel {
    pub(crate) fn data(
        &mut self,
        peer: PeerId,
        index: u32,
        from: Route,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        let peer = self.peers.get_mut(peer).ok_or(DropReason::UnknownIndex)?;
        let generation = peer.owner_of(index).ok_or(DropReason::UnknownIndex)?;
        let plain = open(generation, index, from.path, datagram, out, now)?;
        peer.heard(from, plain.len, now, &self.local);
        // Behind the opening: the packet proves that the other side has derived the same keys.
        if plain.is_unconfirmed {
            peer.confirm(index, false, now, &mut self.local);
        }
        let places = Places {
            allowed: &self.allowed,
            networks: &self.networks,
            inside: &self.inside,
        };
        let judged = places.judge(&plain, peer)?;
        if matches!(judged, Inbound::Deliver { .. }) {
            places.admit(&plain, out, peer, now)?;
        }
        Ok(judged)
    }

    /// Where the addresses of inner packets belong.
    #[inline]
    pub(crate) fn places(&self) -> Places<'_> {
        Places {
            allowed: &self.allowed,
            networks: &self.networks,
            inside: &self.inside,
        }
    }

    /// An initiation that was admitted. `index`: 24 bits that the sender chose.
    pub(crate) fn initiation(
        &mut self,
        index: u32,
        from: Route,
        datagram: &[u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        // A claim, and no more: any node that ever was a member can seal another's static key into an
        // initiation. Up to here it costs an X25519, which admission has granted.
        let claimed = self
            .opener
            .claim(datagram)
            .ok_or(DropReason::BadHandshake)?;
        let id = self.peers.id_of(&claimed.sender);
        let peer = id.and_then(|id| self.peers.get_mut(id));
        let peer = peer.ok_or(DropReason::UnknownPeer)?;
        let local = &mut self.local;
        handshake::answer(peer, &claimed, index, from, datagram, now, local)?;
        Ok(Inbound::Consumed)
    }

    /// Whether a peer has an initiation under way at this 24-bit index; and whether it may send another
    /// response without a cookie.
    pub(crate) fn awaits(
        &mut self,
        peer: PeerId,
        index: u32,
        now: Duration,
    ) -> Result<bool, DropReason> {
        let peer = self.peers.get_mut(peer).ok_or(DropReason::UnknownIndex)?;
        // Only an answer to an initiation under way can cost anything, and it takes from nobody else.
        // Any other response is dropped before it counts against the peer: a stranger would else use up
        // what the peer itself may send.
        let generation = peer.owner_of(index).ok_or(DropReason::UnknownIndex)?;
        let tunn = generation.initiator_at(index);
        tunn.ok_or(DropReason::UnknownIndex)?;
        Ok(peer.responses.take(now))
    }

    /// A response that was awaited and admitted.
    pub(crate) fn response(
        &mut self,
        peer: PeerId,
        index: u32,
        from: Route,
        datagram: &[u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        let peer = self.peers.get_mut(peer).ok_or(DropReason::UnknownIndex)?;
        handshake::complete(peer, index, from, datagram, now, &mut self.local)?;
        Ok(Inbound::Consumed)
    }

    pub(crate) fn cookie_reply(
        &mut self,
        peer: PeerId,
        index: u32,
        datagram: &[u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        let peer = self.peers.get_mut(peer).ok_or(DropReason::UnknownIndex)?;
        peer.take_cookie(index, datagram, now, &mut self.local)?;
        Ok(Inbound::Consumed)
    }

    /// Whether a current peer is expected at exactly this place.
    pub(crate) fn expects(&self, from: Path) -> bool {
        self.local.endpoints.contains(from)
    }

    /// Whether either end of a route is inside the mesh.
    pub(crate) fn has_inside(&self, from: Route) -> bool {
        let is_inside = |address| self.inside.contains(address);
        is_inside(from.path.ip()) || from.here.is_some_and(is_inside)
    }

    /// A datagram of the front door's own.
    pub(crate) fn transmit(&mut self, transmit: Transmit) {
        self.local.outbox.put(transmit);
    }
}

/// Opens a datagram with the session that has `index`.
pub(crate) fn open(
    generation: &mut Generation,
    index: u32,
    from: Path,
    datagram: &[u8],
    out: &mut [u8],
    now: Duration,
) -> Result<Plain, DropReason> {
    if out.len() < datagram.len() {
        return Err(DropReason::TooLarge);
    }
    // The counter is the nonce. Near its end the other side ought to have stopped; a counter that wrapped
    // would use nonces twice, and two packets under one nonce give each other away.
    let counter = datagram
        .get(8..)
        .and_then(|rest| rest.first_chunk().copied());
    if counter.is_none_or(|counter| u64::from_le_bytes(counter) >= REJECT_AFTER_MESSAGES) {
        return Err(DropReason::Malformed);
    }
    let (tunn, is_unconfirmed) = generation
        .opener_at(index, now)
        .ok_or(DropReason::UnknownIndex)?;
    let (len, source) = match tunn.decapsulate(Some(from.ip()), datagram, out) {
        TunnResult::Done => (0, None),
        TunnResult::WriteToTunnelV4(packet, source) => (packet.len(), Some(source.into())),
        TunnResult::WriteToTunnelV6(packet, source) => (packet.len(), Some(source.into())),
        TunnResult::Err(error) => return Err(handshake::reason(&error)),
        TunnResult::WriteToNetwork(_) => return Err(DropReason::Malformed),
    };
    let ends = match source {
        None => None,
        Some(source) => {
            // boringtun believes IPv4's length field, however small.
            let packet = out.get(..len).ok_or(DropReason::Malformed)?;
            let destination = packet::destination(packet).ok_or(DropReason::Malformed)?;
            Some((source, destination))
        }
    };
    Ok(Plain {
        len,
        ends,
        is_unconfirmed,
    })
}

/// Where the addresses of inner packets belong.
#[derive(Clone, Copy)]
pub(crate) struct Places<'t> {
    pub(crate) allowed: &'t AllowedIps,
    pub(crate) networks: &'t Networks,
    pub(crate) inside: &'t Inside,
}

impl Places<'_> {
    /// Whether a peer may send the packet that it sent, and to where it sent it. A source that is another's
    /// would let a member speak for anybody. The system would hand a packet for any other address that it
    /// has to whatever listens there, and forward the rest: it gets those for networks behind this node alone.
    #[inline]
    pub(crate) fn judge(&self, plain: &Plain, peer: &Peer) -> Result<Inbound, DropReason> {
        let Some((source, destination)) = plain.ends else {
            return Ok(Inbound::Consumed);
        };
        let is_its = self.allowed.get(source) == Some(peer.id)
            || self.networks.owner(source) == Some(peer.id);
        if !is_its {
            return Err(DropReason::SourceNotAllowed);
        }
        if !self.inside.is_own(destination) && !self.networks.is_behind_here(destination) {
            return Err(DropReason::DestinationNotAllowed);
        }
        Ok(Inbound::Deliver { len: plain.len })
    }

    /// Whether the rules of the segment let in a packet that was opened into `out` and is the peer's to send. Behind
    /// all other checks: a flow is known by addresses that nobody else may use.
    #[inline]
    pub(crate) fn admit(
        &self,
        plain: &Plain,
        out: &[u8],
        peer: &mut Peer,
        now: Duration,
    ) -> Result<(), DropReason> {
        if peer.gate.is_open() {
            return Ok(());
        }
        let packet = out.get(..plain.len).unwrap_or_default();
        let admitted = match self.networks.ends(self.allowed, self.inside, peer.id) {
            None => peer.gate.admit(packet, now),
            Some(ends) => peer.gate.admit_between(packet, &ends, now),
        };
        admitted.map_err(|refusal| match refusal {
            Refusal::NoRule => DropReason::NoRule,
            Refusal::Fragment => DropReason::StrayFragment,
            Refusal::IcmpError => DropReason::StrayIcmpError,
            Refusal::Unreadable => DropReason::Unreadable,
        })
    }
}
