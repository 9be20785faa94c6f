//! Where the kernel sends what is meant for the peers: the kernel is asked for the route to each mesh address, as it
//! would be for an application that binds to nothing (RTM_GETROUTE, rtnetlink(7)). Sends nothing, and needs no rights.

use super::interface;
use agent::{PeerWays, Target};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Error, Handle, RouteMessageBuilder};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use wire::Way;

/// The interface by which packets of each family should leave: its index, or 0 while it carries none of them. A way
/// that cannot lead there is no news then, and is not looked for.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    v4: AtomicU32,
    v6: AtomicU32,
}

impl Exits {
    /// The interface `index`, for the families that it carries.
    pub(crate) fn set(&self, index: u32, [v4, v6]: [bool; 2]) {
        let of = |carries| if carries { index } else { 0 };
        self.v4.store(of(v4), Ordering::Relaxed);
        self.v6.store(of(v6), Ordering::Relaxed);
    }

    fn of(&self, address: IpAddr) -> u32 {
        let exit = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        exit.load(Ordering::Relaxed)
    }
}

/// The ways to the mesh addresses of `targets`; unknown where the kernel does not answer.
pub(crate) async fn ask(exits: &Exits, targets: &[Target]) -> Vec<PeerWays> {
    let ask = async |handle: Handle| {
        let mut kernel = Kernel {
            handle,
            names: HashMap::new(),
        };
        let mut peers = Vec::with_capacity(targets.len());
        for target in targets {
            let mut ways = unknown(target);
            for (address, way) in &mut ways {
                *way = kernel.way(exits.of(*address), *address).await;
            }
            peers.push(PeerWays {
                node: target.node,
                ways,
            });
        }
        peers
    };
    interface::netlink(ask).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "routes cannot be asked for");
        let nothing = |target: &Target| PeerWays {
            node: target.node,
            ways: unknown(target),
        };
        targets.iter().map(nothing).collect()
    })
}

fn unknown(target: &Target) -> [(IpAddr, Way); 2] {
    [target.v4.into(), target.v6.into()].map(|address| (address, Way::Unknown))
}

struct Kernel {
    handle: Handle,
    /// Names of interfaces that were asked for.
    names: HashMap<u32, Option<String>>,
}

impl Kernel {
    async fn way(&mut self, exit: u32, to: IpAddr) -> Way {
        if exit == 0 {
            return Way::Unknown;
        }
        match lead(&self.handle, to).await {
            Lead::Interface(index) if index == exit => Way::Tunnel,
            Lead::Interface(index) => self.name(index).await.map_or(Way::Unknown, Way::Link),
            Lead::Nowhere => Way::Nowhere,
            Lead::Unknown => Way::Unknown,
        }
    }

    async fn name(&mut self, index: u32) -> Option<String> {
        if let Some(known) = self.names.get(&index) {
            return known.clone();
        }
        let request = self.handle.link().get().match_index(index);
        let mut answers = std::pin::pin!(request.execute());
        let answer = answers.try_next().await.ok().flatten();
        let name = answer.and_then(|link| {
            let mut attributes = link.attributes.into_iter();
            attributes.find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
        });
        self.names.insert(index, name.clone());
        name
    }
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    Interface(u32),
    Nowhere,
    Unknown,
}

/// Where the kernel sends packets to `to`.
pub(super) async fn lead(handle: &Handle, to: IpAddr) -> Lead {
    let length = if to.is_ipv4() { 32 } else { 128 };
    let question = RouteMessageBuilder::<IpAddr>::new().destination_prefix(to, length);
    let Ok(question) = question else {
        return Lead::Unknown;
    };
    let mut answers = std::pin::pin!(handle.route().get(question.build()).execute());
    match answers.try_next().await {
        Ok(Some(route)) => of(&route),
        Err(Error::NetlinkError(error)) if REFUSALS.contains(&-error.raw_code()) => Lead::Nowhere,
        Ok(None) | Err(_) => Lead::Unknown,
    }
}

fn of(route: &RouteMessage) -> Lead {
    match route.header.kind {
        // Without an interface of its own there is no saying.
        RouteType::Unicast | RouteType::Local => {
            let mut attributes = route.attributes.iter();
            let oif = attributes.find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            oif.map_or(Lead::Unknown, Lead::Interface)
        }
        RouteType::BlackHole
        | RouteType::Unreachable
        | RouteType::Prohibit
        | RouteType::Throw
        | RouteType::Broadcast
        | RouteType::Anycast
        | RouteType::Multicast => Lead::Nowhere,
        _ => Lead::Unknown,
    }
}

/// How the kernel says that it has no way, or one that refuses: none, unreachable, prohibited, a black hole.
const REFUSALS: [i32; 5] = [
    libc::ENETUNREACH,
    libc::EHOSTUNREACH,
    libc::EACCES,
    libc::EINVAL,
    libc::ENETDOWN,
];
