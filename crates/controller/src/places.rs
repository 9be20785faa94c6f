//! Where the members of a segment are, as a table of numbered changes: each connection is told what is newer than
//! the number that it has. What several are told is encoded once. Refuses to know who may be told.

use crate::announced;
use keys::{NodeId, SegmentId};
use rand_core::{OsRng, RngCore as _};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use wire::endpoints::{Entries, PlacesMark};
use wire::message::ToNode;

/// The table of one segment.
#[derive(Debug)]
pub(crate) struct Places {
    segment: SegmentId,
    table: u64,
    seq: u64,
    /// The newest number of the table that was kept on the disk; what came after it was lost, and numbers from
    /// there to `first` were given to changes that this table does not hold.
    kept: u64,
    /// The first number that was given since.
    first: u64,
    entries: BTreeMap<NodeId, Entry>,
    by_seq: BTreeMap<u64, NodeId>,
    /// The news that was encoded since the last change, by number and by whether it goes to a loopback address.
    encoded: RefCell<BTreeMap<(u64, bool), Vec<Entries>>>,
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    endpoints: Vec<SocketAddr>,
}

/// The table as it is kept on the disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeptPlaces {
    segment: SegmentId,
    table: u64,
    seq: u64,
    entries: Vec<(NodeId, u64, Vec<SocketAddr>)>,
}

impl KeptPlaces {
    pub(crate) fn segment(&self) -> SegmentId {
        self.segment
    }

    /// The members and where they were.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (&NodeId, &[SocketAddr])> {
        let entries = self.entries.iter();
        entries.map(|(node, _, endpoints)| (node, endpoints.as_slice()))
    }
}

impl Places {
    /// An empty table.
    pub(crate) fn new(segment: SegmentId) -> Self {
        Self {
            segment,
            table: OsRng.next_u64(),
            seq: 0,
            kept: 0,
            first: 1,
            entries: BTreeMap::new(),
            by_seq: BTreeMap::new(),
            encoded: RefCell::default(),
        }
    }

    /// Goes on with the table of an earlier process.
    pub(crate) fn resume(&mut self, kept: KeptPlaces) {
        let seq = kept.seq.saturating_add(GAP);
        *self = Self {
            table: kept.table,
            seq,
            kept: kept.seq,
            first: seq.saturating_add(1),
            ..Self::new(kept.segment)
        };
        for (node, seq, endpoints) in kept.entries {
            self.by_seq.insert(seq, node);
            self.entries.insert(node, Entry { seq, endpoints });
        }
    }

    /// The table as it is to be kept.
    pub(crate) fn keep(&self) -> KeptPlaces {
        let entries = self.entries.iter();
        KeptPlaces {
            segment: self.segment,
            table: self.table,
            seq: self.seq,
            entries: entries
                .map(|(node, entry)| (*node, entry.seq, entry.endpoints.clone()))
                .collect(),
        }
    }

    /// The number of the newest change.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// A member is there. Whether that is news.
    pub(crate) fn post(&mut self, node: NodeId, endpoints: &[SocketAddr]) -> bool {
        let before = self.entries.get(&node);
        if before.is_some_and(|entry| entry.endpoints == endpoints) {
            return false;
        }
        self.seq += 1;
        let entry = Entry {
            seq: self.seq,
            endpoints: endpoints.to_vec(),
        };
        if let Some(before) = self.entries.insert(node, entry) {
            self.by_seq.remove(&before.seq);
        }
        self.by_seq.insert(self.seq, node);
        self.encoded.borrow_mut().clear();
        true
    }

    /// The members in the table.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.entries.keys()
    }

    /// Forgets those that are members no more.
    pub(crate) fn remove(&mut self, gone: &[NodeId]) {
        for node in gone {
            if let Some(entry) = self.entries.remove(node) {
                self.by_seq.remove(&entry.seq);
            }
        }
        if !gone.is_empty() {
            self.encoded.borrow_mut().clear();
        }
    }

    /// The number that a node has by its own word; zero where that means nothing here.
    pub(crate) fn since(&self, marks: &[PlacesMark]) -> u64 {
        let mut own = marks.iter().filter(|mark| mark.segment == self.segment);
        let told = own.find(|mark| mark.table == self.table).map(|it| it.seq);
        let known = |seq: &u64| *seq <= self.kept || (self.first..=self.seq).contains(seq);
        told.filter(known).unwrap_or(0)
    }

    /// The news since a number, for somebody at this address; in pieces, so that an eviction waits for one piece
    /// at most.
    pub(crate) fn news(&self, since: u64, to: IpAddr) -> Vec<ToNode> {
        let to_loopback = to.to_canonical().is_loopback();
        let mut encoded = self.encoded.borrow_mut();
        if encoded.len() >= ENCODED {
            encoded.clear();
        }
        let pieces = encoded.entry((since, to_loopback)).or_insert_with(|| {
            let newer = self.by_seq.range(since.saturating_add(1)..);
            let newer = newer.filter_map(|(_, node)| Some((*node, self.entries.get(node)?)));
            let told = newer.map(|(node, entry)| {
                let endpoints = entry.endpoints.clone();
                (node, announced::for_recipient(endpoints, to))
            });
            let told: Vec<_> = told.collect();
            told.chunks(PIECE).map(Entries::new).collect()
        });
        let last = pieces.len().saturating_sub(1);
        let mark = PlacesMark {
            segment: self.segment,
            table: self.table,
            seq: self.seq,
        };
        let numbered = pieces.iter().enumerate();
        numbered
            .map(|(at, entries)| ToNode::Endpoints {
                entries: entries.clone(),
                mark: (at == last).then_some(mark),
            })
            .collect()
    }
}

/// Nodes in one piece of news: up to 40 kB where each has one address.
const PIECE: usize = 1_000;
/// Different pieces of news that are kept encoded: nodes are told together, and those that name other numbers do not
/// fill the memory.
const ENCODED: usize = 16;
/// More changes than a controller makes between two writes of the table.
const GAP: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Vec<SocketAddr> {
        vec![([192, 0, 2, 1], port).into()]
    }

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn told(places: &Places, since: u64) -> Vec<(NodeId, Vec<SocketAddr>)> {
        let news = places.news(since, [192, 0, 2, 9].into());
        let decoded = news.into_iter().flat_map(|message| match message {
            ToNode::Endpoints { entries, .. } => entries.decode().unwrap(),
            _ => panic!("no news"),
        });
        decoded.collect()
    }

    #[test]
    fn a_node_is_told_what_is_newer_than_it_knows_and_of_each_the_newest() {
        let mut places = Places::new(SegmentId::FIRST);
        assert!(places.post(node(1), &at(1)));
        assert!(places.post(node(2), &at(2)));
        let seq = places.seq();
        assert!(!places.post(node(1), &at(1)), "nothing new");
        for port in 10..20 {
            assert!(places.post(node(2), &at(port)));
        }
        assert_eq!(told(&places, seq), [(node(2), at(19))]);
        assert_eq!(told(&places, 0), [(node(1), at(1)), (node(2), at(19))]);
        assert_eq!(told(&places, places.seq()), []);
        places.remove(&[node(2)]);
        assert_eq!(told(&places, 0), [(node(1), at(1))]);
    }

    #[test]
    fn a_table_that_was_kept_knows_which_numbers_it_has_given() {
        let mut places = Places::new(SegmentId::FIRST);
        places.post(node(1), &at(1));
        let mark = |places: &Places| PlacesMark {
            segment: SegmentId::FIRST,
            table: places.table,
            seq: places.seq,
        };
        let (kept, known) = (places.keep(), mark(&places));
        places.post(node(2), &at(2));
        let lost = mark(&places);

        let mut again = Places::new(SegmentId::FIRST);
        assert_eq!(again.since(&[known]), 0, "another table");
        again.resume(kept);
        assert_eq!(again.since(&[known]), known.seq);
        assert_eq!(told(&again, known.seq), []);
        assert_eq!(again.since(&[lost]), 0, "of a change that was lost");
        again.post(node(3), &at(3));
        assert_eq!(again.since(&[lost]), 0);
        assert_eq!(again.since(&[mark(&again)]), again.seq());
        assert_eq!(told(&again, known.seq), [(node(3), at(3))]);
    }
}
