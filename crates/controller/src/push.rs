//! What nodes are told. Everything leaves through a bounded queue per connection: a node that does
//! not read is disconnected by the shell and never holds up another.

use crate::bucket::Bucket;
use crate::clock::Now;
use crate::engine::{ConnectionId, Effect, Engine, Session, Stage};
use crate::rotate::Issue;
use keys::{Epoch, EpochSecret, NodeId};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use wire::NodeName;
use wire::message::{Refusal, ToNode, Update};

impl Engine {
    pub(crate) fn send(&mut self, id: ConnectionId, message: ToNode) {
        self.effects.push_back(Effect::Send(id, Box::new(message)));
    }

    /// Says why and forgets the connection.
    pub(crate) fn close(&mut self, id: ConnectionId, reason: Refusal) {
        if let Some(session) = self.sessions.remove(&id)
            && let Stage::Serving { name } = session.stage
            && let Some(live) = self.live.get_mut(&name)
            && live.connection == Some(id)
        {
            live.connection = None;
            tracing::info!(node = %name, %reason, "node disconnected");
            self.touch();
        }
        self.counts.refusals.count(reason);
        self.effects.push_back(Effect::Close(id, reason));
    }

    /// Tells every connection that the controller stops.
    pub fn stop(&mut self) {
        let all: Vec<ConnectionId> = self.sessions.keys().copied().collect();
        for id in all {
            self.counts.refusals.count(Refusal::Stopping);
            self.effects.push_back(Effect::Close(id, Refusal::Stopping));
        }
        self.sessions.clear();
        for live in self.live.values_mut() {
            live.connection = None;
        }
        self.touch();
    }

    /// Answers Hello: the node's place, what is in force and on its way, and where the members are.
    ///
    /// `seen` is the newest epoch that the node has accepted: it would refuse older ones.
    pub(crate) fn welcome(&mut self, id: ConnectionId, name: &NodeName, seen: Epoch, now: Now) {
        let (Some(place), Some(node)) = (self.place(name), self.fleet.node(name)) else {
            return;
        };
        let node = node.id;
        let unix_ms = now.unix_ms();
        self.send(id, ToNode::Welcome { place, unix_ms });
        let newest = self.issues.keys().next_back().copied().unwrap_or_default();
        if seen > newest {
            tracing::warn!(node = %name, seen = seen.0, newest = newest.0, "the node has accepted \
                a newer epoch than this controller knows: was its log restored from a copy?");
        }
        let wanted = self.issues.range(seen.min(newest)..);
        let updates: Vec<ToNode> = wanted.map(|(_, issue)| issue.push(&node, now)).collect();
        for update in updates {
            self.send(id, update);
        }
        if self.is_member(&node) {
            let entries = self.endpoints(|_| true);
            self.send(id, ToNode::Endpoints { entries });
        }
    }

    /// Pushes a published epoch to every connected node. Who joins with it is told where all members
    /// are, and all members where those are that join.
    pub(crate) fn push_epoch(&mut self, epoch: Epoch, before: &BTreeSet<NodeName>, now: Now) {
        let Some(issue) = self.issues.get(&epoch) else {
            return;
        };
        let roster = self.fleet.roster();
        let joined: BTreeSet<NodeName> = roster.difference(before).cloned().collect();
        let everywhere = self.endpoints(|_| true);
        let news = self.endpoints(|name| joined.contains(name));
        let mut messages = Vec::new();
        for (id, peer, name) in self.serving() {
            // By the key that the connection proved: a name may have got another key just now.
            messages.push((id, issue.push(peer, now)));
            let entries = if joined.contains(name) {
                everywhere.clone()
            } else if roster.contains(name) {
                news.clone()
            } else {
                continue;
            };
            if !entries.is_empty() {
                messages.push((id, ToNode::Endpoints { entries }));
            }
        }
        for (id, message) in messages {
            self.send(id, message);
        }
    }

    /// Tells the members where one of them is now.
    pub(crate) fn push_endpoints_of(&mut self, name: &NodeName) {
        let entries = self.endpoints(|member| member == name);
        if entries.is_empty() {
            return;
        }
        let others = self.serving().filter(|(_, _, other)| *other != name);
        let members = others.filter(|(_, peer, _)| self.is_member(peer));
        let members: Vec<ConnectionId> = members.map(|(id, _, _)| id).collect();
        for id in members {
            let entries = entries.clone();
            self.send(id, ToNode::Endpoints { entries });
        }
    }

    /// Where the members are that `wanted` picks, as far as they ever said.
    fn endpoints(&self, wanted: impl Fn(&NodeName) -> bool) -> Vec<(NodeId, Vec<SocketAddr>)> {
        let picked = self.live.iter().filter(|(name, _)| wanted(name));
        picked
            .filter(|(_, live)| !live.endpoints.is_empty())
            .filter_map(|(name, live)| {
                let node = self.fleet.node(name)?.id;
                self.is_member(&node)
                    .then(|| (node, live.endpoints.clone()))
            })
            .collect()
    }

    fn serving(&self) -> impl Iterator<Item = (ConnectionId, &NodeId, &NodeName)> {
        self.sessions.iter().filter_map(|(id, s)| match &s.stage {
            Stage::Serving { name } => Some((*id, &s.peer, name)),
            Stage::Opening { .. } => None,
        })
    }
}

impl Issue {
    /// The update for one node, with the secret only if it is a member.
    pub(crate) fn push(&self, node: &NodeId, now: Now) -> ToNode {
        let member = self.update.member(node).is_some();
        let age = now.boot_ms().saturating_sub(self.signed_ms);
        ToNode::Update(Update {
            signed: self.signed.clone(),
            secret: member.then(|| EpochSecret::from_bytes(*self.secret.expose())),
            age_ms: u64::try_from(age).unwrap_or(0),
        })
    }
}

impl Session {
    /// A node's share of the engine's time: far above what a node says in its busiest second.
    pub(crate) fn bucket() -> Bucket {
        Bucket::new(MESSAGES_PER_SECOND, MESSAGE_BURST)
    }
}

const MESSAGES_PER_SECOND: u32 = 100;
const MESSAGE_BURST: u32 = 400;
