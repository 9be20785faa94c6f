//! All segments of the mesh. A mesh has one today; everything that concerns "the segments" is a loop over these
//! or a look-up here. Refuses to say which there are: the engine's start does.

use crate::clock::Now;
use crate::fleet::Fleet;
use crate::log::StoredEpoch;
use crate::segment::{Basis, Segment};
use keys::SegmentId;
use policy::Policy;
use std::collections::BTreeMap;
use wire::NodeName;

/// The segments, by id; at least one.
#[derive(Debug)]
pub(crate) struct Segments(BTreeMap<SegmentId, Segment>);

impl Segments {
    /// Resumes the segments with these policies, each with its own of the epochs that were `stored`.
    pub(crate) fn resume(
        policies: Vec<(SegmentId, Policy)>,
        mut stored: Vec<StoredEpoch>,
        basis: Basis<'_>,
    ) -> Self {
        let resume = |(id, policy)| {
            let own = stored.extract_if(.., |epoch| epoch.segment == id).collect();
            let segment = Segment::resume(id, policy, own, basis);
            (id, segment)
        };
        Self(policies.into_iter().map(resume).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.0.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Segment> {
        self.0.values_mut()
    }

    /// Their ids, for those who have to change one after the other.
    pub(crate) fn ids(&self) -> Vec<SegmentId> {
        self.0.keys().copied().collect()
    }

    pub(crate) fn get(&self, id: SegmentId) -> &Segment {
        self.0.get(&id).expect("ids are those of segments")
    }

    pub(crate) fn get_mut(&mut self, id: SegmentId) -> &mut Segment {
        self.0.get_mut(&id).expect("ids are those of segments")
    }

    /// The one that a node's place, the status and the metrics show: they have room for one.
    pub(crate) fn shown(&self) -> &Segment {
        let (_, first) = self.0.first_key_value().expect("there is at least one");
        first
    }

    /// Something about this node has changed: it joins soon where it may.
    pub(crate) fn want_join_of(&mut self, fleet: &Fleet, name: &NodeName, now: Now) {
        for segment in self.iter_mut() {
            if segment.may_join(fleet, name, now) {
                let members = segment.standings(fleet).roster().len();
                segment.want_join(members, now);
            }
        }
    }

    /// Something has changed that may concern any node.
    pub(crate) fn want_joins(&mut self, fleet: &Fleet, now: Now) {
        for segment in self.iter_mut() {
            if segment.anyone_joins(fleet, now) {
                let members = segment.standings(fleet).roster().len();
                segment.want_join(members, now);
            }
        }
    }
}
