//! The front door: where datagrams come in, before anybody knows for which tunnel they are.
//!
//! It owns what is asked of every datagram, in this order: type and length, source, MAC1, the
//! allowance of the source, and the index table. Behind it are the tunnels, one for each segment. MAC1 says
//! for whose key a handshake message was made, the index table to which peer of which tunnel all other
//! messages belong. Allowances are the door's: what a flood may cost does not grow with the segments. It
//! refuses to know peers, epochs and sessions, and opens nothing.
//!
//! The file is long because each kind of datagram is led in here, and the tests forge each.

use crate::admission::{Admission, Refusal};
use crate::allowed_ips::PeerId;
use crate::config::Config;
use crate::cookie::Cookies;
use crate::drops::{DropCounters, DropReason, Drops};
use crate::inbound::Inbound;
use crate::indices::IndexTable;
use crate::inside::Inside;
use crate::limits::MAX_TUNNELS;
use crate::outbox::Transmit;
use crate::outer::{Outer, Route, TrafficClass};
use crate::packet::{self, Message};
use crate::traffic::Traffic;
use crate::tunnel::Tunnel;
use crate::tunnel_id::TunnelId;
use std::time::Duration;

/// Why no tunnel can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There are too many.
    #[error("{MAX_TUNNELS} tunnels are open, and no more can be: leave a segment first")]
    TooMany,
    /// Nobody could tell for which of two tunnels a handshake message was made.
    #[error("another segment uses the same WireGuard key: each needs a key of its own")]
    KeyInUse,
    /// Addresses of the one would be addresses of the other.
    #[error(
        "its address range overlaps that of another segment: give each segment a range of its own at the controller"
    )]
    RangeInUse,
}

/// The front door of a node, and the tunnels behind it.
pub struct FrontDoor {
    admission: Admission,
    indices: IndexTable,
    /// At most [`MAX_TUNNELS`]: looked through by number, and by MAC1.
    rooms: Vec<Room>,
    next: TunnelId,
    /// Datagrams that belong to no tunnel.
    drops: DropCounters,
    /// Counts of tunnels that were closed.
    gone: Gone,
}

/// A tunnel, and the side of it that answers for its key before it is asked.
struct Room {
    id: TunnelId,
    cookies: Cookies,
    tunnel: Tunnel,
}

/// Counts must not go back when a tunnel is closed.
#[derive(Default)]
struct Gone {
    drops: DropCounters,
    traffic: Traffic,
    handshakes: u64,
}

/// A datagram whose header has been read, once for all that follows; its bytes stay where they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) from: Route,
    pub(crate) class: TrafficClass,
    /// `None`: no WireGuard message has this type and length.
    pub(crate) message: Option<Message>,
}

impl Arrival {
    pub(crate) fn new(outer: Outer, message: Option<Message>) -> Self {
        let Outer { route: from, class } = outer;
        Self {
            from,
            class,
            message,
        }
    }

    /// Whether it shakes hands, or answers for it: those who share the tunnel have no use for it.
    pub(crate) fn is_handshake(&self) -> bool {
        self.message.is_some_and(Message::is_handshake)
    }
}

impl FrontDoor {
    /// A door without tunnels. `handshakes_per_second`: initiations from the endpoints of peers, of all tunnels
    /// together, above which a cookie is asked for; with cookies twice that are opened. Strangers have a part
    /// of it besides: [`crate::STRANGERS_PART`], [`crate::PROVEN_STRANGERS_PART`].
    pub fn new(handshakes_per_second: u64) -> Self {
        Self {
            admission: Admission::new(handshakes_per_second),
            indices: IndexTable::default(),
            rooms: Vec::new(),
            next: TunnelId::FIRST,
            drops: DropCounters::default(),
            gone: Gone::default(),
        }
    }

    /// Opens a tunnel, which has no peers yet.
    ///
    /// # Errors
    /// [`OpenError`], when it could not be kept apart from another.
    pub fn open(&mut self, config: Config) -> Result<TunnelId, OpenError> {
        if self.rooms.len() >= MAX_TUNNELS {
            return Err(OpenError::TooMany);
        }
        let key = config.secret.public();
        let mut tunnels = self.rooms.iter().map(|room| &room.tunnel);
        if tunnels
            .clone()
            .any(|tunnel| tunnel.local.forge.public() == key)
        {
            return Err(OpenError::KeyInUse);
        }
        if tunnels.any(|tunnel| tunnel.inside.overlaps(&config.inside)) {
            return Err(OpenError::RangeInUse);
        }
        let id = self.next;
        self.next = id.next().ok_or(OpenError::TooMany)?;
        let cookies = Cookies::new(&config.secret, config.seed);
        let tunnel = Tunnel::new(config, self.indices.of(id));
        self.rooms.push(Room {
            id,
            cookies,
            tunnel,
        });
        self.tell_apart();
        Ok(id)
    }

    /// Closes a tunnel: when this returns, its key, its peers, their sessions and indices are gone, and nothing
    /// that belonged to it passes any more in either direction.
    pub fn close(&mut self, id: TunnelId) {
        let Some(at) = self.rooms.iter().position(|room| room.id == id) else {
            return;
        };
        let Room { tunnel, .. } = self.rooms.remove(at);
        self.gone.drops.add_all(&tunnel.drops());
        self.gone.traffic.add(tunnel.traffic());
        self.gone.handshakes += tunnel.handshakes();
        self.tell_apart();
    }

    /// Tells each tunnel where the insides of the others are: no endpoint of its peers is there.
    fn tell_apart(&mut self) {
        let insides: Vec<(TunnelId, Inside)> = self.rooms.iter().map(Room::inside).collect();
        for room in &mut self.rooms {
            let others = insides.iter().filter(|(id, _)| *id != room.id);
            let ranges = others.flat_map(|(_, inside)| inside.ranges.iter().copied());
            room.tunnel.beside = Inside {
                own: Vec::new(),
                ranges: ranges.collect(),
            };
        }
    }

    // ---- the tunnels ------------------------------------------------------------------------

    /// A tunnel; `None` once it is closed.
    pub fn tunnel(&self, id: TunnelId) -> Option<&Tunnel> {
        let mut rooms = self.rooms.iter();
        rooms.find(|room| room.id == id).map(|room| &room.tunnel)
    }

    /// The same, alone.
    pub fn tunnel_mut(&mut self, id: TunnelId) -> Option<&mut Tunnel> {
        self.room(id).map(|room| &mut room.tunnel)
    }

    /// All tunnels, in the order in which they were opened.
    pub fn tunnels(&self) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        self.rooms.iter().map(|room| (room.id, &room.tunnel))
    }

    /// The same, alone.
    pub fn tunnels_mut(&mut self) -> impl Iterator<Item = (TunnelId, &mut Tunnel)> {
        let rooms = self.rooms.iter_mut();
        rooms.map(|room| (room.id, &mut room.tunnel))
    }

    fn room(&mut self, id: TunnelId) -> Option<&mut Room> {
        self.rooms.iter_mut().find(|room| room.id == id)
    }

    // ---- time and outputs of all tunnels ----------------------------------------------------

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let due = |room: &Room| room.tunnel.poll_timeout();
        self.rooms.iter().filter_map(due).min()
    }

    /// Does what is due in any tunnel.
    pub fn handle_timeout(&mut self, now: Duration) {
        for (_, tunnel) in self.tunnels_mut() {
            tunnel.handle_timeout(now);
        }
    }

    /// The next datagram that a tunnel has to send of its own.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let mut tunnels = self.tunnels_mut();
        tunnels.find_map(|(_, tunnel)| tunnel.poll_transmit())
    }

    /// Datagrams that were dropped before anybody knew for which tunnel they were, and all drops of tunnels
    /// that are closed.
    pub fn drops(&self) -> Drops {
        let mut drops = self.drops.read();
        drops.add(&self.gone.drops.read());
        drops
    }

    /// Packets that were carried by tunnels that are closed, and the handshakes that they completed.
    pub fn carried_before(&self) -> (Traffic, u64) {
        (self.gone.traffic, self.gone.handshakes)
    }

    // ---- datagrams --------------------------------------------------------------------------

    /// Takes a datagram that came from `from`; an inner packet in it is opened into `out`, which
    /// needs the datagram's length. With the door alone, so that it can do all that there is to do.
    pub fn handle_udp(
        &mut self,
        from: impl Into<Route>,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Inbound {
        let arrival = Arrival::new(from.into().into(), packet::parse_message(datagram));
        self.handle(arrival, datagram, out, now).1
    }

    /// The same, of a datagram whose header has been read; and the tunnel that it was for, if there is one.
    pub(crate) fn handle(
        &mut self,
        arrival: Arrival,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> (Option<TunnelId>, Inbound) {
        let found = self.find(arrival, datagram, now);
        let (id, peer, message) = match found {
            Ok(found) => found,
            Err(reason) => {
                self.count_drops(reason, 1);
                return (None, Inbound::Dropped(reason));
            }
        };
        let inbound = match self.inbound((id, peer, message), arrival.from, datagram, out, now) {
            Ok(inbound) => {
                if let Inbound::Deliver { len } = inbound {
                    arrival.class.mark(out.get_mut(..len).unwrap_or_default());
                }
                inbound
            }
            Err(reason) => {
                if let Some(tunnel) = self.tunnel(id) {
                    tunnel.count_drops(reason, 1);
                }
                Inbound::Dropped(reason)
            }
        };
        (Some(id), inbound)
    }

    /// The tunnel that a datagram is for, and its peer if the header names one.
    fn find(
        &self,
        arrival: Arrival,
        datagram: &[u8],
        now: Duration,
    ) -> Result<(TunnelId, Option<PeerId>, Message), DropReason> {
        self.check_leases(now)?;
        let message = self.admits(arrival)?;
        match message {
            Message::Initiation { .. } => {
                // Before anything is counted: a message for another key must not use up what senders to these
                // share. A hash for each tunnel, and of those there are few.
                let mut rooms = self.rooms.iter();
                let room = rooms.find(|room| room.cookies.is_addressed(datagram));
                let room = room.ok_or(DropReason::BadMac)?;
                Ok((room.id, None, message))
            }
            Message::Data { receiver }
            | Message::Response { receiver }
            | Message::CookieReply { receiver } => {
                let (id, peer) = self.owner(receiver)?;
                Ok((id, Some(peer), message))
            }
        }
    }

    fn inbound(
        &mut self,
        (id, peer, message): (TunnelId, Option<PeerId>, Message),
        from: Route,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        let room = self.rooms.iter_mut().find(|room| room.id == id);
        let Room {
            cookies, tunnel, ..
        } = room.ok_or(DropReason::UnknownIndex)?;
        // The lease comes first: after it a handshake message may not even be answered with a cookie.
        tunnel.check_lease(now)?;
        let peer = peer.ok_or(DropReason::UnknownIndex);
        match message {
            Message::Data { receiver } => tunnel.data(peer?, receiver, from, datagram, out, now),
            Message::Initiation { sender } => {
                let is_peer = tunnel.expects(from.path);
                let admission = &mut self.admission;
                let admitted = admission.initiation(cookies, from.path, datagram, is_peer, now);
                unless_refused(admitted, from, tunnel)?;
                tunnel.initiation(sender, from, datagram, now)
            }
            Message::Response { receiver } => {
                let peer = peer?;
                let is_within = tunnel.awaits(peer, receiver, now)?;
                let source = (tunnel.expects(from.path), is_within);
                let admission = &mut self.admission;
                let admitted = admission.response(cookies, from.path, datagram, source, now);
                unless_refused(admitted, from, tunnel)?;
                tunnel.response(peer, receiver, from, datagram, now)
            }
            Message::CookieReply { receiver } => {
                tunnel.cookie_reply(peer?, receiver, datagram, now)
            }
        }
    }

    /// Whether any tunnel may carry anything; of a door without tunnels none may.
    pub(crate) fn check_leases(&self, now: Duration) -> Result<(), DropReason> {
        let mut tunnels = self.rooms.iter().map(|room| &room.tunnel);
        let is_any = tunnels.any(|tunnel| tunnel.check_lease(now).is_ok());
        is_any.then_some(()).ok_or(DropReason::LeaseOver)
    }

    /// The message in a datagram, if it comes from where an answer may go.
    pub(crate) fn admits(&self, arrival: Arrival) -> Result<Message, DropReason> {
        // Before any key is asked: a member can seal what it likes and have it arrive from inside. The
        // answer, and all packets to that member, would then go through the tunnel, and again. The inside of
        // another segment is no better: what one carries must not depend on who is in the other.
        let mut tunnels = self.rooms.iter().map(|room| &room.tunnel);
        if tunnels.any(|tunnel| tunnel.has_inside(arrival.from)) {
            return Err(DropReason::EndpointInsideMesh);
        }
        // Nothing can be sent to port 0, and datagrams to a group reach many: accepted, either would
        // become the endpoint that a peer's packets go to.
        let is_host = arrival.from.path.is_host();
        let message = arrival.message.filter(|_| is_host);
        message.ok_or(DropReason::Malformed)
    }

    /// The tunnel and the peer that a 24-bit index of ours belongs to. A peer that was removed has none any
    /// more, so that no datagram of its sessions gets any further than here.
    pub(crate) fn owner(&self, index: u32) -> Result<(TunnelId, PeerId), DropReason> {
        self.indices.owner(index).ok_or(DropReason::UnknownIndex)
    }

    /// Counts datagrams that belong to no tunnel.
    pub(crate) fn count_drops(&self, reason: DropReason, packets: u64) {
        self.drops.add(reason, packets);
    }

    #[cfg(test)]
    pub(crate) fn indices(&self) -> &IndexTable {
        &self.indices
    }
}

impl Room {
    fn inside(&self) -> (TunnelId, Inside) {
        (self.id, self.tunnel.inside.clone())
    }
}

/// Answers a handshake message that was refused, if there is an answer.
fn unless_refused(
    admitted: Result<(), Refusal>,
    from: Route,
    tunnel: &mut Tunnel,
) -> Result<(), DropReason> {
    admitted.map_err(|(reason, cookie)| {
        if let Some(reply) = cookie {
            tunnel.transmit(Transmit::to_anybody(from, reply));
        }
        reason
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initiation::{Timestamp, sealed};
    use crate::path::Path;
    use crate::{Inside, LoneTunnel, MIN_BUFFER, Range};
    use keys::{Epoch, WgPublicKey, WgSecret};
    use rand_core::OsRng;
    use std::net::IpAddr;

    const NOW: Duration = Duration::from_secs(1_000);

    fn door(closes_at: Option<Duration>) -> (LoneTunnel, WgPublicKey) {
        let secret = WgSecret::generate(&mut OsRng);
        let key = secret.public();
        let own = IpAddr::from([10, 0, 0, 1]);
        let mut door = LoneTunnel::new(
            4,
            Config {
                secret,
                mtu: 1420,
                seed: 1,
                inside: Inside {
                    own: vec![own],
                    ranges: vec![Range::new(own, 24)],
                },
            },
        );
        door.install(Epoch(1), Vec::new(), Duration::ZERO, closes_at, NOW);
        door.activate(Epoch(1), NOW);
        (door, key)
    }

    fn path(address: &str) -> Path {
        Path::Udp(address.parse().unwrap())
    }

    /// Of somebody who knows this side's key.
    fn initiation(to: &WgPublicKey) -> Vec<u8> {
        let from = WgSecret::generate(&mut OsRng);
        sealed(&from, to, 0x1234_5678, Timestamp::default().later_by(1))
    }

    #[test]
    fn a_datagram_is_asked_for_lease_source_header_and_mac1_in_this_order() {
        let outside = "192.0.2.1:51820";
        let data = [4, 0, 0, 0].repeat(8);
        for (closes_at, is_over) in [(None, false), (Some(NOW), true)] {
            let (mut door, key) = door(closes_at);
            let mut unaddressed = initiation(&key);
            unaddressed[120] ^= 1;
            for (from, datagram, expected) in [
                (
                    "10.0.0.2:51820",
                    &[0; 3][..],
                    DropReason::EndpointInsideMesh,
                ),
                (
                    "10.0.0.2:51820",
                    &initiation(&key),
                    DropReason::EndpointInsideMesh,
                ),
                (outside, &[0; 3], DropReason::Malformed),
                ("192.0.2.1:0", &initiation(&key), DropReason::Malformed),
                ("224.0.0.1:51820", &data, DropReason::Malformed),
                (outside, &data, DropReason::UnknownIndex),
                (outside, &unaddressed, DropReason::BadMac),
                (outside, &initiation(&key), DropReason::UnknownPeer),
            ] {
                let expected = if is_over {
                    DropReason::LeaseOver
                } else {
                    expected
                };
                let before = door.drops().get(expected);
                let inbound = door.handle_udp(path(from), datagram, &mut [0; MIN_BUFFER], NOW);
                assert_eq!(inbound, Inbound::Dropped(expected), "{from}");
                assert_eq!(door.drops().get(expected), before + 1, "it is counted once");
                assert_eq!(door.poll_transmit(), None);
            }
        }
    }

    #[test]
    fn an_initiation_too_many_is_answered_with_a_cookie_to_where_it_came_from() {
        let (mut door, key) = door(None);
        let from = path("192.0.2.1:51820");
        let mut take = || {
            let inbound = door.handle_udp(from, &initiation(&key), &mut [0; MIN_BUFFER], NOW);
            (inbound, door.poll_transmit())
        };
        assert_eq!(take(), (Inbound::Dropped(DropReason::UnknownPeer), None));
        let (inbound, reply) = take();
        assert_eq!(inbound, Inbound::Dropped(DropReason::UnderLoad));
        let reply = reply.expect("a cookie");
        assert_eq!(
            (reply.to, reply.payload[0], reply.payload.len()),
            (from, 3, 64)
        );
    }
}
