//! The networks behind nodes: what a node offers, and whether the newest update says what is approved. Refuses to
//! approve: that is an operator's word (`operator/routes.rs`).

use crate::clock::Now;
use crate::event::Event;
use crate::fleet::{Fleet, Node};
use crate::rotate::Rotation;
use crate::segment::Segment;
use keys::SegmentId;
use wire::{NodeName, Prefix};

impl Segment {
    /// The networks that an update gives to a node. Its range may be another than when they were approved.
    pub(crate) fn granted(&self, node: &Node) -> impl Iterator<Item = Prefix> {
        let granted = node.routes(self.id()).granted();
        granted.filter(|prefix| !self.network().is_met_by(prefix))
    }

    /// Whether the newest update gives a member other networks than it is to have.
    pub(crate) fn has_other_routes(&self, fleet: &Fleet) -> bool {
        let newest = self.newest().and_then(|span| self.issue(span.epoch));
        newest.is_some_and(|issue| {
            let mut members = issue.update.roster.iter();
            members.any(|member| {
                let node = fleet.node(&member.name);
                let node = node.filter(|node| node.id == member.node);
                node.is_some_and(|node| !self.granted(node).eq(member.routes.iter().copied()))
            })
        })
    }
}

impl Rotation<'_> {
    /// A node says all networks that it carries packets for in a segment. What was approved of them is in the next
    /// update, which comes as soon as one for nodes that join would.
    pub(crate) fn advertise(
        &mut self,
        name: &NodeName,
        id: SegmentId,
        prefixes: Vec<Prefix>,
        now: Now,
    ) {
        let Some(node) = self.journal.fleet().node(name) else {
            return;
        };
        // It may have been taken out of the segment a moment ago.
        if !node.is_in(id) || node.routes(id).advertised.iter().eq(&prefixes) {
            return;
        }
        tracing::info!(node = %name, segment = id.0, ?prefixes, "node advertises routes");
        let event = Event::RoutesAdvertised {
            name: name.clone(),
            segment: id,
            prefixes,
        };
        // Where it cannot be written the node says so again in its next session.
        if self.commit(None, event, now).is_ok() {
            self.want_routes(id, now);
        }
    }

    /// Has the segment's update say what its nodes are to have, soon.
    pub(crate) fn want_routes(&mut self, id: SegmentId, now: Now) {
        let fleet = self.journal.fleet();
        if let Some(segment) = self.segments.find_mut(id)
            && segment.has_other_routes(fleet)
        {
            let members = segment.standings(fleet).roster().len();
            segment.want_join(members, now);
        }
    }
}
