//! A path: where a datagram came from, and where the next one goes.
//!
//! All that is decided by where somebody is, is asked here: whether a path can be a peer's endpoint,
//! what one sender can choose freely of it, and which bytes a cookie proves. A path that is no UDP
//! address is one more variant, and the compiler then names every such decision.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where a datagram came from, or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// By UDP, straight to an address and port.
    Udp(SocketAddr),
}

impl Path {
    /// The address and port, of a path that is by UDP.
    pub fn udp(self) -> Option<SocketAddr> {
        match self {
            Self::Udp(address) => Some(address),
        }
    }

    /// The address in the network outside.
    pub(crate) fn ip(self) -> IpAddr {
        match self {
            Self::Udp(address) => address.ip(),
        }
    }

    /// Whether datagrams can arrive there, and at one host only: nothing can be sent to port 0, and a
    /// group is many.
    pub(crate) fn is_host(self) -> bool {
        match self {
            Self::Udp(address) => {
                let ip = address.ip().to_canonical();
                let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
                let is_one = !(ip.is_unspecified() || ip.is_multicast() || is_broadcast);
                is_one && address.port() != 0
            }
        }
    }

    /// The range that one sender can choose its addresses from: an IPv4 address, an IPv6 /64.
    pub(crate) fn network(self) -> IpAddr {
        allowance::network(self.ip())
    }

    /// The range that may be one link, whose neighbours the system has to look for: an IPv4 /24, an
    /// IPv6 /64.
    pub(crate) fn link(self) -> IpAddr {
        allowance::link(self.ip())
    }

    /// The bytes that a cookie proves: 16 of address, IPv4 in the form that IPv6 has for it, 2 of port.
    pub(crate) fn proven_bytes(self) -> [u8; 18] {
        let Self::Udp(address) = self;
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut bytes = [0; 18];
        if let Some((of_ip, of_port)) = bytes.split_first_chunk_mut::<16>() {
            *of_ip = ip.octets();
            of_port.copy_from_slice(&address.port().to_be_bytes());
        }
        bytes
    }
}

impl From<SocketAddr> for Path {
    fn from(address: SocketAddr) -> Self {
        Self::Udp(address)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(address: &str) -> Path {
        Path::Udp(address.parse().unwrap())
    }

    #[test]
    fn a_sender_has_one_network_and_a_link_has_many_senders() {
        let same =
            |of: fn(Path) -> IpAddr, one: &str, other: &str| of(path(one)) == of(path(other));
        for (one, other, is_network, is_link) in [
            ("192.0.2.1:1", "192.0.2.1:2", true, true),
            ("192.0.2.1:1", "192.0.2.2:1", false, true),
            ("192.0.2.1:1", "192.0.3.1:1", false, false),
            ("[2001:db8::1]:1", "[2001:db8::ffff:1]:2", true, true),
            ("[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false, false),
            ("[2001:db8::1]:1", "192.0.2.1:1", false, false),
        ] {
            assert_eq!(same(Path::network, one, other), is_network, "{one} {other}");
            assert_eq!(same(Path::link, one, other), is_link, "{one} {other}");
        }
    }

    #[test]
    fn a_cookie_proves_address_and_port_in_whatever_form_the_address_comes() {
        let bytes = |address: &str| path(address).proven_bytes();
        assert_eq!(bytes("192.0.2.1:7"), bytes("[::ffff:192.0.2.1]:7"));
        assert_ne!(bytes("192.0.2.1:7"), bytes("192.0.2.1:8"));
        assert_ne!(bytes("192.0.2.1:7"), bytes("192.0.2.2:7"));
    }
}
