//! Addresses of this machine's interfaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use wire::Prefix;

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// The network that it is in, by its mask.
    pub network: Prefix,
}

/// All addresses of all interfaces, in the kernel's order.
///
/// # Errors
/// When the kernel does not say.
pub fn all() -> io::Result<Vec<Address>> {
    let found = nix::ifaddrs::getifaddrs()?;
    Ok(found.filter_map(|it| address(&it)).collect())
}

fn address(of: &nix::ifaddrs::InterfaceAddress) -> Option<Address> {
    let (given, mask) = (of.address?, of.netmask);
    let (ip, length) = if let Some(v4) = given.as_sockaddr_in() {
        let mask =
            mask.and_then(|mask| mask.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip));
        (
            IpAddr::V4(v4.ip()),
            mask.map_or(32, |mask| mask.to_bits().leading_ones()),
        )
    } else {
        let v6 = given.as_sockaddr_in6()?;
        let mask = mask.and_then(|mask| {
            mask.as_sockaddr_in6()
                .map(nix::sys::socket::SockaddrIn6::ip)
        });
        (
            IpAddr::V6(v6.ip()),
            mask.map_or(128, |mask| mask.to_bits().leading_ones()),
        )
    };
    Some(Address {
        interface: of.interface_name.clone(),
        ip,
        network: Prefix::around(ip, u8::try_from(length).unwrap_or(u8::MAX)),
    })
}

/// The address with which this machine leaves its network: that of the default route, IPv4 first; else the first that
/// is good beyond its link. `None`: there is none. Nothing is sent.
pub fn outward() -> Option<IpAddr> {
    let beyond: [(SocketAddr, SocketAddr); 2] = [
        ((Ipv4Addr::UNSPECIFIED, 0).into(), (TEST_V4, DISCARD).into()),
        ((Ipv6Addr::UNSPECIFIED, 0).into(), (TEST_V6, DISCARD).into()),
    ];
    let by_route = beyond.into_iter().find_map(|(any, there)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(there).ok()?;
        socket.local_addr().ok().map(|own| own.ip())
    });
    by_route.filter(is_wide).or_else(|| {
        let mut all = all().ok()?;
        all.sort_by_key(|it| it.ip.is_ipv6());
        all.into_iter().map(|it| it.ip).find(is_wide)
    })
}

/// Whether an address means something beyond its link.
pub fn is_wide(ip: &IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast())
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast())
        }
    }
}

/// Addresses for documentation (RFC 5737, RFC 3849): nobody's, and by the default route as anybody's.
const TEST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TEST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The port of RFC 863; a UDP socket that is connected sends nothing by that.
const DISCARD: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_with_its_network_and_is_not_wide() {
        let all = all().unwrap();
        let lo = all.iter().find(|it| it.ip.is_loopback()).unwrap();
        assert_eq!(lo.interface, "lo");
        assert!(lo.network.contains(lo.ip) && !is_wide(&lo.ip));
        assert!(outward().is_none_or(|ip| is_wide(&ip)));
    }
}
