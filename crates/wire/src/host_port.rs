//! Where a machine is reached, as a person writes it: `HOST:PORT`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A host and a port, never 0. Displays as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name to be resolved, of letters, digits, hyphens and underscores in parts of 1 to 63 (RFC 1123,
    /// section 2.1; the underscore is what service names of container platforms have).
    Name(String),
    /// An address that means the same everywhere.
    Address(IpAddr),
    /// An address on one link, with the zone that names the link on this machine: an interface, by name or
    /// number (RFC 4007, section 11).
    Zoned(Ipv6Addr, String),
}

/// Why a text is no [`HostPort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// There is a scheme.
    #[error("leave out the scheme: it is HOST:PORT, as in mesh.example.net:7443")]
    Scheme,
    /// There is no port.
    #[error("it has no port: it is HOST:PORT, as in mesh.example.net:7443")]
    NoPort,
    /// The port is none.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// An IPv6 address runs into the port.
    #[error("write an IPv6 address in brackets, as in [2001:db8::1]:7443")]
    Brackets,
    /// There is something else in the brackets.
    #[error("there is no IPv6 address in its brackets")]
    NotIpv6,
    /// A zone where there can be none.
    #[error("only a link-local address has a zone, the name or number of an interface")]
    Zone,
    /// A link-local address without a zone.
    #[error("a link-local address needs a zone, as in [fe80::1%eth0]:7443")]
    NoZone,
    /// Digits and dots that are no address.
    #[error("its host looks like an IPv4 address, but is none")]
    NotIpv4,
    /// The host is no name.
    #[error("its host is neither a name (letters, digits, hyphens, dots) nor an address")]
    Name,
    /// No machine has this address.
    #[error("no machine can be reached at this address")]
    Nowhere,
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        if text.contains("://") {
            return Err(HostPortError::Scheme);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inside, port) = rest.split_once(']').ok_or(HostPortError::Brackets)?;
                let port = port.strip_prefix(':').ok_or(HostPortError::NoPort)?;
                (bracketed(inside)?, port)
            }
            None => {
                let (host, port) = text.rsplit_once(':').ok_or(HostPortError::NoPort)?;
                if host.contains(':') {
                    return Err(HostPortError::Brackets);
                }
                (plain(host)?, port)
            }
        };
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(HostPortError::Port);
        }
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or(HostPortError::Port)?;
        Ok(Self { host, port })
    }
}

fn bracketed(text: &str) -> Result<Host, HostPortError> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| HostPortError::NotIpv6)?;
    match zone {
        Some(zone) if address.is_unicast_link_local() && is_zone(zone) => {
            Ok(Host::Zoned(address, zone.to_owned()))
        }
        Some(_) => Err(HostPortError::Zone),
        None if address.is_unicast_link_local() => Err(HostPortError::NoZone),
        None => somewhere(address.into()),
    }
}

fn plain(text: &str) -> Result<Host, HostPortError> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return somewhere(address.into());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_part = |part: &str| {
        let is_inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&part.len())
            && part.bytes().all(is_inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if name.len() > MAX_NAME_LEN || !name.split('.').all(is_part) {
        return Err(HostPortError::Name);
    }
    // A resolver takes such a name for an address in a form that nobody writes on purpose.
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostPortError::NotIpv4);
    }
    Ok(Host::Name(text.to_owned()))
}

fn somewhere(address: IpAddr) -> Result<Host, HostPortError> {
    let canonical = address.to_canonical();
    let is_broadcast = canonical == IpAddr::V4(Ipv4Addr::BROADCAST);
    if canonical.is_unspecified() || canonical.is_multicast() || is_broadcast {
        return Err(HostPortError::Nowhere);
    }
    Ok(Host::Address(address))
}

/// Whether a text can name an interface: what Linux allows in a name (dev_valid_name), or a number.
fn is_zone(zone: &str) -> bool {
    let is_name = |b: u8| b.is_ascii_graphic() && !b"/:%]".contains(&b);
    (1..16).contains(&zone.len()) && zone.bytes().all(is_name) && zone != "0"
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host {
            Host::Name(name) => write!(f, "{name}:{port}"),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}:{port}"),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{port}"),
            Host::Zoned(address, zone) => write!(f, "[{address}%{zone}]:{port}"),
        }
    }
}

impl From<HostPort> for String {
    fn from(at: HostPort) -> Self {
        at.to_string()
    }
}

impl TryFrom<String> for HostPort {
    type Error = HostPortError;

    fn try_from(text: String) -> Result<Self, HostPortError> {
        text.parse()
    }
}

/// Longest name, in bytes (RFC 1035, section 2.3.4).
const MAX_NAME_LEN: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_addresses_of_both_families_are_read_with_their_zones() {
        for text in [
            "mesh.example.net:7443",
            "mesh.example.net.:7443",
            "controller:1",
            "my_service:65535",
            "3com.example:7443",
            "xn--bcher-kva.example:7443",
            "192.0.2.1:7443",
            "127.0.0.1:7443",
            "[2001:db8::1]:7443",
            "[::1]:7443",
            "[fe80::1%eth0]:7443",
            "[fe80::1%br-4.100]:7443",
            "[fe80::1%2]:7443",
        ] {
            let read: Result<HostPort, _> = text.parse();
            assert_eq!(read.map(|it| it.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_no_resolver_finds_is_no_address() {
        use HostPortError as E;
        for (text, error) in [
            ("", E::NoPort),
            ("nowhere", E::NoPort),
            ("[2001:db8::1]", E::NoPort),
            ("[2001:db8::1]7443", E::NoPort),
            ("x:", E::Port),
            ("x:0", E::Port),
            ("x:+1", E::Port),
            ("x:65536", E::Port),
            ("x:1/path", E::Port),
            ("x:7443 ", E::Port),
            ("a:1,b:2", E::Brackets),
            ("http://x:1", E::Scheme),
            ("quic://[2001:db8::1]:1", E::Scheme),
            ("2001:db8::1:7443", E::Brackets),
            ("fe80::1%eth0:7443", E::Brackets),
            ("[2001:db8::1:7443", E::Brackets),
            ("[mesh.example.net]:7443", E::NotIpv6),
            ("[192.0.2.1]:7443", E::NotIpv6),
            ("[2001:db8::1%eth0]:7443", E::Zone),
            ("[fe80::1%]:7443", E::Zone),
            ("[fe80::1%a/b]:7443", E::Zone),
            ("[fe80::1%0]:7443", E::Zone),
            ("[fe80::1%an-interface-too-long]:7443", E::Zone),
            ("[fe80::1]:7443", E::NoZone),
            ("10.0.0.300:7443", E::NotIpv4),
            ("10.0.1:7443", E::NotIpv4),
            ("7443:7443", E::NotIpv4),
            (":7443", E::Name),
            ("a b:7443", E::Name),
            ("a..b:7443", E::Name),
            ("-a:7443", E::Name),
            ("a/b:7443", E::Name),
            ("user@host:7443", E::Name),
            ("b\u{fc}cher.example:7443", E::Name),
            ("0.0.0.0:7443", E::Nowhere),
            ("[::]:7443", E::Nowhere),
            ("[ff02::1]:7443", E::Nowhere),
            ("224.0.0.1:7443", E::Nowhere),
            ("255.255.255.255:7443", E::Nowhere),
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(error), "{text}");
        }
        let long = format!("{}.example:1", ["a"; 130].join("."));
        assert_eq!(long.parse::<HostPort>(), Err(E::Name));
    }

    proptest! {
        #[test]
        fn what_is_read_is_shown_and_read_again(text in "[a-z0-9:.%\\[\\]_-]{0,40}") {
            if let Ok(read) = text.parse::<HostPort>() {
                prop_assert_eq!(read.to_string().parse::<HostPort>(), Ok(read));
            }
        }
    }
}
