//! The words of a node and its controller to each other about the segments that the node is in. Refuses to know which
//! segments there are.

use crate::name::SegmentName;
use keys::WgPublicKey;
use serde::{Deserialize, Serialize};

/// Most segments of a mesh, and so of a node. A handshake initiation is tried against the key of each.
pub const MAX_SEGMENTS: usize = 16;

/// Asks for a place in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The segment; `None`: the first one that the token allows.
    pub name: Option<SegmentName>,
    /// The node's WireGuard key in it, and in no other.
    pub wg: WgPublicKey,
}

impl Ask {
    /// Asks for the segment that the token says, with this key.
    pub fn unnamed(wg: WgPublicKey) -> Self {
        Self { name: None, wg }
    }
}

/// Why a node has no place in a segment that it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unplaced {
    /// The mesh has no segment of that name.
    #[error("the mesh has no segment of this name")]
    Unknown,
    /// Neither its token nor an operator lets the node into it.
    #[error(
        "neither this node's token nor an operator lets it into this segment: ask for `meshctl node join`"
    )]
    NotAllowed,
    /// Another node, or another segment, has the WireGuard key.
    #[error("this WireGuard key is in use already: remove its file and start again")]
    KeyTaken,
    /// The WireGuard key is of low order.
    #[error("this WireGuard key is weak: remove its file and start again")]
    WeakKey,
    /// The controller cannot write its log now.
    #[error("the controller cannot record it now: try again later")]
    Busy,
}
