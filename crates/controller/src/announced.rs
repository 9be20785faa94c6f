//! Where a node says that it can be reached, and what is told of that together with where it is seen. A node's
//! words about addresses are believed no further than they can do harm: they are few, and each
//! can be told to others.

use std::net::{IpAddr, SocketAddr};
use wire::message::MAX_ENDPOINTS;

/// A node's words.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    /// UDP port of its WireGuard socket; 0: it did not say.
    listen_port: u16,
    /// Addresses that its operator configured.
    advertised: Vec<SocketAddr>,
    /// Addresses of its machine, best first.
    addresses: Vec<IpAddr>,
}

impl Announced {
    /// Takes what a node says, without what nobody can send to; `None` where it is more than a node may say.
    pub(crate) fn new(
        listen_port: u16,
        mut advertised: Vec<SocketAddr>,
        mut addresses: Vec<IpAddr>,
        is_mesh: impl Fn(IpAddr) -> bool,
    ) -> Option<Self> {
        if advertised.len() > MAX_ENDPOINTS || addresses.len() > MAX_ENDPOINTS {
            return None;
        }
        advertised.retain(|at| at.port() != 0 && !at.ip().is_unspecified());
        addresses.retain(|address| is_anywhere(address.to_canonical()) && !is_mesh(*address));
        Some(Self {
            listen_port,
            advertised,
            addresses,
        })
    }

    /// Where others find a node that is seen at `seen`, best first. One that the controller sees at a loopback
    /// address shares its machine: others have to know it by another address, if there is one.
    pub(crate) fn endpoints(&self, seen: IpAddr) -> Vec<SocketAddr> {
        if !self.advertised.is_empty() || self.listen_port == 0 {
            return self.advertised.clone();
        }
        let seen = seen.to_canonical();
        let is_useful = !seen.is_loopback() || self.addresses.is_empty();
        let mut endpoints: Vec<SocketAddr> = Vec::new();
        for address in is_useful
            .then_some(&seen)
            .into_iter()
            .chain(&self.addresses)
        {
            let endpoint = SocketAddr::new(address.to_canonical(), self.listen_port);
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        endpoints.truncate(MAX_ENDPOINTS);
        endpoints
    }
}

/// Whether an address can be one machine's for others than itself and its neighbours.
fn is_anywhere(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(is_link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// The endpoints as they may be told to whoever is seen at `to`: a loopback address is of no use on another
/// machine, where somebody else answers.
pub(crate) fn for_recipient(mut endpoints: Vec<SocketAddr>, to: IpAddr) -> Vec<SocketAddr> {
    if !to.to_canonical().is_loopback() {
        endpoints.retain(|at| !at.ip().to_canonical().is_loopback());
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn said(advertised: &[&str], addresses: &[&str]) -> Announced {
        let advertised = advertised.iter().map(|at| at.parse().unwrap()).collect();
        let addresses = addresses.iter().map(|at| ip(at)).collect();
        let is_mesh = |address: IpAddr| address == ip("10.76.0.2");
        Announced::new(7, advertised, addresses, is_mesh).unwrap()
    }

    fn told(said: &Announced, seen: &str) -> Vec<String> {
        let endpoints = said.endpoints(ip(seen)).into_iter();
        endpoints.map(|at| at.to_string()).collect()
    }

    #[test]
    fn the_address_that_is_seen_comes_first_and_then_all_others_once() {
        let node = said(&[], &["2001:db8::1", "192.0.2.1", "10.76.0.2", "fe80::1"]);
        let all = ["192.0.2.1:7", "[2001:db8::1]:7"];
        assert_eq!(told(&node, "::ffff:192.0.2.1"), all);
        let all = ["203.0.113.9:7", "[2001:db8::1]:7", "192.0.2.1:7"];
        assert_eq!(told(&node, "203.0.113.9"), all, "translated");
        let node = said(&["198.51.100.1:9", "0.0.0.0:9"], &["192.0.2.1"]);
        assert_eq!(told(&node, "192.0.2.1"), ["198.51.100.1:9"], "configured");
        let many = vec![ip("192.0.2.1"); MAX_ENDPOINTS + 1];
        assert!(Announced::new(7, Vec::new(), many, |_| false).is_none());
    }

    #[test]
    fn a_neighbour_of_the_controller_is_known_elsewhere_by_another_address() {
        let node = said(&[], &["192.0.2.1"]);
        assert_eq!(told(&node, "127.0.0.1"), ["192.0.2.1:7"]);
        assert_eq!(told(&node, "::1"), ["192.0.2.1:7"]);
        let alone = said(&[], &[]).endpoints(ip("127.0.0.1"));
        assert_eq!(for_recipient(alone.clone(), ip("::1")), alone);
        assert_eq!(for_recipient(alone, ip("192.0.2.2")), []);
    }
}
