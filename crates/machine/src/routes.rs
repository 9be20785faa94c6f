//! The kernel's routes of the main table, as `/proc/net/route` and `/proc/net/ipv6_route` show them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::Prefix;

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// Its destinations.
    pub to: Prefix,
    /// The interface that packets take.
    pub interface: &'a str,
}

/// The kernel's tables as text: of IPv4 and IPv6. One that cannot be read has no route.
#[derive(Debug, Default)]
pub struct Tables {
    v4: String,
    v6: String,
}

impl Tables {
    /// Reads both tables of this process's network namespace.
    pub fn read() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            v4: read("/proc/self/net/route"),
            v6: read("/proc/self/net/ipv6_route"),
        }
    }

    /// Routes to networks: no default route, none that goes nowhere, no loopback, no multicast.
    pub fn networks(&self) -> impl Iterator<Item = Route<'_>> {
        let v4 = self.v4.lines().filter_map(v4);
        let v6 = self.v6.lines().filter_map(v6);
        v4.chain(v6).filter(|route| {
            let first = route.to.address();
            route.to.length() > 0 && !first.is_multicast() && route.interface != "lo"
        })
    }

    /// Whether there is a default route of IPv4, and of IPv6.
    pub fn has_default(&self) -> (bool, bool) {
        let is_default = |route: Route<'_>| route.to.length() == 0 && route.interface != "lo";
        (
            self.v4.lines().filter_map(v4).any(is_default),
            self.v6.lines().filter_map(v6).any(is_default),
        )
    }
}

/// Fields: interface, destination, gateway, flags, …, mask at 7; addresses in the machine's byte order.
fn v4(line: &str) -> Option<Route<'_>> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
    let address = Ipv4Addr::from(number(1)?.to_ne_bytes());
    let mask = Ipv4Addr::from(number(7)?.to_ne_bytes());
    let length = u8::try_from(mask.to_bits().leading_ones()).ok()?;
    let is_in_use = number(3)? & UP != 0 && number(3)? & REJECT == 0;
    is_in_use.then_some(Route {
        to: Prefix::around(IpAddr::V4(address), length),
        interface: fields.first()?,
    })
}

/// Fields: destination, its length, …, flags at 8, interface at 9.
fn v6(line: &str) -> Option<Route<'_>> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = u128::from_str_radix(fields.first()?, 16).ok()?;
    let length = u8::from_str_radix(fields.get(1)?, 16).ok()?;
    let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
    (flags & UP != 0 && flags & REJECT == 0).then_some(Route {
        to: Prefix::around(IpAddr::V6(Ipv6Addr::from(address)), length),
        interface: fields.get(9)?,
    })
}

/// `RTF_UP` and `RTF_REJECT` of `linux/route.h`.
const UP: u32 = 1;
const REJECT: u32 = 0x200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_told_from_default_routes_and_from_those_that_go_nowhere() {
        // As a little-endian machine shows it.
        let v4 = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                  eth0 00000000 010011AC 0003 0 0 0 00000000 0 0 0\n\
                  eth0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n\
                  * 00004C0A 00000000 0201 0 0 0 0000FEFF 0 0 0\n";
        let v6 = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth1\n\
                  00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n";
        let tables = Tables {
            v4: v4.to_owned(),
            v6: v6.to_owned(),
        };
        let found = tables
            .networks()
            .map(|it| format!("{} {}", it.to, it.interface));
        let found: Vec<String> = found.collect();
        assert_eq!(found, ["172.17.0.0/16 eth0", "fd00::/64 eth1"]);
        assert_eq!(tables.has_default(), (true, false));
    }
}
