//! TUN → UDP: an inner packet becomes a datagram, waits for a session, or is a counted drop.
//!
//! [`Tunnel::sealing`] is the way for everything that has a session, shared by as many threads as there
//! are; [`Tunnel::sealing_alone`] has the tunnel to itself and can do all that there is to do. Both ask
//! the peer once, for the whole batch, whether it can be sent to.

use crate::allowed_ips::PeerId;
use crate::drops::DropReason;
use crate::generations::Slot;
use crate::limits::*;
use crate::local::Local;
use crate::outer::{Outer, Route, TrafficClass};
use crate::packet;
use crate::path::Path;
use crate::peer::{Peer, Readiness};
use crate::tunnel::Tunnel;
use crate::unreachable::Refused;
use std::net::IpAddr;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// The outcome of a packet from the TUN device.
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
/// back before it asks for another, or opens a batch.
pub struct Sealing<'t> {
    peer: MutexGuard<'t, Peer>,
    slot: Slot,
    local: &'t Local,
    to: Route,
    now: Duration,
}

/// A peer for a batch of packets to it, with or without a session, by the one that has the tunnel alone.
pub(crate) struct SealingAlone<'t> {
    peer: &'t mut Peer,
    readiness: Readiness,
    local: &'t mut Local,
    to: Route,
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
        let id = self.route(destination, now)?;
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

    /// The same, whatever the peer needs.
    pub(crate) fn sealing_alone(
        &mut self,
        destination: IpAddr,
        now: Duration,
    ) -> Result<SealingAlone<'_>, DropReason> {
        let id = self.route(destination, now)?;
        let peer = self.peers.get_mut(id).ok_or(DropReason::NoRoute)?;
        let to = peer.whereabouts.target().ok_or(DropReason::NoEndpoint)?;
        match peer.readiness(now) {
            Readiness::Drop(reason) => Err(reason),
            readiness @ (Readiness::Ready(_) | Readiness::Hurry(_) | Readiness::Wait) => {
                Ok(SealingAlone {
                    peer,
                    readiness,
                    local: &mut self.local,
                    to,
                    now,
                })
            }
        }
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
        let packet = buffer.get(..len).ok_or(DropReason::TooLarge);
        let destination =
            packet.and_then(|packet| packet::destination(packet).ok_or(DropReason::Malformed));
        // After the lease that is the reason, whatever the packet is.
        let destination = self.check_lease(now).and(destination);
        match destination.and_then(|destination| self.sealing_alone(destination, now)) {
            Ok(mut sealing) => sealing.take(buffer, len, out),
            Err(reason) => {
                self.count_drops(reason, 1);
                Outbound::Dropped(reason)
            }
        }
    }

    /// Counts packets that were dropped before they got to a peer.
    pub fn count_drops(&self, reason: DropReason, packets: u64) {
        self.local.drops.add(reason, packets);
    }

    /// A packet of this host that nobody can be reached with, if it is answered with an error now.
    pub(crate) fn refused<'p>(&self, packet: &'p [u8], now: Duration) -> Option<Refused<'p>> {
        let refused = Refused::of(packet, &self.inside)?;
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.take(now).then_some(refused)
    }

    /// The peer that has an address inside the mesh, or has it behind it, as long as anything may be sent.
    fn route(&self, destination: IpAddr, now: Duration) -> Result<PeerId, DropReason> {
        // First of all: past the lease this node may be a member no longer, and has not heard of it. Its
        // packets would go to nodes that were told to shun it, or to one that it should shun.
        self.check_lease(now)?;
        // An exact address is the longest prefix that there is.
        let peer = self.allowed.get(destination);
        let peer = peer.or_else(|| self.network(destination));
        peer.ok_or(DropReason::NoRoute)
    }

    /// The peer that an address outside the mesh is behind. Where a peer is reached, nothing is sent by way of a
    /// peer: this node's own datagrams would come back by the TUN device, and be sealed once more with every turn.
    fn network(&self, destination: IpAddr) -> Option<PeerId> {
        let peer = self.networks.owner(destination)?;
        (!self.local.endpoints.has_host(destination)).then_some(peer)
    }
}

impl Sealing<'_> {
    /// Where sealed packets go.
    pub fn to(&self) -> Path {
        self.to.path
    }

    /// The outer header of the datagram that a packet becomes.
    #[inline]
    pub fn around(&self, packet: &[u8]) -> Outer {
        Outer {
            route: self.to,
            class: TrafficClass::around(packet),
        }
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
    #[inline]
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

impl SealingAlone<'_> {
    /// The outer header of the datagram that a packet becomes.
    pub(crate) fn around(&self, packet: &[u8]) -> Outer {
        Outer {
            route: self.to,
            class: TrafficClass::around(packet),
        }
    }

    /// Bytes of the datagram that a packet of `len` bytes becomes.
    pub(crate) fn datagram_len(&self, len: usize) -> usize {
        packet::padded(len, self.local.mtu) + DATA_OVERHEAD
    }

    /// Seals a packet as [`Sealing::seal`] does, or keeps it.
    pub(crate) fn take(&mut self, buffer: &mut [u8], len: usize, out: &mut [u8]) -> Outbound {
        self.taken(buffer, len, out).unwrap_or_else(|reason| {
            self.local.drops.add(reason, 1);
            Outbound::Dropped(reason)
        })
    }

    fn taken(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        out: &mut [u8],
    ) -> Result<Outbound, DropReason> {
        let (to, now, mtu) = (self.to, self.now, self.local.mtu);
        let slot = match self.readiness {
            Readiness::Ready(slot) | Readiness::Hurry(slot) => slot,
            Readiness::Wait => {
                let packet = buffer.get(..len).ok_or(DropReason::TooLarge)?;
                let fits = self.peer.enqueue(packet, now, self.local);
                return fits
                    .then_some(Outbound::Queued)
                    .ok_or(DropReason::NoSession);
            }
            Readiness::Drop(reason) => return Err(reason),
        };
        let len = seal(self.peer, slot, mtu, buffer, len, out, now)?;
        if let Readiness::Hurry(slot) = self.readiness {
            self.peer.hurry(now, self.local);
            // A handshake is under way now, and nothing else has changed.
            self.readiness = Readiness::Ready(slot);
        }
        Ok(Outbound::Send { to: to.path, len })
    }
}

/// Pads and seals.
#[inline]
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
    // Behind the packet lies whatever was in the buffer before, another peer's packet perhaps: sealed as
    // padding, it would be read by a node that it is not for.
    if let Some(padding) = buffer.get_mut(len..padded) {
        padding.fill(0);
    }
    let plaintext = buffer.get(..padded).ok_or(DropReason::TooLarge)?;
    peer.seal(slot, plaintext, len, out, now)
        .ok_or(DropReason::NoSession)
}
