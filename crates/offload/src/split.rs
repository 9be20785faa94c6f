//! A super-packet from the TUN device becomes packets, in place and in order.
//!
//! Each packet's headers are written in front of its payload, over the end of the payload before it,
//! which the caller has sealed by then.

use crate::checksum;
use crate::headers::*;
use crate::virtio::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader};

/// Bytes of headers that a packet to split may have: IPv6 with extension headers, TCP with options.
pub const MAX_HEADERS: usize = 256;
/// Bytes behind a segment that its user may overwrite, with padding.
pub const SPARE: usize = 15;

/// The kernel's header does not fit the packet behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the offload header does not fit its packet")]
pub struct Malformed;

/// The packets of one super-packet; or the one packet, its checksum completed.
pub struct Split<'b> {
    buffer: &'b mut [u8],
    kind: Kind,
    /// Bytes behind the segment that is out, as they were.
    saved: Option<(usize, [u8; SPARE])>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nothing is allocated for a packet"
)]
enum Kind {
    /// The rest is one packet.
    One {
        len: usize,
    },
    Many(Many),
    Done,
}

struct Many {
    template: [u8; MAX_HEADERS],
    headers: usize,
    transport: Transport,
    l4: usize,
    gso_size: usize,
    /// Sum of the pseudo-header without its length.
    pseudo: u16,
    /// Where the next payload begins, and where the last ends.
    at: usize,
    end: usize,
    index: u32,
}

/// One packet to send.
pub struct Segment<'s> {
    /// The buffer from the packet's first byte on; [`SPARE`] bytes behind the packet may be written.
    pub bytes: &'s mut [u8],
    /// Bytes of the packet.
    pub len: usize,
}

impl<'b> Split<'b> {
    /// The packets of the super-packet in the first `len` bytes of `buffer`.
    ///
    /// # Errors
    /// [`Malformed`] if `header` does not fit it.
    pub fn new(header: VnetHeader, buffer: &'b mut [u8], len: usize) -> Result<Self, Malformed> {
        let packet = buffer.get_mut(..len).ok_or(Malformed)?;
        let kind = match header.gso_type & !GSO_ECN {
            GSO_NONE => {
                if header.flags & NEEDS_CSUM != 0 {
                    complete_checksum(header, packet).ok_or(Malformed)?;
                }
                Kind::One { len }
            }
            GSO_TCPV4 | GSO_TCPV6 => many(header, packet, Transport::Tcp).ok_or(Malformed)?,
            GSO_UDP_L4 => many(header, packet, Transport::Udp).ok_or(Malformed)?,
            _ => return Err(Malformed),
        };
        Ok(Self {
            buffer,
            kind,
            saved: None,
        })
    }

    /// Packets that are still to come.
    pub fn remaining(&self) -> usize {
        match &self.kind {
            Kind::Done => 0,
            Kind::One { .. } => 1,
            Kind::Many(many) => (many.end - many.at).div_ceil(many.gso_size),
        }
    }

    /// The next packet.
    pub fn next_segment(&mut self) -> Option<Segment<'_>> {
        if let Some((at, saved)) = self.saved.take() {
            for (to, from) in self.buffer.iter_mut().skip(at).zip(saved) {
                *to = from;
            }
        }
        match &mut self.kind {
            Kind::Done => None,
            Kind::One { len } => {
                let len = *len;
                self.kind = Kind::Done;
                Some(Segment {
                    bytes: self.buffer,
                    len,
                })
            }
            Kind::Many(many) => {
                let start = many.at - many.headers;
                let end = many.end.min(many.at + many.gso_size);
                let is_last = end == many.end;
                many.write(self.buffer.get_mut(start..end)?, is_last);
                if is_last {
                    self.kind = Kind::Done;
                } else {
                    many.at = end;
                    many.index += 1;
                    let mut saved = [0; SPARE];
                    let behind = self.buffer.get(end..)?;
                    saved
                        .iter_mut()
                        .zip(behind)
                        .for_each(|(to, from)| *to = *from);
                    self.saved = Some((end, saved));
                }
                Some(Segment {
                    bytes: self.buffer.get_mut(start..)?,
                    len: end - start,
                })
            }
        }
    }
}

fn many(header: VnetHeader, packet: &[u8], transport: Transport) -> Option<Kind> {
    let l4 = usize::from(header.csum_start);
    let segment = packet.get(l4..)?;
    let is_v6 = match packet.first()? >> 4 {
        4 if l4 >= 20 => false,
        6 if l4 >= 40 => true,
        _ => return None,
    };
    let (header_len, checksum_at) = match transport {
        Transport::Tcp => (tcp_header_len(segment)?, TCP_CHECKSUM),
        Transport::Udp => (8, UDP_CHECKSUM),
    };
    let fits = match header.gso_type & !GSO_ECN {
        GSO_TCPV4 => !is_v6,
        GSO_TCPV6 => is_v6,
        _ => true,
    };
    let headers = l4 + header_len;
    let gso_size = usize::from(header.gso_size);
    if !fits || gso_size == 0 || headers >= packet.len() {
        return None;
    }
    let mut template = [0; MAX_HEADERS];
    template
        .get_mut(..headers)?
        .copy_from_slice(packet.get(..headers)?);
    // The kernel counts the whole of the transport's bytes into the sum that it leaves.
    let partial = be16(segment, checksum_at)?;
    let pseudo = checksum::add(partial, !checksum::fold(segment.len() as u64));
    Some(Kind::Many(Many {
        template,
        headers,
        transport,
        l4,
        gso_size,
        pseudo,
        at: headers,
        end: packet.len(),
        index: 0,
    }))
}

impl Many {
    /// Writes the headers of the packet that `packet` is, in front of its payload.
    fn write(&self, packet: &mut [u8], is_last: bool) {
        let (Some(place), Some(template)) = (
            packet.get_mut(..self.headers),
            self.template.get(..self.headers),
        ) else {
            return;
        };
        place.copy_from_slice(template);
        let len = packet.len();
        if self.template.first().is_some_and(|first| first >> 4 == 6) {
            put16(packet, 4, (len - 40) as u16);
        } else {
            put16(packet, 2, len as u16);
            let id = be16(packet, 4).unwrap_or(0);
            put16(packet, 4, id.wrapping_add(self.index as u16));
            let ip_header = usize::from(self.template.first().copied().unwrap_or(0) & 0x0F) * 4;
            put_ipv4_checksum(packet, ip_header);
        }
        let Some(segment) = packet.get_mut(self.l4..) else {
            return;
        };
        match self.transport {
            Transport::Tcp => {
                let sequence = be32(segment, 4).unwrap_or(0);
                let before = self.index.wrapping_mul(self.gso_size as u32);
                put32(segment, 4, sequence.wrapping_add(before));
                if let Some(flags) = segment.get_mut(TCP_FLAGS) {
                    if !is_last {
                        *flags &= !(PSH | FIN);
                    }
                    if self.index > 0 {
                        *flags &= !CWR;
                    }
                }
                put_checksum(segment, TCP_CHECKSUM, self.pseudo);
            }
            Transport::Udp => {
                put16(segment, 4, segment.len() as u16);
                put_checksum(segment, UDP_CHECKSUM, self.pseudo);
                replace_zero(segment, UDP_CHECKSUM);
            }
        }
    }
}

/// Writes a segment's checksum; `pseudo` is the pseudo-header's sum without the length.
fn put_checksum(segment: &mut [u8], at: usize, pseudo: u16) {
    let with_len = checksum::add(pseudo, checksum::fold(segment.len() as u64));
    put16(segment, at, 0);
    let sum = checksum::add(with_len, checksum::sum(segment));
    put16(segment, at, !sum);
}

/// Adds to the pseudo-header's sum, which the kernel left in place, what is still missing.
fn complete_checksum(header: VnetHeader, packet: &mut [u8]) -> Option<()> {
    let segment = packet.get_mut(usize::from(header.csum_start)..)?;
    let at = usize::from(header.csum_offset);
    be16(segment, at)?;
    let sum = checksum::sum(segment);
    put16(segment, at, !sum);
    if at == UDP_CHECKSUM {
        replace_zero(segment, at);
    }
    Some(())
}

/// A UDP checksum of zero means none (RFC 768): the other zero takes its place.
fn replace_zero(segment: &mut [u8], at: usize) {
    if be16(segment, at) == Some(0) {
        put16(segment, at, 0xFFFF);
    }
}
