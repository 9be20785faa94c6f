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
//!
//! Where an operator has to approve, an unknown key that would get a place waits for it instead: its keys and the
//! name are on record, and the token's use is spent. It need not show the token again.
//!
//! [`Enrolment`] only decides; what it decided takes effect with [`Admission::carry_out`].

use crate::by::By;
use crate::clock::Now;
use crate::decide::Cause;
use crate::event::{Event, Probation};
use crate::fleet::{Fleet, TokenRecord, Waiting};
use crate::mesh::EnrolmentMode;
use crate::network::Network;
use crate::rotate::Rotation;
use crate::segments::Segments;
use allowance::Bucket;
use keys::{NodeId, TokenHash, WgPublicKey};
use std::net::IpAddr;
use wire::message::{Enrol, Refusal};
use wire::update::MAX_ROSTER;
use wire::{Ask, NodeName};

/// The part that decides who is let in.
#[derive(Debug)]
pub(crate) struct Enrolment<'e> {
    pub(crate) network: &'e Network,
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
        let [Ask { wg, .. }] = enrol.segments[..] else {
            return Err(Refusal::Protocol);
        };
        let known = self.fleet.name_of(&peer);
        if let Some(name) = known {
            // A node whose answer was lost asks again; it has proved the key that the place is of.
            if self.fleet.node(name).is_some_and(|n| n.wg == wg) {
                return Ok(Admission::Known(name.clone()));
            }
        }
        // The key may be in the wrong hands, and a token is not what it lacks.
        if self.fleet.is_banned(&peer, &wg) {
            return Err(Refusal::Banned);
        }
        let waits = self.fleet.waiting_of(&peer);
        if let Some((name, _)) = waits.filter(|(_, waiting)| waiting.wg == wg) {
            return Ok(Admission::StillWaiting(name.clone()));
        }
        // A weak key would be another name for somebody else's, or for nobody's.
        if !peer.is_sound() || !wg.is_sound() {
            return Err(Refusal::WeakKey);
        }
        // The token first: nobody without one takes from what those have who hold one.
        let (token, bound) = self.open_token(enrol.token.hash(), now)?;
        // A node whose own way lies in the mesh's range would lose it with the first route into the tunnel.
        let mut used = enrol.addresses.iter().chain(&self.seen);
        if let Some(within) = used.find(|address| self.network.contains(**address)) {
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
        let mut others = self.fleet.waiting().iter();
        let others_wait = others.find(|(_, it)| it.node != peer && it.wg == wg);
        let is_another = |waiting: &Waiting| waiting.node != peer;
        if self.fleet.waiting().get(&name).is_some_and(is_another) {
            return Err(Refusal::NameTaken);
        }
        let owner = self.fleet.owner_of(&wg);
        if owner.is_some_and(|owner| *owner != name) || others_wait.is_some() {
            return Err(Refusal::KeyTaken);
        }
        match self.fleet.node(&name) {
            // A name is a node's for ever: an unbound token must not buy another node's place.
            Some(_) if known.is_none() && bound.is_none() => Err(Refusal::NameTaken),
            _ if known.is_none() && self.mode == EnrolmentMode::Approve => Ok(Admission::Waiting {
                event: Event::NodeWaiting {
                    name: name.clone(),
                    node: peer,
                    wg,
                    token,
                },
                name,
                key: peer,
            }),
            Some(node) => Ok(Admission::Rekeyed {
                event: Event::NodeRekeyed {
                    name: name.clone(),
                    node: peer,
                    wg,
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
                    wg,
                    token,
                };
                place.create(self.network, self.fleet, self.segments)
            }
        }
    }

    fn open_token(&self, hash: TokenHash, now: Now) -> Result<(String, Option<NodeName>), Refusal> {
        let fits = |record: &TokenRecord| record.hash == hash && record.is_open(now);
        let mut tokens = self.fleet.tokens().iter();
        let (id, record) = tokens
            .find(|(_, record)| fits(record))
            .ok_or(Refusal::BadToken)?;
        Ok((id.clone(), record.name.clone()))
    }
}

/// A key that gets a place of its own.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) name: NodeName,
    pub(crate) node: NodeId,
    pub(crate) wg: WgPublicKey,
    pub(crate) token: String,
}

impl Newcomer {
    /// The place, if there is one.
    pub(crate) fn create(
        self,
        network: &Network,
        fleet: &Fleet,
        segments: &Segments,
    ) -> Result<Admission, Refusal> {
        let last = network.last_host();
        let host = fleet.free_host(last).ok_or(Refusal::MeshFull)?;
        if fleet.nodes().len() >= MAX_ROSTER {
            return Err(Refusal::MeshFull);
        }
        let probation = segments.iter().map(|segment| Probation {
            segment: segment.id(),
            epochs: segment.policy().probation_epochs,
        });
        let event = Event::NodeEnrolled {
            name: self.name.clone(),
            node: self.node,
            wg: self.wg,
            host,
            token: self.token,
            probation: probation.collect(),
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
                let written = rotation.shut_out(by, &old, Cause::Rekey, event, now);
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
