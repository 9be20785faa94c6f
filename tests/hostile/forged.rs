//! ICMP errors that no router sent: a path is said to be narrow, so that a sender goes slowly.

use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tests::harness::namespace::Namespace;

/// Tells the host at `at`, which is `from` or has that address, that its packets to `to` are too large:
/// the way is said to carry [`NARROW`] bytes, or over IPv6 [`NARROW_V6`].
pub(crate) fn fragmentation_needed(forger: &Namespace, at: IpAddr, from: IpAddr, to: IpAddr) {
    about(forger, at, (from, to), ECHO);
}

/// The same about datagrams from the WireGuard port to the WireGuard port.
pub(crate) fn datagrams_too_large(forger: &Namespace, at: IpAddr, from: IpAddr, to: IpAddr) {
    about(forger, at, (from, to), UDP);
}

fn about(forger: &Namespace, at: IpAddr, ends: (IpAddr, IpAddr), protocol: u8) {
    let (domain, icmp, message) = match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            (Domain::IPV4, Protocol::ICMPV4, error_v4(from, to, protocol))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            (Domain::IPV6, Protocol::ICMPV6, error_v6(from, to, protocol))
        }
        _ => panic!("both are of one family"),
    };
    let sent = forger.enter(move || {
        let socket = Socket::new(domain, Type::RAW, Some(icmp))?;
        (0..3).try_for_each(|_| {
            socket
                .send_to(&message, &SocketAddr::new(at, 0).into())
                .map(drop)
        })
    });
    let sent: std::io::Result<()> = sent.join().expect("a thread ends");
    sent.expect("root may send what it likes");
}

/// Destination unreachable, fragmentation needed: RFC 792, RFC 1191.
fn error_v4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8) -> Vec<u8> {
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(NARROW.to_be_bytes());
    message.extend([0x45, 0, 0x05, 0xDC, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    message.extend(from.octets());
    message.extend(to.octets());
    let header = checksum(&message[8..]);
    message[18..20].copy_from_slice(&header.to_be_bytes());
    message.extend(first_bytes(protocol));
    let whole = checksum(&message);
    message[2..4].copy_from_slice(&whole.to_be_bytes());
    message
}

/// Packet too big: RFC 4443. The kernel fills in the checksum.
fn error_v6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8) -> Vec<u8> {
    let next = if protocol == ECHO { 58 } else { protocol };
    let mut message = vec![2, 0, 0, 0];
    message.extend(NARROW_V6.to_be_bytes());
    message.extend([0x60, 0, 0, 0, 0x05, 0xB4, next, 64]);
    message.extend(from.octets());
    message.extend(to.octets());
    message.extend(if protocol == ECHO {
        [128, 0, 0, 0, 0, 1, 0, 1]
    } else {
        first_bytes(protocol)
    });
    message
}

/// The bytes behind the IP header: an echo reply, whose errors no socket has to have asked for, or the
/// header of a WireGuard datagram.
fn first_bytes(protocol: u8) -> [u8; 8] {
    match protocol {
        ECHO => [0, 0, 0, 0, 0, 1, 0, 1],
        _ => {
            let [p0, p1] = PORT.to_be_bytes();
            [p0, p1, p0, p1, 0x05, 0xC8, 0, 0]
        }
    }
}

/// The internet checksum: RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    !((folded & 0xFFFF) + (folded >> 16)) as u16
}

/// The MTU that a forged error claims of an IPv4 path.
pub(crate) const NARROW: u16 = 1000;
/// The MTU that a forged error claims of an IPv6 path: the least that is believed.
pub(crate) const NARROW_V6: u32 = 1280;
const PORT: u16 = 51_820;
const ECHO: u8 = 1;
const UDP: u8 = 17;
