//! The words to nodes: epochs, and where the others are. Everything leaves through an outbox per connection
//! (`outbox.rs`): a node that does not read is disconnected by the shell and never holds up another. Refuses
//! to change anything: what is pushed here has taken effect.

use crate::announced;
use crate::clock::Now;
use crate::connections::{Connections, Kept};
use crate::effect::{ConnectionId, Output};
use crate::journal::Journal;
use crate::mesh::Mesh;
use crate::segment::{Issue, Segment};
use crate::segments::Segments;
use keys::{Epoch, NodeId};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use wire::message::ToNode;
use wire::{Mark, NodeName, Signed, Verified};

/// The part that speaks to nodes.
#[derive(Debug)]
pub(crate) struct Push<'e> {
    pub(crate) mesh: &'e Mesh,
    pub(crate) journal: &'e Journal,
    pub(crate) connections: &'e Connections,
    pub(crate) output: &'e mut Output,
}

impl Push<'_> {
    /// Pushes a published epoch to every connected node. A node that joins with it is told where all
    /// members are, and all members where those are that join.
    pub(crate) fn epoch(
        &mut self,
        segment: &Segment,
        epoch: Epoch,
        before: &BTreeSet<NodeName>,
        now: Now,
    ) {
        let Some(issue) = segment.issue(epoch) else {
            return;
        };
        let Some(mark) = self.mark(issue) else {
            return;
        };
        let roster = segment.standings(self.journal.fleet()).roster();
        let joined: BTreeSet<&NodeName> = roster.difference(before).collect();
        let everywhere = self.places(segment, |_| true);
        let news = self.places(segment, |name| joined.contains(name));
        for (id, peer, name) in self.connections.serving() {
            // By the key that the connection proved. If the name decided, a connection that is still open
            // under a node's old key, which may be in the wrong hands, would be sent the secret of the epoch
            // that was published to shut it out.
            self.update(id, peer, segment, (issue, &mark), now);
            // Where the members are is told to a member's key alone, for the same reason.
            let entries = if !issue.has_member(peer) {
                continue;
            } else if joined.contains(name) {
                &everywhere
            } else if roster.contains(name) {
                &news
            } else {
                continue;
            };
            if !entries.is_empty() {
                self.tell_places(id, entries.clone());
            }
        }
    }

    /// Answers Hello: what is in force and on its way, and where the members are. A node that proves by its
    /// `mark` which epoch was in force on it is sent nothing older, which it would refuse.
    pub(crate) fn welcome(
        &mut self,
        id: ConnectionId,
        node: &NodeId,
        segments: &Segments,
        mark: Option<&Verified<Mark>>,
        now: Now,
    ) {
        self.updates(id, node, segments, mark, now);
        for segment in segments.iter() {
            if segment.is_member(self.journal.fleet(), node) {
                let entries = self.places(segment, |_| true);
                self.tell_places(id, entries);
            }
        }
    }

    /// Sends what is in force and on its way, and not older than what `mark` proves to be known.
    pub(crate) fn updates(
        &mut self,
        id: ConnectionId,
        node: &NodeId,
        segments: &Segments,
        mark: Option<&Verified<Mark>>,
        now: Now,
    ) {
        for segment in segments.iter() {
            let mark = mark.filter(|mark| mark.segment == segment.id());
            let seen = mark.map_or(Epoch::default(), |mark| mark.epoch);
            for issue in segment.issues_since(seen) {
                if let Some(mark) = self.mark(issue) {
                    self.update(id, node, segment, (issue, &mark), now);
                }
            }
        }
    }

    /// Tells the other members of a node's segments where it is now.
    pub(crate) fn place_of(&mut self, name: &NodeName, segments: &Segments) {
        for segment in segments.iter() {
            let entries = self.places(segment, |member| member == name);
            if entries.is_empty() {
                continue;
            }
            let others = self.connections.serving();
            for (id, peer, _) in others.filter(|(_, _, other)| *other != name) {
                if segment.is_member(self.journal.fleet(), peer) {
                    self.tell_places(id, entries.clone());
                }
            }
        }
    }

    /// The mark of an epoch with the log as it is now: it holds this epoch's own events, so that a copy of it that
    /// lacks this very eviction does not pass as whole when a node shows its mark.
    fn mark(&self, issue: &Issue) -> Option<Signed<Mark>> {
        let (scope, digest) = (issue.update.scope(), issue.signed.digest());
        let mark = self.mesh.mark(scope, digest, self.journal.log());
        mark.inspect_err(|error| tracing::error!(%error, "a mark breaks a rule of its format"))
            .ok()
    }

    /// Sends an update, with the proof that the log extends the one that the node knows.
    fn update(
        &mut self,
        id: ConnectionId,
        node: &NodeId,
        segment: &Segment,
        (issue, mark): (&Issue, &Signed<Mark>),
        now: Now,
    ) {
        let Some(session) = self.connections.session(id) else {
            return;
        };
        match self.journal.news_for(session.kept.get()) {
            Ok(news) => {
                // A node that knows another log refuses this, until an operator says that a copy was restored.
                if session.kept.get() != Kept::Another || news.restored.is_some() {
                    let events = self.journal.log().head().seq;
                    session.kept.set(Kept::Events(events));
                }
                let changes = segment.changes(&session.holds.borrow(), issue);
                let update = issue.push(node, changes, (mark.clone(), news), now);
                self.output.send(id, update);
            }
            Err(error) => tracing::error!(
                %error,
                "the log's tree cannot be read: an update is held back, because no node could believe it"
            ),
        }
    }

    /// Tells a connection where nodes are, as far as it is of use there.
    fn tell_places(&mut self, id: ConnectionId, entries: Vec<(NodeId, Vec<SocketAddr>)>) {
        let Some(session) = self.connections.session(id) else {
            return;
        };
        let to = session.remote.ip();
        let useful = |(node, at)| (node, announced::for_recipient(at, to));
        let entries = entries.into_iter().map(useful).collect();
        self.output.send(id, ToNode::Endpoints { entries });
    }

    /// Where the members are that `wanted` picks.
    fn places(
        &self,
        segment: &Segment,
        wanted: impl Fn(&NodeName) -> bool,
    ) -> Vec<(NodeId, Vec<SocketAddr>)> {
        let picked = self.connections.places().filter(|(name, _)| wanted(name));
        picked
            .filter_map(|(name, endpoints)| {
                let fleet = self.journal.fleet();
                let node = fleet.node(name)?.id;
                let member = segment.is_member(fleet, &node);
                member.then(|| (node, endpoints.to_vec()))
            })
            .collect()
    }
}
