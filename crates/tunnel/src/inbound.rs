//! UDP → TUN: a datagram becomes an inner packet, a step of a handshake, or a counted drop.
//!
//! [`Tunnel::opening`] is the way for data on live sessions, shared by as many threads as there are;
//! [`Tunnel::handle_udp`] has the tunnel to itself and can do all that there is to do.

use crate::admission::Refusal;
use crate::allowed_ips::AllowedIps;
use crate::drops::DropReason;
use crate::generation::Generation;
use crate::initiation::Claimed;
use crate::inside::Inside;
use crate::limits::*;
use crate::outbox::{Outbox, Transmit};
use crate::packet::{self, Message};
use crate::path::Path;
use crate::peer::Peer;
use crate::tunnel::{Tunnel, reason};
use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;
use std::net::IpAddr;
use std::sync::MutexGuard;
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

/// What became of a datagram on the shared way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// `len` bytes of the lent buffer are an inner packet for the TUN device.
    Deliver {
        /// Bytes in the buffer.
        len: usize,
    },
    /// It was a keepalive.
    Consumed,
    /// It was dropped and counted.
    Dropped(DropReason),
    /// It shakes hands, or confirms a handshake: [`Tunnel::handle_udp`] takes it.
    Handshake,
}

/// The way in for one batch of datagrams; holds the peer of the last one. A thread that has one must
/// give it back before it asks for an [`crate::Sealing`].
pub struct Opening<'t> {
    tunnel: &'t Tunnel,
    held: Option<Held<'t>>,
    now: Duration,
}

struct Held<'t> {
    index: u32,
    peer: MutexGuard<'t, Peer>,
    /// Source and destination of the last packet that was allowed.
    ends: Option<Ends>,
}

/// Source and destination of an inner packet.
type Ends = (IpAddr, IpAddr);

/// An opened datagram.
struct Plain {
    /// Bytes of the inner packet; 0 for a keepalive.
    len: usize,
    /// `None` for a keepalive.
    ends: Option<Ends>,
    is_unconfirmed: bool,
}

impl Opening<'_> {
    /// Takes a datagram that came from `from`; an inner packet in it is opened into `out`, which
    /// needs the datagram's length.
    pub fn open(&mut self, from: impl Into<Path>, datagram: &[u8], out: &mut [u8]) -> Opened {
        self.opened(from.into(), datagram, out)
            .unwrap_or_else(|reason| {
                self.tunnel.local.drops.add(reason, 1);
                Opened::Dropped(reason)
            })
    }

    fn opened(
        &mut self,
        from: Path,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Result<Opened, DropReason> {
        let (tunnel, now) = (self.tunnel, self.now);
        let receiver = match tunnel.take_in(from, datagram, now)? {
            Message::Data { receiver } => receiver >> 8,
            Message::Initiation { .. } | Message::Response { .. } | Message::CookieReply { .. } => {
                return Ok(Opened::Handshake);
            }
        };
        let held = match self.held.take().filter(|held| held.index == receiver) {
            Some(held) => held,
            None => {
                let id = tunnel.indices.owner(receiver);
                let peer = id.and_then(|id| tunnel.peers.lock(id));
                Held {
                    index: receiver,
                    peer: peer.ok_or(DropReason::UnknownIndex)?,
                    ends: None,
                }
            }
        };
        let Held { peer, ends, .. } = self.held.insert(held);
        let generation = peer.owner_of(receiver).ok_or(DropReason::UnknownIndex)?;
        if generation.is_unconfirmed(receiver) {
            return Ok(Opened::Handshake);
        }
        let plain = open(generation, receiver, from, datagram, out, now)?;
        peer.heard(from, plain.len, now, &tunnel.local);
        if plain.ends.is_some() && plain.ends == *ends {
            return Ok(Opened::Deliver { len: plain.len });
        }
        match judge(&plain, &tunnel.allowed, &tunnel.inside, peer)? {
            Inbound::Deliver { len } => {
                *ends = plain.ends;
                Ok(Opened::Deliver { len })
            }
            Inbound::Consumed | Inbound::Dropped(_) => Ok(Opened::Consumed),
        }
    }
}

impl Tunnel {
    /// The way in for a batch of datagrams.
    pub fn opening(&self, now: Duration) -> Opening<'_> {
        Opening {
            tunnel: self,
            held: None,
            now,
        }
    }

    /// Takes a datagram that came from `from`; an inner packet in it is opened into `out`, which
    /// needs the datagram's length.
    pub fn handle_udp(
        &mut self,
        from: impl Into<Path>,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Inbound {
        match self.inbound(from.into(), datagram, out, now) {
            Ok(inbound) => inbound,
            Err(reason) => {
                self.local.drops.add(reason, 1);
                Inbound::Dropped(reason)
            }
        }
    }

    fn inbound(
        &mut self,
        from: Path,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        match self.take_in(from, datagram, now)? {
            Message::Data { receiver } => self.data(receiver >> 8, from, datagram, out, now),
            Message::Initiation { sender } => {
                let is_peer = self.local.endpoints.contains(from);
                let admitted = self.admission.initiation(from, datagram, is_peer, now);
                unless_refused(admitted, &mut self.local.outbox)?;
                self.initiation(sender >> 8, from, datagram, now)
            }
            Message::Response { receiver } => self.response(receiver >> 8, from, datagram, now),
            Message::CookieReply { receiver } => self.cookie_reply(receiver >> 8, datagram, now),
        }
    }

    /// The message in a datagram, if it comes from where an answer may go.
    fn take_in(&self, from: Path, datagram: &[u8], now: Duration) -> Result<Message, DropReason> {
        self.check_lease(now)?;
        // Before any key is asked: a member can seal what it likes and have it arrive from inside. The
        // answer, and all packets to that member, would then go through the tunnel, and again.
        if self.inside.contains(from.ip()) {
            return Err(DropReason::EndpointInsideMesh);
        }
        packet::parse_message(datagram)
            // Nothing can be sent to port 0, and datagrams to a group reach many: neither must become
            // an endpoint.
            .filter(|_| from.is_host())
            .ok_or(DropReason::Malformed)
    }

    fn data(
        &mut self,
        index: u32,
        from: Path,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        let peer = self
            .peers
            .get_mut(self.indices.owner(index).ok_or(DropReason::UnknownIndex)?)
            .ok_or(DropReason::UnknownIndex)?;
        let local = &mut self.local;
        let generation = peer.owner_of(index).ok_or(DropReason::UnknownIndex)?;
        let plain = open(generation, index, from, datagram, out, now)?;
        peer.heard(from, plain.len, now, local);
        if plain.is_unconfirmed {
            peer.confirm(index, false, now, local);
        }
        judge(&plain, &self.allowed, &self.inside, peer)
    }

    fn initiation(
        &mut self,
        index: u32,
        from: Path,
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
        let peer = self.peers.get_mut(id).ok_or(DropReason::UnknownPeer)?;
        let key = (peer.id, peer.key);
        let (steps_back, cookie) = (peer.role.yields(), peer.cookie(now));
        let generation = choose(peer, &claimed, index, now)?;
        if steps_back {
            generation.step_back(now);
        }

        let mut response = [0; MIN_BUFFER];
        let link = generation.responder(key, now, &mut self.local.forge);
        match link
            .tunn
            .decapsulate(Some(from.ip()), datagram, &mut response)
        {
            TunnResult::WriteToNetwork(message) => {
                let payload = link.send(from, message, cookie.as_ref());
                // An initiation may be a recording, or held back on its way: after a start nothing tells.
                // Packets go where it came from once data has come from there.
                if peer.whereabouts.target().is_none() {
                    peer.heard(from, 0, now, &self.local);
                }
                peer.reschedule(&mut self.local);
                self.local.outbox.put(Transmit::to_peer(id, from, payload));
                Ok(Inbound::Consumed)
            }
            TunnResult::Err(error) => Err(handshake_reason(&error)),
            _ => Err(DropReason::BadHandshake),
        }
    }

    fn response(
        &mut self,
        index: u32,
        from: Path,
        datagram: &[u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        let peer = self
            .peers
            .get_mut(self.indices.owner(index).ok_or(DropReason::UnknownIndex)?)
            .ok_or(DropReason::UnknownIndex)?;
        let local = &mut self.local;
        // Only what answers an initiation under way can cost anything, and takes from nobody else.
        let is_awaited =
            |peer: &mut Peer| Some(peer.owner_of(index)?.initiator_at(index).is_some());
        if is_awaited(peer) != Some(true) {
            return Err(DropReason::UnknownIndex);
        }
        let is_within = peer.responses.take(RESPONSES_PER_PEER, now);
        let is_peer = local.endpoints.contains(from);
        let source = (is_peer, is_within);
        let admitted = self.admission.response(from, datagram, source, now);
        unless_refused(admitted, &mut local.outbox)?;
        let tunn = peer
            .owner_of(index)
            .and_then(|generation| generation.initiator_at(index));
        let mut keepalive = [0; MIN_BUFFER];
        match tunn.ok_or(DropReason::UnknownIndex)?.decapsulate(
            Some(from.ip()),
            datagram,
            &mut keepalive,
        ) {
            TunnResult::WriteToNetwork(message) => {
                let payload = message.to_vec();
                peer.heard(from, 0, now, local);
                local.outbox.put(Transmit::to_peer(peer.id, from, payload));
                peer.confirm(index, true, now, local);
                Ok(Inbound::Consumed)
            }
            TunnResult::Err(error) => Err(handshake_reason(&error)),
            _ => Err(DropReason::BadHandshake),
        }
    }

    fn cookie_reply(
        &mut self,
        index: u32,
        datagram: &[u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        let peer = self
            .peers
            .get_mut(self.indices.owner(index).ok_or(DropReason::UnknownIndex)?)
            .ok_or(DropReason::UnknownIndex)?;
        let local = &mut self.local;
        peer.take_cookie(index, datagram, now, local)?;
        Ok(Inbound::Consumed)
    }
}

/// Opens a datagram with the session that has `index`.
fn open(
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
        TunnResult::Err(error) => return Err(reason(&error)),
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

/// Whether a peer may send what it sent, and to where it sent it. The system would hand a packet for
/// any other address that it has to whatever listens there, and forward the rest.
fn judge(
    plain: &Plain,
    allowed: &AllowedIps,
    inside: &Inside,
    peer: &Peer,
) -> Result<Inbound, DropReason> {
    let Some((source, destination)) = plain.ends else {
        return Ok(Inbound::Consumed);
    };
    if allowed.get(source) != Some(peer.id) {
        return Err(DropReason::SourceNotAllowed);
    }
    if !inside.is_own(destination) {
        return Err(DropReason::DestinationNotAllowed);
    }
    Ok(Inbound::Deliver { len: plain.len })
}

/// The generation that an initiation means, its timestamp checked and remembered; and whether the
/// timestamp is news.
///
/// An index that the PSK determines names its generation, and the timestamp is held against that
/// generation's newest: a stepped wall clock cannot stop a rotation. Any other index is a stock
/// WireGuard's, or a recording: `current` answers, at a bounded rate, and only to what `Stamps` take
/// for news.
fn choose<'a>(
    peer: &'a mut Peer,
    claimed: &Claimed,
    index: u32,
    now: Duration,
) -> Result<&'a mut Generation, DropReason> {
    let timestamp = claimed
        .timestamp(&peer.shared)
        .ok_or(DropReason::BadHandshake)?;
    let key = peer.key;
    let named = peer
        .generations
        .iter_mut()
        .find(|generation| generation.recognises(index, &key))
        .map(|generation| generation.epoch);
    let is_news = match named {
        Some(_) => peer.stamps.show_named(timestamp),
        None => peer.stamps.show_unnamed(timestamp),
    };
    if !is_news {
        return Err(DropReason::Replayed);
    }
    if named.is_none() && !peer.stock.take(STOCK_INITIATIONS_PER_SECOND, now) {
        return Err(DropReason::NoGeneration);
    }
    let generation = match named {
        Some(epoch) => peer
            .generations
            .iter_mut()
            .find(|generation| generation.epoch == epoch),
        None => peer.generations.current.as_mut(),
    };
    let generation = generation.ok_or(DropReason::NoGeneration)?;
    if named.is_some() && timestamp <= generation.newest {
        return Err(DropReason::Replayed);
    }
    generation.newest = generation.newest.max(timestamp);
    Ok(generation)
}

/// In a handshake message, what does not open was made with another PSK, or forged.
fn handshake_reason(error: &WireGuardError) -> DropReason {
    match reason(error) {
        DropReason::BadAead => DropReason::BadHandshake,
        other => other,
    }
}

/// Answers a handshake message that was refused, if there is an answer.
fn unless_refused(admitted: Result<(), Refusal>, outbox: &mut Outbox) -> Result<(), DropReason> {
    admitted.map_err(|(reason, cookie)| {
        cookie.into_iter().for_each(|reply| outbox.put(reply));
        reason
    })
}
