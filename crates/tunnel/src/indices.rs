//! The index table: which of our 24-bit receiver indices belongs to which peer of which tunnel.
//!
//! An entry lives exactly as long as the [`Index`] that owns it: nothing else adds or removes one. A
//! peer that is dropped is therefore unknown to the table in the same step, with everything that it
//! had under way, and no way through the code can forget to say so.
//!
//! All threads read the table; a lookup takes the read lock for one step of a hash map, and happens
//! only where the index of a datagram is not that of the datagram before. Only a thread that has
//! the tunnel to itself claims or drops an index, so that no reader ever waits for one.

use crate::allowed_ips::PeerId;
use crate::tunnel_id::TunnelId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError, RwLock};

/// A handle on the table; all clones are the same table.
#[derive(Clone, Default)]
pub(crate) struct IndexTable(Arc<RwLock<HashMap<u32, (TunnelId, PeerId)>>>);

/// The same for one tunnel, which claims indices for peers of its own alone.
#[derive(Clone)]
pub(crate) struct TunnelIndices {
    table: IndexTable,
    tunnel: TunnelId,
}

/// An index that its owner alone has; it is free again once this is dropped.
pub(crate) struct Index {
    value: u32,
    table: IndexTable,
}

impl TunnelIndices {
    /// Takes an index (24 bits) for the tunnel's peer `owner`; `None` if somebody has it, in whichever tunnel.
    pub(crate) fn claim(&self, value: u32, owner: PeerId) -> Option<Index> {
        let mut entries = self.table.0.write().unwrap_or_else(PoisonError::into_inner);
        match entries.entry(value) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert((self.tunnel, owner));
                Some(Index {
                    value,
                    table: self.table.clone(),
                })
            }
        }
    }
}

impl IndexTable {
    /// The handle of a tunnel.
    pub(crate) fn of(&self, tunnel: TunnelId) -> TunnelIndices {
        TunnelIndices {
            table: self.clone(),
            tunnel,
        }
    }

    /// The tunnel and its peer that have an index (24 bits).
    pub(crate) fn owner(&self, value: u32) -> Option<(TunnelId, PeerId)> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(&value).copied()
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> HashMap<u32, (TunnelId, PeerId)> {
        self.0.read().expect("no test has panicked").clone()
    }
}

impl Index {
    /// Its 24 bits.
    pub(crate) fn value(&self) -> u32 {
        self.value
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // In the same step as the `Tunn` that it led to: found a moment longer, the index would bring
        // datagrams to a peer that cannot open them, or that is no peer any more.
        let entries = self.table.0.write();
        let mut entries = entries.unwrap_or_else(PoisonError::into_inner);
        entries.remove(&self.value);
    }
}

impl PartialEq<u32> for Index {
    fn eq(&self, value: &u32) -> bool {
        self.value == *value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn peer_at(table: &TunnelIndices, value: u32) -> Option<PeerId> {
        let (tunnel, peer) = table.table.owner(value)?;
        assert_eq!(tunnel, TunnelId::FIRST);
        Some(peer)
    }

    #[test]
    fn an_index_belongs_to_its_owner_until_it_is_dropped() {
        let table = IndexTable::default().of(TunnelId::FIRST);
        let (one, other) = (table.claim(7, 1).unwrap(), table.claim(8, 2).unwrap());
        assert_eq!((peer_at(&table, 7), peer_at(&table, 8)), (Some(1), Some(2)));
        assert_eq!(peer_at(&table, 9), None);
        drop(one);
        assert_eq!((peer_at(&table, 7), peer_at(&table, 8)), (None, Some(2)));
        drop(other);
        assert_eq!(table.table.all().len(), 0);
    }

    #[test]
    fn what_somebody_has_nobody_else_gets_and_asking_for_it_takes_nothing_away() {
        let table = IndexTable::default().of(TunnelId::FIRST);
        let first = table.claim(7, 1).unwrap();
        assert!(table.claim(7, 2).is_none());
        assert!(table.claim(7, 1).is_none(), "not even its owner");
        assert_eq!(peer_at(&table, 7), Some(1));
        drop(first);
        let second = table.claim(7, 2).unwrap();
        assert_eq!((peer_at(&table, 7), second.value()), (Some(2), 7));
    }

    #[test]
    fn an_index_outlives_the_handle_by_which_it_was_claimed() {
        let table = IndexTable::default().of(TunnelId::FIRST);
        let index = table.clone().claim(7, 1).unwrap();
        assert!(index == 7);
        assert_eq!(peer_at(&table, 7), Some(1));
        drop(index);
        assert_eq!(peer_at(&table, 7), None);
    }

    #[test]
    fn threads_that_claim_the_same_indices_never_share_one() {
        let table = IndexTable::default().of(TunnelId::FIRST);
        let holders: [AtomicUsize; 4] = std::array::from_fn(|_| AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for owner in 1..=4 {
                let (table, holders) = (&table, &holders);
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let at = (round + owner) % holders.len();
                        let Some(index) = table.claim(at as u32, owner) else {
                            continue;
                        };
                        assert_eq!(holders[at].fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(peer_at(table, at as u32), Some(owner));
                        holders[at].fetch_sub(1, Ordering::SeqCst);
                        drop(index);
                    }
                });
            }
        });
        assert_eq!(table.table.all().len(), 0);
    }

    #[test]
    fn an_index_of_one_tunnel_is_no_index_of_another() {
        let first = TunnelId::FIRST;
        let tunnels = [first, first.next().unwrap()];
        let table = IndexTable::default();
        let [one, other] = tunnels.map(|tunnel| table.of(tunnel));
        let first = one.claim(7, 1).unwrap();
        assert!(other.claim(7, 1).is_none());
        let second = other.claim(8, 1).unwrap();
        assert_eq!(table.owner(7), Some((tunnels[0], 1)));
        assert_eq!(table.owner(8), Some((tunnels[1], 1)));
        drop((first, second));
        assert_eq!(table.all().len(), 0);
    }
}
