//! The kernel's routes to networks behind peers, by way of the mesh's interface, in the main table and marked as ours by
//! a number of their own ([`PROTOCOL`]): a route that an earlier process left is known by it, and goes. All of them go
//! with the interface.

use super::interface;
use crate::networks::{Networks, Outcome, Present, Unrouted};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Error, Handle, RouteMessageBuilder};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::Prefix;

/// The interface with the routes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    /// Its index.
    pub(crate) index: u32,
    /// This node's addresses in the mesh, which packets to the networks come from.
    pub(crate) own: [IpAddr; 2],
    /// Whether it carries IPv4 and IPv6.
    pub(crate) carries: [bool; 2],
}

/// Sets the routes that may be set, puts back those that somebody else removed, and removes all others of ours.
///
/// # Errors
/// When the kernel cannot be asked. One route that it refuses is an outcome.
pub(crate) async fn follow(exit: Exit, wanted: &Networks) -> io::Result<Vec<Outcome>> {
    let change = async |handle: Handle| {
        let (ours, present) = routes(&handle, exit.index).await?;
        let mut outcomes = wanted.judge(&present);
        let mut routed = BTreeSet::new();
        for outcome in outcomes.iter_mut().filter(|it| it.unrouted.is_none()) {
            let prefix = outcome.network.prefix;
            let [v4, v6] = exit.carries;
            if !ours.contains(&prefix) {
                let carries = if prefix.address().is_ipv4() { v4 } else { v6 };
                let added = match carries {
                    true => add(&handle, exit, prefix).await,
                    false => Err("the mesh's interface does not carry this family".to_owned()),
                };
                if let Err(error) = added {
                    outcome.unrouted = Some(Unrouted::Refused(error));
                    continue;
                }
            }
            routed.insert(prefix);
        }
        for prefix in ours.difference(&routed) {
            // One that is not there any more is as good as removed.
            let _ = handle.route().del(route(exit, *prefix)).execute().await;
        }
        Ok(outcomes)
    };
    interface::netlink(change).await?
}

async fn add(handle: &Handle, exit: Exit, prefix: Prefix) -> Result<(), String> {
    match handle.route().add(route(exit, prefix)).execute().await {
        Ok(()) => Ok(()),
        Err(Error::NetlinkError(message)) => match message.to_io() {
            // It is as it should be: somebody was faster.
            error if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            error => Err(error.to_string()),
        },
        Err(error) => Err(error.to_string()),
    }
}

/// Our routes by an interface, and all others but the default and those by that interface.
async fn routes(handle: &Handle, index: u32) -> io::Result<(BTreeSet<Prefix>, Vec<Present>)> {
    let names = names(handle).await?;
    let (mut ours, mut present) = (BTreeSet::new(), Vec::new());
    let all = [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ];
    for question in all {
        let mut answers = std::pin::pin!(handle.route().get(question).execute());
        while let Some(route) = answers.try_next().await.map_err(io::Error::other)? {
            let Some(prefix) = prefix_of(&route) else {
                continue;
            };
            let mut links = route.attributes.iter();
            let link = links.find_map(|attribute| match attribute {
                RouteAttribute::Oif(link) => Some(*link),
                _ => None,
            });
            if link == Some(index) {
                if route.header.protocol == PROTOCOL && table_of(&route) == MAIN {
                    ours.insert(prefix);
                }
            } else if is_in_the_way(&route) {
                let link = link.and_then(|link| names.get(&link).cloned());
                present.push(Present { prefix, link });
            }
        }
    }
    Ok((ours, present))
}

/// Whether a route decides where packets go that are not this machine's own: in a table that is asked, and of a kind
/// that leads somewhere or refuses.
fn is_in_the_way(route: &RouteMessage) -> bool {
    let leads = matches!(
        route.header.kind,
        RouteType::Unicast
            | RouteType::Local
            | RouteType::BlackHole
            | RouteType::Unreachable
            | RouteType::Prohibit
    );
    leads && [MAIN, LOCAL].contains(&table_of(route))
}

fn table_of(route: &RouteMessage) -> u32 {
    let mut attributes = route.attributes.iter();
    let table = attributes.find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(route.header.table.into())
}

/// The destination of a route that is not the default.
fn prefix_of(route: &RouteMessage) -> Option<Prefix> {
    let length = route.header.destination_prefix_length;
    let mut attributes = route.attributes.iter();
    let to = attributes.find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(IpAddr::V4(*to)),
        RouteAttribute::Destination(RouteAddress::Inet6(to)) => Some(IpAddr::V6(*to)),
        _ => None,
    })?;
    (length > 0).then(|| Prefix::around(to, length))
}

async fn names(handle: &Handle) -> io::Result<HashMap<u32, String>> {
    let mut names = HashMap::new();
    let mut links = std::pin::pin!(handle.link().get().execute());
    while let Some(link) = links.try_next().await.map_err(io::Error::other)? {
        let mut attributes = link.attributes.into_iter();
        let name = attributes.find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        names.extend(name.map(|name| (link.header.index, name)));
    }
    Ok(names)
}

fn route(exit: Exit, prefix: Prefix) -> RouteMessage {
    // Both addresses are of one family, so that neither call can fail.
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .output_interface(exit.index)
        .protocol(PROTOCOL)
        .scope(RouteScope::Link);
    if let Ok(with) = builder
        .clone()
        .destination_prefix(prefix.address(), prefix.length())
    {
        builder = with;
    }
    let is_of_family = |own: &IpAddr| own.is_ipv4() == prefix.address().is_ipv4();
    let source = exit.own.into_iter().find(is_of_family);
    if let Some(with) = source.and_then(|source| builder.clone().pref_source(source).ok()) {
        builder = with;
    }
    builder.build()
}

/// Whether the kernel passes packets on that came by an interface; `None` where nobody can tell.
pub(crate) fn forwards(interface: &str, is_ipv4: bool) -> Option<bool> {
    // IPv6 forwards by the setting for all, whatever the interface's says (ip-sysctl, `conf/all/forwarding`).
    let path = match is_ipv4 {
        true => format!("/proc/sys/net/ipv4/conf/{interface}/forwarding"),
        false => "/proc/sys/net/ipv6/conf/all/forwarding".to_owned(),
    };
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim() == "1")
}

/// The number of our routes in `ip route show`: 109. It is none of those that rtnetlink.h gives away.
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(109);
const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;
const LOCAL: u32 = 255;
