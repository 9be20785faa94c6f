//! Which inner address belongs to which peer. Host routes only: a mesh member has one IPv4 and one
//! IPv6 address, so the longest prefix is the only one.
//!
//! An epoch that moves no address costs nothing here: the table is made anew only if one has moved.

use std::collections::HashMap;
use std::net::IpAddr;

/// A peer's slot in the tunnel's table.
pub(crate) type PeerId = usize;

#[derive(Default)]
pub(crate) struct AllowedIps {
    owners: HashMap<IpAddr, PeerId>,
    /// Addresses that their owner has until the next epoch begins, and no longer.
    former: Vec<IpAddr>,
    /// Whether an address is another peer's as soon as the next epoch begins.
    has_moved: bool,
}

impl AllowedIps {
    /// Gives an address to a peer, unless another has it: that one keeps it until the next epoch begins.
    pub(crate) fn offer(&mut self, address: IpAddr, peer: PeerId) {
        let owner = *self.owners.entry(address).or_insert(peer);
        self.has_moved |= owner != peer;
    }

    /// The owner of an address loses it when the next epoch begins.
    pub(crate) fn leave(&mut self, address: IpAddr) {
        self.former.push(address);
        self.has_moved = true;
    }

    pub(crate) fn get(&self, address: IpAddr) -> Option<PeerId> {
        self.owners.get(&address).copied()
    }

    /// Takes all addresses of a peer away, of which `allowed` are those that the newest epoch gives it. Its
    /// slot may be another peer's next: one that stayed would be that one's.
    pub(crate) fn remove_peer(&mut self, peer: PeerId, allowed: &[IpAddr]) {
        for address in allowed.iter().chain(&self.former) {
            if self.owners.get(address) == Some(&peer) {
                self.owners.remove(address);
            }
        }
    }

    /// Whether [`Self::renew`] has anything to do.
    pub(crate) fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// Every peer has what the newest epoch says, and nothing else, whatever was said by one that never came
    /// into force.
    pub(crate) fn renew(&mut self, all: impl Iterator<Item = (IpAddr, PeerId)>) {
        self.former.clear();
        self.has_moved = false;
        self.owners.clear();
        self.owners.extend(all);
    }

    /// How many addresses belong to somebody.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.owners.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn an_address_stays_with_its_owner_until_the_next_epoch_begins() {
        let mut allowed = AllowedIps::default();
        allowed.offer(address(1), 1);
        allowed.offer(address(1), 1);
        assert!(!allowed.has_moved());
        allowed.offer(address(1), 2);
        assert!(allowed.has_moved());
        assert_eq!(allowed.get(address(1)), Some(1));
        allowed.renew([(address(1), 2)].into_iter());
        assert!(!allowed.has_moved());
        assert_eq!(allowed.get(address(1)), Some(2));
    }

    #[test]
    fn a_peer_that_goes_takes_its_former_addresses_along_and_nobody_elses() {
        let mut allowed = AllowedIps::default();
        allowed.offer(address(1), 1);
        allowed.offer(address(2), 2);
        allowed.leave(address(1));
        allowed.offer(address(3), 1);
        allowed.offer(address(2), 1);
        allowed.remove_peer(1, &[address(3), address(2)]);
        assert_eq!(
            allowed.get(address(1)),
            None,
            "its slot may be another's next"
        );
        assert_eq!(allowed.get(address(3)), None);
        assert_eq!(allowed.get(address(2)), Some(2));
        assert_eq!(allowed.len(), 1);
    }
}
