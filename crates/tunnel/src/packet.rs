//! Reads just enough of inner IP packets and of outer WireGuard messages to route them.

use crate::limits::PADDING;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kinds of WireGuard message (whitepaper, section 5.4), with the field that routes them: the 24 bits
/// of an index that its owner chose; the rest is boringtun's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// Type 1, 148 bytes; the initiator's index.
    Initiation { sender: u32 },
    /// Type 2, 92 bytes; our index.
    Response { receiver: u32 },
    /// Type 3, 64 bytes; our index.
    CookieReply { receiver: u32 },
    /// Type 4, at least 32 bytes; our index.
    Data { receiver: u32 },
}

impl Message {
    /// Whether it shakes hands, or answers for it.
    pub(crate) fn is_handshake(self) -> bool {
        match self {
            Self::Initiation { .. } | Self::Response { .. } | Self::CookieReply { .. } => true,
            Self::Data { .. } => false,
        }
    }
}

/// The message in a datagram, by type and length alone.
#[inline]
pub(crate) fn parse_message(datagram: &[u8]) -> Option<Message> {
    let u32_at = |at: usize| {
        datagram
            .get(at..)?
            .first_chunk()
            .map(|b| u32::from_le_bytes(*b))
    };
    let index_at = |at| u32_at(at).map(|index| index >> 8);
    match (u32_at(0)?, datagram.len()) {
        (1, 148) => index_at(4).map(|sender| Message::Initiation { sender }),
        (2, 92) => index_at(8).map(|receiver| Message::Response { receiver }),
        (3, 64) => index_at(4).map(|receiver| Message::CookieReply { receiver }),
        (4, 32..) => index_at(4).map(|receiver| Message::Data { receiver }),
        _ => None,
    }
}

/// The destination of an inner packet; `None` if it is none.
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 => {
            Some(Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?).into())
        }
        6 if packet.len() >= 40 => {
            Some(Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?).into())
        }
        _ => None,
    }
}

/// The length to seal: a multiple of 16, but not above the MTU (whitepaper, section 5.4.6).
pub(crate) fn padded(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(PADDING).min(mtu.max(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padding_never_exceeds_the_mtu_nor_cuts_a_packet() {
        assert_eq!(padded(0, 1420), 0);
        assert_eq!(padded(1, 1420), 16);
        assert_eq!(padded(1419, 1420), 1420);
        assert_eq!(padded(1500, 1420), 1500);
    }

    proptest! {
        #[test]
        fn any_bytes_are_routed_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_message(&bytes);
            let _ = destination(&bytes);
        }
    }
}
