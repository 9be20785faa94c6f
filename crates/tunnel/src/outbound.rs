//! TUN → UDP: an inner packet becomes a datagram, waits for a session, or is a counted drop.
//!
//! [`Tunnel::sealing`] is the way for everything that has a session, shared by as many threads as
//! there are; [`Tunnel::handle_tun`] has the tunnel to itself and can do all that there is to do.

use crate::drops::DropReason;
use crate::generations::Slot;
use crate::limits::*;
use crate::local::Local;
use crate::packet;
use crate::path::Path;
use crate::peer::{Peer, Readiness};
use crate::tunnel::Tunnel;
use std::net::IpAddr;
use std::sync::MutexGuard;
use std::time::Duration;

/// What became of a packet from the TUN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// `len` bytes of the lent buffer are to be sent.
    Send {
        /// Where to.
        to: Path,
        /// Bytes in the buffer.
        len: usize,
    },
    /// It waits for a session.
    Queued,
    /// It was dropped and counted.
    Dropped(DropReason),
}

/// A peer with a live session, held for a batch of packets to it. A thread that has one must give it
/// back before it asks for another, or for an [`crate::Opening`].
pub struct Sealing<'t> {
    peer: MutexGuard<'t, Peer>,
    slot: Slot,
    local: &'t Local,
    to: Path,
    now: Duration,
}

impl Tunnel {
    /// The peer that packets to `destination` go to; `None` if they need [`Self::handle_tun`],
    /// because there is no session yet or a handshake is due.
    ///
    /// # Errors
    /// The reason to drop them; [`Self::count_drops`] wants to know how many.
    pub fn sealing(
        &self,
        destination: IpAddr,
        now: Duration,
    ) -> Result<Option<Sealing<'_>>, DropReason> {
        self.check_lease(now)?;
        let id = self.allowed.get(destination).ok_or(DropReason::NoRoute)?;
        let peer = self.peers.lock(id).ok_or(DropReason::NoRoute)?;
        let to = peer.whereabouts.target().ok_or(DropReason::NoEndpoint)?;
        match peer.readiness(now) {
            Readiness::Ready(slot) => Ok(Some(Sealing {
                peer,
                slot,
                local: &self.local,
                to,
                now,
            })),
            Readiness::Hurry(_) | Readiness::Wait => Ok(None),
            Readiness::Drop(reason) => Err(reason),
        }
    }

    /// Counts packets that were dropped before they got to a peer.
    pub fn count_drops(&self, reason: DropReason, packets: u64) {
        self.local.drops.add(reason, packets);
    }

    /// Takes the inner packet in the first `len` bytes of `buffer` and seals it into `out`, as
    /// [`Sealing::seal`] does; without a session it shakes hands, and keeps the packet for then.
    pub fn handle_tun(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        out: &mut [u8],
        now: Duration,
    ) -> Outbound {
        match self.outbound(buffer, len, out, now) {
            Ok(outbound) => outbound,
            Err(reason) => {
                self.local.drops.add(reason, 1);
                Outbound::Dropped(reason)
            }
        }
    }

    fn outbound(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        out: &mut [u8],
        now: Duration,
    ) -> Result<Outbound, DropReason> {
        self.check_lease(now)?;
        let packet = buffer.get(..len).ok_or(DropReason::TooLarge)?;
        let destination = packet::destination(packet).ok_or(DropReason::Malformed)?;
        let id = self.allowed.get(destination).ok_or(DropReason::NoRoute)?;
        let peer = self.peers.get_mut(id).ok_or(DropReason::NoRoute)?;
        let to = peer.whereabouts.target().ok_or(DropReason::NoEndpoint)?;
        match peer.readiness(now) {
            Readiness::Ready(slot) => {
                let len = seal(peer, slot, self.local.mtu, buffer, len, out, now)?;
                Ok(Outbound::Send { to, len })
            }
            Readiness::Hurry(slot) => {
                let len = seal(peer, slot, self.local.mtu, buffer, len, out, now)?;
                peer.hurry(now, &mut self.local);
                Ok(Outbound::Send { to, len })
            }
            Readiness::Wait if peer.enqueue(packet, now, &mut self.local) => Ok(Outbound::Queued),
            Readiness::Wait => Err(DropReason::NoSession),
            Readiness::Drop(reason) => Err(reason),
        }
    }
}

impl Sealing<'_> {
    /// Where sealed packets go.
    pub fn to(&self) -> Path {
        self.to
    }

    /// Bytes of the datagram that a packet of `len` bytes becomes.
    pub fn datagram_len(&self, len: usize) -> usize {
        packet::padded(len, self.local.mtu) + DATA_OVERHEAD
    }

    /// Seals the packet in the first `len` bytes of `buffer` into `out`; the bytes of the datagram.
    /// The bytes of `buffer` behind `len` may be overwritten with padding, 15 of them at most.
    /// `out` needs the padded length + [`DATA_OVERHEAD`] bytes and at least [`MIN_BUFFER`].
    ///
    /// # Errors
    /// The reason why the packet was dropped; it is counted.
    pub fn seal(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        let (peer, mtu) = (&mut self.peer, self.local.mtu);
        seal(peer, self.slot, mtu, buffer, len, out, self.now)
            .inspect_err(|reason| self.local.drops.add(*reason, 1))
    }
}

/// Pads and seals.
fn seal(
    peer: &mut Peer,
    slot: Slot,
    mtu: usize,
    buffer: &mut [u8],
    len: usize,
    out: &mut [u8],
    now: Duration,
) -> Result<usize, DropReason> {
    let padded = packet::padded(len, mtu).min(buffer.len());
    if out.len() < (padded + DATA_OVERHEAD).max(MIN_BUFFER) {
        return Err(DropReason::TooLarge);
    }
    if let Some(padding) = buffer.get_mut(len..padded) {
        padding.fill(0);
    }
    let plaintext = buffer.get(..padded).ok_or(DropReason::TooLarge)?;
    peer.seal(slot, plaintext, len, out, now)
        .ok_or(DropReason::NoSession)
}
