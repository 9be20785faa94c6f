//! UDP → TUN for a batch, shared: data on live sessions, by as many threads as there are. Refuses
//! whatever would change the tunnel, and leaves it to the door's owner.

use crate::door::{Arrival, FrontDoor};
use crate::drops::DropReason;
use crate::inbound::{self, Ends, Inbound};
use crate::outer::Route;
use crate::packet::Message;
use crate::peer::Peer;
use crate::tunnel::Tunnel;
use crate::tunnel_id::TunnelId;
use std::sync::MutexGuard;
use std::time::Duration;

/// The way in for one batch of datagrams; holds the peer of the last one. A thread that has one must
/// give it back before it asks for a [`crate::Sealing`].
pub(crate) struct Opening<'t> {
    door: &'t FrontDoor,
    held: Option<Held<'t>>,
    /// Whether all leases were over when the batch began; a batch has one time.
    lease: Result<(), DropReason>,
    now: Duration,
}

/// The peer that the last datagram belonged to, and the answers that its successors need not ask for
/// again.
struct Held<'t> {
    tunnel: (TunnelId, &'t Tunnel),
    lease: Result<(), DropReason>,
    from: Route,
    index: u32,
    peer: MutexGuard<'t, Peer>,
    /// Source and destination of the last packet that was allowed.
    ends: Option<Ends>,
}

impl<'t> Opening<'t> {
    pub(crate) fn new(door: &'t FrontDoor, now: Duration) -> Self {
        Self {
            lease: door.check_leases(now),
            door,
            held: None,
            now,
        }
    }

    /// Opens a datagram into `out`, which needs its length; the tunnel of a packet in it is [`Self::tunnel`].
    /// `None`: it shakes hands, or confirms a handshake, and [`FrontDoor::handle`] takes it.
    pub(crate) fn open(
        &mut self,
        arrival: Arrival,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Option<Inbound> {
        match self.opened(arrival, datagram, out) {
            Ok(opened) => {
                if let Some(Inbound::Deliver { len }) = opened {
                    arrival.class.mark(out.get_mut(..len).unwrap_or_default());
                }
                opened
            }
            Err(reason) => {
                // Whoever is held has refused it, or nobody has.
                match &self.held {
                    Some(held) => held.tunnel.1.count_drops(reason, 1),
                    None => self.door.count_drops(reason, 1),
                }
                Some(Inbound::Dropped(reason))
            }
        }
    }

    /// The tunnel that the last datagram belonged to.
    pub(crate) fn tunnel(&self) -> Option<TunnelId> {
        self.held.as_ref().map(|held| held.tunnel.0)
    }

    fn opened(
        &mut self,
        arrival: Arrival,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Result<Option<Inbound>, DropReason> {
        self.lease?;
        let (now, from) = (self.now, arrival.from);
        let Some(Message::Data { receiver: index }) = arrival.message else {
            self.held = None;
            self.door.admits(arrival)?;
            return Ok(None);
        };
        let is_held = |held: &Held<'_>| held.index == index && held.from == from;
        if !self.held.as_ref().is_some_and(is_held) {
            self.hold(arrival, index)?;
        }
        let held = self.held.as_mut().ok_or(DropReason::UnknownIndex)?;
        held.lease?;
        let Held {
            peer, ends, tunnel, ..
        } = held;
        let (_, tunnel) = *tunnel;
        let generation = peer.owner_of(index).ok_or(DropReason::UnknownIndex)?;
        // Confirming sends the packets that waited and changes when the tunnel wants to be called. Both
        // are all threads' affair, and left to the one that has the tunnel alone.
        if generation.is_unconfirmed(index) {
            return Ok(None);
        }
        let plain = inbound::open(generation, index, from.path, datagram, out, now)?;
        peer.heard(from, plain.len, now, &tunnel.local);
        // The same ends as those that were allowed just before: nobody can change who may send what while
        // this batch shares the tunnel, so that asking again would say the same.
        if plain.ends.is_none() || plain.ends != *ends {
            let judged = tunnel.places().judge(&plain, peer)?;
            let Inbound::Deliver { .. } = judged else {
                return Ok(Some(judged));
            };
            *ends = plain.ends;
        }
        // The rules are asked for each packet: its ends do not tell its ports.
        tunnel.places().admit(&plain, out, peer, now)?;
        Ok(Some(Inbound::Deliver { len: plain.len }))
    }

    /// Gets hold of the peer that data for this 24-bit index is for. A run of datagrams from one place to
    /// one index passes the door once.
    fn hold(&mut self, arrival: Arrival, index: u32) -> Result<(), DropReason> {
        // The peer of before is given back before another is waited for: two threads that each hold the
        // peer that the other wants would wait for ever.
        self.held = None;
        self.door.admits(arrival)?;
        let (id, peer) = self.door.owner(index)?;
        let tunnel = self.door.tunnel(id).ok_or(DropReason::UnknownIndex)?;
        let peer = tunnel.peers.lock(peer);
        self.held = Some(Held {
            tunnel: (id, tunnel),
            lease: tunnel.check_lease(self.now),
            from: arrival.from,
            index,
            peer: peer.ok_or(DropReason::UnknownIndex)?,
            ends: None,
        });
        Ok(())
    }
}
