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
