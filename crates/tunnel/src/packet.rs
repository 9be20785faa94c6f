//! Reads just enough of inner IP packets and of outer WireGuard messages to route them.

use crate::limits::PADDING;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kinds of WireGuard message (whitepaper, section 5.4), with the field that routes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// Type 1, 148 bytes.
    Initiation {
        /// The initiator's 32-bit index.
        sender: u32,
    },
    /// Type 2, 92 bytes.
    Response {
        /// Our 32-bit index.
        receiver: u32,
    },
    /// Type 3, 64 bytes.
    CookieReply {
        /// Our 32-bit index.
        receiver: u32,
    },
    /// Type 4, at least 32 bytes.
    Data {
        /// Our 32-bit index.
        receiver: u32,
    },
}

/// Whether a datagram is a handshake message or a cookie reply, by its type and length.
pub fn is_handshake(datagram: &[u8]) -> bool {
    matches!(
        parse_message(datagram),
        Some(Message::Initiation { .. } | Message::Response { .. } | Message::CookieReply { .. })
    )
}

pub(crate) fn parse_message(datagram: &[u8]) -> Option<Message> {
    let u32_at = |at: usize| {
        datagram
            .get(at..)?
            .first_chunk()
            .map(|b| u32::from_le_bytes(*b))
    };
    match (u32_at(0)?, datagram.len()) {
        (1, 148) => Some(Message::Initiation { sender: u32_at(4)? }),
        (2, 92) => Some(Message::Response {
            receiver: u32_at(8)?,
        }),
        (3, 64) => Some(Message::CookieReply {
            receiver: u32_at(4)?,
        }),
        (4, 32..) => Some(Message::Data {
            receiver: u32_at(4)?,
        }),
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
