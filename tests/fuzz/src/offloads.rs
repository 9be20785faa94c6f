//! Segmentation offload: what the kernel says of a super-packet, and what peers send to be merged.

use offload::{Coalescer, SPARE, Split, VNET_HEADER_LEN, Verdict, VnetHeader};
use std::collections::BTreeMap;

/// A header and a packet from the TUN device: refused, or split into packets that hold its bytes.
pub fn split(data: &[u8]) {
    let Some((header, packet)) = VnetHeader::parse(data) else {
        return;
    };
    assert_eq!(header.encode(), data[..VNET_HEADER_LEN]);
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + SPARE, 0xEE);
    let Ok(mut split) = Split::new(header, &mut buffer, packet.len()) else {
        return;
    };
    if !header.is_super_packet() {
        let one = split.next_segment().expect("one packet");
        let differing = one.bytes.iter().zip(packet).filter(|(a, b)| a != b);
        assert!(one.len == packet.len() && differing.count() <= 2);
        assert!(split.next_segment().is_none(), "and no other");
        return;
    }
    let gso_size = u16::from_ne_bytes([data[4], data[5]]).into();
    let l4 = usize::from(u16::from_ne_bytes([data[6], data[7]]));
    let headers = match header.is_tcp() {
        true => l4 + usize::from(packet[l4 + 12] >> 4) * 4,
        false => l4 + 8,
    };
    let mut payload = Vec::new();
    let count = split.remaining();
    for left in (0..count).rev() {
        let segment = split.next_segment().expect("it was counted");
        let bytes = &segment.bytes[..segment.len];
        let carried = &bytes[headers..];
        assert!(carried.len() == gso_size || left == 0 && (1..gso_size).contains(&carried.len()));
        payload.extend_from_slice(carried);
        let spare = segment.bytes.len().min(segment.len + SPARE);
        segment.bytes[segment.len..spare].fill(0xDD);
        assert_eq!(split.remaining(), left);
    }
    assert!(split.next_segment().is_none());
    assert_eq!(payload, packet[headers..]);
}

/// Packets from peers, most of them well-formed: whatever is merged splits into the very packets, each
/// flow's in their order; so does a super-packet that the device refuses.
pub fn coalesce(data: &[u8]) {
    let packets = packets(data);
    for refused in [0, 1, 2] {
        let again = merge_and_split(&packets, refused);
        assert_eq!(by_flow(&again), by_flow(&packets));
    }
}

/// The packets as they come out again, if the device refuses every `refused`-th super-packet; 0: none.
fn merge_and_split(packets: &[Vec<u8>], refused: usize) -> Vec<Vec<u8>> {
    let mut coalescer = Coalescer::new(true, true);
    let mut buffer = packets.concat();
    let mut at = 0;
    for packet in packets {
        coalescer.push(&buffer, at..at + packet.len());
        at += packet.len();
    }
    let (mut supers, mut again) = (0, Vec::new());
    coalescer.drain(&mut buffer, |header, slices| {
        supers += usize::from(header.is_super_packet());
        if header.is_super_packet() && refused > 0 && supers.is_multiple_of(refused) {
            return Verdict::Refused;
        }
        assert_eq!(*slices[0], header.encode());
        let slices = slices[1..].iter();
        let mut bytes: Vec<u8> = slices.flat_map(|slice| slice.iter().copied()).collect();
        let len = bytes.len();
        assert!(len <= 65_535);
        bytes.resize(len + SPARE, 0);
        let mut split = Split::new(*header, &mut bytes, len).expect("it was made by the crate");
        while let Some(segment) = split.next_segment() {
            again.push(segment.bytes[..segment.len].to_vec());
        }
        Verdict::Done
    });
    again
}

/// Packets by family, protocol, addresses and ports, without the identifications that mean nothing.
fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for packet in packets {
        let flow = match packet.first().map(|first| first >> 4) {
            Some(4) if packet.len() >= 24 => [&packet[9..10], &packet[12..24]].concat(),
            Some(6) if packet.len() >= 44 => [&packet[6..7], &packet[8..44]].concat(),
            _ => Vec::new(),
        };
        let mut packet = packet.clone();
        if packet.first() == Some(&0x45) && packet.len() >= 20 && packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        flows.entry(flow).or_default().push(packet);
    }
    flows
}

// ---- packets from instructions ------------------------------------------------------------------

/// Packets from instructions of four bytes: the flow, the length, the flags, and what is unusual. The
/// checksums are right unless that says otherwise: no input would guess them.
fn packets(data: &[u8]) -> Vec<Vec<u8>> {
    let mut sequences = [7, u32::MAX - 300, 1 << 31, 0];
    let mut ids = [3, u16::MAX - 3, 9, 0];
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for (number, instruction) in data.as_chunks::<4>().0.iter().take(MOST).enumerate() {
        let [flow, len, flags, twist] = *instruction;
        let at = usize::from(flow) % 4;
        if twist & 0x0F == 1 {
            sequences[at] = sequences[at].wrapping_add(len.into());
        }
        if twist & 0x0F == 2 {
            ids[at] = ids[at].wrapping_add(1);
        }
        let payload: Vec<u8> = (0..len).map(|byte| byte ^ number as u8).collect();
        let mut packet = packet(flow, ids[at], sequences[at], flags, &payload);
        sequences[at] = sequences[at].wrapping_add(len.into());
        ids[at] = ids[at].wrapping_add(1);
        match twist & 0x0F {
            // Any byte of it is another.
            3 => {
                let place = usize::from(twist >> 4) * 7 % packet.len();
                packet[place] ^= len | 1;
            }
            // Shorter or longer than it says.
            4 => packet.truncate(usize::from(twist)),
            5 => packet.push(flags),
            // It comes twice.
            6 => packets.push(packet.clone()),
            _ => {}
        }
        packets.push(packet);
    }
    packets
}

/// A packet of one of four flows; further bits of `flow`: TCP options, DF, the traffic class.
fn packet(flow: u8, id: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (is_v6, is_tcp) = (flow & 1 != 0, flow & 2 != 0);
    let mut segment = vec![0x1F, flow & 3, 0x14, 0x51];
    if is_tcp {
        let options = if flow & 4 != 0 { 12 } else { 0 };
        segment.extend(sequence.to_be_bytes());
        segment.extend([
            0,
            0,
            0,
            9,
            ((20 + options) / 4) << 4,
            flags,
            0x20,
            0,
            0,
            0,
            0,
            0,
        ]);
        segment.extend((0..options).map(|_| 1));
    } else {
        segment.extend((8 + payload.len() as u16).to_be_bytes());
        segment.extend([0, 0]);
    }
    segment.extend(payload);
    let len = segment.len() as u16;
    let (protocol, checksum_at) = if is_tcp { (6, 16) } else { (17, 6) };
    let mut header = if is_v6 {
        let [high, low] = len.to_be_bytes();
        let mut header = vec![0x60, flow & 0x10, 0, 0, high, low, protocol, 64];
        header.extend([0xFD; 32]);
        header
    } else {
        let mut header = vec![0x45, flow >> 4 & 1];
        header.extend((20 + len).to_be_bytes());
        header.extend(id.to_be_bytes());
        header.extend([if flow & 8 != 0 { 0x40 } else { 0 }, 0, 64, protocol, 0, 0]);
        header.extend([10, 76, 0, 2, 10, 76, 0, 1]);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    };
    let addresses = if is_v6 {
        &header[8..40]
    } else {
        &header[12..20]
    };
    let pseudo = [addresses, &[0, protocol], &len.to_be_bytes(), &segment].concat();
    let sum = match checksum(&pseudo) {
        0 if !is_tcp => 0xFFFF,
        sum => sum,
    };
    segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    header.extend(segment);
    header
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

/// Packets in one input: more than a super-packet holds.
const MOST: usize = 200;
