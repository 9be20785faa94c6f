//! The fold of the event log: every enrolled node, every token, who is in the newest roster.
//! [`Fleet::apply`] is the only way in; nothing here reads a clock or decides anything.

use crate::clock::Now;
use crate::event::{Accepted, Event, Published, Verdict};
use jiff::Timestamp;
use keys::{Epoch, MeshId, NodeId, TokenHash, WgPublicKey};
use policy::{Evidence, Record, Standing};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use wire::evidence::Benchmark;
use wire::{Digest, NodeName};

/// The durable state.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    mesh: Option<MeshId>,
    nodes: BTreeMap<NodeName, Node>,
    names: BTreeMap<NodeId, NodeName>,
    tokens: BTreeMap<String, TokenRecord>,
    roster: BTreeSet<NodeName>,
    epochs: BTreeMap<Epoch, (Timestamp, Published)>,
    /// Digests of the newest updates: what evidence may answer to.
    challenges: VecDeque<Digest>,
}

/// An enrolled node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Its WireGuard key.
    pub wg: WgPublicKey,
    /// Its number in the mesh's address ranges.
    pub host: u32,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// Its newest accepted evidence.
    pub evidence: Option<Accepted>,
    /// What the last decision about it was.
    pub verdict: Option<Verdict>,
    evicted: bool,
    probation_left: u32,
    standing: Standing,
    /// When its newest evidence was accepted, by the calendar.
    accepted_at: Option<Timestamp>,
    /// The same on the boot-time clock, in milliseconds; negative: before this boot.
    accepted_boot_ms: Option<i64>,
    last_finished: Option<Timestamp>,
    nonces: VecDeque<String>,
}

/// An enrolment token, without its secret.
#[derive(Debug, Clone)]
pub struct TokenRecord {
    /// What stands for its secret.
    pub hash: TokenHash,
    /// The only name that it admits.
    pub name: Option<NodeName>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends, in seconds since 1970.
    pub expires_unix: u64,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet.
    Open,
    /// A node enrolled with it.
    Used(NodeName),
    /// An operator withdrew it.
    Revoked,
}

impl Fleet {
    /// Folds one event. An event about something unknown, which a verified log does not hold,
    /// changes nothing.
    pub fn apply(&mut self, at: Timestamp, event: &Event) {
        match event {
            Event::MeshCreated { mesh } => self.mesh = Some(*mesh),
            Event::TokenCreated {
                id,
                hash,
                name,
                expires_unix,
            } => {
                let record = TokenRecord {
                    hash: *hash,
                    name: name.clone(),
                    created_at: at,
                    expires_unix: *expires_unix,
                    fate: Fate::Open,
                };
                self.tokens.insert(id.clone(), record);
            }
            Event::TokenRevoked { id } => self.set_fate(id, Fate::Revoked),
            Event::NodeEnrolled {
                name,
                node,
                wg,
                host,
                token,
                probation,
            } => {
                self.set_fate(token, Fate::Used(name.clone()));
                self.names.insert(*node, name.clone());
                let node = Node::new(*node, *wg, *host, at, *probation);
                self.nodes.insert(name.clone(), node);
            }
            Event::NodeRekeyed {
                name,
                node,
                wg,
                token,
            } => {
                self.set_fate(token, Fate::Used(name.clone()));
                self.rekey(name, *node, *wg);
            }
            Event::EvidenceAccepted(accepted) => {
                if let Some(node) = self.nodes.get_mut(&accepted.name) {
                    node.accept(at, accepted);
                }
            }
            Event::Decided { nodes, .. } => {
                for verdict in nodes {
                    if let Some(node) = self.nodes.get_mut(&verdict.name) {
                        node.standing = verdict.standing;
                        node.probation_left = verdict.probation_left;
                        node.verdict = Some(verdict.clone());
                    }
                }
            }
            Event::EpochPublished(published) => self.publish(at, published),
            Event::NodeEvicted { name, .. } => {
                if let Some(node) = self.nodes.get_mut(name) {
                    node.evicted = true;
                }
            }
            Event::NodeReadmitted { name } => {
                if let Some(node) = self.nodes.get_mut(name) {
                    node.evicted = false;
                    node.standing = Standing::New;
                }
            }
        }
    }

    /// Notes on the boot-time clock when evidence was accepted: from then on the wall clock cannot make it
    /// younger. What was accepted before this start is as old as the calendar says now.
    pub fn start_ageing(&mut self, now: Now) {
        for node in self.nodes.values_mut() {
            if let (Some(at), None) = (node.accepted_at, node.accepted_boot_ms) {
                let age = now.wall.as_millisecond() - at.as_millisecond();
                node.accepted_boot_ms = Some(now.boot_ms().saturating_sub(age.max(0)));
            }
        }
    }

    /// The evidence accepted earlier from a node, as far as it concerns a run of it.
    pub fn history(&self, node: &Node, run: &Benchmark) -> policy::History {
        let used = |nonce: &String| nonce.eq_ignore_ascii_case(&run.nonce);
        policy::History {
            last_finished: node.last_finished,
            nonce_used: node.nonces.iter().any(used),
            challenge_known: run.challenge.map(|c| self.challenges.contains(&c)),
        }
    }

    /// The mesh, once it was created.
    pub fn mesh(&self) -> Option<MeshId> {
        self.mesh
    }

    /// Every enrolled node, by name.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Node> {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The name of this identity.
    pub fn name_of(&self, id: &NodeId) -> Option<&NodeName> {
        self.names.get(id)
    }

    /// Who has this WireGuard key.
    pub fn owner_of(&self, wg: &WgPublicKey) -> Option<&NodeName> {
        let mut nodes = self.nodes.iter();
        nodes.find(|(_, node)| node.wg == *wg).map(|(name, _)| name)
    }

    /// The members of the newest published epoch.
    pub fn roster(&self) -> &BTreeSet<NodeName> {
        &self.roster
    }

    /// Every token, by what lists call it.
    pub fn tokens(&self) -> &BTreeMap<String, TokenRecord> {
        &self.tokens
    }

    /// The newest published epoch and the one that was in force when it was published.
    pub fn newest_epoch(&self) -> Option<(&Timestamp, &Published)> {
        self.epochs.last_key_value().map(|(_, (at, p))| (at, p))
    }

    /// A published epoch, while it may still be of use.
    pub fn epoch(&self, epoch: Epoch) -> Option<(&Timestamp, &Published)> {
        self.epochs.get(&epoch).map(|(at, p)| (at, p))
    }

    /// The lowest free number in the address ranges, from [`FIRST_HOST`] to `last`.
    pub fn free_host(&self, last: u32) -> Option<u32> {
        let taken: BTreeSet<u32> = self.nodes.values().map(|node| node.host).collect();
        (FIRST_HOST..=last).find(|host| !taken.contains(host))
    }

    fn set_fate(&mut self, token: &str, fate: Fate) {
        if let Some(record) = self.tokens.get_mut(token) {
            record.fate = fate;
        }
    }

    fn rekey(&mut self, name: &NodeName, id: NodeId, wg: WgPublicKey) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        node.wg = wg;
        if node.id == id {
            return;
        }
        // Another identity: nothing that was proved by the old one speaks for it.
        self.names.remove(&node.id);
        self.names.insert(id, name.clone());
        self.roster.remove(name);
        node.id = id;
        node.evidence = None;
        (node.accepted_at, node.accepted_boot_ms) = (None, None);
        node.last_finished = None;
        node.nonces.clear();
        node.standing = match node.standing {
            Standing::New | Standing::In { .. } => Standing::New,
            Standing::Out { .. } => Standing::Out { passes: 0 },
        };
    }

    fn publish(&mut self, at: Timestamp, published: &Published) {
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
}

impl Node {
    fn new(id: NodeId, wg: WgPublicKey, host: u32, at: Timestamp, probation: u32) -> Self {
        Self {
            id,
            wg,
            host,
            enrolled_at: at,
            evidence: None,
            verdict: None,
            evicted: false,
            probation_left: probation,
            standing: Standing::New,
            accepted_at: None,
            accepted_boot_ms: None,
            last_finished: None,
            nonces: VecDeque::new(),
        }
    }

    /// What the policy judges.
    pub fn record(&self, now: Now) -> Record {
        Record {
            evicted: self.evicted,
            probation_left: self.probation_left,
            evidence: self.evidence.as_ref().map(|e| Evidence {
                overall: e.overall,
                metrics: e.metrics.clone(),
                harness: e.harness.clone(),
                suite: e.suite.clone(),
                suite_version: e.suite_version.clone(),
                finished_at: e.finished_at,
                accepted_for: self.accepted_for(now),
                signer: e.signer,
                digest: e.digest,
            }),
            standing: self.standing,
        }
    }

    /// Whether an operator has excluded it.
    pub fn evicted(&self) -> bool {
        self.evicted
    }

    /// Epochs of probation left, the one in force included.
    pub fn probation_left(&self) -> u32 {
        self.probation_left
    }

    /// What earlier decisions left behind.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    fn accepted_for(&self, now: Now) -> Duration {
        let ms = match (self.accepted_boot_ms, self.accepted_at) {
            (Some(boot_ms), _) => now.boot_ms().saturating_sub(boot_ms),
            (None, Some(at)) => now.wall.as_millisecond() - at.as_millisecond(),
            (None, None) => 0,
        };
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    fn accept(&mut self, at: Timestamp, accepted: &Accepted) {
        (self.accepted_at, self.accepted_boot_ms) = (Some(at), None);
        self.last_finished = Some(accepted.finished_at);
        self.nonces.push_back(accepted.nonce.clone());
        if self.nonces.len() > NONCES {
            self.nonces.pop_front();
        }
        let mut evidence = accepted.clone();
        // The log has the envelope; the state has no use for it.
        evidence.envelope = String::new();
        self.evidence = Some(evidence);
    }
}

/// Number 1 is reserved for a controller that is part of its mesh.
pub const FIRST_HOST: u32 = 2;
/// Nonces that are remembered per node. Older ones need no memory: evidence must be of a later run
/// than the newest accepted, so that an old envelope is refused by its time.
const NONCES: usize = 64;
/// Updates that evidence may answer to: four minutes of epochs of a second, four hours of the default.
const CHALLENGES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap()
    }

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn enrol(fleet: &mut Fleet, text: &str, byte: u8, host: u32) {
        let event = Event::NodeEnrolled {
            name: name(text),
            node: NodeId([byte; 32]),
            wg: WgPublicKey([byte; 32]),
            host,
            token: "t".into(),
            probation: 2,
        };
        fleet.apply(at(), &event);
    }

    #[test]
    fn the_lowest_free_number_is_given_and_none_beyond_the_range() {
        let mut fleet = Fleet::default();
        assert_eq!(fleet.free_host(3), Some(2));
        enrol(&mut fleet, "a", 1, 2);
        assert_eq!(fleet.free_host(3), Some(3));
        enrol(&mut fleet, "b", 2, 3);
        assert_eq!(fleet.free_host(3), None);
    }

    #[test]
    fn a_new_identity_keeps_name_number_and_eviction_but_no_evidence() {
        let mut fleet = Fleet::default();
        enrol(&mut fleet, "a", 1, 2);
        fleet.apply(
            at(),
            &Event::NodeEvicted {
                name: name("a"),
                reason: None,
            },
        );
        let rekeyed = Event::NodeRekeyed {
            name: name("a"),
            node: NodeId([9; 32]),
            wg: WgPublicKey([9; 32]),
            token: "u".into(),
        };
        fleet.apply(at(), &rekeyed);
        let node = fleet.node(&name("a")).unwrap();
        assert!(node.evicted() && node.evidence.is_none());
        assert_eq!((node.host, node.id), (2, NodeId([9; 32])));
        assert_eq!(node.probation_left(), 2, "neither renewed nor taken");
        assert_eq!(fleet.name_of(&NodeId([1; 32])), None);
    }
}
