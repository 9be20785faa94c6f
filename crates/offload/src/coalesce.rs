//! Packets of a batch become super-packets, in place and without reordering a flow.
//!
//! A *group* is a run of packets that continue one flow and differ only in what splitting restores:
//! lengths, sequence number, identification, checksums, PSH and FIN at the end. (Not restored is an
//! identification that means nothing, that of a packet which must not be fragmented.) A packet that does
//! not continue its flow's last group closes it and begins the next, so that a flow's packets leave
//! in the order in which they came. Checksums are verified before packets are merged, because a
//! super-packet's is taken on trust by the kernel.

use crate::headers::{self, *};
use crate::virtio::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader};
use std::io::IoSlice;
use std::ops::Range;

/// Packets in one super-packet.
pub const MAX_SEGMENTS: usize = 64;

/// Whether the device took what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done with.
    Done,
    /// It does not take super-packets like this: the packets are handed out again, one by one.
    Refused,
}

/// Collects the packets of one batch, all of them in one buffer.
pub struct Coalescer {
    tcp: bool,
    udp: bool,
    packets: Vec<Packet>,
    groups: Vec<Group>,
}

struct Packet {
    range: Range<usize>,
    /// The next packet of its group.
    next: Option<usize>,
}

struct Group {
    first: usize,
    last: usize,
    count: usize,
    /// Bytes of the super-packet.
    len: usize,
    /// `None`: not a packet that is merged.
    headers: Option<Headers>,
    gso_size: usize,
    is_open: bool,
    is_verified: bool,
}

impl Coalescer {
    /// Merges TCP, UDP, both or neither.
    pub fn new(tcp: bool, udp: bool) -> Self {
        Self {
            tcp,
            udp,
            packets: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Changes what is merged from the next batch on.
    pub fn set(&mut self, tcp: bool, udp: bool) {
        (self.tcp, self.udp) = (tcp, udp);
    }

    /// Takes the packet at `range` of `buffer`.
    pub fn push(&mut self, buffer: &[u8], range: Range<usize>) {
        let Some(packet) = buffer.get(range.clone()) else {
            return;
        };
        let headers = Headers::parse(packet);
        if headers.is_none() {
            self.close_between(buffer, packet);
        }
        let headers = headers.filter(|headers| match headers.transport {
            Transport::Tcp => self.tcp,
            Transport::Udp => self.udp,
        });
        let index = self.packets.len();
        self.packets.push(Packet { range, next: None });
        if let Some(headers) = &headers
            && let Some(at) = self.group_of(buffer, headers, packet)
        {
            if self.append(buffer, at, headers, packet, index) {
                return;
            }
            if let Some(group) = self.groups.get_mut(at) {
                group.is_open = false;
            }
        }
        self.groups.push(Group {
            first: index,
            last: index,
            count: 1,
            len: packet.len(),
            gso_size: headers.map_or(0, |headers| packet.len() - headers.payload),
            is_open: headers.is_some_and(|headers| begins(&headers, packet)),
            is_verified: false,
            headers,
        });
    }

    /// Hands out everything that was taken, in order: the offload header, and the slices that make
    /// the packet, the first of them being the header's bytes. Empties the batch.
    pub fn drain(
        &mut self,
        buffer: &mut [u8],
        mut write: impl FnMut(&VnetHeader, &[IoSlice<'_>]) -> Verdict,
    ) {
        for group in &self.groups {
            if group.count == 1 {
                self.write_single(buffer, group.first, &mut write);
            } else if self.write_group(buffer, group, &mut write) != Some(Verdict::Done) {
                let mut next = Some(group.first);
                while let Some(index) = next {
                    self.write_single(buffer, index, &mut write);
                    next = self.packets.get(index).and_then(|packet| packet.next);
                }
            }
        }
        self.groups.clear();
        self.packets.clear();
    }

    /// Closes the groups between the packet's addresses: a fragment may belong to any of their flows,
    /// and what comes later must not overtake it.
    fn close_between(&mut self, buffer: &[u8], packet: &[u8]) {
        let Some(between) = headers::addresses(packet) else {
            return;
        };
        for group in self.groups.iter_mut().rev().take(RECENT) {
            let first = self.packets.get(group.first);
            let first = first.and_then(|first| buffer.get(first.range.clone()));
            if group.is_open && first.and_then(headers::addresses) == Some(between) {
                group.is_open = false;
            }
        }
    }

    /// The newest group of the packet's flow.
    fn group_of(&self, buffer: &[u8], headers: &Headers, packet: &[u8]) -> Option<usize> {
        let flow = headers.flow(packet)?;
        let recent = self.groups.iter().enumerate().rev().take(RECENT);
        recent
            .filter_map(|(at, group)| Some((at, group.headers?, self.bytes(buffer, group.first)?)))
            .find(|(_, other, first)| {
                other.transport == headers.transport
                    && other.is_v6 == headers.is_v6
                    && other.flow(first) == Some(flow)
            })
            .map(|(at, ..)| at)
    }

    /// Adds the packet to a group if it continues it.
    fn append(
        &mut self,
        buffer: &[u8],
        at: usize,
        headers: &Headers,
        packet: &[u8],
        index: usize,
    ) -> bool {
        let Some(group) = self.groups.get(at).filter(|group| group.is_open) else {
            return false;
        };
        let Some(first) = self.bytes(buffer, group.first) else {
            return false;
        };
        let payload = packet.len() - headers.payload;
        let fits = group.headers.is_some_and(|of_first| of_first == *headers)
            && payload > 0
            && payload <= group.gso_size
            && group.count < MAX_SEGMENTS
            && group.len + payload <= MAX_PACKET;
        if !fits || !continues(headers, first, packet, group).unwrap_or(false) {
            return false;
        }
        let is_verified = group.is_verified || headers.checks_out(first);
        if !is_verified || !headers.checks_out(packet) {
            return false;
        }
        let last = group.last;
        if let Some(group) = self.groups.get_mut(at) {
            group.is_verified = true;
            group.is_open = payload == group.gso_size && !ends(headers, packet);
            group.count += 1;
            group.len += payload;
            group.last = index;
        }
        if let Some(before) = self.packets.get_mut(last) {
            before.next = Some(index);
        }
        true
    }

    fn bytes<'b>(&self, buffer: &'b [u8], index: usize) -> Option<&'b [u8]> {
        buffer.get(self.packets.get(index)?.range.clone())
    }

    fn write_single(
        &self,
        buffer: &[u8],
        index: usize,
        write: &mut impl FnMut(&VnetHeader, &[IoSlice<'_>]) -> Verdict,
    ) {
        let header = VnetHeader::default();
        if let Some(packet) = self.bytes(buffer, index) {
            // A single packet that is refused is lost; the device has counted it.
            let _ = write(
                &header,
                &[IoSlice::new(&header.encode()), IoSlice::new(packet)],
            );
        }
    }

    /// Writes a group as one packet; its first packet's headers are restored if that is refused.
    fn write_group(
        &self,
        buffer: &mut [u8],
        group: &Group,
        write: &mut impl FnMut(&VnetHeader, &[IoSlice<'_>]) -> Verdict,
    ) -> Option<Verdict> {
        let headers = group.headers?;
        let last = self.bytes(buffer, group.last)?;
        let last_flags = last.get(headers.l4 + TCP_FLAGS).copied().unwrap_or(0);
        let range = self.packets.get(group.first)?.range.clone();
        let first = buffer.get_mut(range.clone())?;
        let mut before = [0; MAX_FIRST_HEADERS];
        let before = before.get_mut(..headers.payload)?;
        before.copy_from_slice(first.get(..headers.payload)?);

        let header = merge_headers(&headers, first, group, last_flags)?;
        let encoded = header.encode();
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
        let mut places = slices.iter_mut();
        *places.next()? = IoSlice::new(&encoded);
        *places.next()? = IoSlice::new(buffer.get(range.clone())?);
        let mut next = self.packets.get(group.first)?.next;
        while let Some(index) = next {
            *places.next()? = IoSlice::new(self.bytes(buffer, index)?.get(headers.payload..)?);
            next = self.packets.get(index)?.next;
        }
        let verdict = write(&header, slices.get(..=group.count)?);
        if verdict == Verdict::Refused {
            buffer
                .get_mut(range)?
                .get_mut(..headers.payload)?
                .copy_from_slice(before);
        }
        Some(verdict)
    }
}

/// Whether a group may grow behind this packet.
fn begins(headers: &Headers, packet: &[u8]) -> bool {
    let has_payload = packet.len() > headers.payload;
    has_payload
        && match headers.transport {
            Transport::Udp => true,
            Transport::Tcp => packet
                .get(headers.l4 + TCP_FLAGS)
                .is_some_and(|flags| flags & !(CWR | ECE) == ACK),
        }
}

/// Whether nothing may follow this packet in its group.
fn ends(headers: &Headers, packet: &[u8]) -> bool {
    headers.transport == Transport::Tcp
        && packet
            .get(headers.l4 + TCP_FLAGS)
            .is_none_or(|flags| flags & (PSH | FIN) != 0)
}

/// Whether `packet` differs from what splitting would make of the group's headers in its place only
/// by what a last packet may.
fn continues(headers: &Headers, first: &[u8], packet: &[u8], group: &Group) -> Option<bool> {
    let same = |range: Range<usize>| Some(first.get(range.clone())? == packet.get(range)?);
    let same_ip = if headers.is_v6 {
        same(0..4)? && same(6..8)?
    } else {
        // A packet that must not be fragmented needs no identification (RFC 6864, section 4.1).
        let is_atomic = be16(first, 6)? & DF != 0;
        let is_next = be16(packet, 4)? == be16(first, 4)?.wrapping_add(group.count as u16);
        same(0..2)? && same(6..10)? && (is_atomic || is_next)
    };
    if !same_ip || headers.transport == Transport::Udp {
        return Some(same_ip);
    }
    let l4 = headers.l4;
    let sequence = be32(first, l4 + 4)?.wrapping_add((group.count * group.gso_size) as u32);
    let (flags_of_first, flags) = (first.get(l4 + TCP_FLAGS)?, packet.get(l4 + TCP_FLAGS)?);
    let same_flags = flags & !(PSH | FIN) == flags_of_first & !CWR;
    let is_next = be32(packet, l4 + 4)? == sequence;
    let same_rest = same(l4 + 8..l4 + TCP_FLAGS)?
        && same(l4 + TCP_FLAGS + 1..l4 + TCP_CHECKSUM)?
        && same(l4 + TCP_CHECKSUM + 2..headers.payload)?;
    Some(is_next && same_flags && same_rest)
}

/// Makes the first packet's headers those of the super-packet.
fn merge_headers(
    headers: &Headers,
    first: &mut [u8],
    group: &Group,
    last_flags: u8,
) -> Option<VnetHeader> {
    let l4 = headers.l4;
    if headers.is_v6 {
        put16(first, 4, u16::try_from(group.len - 40).ok()?);
    } else {
        put16(first, 2, u16::try_from(group.len).ok()?);
        put_ipv4_checksum(first, l4);
    }
    let transport_len = group.len - l4;
    let mut gso_type = match (headers.transport, headers.is_v6) {
        (Transport::Udp, _) => GSO_UDP_L4,
        (Transport::Tcp, false) => GSO_TCPV4,
        (Transport::Tcp, true) => GSO_TCPV6,
    };
    match headers.transport {
        Transport::Udp => put16(first, l4 + 4, u16::try_from(transport_len).ok()?),
        Transport::Tcp => {
            let flags = first.get_mut(l4 + TCP_FLAGS)?;
            *flags |= last_flags & (PSH | FIN);
            if *flags & CWR != 0 {
                gso_type |= GSO_ECN;
            }
        }
    }
    let partial = headers.pseudo_sum(first, transport_len)?;
    put16(first, l4 + headers.checksum_offset(), partial);
    Some(VnetHeader {
        flags: NEEDS_CSUM,
        gso_type,
        hdr_len: headers.payload as u16,
        gso_size: group.gso_size as u16,
        csum_start: l4 as u16,
        csum_offset: headers.checksum_offset() as u16,
    })
}

/// Groups that are looked at for a packet's flow, newest first.
const RECENT: usize = 16;
/// The most that IP's length field can say.
const MAX_PACKET: usize = 65_535;
/// IPv6 and the longest TCP header.
const MAX_FIRST_HEADERS: usize = 100;
