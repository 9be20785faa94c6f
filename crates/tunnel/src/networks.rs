//! Networks behind nodes: to which peer a packet goes that is for no address of the mesh, and for whom a peer may speak
//! beside itself. Asked only where the exact addresses of the mesh ([`crate::allowed_ips`]) do not answer, so that they
//! cost the way of a packet inside the mesh nothing.
//!
//! Refuses networks that an update gives and this node did not agree to: behind itself, those that it does not offer;
//! behind others, all unless it accepts any. Refuses any that meets the inside of a mesh.

use crate::allowed_ips::{AllowedIps, PeerId};
use crate::inside::{Inside, Range, bits};
use filter::Ends;
use keys::WgPublicKey;
use std::collections::HashMap;
use std::net::IpAddr;

/// The networks that are in force, and those of the epoch that is installed.
#[derive(Default)]
pub(crate) struct Networks {
    /// Behind this node, by its own configuration.
    offered: Vec<Range>,
    /// Whether this node takes part in networks behind others.
    accepts: bool,
    /// Behind this node, in force.
    own: Vec<Range>,
    /// Behind peers, in force.
    table: Table,
    next_own: Vec<Range>,
    next: Vec<(WgPublicKey, Range)>,
}

/// Owners of ranges, by the length of the prefix, longest first.
#[derive(Default)]
struct Table(Vec<(u128, HashMap<u128, PeerId>)>);

impl Networks {
    /// The terms that this node agrees to, from the next epoch that is installed on.
    pub(crate) fn agree(&mut self, offered: Vec<Range>, accepts: bool) {
        (self.offered, self.accepts) = (offered, accepts);
    }

    /// Another epoch is installed, which has no networks yet.
    pub(crate) fn forget_next(&mut self) {
        self.next_own.clear();
        self.next.clear();
    }

    /// Networks behind this node in the epoch that is being installed.
    pub(crate) fn install_own(&mut self, own: Vec<Range>) {
        self.next_own = own;
        self.next_own.retain(|range| self.offered.contains(range));
    }

    /// Networks behind peers likewise.
    pub(crate) fn install(&mut self, behind: impl IntoIterator<Item = (WgPublicKey, Vec<Range>)>) {
        if self.accepts {
            let each = behind.into_iter();
            let each = each.flat_map(|(key, ranges)| ranges.into_iter().map(move |it| (key, it)));
            self.next.extend(each);
        }
    }

    /// The installed epoch begins, with the peers that `id_of` knows. Nothing is routed into a tunnel that is inside
    /// of one: `insides` are this mesh's and those beside it.
    pub(crate) fn activate(
        &mut self,
        id_of: impl Fn(&WgPublicKey) -> Option<PeerId>,
        insides: [&Inside; 2],
    ) {
        let is_apart = |range: &Range| !insides.iter().any(|inside| inside.meets(range));
        self.own = std::mem::take(&mut self.next_own);
        self.own.retain(is_apart);
        self.table = Table::default();
        for (key, range) in std::mem::take(&mut self.next) {
            if let Some(id) = id_of(&key).filter(|_| is_apart(&range)) {
                self.table.insert(range, id);
            }
        }
    }

    /// No epoch is in force any more.
    pub(crate) fn close(&mut self) {
        self.own.clear();
        self.table = Table::default();
    }

    /// A peer is gone. Its slot may be another's next.
    pub(crate) fn remove_peer(&mut self, peer: PeerId) {
        self.table.remove(peer);
    }

    /// Whether no address is behind anybody.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.table.0.is_empty()
    }

    /// The peer that an address is behind, by the longest prefix.
    #[inline]
    pub(crate) fn owner(&self, address: IpAddr) -> Option<PeerId> {
        if self.table.0.is_empty() {
            return None;
        }
        self.table.get(bits(address))
    }

    /// Whether a host behind this node has an address.
    #[inline]
    pub(crate) fn is_behind_here(&self, address: IpAddr) -> bool {
        self.own.iter().any(|range| range.contains(bits(address)))
    }

    /// For rules: whose the addresses of a peer's packets are; `None`: nobody has a network behind it.
    pub(crate) fn ends<'n>(
        &'n self,
        allowed: &'n AllowedIps,
        inside: &'n Inside,
        peer: PeerId,
    ) -> Option<Between<'n>> {
        (!self.is_empty()).then_some(Between {
            networks: self,
            allowed,
            inside,
            peer,
        })
    }
}

/// This node and one peer, with the networks behind them.
pub(crate) struct Between<'n> {
    networks: &'n Networks,
    allowed: &'n AllowedIps,
    inside: &'n Inside,
    peer: PeerId,
}

impl Ends for Between<'_> {
    fn is_peers(&self, address: IpAddr) -> bool {
        self.allowed.get(address) == Some(self.peer)
            || self.networks.owner(address) == Some(self.peer)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.inside.is_own(address)
    }
}

impl Table {
    fn insert(&mut self, range: Range, peer: PeerId) {
        let (bits, mask) = range.parts();
        let at = self.0.partition_point(|(longer, _)| *longer > mask);
        match self.0.get_mut(at).filter(|(same, _)| *same == mask) {
            Some((_, owners)) => {
                owners.insert(bits, peer);
            }
            None => self.0.insert(at, (mask, HashMap::from([(bits, peer)]))),
        }
    }

    fn get(&self, address: u128) -> Option<PeerId> {
        let mut lengths = self.0.iter();
        lengths.find_map(|(mask, owners)| owners.get(&(address & mask)).copied())
    }

    fn remove(&mut self, peer: PeerId) {
        self.0.retain_mut(|(_, owners)| {
            owners.retain(|_, owner| *owner != peer);
            !owners.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        let (address, prefix) = text.split_once('/').unwrap();
        Range::new(address.parse().unwrap(), prefix.parse().unwrap())
    }

    fn at(table: &Table, address: &str) -> Option<PeerId> {
        table.get(bits(address.parse().unwrap()))
    }

    #[test]
    fn the_longest_prefix_wins_in_whatever_order_they_came() {
        let all = [
            ("10.0.0.0/8", 1),
            ("10.1.0.0/16", 2),
            ("10.1.2.0/24", 3),
            ("10.1.2.3/32", 4),
            ("fd01::/32", 5),
            ("fd01:0:1::/48", 6),
        ];
        for turned in [false, true] {
            let mut table = Table::default();
            let mut each: Vec<_> = all.to_vec();
            if turned {
                each.reverse();
            }
            each.iter()
                .for_each(|(it, id)| table.insert(range(it), *id));
            let found = |address| at(&table, address);
            assert_eq!(found("10.9.9.9"), Some(1));
            assert_eq!(found("10.1.9.9"), Some(2));
            assert_eq!(found("10.1.2.9"), Some(3));
            assert_eq!(found("10.1.2.3"), Some(4));
            assert_eq!(found("fd01::1"), Some(5));
            assert_eq!(found("fd01:0:1::1"), Some(6));
            assert_eq!(found("11.0.0.1"), None);
            assert_eq!(found("fd02::1"), None);
        }
    }

    #[test]
    fn a_peer_that_goes_takes_its_networks_along_and_nobody_elses() {
        let mut table = Table::default();
        table.insert(range("10.1.0.0/16"), 1);
        table.insert(range("10.2.0.0/16"), 2);
        table.insert(range("fd01::/32"), 1);
        table.remove(1);
        assert_eq!(
            (at(&table, "10.1.0.1"), at(&table, "fd01::1")),
            (None, None)
        );
        assert_eq!(at(&table, "10.2.0.1"), Some(2));
        assert_eq!(table.0.len(), 1, "nothing is left to ask in vain");
    }
}
