//! How a datagram travels outside: between which addresses, and with which traffic class.
//!
//! A *route* is a path and the address of this host that it was heard at. Answers leave from that address:
//! whoever asked knows no other, and a NAT, a stateful firewall or a connected socket on the way drops
//! what comes from one. All that protects (allowances, cookies, places of peers) goes by the path alone:
//! the address here is this host's own, and says nothing about a sender.
//!
//! Of the traffic class, the bits for congestion (ECN) pass between the outer header and the inner one as
//! RFC 6040 says; the others are the outer header's alone, so that nobody outside learns what is inside.

use crate::path::Path;
use std::net::{IpAddr, SocketAddr};

/// A path, and the end of it that is this host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The other end.
    pub path: Path,
    /// This host's address; `None`: as the system chooses.
    pub here: Option<IpAddr>,
}

impl From<Path> for Route {
    fn from(path: Path) -> Self {
        Self { path, here: None }
    }
}

impl From<SocketAddr> for Route {
    fn from(address: SocketAddr) -> Self {
        Path::from(address).into()
    }
}

/// The outer IP header of a datagram, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// Where it came from or goes, and at which address here.
    pub route: Route,
    /// Its traffic class.
    pub class: TrafficClass,
}

impl From<Path> for Outer {
    fn from(path: Path) -> Self {
        Route::from(path).into()
    }
}

impl From<Route> for Outer {
    fn from(route: Route) -> Self {
        Self {
            route,
            class: TrafficClass::default(),
        }
    }
}

/// Six bits of DSCP (RFC 2474), two of ECN (RFC 3168): the TOS of IPv4, the traffic class of IPv6.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficClass(u8);

impl TrafficClass {
    /// Of messages that shake hands: AF41, as the kernel's WireGuard marks them.
    pub const HANDSHAKE: Self = Self(0x88);

    /// From the bits of the header.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits of the header.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Of the datagram that an inner packet is sealed into: its ECN (RFC 6040, section 4.1), and no
    /// DSCP.
    #[inline]
    pub(crate) fn around(packet: &[u8]) -> Self {
        Self(class_of(packet).unwrap_or(0) & ECN)
    }

    /// Marks an opened packet as the network has marked the datagram that it came in (RFC 6040, section
    /// 4.2): congestion that was met on the way is told to those who can slow down.
    ///
    /// Only in one point the RFC is not followed, as the kernel's WireGuard does not follow it either: a
    /// packet that is marked although its ends do not know ECN passes, where the RFC would have it dropped.
    /// Networks that write ECN bits which are not theirs exist, and one of them would cut a node off.
    #[inline]
    pub(crate) fn mark(self, packet: &mut [u8]) {
        let outer = self.0 & ECN;
        if outer & ECT_1 == 0 {
            // Neither CE nor ECT(1): the inner header stays as it is.
            return;
        }
        let Some(class) = class_of(packet) else {
            return;
        };
        let marked = match (class & ECN, outer) {
            (NOT_ECT | CE, _) | (ECT_1, ECT_1) => return,
            (_, outer) => class & !ECN | outer,
        };
        set_class(packet, class, marked);
    }
}

/// The traffic class of an IP packet.
#[inline]
fn class_of(packet: &[u8]) -> Option<u8> {
    let (first, second) = (*packet.first()?, *packet.get(1)?);
    match first >> 4 {
        4 => Some(second),
        6 => Some(first << 4 | second >> 4),
        _ => None,
    }
}

fn set_class(packet: &mut [u8], before: u8, after: u8) {
    match packet {
        [first, second, ..] if *first >> 4 == 6 => {
            *first = *first & 0xF0 | after >> 4;
            *second = *second & 0x0F | after << 4;
        }
        [_, tos, _, _, _, _, _, _, _, _, high, low, ..] => {
            *tos = after;
            // Incrementally (RFC 1624, equation 3): a checksum that was wrong stays wrong.
            let sum = u32::from(!u16::from_be_bytes([*high, *low]));
            let sum = sum + u32::from(!u16::from(before)) + u32::from(after);
            let sum = (sum & 0xFFFF) + (sum >> 16);
            let sum = (sum & 0xFFFF) + (sum >> 16);
            [*high, *low] = (!(sum as u16)).to_be_bytes();
        }
        _ => {}
    }
}

const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

#[cfg(test)]
mod tests {
    use super::*;

    const ECT_0: u8 = 0b10;
    const DSCP: u8 = 0b1011_1000;

    fn v4(class: u8) -> Vec<u8> {
        let mut packet = vec![0x45, class, 0, 20, 7, 7, 0x40, 0, 64, 17, 0, 0];
        packet.extend([10, 76, 0, 1, 10, 76, 0, 2]);
        let sum = !sum_of(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn v6(class: u8) -> Vec<u8> {
        let mut packet = vec![0x60 | class >> 4, class << 4 | 0xA, 0xBC, 0xDE];
        packet.resize(40, 1);
        packet
    }

    fn sum_of(header: &[u8]) -> u16 {
        let words = header
            .chunks(2)
            .map(|it| u32::from(it[0]) << 8 | u32::from(it[1]));
        let sum: u32 = words.sum();
        ((sum & 0xFFFF) + (sum >> 16)) as u16
    }

    /// RFC 6040, figure 4, but for the one combination that would be dropped.
    #[test]
    fn a_mark_of_the_outer_header_reaches_the_inner_one() {
        for (inner, row) in [
            (NOT_ECT, [NOT_ECT, NOT_ECT, NOT_ECT, NOT_ECT]),
            (ECT_0, [ECT_0, ECT_0, ECT_1, CE]),
            (ECT_1, [ECT_1, ECT_1, ECT_1, CE]),
            (CE, [CE, CE, CE, CE]),
        ] {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                for dscp in [0, DSCP] {
                    let outer = TrafficClass::from_bits(0x88 | outer);
                    let (mut of_v4, mut of_v6) = (v4(dscp | inner), v6(dscp | inner));
                    outer.mark(&mut of_v4);
                    outer.mark(&mut of_v6);
                    assert_eq!(of_v4, v4(dscp | expected), "{inner} {outer:?}");
                    assert_eq!(of_v6, v6(dscp | expected), "{inner} {outer:?}");
                    assert_eq!(sum_of(&of_v4), 0xFFFF);
                }
            }
        }
    }

    /// RFC 6040, section 4.1, normal mode.
    #[test]
    fn the_outer_header_has_the_ecn_of_the_inner_one_and_none_of_its_dscp() {
        for ecn in [NOT_ECT, ECT_0, ECT_1, CE] {
            assert_eq!(TrafficClass::around(&v4(DSCP | ecn)).bits(), ecn);
            assert_eq!(TrafficClass::around(&v6(DSCP | ecn)).bits(), ecn);
        }
    }

    #[test]
    fn what_is_no_packet_is_neither_read_nor_written() {
        for len in 0..12 {
            for first in [0x00, 0x45, 0x60] {
                let mut bytes = vec![first; len];
                let _ = TrafficClass::around(&bytes);
                TrafficClass::from_bits(CE).mark(&mut bytes);
                assert_eq!(bytes.len(), len);
            }
        }
    }
}
