//! Everything that touches the machine: clocks, the TUN device, the UDP socket, the interface's
//! addresses, the underlay's MTU, raw ICMP. The only place that names TUN crates.

pub(crate) mod clock;
pub(crate) mod icmp;
pub(crate) mod interface;
pub(crate) mod mtu;
pub(crate) mod offload;
pub(crate) mod tun;
pub(crate) mod udp;
