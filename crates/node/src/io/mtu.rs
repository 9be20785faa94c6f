//! The kernel's knowledge of the underlay's MTU, and when that may have changed. Decides nothing.

use super::interface;
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType,
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// The MTU of the ways to these addresses, as far as this machine knows by itself: what its route says,
/// else its link. Answers that routers are said to have given are left out: anybody can write such an answer.
/// An address without a route is left out too. Sends nothing.
pub(crate) async fn path_mtus(
    destinations: impl IntoIterator<Item = SocketAddr>,
) -> Vec<(IpAddr, u32)> {
    let ask = async |handle: Handle| {
        let mut kernel = Kernel::new(handle);
        let mut paths = Vec::new();
        for to in destinations {
            if let Some(mtu) = kernel.path_mtu(to.ip()).await {
                paths.push((to.ip(), mtu));
            }
        }
        paths
    };
    interface::netlink(ask).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "routes cannot be asked for");
        Vec::new()
    })
}

/// The kernel's messages about routes and links.
pub(super) struct Kernel {
    handle: Handle,
    /// Links that were asked about, with their MTU.
    links: HashMap<u32, Option<u32>>,
}

impl Kernel {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            handle,
            links: HashMap::new(),
        }
    }

    /// The entry of the table that decides the way to an address, not what was made of it for this
    /// destination: that may hold an MTU out of an ICMP error.
    pub(super) async fn entry(&self, to: IpAddr) -> Option<RouteMessage> {
        self.route(to, RouteFlags::FibMatch).await
    }

    async fn path_mtu(&mut self, to: IpAddr) -> Option<u32> {
        let entry = self.entry(to).await?;
        let own = metric(&entry.attributes);
        let mut links = hops(&entry.attributes);
        if links.is_empty() {
            // A next hop that is an object of its own is named only in the resolved route.
            links = hops(&self.route(to, RouteFlags::empty()).await?.attributes);
        }
        let mut narrowest = None;
        for (link, hop) in links {
            let mtu = match hop.or(own) {
                Some(mtu) => Some(mtu),
                None => self.link_mtu(link).await,
            };
            narrowest = narrowest.into_iter().chain(mtu).min();
        }
        // An IPv4 packet has 16 bits for its length.
        narrowest.map(|mtu| if to.is_ipv4() { mtu.min(65_535) } else { mtu })
    }

    async fn route(&self, to: IpAddr, flags: RouteFlags) -> Option<RouteMessage> {
        let length = if to.is_ipv4() { 32 } else { 128 };
        let question = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to, length)
            .ok()?;
        let mut question = question.build();
        question.header.flags = flags;
        let mut answers = std::pin::pin!(self.handle.route().get(question).execute());
        let answer = answers.try_next().await.ok()??;
        let leads = matches!(answer.header.kind, RouteType::Unicast | RouteType::Local);
        leads.then_some(answer)
    }

    async fn link_mtu(&mut self, index: u32) -> Option<u32> {
        if let Some(known) = self.links.get(&index) {
            return *known;
        }
        let request = self.handle.link().get().match_index(index);
        let mut answers = std::pin::pin!(request.execute());
        let answer = answers.try_next().await.ok().flatten();
        let mtu = answer.and_then(|link| {
            link.attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::Mtu(mtu) => Some(*mtu),
                    _ => None,
                })
        });
        self.links.insert(index, mtu);
        mtu
    }
}

/// The links that a route leads to, each with an MTU of its own if it has one.
fn hops(attributes: &[RouteAttribute]) -> Vec<(u32, Option<u32>)> {
    let each = attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Oif(link) => vec![(*link, None)],
        RouteAttribute::MultiPath(hops) => hops
            .iter()
            .map(|hop| (hop.interface_index, metric(&hop.attributes)))
            .collect(),
        _ => Vec::new(),
    });
    each.collect()
}

/// The MTU that a route has been given.
pub(super) fn metric(attributes: &[RouteAttribute]) -> Option<u32> {
    let metrics = attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => Some(metrics),
        _ => None,
    });
    metrics.flatten().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// Says whenever the underlay's MTU may have changed, until nobody listens: at once when a link or
/// an address of this machine changes, and every [`INTERVAL`] for the rest. Routes are of the rest:
/// a router has too many of them to hear of each.
pub(crate) async fn watch(changed: mpsc::Sender<()>) {
    tokio::select! {
        () = links(&changed) => {}
        () = intervals(&changed) => {}
        () = changed.closed() => {}
    }
}

async fn links(changed: &mpsc::Sender<()>) {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    match rtnetlink::new_multicast_connection(&groups) {
        Ok((connection, _handle, mut events)) => {
            let hear = async {
                while events.next().await.is_some() {
                    say(changed);
                    // Changes come in flocks, and routes follow their links a moment later: once
                    // more when it has settled, and no oftener than that.
                    let flock = async { while events.next().await.is_some() {} };
                    let _ = timeout(SETTLED, flock).await;
                    say(changed);
                }
            };
            tokio::join!(connection, hear);
        }
        Err(error) => tracing::debug!(%error, "changes of links are not heard of"),
    }
    // Without news there are still the intervals.
    std::future::pending().await
}

async fn intervals(changed: &mpsc::Sender<()>) {
    loop {
        sleep(INTERVAL).await;
        say(changed);
    }
}

/// One that was not heard yet is enough.
fn say(changed: &mpsc::Sender<()>) {
    let _ = changed.try_send(());
}

/// How long after a change to look once more.
const SETTLED: Duration = Duration::from_secs(1);
/// How often to look without news.
const INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_way_to_oneself_is_as_wide_as_the_loopback_link() {
        let link = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap();
        let link: u32 = link.trim().parse().unwrap();
        let to = async |text: &str| path_mtus([text.parse().unwrap()]).await;
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(to("127.0.0.1:9").await, [(here, link.min(65_535))]);
        assert!(
            to("255.255.255.255:9").await.is_empty(),
            "broadcast is no way"
        );
        if std::net::UdpSocket::bind("[::1]:0").is_ok() {
            assert_eq!(to("[::1]:9").await, [("::1".parse().unwrap(), link)]);
        }
    }
}
