//! UDP → TUN: a datagram becomes an inner packet, a step of a handshake, or a counted drop.

use crate::core::Core;
use crate::drops::DropReason;
use crate::generation::Generation;
use crate::initiation::Claimed;
use crate::limits::*;
use crate::packet::{self, Message};
use crate::peer::Peer;
use crate::tunnel::{Tunnel, reason};
use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What became of a datagram.
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

impl Tunnel {
    /// Takes a datagram that came from `from`; an inner packet in it is opened into `out`, which
    /// needs the datagram's length.
    pub fn handle_udp(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Inbound {
        match self.inbound(from, datagram, out, now) {
            Ok(inbound) => inbound,
            Err(reason) => {
                self.core.drops.count(reason);
                Inbound::Dropped(reason)
            }
        }
    }

    fn inbound(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        self.check_lease(now)?;
        match packet::parse_message(datagram).ok_or(DropReason::Malformed)? {
            Message::Data { receiver } => self.data(receiver >> 8, from, datagram, out, now),
            Message::Initiation { sender } => {
                self.admit(from, datagram, now)?;
                self.admission.take_initiation(from)?;
                self.initiation(sender >> 8, from, datagram, now)
            }
            Message::Response { receiver } => {
                self.admit(from, datagram, now)?;
                self.response(receiver >> 8, from, datagram, now)
            }
            Message::CookieReply { receiver } => self.cookie_reply(receiver >> 8, from, datagram),
        }
    }

    fn data(
        &mut self,
        index: u32,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        if out.len() < datagram.len() {
            return Err(DropReason::TooLarge);
        }
        let counter = datagram
            .get(8..)
            .and_then(|rest| rest.first_chunk().copied());
        if counter.is_none_or(|counter| u64::from_le_bytes(counter) >= REJECT_AFTER_MESSAGES) {
            return Err(DropReason::Malformed);
        }
        let (peer, core) = peer_at(&mut self.peers, &mut self.core, index)?;
        let generation = peer.owner_of(index).ok_or(DropReason::UnknownIndex)?;
        let (tunn, unconfirmed) = generation
            .opener_at(index, now)
            .ok_or(DropReason::UnknownIndex)?;
        let (len, source) = match tunn.decapsulate(Some(from.ip()), datagram, out) {
            TunnResult::Done => (0, None),
            TunnResult::WriteToTunnelV4(packet, source) => {
                (packet.len(), Some(IpAddr::from(source)))
            }
            TunnResult::WriteToTunnelV6(packet, source) => {
                (packet.len(), Some(IpAddr::from(source)))
            }
            TunnResult::Err(error) => return Err(reason(&error)),
            TunnResult::WriteToNetwork(_) => return Err(DropReason::Malformed),
        };
        peer.heard(from, len, now, core);
        if unconfirmed {
            peer.confirm(index, false, now, core);
        }
        match source {
            None => Ok(Inbound::Consumed),
            Some(source) if self.allowed.get(source) == Some(peer.id) => {
                Ok(Inbound::Deliver { len })
            }
            Some(_) => Err(DropReason::SourceNotAllowed),
        }
    }

    fn admit(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Duration,
    ) -> Result<(), DropReason> {
        self.admission
            .check(from, datagram, now)
            .map_err(|(reason, cookie)| {
                self.core.transmits.extend(cookie);
                reason
            })
    }

    fn initiation(
        &mut self,
        index: u32,
        from: SocketAddr,
        datagram: &[u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        let claimed = self
            .opener
            .claim(datagram)
            .ok_or(DropReason::BadHandshake)?;
        let id = *self
            .by_key
            .get(&claimed.sender)
            .ok_or(DropReason::UnknownPeer)?;
        let peer = self
            .peers
            .get_mut(id)
            .and_then(Option::as_mut)
            .ok_or(DropReason::UnknownPeer)?;
        let key = (peer.id, peer.key);
        let steps_back = peer.steps_back(&self.core);
        let generation = choose(peer, &claimed, index, now)?;
        if steps_back {
            generation.step_back(now);
        }

        let mut response = [0; MIN_BUFFER];
        let tunn = generation.responder(key, &mut self.core.forge);
        match tunn.decapsulate(Some(from.ip()), datagram, &mut response) {
            TunnResult::WriteToNetwork(message) => {
                let payload = message.to_vec();
                peer.heard(from, 0, now, &mut self.core);
                peer.reschedule(&mut self.core);
                self.core.transmit(id, from, payload);
                Ok(Inbound::Consumed)
            }
            TunnResult::Err(error) => Err(handshake_reason(&error)),
            _ => Err(DropReason::BadHandshake),
        }
    }

    fn response(
        &mut self,
        index: u32,
        from: SocketAddr,
        datagram: &[u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        let (peer, core) = peer_at(&mut self.peers, &mut self.core, index)?;
        let fresh = peer
            .owner_of(index)
            .and_then(|generation| generation.fresh_at(index));
        let mut keepalive = [0; MIN_BUFFER];
        match fresh.ok_or(DropReason::UnknownIndex)?.decapsulate(
            Some(from.ip()),
            datagram,
            &mut keepalive,
        ) {
            TunnResult::WriteToNetwork(message) => {
                let payload = message.to_vec();
                peer.heard(from, 0, now, core);
                core.transmit(peer.id, from, payload);
                peer.confirm(index, true, now, core);
                Ok(Inbound::Consumed)
            }
            TunnResult::Err(error) => Err(handshake_reason(&error)),
            _ => Err(DropReason::BadHandshake),
        }
    }

    fn cookie_reply(
        &mut self,
        index: u32,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Inbound, DropReason> {
        let (peer, _) = peer_at(&mut self.peers, &mut self.core, index)?;
        let fresh = peer
            .owner_of(index)
            .and_then(|generation| generation.fresh_at(index));
        match fresh.ok_or(DropReason::UnknownIndex)?.decapsulate(
            Some(from.ip()),
            datagram,
            &mut [0; MIN_BUFFER],
        ) {
            TunnResult::Done => Ok(Inbound::Consumed),
            _ => Err(DropReason::BadHandshake),
        }
    }
}

/// The generation that an initiation means, its timestamp checked and remembered.
///
/// An index that the PSK determines names its generation, and the timestamp is held against that
/// generation's newest: a stepped wall clock cannot stop a rotation. Any other index is a stock
/// WireGuard's, or a recording: `current` answers, at a bounded rate, and only to a timestamp newer
/// than any that this peer has shown.
fn choose<'a>(
    peer: &'a mut Peer,
    claimed: &Claimed,
    index: u32,
    now: Duration,
) -> Result<&'a mut Generation, DropReason> {
    let timestamp = claimed
        .timestamp(&peer.shared)
        .ok_or(DropReason::BadHandshake)?;
    let newest = peer.newest;
    peer.newest = newest.max(timestamp);
    let key = peer.key;
    let named = peer
        .generations
        .iter_mut()
        .find(|generation| generation.recognises(index, &key))
        .map(|g| g.epoch);
    let generation = match named {
        Some(epoch) => peer
            .generations
            .iter_mut()
            .find(|generation| generation.epoch == epoch),
        None if timestamp <= newest => return Err(DropReason::Replayed),
        None if !peer.stock.take(STOCK_INITIATIONS_PER_SECOND, now) => {
            return Err(DropReason::NoGeneration);
        }
        None => peer.generations.current.as_mut(),
    };
    let generation = generation.ok_or(DropReason::NoGeneration)?;
    if timestamp <= generation.newest || peer.unnamed.contains(&timestamp) {
        return Err(DropReason::Replayed);
    }
    if named.is_none() {
        peer.unnamed.push_back(timestamp);
        if peer.unnamed.len() > MAX_UNNAMED {
            peer.unnamed.pop_front();
        }
    }
    generation.newest = timestamp;
    Ok(generation)
}

/// In a handshake message, what does not open was made with another PSK, or forged.
fn handshake_reason(error: &WireGuardError) -> DropReason {
    match reason(error) {
        DropReason::BadAead => DropReason::BadHandshake,
        other => other,
    }
}

fn peer_at<'a>(
    peers: &'a mut [Option<Peer>],
    core: &'a mut Core,
    index: u32,
) -> Result<(&'a mut Peer, &'a mut Core), DropReason> {
    let id = *core
        .forge
        .indices
        .get(&index)
        .ok_or(DropReason::UnknownIndex)?;
    let peer = peers
        .get_mut(id)
        .and_then(Option::as_mut)
        .ok_or(DropReason::UnknownIndex)?;
    Ok((peer, core))
}
