//! Which way the system would go to a peer. A route can move to another link while the address that the
//! peer was answered from is still this host's: a cable is pulled, an uplink becomes the better one. What
//! goes on leaving from the old address may then get nowhere, and nobody tells.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The system's choice for each destination, as it was last seen.
#[derive(Debug, Default)]
pub(crate) struct Sources(BTreeMap<SocketAddr, IpAddr>);

impl Sources {
    /// Looks anew; the destinations that the system would send to from another address than before.
    /// Sends nothing.
    pub(crate) fn moved(
        &mut self,
        destinations: impl IntoIterator<Item = SocketAddr>,
    ) -> Vec<SocketAddr> {
        self.moved_by(destinations, choice)
    }

    fn moved_by(
        &mut self,
        destinations: impl IntoIterator<Item = SocketAddr>,
        choice: impl Fn(SocketAddr) -> Option<IpAddr>,
    ) -> Vec<SocketAddr> {
        let before = std::mem::take(&mut self.0);
        let mut moved = Vec::new();
        for to in destinations {
            let known = before.get(&to).copied();
            let now = choice(to);
            if known.is_some() && now.is_some() && now != known {
                moved.push(to);
            }
            // A way that is gone for now may come back as it was.
            if let Some(address) = now.or(known) {
                self.0.insert(to, address);
            }
        }
        moved
    }
}

/// The address that the system would send from.
fn choice(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    // Connecting a UDP socket asks for the route, and no more.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|here| here.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_is_another_is_told_once_and_one_that_comes_back_is_not() {
        let to: SocketAddr = "192.0.2.1:51820".parse().unwrap();
        let mut sources = Sources::default();
        for (last, is_moved) in [
            (Some(1), false),
            (Some(1), false),
            (None, false),
            (Some(1), false),
            (Some(2), true),
            (Some(2), false),
            (None, false),
            (Some(1), true),
        ] {
            let choice = last.map(|last| IpAddr::from([198, 51, 100, last]));
            let moved = sources.moved_by([to], |_| choice);
            assert_eq!(moved == [to], is_moved, "{last:?}");
        }
        assert!(sources.moved_by([], |_| None).is_empty());
        assert!(sources.0.is_empty(), "nobody is there any more");
    }

    #[test]
    fn the_way_to_oneself_begins_at_oneself() {
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(choice((here, 9).into()), Some(here));
    }
}
