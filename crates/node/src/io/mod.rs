//! Everything that touches the machine: clocks, the TUN device, the UDP socket, the interface and the
//! ways to its peers, its firewall table, the underlay's MTU, raw ICMP, rights. The only place that names TUN crates.

pub(crate) mod addresses;
pub(crate) mod clock;
mod control;
pub(crate) mod firewall;
pub(crate) mod host_routes;
pub(crate) mod icmp;
pub(crate) mod interface;
pub(crate) mod links;
pub(crate) mod mtu;
pub(crate) mod networks;
pub(crate) mod offload;
pub(crate) mod refusals;
pub mod rights;
pub(crate) mod sources;
pub(crate) mod tun;
pub(crate) mod udp;
pub(crate) mod ways;
