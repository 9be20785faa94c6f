//! Enrolment: the one thing that an unknown key may ask for. A token admits one node, once, or as
//! many as it says; a name and its addresses stay with a node until it is removed.
//!
//! | The key is | The name is | The token | Outcome |
//! |---|---|---|---|
//! | enrolled, same WireGuard key | – | any | the same place; nothing is used up |
//! | enrolled, other WireGuard key | its own | good | the node's WireGuard key changes |
//! | unknown | free | good | a new node |
//! | unknown | taken | good and bound to that name | the node's keys change, its evidence is void |
//! | unknown | taken | good, not bound | refused |
//! | banned, or its WireGuard key is | – | any | refused |
//! | any | – | good, but for none of the segments that are asked for | refused |
//!
//! Of the segments that are asked for, those that the token does not allow, or that there are not, are left out: the node
//! asks for them again on its connection, and hears why.
//!
//! Where an operator has to approve, an unknown key that would get a place waits for it instead: its keys and the
//! name are on record, and the token's use is spent. It need not show the token again.
//!
//! [`Enrolment`] only decides; what it decided takes effect with [`Admission::carry_out`].

use crate::by::By;
use crate::clock::Now;
use crate::decide::Cause;
use crate::event::{Event, KeyIn, Probation};
use crate::fleet::{Fleet, Node, TokenRecord, Waiting};
use crate::mesh::EnrolmentMode;
use crate::rotate::Rotation;
use crate::segment::Segment;
use crate::segments::Segments;
use allowance::Bucket;
use keys::{NodeId, SegmentId, TokenHash, WgPublicKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use wire::message::{Enrol, Refusal};
use wire::segment::MAX_SEGMENTS;
use wire::update::MAX_ROSTER;
use wire::{Ask, NodeName, SegmentName};

/// The part that decides who is let in.
#[derive(Debug)]
pub(crate) struct Enrolment<'e> {
    pub(crate) mode: EnrolmentMode,
    pub(crate) fleet: &'e Fleet,
    pub(crate) segments: &'e Segments,
    pub(crate) allowance: &'e mut Bucket,
    /// Where the connection comes from.
    pub(crate) seen: Option<IpAddr>,
}

/// The decision on a request.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It was enrolled before: the answer was lost.
    Known(NodeName),
    /// It waits for an operator's word already.
    StillWaiting(NodeName),
    /// It has to wait for an operator's word.
    Waiting {
        name: NodeName,
        key: NodeId,
        event: Event,
    },
    /// A new node.
    New {
        name: NodeName,
        key: NodeId,
        event: Event,
    },
    /// A node's keys change.
    Rekeyed {
        name: NodeName,
        old: NodeId,
        new: NodeId,
        event: Event,
    },
}

/// The outcome of a request that was not refused.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A place.
    Enrolled(Enrolled),
    /// None until an operator approves.
    Waiting(NodeName),
}

/// A node that may have its place.
#[derive(Debug)]
pub(crate) struct Enrolled {
    pub(crate) name: NodeName,
    /// The name stood for another identity until now.
    pub(crate) replaced: bool,
}

impl Enrolment<'_> {
    /// Whether a key is let in, and as whom.
    pub(crate) fn admit(
        &mut self,
        peer: NodeId,
        enrol: &Enrol,
        now: Now,
    ) -> Result<Admission, Refusal> {
        let wgs: Vec<WgPublicKey> = enrol.segments.iter().map(|ask| ask.wg).collect();
        let distinct: BTreeSet<WgPublicKey> = wgs.iter().copied().collect();
        if wgs.is_empty() || wgs.len() > MAX_SEGMENTS || distinct.len() != wgs.len() {
            return Err(Refusal::Protocol);
        }
        let known = self.fleet.name_of(&peer);
        if let Some(name) = known {
            // A node whose answer was lost asks again; it has proved the key that the place is of.
            let node = self.fleet.node(name);
            let may_have = |node: &Node, id| node.is_in(id) || node.may_ask_for(id);
            if node
                .is_some_and(|node| self.has(node.keys(), &enrol.segments, |id| may_have(node, id)))
            {
                return Ok(Admission::Known(name.clone()));
            }
        }
        // The key may be in the wrong hands, and a token is not what it lacks.
        if self.fleet.is_banned(&peer, &wgs) {
            return Err(Refusal::Banned);
        }
        let waits = self.fleet.waiting_of(&peer);
        let is_of_token = |waiting: &Waiting, id| {
            let token = self.fleet.tokens().get(&waiting.token);
            token.is_none_or(|token| token.segments.contains(&id))
        };
        let is_same = |waiting: &Waiting| {
            self.has(&waiting.keys, &enrol.segments, |id| {
                is_of_token(waiting, id)
            })
        };
        if let Some((name, _)) = waits.filter(|(_, it)| is_same(it)) {
            return Ok(Admission::StillWaiting(name.clone()));
        }
        // A weak key would be another name for somebody else's, or for nobody's.
        if !peer.is_sound() || !wgs.iter().all(WgPublicKey::is_sound) {
            return Err(Refusal::WeakKey);
        }
        // The token first: nobody without one takes from what those have who hold one.
        let (token, bound, allowed) = self.open_token(enrol.token.hash(), now)?;
        let keys = self.keys(&enrol.segments, allowed)?;
        // A node whose own way lies in the mesh's range would lose it with the first route into the tunnel.
        let mut used = enrol.addresses.iter().chain(&self.seen);
        if let Some(within) = used.find(|address| self.segments.contain(**address)) {
            return Err(Refusal::InRange(*within));
        }
        if !self.allowance.take(now.boot) {
            return Err(Refusal::Busy);
        }
        let name = match (known, &bound) {
            (Some(known), Some(bound)) if known != bound => return Err(Refusal::NameTaken),
            (Some(known), _) => known.clone(),
            (None, Some(bound)) => bound.clone(),
            (None, None) => match waits {
                Some((name, _)) => name.clone(),
                None => enrol.name.clone().unwrap_or_else(|| default_name(&peer)),
            },
        };
        let mut others = self.fleet.waiting().values().filter(|it| it.node != peer);
        let others_wait = others.any(|it| it.keys.iter().any(|key| wgs.contains(&key.wg)));
        let is_another = |waiting: &Waiting| waiting.node != peer;
        if self.fleet.waiting().get(&name).is_some_and(is_another) {
            return Err(Refusal::NameTaken);
        }
        if others_wait || keys.iter().any(|key| self.is_taken(key, &name)) {
            return Err(Refusal::KeyTaken);
        }
        match self.fleet.node(&name) {
            // A name is a node's for ever: an unbound token must not buy another node's place.
            Some(_) if known.is_none() && bound.is_none() => Err(Refusal::NameTaken),
            _ if known.is_none() && self.mode == EnrolmentMode::Approve => Ok(Admission::Waiting {
                event: Event::NodeWaiting {
                    name: name.clone(),
                    node: peer,
                    keys,
                    token,
                },
                name,
                key: peer,
            }),
            Some(node) => Ok(Admission::Rekeyed {
                event: Event::NodeRekeyed {
                    name: name.clone(),
                    node: peer,
                    keys,
                    token,
                },
                name,
                old: node.id,
                new: peer,
            }),
            None => {
                let place = Newcomer {
                    name,
                    node: peer,
                    keys,
                    token,
                };
                place.create(self.fleet, self.segments)
            }
        }
    }

    /// Whether all that is asked for, and `may_be` there, is there already, with the same keys.
    fn has(&self, keys: &[KeyIn], asks: &[Ask], may_be: impl Fn(SegmentId) -> bool) -> bool {
        let number = |name: &SegmentName| self.segments.named(name).map(Segment::id);
        let counts = |ask: &&Ask| match &ask.name {
            Some(name) => number(name).is_some_and(&may_be),
            None => true,
        };
        let mut asks = asks.iter().filter(counts).peekable();
        let is_there = |ask: &Ask| {
            let mut same = keys.iter().filter(|key| key.wg == ask.wg);
            same.any(|key| {
                let asked = ask.name.as_ref();
                asked.is_none_or(|name| number(name) == Some(key.segment))
            })
        };
        asks.peek().is_some() && asks.all(is_there)
    }

    /// Those of the segments that are asked for that the token allows; at least one.
    fn keys(&self, asks: &[Ask], allowed: &[SegmentId]) -> Result<Vec<KeyIn>, Refusal> {
        let mut keys: BTreeMap<SegmentId, WgPublicKey> = BTreeMap::new();
        for ask in asks {
            let segment = match &ask.name {
                Some(name) => self.segments.named(name).map(Segment::id),
                None => allowed.first().copied(),
            };
            let segment = segment.filter(|id| allowed.contains(id));
            // A segment of the token that the configuration has no more is none.
            let segment = segment.filter(|id| self.segments.find(*id).is_some());
            let Some(segment) = segment else { continue };
            if keys.insert(segment, ask.wg).is_some() {
                return Err(Refusal::Protocol);
            }
        }
        if keys.is_empty() {
            return Err(Refusal::Segment);
        }
        let keys = keys.into_iter();
        Ok(keys.map(|(segment, wg)| KeyIn { segment, wg }).collect())
    }

    /// Whether a key is another node's, or the same node's in another segment.
    fn is_taken(&self, key: &KeyIn, name: &NodeName) -> bool {
        let owner = self.fleet.owner_of(&key.wg);
        owner.is_some_and(|owner| {
            let own = self.fleet.node(owner).filter(|_| owner == name);
            own.is_none_or(|node| node.wg(key.segment) != Some(key.wg))
        })
    }

    fn open_token(&self, hash: TokenHash, now: Now) -> Result<OpenToken<'_>, Refusal> {
        let fits = |record: &TokenRecord| record.hash == hash && record.is_open(now);
        let mut tokens = self.fleet.tokens().iter();
        let (id, record) = tokens
            .find(|(_, record)| fits(record))
            .ok_or(Refusal::BadToken)?;
        Ok((id.clone(), record.name.clone(), &record.segments))
    }
}

/// A token's id, the name that it is bound to, and the segments that it allows.
type OpenToken<'f> = (String, Option<NodeName>, &'f [SegmentId]);

/// A key that gets a place of its own.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) name: NodeName,
    pub(crate) node: NodeId,
    pub(crate) keys: Vec<KeyIn>,
    pub(crate) token: String,
}

impl Newcomer {
    /// The place, if there is one.
    pub(crate) fn create(self, fleet: &Fleet, segments: &Segments) -> Result<Admission, Refusal> {
        // One number in all segments: it may come into another one later.
        let last = segments.last_host();
        let host = fleet.free_host(last).ok_or(Refusal::MeshFull)?;
        if fleet.nodes().len() >= MAX_ROSTER {
            return Err(Refusal::MeshFull);
        }
        let own = self
            .keys
            .iter()
            .filter_map(|key| segments.find(key.segment));
        let probation = own.map(|segment| Probation {
            segment: segment.id(),
            epochs: segment.policy().probation_epochs,
        });
        let event = Event::NodeEnrolled {
            name: self.name.clone(),
            node: self.node,
            host,
            token: self.token,
            probation: probation.collect(),
            keys: self.keys,
        };
        Ok(Admission::New {
            name: self.name,
            key: self.node,
            event,
        })
    }
}

impl Admission {
    /// Makes it durable at the word of `by`, and only then true. A log that cannot be written lets nobody in, and
    /// uses up no token.
    pub(crate) fn carry_out(
        self,
        rotation: &mut Rotation<'_>,
        by: Option<By>,
        now: Now,
    ) -> Result<Outcome, Refusal> {
        let enrolled = |name, replaced| Ok(Outcome::Enrolled(Enrolled { name, replaced }));
        match self {
            Self::Known(name) => enrolled(name, false),
            Self::StillWaiting(name) => Ok(Outcome::Waiting(name)),
            Self::Waiting { name, key, event } => {
                rotation.commit(by, event, now).map_err(|_| Refusal::Busy)?;
                tracing::info!(node = %name, key = key.short(), "node waits for approval");
                Ok(Outcome::Waiting(name))
            }
            Self::New { name, key, event } => {
                rotation.commit(by, event, now).map_err(|_| Refusal::Busy)?;
                tracing::info!(node = %name, key = key.short(), "node enrolled");
                let fleet = rotation.journal.fleet();
                rotation.segments.want_join_of(fleet, &name, now);
                enrolled(name, false)
            }
            Self::Rekeyed {
                name,
                old,
                new,
                event,
            } => {
                // The old key may be in the wrong hands: its holder is dropped at once, by an epoch that it is
                // not given the secret of.
                let written = rotation.shut_out(by, &[old], Cause::Rekey, &[event], now);
                written.map_err(|_| Refusal::Busy)?;
                tracing::info!(node = %name, key = new.short(), "node enrolled with new keys");
                let replaced = old != new;
                if replaced {
                    let fleet = rotation.journal.fleet();
                    rotation.segments.want_joins(fleet, now);
                }
                enrolled(name, replaced)
            }
        }
    }
}

fn default_name(node: &NodeId) -> NodeName {
    let name = format!("node-{}", node.short());
    name.parse().expect("hex digits behind `node-` are a name")
}
