//! Networks behind nodes, as an operator sees them.

use crate::name::{NodeName, SegmentName};
use crate::prefix::Prefix;
use serde::{Deserialize, Serialize};

/// A network behind a node, which an operator approves or withdraws.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRequest {
    /// The network.
    pub prefix: Prefix,
    /// The segment; may be left out for a node that is in one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentName>,
}

/// A network behind a node. Members send packets for it to the node where all of the last three hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// The node.
    pub node: NodeName,
    /// The segment.
    pub segment: SegmentName,
    /// The network.
    pub prefix: Prefix,
    /// Whether the node offers it.
    pub advertised: bool,
    /// Whether an operator has approved it.
    pub approved: bool,
    /// Whether the epoch in force has it: the node has to be a member.
    pub in_force: bool,
}

/// The networks behind nodes in a segment, by a node's own daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRoutes {
    /// Whether packets go to networks behind peers.
    pub accepts: bool,
    /// The networks that the node offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<OwnRoute>,
    /// The networks behind peers by the epoch in force, where the node accepts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerRoute>,
}

/// A network that a node offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRoute {
    /// The network.
    pub prefix: Prefix,
    /// Whether the epoch in force has it behind this node.
    pub in_force: bool,
    /// Why no packets pass between the mesh and the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A network behind a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRoute {
    /// The network.
    pub prefix: Prefix,
    /// The peer.
    pub node: NodeName,
    /// Whether this machine's packets for it go to the peer.
    pub routed: bool,
    /// Why they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
