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
use crate::packet::{self, Message};
use crate::path::Path;
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
    pub(crate) from: Path,
    /// `None`: no WireGuard message has this type and length.
    pub(crate) message: Option<Message>,
}

impl Arrival {
    pub(crate) fn read(from: Path, datagram: &[u8]) -> Self {
        Self {
            from,
            message: packet::parse_message(datagram),
        }
    }

    /// Whether it shakes hands, or answers for it: those who share the tunnel have no use for it.
    pub(crate) fn is_handshake(&self) -> bool {
        match self.message {
            Some(Message::Initiation { .. } | Message::Response { .. }) => true,
            Some(Message::CookieReply { .. }) => true,
            Some(Message::Data { .. }) | None => false,
        }
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
        from: impl Into<Path>,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Inbound {
        self.handle(Arrival::read(from.into(), datagram), datagram, out, now)
    }

    /// The same, of a datagram whose header has been read.
    pub(crate) fn handle(
        &mut self,
        arrival: Arrival,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Inbound {
        self.inbound(arrival, datagram, out, now)
            .unwrap_or_else(|reason| {
                self.tunnel.count_drops(reason, 1);
                Inbound::Dropped(reason)
            })
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
                let is_peer = self.tunnel.expects(from);
                let admitted = self.admission.initiation(from, datagram, is_peer, now);
                self.unless_refused(admitted)?;
                self.tunnel.initiation(sender, from, datagram, now)
            }
            Message::Response { receiver } => {
                let peer = self.owner(receiver)?;
                let is_within = self.tunnel.awaits(peer, receiver, now)?;
                let source = (self.tunnel.expects(from), is_within);
                let admitted = self.admission.response(from, datagram, source, now);
                self.unless_refused(admitted)?;
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
        let is_host = arrival.from.is_host();
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
    fn unless_refused(&mut self, admitted: Result<(), Refusal>) -> Result<(), DropReason> {
        admitted.map_err(|(reason, cookie)| {
            cookie
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
