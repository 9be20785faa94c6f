//! The parameters of a tunnel, which stay as they are from its start to its end.

use crate::inside::Inside;
use keys::WgSecret;

/// The parameters of a tunnel.
pub struct Config {
    /// This node's WireGuard key, which no other of its tunnels has.
    pub secret: WgSecret,
    /// MTU of the interface, in bytes: the most that padding may reach.
    pub mtu: usize,
    /// Seeds the jitter, and tells cookies of different starts apart; nothing secret depends on it.
    pub seed: u64,
    /// The inside of the mesh.
    pub inside: Inside,
}
