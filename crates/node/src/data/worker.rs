//! One data thread's way of carrying packets: its TUN queue, its UDP socket, its buffers.
//!
//! ```text
//! TUN ─read─▶ super-packet ─split─▶ Turn::send ─seal─▶ batch ─one call─▶ UDP
//! UDP ─one call─▶ datagrams ─▶ Carrier::receive ─open─▶ coalesce ─gathering write─▶ TUN
//! ```
//!
//! Only the bytes go by here. When the tunnel is shared, when a thread has it alone, and what must have
//! left before either ends is the carrier's to say (`tunnel/src/carrier.rs`); a turn is bounded here.

use super::batch::Batch;
use super::{Shared, count};
use crate::io::clock;
use crate::io::offload::{Offload, Why};
use crate::io::tun::{AsyncTun, Tun};
use crate::io::udp::Udp;
use offload::{Coalescer, SPARE, Split, VNET_HEADER_LEN, Verdict, VnetHeader};
use quinn_udp::RecvMeta;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;
use tunnel::{
    DatagramSink, DropReason, Event, Headers, Outer, PacketSink, PacketSource, Path, Received,
    Route, TrafficClass, Tunnel,
};

pub(super) struct Worker {
    shared: Arc<Shared>,
    tun: AsyncTun,
    udp: Udp,
    batch: Batch,
    coalescer: Coalescer,
    /// A super-packet from the TUN device.
    packet: Box<[u8]>,
    /// Datagrams from the UDP socket, in slots.
    datagrams: Box<[u8]>,
    /// The same, opened, each packet where its datagram is.
    plain: Box<[u8]>,
    headers: Headers,
}

/// Both ends of a thread's way: where its tunnel puts datagrams and packets.
struct Ends<'w> {
    tun: &'w AsyncTun,
    udp: &'w Udp,
    batch: &'w mut Batch,
    coalescer: &'w mut Coalescer,
    shared: &'w Shared,
}

/// The packets of a super-packet, one by one.
struct Segments<'p>(Split<'p>);

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
            headers: Headers::default(),
        })
    }

    /// Goes on with a queue of another device; the one before is closed.
    pub(super) fn replace(&mut self, tun: Box<dyn Tun>) -> io::Result<()> {
        self.tun = AsyncTun::new(tun)?;
        Ok(())
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
        if let Some(here) = self.udp.take_gone() {
            self.shared.carrier.read().leave_address(here);
        }
        if is_more_from_udp || is_more_from_tun {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    // ---- TUN → UDP --------------------------------------------------------------------------

    /// Whether there may be more.
    fn drain_tun(&mut self) -> io::Result<bool> {
        let Self {
            shared,
            tun,
            udp,
            batch,
            coalescer,
            packet,
            ..
        } = self;
        let mut ends = Ends {
            tun,
            udp,
            batch,
            coalescer,
            shared,
        };
        let mut turn = shared.carrier.turn(&mut ends);
        let mut budget = TURN;
        while budget > 0 {
            let room = packet.len() - SPARE;
            let len = match tun.recv(&mut packet[..room]) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A packet that no offload header can describe; the driver has thrown it away.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    turn.count_drops(DropReason::Malformed, 1);
                    budget = budget.saturating_sub(LEAST_COST);
                    continue;
                }
                Err(error) => return Err(error),
            };
            budget = budget.saturating_sub(len.max(LEAST_COST));
            let start = if tun.has_vnet_header() {
                VNET_HEADER_LEN.min(len)
            } else {
                0
            };
            let (header, packet) = packet.split_at_mut(start);
            let header = VnetHeader::parse(header).map_or_else(VnetHeader::default, |(h, _)| h);
            let len = len - start;
            let destination = tunnel::destination(&packet[..len]);
            match Split::new(header, packet, len) {
                Ok(split) => turn.send(destination, &mut Segments(split), clock::boot),
                Err(_) => turn.count_drops(DropReason::Malformed, 1),
            }
        }
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

    fn open_all(&mut self, metas: &[RecvMeta]) {
        let Self {
            shared,
            tun,
            udp,
            batch,
            coalescer,
            datagrams: bytes,
            plain,
            headers,
            ..
        } = self;
        coalescer.set(
            shared.offloads.is_on(Offload::TunTcpMerge),
            shared.offloads.is_on(Offload::TunUdpMerge),
        );
        let mut ends = Ends {
            tun,
            udp,
            batch,
            coalescer,
            shared,
        };
        let received = Received {
            datagrams: bytes,
            plain,
            each: datagrams(metas),
        };
        let carrier = &shared.carrier;
        carrier.receive(received, headers, &mut ends, clock::boot);
    }

    // ---- what the main thread does besides ----------------------------------------------------

    /// Sends what the tunnel has to say of its own, and tells what changed.
    pub(super) fn flush(&self, tunnel: &mut Tunnel) {
        send_control(tunnel, &self.udp, &self.shared);
        if let Some(here) = self.udp.take_gone() {
            tunnel.leave_address(here);
        }
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

    /// Sends a packet by which a path is measured: now and whole, or not at all. One that waited for a
    /// session would be sent like any other, and say of a path that it carries what it cuts.
    pub(super) fn measure(&self, mut packet: Vec<u8>) {
        let len = packet.len();
        let Some(destination) = tunnel::destination(&packet) else {
            return;
        };
        let door = self.shared.carrier.read();
        let Ok(Some(mut sealing)) = door.sealing(destination, clock::boot()) else {
            return;
        };
        let outer = sealing.around(&packet);
        packet.resize(len + SPARE, 0);
        let room = sealing.datagram_len(len).max(tunnel::MIN_BUFFER);
        let mut out = vec![0; room];
        if let Ok(sealed) = sealing.seal(&mut packet, len, &mut out) {
            // A system that refuses says that the path does not carry it.
            let _ = self.udp.send_whole(outer, &out[..sealed]);
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

impl DatagramSink for Ends<'_> {
    fn room(&mut self, to: Outer, len: usize) -> &mut [u8] {
        let (room, lost) = self.batch.room(to, len, self.udp, &self.shared.offloads);
        count(&self.shared.udp_send, lost);
        room
    }

    fn push(&mut self, len: usize) {
        self.batch.push(len);
    }

    fn flush(&mut self) {
        let lost = self.batch.flush(self.udp, &self.shared.offloads);
        count(&self.shared.udp_send, lost);
    }

    fn send(&mut self, to: Outer, datagram: &[u8]) {
        let sent = self.udp.send(to, datagram, datagram.len());
        count(&self.shared.udp_send, u64::from(sent.is_err()));
    }

    fn refuse(&mut self, error: &[u8]) {
        self.shared.refusals.send(error);
    }

    fn deadline_changed(&mut self) {
        self.shared.deadline.notify_one();
    }
}

impl PacketSink for Ends<'_> {
    fn put(&mut self, plain: &[u8], range: Range<usize>) {
        self.coalescer.push(plain, range);
    }

    fn flush(&mut self, plain: &mut [u8]) {
        self.coalescer.drain(plain, |header, slices| {
            deliver(self.tun, header, slices, self.shared)
        });
    }
}

impl PacketSource for Segments<'_> {
    fn next(&mut self) -> Option<(&mut [u8], usize)> {
        let segment = self.0.next_segment()?;
        Some((segment.bytes, segment.len))
    }

    fn remaining(&self) -> usize {
        self.0.remaining()
    }
}

fn send_control(tunnel: &mut Tunnel, udp: &Udp, shared: &Shared) {
    while let Some(transmit) = tunnel.poll_transmit() {
        let sent = udp.send(transmit.outer(), &transmit.payload, transmit.payload.len());
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

/// The datagrams that were received, their outer headers, and where they are.
fn datagrams(metas: &[RecvMeta]) -> impl Iterator<Item = (Outer, Range<usize>)> + Clone + '_ {
    metas.iter().enumerate().flat_map(|(slot, meta)| {
        let start = slot * SLOT;
        let stride = meta.stride.max(1);
        let outer = Outer {
            route: Route {
                path: Path::Udp(meta.addr),
                here: meta.dst_ip,
            },
            class: TrafficClass::from_bits(meta.ecn.map_or(0, |ecn| ecn as u8)),
        };
        (0..meta.len).step_by(stride).map(move |at| {
            let end = meta.len.min(at + stride);
            (outer, start + at..start + end)
        })
    })
}

/// Bytes per turn and direction, before commands and the other direction get theirs.
const TURN: usize = 512 << 10;
/// The least that a packet costs, in bytes of a turn.
const LEAST_COST: usize = 1 << 10;
/// Receive buffers; each holds one datagram, or what the kernel batched.
const SLOTS: usize = 4;
const SLOT: usize = 1 << 16;
/// The most that IP's length field can say.
const MAX_PACKET: usize = 65_535;
