//! One data thread's way of carrying packets: its TUN queue, its UDP socket, its buffers.
//!
//! ```text
//! TUN ─read─▶ super-packet ─split─▶ Sealing::seal ─▶ batch ─one call─▶ UDP
//! UDP ─one call─▶ datagrams ─▶ Opening::open ─▶ coalesce ─gathering write─▶ TUN
//! ```
//!
//! A turn is bounded, holds the tunnel's read lock, and leaves nothing behind when it gives it back:
//! whoever then takes the write lock to remove a peer knows that no packet of it is on its way. What
//! needs the tunnel alone (handshakes, packets without a session) takes the write lock in between.

use super::batch::Batch;
use super::{Shared, count};
use crate::io::clock;
use crate::io::offload::{Offload, Offloads, Why};
use crate::io::tun::{AsyncTun, Tun};
use crate::io::udp::Udp;
use offload::{Coalescer, SPARE, Split, VNET_HEADER_LEN, Verdict, VnetHeader};
use quinn_udp::RecvMeta;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use tunnel::{DropReason, Event, Inbound, Opened, Outbound, Sealing, Tunnel};

pub(super) struct Worker {
    shared: Arc<Shared>,
    tun: AsyncTun,
    udp: Udp,
    batch: Batch,
    coalescer: Coalescer,
    /// What comes from the TUN device.
    packet: Box<[u8]>,
    /// What comes from the UDP socket, in slots.
    datagrams: Box<[u8]>,
    /// The same, opened, each packet where its datagram is.
    plain: Box<[u8]>,
}

impl Worker {
    /// Must run inside a tokio runtime.
    pub(super) fn new(
        shared: Arc<Shared>,
        tun: Box<dyn Tun>,
        udp: std::net::UdpSocket,
    ) -> io::Result<Self> {
        let udp = Udp::new(udp, &shared.offloads)?;
        Ok(Self {
            shared,
            tun: AsyncTun::new(tun)?,
            udp,
            batch: Batch::new(),
            coalescer: Coalescer::new(false, false),
            packet: vec![0; VNET_HEADER_LEN + MAX_PACKET + SPARE].into_boxed_slice(),
            datagrams: vec![0; SLOTS * SLOT].into_boxed_slice(),
            plain: vec![0; SLOTS * SLOT].into_boxed_slice(),
        })
    }

    /// Resolves when there may be something to carry.
    pub(super) async fn ready(&self) -> io::Result<()> {
        tokio::select! {
            biased;
            ready = self.udp.readable() => ready,
            ready = self.tun.readable() => ready,
        }
    }

    /// Both directions, whichever woke us: neither starves the other. Gives way when a direction has
    /// more to carry than a turn holds: only then does the runtime get to see that the other direction
    /// has become ready.
    pub(super) async fn carry(&mut self) -> io::Result<()> {
        let is_more_from_udp = self.drain_udp();
        let is_more_from_tun = self.drain_tun()?;
        if is_more_from_udp || is_more_from_tun {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    // ---- TUN → UDP --------------------------------------------------------------------------

    /// Whether there may be more.
    fn drain_tun(&mut self) -> io::Result<bool> {
        let shared = Arc::clone(&self.shared);
        let mut tunnel = shared.read();
        let mut budget = TURN;
        while budget > 0 {
            let room = self.packet.len() - SPARE;
            let len = match self.tun.recv(&mut self.packet[..room]) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A packet that no offload header can describe; the driver has thrown it away.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    tunnel.count_drops(DropReason::Malformed, 1);
                    budget = budget.saturating_sub(LEAST_COST);
                    continue;
                }
                Err(error) => return Err(error),
            };
            budget = budget.saturating_sub(len.max(LEAST_COST));
            let start = if self.tun.has_vnet_header() {
                VNET_HEADER_LEN.min(len)
            } else {
                0
            };
            let (header, packet) = self.packet.split_at_mut(start);
            let header = VnetHeader::parse(header).map_or_else(VnetHeader::default, |(h, _)| h);
            let len = len - start;
            let (Some(destination), Ok(mut split)) = (
                tunnel::destination(&packet[..len]),
                Split::new(header, packet, len),
            ) else {
                tunnel.count_drops(DropReason::Malformed, 1);
                continue;
            };
            let needs_tunnel_alone = match tunnel.sealing(destination, clock::boot()) {
                Ok(Some(peer)) => {
                    let (batch, udp) = (&mut self.batch, &self.udp);
                    let lost = seal_all(&mut split, peer, batch, udp, &shared.offloads);
                    count(&shared.udp_send, lost);
                    false
                }
                Ok(None) => true,
                Err(reason) => {
                    tunnel.count_drops(reason, split.remaining() as u64);
                    false
                }
            };
            if needs_tunnel_alone {
                let lost = self.batch.flush(&self.udp, &shared.offloads);
                count(&shared.udp_send, lost);
                drop(tunnel);
                let mut alone = shared.write();
                seal_alone(&mut split, &mut alone, &mut self.plain, &self.udp, &shared);
                drop(alone);
                tunnel = shared.read();
            }
        }
        let lost = self.batch.flush(&self.udp, &shared.offloads);
        count(&shared.udp_send, lost);
        Ok(budget == 0)
    }

    // ---- UDP → TUN --------------------------------------------------------------------------

    /// Whether there may be more.
    fn drain_udp(&mut self) -> bool {
        let mut budget = TURN;
        while budget > 0 {
            let mut metas = [RecvMeta::default(); SLOTS];
            let mut slots = self.datagrams.chunks_mut(SLOT);
            let mut buffers: [IoSliceMut<'_>; SLOTS] =
                std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
            let received = match self.udp.recv(&mut buffers, &mut metas) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An ICMP error of an earlier datagram; the next call goes on.
                Err(_) => {
                    budget -= LEAST_COST.min(budget);
                    continue;
                }
            };
            let metas = &metas[..received];
            let costs = datagrams(metas).map(|(_, range)| range.len().max(LEAST_COST));
            budget = budget.saturating_sub(costs.sum::<usize>().max(LEAST_COST));
            self.open_all(metas);
        }
        true
    }

    /// Opens what was received and delivers it. Handshakes go first.
    fn open_all(&mut self, metas: &[RecvMeta]) {
        let shared = Arc::clone(&self.shared);
        for (from, range) in datagrams(metas) {
            if tunnel::is_handshake(&self.datagrams[range.clone()]) {
                self.open_alone(from, range);
            }
        }
        let tunnel = shared.read();
        self.coalescer.set(
            shared.offloads.is_on(Offload::TunTcpMerge),
            shared.offloads.is_on(Offload::TunUdpMerge),
        );
        let mut handshakes = Vec::new();
        let mut opening = tunnel.opening(clock::boot());
        for (from, range) in datagrams(metas) {
            let datagram = &self.datagrams[range.clone()];
            if tunnel::is_handshake(datagram) {
                continue;
            }
            match opening.open(from, datagram, &mut self.plain[range.clone()]) {
                Opened::Deliver { len } => {
                    let packet = range.start..range.start + len;
                    self.coalescer.push(&self.plain, packet);
                }
                Opened::Consumed | Opened::Dropped(_) => {}
                Opened::Handshake => handshakes.push((from, range)),
            }
        }
        drop(opening);
        self.coalescer.drain(&mut self.plain, |header, slices| {
            deliver(&self.tun, header, slices, &shared)
        });
        drop(tunnel);
        for (from, range) in handshakes {
            self.open_alone(from, range);
        }
    }

    /// A datagram that needs the tunnel alone.
    fn open_alone(&mut self, from: SocketAddr, range: Range<usize>) {
        let shared = Arc::clone(&self.shared);
        let mut tunnel = shared.write();
        let before = tunnel.poll_timeout();
        let (datagram, out) = (&self.datagrams[range.clone()], &mut self.plain[range]);
        let inbound = tunnel.handle_udp(from, datagram, out, clock::boot());
        if let Inbound::Deliver { len } = inbound {
            let header = VnetHeader::default();
            let encoded = header.encode();
            let slices = [IoSlice::new(&encoded), IoSlice::new(&out[..len])];
            let _ = deliver(&self.tun, &header, &slices, &shared);
        }
        send_control(&mut tunnel, &self.udp, &shared);
        shared.deadline_may_have_changed(before, &tunnel);
    }

    // ---- what the main thread does besides ----------------------------------------------------

    /// Sends what the tunnel has to say of its own, and tells what changed.
    pub(super) fn flush(&self, tunnel: &mut Tunnel) {
        send_control(tunnel, &self.udp, &self.shared);
        while let Some(event) = tunnel.poll_event() {
            match event {
                Event::Handshake {
                    peer,
                    epoch,
                    initiator,
                } => {
                    tracing::debug!(%peer, %epoch, initiator, "session established");
                }
                Event::Endpoint { peer, endpoint } => {
                    tracing::debug!(%peer, %endpoint, "endpoint changed")
                }
            }
        }
    }

    /// Tries what the TUN device takes, with packets that the kernel throws away.
    pub(super) fn probe_tun(&self) {
        let offloads = &self.shared.offloads;
        for (offload, is_tcp) in [(Offload::TunTcpMerge, true), (Offload::TunUdpMerge, false)] {
            for is_v6 in [false, true] {
                let Some((header, packet)) = offload::martian(is_tcp, is_v6) else {
                    continue;
                };
                let encoded = header.encode();
                let slices = [IoSlice::new(&encoded), IoSlice::new(&packet)];
                if offloads.is_on(offload)
                    && let Err(error) = self.tun.send(&slices)
                    && error.raw_os_error() == Some(libc::EINVAL)
                {
                    offloads.turn_off(offload, Why::Unsupported(error));
                }
            }
        }
    }
}

/// Seals the packets of a super-packet into the batch; how many datagrams were lost on the way.
fn seal_all(
    split: &mut Split<'_>,
    mut peer: Sealing<'_>,
    batch: &mut Batch,
    udp: &Udp,
    offloads: &Offloads,
) -> u64 {
    let mut lost = 0;
    while let Some(segment) = split.next_segment() {
        let len = peer.datagram_len(segment.len);
        let (room, lost_before) = batch.room(peer.to(), len, udp, offloads);
        lost += lost_before;
        // A packet that is not sealed was dropped, and counted, by the tunnel.
        if let Ok(len) = peer.seal(segment.bytes, segment.len, room) {
            batch.push(len);
        }
    }
    lost
}

/// The same with the tunnel alone: shakes hands, and keeps packets until that is done.
fn seal_alone(
    split: &mut Split<'_>,
    tunnel: &mut Tunnel,
    out: &mut [u8],
    udp: &Udp,
    shared: &Shared,
) {
    let (now, before) = (clock::boot(), tunnel.poll_timeout());
    while let Some(segment) = split.next_segment() {
        let outbound = tunnel.handle_tun(segment.bytes, segment.len, out, now);
        if let Outbound::Send { to, len } = outbound
            && udp.send(to, &out[..len], len).is_err()
        {
            count(&shared.udp_send, 1);
        }
    }
    send_control(tunnel, udp, shared);
    shared.deadline_may_have_changed(before, tunnel);
}

fn send_control(tunnel: &mut Tunnel, udp: &Udp, shared: &Shared) {
    while let Some(transmit) = tunnel.poll_transmit() {
        let sent = udp.send(transmit.to, &transmit.payload, transmit.payload.len());
        count(&shared.udp_send, u64::from(sent.is_err()));
    }
}

/// Writes one packet to the TUN device.
fn deliver(
    tun: &AsyncTun,
    header: &VnetHeader,
    slices: &[IoSlice<'_>],
    shared: &Shared,
) -> Verdict {
    // The first slice is the header, each other a packet or what one adds to it.
    let packets = slices.len() as u64 - 1;
    let slices = if tun.has_vnet_header() {
        slices
    } else {
        &slices[1..]
    };
    match tun.send(slices) {
        Err(error) if header.is_super_packet() && error.raw_os_error() == Some(libc::EINVAL) => {
            let offload = match header.is_tcp() {
                true => Offload::TunTcpMerge,
                false => Offload::TunUdpMerge,
            };
            shared.offloads.turn_off(offload, Why::Failed(error));
            Verdict::Refused
        }
        sent => {
            if sent.is_err() {
                count(&shared.tun_write, packets);
            }
            Verdict::Done
        }
    }
}

/// The datagrams that were received, and where they are.
fn datagrams(metas: &[RecvMeta]) -> impl Iterator<Item = (SocketAddr, Range<usize>)> + '_ {
    metas.iter().enumerate().flat_map(|(slot, meta)| {
        let start = slot * SLOT;
        let stride = meta.stride.max(1);
        (0..meta.len).step_by(stride).map(move |at| {
            let end = meta.len.min(at + stride);
            (meta.addr, start + at..start + end)
        })
    })
}

/// Bytes per turn and direction, before commands and the other direction get theirs.
const TURN: usize = 512 << 10;
/// What a packet costs at least, in bytes of a turn.
const LEAST_COST: usize = 1 << 10;
/// Receive buffers; each holds one datagram, or what the kernel batched.
const SLOTS: usize = 4;
const SLOT: usize = 1 << 16;
/// The most that IP's length field can say.
const MAX_PACKET: usize = 65_535;
