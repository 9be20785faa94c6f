//! The front door: where datagrams come in, before anybody knows for which tunnel they are.
//!
//! It owns what is asked of every datagram, in this order: type and length, source, MAC1, the
//! allowance of the source, and the index table. Behind it is one tunnel. A second would be an element
//! of a list: MAC1 says for whose key a handshake message was made, the index table to whom all other
//! messages belong. It refuses to know peers, epochs and sessions, and opens nothing.

use crate::admission::{Admission, Refusal};
use crate::allowed_ips::PeerId;
use crate::config::Config;
use crate::drops::DropReason;
use crate::inbound::Inbound;
use crate::indices::IndexTable;
use crate::outbox::Transmit;
use crate::outer::{Outer, Route, TrafficClass};
use crate::packet::{self, Message};
use crate::tunnel::Tunnel;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// The front door of a node, and the tunnel behind it.
///
/// As long as there is one tunnel, the door stands for it: the calls of [`Tunnel`] are the door's too.
pub struct FrontDoor {
    admission: Admission,
    indices: IndexTable,
    tunnel: Tunnel,
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
    /// A door, and behind it a tunnel without peers.
    pub fn new(config: Config) -> Self {
        let per_second = config.handshakes_per_second;
        let indices = IndexTable::default();
        Self {
            admission: Admission::new(&config.secret, per_second, config.seed),
            tunnel: Tunnel::new(config, indices.clone()),
            indices,
        }
    }

    /// Takes a datagram that came from `from`; an inner packet in it is opened into `out`, which
    /// needs the datagram's length. With the tunnel alone, so that it can do all that there is to do.
    pub fn handle_udp(
        &mut self,
        from: impl Into<Route>,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Inbound {
        let arrival = Arrival::new(from.into().into(), packet::parse_message(datagram));
        self.handle(arrival, datagram, out, now)
    }

    /// The same, of a datagram whose header has been read.
    pub(crate) fn handle(
        &mut self,
        arrival: Arrival,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Inbound {
        match self.inbound(arrival, datagram, out, now) {
            Ok(inbound) => {
                if let Inbound::Deliver { len } = inbound {
                    arrival.class.mark(out.get_mut(..len).unwrap_or_default());
                }
                inbound
            }
            Err(reason) => {
                self.tunnel.count_drops(reason, 1);
                Inbound::Dropped(reason)
            }
        }
    }

    fn inbound(
        &mut self,
        arrival: Arrival,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        // The lease comes first: after it a handshake message may not even be answered with a cookie.
        self.tunnel.check_lease(now)?;
        let from = arrival.from;
        match self.admits(arrival)? {
            Message::Data { receiver } => {
                let peer = self.owner(receiver)?;
                self.tunnel.data(peer, receiver, from, datagram, out, now)
            }
            Message::Initiation { sender } => {
                let is_peer = self.tunnel.expects(from.path);
                let admitted = self.admission.initiation(from.path, datagram, is_peer, now);
                self.unless_refused(admitted, from)?;
                self.tunnel.initiation(sender, from, datagram, now)
            }
            Message::Response { receiver } => {
                let peer = self.owner(receiver)?;
                let is_within = self.tunnel.awaits(peer, receiver, now)?;
                let source = (self.tunnel.expects(from.path), is_within);
                let admitted = self.admission.response(from.path, datagram, source, now);
                self.unless_refused(admitted, from)?;
                self.tunnel.response(peer, receiver, from, datagram, now)
            }
            Message::CookieReply { receiver } => {
                let peer = self.owner(receiver)?;
                self.tunnel.cookie_reply(peer, receiver, datagram, now)
            }
        }
    }

    /// The message in a datagram, if it comes from where an answer may go.
    pub(crate) fn admits(&self, arrival: Arrival) -> Result<Message, DropReason> {
        // Before any key is asked: a member can seal what it likes and have it arrive from inside. The
        // answer, and all packets to that member, would then go through the tunnel, and again.
        if self.tunnel.has_inside(arrival.from) {
            return Err(DropReason::EndpointInsideMesh);
        }
        // Nothing can be sent to port 0, and datagrams to a group reach many: accepted, either would
        // become the endpoint that a peer's packets go to.
        let is_host = arrival.from.path.is_host();
        let message = arrival.message.filter(|_| is_host);
        message.ok_or(DropReason::Malformed)
    }

    /// The peer that a 24-bit index of ours belongs to. A peer that was removed has none any more, so
    /// that no datagram of its sessions gets any further than here.
    pub(crate) fn owner(&self, index: u32) -> Result<PeerId, DropReason> {
        self.indices.owner(index).ok_or(DropReason::UnknownIndex)
    }

    #[cfg(test)]
    pub(crate) fn indices(&self) -> &IndexTable {
        &self.indices
    }

    /// The tunnel behind the door.
    pub(crate) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Answers a handshake message that was refused, if there is an answer.
    fn unless_refused(
        &mut self,
        admitted: Result<(), Refusal>,
        from: Route,
    ) -> Result<(), DropReason> {
        admitted.map_err(|(reason, cookie)| {
            let reply = cookie.map(|reply| Transmit::to_anybody(from, reply));
            reply
                .into_iter()
                .for_each(|reply| self.tunnel.transmit(reply));
            reason
        })
    }
}

impl Deref for FrontDoor {
    type Target = Tunnel;

    fn deref(&self) -> &Tunnel {
        &self.tunnel
    }
}

impl DerefMut for FrontDoor {
    fn deref_mut(&mut self) -> &mut Tunnel {
        &mut self.tunnel
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initiation::{Timestamp, sealed};
    use crate::path::Path;
    use crate::{Inside, MIN_BUFFER, Range};
    use keys::{Epoch, WgPublicKey, WgSecret};
    use rand_core::OsRng;
    use std::net::IpAddr;

    const NOW: Duration = Duration::from_secs(1_000);

    fn door(closes_at: Option<Duration>) -> (FrontDoor, WgPublicKey) {
        let secret = WgSecret::generate(&mut OsRng);
        let key = secret.public();
        let own = IpAddr::from([10, 0, 0, 1]);
        let mut door = FrontDoor::new(Config {
            secret,
            mtu: 1420,
            handshakes_per_second: 4,
            seed: 1,
            inside: Inside {
                own: vec![own],
                ranges: vec![Range::new(own, 24)],
            },
        });
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
