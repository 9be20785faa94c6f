//! The rules of a segment as one node has to keep them, and what they come to for each of its peers.

use crate::flows::Room;
use crate::openings::{Access, Openings, Ways};
use crate::rule::{Groups, Rule};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The rules of one segment for one node.
#[derive(Debug)]
pub struct Rules {
    allow: Vec<Rule>,
    own: Groups,
    /// The groups that make a difference here: those that a rule for this node names as senders, and those that one
    /// for what it sends names as receivers.
    telling: u64,
    /// Packets that each rule has let in.
    passed: Arc<[AtomicU64]>,
    room: Arc<Room>,
    /// By the peer's groups, as far as they make a difference.
    compiled: BTreeMap<u64, Arc<Openings>>,
}

impl Rules {
    /// The rules of a node that is in the groups `own`. Everything else is refused.
    pub fn new(allow: Vec<Rule>, own: Groups, room: Arc<Room>) -> Self {
        let mine = allow.iter().filter(|rule| own.is_meant(rule.to));
        let telling = mine.fold(0, |bits, rule| bits | rule.from.0);
        let mine = allow.iter().filter(|rule| own.is_meant(rule.from));
        let telling = mine.fold(telling, |bits, rule| bits | rule.to.0);
        let passed = allow.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            allow,
            own,
            telling,
            passed,
            room,
            compiled: BTreeMap::new(),
        }
    }

    /// The same, but where `before` says the same for a node in the same groups, its counters go on.
    pub fn after(self, before: Option<&Self>) -> Self {
        match before.filter(|it| it.own == self.own && it.allow == self.allow) {
            Some(before) => Self {
                passed: Arc::clone(&before.passed),
                compiled: before.compiled.clone(),
                ..self
            },
            None => self,
        }
    }

    /// The packets that a peer in the groups `peer` may send to this node, and those that this node may send to it.
    pub fn toward(&mut self, peer: Groups) -> Access {
        // Peers that differ in other groups alone share one: of thousands, a handful is compiled.
        let key = peer.0 & self.telling;
        let openings = self.compiled.entry(key).or_insert_with(|| {
            let from_to = |from: Groups, to: Groups| {
                let all = self.allow.iter().zip(0..);
                let all = all.filter(move |(rule, _)| from.is_meant(rule.from));
                Ways::new(all.filter(move |(rule, _)| to.is_meant(rule.to)))
            };
            Arc::new(Openings::new(
                (from_to(peer, self.own), from_to(self.own, peer)),
                Arc::clone(&self.passed),
                Arc::clone(&self.room),
            ))
        });
        Access::Only(Arc::clone(openings))
    }

    /// Packets that each rule has let in, in the order of the rules.
    pub fn passed(&self) -> Vec<u64> {
        let counts = self.passed.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).collect()
    }
}
