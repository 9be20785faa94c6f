//! The mesh's address ranges: a node's number in them is its host part, in both families.

use keys::{MeshId, SegmentId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::Prefix;
use wire::place::{PREFIX_V4, PREFIX_V6};

/// Both ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    v4: (Ipv4Addr, u8),
    v6: (Ipv6Addr, u8),
}

/// Why ranges cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No room, or no mesh's worth of it.
    #[error("the mesh's IPv4 range {0}/{1} must have a prefix length from 8 to 30")]
    V4(Ipv4Addr, u8),
    /// Numbers would not fit.
    #[error("the mesh's IPv6 range {0}/{1} must have a prefix length from 8 to 112")]
    V6(Ipv6Addr, u8),
    /// Host bits set: probably a typing error.
    #[error("{0}/{1} is not the beginning of a range: host bits are set")]
    HostBits(std::net::IpAddr, u8),
    /// Packets to the controller would enter the tunnel.
    #[error(
        "the mesh's range {0}/{1} lies over {2}, at which nodes are to reach this controller: choose another \
         range (--mesh-v4, --mesh-v6), or another address"
    )]
    Over(IpAddr, u8, IpAddr),
    /// Nodes have numbers that the range does not hold.
    #[error(
        "the mesh has a node with number {0}, but its IPv4 range ends at {1}: enlarge the range"
    )]
    TooSmall(u32, u32),
}

impl Network {
    /// Checks the ranges of a segment. Without one for IPv6, it is `fd` and the first 7 bytes of the mesh's id, the last
    /// two of them combined (XOR) with the segment's number.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub(crate) fn new(
        v4: (Ipv4Addr, u8),
        v6: Option<(Ipv6Addr, u8)>,
        (mesh, segment): (MeshId, SegmentId),
    ) -> Result<Self, NetworkError> {
        let v6 = v6.unwrap_or_else(|| (unique_local(mesh, segment), 64));
        if !PREFIX_V4.contains(&v4.1) {
            return Err(NetworkError::V4(v4.0, v4.1));
        }
        if !PREFIX_V6.contains(&v6.1) {
            return Err(NetworkError::V6(v6.0, v6.1));
        }
        if v4.0.to_bits() & (u32::MAX >> v4.1) != 0 {
            return Err(NetworkError::HostBits(v4.0.into(), v4.1));
        }
        if v6.0.to_bits() & (u128::MAX >> v6.1) != 0 {
            return Err(NetworkError::HostBits(v6.0.into(), v6.1));
        }
        Ok(Self { v4, v6 })
    }

    /// The fault of the range that `address` is in.
    pub(crate) fn over(&self, address: IpAddr) -> NetworkError {
        let (base, len) = match address.to_canonical() {
            IpAddr::V4(_) => (IpAddr::V4(self.v4.0), self.v4.1),
            IpAddr::V6(_) => (IpAddr::V6(self.v6.0), self.v6.1),
        };
        NetworkError::Over(base, len, address)
    }

    /// The highest number that is an address in both ranges; all ones is IPv4's broadcast.
    pub(crate) fn last_host(&self) -> u32 {
        let v4 = (u32::MAX >> self.v4.1) - 1;
        let v6 = u32::try_from(u128::MAX >> self.v6.1).unwrap_or(u32::MAX);
        v4.min(v6)
    }

    /// Whether an address is in one of the ranges.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => (v4.to_bits() ^ self.v4.0.to_bits()) >> (32 - self.v4.1) == 0,
            IpAddr::V6(v6) => (v6.to_bits() ^ self.v6.0.to_bits()) >> (128 - self.v6.1) == 0,
        }
    }

    /// Whether an address could be in a range of both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let v4 = self.contains(other.v4.0.into()) || other.contains(self.v4.0.into());
        let v6 = self.contains(other.v6.0.into()) || other.contains(self.v6.0.into());
        v4 || v6
    }

    /// Whether an address of one of the ranges is in a prefix.
    pub(crate) fn is_met_by(&self, prefix: &Prefix) -> bool {
        let ranges = [
            Prefix::around(self.v4.0.into(), self.v4.1),
            Prefix::around(self.v6.0.into(), self.v6.1),
        ];
        ranges.iter().any(|range| range.overlaps(prefix))
    }

    /// The IPv4 range, as people write it.
    pub(crate) fn range_v4(&self) -> String {
        format!("{}/{}", self.v4.0, self.v4.1)
    }

    /// The IPv6 range, as people write it.
    pub(crate) fn range_v6(&self) -> String {
        format!("{}/{}", self.v6.0, self.v6.1)
    }

    /// The address with this number, and the range's prefix length.
    pub(crate) fn v4(&self, host: u32) -> (Ipv4Addr, u8) {
        (Ipv4Addr::from_bits(self.v4.0.to_bits() | host), self.v4.1)
    }

    /// The address with this number, and the range's prefix length.
    pub(crate) fn v6(&self, host: u32) -> (Ipv6Addr, u8) {
        let bits = self.v6.0.to_bits() | u128::from(host);
        (Ipv6Addr::from_bits(bits), self.v6.1)
    }
}

fn unique_local(mesh: MeshId, segment: SegmentId) -> Ipv6Addr {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..8].copy_from_slice(&mesh.0[..7]);
    let [.., high, low] = segment.0.to_be_bytes();
    bytes[6] ^= high;
    bytes[7] ^= low;
    Ipv6Addr::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 76, 0, 0), 16);

    #[test]
    fn a_number_is_the_same_host_in_both_ranges() {
        let network = Network::new(V4, None, (MeshId([0xab; 16]), SegmentId::FIRST)).unwrap();
        assert_eq!(network.v4(258), (Ipv4Addr::new(10, 76, 1, 2), 16));
        let v6: Ipv6Addr = "fdab:abab:abab:abab::102".parse().unwrap();
        assert_eq!(network.v6(258), (v6, 64));
        assert_eq!(network.last_host(), 65_534);
    }

    #[test]
    fn two_segments_of_a_mesh_have_ranges_of_their_own_by_default() {
        let of = |v4, number| Network::new(v4, None, (MeshId([0xab; 16]), SegmentId(number)));
        let other: Ipv4Addr = [10, 78, 0, 0].into();
        let (first, second) = (of(V4, 0).unwrap(), of((other, 16), 1).unwrap());
        assert!(!first.overlaps(&second) && !second.overlaps(&first));
        let inside: Ipv4Addr = [10, 76, 8, 0].into();
        let within = of((inside, 24), 2).unwrap();
        assert!(first.overlaps(&within) && within.overlaps(&first));
        assert!(of(V4, 0).unwrap().overlaps(&of((other, 16), 0).unwrap()));
    }

    #[test]
    fn a_prefix_that_holds_some_of_a_range_or_is_within_it_meets_it() {
        let network = Network::new(V4, None, (MeshId([0xab; 16]), SegmentId::FIRST)).unwrap();
        let meets = |text: &str| network.is_met_by(&text.parse().unwrap());
        for text in [
            "10.0.0.0/8",
            "10.76.0.0/16",
            "10.76.9.0/24",
            "fdab:abab:abab:abab::/64",
        ] {
            assert!(meets(text), "{text}");
        }
        for text in ["10.77.0.0/16", "192.168.0.0/16", "fdab:abab:abab:abac::/64"] {
            assert!(!meets(text), "{text}");
        }
    }

    #[test]
    fn ranges_without_room_or_with_host_bits_are_refused() {
        let mesh = (MeshId([0; 16]), SegmentId::FIRST);
        assert!(Network::new((V4.0, 31), None, mesh).is_err());
        assert!(Network::new((Ipv4Addr::new(10, 76, 0, 1), 16), None, mesh).is_err());
        assert!(Network::new(V4, Some((Ipv6Addr::LOCALHOST, 64)), mesh).is_err());
    }
}
