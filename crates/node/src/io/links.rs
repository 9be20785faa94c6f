//! The mesh's interface as the kernel has it: looking, putting right what somebody changed, and hearing when
//! something may have changed. Decides nothing (`standing.rs` does), but for one thing: a route that is there already
//! is never added.

use super::interface::{self, InterfaceError};
use super::ways::{Lead, lead};
use crate::standing::{Fault, Link, Seen, Wanted};
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::{Error, Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Looks at the interface, and at who else has addresses of its ranges.
pub(crate) async fn look(wanted: &Wanted) -> io::Result<Seen> {
    let look = async |handle: Handle| {
        let mut seen = Seen {
            link: link(&handle, wanted.index).await?,
            ipv6_off: ipv6_off(wanted),
            ..Seen::default()
        };
        let mut strangers = Vec::new();
        let mut addresses = std::pin::pin!(handle.address().get().execute());
        while let Some(message) = addresses.try_next().await.map_err(io_error)? {
            let Some(address) = local(&message) else {
                continue;
            };
            if message.header.index == wanted.index {
                seen.own.push((address, message.header.prefix_len));
            } else if is_inside(wanted, address) {
                strangers.push((address, message.header.index));
            }
        }
        for (address, index) in strangers {
            let name = link(&handle, index).await?.map(|link| link.name);
            seen.foreign.extend(name.map(|name| (address, name)));
        }
        Ok(seen)
    };
    interface::netlink(look).await?
}

/// Puts right whatever of `faults` a message to the kernel can put right; why the first that failed did.
pub(crate) async fn restore(wanted: &Wanted, faults: &[Fault]) -> io::Result<()> {
    let restore = async |handle: Handle| {
        let mut result = Ok(());
        if faults
            .iter()
            .any(|fault| matches!(fault, Fault::Renamed(_)))
        {
            result = rename(&handle, wanted).await;
        }
        // All of it, whichever is wrong: what an interface was made with belongs together.
        let set = interface::with_mtu(wanted.index, wanted.mtu)
            .append_extra_attribute(LinkAttribute::TxQueueLen(wanted.queue_len))
            .up()
            .build();
        result = result.and(carried_out(handle.link().set(set).execute().await));
        for fault in faults {
            if let Fault::Missing(address, len) = fault {
                let add = handle.address().add(wanted.index, *address, *len);
                result = result.and(carried_out(add.execute().await));
            }
        }
        result
    };
    interface::netlink(restore).await?
}

/// Adds the route of a range that leads elsewhere, if it is missing; whether it was.
pub(crate) async fn restore_routes(wanted: &Wanted, carries: [bool; 2]) -> io::Result<Vec<String>> {
    let restore = async |handle: Handle| {
        let mut restored = Vec::new();
        let ((v4, v4_len), (v6, v6_len)) = (wanted.v4, wanted.v6);
        let ranges = [(IpAddr::V4(v4), v4_len), (IpAddr::V6(v6), v6_len)];
        for ((own, len), carries) in ranges.into_iter().zip(carries) {
            let probe = other(own, len);
            if !carries || lead(&handle, probe).await == Lead::Interface(wanted.index) {
                continue;
            }
            // The route of one address may lead elsewhere beside ours: the kernel says if ours is there.
            match handle.route().add(range(wanted, own, len)).execute().await {
                Ok(()) => restored.push(format!("{}/{len}", base(own, len))),
                Err(error) => match io_error(error) {
                    error if error.kind() == io::ErrorKind::AlreadyExists => {}
                    error => return Err(error),
                },
            }
        }
        Ok(restored)
    };
    interface::netlink(restore).await?
}

/// Gives the interface another MTU.
pub(crate) async fn set_mtu(wanted: &Wanted) -> Result<(), InterfaceError> {
    let set = interface::with_mtu(wanted.index, wanted.mtu).build();
    let change = async |handle: Handle| carried_out(handle.link().set(set).execute().await);
    let refused = |source| InterfaceError::Refused {
        name: wanted.name.clone(),
        source,
    };
    interface::netlink(change)
        .await
        .map_err(refused)?
        .map_err(refused)
}

/// Why interfaces of this name can have no IPv6 address, if they cannot.
pub(crate) fn ipv6_off(wanted: &Wanted) -> Option<String> {
    let all = Path::new("/proc/sys/net/ipv6");
    if !all.exists() {
        return Some("this kernel runs without IPv6".to_owned());
    }
    // An interface that is gone, or too narrow for IPv6, has no setting of its own.
    let name = &wanted.name;
    let setting = all.join("conf").join(name).join("disable_ipv6");
    let setting = std::fs::read_to_string(setting).unwrap_or_default();
    (setting.trim() == "1").then(|| format!("net.ipv6.conf.{name}.disable_ipv6 is 1"))
}

async fn link(handle: &Handle, index: u32) -> io::Result<Option<Link>> {
    let request = handle.link().get().match_index(index);
    let mut answers = std::pin::pin!(request.execute());
    let message = match answers.try_next().await.map_err(io_error) {
        Ok(Some(message)) => message,
        Ok(None) => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut link = Link {
        name: String::new(),
        is_up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        queue_len: 0,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::TxQueueLen(len) => link.queue_len = len,
            _ => {}
        }
    }
    Ok(Some(link))
}

/// Older kernels rename no interface that is up.
async fn rename(handle: &Handle, wanted: &Wanted) -> io::Result<()> {
    let named = || {
        let set = LinkUnspec::new_with_index(wanted.index).name(wanted.name.clone());
        handle.link().set(set.build()).execute()
    };
    match carried_out(named().await) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let down = LinkUnspec::new_with_index(wanted.index).down().build();
            carried_out(handle.link().set(down).execute().await)?;
            carried_out(named().await)
        }
        result => result,
    }
}

/// The route that an address of this length brings.
fn range(wanted: &Wanted, own: IpAddr, len: u8) -> RouteMessage {
    match own {
        IpAddr::V4(own) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(base_v4(own, len), len)
            .output_interface(wanted.index)
            .pref_source(own)
            .protocol(RouteProtocol::Kernel)
            .scope(RouteScope::Link)
            .build(),
        IpAddr::V6(own) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(base_v6(own, len), len)
            .output_interface(wanted.index)
            .protocol(RouteProtocol::Kernel)
            .priority(KERNEL_METRIC_V6)
            .build(),
    }
}

/// An address of the range that is not this node's own.
fn other(own: IpAddr, len: u8) -> IpAddr {
    match own {
        IpAddr::V4(own) => {
            let base = u32::from(base_v4(own, len));
            let first = Ipv4Addr::from(base.wrapping_add(1));
            let other = if first == own { 2 } else { 1 };
            Ipv4Addr::from(base.wrapping_add(other)).into()
        }
        IpAddr::V6(own) => {
            let base = u128::from(base_v6(own, len));
            let first = Ipv6Addr::from(base.wrapping_add(1));
            let other = if first == own { 2 } else { 1 };
            Ipv6Addr::from(base.wrapping_add(other)).into()
        }
    }
}

fn base(own: IpAddr, len: u8) -> IpAddr {
    match own {
        IpAddr::V4(own) => base_v4(own, len).into(),
        IpAddr::V6(own) => base_v6(own, len).into(),
    }
}

fn base_v4(address: Ipv4Addr, len: u8) -> Ipv4Addr {
    let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) & !host)
}

fn base_v6(address: Ipv6Addr, len: u8) -> Ipv6Addr {
    let host = u128::MAX.checked_shr(len.into()).unwrap_or(0);
    Ipv6Addr::from(u128::from(address) & !host)
}

fn is_inside(wanted: &Wanted, address: IpAddr) -> bool {
    interface::in_range(address, wanted.v4.0.into(), wanted.v4.1)
        || interface::in_range(address, wanted.v6.0.into(), wanted.v6.1)
}

/// The address that an interface has itself: on a point-to-point link, `Address` is the other end's.
pub(super) fn local(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => return Some(*address),
            AddressAttribute::Address(address) => found = Some(*address),
            _ => {}
        }
    }
    found
}

fn carried_out(result: Result<(), Error>) -> io::Result<()> {
    match result.map_err(io_error) {
        // It is as it should be: somebody was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

// ---- news ---------------------------------------------------------------------------------------

/// The kernel's news that concern the interface and the mesh's ranges. A router has more routes than anybody wants
/// to hear of: the rest is left out here.
pub(crate) struct Interest {
    pub(crate) wanted: Wanted,
    /// The interface's index, which changes when it is made anew.
    pub(crate) index: Arc<AtomicU32>,
}

/// Says whenever something may have changed, until nobody listens. One that was not heard yet is enough.
pub(crate) async fn watch(interest: Interest, changed: mpsc::Sender<()>) {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv6Ifinfo,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
    ];
    while !changed.is_closed() {
        match rtnetlink::new_multicast_connection(&groups) {
            Ok((connection, _handle, mut events)) => {
                let hear = async {
                    while let Some((message, _)) = events.next().await {
                        if interest.concerns(&message) {
                            let _ = changed.try_send(());
                        }
                    }
                };
                tokio::select! {
                    () = connection => {}
                    () = hear => {}
                    () = changed.closed() => return,
                }
            }
            Err(error) => tracing::debug!(%error, "changes of the interface are not heard of"),
        }
        // Something may have been missed; and it is looked at every few seconds anyway.
        let _ = changed.try_send(());
        sleep(AGAIN).await;
    }
}

impl Interest {
    fn concerns(&self, message: &NetlinkMessage<Message>) -> bool {
        match &message.payload {
            NetlinkPayload::InnerMessage(message) => self.concerns_message(message),
            // News were lost.
            NetlinkPayload::Overrun(_) => true,
            _ => false,
        }
    }

    fn concerns_message(&self, message: &Message) -> bool {
        match message {
            Message::NewLink(link) | Message::DelLink(link) => self.is_ours(link),
            Message::NewAddress(address) | Message::DelAddress(address) => {
                address.header.index == self.index()
                    || local(address).is_some_and(|address| is_inside(&self.wanted, address))
            }
            Message::NewRoute(route) | Message::DelRoute(route) => self.is_route(route),
            Message::NewRule(_) | Message::DelRule(_) => true,
            _ => false,
        }
    }

    fn is_ours(&self, link: &LinkMessage) -> bool {
        let of_that_name = |attribute: &LinkAttribute| match attribute {
            LinkAttribute::IfName(name) => *name == self.wanted.name,
            _ => false,
        };
        link.header.index == self.index() || link.attributes.iter().any(of_that_name)
    }

    /// Whether a route leads by the interface, or may take addresses of the mesh away from it.
    fn is_route(&self, route: &RouteMessage) -> bool {
        let len = route.header.destination_prefix_length;
        route.attributes.iter().any(|attribute| match attribute {
            RouteAttribute::Oif(index) => *index == self.index(),
            RouteAttribute::Destination(RouteAddress::Inet(to)) => {
                len >= self.wanted.v4.1 && is_inside(&self.wanted, (*to).into())
            }
            RouteAttribute::Destination(RouteAddress::Inet6(to)) => {
                len >= self.wanted.v6.1 && is_inside(&self.wanted, (*to).into())
            }
            _ => false,
        })
    }

    fn index(&self) -> u32 {
        self.index.load(Ordering::Relaxed)
    }
}

/// The metric that the kernel gives the routes that IPv6 addresses bring (`IP6_RT_PRIO_ADDRCONF`).
const KERNEL_METRIC_V6: u32 = 256;
/// How long after a failure to listen again.
const AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_stands_for_a_range_is_in_it_and_not_this_nodes_own() {
        for (own, len, expected) in [
            ("10.76.0.2", 16, "10.76.0.1"),
            ("10.76.0.1", 16, "10.76.0.2"),
            ("10.76.3.6", 30, "10.76.3.5"),
            ("fd00::1", 64, "fd00::2"),
            ("fd00:0:0:1::7", 64, "fd00:0:0:1::1"),
        ] {
            let (own, expected): (IpAddr, IpAddr) =
                (own.parse().unwrap(), expected.parse().unwrap());
            assert_eq!(other(own, len), expected);
            assert!(interface::in_range(expected, own, len));
        }
    }

    #[test]
    fn of_all_routes_only_those_of_the_mesh_are_news() {
        let interest = Interest {
            wanted: Wanted {
                name: "meshd0".into(),
                index: 7,
                v4: ("10.76.0.2".parse().unwrap(), 16),
                v6: ("fd00::2".parse().unwrap(), 64),
                mtu: 1420,
                queue_len: 4000,
            },
            index: Arc::new(AtomicU32::new(7)),
        };
        let route = |to: &str, len, oif| {
            let route =
                RouteMessageBuilder::<IpAddr>::new().destination_prefix(to.parse().unwrap(), len);
            interest.is_route(&route.unwrap().output_interface(oif).build())
        };
        assert!(route("10.76.0.3", 32, 2));
        assert!(route("10.76.0.0", 16, 2));
        assert!(route("fd00::3", 128, 2));
        assert!(route("192.0.2.0", 24, 7), "by the interface itself");
        assert!(!route("10.0.0.0", 8, 2), "ours goes before it");
        assert!(!route("192.0.2.0", 24, 2));
        assert!(!route("fd01::", 64, 2));
    }
}
