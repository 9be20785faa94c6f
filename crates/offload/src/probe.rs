//! A super-packet to try a device with: whoever takes it throws it away.

use crate::coalesce::{Coalescer, Verdict};
use crate::headers::put_ipv4_checksum;
use crate::headers::put16;
use crate::virtio::VnetHeader;
use crate::{checksum, headers::Headers};

/// A super-packet of two segments from one loopback address to another: on any interface but the
/// loopback's that is a martian, which the kernel drops (RFC 1122, section 3.2.1.3; RFC 4291,
/// section 2.5.3).
pub fn martian(is_tcp: bool, is_v6: bool) -> Option<(VnetHeader, Vec<u8>)> {
    let mut buffer = [segment(is_tcp, is_v6, 0), segment(is_tcp, is_v6, 1)].concat();
    let len = buffer.len() / 2;
    let mut coalescer = Coalescer::new(true, true);
    coalescer.push(&buffer, 0..len);
    coalescer.push(&buffer, len..2 * len);
    let mut made = None;
    coalescer.drain(&mut buffer, |header, slices| {
        let bytes = slices
            .iter()
            .skip(1)
            .flat_map(|slice| slice.iter().copied());
        made = header.is_super_packet().then(|| (*header, bytes.collect()));
        Verdict::Done
    });
    made
}

/// The `index`-th packet of a run with eight bytes each.
fn segment(is_tcp: bool, is_v6: bool, index: u16) -> Vec<u8> {
    let mut segment = vec![0, 9, 0, 9];
    if is_tcp {
        segment.extend([
            0,
            0,
            0,
            8 * index as u8,
            0,
            0,
            0,
            0,
            0x50,
            0x10,
            0,
            0,
            0,
            0,
            0,
            0,
        ]);
    } else {
        segment.extend([0, 16, 0, 0]);
    }
    segment.extend([0; 8]);
    let protocol = if is_tcp { 6 } else { 17 };
    let mut packet = if is_v6 {
        let loopback = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let header = [0x60, 0, 0, 0, 0, segment.len() as u8, protocol, 1];
        [&header[..], &loopback, &loopback].concat()
    } else {
        let len = 20 + segment.len() as u8;
        let header = [0x45, 0, 0, len, 0, index as u8, 0, 0, 1, protocol, 0, 0];
        [&header[..], &[127, 0, 0, 1], &[127, 0, 0, 1]].concat()
    };
    if !is_v6 {
        put_ipv4_checksum(&mut packet, 20);
    }
    packet.extend(segment);
    if let Some(headers) = Headers::parse(&packet) {
        let segment = packet.get(headers.l4..).unwrap_or_default();
        let pseudo = headers.pseudo_sum(&packet, segment.len()).unwrap_or(0);
        let sum = checksum::add(pseudo, checksum::sum(segment));
        put16(&mut packet, headers.l4 + headers.checksum_offset(), !sum);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_for_each_transport_and_family() {
        for (is_tcp, is_v6) in [(false, false), (false, true), (true, false), (true, true)] {
            assert!(martian(is_tcp, is_v6).is_some(), "{is_tcp} {is_v6}");
        }
    }
}
