//! Splitting and coalescing undo each other, for random flows of both transports and families; and
//! what cannot be merged without a trace comes out as it went in.
//!
//! The packets are made here, checksums included, by code that shares nothing with the crate's.

use offload::{Coalescer, SPARE, Split, Verdict, VnetHeader};
use proptest::prelude::*;
use std::io::IoSlice;

// ---- packets ------------------------------------------------------------------------------------

fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

#[derive(Debug, Clone)]
struct Flow {
    is_v6: bool,
    is_tcp: bool,
    host: u8,
    options: Vec<u8>,
    dont_fragment: bool,
    tos: u8,
}

#[derive(Debug, Clone, Copy)]
struct Tcp {
    sequence: u32,
    flags: u8,
}

impl Flow {
    fn transport(&self, tcp: Tcp, payload: &[u8]) -> Vec<u8> {
        let mut segment = vec![0x1F, self.host, 0x14, 0x51];
        if self.is_tcp {
            segment.extend(tcp.sequence.to_be_bytes());
            segment.extend([0, 0, 0, 9]);
            segment.push((20 + self.options.len()) as u8 / 4 * 16);
            segment.push(tcp.flags);
            segment.extend([0x20, 0, 0, 0, 0, 0]);
            segment.extend(&self.options);
        } else {
            segment.extend((8 + payload.len() as u16).to_be_bytes());
            segment.extend([0, 0]);
        }
        segment.extend(payload);
        segment
    }

    fn packet(&self, id: u16, tcp: Tcp, payload: &[u8]) -> Vec<u8> {
        let mut segment = self.transport(tcp, payload);
        let protocol = if self.is_tcp { 6 } else { 17 };
        let len = segment.len();
        let (mut header, addresses) = if self.is_v6 {
            let mut header = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
            header.extend((len as u16).to_be_bytes());
            header.extend([protocol, 64]);
            header.extend([0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.host]);
            header.extend([0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200]);
            (header, 8..40)
        } else {
            let mut header = vec![0x45, self.tos];
            header.extend((20 + len as u16).to_be_bytes());
            header.extend(id.to_be_bytes());
            header.extend([
                if self.dont_fragment { 0x40 } else { 0 },
                0,
                64,
                protocol,
                0,
                0,
            ]);
            header.extend([10, 76, 0, self.host, 10, 76, 0, 200]);
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (header, 12..20)
        };
        let pseudo = [0, protocol, (len >> 8) as u8, len as u8];
        let mut sum = checksum(&[&header[addresses], &pseudo, &segment]);
        let at = if self.is_tcp { 16 } else { 6 };
        if !self.is_tcp && sum == 0 {
            sum = 0xFFFF;
        }
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        header.extend(segment);
        header
    }
}

fn flow(is_tcp: impl Strategy<Value = bool>) -> impl Strategy<Value = Flow> {
    let options = prop_oneof![Just(0usize), Just(12), Just(40), Just(4)]
        .prop_flat_map(|len| proptest::collection::vec(any::<u8>(), len));
    (
        any::<bool>(),
        is_tcp,
        1u8..4,
        options,
        any::<bool>(),
        prop_oneof![Just(0u8), Just(2), Just(3)],
    )
        .prop_map(|(is_v6, is_tcp, host, options, dont_fragment, tos)| Flow {
            is_v6,
            is_tcp,
            host,
            options: if is_tcp { options } else { Vec::new() },
            dont_fragment,
            tos,
        })
}

const ACK: u8 = 0x10;

#[allow(
    clippy::too_many_arguments,
    reason = "each is one dimension of the property"
)]
/// A run of packets as a super-packet would be split into: equal payloads, the last at most as long.
fn run(
    flow: &Flow,
    sequence: u32,
    id: u16,
    size: usize,
    count: usize,
    last: usize,
    end: u8,
    cwr: bool,
) -> Vec<Vec<u8>> {
    (0..count)
        .map(|index| {
            let is_last = index + 1 == count;
            let mut flags = ACK | if is_last { end } else { 0 };
            if cwr && index == 0 {
                flags |= 0x80;
            }
            let payload: Vec<u8> = (0..if is_last { last } else { size })
                .map(|byte| (byte as u8).wrapping_mul(31).wrapping_add(index as u8))
                .collect();
            let tcp = Tcp {
                sequence: sequence.wrapping_add((index * size) as u32),
                flags,
            };
            flow.packet(id.wrapping_add(index as u16), tcp, &payload)
        })
        .collect()
}

// ---- the two ways -------------------------------------------------------------------------------

type Written = (VnetHeader, Vec<u8>);

fn coalesce(packets: &[Vec<u8>], verdict: Verdict) -> Vec<Written> {
    let mut coalescer = Coalescer::new(true, true);
    let mut buffer = Vec::new();
    for packet in packets {
        let start = buffer.len();
        buffer.extend(packet);
        // The buffer grows behind: what comes later is none of an earlier packet's business.
        coalescer.push(&buffer, start..buffer.len());
    }
    let mut written = Vec::new();
    coalescer.drain(&mut buffer, |header, slices: &[IoSlice<'_>]| {
        assert_eq!(*slices[0], header.encode());
        if header.is_super_packet() && verdict == Verdict::Refused {
            return Verdict::Refused;
        }
        let bytes: Vec<u8> = slices[1..]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        written.push((*header, bytes));
        Verdict::Done
    });
    written
}

fn split(header: VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + SPARE, 0xEE);
    let mut split =
        Split::new(header, &mut buffer, packet.len()).expect("it was made by the crate");
    let mut packets = Vec::new();
    while let Some(segment) = split.next_segment() {
        packets.push(segment.bytes[..segment.len].to_vec());
        // Whoever pads may write there.
        let behind = segment.bytes.len().min(segment.len + SPARE);
        segment.bytes[segment.len..behind].fill(0xDD);
    }
    packets
}

fn split_all(written: &[Written]) -> Vec<Vec<u8>> {
    written
        .iter()
        .flat_map(|(header, packet)| split(*header, packet))
        .collect()
}

/// The packets of one flow, by its addresses and ports.
fn of_host(packets: &[Vec<u8>], host: u8, is_v6: bool, is_tcp: bool) -> Vec<Vec<u8>> {
    let belongs = |packet: &&Vec<u8>| {
        let (version, protocol, l4) = if is_v6 { (6, 6, 40) } else { (4, 9, 20) };
        packet[0] >> 4 == version
            && packet[protocol] == if is_tcp { 6 } else { 17 }
            && packet[l4 + 1] == host
    };
    packets.iter().filter(belongs).cloned().collect()
}

fn without_ids(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut packets = packets.to_vec();
    for packet in packets
        .iter_mut()
        .filter(|packet| packet[0] == 0x45 && packet[6] & 0x40 != 0)
    {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packets
}

proptest! {
    #[test]
    fn a_run_becomes_one_super_packet_and_splits_into_itself(
        flow in flow(any::<bool>()),
        sequence in any::<u32>(),
        id in any::<u16>(),
        size in 1usize..1400,
        count in 2usize..40,
        shorter in 0usize..1400,
        end in prop_oneof![Just(0u8), Just(0x08), Just(0x01), Just(0x09)],
        cwr in any::<bool>(),
    ) {
        let last = size - shorter % size;
        let packets = run(&flow, sequence, id, size, count, last, end, cwr);
        let written = coalesce(&packets, Verdict::Done);
        prop_assert_eq!(written.len(), 1);
        prop_assert!(written[0].0.is_super_packet());
        let again = split(written[0].0, &written[0].1);
        prop_assert_eq!(&again, &packets);
        // And back: the super-packet is what its packets make.
        prop_assert_eq!(coalesce(&again, Verdict::Done), written);
    }

    #[test]
    fn interleaved_and_disturbed_flows_come_out_as_they_went_in(
        flows in proptest::collection::vec(flow(any::<bool>()), 1..4),
        steps in proptest::collection::vec((0usize..4, 1usize..1300, 0u8..12, any::<u8>()), 1..120),
    ) {
        let mut sequences = [7u32, u32::MAX - 2000, 1 << 31, 0];
        let mut ids = [3u16, u16::MAX - 3, 9, 0];
        let mut sizes = [1000usize; 4];
        let mut packets = Vec::new();
        for (which, size, kind, byte) in steps {
            let at = which % flows.len();
            let flow = &flows[at];
            if kind == 0 {
                sizes[at] = size;
            }
            let len = match kind { 1 => size.min(sizes[at]), 2 => 0, _ => sizes[at] };
            let flags = ACK | match kind { 3 => 0x08, 4 => 0x01, 5 => 0x80, 6 => 0x02, 7 => 0x40, _ => 0 };
            let payload = vec![byte; len];
            let mut packet = flow.packet(ids[at], Tcp { sequence: sequences[at], flags }, &payload);
            match kind {
                // A wrong checksum, in the payload or in the header; a repetition; a hole.
                8 => { let last = packet.len() - 1; packet[last] ^= 0x55; }
                9 if packet[0] == 0x45 => packet[10] ^= 1,
                10 => packets.push(packet.clone()),
                11 => sequences[at] = sequences[at].wrapping_add(1),
                _ => {}
            }
            packets.push(packet);
            sequences[at] = sequences[at].wrapping_add(len as u32);
            ids[at] = ids[at].wrapping_add(1);
        }
        for verdict in [Verdict::Done, Verdict::Refused] {
            let again = split_all(&coalesce(&packets, verdict));
            prop_assert_eq!(again.len(), packets.len());
            for (host, is_v6, is_tcp) in (1..4).flat_map(|h| [(h, false, false), (h, false, true), (h, true, false), (h, true, true)]) {
                let (before, after) = (of_host(&packets, host, is_v6, is_tcp), of_host(&again, host, is_v6, is_tcp));
                prop_assert_eq!(without_ids(&before), without_ids(&after));
            }
        }
    }

    #[test]
    fn a_partial_checksum_is_completed(flow in flow(any::<bool>()), payload in proptest::collection::vec(any::<u8>(), 0..1400)) {
        let whole = flow.packet(1, Tcp { sequence: 5, flags: ACK }, &payload);
        let mut partial = whole.clone();
        let l4 = if flow.is_v6 { 40 } else { 20 };
        let offset = if flow.is_tcp { 16 } else { 6 };
        let len = whole.len() - l4;
        let addresses = if flow.is_v6 { 8..40 } else { 12..20 };
        let pseudo = [0, if flow.is_tcp { 6 } else { 17 }, (len >> 8) as u8, len as u8];
        let sum = !checksum(&[&whole[addresses], &pseudo]);
        partial[l4 + offset..l4 + offset + 2].copy_from_slice(&sum.to_be_bytes());
        let mut header = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header[6..8].copy_from_slice(&(l4 as u16).to_ne_bytes());
        header[8..10].copy_from_slice(&(offset as u16).to_ne_bytes());
        let (header, _) = VnetHeader::parse(&header).unwrap();
        prop_assert_eq!(split(header, &partial), vec![whole]);
    }

    #[test]
    fn any_bytes_are_split_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Some((header, packet)) = VnetHeader::parse(&bytes) {
            let mut buffer = packet.to_vec();
            let len = buffer.len();
            if let Ok(mut split) = Split::new(header, &mut buffer, len) {
                let mut count = 0;
                while let Some(segment) = split.next_segment() {
                    assert!(segment.len <= segment.bytes.len());
                    count += 1;
                    assert!(count <= len + 1, "as many packets as bytes at most");
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_coalesced_or_passed_on(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20)) {
        let written = coalesce(&packets, Verdict::Done);
        prop_assert_eq!(split_all(&written), packets);
    }
}

#[test]
fn a_packet_with_a_wrong_checksum_is_not_covered_up() {
    let flow = Flow {
        is_v6: false,
        is_tcp: true,
        host: 1,
        options: vec![],
        dont_fragment: true,
        tos: 0,
    };
    for wrong in 0..3 {
        let mut packets = run(&flow, 1, 1, 100, 3, 100, 0, false);
        packets[wrong][60] ^= 1;
        let written = coalesce(&packets, Verdict::Done);
        assert!(
            written
                .iter()
                .any(|(header, bytes)| !header.is_super_packet() && *bytes == packets[wrong])
        );
    }
}

#[test]
fn a_fragment_is_not_overtaken() {
    for is_v6 in [false, true] {
        let flow = Flow {
            is_v6,
            is_tcp: false,
            host: 1,
            options: vec![],
            dont_fragment: true,
            tos: 0,
        };
        let mut packets = run(&flow, 1, 1, 100, 4, 100, 0, false);
        // "More fragments"; in IPv6 the header that says so comes first.
        if is_v6 {
            packets[1][6] = 44;
        } else {
            packets[1][6] = 0x20;
        }
        let written = coalesce(&packets, Verdict::Done);
        assert_eq!(written.len(), 3, "the last two are one");
        assert_eq!(split_all(&written), packets);
    }
}

#[test]
fn a_super_packet_stays_within_what_ip_can_say() {
    let flow = Flow {
        is_v6: true,
        is_tcp: true,
        host: 1,
        options: vec![],
        dont_fragment: true,
        tos: 0,
    };
    let packets = run(&flow, 1, 1, 1400, 60, 1400, 0, false);
    let written = coalesce(&packets, Verdict::Done);
    assert_eq!(written.len(), 2);
    assert!(written.iter().all(|(_, bytes)| bytes.len() <= 65_535));
    assert_eq!(split_all(&written), packets);
}
