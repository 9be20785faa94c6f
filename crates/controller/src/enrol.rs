//! Enrolment: the one thing that an unknown key may ask for. A token admits one node, once; a name
//! and its addresses stay with a node for ever.
//!
//! | The key is | The name is | The token | Outcome |
//! |---|---|---|---|
//! | enrolled, same WireGuard key | – | any | the same place; nothing is used up |
//! | enrolled, other WireGuard key | its own | good | the node's WireGuard key changes |
//! | unknown | free | good | a new node |
//! | unknown | taken | good and bound to that name | the node's keys change, its evidence is void |
//! | unknown | taken | good, not bound | refused |

use crate::clock::Now;
use crate::decide::Cause;
use crate::engine::{ConnectionId, Engine, Stage};
use crate::event::Event;
use crate::fleet::{Fate, TokenRecord};
use epoch::authority::Kind;
use keys::{NodeId, SegmentId, TokenHash};
use std::time::Duration;
use wire::NodeName;
use wire::message::{Enrol, Refusal, ToNode};
use wire::update::MAX_ROSTER;
use wire::{Place, Signed};

impl Engine {
    /// A key asks to be enrolled.
    pub(crate) fn enrol(&mut self, id: ConnectionId, peer: NodeId, enrol: &Enrol, now: Now) {
        match self.admit(peer, enrol, now) {
            Ok(name) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    let deadline = now.boot + OPENING_TIME;
                    session.stage = Stage::Opening { deadline };
                }
                if let Some(place) = self.place(&name) {
                    self.send(id, ToNode::Enrolled(place));
                }
            }
            Err(refusal) => {
                tracing::info!(reason = %refusal, key = peer.short(), "enrolment refused");
                self.close(id, refusal);
            }
        }
    }

    /// Where a node belongs.
    pub(crate) fn place(&self, name: &NodeName) -> Option<Signed<Place>> {
        let node = self.fleet.node(name)?;
        let place = Place {
            node: node.id,
            mesh: self.mesh,
            segment: SegmentId::FIRST,
            name: name.clone(),
            v4: self.network.v4(node.host),
            v6: self.network.v6(node.host),
        };
        let signed = Signed::sign(&place, &self.setup.authority);
        signed
            .inspect_err(|error| tracing::error!(node = %name, %error, "its place breaks a rule"))
            .ok()
    }

    fn admit(&mut self, peer: NodeId, enrol: &Enrol, now: Now) -> Result<NodeName, Refusal> {
        let known = self.fleet.name_of(&peer).cloned();
        if let Some(name) = &known {
            // A node whose answer was lost asks again; it has proved the key that the place is of.
            if self.fleet.node(name).is_some_and(|n| n.wg == enrol.wg) {
                return Ok(name.clone());
            }
        }
        // A weak key would be another name for somebody else's, or for nobody's.
        if !peer.is_sound() || !enrol.wg.is_sound() {
            return Err(Refusal::WeakKey);
        }
        // The token first: nobody without one takes from what those have who hold one.
        let (token, bound) = self.open_token(enrol.token.hash(), now)?;
        if !self.enrolments.take(now.boot) {
            return Err(Refusal::Busy);
        }
        let name = match (&known, &bound) {
            (Some(known), Some(bound)) if known != bound => return Err(Refusal::NameTaken),
            (Some(known), _) => known.clone(),
            (None, Some(bound)) => bound.clone(),
            (None, None) => enrol.name.clone().unwrap_or_else(|| default_name(&peer)),
        };
        let owner = self.fleet.owner_of(&enrol.wg);
        if owner.is_some_and(|owner| *owner != name) {
            return Err(Refusal::KeyTaken);
        }
        let exists = self.fleet.node(&name).is_some();
        if exists && known.is_none() && bound.is_none() {
            return Err(Refusal::NameTaken);
        }
        if exists {
            self.rekey(name, peer, enrol, token, now)
        } else {
            self.create(name, peer, enrol, token, now)
        }
    }

    fn open_token(&self, hash: TokenHash, now: Now) -> Result<(String, Option<NodeName>), Refusal> {
        let fits = |record: &TokenRecord| {
            record.hash == hash && record.fate == Fate::Open && record.expires_unix > now.unix()
        };
        let mut tokens = self.fleet.tokens().iter();
        let (id, record) = tokens
            .find(|(_, record)| fits(record))
            .ok_or(Refusal::BadToken)?;
        Ok((id.clone(), record.name.clone()))
    }

    fn create(
        &mut self,
        name: NodeName,
        node: NodeId,
        enrol: &Enrol,
        token: String,
        now: Now,
    ) -> Result<NodeName, Refusal> {
        let last = self.network.last_host();
        let host = self.fleet.free_host(last).ok_or(Refusal::MeshFull)?;
        if self.fleet.nodes().len() >= MAX_ROSTER {
            return Err(Refusal::MeshFull);
        }
        let event = Event::NodeEnrolled {
            name: name.clone(),
            node,
            wg: enrol.wg,
            host,
            token,
            probation: self.setup.policy.probation_epochs,
        };
        self.commit(&[event], now).map_err(|_| Refusal::Busy)?;
        tracing::info!(node = %name, key = node.short(), "node enrolled");
        let created = self.fleet.node(&name).expect("it was enrolled above");
        if self.may_join(created, now) {
            self.want_join(now);
        }
        Ok(name)
    }

    fn rekey(
        &mut self,
        name: NodeName,
        node: NodeId,
        enrol: &Enrol,
        token: String,
        now: Now,
    ) -> Result<NodeName, Refusal> {
        let old = self.fleet.node(&name).map(|n| n.id);
        let event = Event::NodeRekeyed {
            name: name.clone(),
            node,
            wg: enrol.wg,
            token,
        };
        let written = if old.is_some_and(|old| self.is_member(&old)) {
            // The old key may be in the wrong hands: its holder is dropped at once.
            self.publish(Cause::Rekey, Kind::Immediate, &[event], now)
        } else {
            self.commit(&[event], now)
        };
        written.map_err(|_| Refusal::Busy)?;
        tracing::info!(node = %name, key = node.short(), "node enrolled with new keys");
        if old != Some(node) {
            if let Some(id) = self.live.get(&name).and_then(|live| live.connection) {
                self.close(id, Refusal::NotEnrolled);
            }
            self.live.remove(&name);
            if self.anyone_joins(now) {
                self.want_join(now);
            }
        }
        Ok(name)
    }

    /// Whether this identity is in the roster of an epoch that is in force or on its way.
    pub(crate) fn is_member(&self, node: &NodeId) -> bool {
        let mut issues = self.issues.values();
        issues.any(|issue| issue.update.member(node).is_some())
            || self
                .fleet
                .name_of(node)
                .is_some_and(|name| self.fleet.roster().contains(name))
    }
}

fn default_name(node: &NodeId) -> NodeName {
    let name = format!("node-{}", node.short());
    name.parse().expect("hex digits behind `node-` are a name")
}

/// How long a connection may take to say something that counts.
pub(crate) const OPENING_TIME: Duration = Duration::from_secs(5);
