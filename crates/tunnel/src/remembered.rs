//! The memory against replays in the name of peers that are gone: for each the newest timestamp of its
//! initiations. When the peer returns, a recording from before must not pass for news.
//!
//! Bounded: members can come and go as often as an operator likes. Beyond the limit the peer that has
//! been gone longest is forgotten, and nobody else. Forgetting all at once would let whoever can have
//! many nodes removed choose the moment from which every recording of every former peer is news.

use crate::initiation::Timestamp;
use keys::WgPublicKey;
use std::collections::{BTreeMap, HashMap};

pub(crate) struct Remembered {
    most: usize,
    /// The newest timestamp, and the number of the departure.
    of: HashMap<WgPublicKey, (Timestamp, u64)>,
    /// Departures in their order: always one for each entry of `of`.
    departures: BTreeMap<u64, WgPublicKey>,
    next: u64,
}

impl Default for Remembered {
    fn default() -> Self {
        Self::with_room_for(MAX_REMEMBERED)
    }
}

impl Remembered {
    fn with_room_for(most: usize) -> Self {
        Self {
            most,
            of: HashMap::new(),
            departures: BTreeMap::new(),
            next: 0,
        }
    }

    /// A peer goes, which has shown timestamps up to `newest`.
    pub(crate) fn keep(&mut self, key: WgPublicKey, newest: Timestamp) {
        let number = self.next;
        self.next += 1;
        if let Some((_, before)) = self.of.insert(key, (newest, number)) {
            self.departures.remove(&before);
        }
        self.departures.insert(number, key);
        if self.of.len() > self.most
            && let Some((_, oldest)) = self.departures.pop_first()
        {
            self.of.remove(&oldest);
        }
    }

    /// A peer comes, perhaps again: the newest timestamp that it has shown before. From here on it
    /// is remembered where its initiations are judged.
    pub(crate) fn take(&mut self, key: &WgPublicKey) -> Option<Timestamp> {
        let (newest, number) = self.of.remove(key)?;
        self.departures.remove(&number);
        Some(newest)
    }
}

/// Peers that are gone and whose newest timestamp is remembered: 1.5 MB of them.
const MAX_REMEMBERED: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> WgPublicKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        WgPublicKey(key)
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::default().later_by(second)
    }

    #[test]
    fn the_newest_timestamp_is_remembered_until_the_peer_returns() {
        let mut remembered = Remembered::default();
        remembered.keep(key(1), at(7));
        assert_eq!(remembered.take(&key(2)), None);
        assert_eq!(remembered.take(&key(1)), Some(at(7)));
        assert_eq!(remembered.take(&key(1)), None, "it is a peer again");
        assert!(remembered.of.is_empty() && remembered.departures.is_empty());
    }

    #[test]
    fn one_removal_too_many_forgets_the_oldest_and_nobody_else() {
        let mut remembered = Remembered::default();
        for number in 0..=MAX_REMEMBERED {
            remembered.keep(key(number), at(number as u64));
            assert!(remembered.of.len() <= MAX_REMEMBERED);
        }
        assert_eq!(remembered.take(&key(0)), None);
        for number in 1..=MAX_REMEMBERED {
            assert_eq!(remembered.take(&key(number)), Some(at(number as u64)));
        }
    }

    #[test]
    fn a_peer_that_returned_and_went_again_counts_as_young_again() {
        for returns in [true, false] {
            let mut remembered = Remembered::with_room_for(3);
            for number in 0..3 {
                remembered.keep(key(number), at(1));
            }
            if returns {
                assert_eq!(remembered.take(&key(0)), Some(at(1)));
            }
            remembered.keep(key(0), at(2));
            remembered.keep(key(3), at(1));
            assert_eq!(remembered.take(&key(1)), None, "it is the oldest now");
            assert_eq!(remembered.take(&key(0)), Some(at(2)));
            assert_eq!(remembered.take(&key(2)), Some(at(1)));
            assert_eq!(remembered.departures.len(), 1);
        }
    }

    #[test]
    fn coming_and_going_leaves_nothing_behind() {
        let mut remembered = Remembered::with_room_for(3);
        for round in 0..1_000 {
            remembered.keep(key(round % 5), at(round as u64));
            remembered.take(&key((round + 2) % 5));
            assert_eq!(remembered.of.len(), remembered.departures.len());
            assert!(remembered.of.len() <= 3);
        }
    }
}
