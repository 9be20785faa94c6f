//! The messages to nodes. Everything leaves through an outbox per connection (`outbox.rs`): a node
//! that does not read is disconnected by the shell and never holds up another.

use crate::clock::Now;
use crate::engine::{ConnectionId, Effect, Engine, Stage};
use crate::rotate::Issue;
use allowance::Bucket;
use keys::{Epoch, EpochSecret, NodeId};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use wire::message::{Refusal, ToNode, Update};
use wire::{Mark, NodeName, Signed};

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
    /// `newest` is the newest epoch that was in force on the node: it would refuse older ones.
    pub(crate) fn welcome(
        &mut self,
        id: ConnectionId,
        name: &NodeName,
        newest: Option<Signed<Mark>>,
        now: Now,
    ) {
        let (Some(place), Some(node)) = (self.place(name), self.fleet.node(name)) else {
            return;
        };
        let node = node.id;
        let unix_ms = now.unix_ms();
        self.send(id, ToNode::Welcome { place, unix_ms });
        let seen = self.remembered(name, newest);
        let newest = self.issues.keys().next_back().copied().unwrap_or_default();
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

    /// The epoch that a node remembers, as far as it can prove it.
    ///
    /// A mark says which events the log held when the authority signed it. A log that holds other ones was
    /// cut, or is an old copy: evictions may be missing from it. That is an alarm until the controller is
    /// started anew. A mere claim is nothing: any member could raise a false one.
    fn remembered(&mut self, name: &NodeName, newest: Option<Signed<Mark>>) -> Epoch {
        let trusted = [self.setup.authority.public()];
        let mark = newest.and_then(|mark| mark.verify(&trusted).ok());
        let Some(mark) = mark.filter(|mark| mark.mesh == self.mesh) else {
            return Epoch::default();
        };
        // A log that cannot be read at the moment proves nothing.
        let held = self.log.hash_at(mark.log_events);
        let is_ours = held.is_ok_and(|held| held == Some(mark.log_hash.0));
        if !is_ours && self.alarm.is_none() {
            let known = self.fleet.newest_epoch();
            tracing::error!(
                node = %name,
                seen = mark.epoch.0,
                newest = known.map_or(0, |(_, published)| published.epoch.0),
                "the node holds an epoch that this authority signed on another log than this one: the \
                 log is an old copy, or was cut; evictions may be missing from it"
            );
            self.alarm = Some((name.clone(), mark.epoch));
            self.touch();
        }
        mark.epoch
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

    /// Tells the members where one of them is now, at once or, if it moves too often, in a while: then
    /// only where it is at that time.
    pub(crate) fn announce_place(&mut self, name: &NodeName, now: Now) {
        if self.live_mut(name).moves.take(now.boot) {
            self.news_due.remove(name);
            self.push_endpoints_of(name);
        } else {
            let due = now.boot + NEWS_PAUSE;
            self.news_due.entry(name.clone()).or_insert(due);
        }
    }

    /// Tells the news that has waited.
    pub(crate) fn tell_news(&mut self, now: Now) {
        let due = self.news_due.iter().filter(|(_, due)| **due <= now.boot);
        let due: Vec<NodeName> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            self.news_due.remove(&name);
            self.push_endpoints_of(&name);
        }
    }

    fn push_endpoints_of(&mut self, name: &NodeName) {
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
            mark: self.mark.clone(),
        })
    }
}

/// How often a node may move, and be told of at once.
pub(crate) fn moves() -> Bucket {
    Bucket::new(MOVES_PER_SECOND, MOVE_BURST)
}

const MOVES_PER_SECOND: u32 = 1;
const MOVE_BURST: u32 = 4;
/// How long the news of a node that moves more often is gathered.
const NEWS_PAUSE: Duration = Duration::from_secs(1);
