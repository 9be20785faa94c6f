//! The fold of what one segment decided: its roster, each node's standing in it, and the epochs that it
//! published. Holds nothing that is true of a node in every segment, such as its keys.

use crate::event::{Published, Verdict};
use jiff::Timestamp;
use keys::Epoch;
use policy::Standing;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::{Digest, NodeName};

/// One segment's part of the durable state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Standings {
    roster: BTreeSet<NodeName>,
    nodes: BTreeMap<NodeName, NodeStanding>,
    epochs: BTreeMap<Epoch, (Timestamp, Published)>,
    /// Digests of the newest updates: what evidence may answer to.
    challenges: VecDeque<Digest>,
    /// The newest epoch of a history that is lost, and that an operator knows to be lost.
    lost: Option<Epoch>,
}

/// A segment's decisions about one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStanding {
    pub(super) standing: Standing,
    pub(super) probation_left: u32,
    pub(super) verdict: Option<Verdict>,
}

impl Standings {
    /// The members of the newest published epoch.
    pub fn roster(&self) -> &BTreeSet<NodeName> {
        &self.roster
    }

    /// The newest published epoch and when it was.
    pub fn newest_epoch(&self) -> Option<(&Timestamp, &Published)> {
        self.epochs.last_key_value().map(|(_, (at, p))| (at, p))
    }

    /// A published epoch, while it may still be of use.
    pub fn epoch(&self, epoch: Epoch) -> Option<(&Timestamp, &Published)> {
        self.epochs.get(&epoch).map(|(at, p)| (at, p))
    }

    /// Whether this segment published an update with this digest lately.
    pub fn knows_challenge(&self, challenge: &Digest) -> bool {
        self.challenges.contains(challenge)
    }

    /// A node that nothing was decided about yet is new, and has no probation.
    pub(super) fn of(&self, name: &NodeName) -> &NodeStanding {
        self.nodes.get(name).unwrap_or(&NEW)
    }

    pub(super) fn enrol(&mut self, name: &NodeName, probation: u32) {
        let standing = NodeStanding {
            probation_left: probation,
            ..NEW.clone()
        };
        self.nodes.insert(name.clone(), standing);
    }

    pub(super) fn decide(&mut self, verdict: &Verdict) {
        let standing = NodeStanding {
            standing: verdict.standing,
            probation_left: verdict.probation_left,
            verdict: Some(verdict.clone()),
        };
        self.nodes.insert(verdict.name.clone(), standing);
    }

    pub(super) fn publish(&mut self, at: Timestamp, published: &Published) {
        if self.challenges.len() >= CHALLENGES {
            self.challenges.pop_front();
        }
        self.challenges.push_back(published.update);
        self.roster.extend(published.joined.iter().cloned());
        for name in published.removed.keys() {
            self.roster.remove(name);
        }
        self.epochs
            .retain(|epoch, _| Some(*epoch) == published.in_force);
        self.epochs.insert(published.epoch, (at, published.clone()));
    }

    /// The name stands for another identity from now on. The new key must not inherit the old one's place in
    /// the roster, because nobody has judged it; but it inherits a quarantine, or new keys would end one.
    pub(super) fn forget_identity(&mut self, name: &NodeName) {
        self.roster.remove(name);
        if let Some(node) = self.nodes.get_mut(name) {
            node.standing = match node.standing {
                Standing::New | Standing::In { .. } => Standing::New,
                Standing::Out { .. } => Standing::Out { passes: 0 },
            };
        }
    }

    /// The newest epoch of a history that is lost, and that an operator knows to be lost.
    pub fn lost(&self) -> Option<Epoch> {
        self.lost
    }

    /// The least number that a new epoch may have. Nodes refuse the numbers that they have seen. The one after
    /// those would have to continue a history that is lost; a gap shows that it does not.
    pub fn least(&self) -> Epoch {
        self.lost.map_or(Epoch(0), |lost| lost.next().next())
    }

    pub(super) fn recover(&mut self, seen: Epoch) {
        self.lost = self.lost.max(Some(seen));
    }

    /// The name is nobody's from now on.
    pub(super) fn remove(&mut self, name: &NodeName) {
        self.roster.remove(name);
        self.nodes.remove(name);
    }

    pub(super) fn readmit(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.standing = Standing::New;
        }
    }
}

/// A segment in which nothing was ever decided.
pub(super) static NONE: Standings = Standings {
    roster: BTreeSet::new(),
    nodes: BTreeMap::new(),
    epochs: BTreeMap::new(),
    challenges: VecDeque::new(),
    lost: None,
};
static NEW: NodeStanding = NodeStanding {
    standing: Standing::New,
    probation_left: 0,
    verdict: None,
};
/// Updates that evidence may answer to: four minutes of epochs of a second, four hours of the default.
const CHALLENGES: usize = 256;
