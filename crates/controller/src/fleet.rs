//! The fold of the event log: every enrolled node and every token, and for each segment what was decided in
//! it ([`Standings`]). [`Fleet::apply`] is the only way in; nothing here reads a clock or decides anything.
//!
//! The file is long because every kind of event is folded in one place.

use crate::by::By;
use crate::clock::{Now, steps_back};
use crate::event::{Event, KeyIn, bytes, text};
use jiff::Timestamp;
use keys::{AuthorityId, MeshId, NodeId, SegmentId, TokenHash, WgPublicKey};
use policy::{History, Policy};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use wire::evidence::{Benchmark, Signer};
use wire::log::LogRestored;
use wire::succession::MAX_SUCCESSIONS;
use wire::{Digest, NodeName, SegmentName, Signed, Succession};

mod admission;
mod ageing;
mod kept;
mod node;
mod routes;
mod standings;

pub use admission::{Banned, Waiting};
use ageing::Ageing;
pub use node::{Case, Eviction, Node, Override};
pub use routes::Routes;
pub use standings::{NodeStanding, Standings};

/// The durable state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    mesh: Option<Founded>,
    nodes: BTreeMap<NodeName, Node>,
    /// The names of the identities; made anew of the nodes when a snapshot is read.
    #[serde(skip)]
    names: BTreeMap<NodeId, NodeName>,
    /// The numbers that are taken; made anew likewise.
    #[serde(skip)]
    hosts: BTreeSet<u32>,
    /// The nodes that were given each WireGuard key last, made anew likewise. A node may have left one since.
    #[serde(skip)]
    owners: HashMap<WgPublicKey, NodeName>,
    tokens: BTreeMap<String, TokenRecord>,
    waiting: BTreeMap<NodeName, Waiting>,
    banned: Vec<Banned>,
    segments: BTreeMap<SegmentId, Standings>,
    /// The number of every segment that the log names. [`SegmentName::default`] has the first without being named.
    segment_names: BTreeMap<SegmentName, SegmentId>,
    /// The policy of each segment that was recorded last.
    policies: BTreeMap<SegmentId, Policy>,
    /// The time of the newest event.
    last_at: Option<Timestamp>,
    /// The copy that the log was restored from last: its events, and the authority's word for it.
    restored: Option<(u64, Signed<LogRestored>)>,
    /// The words of the authorities before, oldest first.
    successions: Vec<Signed<Succession>>,
}

/// The mesh's identity, and the key that signs for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Founded {
    #[serde(with = "bytes")]
    id: MeshId,
    #[serde(with = "text")]
    authority: AuthorityId,
}

/// An enrolment token, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Stands for its secret.
    #[serde(with = "bytes")]
    pub hash: TokenHash,
    /// The only name that it admits.
    pub name: Option<NodeName>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends, in seconds since 1970.
    pub expires_unix: u64,
    /// How many nodes may enrol with it.
    pub uses: u32,
    /// The nodes that did.
    pub used_by: Vec<NodeName>,
    /// The segments that they may ask for; the first is the one of a node that names none.
    pub segments: Vec<SegmentId>,
    /// An operator withdrew it.
    pub revoked: bool,
    /// Over by the log's own time, before the clock was set back.
    over: bool,
    /// When it was created, on a clock that nobody sets.
    ageing: Ageing,
}

impl TokenRecord {
    /// Whether as many nodes enrolled with it as may.
    pub fn is_used_up(&self) -> bool {
        u32::try_from(self.used_by.len()).map_or(true, |used| used >= self.uses)
    }

    /// Whether a node may enrol with it now.
    pub fn is_open(&self, now: Now) -> bool {
        !self.revoked && !self.is_used_up() && !self.is_over(now)
    }

    /// Whether its time is over, by either clock: a token that was made while the wall clock was ahead must
    /// not live on until that time has come.
    pub fn is_over(&self, now: Now) -> bool {
        let created = u64::try_from(self.created_at.as_second()).unwrap_or(0);
        let life = Duration::from_secs(self.expires_unix.saturating_sub(created));
        self.over
            || self.expires_unix <= now.unix()
            || self.ageing.age(now).is_none_or(|age| age >= life)
    }
}

impl Fleet {
    /// Folds one event, which happened at the word of `by`. An event about something unknown, which a verified log does not hold,
    /// changes nothing.
    pub fn apply(&mut self, at: Timestamp, by: Option<By>, event: &Event) {
        // Events are in the order in which they happened. One that is earlier than the one before shows that
        // the clock was set back in between, and no replay forgets that.
        let last_at = self.last_at.replace(at);
        if let Some(last) = last_at.filter(|last| steps_back(*last, at)) {
            for node in self.nodes.values_mut() {
                node.clock_set_back(last, at);
            }
            // Over by the log's own time: no clock that is set back revives it.
            for token in self.tokens.values_mut() {
                token.over |= token.expires_unix <= u64::try_from(last.as_second()).unwrap_or(0);
            }
        }
        match event {
            Event::MeshCreated { mesh, authority } => {
                self.mesh = Some(Founded {
                    id: *mesh,
                    authority: *authority,
                });
            }
            Event::AuthorityRotated { new, signed, .. } => {
                if let Some(mesh) = &mut self.mesh {
                    mesh.authority = *new;
                }
                if self.successions.len() >= MAX_SUCCESSIONS {
                    self.successions.remove(0);
                }
                self.successions.push(signed.clone());
            }
            Event::AuthorityReplaced { new, .. } => {
                if let Some(mesh) = &mut self.mesh {
                    mesh.authority = *new;
                }
                // Nobody's word leads to the new key.
                self.successions.clear();
            }
            Event::TokenCreated {
                id,
                hash,
                name,
                expires_unix,
                uses,
                boot_ms,
                segments,
            } => {
                let record = TokenRecord {
                    hash: *hash,
                    name: name.clone(),
                    created_at: at,
                    expires_unix: *expires_unix,
                    uses: *uses,
                    used_by: Vec::new(),
                    segments: segments.clone(),
                    revoked: false,
                    over: false,
                    ageing: Ageing::Counted {
                        at,
                        boot_ms: *boot_ms,
                    },
                };
                self.tokens.insert(id.clone(), record);
            }
            Event::TokenRevoked { id } => {
                if let Some(record) = self.tokens.get_mut(id) {
                    record.revoked = true;
                }
            }
            Event::NodeWaiting {
                name,
                node,
                keys,
                token,
            } => {
                self.use_token(token, name);
                let waiting = Waiting::new(*node, keys, token, at);
                self.waiting.insert(name.clone(), waiting);
            }
            Event::NodeRejected { name, .. } => {
                self.waiting.remove(name);
            }
            Event::NodeRemoved {
                name,
                node,
                keys,
                reason,
            } => {
                self.remove(name);
                self.banned.push(Banned {
                    node: *node,
                    keys: keys.clone(),
                    name: name.clone(),
                    at,
                    by,
                    reason: reason.clone(),
                });
            }
            Event::KeyUnbanned { node } => self.banned.retain(|banned| banned.node != *node),
            Event::NodeEnrolled {
                name,
                node,
                keys,
                host,
                token,
                probation,
            } => {
                self.enter(name, node, token);
                self.names.insert(*node, name.clone());
                let mut node = Node::new(*node, keys, *host, at);
                node.allow(self.segments_of(token));
                self.nodes.insert(name.clone(), node);
                self.hosts.insert(*host);
                self.own(name, keys);
                for probation in probation {
                    let standings = self.segments.entry(probation.segment).or_default();
                    standings.enrol(name, probation.epochs);
                }
            }
            Event::NodeRekeyed {
                name,
                node,
                keys,
                token,
            } => {
                self.enter(name, node, token);
                self.rekey(name, *node, keys);
                self.own(name, keys);
                let allowed = self.segments_of(token).to_vec();
                if let Some(node) = self.nodes.get_mut(name) {
                    node.allow(&allowed);
                }
            }
            Event::SegmentNamed { segment, name } => {
                self.segment_names.insert(name.clone(), *segment);
            }
            Event::NodeInvited { name, segment } => {
                if let Some(node) = self.nodes.get_mut(name) {
                    node.invite(*segment);
                }
            }
            Event::NodeJoinedSegment {
                name,
                key,
                probation,
            } => {
                self.own(name, std::slice::from_ref(key));
                if let Some(node) = self.nodes.get_mut(name) {
                    node.join(*key);
                    if let Some(epochs) = probation {
                        let standings = self.segments.entry(key.segment).or_default();
                        standings.enrol(name, *epochs);
                    }
                }
            }
            Event::NodeLeftSegment { name, segment, .. } => {
                if let Some(node) = self.nodes.get_mut(name) {
                    node.leave(*segment);
                    node.change_routes(*segment, |it| *it = Routes::default());
                }
                if let Some(standings) = self.segments.get_mut(segment) {
                    standings.remove(name);
                }
            }
            Event::ControllerStarted { boot_ms, .. } => {
                let start = Now::at(*boot_ms, at);
                for node in self.nodes.values_mut() {
                    node.restart(last_at, start);
                }
                for token in self.tokens.values_mut() {
                    token.ageing = token.ageing.restart(last_at, start);
                }
            }
            Event::PolicyChanged {
                segment, policy, ..
            } => {
                self.policies.insert(*segment, (**policy).clone());
            }
            Event::OverrideSet { name, .. } | Event::OverrideCleared { name } => {
                if let Some(node) = self.nodes.get_mut(name) {
                    node.set_override((at, by), event);
                }
            }
            Event::GroupChanged {
                name,
                group,
                member,
            } => {
                if let Some(node) = self.nodes.get_mut(name) {
                    if *member {
                        node.groups.insert(group.clone());
                    } else {
                        node.groups.remove(group);
                    }
                }
            }
            Event::RoutesAdvertised {
                name,
                segment,
                prefixes,
            } => {
                self.change_routes(name, *segment, |it| {
                    it.advertised = prefixes.iter().copied().collect();
                });
            }
            Event::RouteApproved {
                name,
                segment,
                prefix,
            } => {
                self.change_routes(name, *segment, |it| {
                    it.approved.insert(*prefix);
                });
            }
            Event::RouteWithdrawn {
                name,
                segment,
                prefix,
            } => {
                self.change_routes(name, *segment, |it| {
                    it.approved.remove(prefix);
                });
            }
            Event::EvidenceAccepted(accepted) => {
                if let Some(node) = self.nodes.get_mut(&accepted.name) {
                    node.accept(at, accepted);
                }
            }
            Event::Decided { segment, nodes, .. } => {
                let standings = self.segments.entry(*segment).or_default();
                let known = nodes.iter().filter(|v| self.nodes.contains_key(&v.name));
                known.for_each(|verdict| standings.decide(verdict));
            }
            Event::EpochPublished(published) => {
                let standings = self.segments.entry(published.segment).or_default();
                standings.publish(at, published);
            }
            Event::NodeEvicted { name, reason } => {
                if let Some(node) = self.nodes.get_mut(name) {
                    let reason = reason.clone();
                    node.set_eviction(Some(Eviction { at, by, reason }));
                }
            }
            Event::NodeReadmitted { name } => {
                if let Some(node) = self.nodes.get_mut(name) {
                    node.set_eviction(None);
                }
                for standings in self.segments.values_mut() {
                    standings.readmit(name);
                }
            }
            // For people: nobody is judged by it.
            Event::DuplicateSeen { .. } | Event::EvaluatorRotated(_) => {}
            Event::LogRestored { copy, seen, signed } => {
                self.restored = Some((copy.events, signed.clone()));
                for standings in self.segments.values_mut() {
                    standings.recover(*seen);
                }
            }
            // For whoever keeps checkpoints.
            Event::LogKeyRotated { .. } => {}
            // For audits: what left was folded before.
            Event::EntriesPruned(_) => {}
        }
    }

    /// The policy of a segment that was recorded last.
    pub fn policy(&self, segment: SegmentId) -> Option<&Policy> {
        self.policies.get(&segment)
    }

    /// The time of the newest event.
    pub fn last_at(&self) -> Option<Timestamp> {
        self.last_at
    }

    /// The evidence accepted earlier from a node, as far as it concerns a run of it.
    ///
    /// A run answers to one update, of a segment that the node is in. Whichever that is, the run is no older than the
    /// update: so it counts in all of them.
    pub fn history(&self, node: &Node, run: &Benchmark, signer: &Signer, now: Now) -> History {
        let known = |challenge: &Digest| {
            let mut segments = self.segments.iter();
            segments.any(|(id, it)| node.is_in(*id) && it.knows_challenge(challenge))
        };
        node.history(run, signer, known, now)
    }

    /// The mesh, once it was created.
    pub fn mesh(&self) -> Option<MeshId> {
        self.mesh.as_ref().map(|mesh| mesh.id)
    }

    /// The key that signs for the mesh, once it was created.
    pub fn authority(&self) -> Option<AuthorityId> {
        self.mesh.as_ref().map(|mesh| mesh.authority)
    }

    /// The authority's word that the log was restored from a copy, if it was.
    pub fn restored(&self) -> Option<&Signed<LogRestored>> {
        self.restored.as_ref().map(|(_, restored)| restored)
    }

    /// How many events that copy had.
    pub fn restored_at(&self) -> u64 {
        self.restored.as_ref().map_or(0, |(events, _)| *events)
    }

    /// The words of the authorities before, each for the next one, oldest first.
    pub fn successions(&self) -> &[Signed<Succession>] {
        &self.successions
    }

    /// Every key that has signed for the mesh, as far as the newest one has its word.
    pub fn authorities(&self) -> Vec<AuthorityId> {
        let before = self.successions.iter().map(Signed::signer);
        self.authority().into_iter().chain(before).collect()
    }

    /// The state as a snapshot keeps it.
    pub fn to_snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the state always encodes")
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// When it is not one of this version.
    pub fn from_snapshot(state: &[u8]) -> Result<Self, serde_json::Error> {
        let mut fleet: Self = serde_json::from_slice(state)?;
        let names = fleet
            .nodes
            .iter()
            .map(|(name, node)| (node.id, name.clone()));
        fleet.names = names.collect();
        fleet.hosts = fleet.nodes.values().map(|node| node.host).collect();
        let keys = fleet.nodes.iter().flat_map(|(name, node)| {
            let keys = node.keys().iter();
            keys.map(|key| (key.wg, name.clone()))
        });
        fleet.owners = keys.collect();
        Ok(fleet)
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

    /// The node with this WireGuard key.
    pub fn owner_of(&self, wg: &WgPublicKey) -> Option<&NodeName> {
        let has = |node: &Node| node.keys().iter().any(|key| key.wg == *wg);
        let last = self.owners.get(wg);
        last.filter(|name| self.nodes.get(*name).is_some_and(has))
    }

    /// A segment's part.
    pub fn standings(&self, segment: SegmentId) -> &Standings {
        self.segments.get(&segment).unwrap_or(&standings::NONE)
    }

    /// The number of the segment of this name, if it has one.
    pub fn segment_number(&self, name: &SegmentName) -> Option<SegmentId> {
        let named = self.segment_names.get(name).copied();
        named.or_else(|| name.told().is_none().then_some(SegmentId::FIRST))
    }

    fn change_routes(
        &mut self,
        name: &NodeName,
        segment: SegmentId,
        change: impl FnOnce(&mut Routes),
    ) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.change_routes(segment, change);
        }
    }

    /// The name of the segment of this number.
    pub fn segment_name(&self, segment: SegmentId) -> SegmentName {
        let mut named = self.segment_names.iter();
        let found = named.find(|(_, id)| **id == segment);
        found.map_or_else(SegmentName::default, |(name, _)| name.clone())
    }

    /// The lowest number that no segment has had.
    pub fn free_segment(&self) -> SegmentId {
        let highest = self.segment_names.values().map(|id| id.0).max();
        SegmentId(highest.unwrap_or(SegmentId::FIRST.0).saturating_add(1))
    }

    /// The node of this name, before the policy of a segment that it is in.
    pub fn case(&self, segment: SegmentId, name: &NodeName) -> Option<Case<'_>> {
        let case = self.case_as_if(segment, name);
        case.filter(|case| case.node.is_in(segment))
    }

    /// The same, in it or not.
    pub fn case_as_if(&self, segment: SegmentId, name: &NodeName) -> Option<Case<'_>> {
        let (name, node) = self.nodes.get_key_value(name)?;
        let standing = self.standings(segment).of(name);
        Some(Case {
            name,
            node,
            standing,
        })
    }

    /// Every node of a segment, before its policy.
    pub fn cases(&self, segment: SegmentId) -> impl Iterator<Item = (&NodeName, Case<'_>)> {
        let standings = self.standings(segment);
        let nodes = self.nodes.iter();
        let nodes = nodes.filter(move |(_, node)| node.is_in(segment));
        nodes.map(move |(name, node)| {
            let standing = standings.of(name);
            let case = Case {
                name,
                node,
                standing,
            };
            (name, case)
        })
    }

    /// Every token, by what lists call it.
    pub fn tokens(&self) -> &BTreeMap<String, TokenRecord> {
        &self.tokens
    }

    /// The lowest free number in the address ranges, from [`FIRST_HOST`] to `last`.
    pub fn free_host(&self, last: u32) -> Option<u32> {
        let taken = self.hosts.range(FIRST_HOST..);
        let mut free = FIRST_HOST;
        for host in taken.take_while(|host| **host <= last) {
            if *host != free {
                break;
            }
            free += 1;
        }
        (free <= last).then_some(free)
    }

    fn segments_of(&self, token: &str) -> &[SegmentId] {
        let record = self.tokens.get(token);
        record.map_or(&[], |record| &record.segments)
    }

    fn use_token(&mut self, token: &str, name: &NodeName) {
        if let Some(record) = self.tokens.get_mut(token) {
            record.used_by.push(name.clone());
        }
    }

    /// A node gets its place. One that waited for it has used the token already.
    fn enter(&mut self, name: &NodeName, node: &NodeId, token: &str) {
        if self.waiting.get(name).is_some_and(|it| it.node == *node) {
            self.waiting.remove(name);
        } else {
            self.use_token(token, name);
        }
    }

    fn remove(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.remove(name) {
            self.names.remove(&node.id);
            self.hosts.remove(&node.host);
        }
        for standings in self.segments.values_mut() {
            standings.remove(name);
        }
    }

    /// These keys are this node's from now on.
    fn own(&mut self, name: &NodeName, keys: &[KeyIn]) {
        let keys = keys.iter().map(|key| (key.wg, name.clone()));
        self.owners.extend(keys);
    }

    fn rekey(&mut self, name: &NodeName, id: NodeId, keys: &[KeyIn]) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.id != id {
            node.forget_keys();
        }
        keys.iter().for_each(|key| node.join(*key));
        if node.id == id {
            return;
        }
        self.names.remove(&node.id);
        self.names.insert(id, name.clone());
        node.forget_identity(id);
        for standings in self.segments.values_mut() {
            standings.forget_identity(name);
        }
    }
}

/// Number 1 is reserved for a controller that is part of its mesh.
pub const FIRST_HOST: u32 = 2;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Probation;

    fn at() -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap()
    }

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn key(byte: u8) -> Vec<KeyIn> {
        vec![KeyIn {
            segment: SegmentId::FIRST,
            wg: WgPublicKey([byte; 32]),
        }]
    }

    fn enrol(fleet: &mut Fleet, text: &str, byte: u8, host: u32) {
        let event = Event::NodeEnrolled {
            name: name(text),
            node: NodeId([byte; 32]),
            keys: key(byte),
            host,
            token: "t".into(),
            probation: vec![Probation {
                segment: SegmentId::FIRST,
                epochs: 2,
            }],
        };
        fleet.apply(at(), None, &event);
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
            None,
            &Event::NodeEvicted {
                name: name("a"),
                reason: None,
            },
        );
        let rekeyed = Event::NodeRekeyed {
            name: name("a"),
            node: NodeId([9; 32]),
            keys: key(9),
            token: "u".into(),
        };
        fleet.apply(at(), None, &rekeyed);
        let node = fleet.node(&name("a")).unwrap();
        assert!(node.evicted() && node.newest_run().is_none());
        assert_eq!((node.host, node.id), (2, NodeId([9; 32])));
        let case = fleet.case(SegmentId::FIRST, &name("a")).unwrap();
        assert_eq!(case.probation_left(), 2, "neither renewed nor taken");
        assert_eq!(fleet.name_of(&NodeId([1; 32])), None);
    }
}
