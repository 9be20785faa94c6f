//! The header in front of each packet of a TUN device with `IFF_VNET_HDR`: `struct virtio_net_hdr`
//! (virtio 1.2, section 5.1.6), the 10-byte form, in the machine's byte order.

/// Bytes of the header.
pub const VNET_HEADER_LEN: usize = 10;

/// A header for one packet, from the kernel or for it. The default: a packet that is complete as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VnetHeader {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    /// Bytes of headers; a hint only.
    pub(crate) hdr_len: u16,
    /// Payload bytes of each segment but the last.
    pub(crate) gso_size: u16,
    /// Offset of the transport header.
    pub(crate) csum_start: u16,
    /// Offset of the checksum behind `csum_start`.
    pub(crate) csum_offset: u16,
}

/// The checksum field holds the pseudo-header's sum; the rest is still to be added.
pub(crate) const NEEDS_CSUM: u8 = 1;
pub(crate) const GSO_NONE: u8 = 0;
pub(crate) const GSO_TCPV4: u8 = 1;
pub(crate) const GSO_TCPV6: u8 = 4;
pub(crate) const GSO_UDP_L4: u8 = 5;
/// Set beside a TCP type: the first segment carries CWR.
pub(crate) const GSO_ECN: u8 = 0x80;

impl VnetHeader {
    /// Reads the header in front of a packet; the rest is the packet.
    pub fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, packet) = bytes.split_first_chunk::<VNET_HEADER_LEN>()?;
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *header;
        let header = Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        };
        Some((header, packet))
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; VNET_HEADER_LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// Whether it is a TCP super-packet's.
    pub fn is_tcp(&self) -> bool {
        matches!(self.gso_type & !GSO_ECN, GSO_TCPV4 | GSO_TCPV6)
    }

    /// Whether a packet with this header stands for more than one.
    pub fn is_super_packet(&self) -> bool {
        self.gso_type & !GSO_ECN != GSO_NONE
    }
}
