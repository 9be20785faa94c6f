//! The addresses of this machine that its peers may reach it at. By the kernel's word: an address counts if it is
//! good beyond its link, and its interface leads out of the machine. One leads out if packets to the controller or
//! to anywhere else would take it, or if it is hardware or stands for some; a bridge, if it has such a port. What
//! containers and other tunnels are behind leads nowhere that a peer could come from.

use super::interface;
use super::links::local;
use super::ways::{Lead, lead};
use futures_util::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::message::MAX_ENDPOINTS;

/// The addresses that peers may use, best first: those on the way to `controller`, those on the way to everywhere,
/// and others. At most as many as a node may announce.
pub(crate) async fn usable(controller: IpAddr, inside: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let look = async |handle: Handle| {
        let all = all(&handle).await?;
        let links = links(&handle).await?;
        let mut ways = Vec::new();
        for to in [controller.to_canonical(), FAR_V4, FAR_V6] {
            // An address of this machine is reached by the loopback, and is on another interface.
            let own = all.iter().find(|it| it.address == to).map(|it| it.link);
            match (own, lead(&handle, to).await) {
                (Some(link), _) | (None, Lead::Interface(link)) => ways.push(link),
                (None, Lead::Nowhere | Lead::Unknown) => {}
            }
        }
        Ok::<_, io::Error>(choose(all, &links, &ways, inside))
    };
    let found = interface::netlink(look).await.and_then(|found| found);
    found.unwrap_or_else(|error| {
        tracing::debug!(%error, "this machine's addresses cannot be asked for");
        Vec::new()
    })
}

/// All addresses of this machine that are not of the loopback or of one link, but for those of an interface.
pub(crate) async fn others(interface: &str) -> Vec<IpAddr> {
    let own = interface::index_of(interface).ok();
    let found = interface::netlink(async |handle: Handle| all(&handle).await).await;
    let found = found.and_then(|found| found).unwrap_or_default();
    let others = found.into_iter().filter(|it| Some(it.link) != own);
    others.map(|it| it.address).collect()
}

/// An address that is good beyond its link.
#[derive(Debug, Clone)]
struct Own {
    address: IpAddr,
    link: u32,
    /// Whether it can be used now: it is known to be no one else's, and not about to go.
    is_good: bool,
    /// Whether it is for a time, and another one stays.
    is_temporary: bool,
}

/// An interface.
#[derive(Debug, Clone, Default)]
struct Link {
    is_up: bool,
    /// Whether it leads out of the machine by its kind.
    leads_out: bool,
}

fn choose(
    all: Vec<Own>,
    links: &BTreeMap<u32, Link>,
    ways: &[u32],
    inside: impl Fn(IpAddr) -> bool,
) -> Vec<IpAddr> {
    let rank = |own: &Own| {
        let link = links.get(&own.link).filter(|link| link.is_up)?;
        let way = ways.iter().position(|way| *way == own.link);
        let rank = way.or(link.leads_out.then_some(ways.len()))?;
        (own.is_good && !inside(own.address)).then_some((rank, own.is_temporary))
    };
    let ranked = all.iter().filter_map(|own| Some((rank(own)?, own.address)));
    let mut ranked: Vec<_> = ranked.collect();
    // Stable: within a rank they stay in the kernel's order.
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut seen = BTreeSet::new();
    let addresses = ranked.into_iter().map(|(_, address)| address);
    let addresses = addresses.filter(|address| seen.insert(*address));
    addresses.take(MAX_ENDPOINTS).collect()
}

async fn all(handle: &Handle) -> io::Result<Vec<Own>> {
    let mut all = Vec::new();
    let mut messages = std::pin::pin!(handle.address().get().execute());
    while let Some(message) = messages.try_next().await.map_err(io::Error::other)? {
        all.extend(own(&message));
    }
    Ok(all)
}

fn own(message: &AddressMessage) -> Option<Own> {
    let address = local(message)?;
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let is_wide = message.header.scope == AddressScope::Universe;
    let is_none = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    if is_link_local || is_none || !is_wide {
        return None;
    }
    let has = |flag| message.header.flags.contains(flag);
    let is_unsure = has(AddressHeaderFlags::Tentative) && !has(AddressHeaderFlags::Optimistic);
    let is_lost = has(AddressHeaderFlags::Dadfailed) || has(AddressHeaderFlags::Deprecated);
    Some(Own {
        address,
        link: message.header.index,
        is_good: !is_unsure && !is_lost,
        // The same bit has another meaning for IPv4.
        is_temporary: address.is_ipv6() && has(AddressHeaderFlags::Secondary),
    })
}

async fn links(handle: &Handle) -> io::Result<BTreeMap<u32, Link>> {
    let (mut links, mut bridges) = (BTreeMap::new(), BTreeSet::new());
    let mut messages = std::pin::pin!(handle.link().get().execute());
    while let Some(message) = messages.try_next().await.map_err(io::Error::other)? {
        let (kind, bridge) = (kind(&message), bridge(&message));
        let flags = message.header.flags;
        let is_loopback = flags.contains(LinkFlags::Loopback);
        if kind.is_none() && !is_loopback {
            bridges.extend(bridge);
        }
        let link = Link {
            is_up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::Running),
            leads_out: !is_loopback && kind.is_none_or(stands_for_hardware),
        };
        links.insert(message.header.index, link);
    }
    for bridge in bridges {
        if let Some(link) = links.get_mut(&bridge) {
            link.leads_out = true;
        }
    }
    Ok(links)
}

/// The kind of an interface that is no hardware.
fn kind(message: &LinkMessage) -> Option<&InfoKind> {
    let infos = message.attributes.iter().filter_map(|it| match it {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

fn bridge(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|it| match it {
        LinkAttribute::Controller(bridge) => Some(*bridge),
        _ => None,
    })
}

/// Whether interfaces of a kind stand for hardware, or for the uplink of a container.
fn stands_for_hardware(kind: &InfoKind) -> bool {
    matches!(
        kind,
        InfoKind::Veth | InfoKind::Vlan | InfoKind::MacVlan | InfoKind::IpVlan | InfoKind::Bond
    )
}

/// Addresses that no route but a default one leads to: of the root server A (RFC 7720). Nothing is sent there.
const FAR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4));
const FAR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_where_its_interface_leads_out_and_the_best_come_first() {
        let link = |is_up, leads_out| Link { is_up, leads_out };
        let links = BTreeMap::from([
            (2, link(true, true)),
            (3, link(true, true)),
            (4, link(true, false)),
            (5, link(false, true)),
            (6, link(true, false)),
        ]);
        let own = |address: &str, link, is_good, is_temporary| Own {
            address: address.parse().unwrap(),
            link,
            is_good,
            is_temporary,
        };
        let all = vec![
            own("198.51.100.1", 3, true, false),
            own("2001:db8::a", 2, true, true),
            own("192.0.2.1", 2, true, false),
            own("2001:db8::1", 2, true, false),
            own("2001:db8::2", 2, false, false),
            own("172.17.0.1", 4, true, false),
            own("203.0.113.1", 5, true, false),
            own("10.76.0.2", 3, true, false),
            own("203.0.113.2", 6, true, false),
            own("192.0.2.1", 2, true, false),
        ];
        let inside = |address: IpAddr| address == IpAddr::from([10, 76, 0, 2]);
        let chosen = |ways: &[u32]| -> Vec<String> {
            let chosen = choose(all.clone(), &links, ways, inside).into_iter();
            chosen.map(|address| address.to_string()).collect()
        };
        let of_two = ["192.0.2.1", "2001:db8::1", "2001:db8::a"];
        let by_two = [&of_two[..], &["198.51.100.1"]].concat();
        assert_eq!(chosen(&[2]), by_two);
        // A bridge that the kernel uses is one that leads out.
        let by_bridge = [&["203.0.113.2", "198.51.100.1"][..], &of_two].concat();
        assert_eq!(chosen(&[6, 3]), by_bridge);
        let many = (0..20).map(|last| own(&format!("192.0.2.{last}"), 2, true, false));
        assert_eq!(
            choose(many.collect(), &links, &[], inside).len(),
            MAX_ENDPOINTS
        );
    }
}
