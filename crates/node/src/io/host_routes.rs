//! Routes to single peers, by way of the mesh's own interface, with an MTU below the interface's: the kernel
//! then makes packets to that peer no larger, and tells so whoever sends them, while other peers keep
//! theirs. Within the mesh range on the mesh's interface, and nowhere else; they go with the interface.

use super::interface;
use super::mtu::{Kernel, metric};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

/// The MTU of packets to each address that is held to one, in bytes.
pub(crate) type Routes = BTreeMap<IpAddr, u32>;

/// The routes that were set.
#[derive(Debug)]
pub(crate) struct HostRoutes {
    interface: String,
    /// This node's addresses in the mesh, which packets to peers come from.
    own: [IpAddr; 2],
    held: Routes,
}

impl HostRoutes {
    /// None, on this interface.
    pub(crate) fn none(interface: &str, own: [IpAddr; 2]) -> Self {
        Self {
            interface: interface.to_owned(),
            own,
            held: BTreeMap::new(),
        }
    }

    /// Sets the routes to these addresses with these MTUs, in bytes, and puts back those that somebody
    /// else removed; removes those to all others.
    ///
    /// # Errors
    /// The last of the system's refusals. What is wanted is tried again with the next call.
    pub(crate) async fn follow(&mut self, wanted: Routes) -> io::Result<()> {
        if wanted.is_empty() && self.held.is_empty() {
            return Ok(());
        }
        let index = interface::index_of(&self.interface)?;
        let (own, held) = (self.own, &mut self.held);
        let change = async |handle: Handle| {
            let kernel = Kernel::new(handle.clone());
            let mut result = Ok(());
            for to in held.keys().copied().collect::<Vec<_>>() {
                if !wanted.contains_key(&to) {
                    // One that is not there any more is as good as removed.
                    let route = route(index, own, to, None);
                    let _ = handle.route().del(route).execute().await;
                    held.remove(&to);
                }
            }
            for (to, mtu) in &wanted {
                match state(&kernel, index, *to).await {
                    State::Held(found) if found == *mtu => {
                        held.insert(*to, *mtu);
                        continue;
                    }
                    State::Held(_) | State::Range => {}
                    State::Elsewhere => continue,
                }
                let route = route(index, own, *to, Some(*mtu));
                match handle.route().add(route).replace().execute().await {
                    Ok(()) => drop(held.insert(*to, *mtu)),
                    Err(error) => result = Err(io::Error::other(error.to_string())),
                }
            }
            result
        };
        interface::netlink(change).await?
    }
}

/// Where packets to an address go.
enum State {
    /// By its own route, with this MTU.
    Held(u32),
    /// With the mesh range.
    Range,
    /// Not by the mesh's interface: there is no IPv6, or somebody else's route, which stays as it is.
    Elsewhere,
}

async fn state(kernel: &Kernel, index: u32, to: IpAddr) -> State {
    let Some(entry) = kernel.entry(to).await else {
        return State::Elsewhere;
    };
    if !entry.attributes.contains(&RouteAttribute::Oif(index)) {
        return State::Elsewhere;
    }
    match metric(&entry.attributes) {
        Some(mtu) if entry.header.destination_prefix_length == whole(to) => State::Held(mtu),
        _ => State::Range,
    }
}

fn route(index: u32, own: [IpAddr; 2], to: IpAddr, mtu: Option<u32>) -> RouteMessage {
    // Both addresses are of one family, so that neither call can fail.
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .output_interface(index)
        .protocol(RouteProtocol::Static)
        .scope(RouteScope::Link);
    if let Ok(with) = builder.clone().destination_prefix(to, whole(to)) {
        builder = with;
    }
    let source = own.into_iter().find(|own| own.is_ipv4() == to.is_ipv4());
    if let Some(with) = source.and_then(|source| builder.clone().pref_source(source).ok()) {
        builder = with;
    }
    let mut route = builder.build();
    if let Some(mtu) = mtu {
        let metrics = RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]);
        route.attributes.push(metrics);
    }
    route
}

/// The length of the prefix that is one address.
fn whole(to: IpAddr) -> u8 {
    if to.is_ipv4() { 32 } else { 128 }
}
