//! A peer as an epoch has it, for the data plane. Owns the pair's secrets; refuses to derive them.

use keys::{Psk, SharedSecret};
use std::sync::Arc;

/// A peer of the epoch being installed.
#[derive(Debug)]
pub struct PeerPlan {
    /// The peer, from the roster.
    pub member: wire::Member,
    /// The pair's PSK.
    pub psk: Psk,
    /// The pair's static-static secret.
    pub shared: Arc<SharedSecret>,
}
