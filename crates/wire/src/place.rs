//! A node's place in a segment of a mesh, signed by the authority: the controller's connection key alone cannot send
//! a node into another mesh, give it another address, or have a foreign prefix routed into its tunnel.

use crate::name::{NodeName, SegmentName};
use crate::signed::Signable;
use keys::{MeshId, NodeId, SegmentId};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Prefix lengths that a mesh's IPv4 range may have.
pub const PREFIX_V4: RangeInclusive<u8> = 8..=30;
/// Prefix lengths that a mesh's IPv6 range may have.
pub const PREFIX_V6: RangeInclusive<u8> = 8..=112;

/// A node's place in a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The node whose place it is: it is nobody else's.
    pub node: NodeId,
    /// The mesh.
    pub mesh: MeshId,
    /// The segment.
    pub segment: SegmentId,
    /// The segment's name, for people and for the names of interfaces and files.
    pub segment_name: SegmentName,
    /// The node's name in it.
    pub name: NodeName,
    /// The node's IPv4 address inside the segment and the segment's prefix length.
    pub v4: (Ipv4Addr, u8),
    /// The node's IPv6 address inside the segment and the segment's prefix length.
    pub v6: (Ipv6Addr, u8),
}

impl Signable for Place {
    const LABEL: &'static [u8] = b"meshd/v1 place";

    fn check(&self) -> Result<(), &'static str> {
        let (v4, v6) = (self.v4.0, self.v6.0);
        let unusable = [
            v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.is_link_local(),
            v6.is_unspecified() || v6.is_loopback() || v6.is_multicast(),
            v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
        ];
        let rules = [
            (
                PREFIX_V4.contains(&self.v4.1) && PREFIX_V6.contains(&self.v6.1),
                "a range of the mesh is too large or too small",
            ),
            (
                !unusable.contains(&true),
                "a mesh address is none that a node can have",
            ),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds);
        broken.map_or(Ok(()), |(_, rule)| Err(*rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(v4: (&str, u8), v6: (&str, u8)) -> Place {
        Place {
            node: NodeId([1; 32]),
            mesh: MeshId([2; 16]),
            segment: SegmentId::FIRST,
            segment_name: SegmentName::default(),
            name: "node-a".parse().unwrap(),
            v4: (v4.0.parse().unwrap(), v4.1),
            v6: (v6.0.parse().unwrap(), v6.1),
        }
    }

    #[test]
    fn a_place_is_an_address_in_a_range_of_reasonable_size() {
        let (v4, v6) = (("10.76.0.2", 16), ("fd00::2", 64));
        assert_eq!(place(v4, v6).check(), Ok(()));
        for (v4, v6) in [
            (("10.76.0.2", 0), v6),
            (("10.76.0.2", 31), v6),
            (v4, ("fd00::2", 0)),
            (v4, ("fd00::2", 128)),
            (("127.0.0.1", 16), v6),
            (("224.0.0.1", 16), v6),
            (v4, ("fe80::1", 64)),
            (v4, ("::ffff:10.76.0.2", 112)),
        ] {
            assert!(place(v4, v6).check().is_err(), "{v4:?} {v6:?}");
        }
    }
}
