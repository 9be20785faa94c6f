//! Where the headers of a packet are: just enough to merge and to split. Anything out of the
//! ordinary (IP options, extension headers, fragments, wrong lengths) has no place here.

use crate::checksum;

/// The transports that are merged and split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// A TCP or UDP packet without anything unusual in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) is_v6: bool,
    pub(crate) transport: Transport,
    /// Offset of the transport header.
    pub(crate) l4: usize,
    /// Offset of the payload.
    pub(crate) payload: usize,
}

pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

/// Offset of the flags in a TCP header (RFC 9293, section 3.1).
pub(crate) const TCP_FLAGS: usize = 13;
/// Offset of the checksum in a TCP header.
pub(crate) const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header (RFC 768).
pub(crate) const UDP_CHECKSUM: usize = 6;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
/// DF, the one bit of IPv4's fragmentation field that a whole packet may have.
pub(crate) const DF: u16 = 0x4000;

impl Headers {
    /// The headers of `packet`, if it is one that may be merged.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let (is_v6, protocol, l4) = match packet.first()? {
            0x45 if usize::from(be16(packet, 2)?) == packet.len()
                && be16(packet, 6)? & !DF == 0 =>
            {
                (false, *packet.get(9)?, IPV4_LEN)
            }
            first
                if first >> 4 == 6 && usize::from(be16(packet, 4)?) + IPV6_LEN == packet.len() =>
            {
                (true, *packet.get(6)?, IPV6_LEN)
            }
            _ => return None,
        };
        let segment = packet.get(l4..)?;
        let (transport, header_len) = match protocol {
            6 => (Transport::Tcp, tcp_header_len(segment)?),
            17 if usize::from(be16(segment, 4)?) == segment.len() => (Transport::Udp, UDP_LEN),
            _ => return None,
        };
        let payload = l4 + header_len;
        (payload <= packet.len()).then_some(Self {
            is_v6,
            transport,
            l4,
            payload,
        })
    }

    /// Where the addresses and the ports are: adjacent, and together the flow.
    pub(crate) fn flow<'p>(&self, packet: &'p [u8]) -> Option<&'p [u8]> {
        packet.get(if self.is_v6 { 8 } else { 12 }..self.l4 + 4)
    }

    /// Offset of the transport checksum in the transport header.
    pub(crate) fn checksum_offset(&self) -> usize {
        match self.transport {
            Transport::Tcp => TCP_CHECKSUM,
            Transport::Udp => UDP_CHECKSUM,
        }
    }

    /// The sum of the pseudo-header for `len` bytes of transport header and payload (RFC 9293,
    /// section 3.1; RFC 8200, section 8.1).
    pub(crate) fn pseudo_sum(&self, packet: &[u8], len: usize) -> Option<u16> {
        let addresses = packet.get(if self.is_v6 { 8 } else { 12 }..self.l4)?;
        let protocol = match self.transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        };
        let rest = checksum::fold(len as u64 + protocol);
        Some(checksum::add(checksum::sum(addresses), rest))
    }

    /// Whether the transport checksum and IPv4's own are there and right.
    pub(crate) fn checks_out(&self, packet: &[u8]) -> bool {
        self.check(packet).unwrap_or(false)
    }

    fn check(&self, packet: &[u8]) -> Option<bool> {
        let segment = packet.get(self.l4..)?;
        if self.transport == Transport::Udp && be16(segment, UDP_CHECKSUM)? == 0 {
            return Some(false);
        }
        let is_ip_right = self.is_v6 || checksum::sum(packet.get(..self.l4)?) == 0xFFFF;
        let sum = checksum::add(
            self.pseudo_sum(packet, segment.len())?,
            checksum::sum(segment),
        );
        Some(is_ip_right && sum == 0xFFFF)
    }
}

/// Source and destination of any IP packet.
pub(crate) fn addresses(packet: &[u8]) -> Option<&[u8]> {
    match packet.first()? >> 4 {
        4 => packet.get(12..20),
        6 => packet.get(8..40),
        _ => None,
    }
}

/// Length of a TCP header, options included.
pub(crate) fn tcp_header_len(segment: &[u8]) -> Option<usize> {
    let len = usize::from(segment.get(12)? >> 4) * 4;
    (len >= 20 && len <= segment.len()).then_some(len)
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u16::from_be_bytes(*b))
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_be_bytes(*b))
}

/// Writes `value` at `at`; nothing where there is no room.
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value.to_be_bytes();
    }
}

pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value.to_be_bytes();
    }
}

/// Writes IPv4's header checksum, of a header of `len` bytes.
pub(crate) fn put_ipv4_checksum(packet: &mut [u8], len: usize) {
    put16(packet, 10, 0);
    let sum = packet.get(..len).map_or(0, checksum::sum);
    put16(packet, 10, !sum);
}
