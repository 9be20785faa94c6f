//! Which inner address belongs to which peer. Host routes only: a mesh member has one IPv4 and one
//! IPv6 address, so the longest prefix is the only one.
//!
//! An epoch costs nothing here for addresses that do not move.

use std::collections::HashMap;
use std::net::IpAddr;

/// A peer's slot in the tunnel's table.
pub(crate) type PeerId = usize;

#[derive(Default)]
pub(crate) struct AllowedIps {
    owners: HashMap<IpAddr, PeerId>,
    /// Addresses that their owner loses when the next epoch begins.
    former: Vec<(IpAddr, PeerId)>,
    /// Addresses that another peer still has when the next epoch begins which gives them to this one.
    claims: Vec<(IpAddr, PeerId)>,
}

impl AllowedIps {
    /// Gives an address to a peer, unless another has it: that one keeps it until the next epoch begins.
    pub(crate) fn offer(&mut self, address: IpAddr, peer: PeerId) {
        let owner = *self.owners.entry(address).or_insert(peer);
        if owner != peer {
            self.claims.push((address, peer));
        }
    }

    /// A peer loses an address when the next epoch begins.
    pub(crate) fn leave(&mut self, address: IpAddr, peer: PeerId) {
        self.former.push((address, peer));
    }

    pub(crate) fn get(&self, address: IpAddr) -> Option<PeerId> {
        self.owners.get(&address).copied()
    }

    /// Takes all addresses of a peer away, of which `allowed` are those that the newest epoch gives it. Its
    /// slot may be another peer's next: one that stayed would be that one's.
    pub(crate) fn remove_peer(&mut self, peer: PeerId, allowed: &[IpAddr]) {
        let former = self.former.iter().filter(|(_, owner)| *owner == peer);
        let former = former.map(|(address, _)| address);
        for address in allowed.iter().chain(former) {
            if self.owners.get(address) == Some(&peer) {
                self.owners.remove(address);
            }
        }
    }

    /// An epoch begins: every peer has what `allows` says, and nothing that was said by an epoch which never
    /// came into force. To be called when the peers are gone that it leaves out.
    pub(crate) fn renew(&mut self, mut allows: impl FnMut(PeerId, &IpAddr) -> bool) {
        for (address, peer) in std::mem::take(&mut self.former) {
            if self.owners.get(&address) == Some(&peer) && !allows(peer, &address) {
                self.owners.remove(&address);
            }
        }
        for (address, peer) in std::mem::take(&mut self.claims) {
            if allows(peer, &address) {
                self.owners.insert(address, peer);
            }
        }
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
        allowed.offer(address(2), 1);
        allowed.offer(address(1), 2);
        allowed.leave(address(1), 1);
        assert_eq!(allowed.get(address(1)), Some(1));
        allowed.renew(|peer, it| (peer, *it) != (1, address(1)));
        assert_eq!(allowed.get(address(1)), Some(2));
        assert_eq!(allowed.get(address(2)), Some(1));
    }

    #[test]
    fn the_word_of_an_epoch_that_never_began_is_worth_nothing() {
        let mut allowed = AllowedIps::default();
        allowed.offer(address(1), 1);
        // An epoch moves both to another peer, and is superseded by one that does not.
        allowed.leave(address(1), 1);
        allowed.offer(address(1), 2);
        allowed.renew(|peer, it| (peer, *it) == (1, address(1)));
        assert_eq!(allowed.get(address(1)), Some(1));
        // One that gives it to nobody.
        allowed.leave(address(1), 1);
        allowed.renew(|_, _| false);
        assert_eq!(allowed.get(address(1)), None);
    }

    #[test]
    fn a_peer_that_goes_takes_its_former_addresses_along_and_nobody_elses() {
        let mut allowed = AllowedIps::default();
        allowed.offer(address(1), 1);
        allowed.offer(address(2), 2);
        allowed.leave(address(1), 1);
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
