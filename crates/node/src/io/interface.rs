//! Talk with the kernel about interfaces, by netlink, and what is asked before the mesh's own gets its addresses:
//! whether another one has some of its range.

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};
use rustix::net::{AddressFamily, SocketType, socket};
use std::io;
use std::net::IpAddr;
use wire::{Place, Prefix};

/// Why the interface could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// Another interface has an address in the mesh range.
    #[error(
        "the mesh range {range} collides with {address} on another interface of this machine: give that interface another address, or the mesh another range (--mesh-v4, --mesh-v6 at the controller)"
    )]
    Collision {
        /// The mesh range.
        range: Prefix,
        /// The address in it.
        address: IpAddr,
    },
    /// The interface is gone.
    #[error("interface {0} is gone")]
    Gone(String),
    /// The system refused.
    #[error("cannot set up interface {name}: {source}")]
    Refused {
        /// The interface's name.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// The index of an interface by name.
pub(crate) fn index_of(name: &str) -> io::Result<u32> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(&any, name)?)
}

/// Looks for the mesh's ranges on the machine's other interfaces.
///
/// # Errors
/// When one of them has an address there.
pub(crate) async fn refuse_collisions(name: &str, place: &Place) -> Result<(), InterfaceError> {
    let index = index_of(name).map_err(|_| InterfaceError::Gone(name.to_owned()))?;
    let look = async |handle: Handle| refuse_collision(&handle, index, &ranges(place)).await;
    netlink(look).await.map_err(|error| refused(name, error))?
}

/// A node's addresses with the lengths of their ranges.
fn ranges(place: &Place) -> [(IpAddr, u8); 2] {
    [
        (IpAddr::V4(place.v4.0), place.v4.1),
        (IpAddr::V6(place.v6.0), place.v6.1),
    ]
}

/// Talks to the kernel on the calling thread: the right to change an interface is that thread's, and no
/// other's (`rights.rs`).
pub(super) async fn netlink<T>(talk: impl AsyncFnOnce(Handle) -> T) -> io::Result<T> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::select! {
        biased;
        said = talk(handle) => Ok(said),
        // It ends when its handle is gone, or its socket fails.
        () = connection => Err(io::Error::other("the kernel's answer is missing")),
    }
}

/// The interface with another MTU; super-packets are made to fit one batch of datagrams.
pub(super) fn with_mtu(index: u32, mtu: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
        .mtu(mtu)
        .append_extra_attribute(LinkAttribute::GsoMaxSegs(batch_segments(mtu)))
}

/// Packets of the interface's MTU that fit one batch of datagrams: 64, or one datagram's most bytes.
fn batch_segments(mtu: u32) -> u32 {
    let datagram = mtu + tunnel::DATA_OVERHEAD as u32;
    (tunnel::MAX_DATAGRAM as u32 / datagram).clamp(1, 64)
}

/// Lets super-packets hold what fits one batch of datagrams, packets being of so many bytes at least: where
/// the way to a peer is narrow, a batch has room for more of them.
pub(crate) async fn set_segments(name: &str, packet: u32) -> Result<(), InterfaceError> {
    let index = index_of(name).map_err(|_| InterfaceError::Gone(name.to_owned()))?;
    let set = LinkUnspec::new_with_index(index)
        .append_extra_attribute(LinkAttribute::GsoMaxSegs(batch_segments(packet)))
        .build();
    let change = async |handle: Handle| handle.link().set(set).execute().await;
    carried_out(netlink(change).await).map_err(|error| refused(name, error))
}

fn carried_out(result: io::Result<Result<(), rtnetlink::Error>>) -> io::Result<()> {
    result?.map_err(|error| io::Error::other(error.to_string()))
}

fn refused(name: &str, source: io::Error) -> InterfaceError {
    InterfaceError::Refused {
        name: name.to_owned(),
        source,
    }
}

async fn refuse_collision(
    handle: &Handle,
    own: u32,
    ranges: &[(IpAddr, u8)],
) -> Result<(), InterfaceError> {
    let mut addresses = handle.address().get().execute();
    // Without the list there is nothing to hold against; adding the address will say what is wrong.
    while let Ok(Some(message)) = addresses.try_next().await {
        let address = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
        let Some(address) = address.filter(|_| message.header.index != own) else {
            continue;
        };
        if let Some((base, prefix)) = ranges
            .iter()
            .find(|(base, prefix)| in_range(address, *base, *prefix))
        {
            return Err(InterfaceError::Collision {
                range: Prefix::around(*base, *prefix),
                address,
            });
        }
    }
    Ok(())
}

/// Whether `address` lies in the range of `base` and `prefix`.
pub(crate) fn in_range(address: IpAddr, base: IpAddr, prefix: u8) -> bool {
    match (address, base) {
        (IpAddr::V4(address), IpAddr::V4(base)) => {
            let shift = 32 - u32::from(prefix.min(32));
            u32::from(address).checked_shr(shift) == u32::from(base).checked_shr(shift)
        }
        (IpAddr::V6(address), IpAddr::V6(base)) => {
            let shift = 128 - u32::from(prefix.min(128));
            u128::from(address).checked_shr(shift) == u128::from(base).checked_shr(shift)
        }
        _ => false,
    }
}

/// Packets that may wait while no core runs the data thread. The driver's 500 are gone in some
/// milliseconds of a fast UDP flow.
pub(crate) const QUEUE_LEN: u32 = 4_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_packet_fits_a_batch() {
        assert_eq!(batch_segments(1420), 45);
        assert_eq!(batch_segments(1280), 49);
        assert_eq!(batch_segments(65_000), 1);
    }

    #[test]
    fn a_collision_names_the_network_and_not_the_nodes_address() {
        let error = InterfaceError::Collision {
            range: Prefix::around("10.76.0.3".parse().unwrap(), 15),
            address: "10.77.1.1".parse().unwrap(),
        };
        let said = error.to_string();
        assert!(
            said.contains("range 10.76.0.0/15 collides with 10.77.1.1 "),
            "{said}"
        );
    }

    #[test]
    fn a_range_holds_its_own_addresses_only() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(in_range(ip("10.76.9.9"), ip("10.76.0.2"), 16));
        assert!(!in_range(ip("10.78.0.1"), ip("10.76.0.2"), 16));
        assert!(in_range(ip("fd00::9"), ip("fd00::1"), 64));
        assert!(!in_range(ip("fd00:0:0:1::9"), ip("fd00::1"), 64));
        assert!(!in_range(ip("10.76.9.9"), ip("fd00::1"), 64));
        assert!(in_range(ip("8.8.8.8"), ip("10.76.0.2"), 0));
    }
}
