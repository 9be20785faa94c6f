//! The words to nodes: epochs, and where the others are. Everything leaves through an outbox per connection
//! (`outbox.rs`): a node that does not read is disconnected by the shell and never holds up another. Refuses
//! to change anything: what is pushed here has taken effect.

use crate::clock::Now;
use crate::connections::{Connections, Kept};
use crate::effect::{ConnectionId, Output};
use crate::journal::Journal;
use crate::mesh::Mesh;
use crate::segment::{Issue, Segment};
use crate::segments::Segments;
use keys::{Epoch, NodeId};
use wire::{Mark, Signed, Verified};

/// The part that speaks to nodes.
#[derive(Debug)]
pub(crate) struct Push<'e> {
    pub(crate) mesh: &'e Mesh,
    pub(crate) journal: &'e Journal,
    pub(crate) connections: &'e Connections,
    pub(crate) output: &'e mut Output,
}

impl Push<'_> {
    /// Pushes a published epoch to every connected node, and tells members where those are that join.
    pub(crate) fn epoch(&mut self, segment: &Segment, epoch: Epoch, now: Now) {
        let Some(issue) = segment.issue(epoch) else {
            return;
        };
        let Some(mark) = self.mark(issue) else {
            return;
        };
        for (id, peer, name) in self.connections.serving() {
            let node = self.journal.fleet().node(name);
            if !node.is_some_and(|node| node.is_in(segment.id())) {
                continue;
            }
            // By the key that the connection proved. If the name decided, a connection that is still open
            // under a node's old key, which may be in the wrong hands, would be sent the secret of the epoch
            // that was published to shut it out.
            self.update(id, peer, segment, (issue, &mark), now);
        }
        self.places(segment);
    }

    /// Answers Hello: what is in force and on its way, and where the members are. A node that proves by its
    /// `marks` which epochs was in force on it is sent nothing older, which it would refuse.
    pub(crate) fn welcome(
        &mut self,
        id: ConnectionId,
        node: &NodeId,
        segments: &Segments,
        marks: &[Verified<Mark>],
        now: Now,
    ) {
        self.updates(id, node, segments, marks, now);
        self.output.places(id);
    }

    /// Sends what is in force and on its way, and not older than what `marks` prove to be known.
    pub(crate) fn updates(
        &mut self,
        id: ConnectionId,
        node: &NodeId,
        segments: &Segments,
        marks: &[Verified<Mark>],
        now: Now,
    ) {
        let fleet = self.journal.fleet();
        let known = fleet.name_of(node).and_then(|name| fleet.node(name));
        for segment in known.into_iter().flat_map(|node| segments.of(node)) {
            let mut marks = marks.iter();
            let mark = marks.find(|mark| mark.segment == segment.id());
            let seen = mark.map_or(Epoch::default(), |mark| mark.epoch);
            for issue in segment.issues_since(seen) {
                if let Some(mark) = self.mark(issue) {
                    self.update(id, node, segment, (issue, &mark), now);
                }
            }
        }
    }

    /// Sends what is in force and on its way in one segment, to a node that is new there.
    pub(crate) fn segment(&mut self, id: ConnectionId, node: &NodeId, segment: &Segment, now: Now) {
        for issue in segment.issues_since(Epoch::default()) {
            if let Some(mark) = self.mark(issue) {
                self.update(id, node, segment, (issue, &mark), now);
            }
        }
        self.output.places(id);
    }

    /// Tells the members of a segment where the others are, as far as they do not know.
    pub(crate) fn places(&mut self, segment: &Segment) {
        let newest = segment.places().seq();
        for (id, peer, _) in self.connections.serving() {
            let session = self.connections.session(id);
            let is_behind = session.is_some_and(|it| it.told(segment.id()) < newest);
            if is_behind && segment.is_member(self.journal.fleet(), peer) {
                self.output.places(id);
            }
        }
    }

    /// The mark of an epoch with the log as it is now: it holds this epoch's own events, so that a copy of it that
    /// lacks this very eviction does not pass as whole when a node shows its mark.
    fn mark(&self, issue: &Issue) -> Option<Signed<Mark>> {
        let (scope, digest) = (issue.update.scope(), issue.digest);
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
                    let events = self.journal.log().events();
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
}
