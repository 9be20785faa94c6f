//! One data thread's way of carrying packets: its UDP socket, a queue of each segment's TUN device, its buffers.
//!
//! ```text
//! TUN ─read─▶ super-packet ─split─▶ Turn::send ─seal─▶ batch ─one call─▶ UDP
//! UDP ─one call─▶ datagrams ─▶ Carrier::receive ─open─▶ coalesce ─gathering write─▶ TUN
//! ```
//!
//! A packet is written to the device of the tunnel that opened it, and merged with packets of that tunnel alone.
//!
//! Only the bytes go by here. When the tunnel is shared, when a thread has it alone, and what must have
//! left before either ends is the carrier's to say (`tunnel/src/carrier.rs`); a turn is bounded here.

use super::batch::Batch;
use super::{DeviceChange, Shared, count};
use crate::io::clock;
use crate::io::offload::{Offload, Why};
use crate::io::tun::AsyncTun;
use crate::io::udp::Udp;
use offload::{Coalescer, SPARE, Split, VNET_HEADER_LEN, Verdict, VnetHeader};
use quinn_udp::RecvMeta;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;
use tunnel::{
    DatagramSink, DropReason, Event, FrontDoor, Headers, Outer, PacketSink, PacketSource, Path,
    Received, Route, TrafficClass, Tunnel, TunnelId,
};

pub(super) struct Worker {
    shared: Arc<Shared>,
    /// One for each tunnel.
    devices: Vec<Device>,
    udp: Udp,
    batch: Batch,
    /// A super-packet from the TUN device.
    packet: Box<[u8]>,
    /// Datagrams from the UDP socket, in slots.
    datagrams: Box<[u8]>,
    /// The same, opened, each packet where its datagram is.
    plain: Box<[u8]>,
    headers: Headers,
}

/// A queue of one segment's TUN device, and the packets that are to be written there.
struct Device {
    tunnel: TunnelId,
    tun: AsyncTun,
    coalescer: Coalescer,
}

/// The outer end of a thread's way: where its tunnels put datagrams.
struct Outside<'w> {
    udp: &'w Udp,
    batch: &'w mut Batch,
    shared: &'w Shared,
}

/// Both ends of a thread's way: where its tunnels put datagrams and packets.
struct Ends<'w> {
    outside: Outside<'w>,
    devices: &'w mut [Device],
}

/// The packets of a super-packet, one by one.
struct Segments<'p>(Split<'p>);

impl Worker {
    /// Must run inside a tokio runtime.
    pub(super) fn new(shared: Arc<Shared>, udp: std::net::UdpSocket) -> io::Result<Self> {
        let udp = Udp::new(udp, &shared.offloads)?;
        Ok(Self {
            shared,
            devices: Vec::new(),
            udp,
            batch: Batch::new(),
            packet: vec![0; VNET_HEADER_LEN + MAX_PACKET + SPARE].into_boxed_slice(),
            datagrams: vec![0; SLOTS * SLOT].into_boxed_slice(),
            plain: vec![0; SLOTS * SLOT].into_boxed_slice(),
            headers: Headers::default(),
        })
    }

    /// Takes a queue of a device, or gives one back; whether it is the first that there is.
    pub(super) fn handle_device(&mut self, change: DeviceChange) -> io::Result<bool> {
        match change {
            DeviceChange::Open(tunnel, tun) => {
                self.devices.push(Device {
                    tunnel,
                    tun: AsyncTun::new(tun)?,
                    coalescer: Coalescer::new(false, false),
                });
                return Ok(self.devices.len() == 1);
            }
            DeviceChange::Replace(tunnel, tun) => {
                let mut devices = self.devices.iter_mut();
                // Made anew for a tunnel that was closed meanwhile, it goes again.
                if let Some(device) = devices.find(|device| device.tunnel == tunnel) {
                    device.tun = AsyncTun::new(tun)?;
                }
            }
            DeviceChange::Close(tunnel) => self.devices.retain(|device| device.tunnel != tunnel),
        }
        Ok(false)
    }

    /// Resolves when there may be something to carry.
    pub(super) async fn ready(&self) -> io::Result<()> {
        // Every device is asked until one is ready: those that are not wake this thread later.
        let devices = poll_fn(|context| {
            let mut polled = self.devices.iter().map(|it| it.tun.poll_readable(context));
            polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
        });
        tokio::select! {
            biased;
            ready = self.udp.readable() => ready,
            ready = devices => ready,
        }
    }

    /// Both directions, whichever woke us: neither starves the other. Gives way when a direction has
    /// more to carry than a turn holds: only then does the runtime get to see that the other direction
    /// has become ready.
    pub(super) async fn carry(&mut self) -> io::Result<()> {
        let is_more_from_udp = self.drain_udp();
        let is_more_from_tun = self.drain_tun()?;
        if let Some(here) = self.udp.take_gone() {
            let door = self.shared.carrier.read();
            door.tunnels()
                .for_each(|(_, tunnel)| tunnel.leave_address(here));
        }
        if is_more_from_udp || is_more_from_tun {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    // ---- TUN → UDP --------------------------------------------------------------------------

    /// Whether there may be more. Each device has a turn of its own, so that none starves another.
    fn drain_tun(&mut self) -> io::Result<bool> {
        let Self {
            shared,
            devices,
            udp,
            batch,
            packet,
            ..
        } = self;
        let mut outside = Outside { udp, batch, shared };
        let mut is_more = false;
        for device in devices {
            is_more |= drain(device, packet, &mut outside)?;
        }
        Ok(is_more)
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
            devices,
            udp,
            batch,
            datagrams: bytes,
            plain,
            headers,
            ..
        } = self;
        let merged = [Offload::TunTcpMerge, Offload::TunUdpMerge];
        let [tcp, udp_merge] = merged.map(|offload| shared.offloads.is_on(offload));
        for device in devices.iter_mut() {
            device.coalescer.set(tcp, udp_merge);
        }
        let mut ends = Ends {
            outside: Outside { udp, batch, shared },
            devices,
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

    /// Sends what the tunnels have to say of their own, and tells what changed.
    pub(super) fn flush(&self, door: &mut FrontDoor) {
        send_control(door, &self.udp, &self.shared);
        let gone = self.udp.take_gone();
        for (_, tunnel) in door.tunnels() {
            if let Some(here) = gone {
                tunnel.leave_address(here);
            }
            tell(tunnel);
        }
    }

    /// Sends a packet by which a path is measured: now and whole, or not at all. One that waited for a
    /// session would be sent like any other, and say of a path that it carries what it cuts.
    pub(super) fn measure(&self, tunnel: TunnelId, mut packet: Vec<u8>) {
        let len = packet.len();
        let Some(destination) = tunnel::destination(&packet) else {
            return;
        };
        let door = self.shared.carrier.read();
        let Some(tunnel) = door.tunnel(tunnel) else {
            return;
        };
        let Ok(Some(mut sealing)) = tunnel.sealing(destination, clock::boot()) else {
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

    /// Tries what the first TUN device takes, with packets that the kernel throws away: the others are alike.
    pub(super) fn probe_tun(&self) {
        let Some(Device { tun, .. }) = self.devices.first() else {
            return;
        };
        let offloads = &self.shared.offloads;
        for (offload, is_tcp) in [(Offload::TunTcpMerge, true), (Offload::TunUdpMerge, false)] {
            for is_v6 in [false, true] {
                let Some((header, packet)) = offload::martian(is_tcp, is_v6) else {
                    continue;
                };
                let encoded = header.encode();
                let slices = [IoSlice::new(&encoded), IoSlice::new(&packet)];
                if offloads.is_on(offload)
                    && let Err(error) = tun.send(&slices)
                    && error.raw_os_error() == Some(libc::EINVAL)
                {
                    offloads.turn_off(offload, Why::Unsupported(error));
                }
            }
        }
    }
}

impl DatagramSink for Outside<'_> {
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

impl DatagramSink for Ends<'_> {
    fn room(&mut self, to: Outer, len: usize) -> &mut [u8] {
        self.outside.room(to, len)
    }

    fn push(&mut self, len: usize) {
        self.outside.push(len);
    }

    fn flush(&mut self) {
        DatagramSink::flush(&mut self.outside);
    }

    fn send(&mut self, to: Outer, datagram: &[u8]) {
        self.outside.send(to, datagram);
    }

    fn refuse(&mut self, error: &[u8]) {
        self.outside.refuse(error);
    }

    fn deadline_changed(&mut self) {
        self.outside.deadline_changed();
    }
}

impl PacketSink for Ends<'_> {
    fn put(&mut self, tunnel: TunnelId, plain: &[u8], range: Range<usize>) {
        let mut devices = self.devices.iter_mut();
        match devices.find(|device| device.tunnel == tunnel) {
            Some(device) => device.coalescer.push(plain, range),
            // The tunnel is being opened or closed: no other device may have its packets.
            None => count(&self.outside.shared.tun_write, 1),
        }
    }

    fn flush(&mut self, plain: &mut [u8]) {
        let shared = self.outside.shared;
        for Device { tun, coalescer, .. } in self.devices.iter_mut() {
            coalescer.drain(plain, |header, slices| deliver(tun, header, slices, shared));
        }
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

/// Carries what there is to read from a device, for a turn; whether there may be more.
fn drain(device: &Device, packet: &mut [u8], outside: &mut Outside<'_>) -> io::Result<bool> {
    let Device { tunnel, tun, .. } = device;
    let shared = outside.shared;
    let mut turn = shared.carrier.turn(*tunnel, outside);
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

/// Tells what changed in a tunnel.
fn tell(tunnel: &Tunnel) {
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

fn send_control(door: &mut FrontDoor, udp: &Udp, shared: &Shared) {
    while let Some(transmit) = door.poll_transmit() {
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
