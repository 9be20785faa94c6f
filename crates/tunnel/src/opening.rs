//! UDP → TUN for a batch, shared: data on live sessions, by as many threads as there are. Refuses
//! whatever would change the tunnel, and leaves it to the door's owner.

use crate::door::{Arrival, FrontDoor};
use crate::drops::DropReason;
use crate::inbound::{self, Ends, Inbound};
use crate::outer::Route;
use crate::packet::Message;
use crate::peer::Peer;
use std::sync::MutexGuard;
use std::time::Duration;

/// The way in for one batch of datagrams; holds the peer of the last one. A thread that has one must
/// give it back before it asks for a [`crate::Sealing`].
pub(crate) struct Opening<'t> {
    door: &'t FrontDoor,
    held: Option<Held<'t>>,
    /// Whether the lease was over when the batch began; a batch has one time.
    lease: Result<(), DropReason>,
    now: Duration,
}

/// The peer that the last datagram belonged to, and the answers that its successors need not ask for
/// again.
struct Held<'t> {
    from: Route,
    index: u32,
    peer: MutexGuard<'t, Peer>,
    /// Source and destination of the last packet that was allowed.
    ends: Option<Ends>,
}

impl<'t> Opening<'t> {
    pub(crate) fn new(door: &'t FrontDoor, now: Duration) -> Self {
        Self {
            lease: door.tunnel().check_lease(now),
            door,
            held: None,
            now,
        }
    }

    /// Opens a datagram into `out`, which needs its length. `None`: it shakes hands, or confirms a
    /// handshake, and [`FrontDoor::handle`] takes it.
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
                self.door.tunnel().count_drops(reason, 1);
                Some(Inbound::Dropped(reason))
            }
        }
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
            self.door.admits(arrival)?;
            return Ok(None);
        };
        let is_held = |held: &Held<'_>| held.index == index && held.from == from;
        if !self.held.as_ref().is_some_and(is_held) {
            self.hold(arrival, index)?;
        }
        let held = self.held.as_mut().ok_or(DropReason::UnknownIndex)?;
        let Held { peer, ends, .. } = held;
        let generation = peer.owner_of(index).ok_or(DropReason::UnknownIndex)?;
        // Confirming sends the packets that waited and changes when the tunnel wants to be called. Both
        // are all threads' affair, and left to the one that has the tunnel alone.
        if generation.is_unconfirmed(index) {
            return Ok(None);
        }
        let plain = inbound::open(generation, index, from.path, datagram, out, now)?;
        let tunnel = self.door.tunnel();
        peer.heard(from, plain.len, now, &tunnel.local);
        // The same ends as those that were allowed just before: nobody can change who may send what while
        // this batch shares the tunnel, so that asking again would say the same.
        if plain.ends.is_none() || plain.ends != *ends {
            let judged = inbound::judge(&plain, &tunnel.allowed, &tunnel.inside, peer)?;
            let Inbound::Deliver { .. } = judged else {
                return Ok(Some(judged));
            };
            *ends = plain.ends;
        }
        // The rules are asked for each packet: its ends do not tell its ports.
        inbound::admit(&plain, out, peer, now)?;
        Ok(Some(Inbound::Deliver { len: plain.len }))
    }

    /// Gets hold of the peer that data for this 24-bit index is for. A run of datagrams from one place to
    /// one index passes the door once.
    fn hold(&mut self, arrival: Arrival, index: u32) -> Result<(), DropReason> {
        // The peer of before is given back before another is waited for: two threads that each hold the
        // peer that the other wants would wait for ever.
        self.held = None;
        self.door.admits(arrival)?;
        let id = self.door.owner(index)?;
        let peer = self.door.tunnel().peers.lock(id);
        self.held = Some(Held {
            from: arrival.from,
            index,
            peer: peer.ok_or(DropReason::UnknownIndex)?,
            ends: None,
        });
        Ok(())
    }
}
