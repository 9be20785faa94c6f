//! The parameters of a node's data plane, which stay as they are from its start to its end.

use crate::inside::Inside;
use keys::WgSecret;

/// The parameters of a front door and the tunnel behind it.
pub struct Config {
    /// This node's WireGuard key.
    pub secret: WgSecret,
    /// MTU of the interface, in bytes: the most that padding may reach.
    pub mtu: usize,
    /// Initiations per second from the endpoints of peers, all together, above which a cookie is asked
    /// for; with cookies twice that are opened. Strangers have a part of it besides:
    /// [`crate::STRANGERS_PART`], [`crate::PROVEN_STRANGERS_PART`].
    pub handshakes_per_second: u64,
    /// Seeds the jitter, and tells cookies of different starts apart; nothing secret depends on it.
    pub seed: u64,
    /// The inside of the mesh.
    pub inside: Inside,
}
