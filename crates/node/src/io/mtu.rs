//! What the kernel knows of the underlay's MTU, and when that may have changed. Decides nothing.

use futures_util::StreamExt as _;
use rtnetlink::MulticastGroup;
use rustix::net::sockopt::{ip_mtu, ipv6_mtu};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// The MTU of the path to an address: its route's, its link's, or what routers on the way have
/// answered, whichever holds. Sends nothing.
///
/// # Errors
/// When there is no route.
pub(crate) fn path_mtu(to: SocketAddr) -> io::Result<u32> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    // The kernel tells it of a connected socket, as it was when that connected: a new one each time.
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &to)?;
    Ok(match to {
        SocketAddr::V4(_) => ip_mtu(&socket)?,
        SocketAddr::V6(_) => ipv6_mtu(&socket)?,
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

    #[test]
    fn the_way_to_oneself_is_as_wide_as_the_loopback_link() {
        let link = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap();
        let link: u32 = link.trim().parse().unwrap();
        let to = |text: &str| path_mtu(text.parse().unwrap());
        // An IPv4 packet has 16 bits for its length, whatever the link could carry.
        assert_eq!(to("127.0.0.1:9").unwrap(), link.min(65_535));
        assert!(to("255.255.255.255:9").is_err(), "broadcast is no way");
        if std::net::UdpSocket::bind("[::1]:0").is_ok() {
            assert_eq!(to("[::1]:9").unwrap(), link);
        }
    }
}
