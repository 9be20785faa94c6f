//! Names under which a page without a token may be asked. A foreign site can give its own name this machine's address
//! (DNS rebinding), and a browser then takes the page for a part of that site. An address cannot be given away.

use std::net::{IpAddr, Ipv6Addr};

/// Whether the host of a request is an address or `localhost`.
pub(crate) fn is_own(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[') {
        let Some((address, port)) = v6.split_once(']') else {
            return false;
        };
        return address.parse::<Ipv6Addr>().is_ok() && is_port(port);
    }
    let (name, port) = match host.find(':') {
        Some(at) => host.split_at(at),
        None => (host, ""),
    };
    let is_name = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
    is_name && is_port(port)
}

fn is_port(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_own_and_other_names_are_not() {
        for own in [
            "localhost",
            "LocalHost:7480",
            "127.0.0.1:7480",
            "127.0.0.1",
            "[::1]:7480",
            "[::1]",
            "192.0.2.7:80",
        ] {
            assert!(is_own(own), "{own}");
        }
        for foreign in [
            "",
            "mesh.example",
            "mesh.example:7480",
            "localhost.example",
            "127.0.0.1.example:7480",
            "localhost:port",
            "[::1",
            "[::1]x",
            "[mesh]",
            "::1",
        ] {
            assert!(!is_own(foreign), "{foreign}");
        }
    }
}
