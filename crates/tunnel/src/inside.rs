//! The inside of the mesh and its outside: a packet for the one never travels to the other.
//!
//! Datagrams go between addresses outside; inner packets go between addresses inside. As long as no
//! address is both, nothing that this node's own socket sends can be read from its TUN device and be
//! sealed again. A peer that has its datagrams arrive from inside would otherwise be sent to through
//! the tunnel, each packet wrapped once more with every turn.

use crate::path::Path;
use std::net::IpAddr;

/// The inside of the mesh, as one node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    /// The node's own addresses: every packet to it goes to one of them.
    pub own: Vec<IpAddr>,
    /// Where all addresses of the mesh are; nothing outside is in there.
    pub ranges: Vec<Range>,
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// IPv4 in the form that IPv6 has for it: one comparison does for both.
    bits: u128,
    mask: u128,
}

impl Range {
    /// The addresses whose first `prefix` bits are those of `address`.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        let (free, longest) = match address {
            IpAddr::V4(_) => (32, 32),
            IpAddr::V6(_) => (128, 128),
        };
        let free = free - u32::from(prefix.min(longest));
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        Self {
            bits: bits(address) & mask,
            mask,
        }
    }

    pub(crate) fn contains(&self, address: u128) -> bool {
        address & self.mask == self.bits
    }

    /// The bits that all of them share, and which those are.
    pub(crate) fn parts(&self) -> (u128, u128) {
        (self.bits, self.mask)
    }

    /// Whether one holds the other.
    fn overlaps(&self, other: &Self) -> bool {
        let mask = self.mask & other.mask;
        self.bits & mask == other.bits & mask
    }

    /// Whether an address stands for the whole range: IPv4's first and last, where there are others.
    fn is_all(&self, address: u128) -> bool {
        let is_v4 = self.bits >> 32 == 0xFFFF;
        let free = !self.mask;
        is_v4 && free > 1 && (address == self.bits || address == self.bits | free)
    }
}

impl Inside {
    /// Whether an address is one of the mesh, in any of the forms by which a system reaches it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = bits(address);
        let is_in = |address| self.ranges.iter().any(|range| range.contains(address));
        is_in(address) || embedded(address).is_some_and(is_in)
    }

    /// Whether any address is in both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let with = |range: &Range| other.ranges.iter().any(|it| it.overlaps(range));
        self.ranges.iter().any(with)
    }

    /// Whether an address of a range is inside.
    pub(crate) fn meets(&self, range: &Range) -> bool {
        self.ranges.iter().any(|it| it.overlaps(range))
    }

    /// Whether an address is one that a member could have: one host's, inside.
    pub(crate) fn is_host(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        let mut ranges = self.ranges.iter().filter(|range| range.contains(bits));
        !address.is_multicast() && ranges.next().is_some_and(|range| !range.is_all(bits))
    }

    /// Whether a peer can be sent datagrams there: one host, a port, and not by way of the tunnel.
    pub(crate) fn allows_endpoint(&self, endpoint: Path) -> bool {
        endpoint.is_host() && !self.contains(endpoint.ip())
    }

    /// Whether a packet for this address is for this node.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }
}

pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The IPv4 address that some system makes of an IPv6 address before it sends there: IPv4-compatible
/// (RFC 4291, section 2.5.5.1), 6to4 (RFC 3056), NAT64 (RFC 6052).
fn embedded(address: u128) -> Option<u128> {
    let (low, sixth) = (address & 0xFFFF_FFFF, address >> 80 & 0xFFFF_FFFF);
    let v4 = match (address >> 112, address >> 32) {
        (0x2002, _) => sixth,
        (_, 0) => low,
        (_, NAT64) => low,
        _ => return None,
    };
    Some(V4_MAPPED | v4)
}

/// `::ffff:0:0/96`, as a number.
const V4_MAPPED: u128 = 0xFFFF << 32;
/// `64:ff9b::/96` without its last 32 bits.
const NAT64: u128 = 0x0064_FF9B << 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn inside() -> Inside {
        let range = |address: &str, prefix| Range::new(address.parse().unwrap(), prefix);
        Inside {
            own: vec!["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()],
            ranges: vec![range("10.77.3.9", 16), range("fd77::1", 64)],
        }
    }

    #[test]
    fn an_address_is_inside_in_whatever_form_it_comes() {
        let inside = inside();
        for address in [
            "10.77.0.0",
            "10.77.255.255",
            "::ffff:10.77.0.2",
            "::10.77.0.2",
            "2002:a4d:2::1",
            "64:ff9b::10.77.0.2",
            "fd77::2",
            "fd77::ffff:ffff:ffff:ffff",
        ] {
            assert!(inside.contains(address.parse().unwrap()), "{address}");
        }
        for address in [
            "10.76.255.255",
            "10.78.0.0",
            "::ffff:10.78.0.2",
            "::ffff:0:10.77.0.2",
            "2002:a4e:2::1",
            "64:ff9b::10.78.0.2",
            "64:ff9b:1::10.77.0.2",
            "fd77:0:0:1::2",
            "fd76::2",
            "::1",
            "198.18.0.1",
        ] {
            assert!(!inside.contains(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_range_is_as_long_as_its_prefix_says() {
        let any_v4 = Range::new("1.2.3.4".parse().unwrap(), 0);
        assert!(any_v4.contains(bits("255.0.0.1".parse().unwrap())));
        assert!(!any_v4.contains(bits("fd00::1".parse().unwrap())));
        let any = Range::new("::".parse().unwrap(), 0);
        assert!(any.contains(bits("fd00::1".parse().unwrap())));
        for too_long in [32, 33, 255] {
            let one = Range::new("1.2.3.4".parse().unwrap(), too_long);
            assert!(one.contains(bits("1.2.3.4".parse().unwrap())));
            assert!(!one.contains(bits("1.2.3.5".parse().unwrap())));
        }
    }

    #[test]
    fn what_nothing_can_be_sent_to_is_no_endpoint() {
        let inside = inside();
        let allows = |endpoint: &str| inside.allows_endpoint(Path::Udp(endpoint.parse().unwrap()));
        assert!(allows("192.0.2.1:51820") && allows("[2001:db8::1]:51820"));
        for endpoint in [
            "10.77.0.2:51820",
            "[::ffff:10.77.0.2]:51820",
            "[fd77::2]:51820",
            "192.0.2.1:0",
            "0.0.0.0:51820",
            "[::]:51820",
            "[::ffff:0.0.0.0]:51820",
            "224.0.0.1:51820",
            "[ff02::1]:51820",
            "255.255.255.255:51820",
        ] {
            assert!(!allows(endpoint), "{endpoint}");
        }
    }
}
