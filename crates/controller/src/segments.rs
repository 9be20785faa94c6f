//! All segments of the mesh. Everything that concerns "the segments" is a loop over these
//! or a look-up here. Refuses to say which there are: the engine's start does.

use crate::clock::Now;
use crate::fleet::{Fleet, Node};
use crate::log::StoredEpoch;
use crate::segment::{Basis, Segment, Settings};
use keys::SegmentId;
use std::collections::BTreeMap;
use std::net::IpAddr;
use wire::{NodeName, SegmentName};

/// The segments, by id; at least one.
#[derive(Debug)]
pub(crate) struct Segments(BTreeMap<SegmentId, Segment>);

impl Segments {
    /// Resumes the segments with these policies, each with its own of the epochs that were `stored`.
    pub(crate) fn resume(
        settings: Vec<Settings>,
        mut stored: Vec<StoredEpoch>,
        basis: Basis<'_>,
    ) -> Self {
        let resume = |settings: Settings| {
            let id = settings.id;
            let own = stored.extract_if(.., |epoch| epoch.segment == id).collect();
            let segment = Segment::resume(settings, own, basis);
            (id, segment)
        };
        Self(settings.into_iter().map(resume).collect())
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

    /// The one of this name.
    pub(crate) fn named(&self, name: &SegmentName) -> Option<&Segment> {
        self.iter().find(|segment| segment.name() == name)
    }

    /// The one of this number, if it is run.
    pub(crate) fn find(&self, id: SegmentId) -> Option<&Segment> {
        self.0.get(&id)
    }

    /// The same, to change it.
    pub(crate) fn find_mut(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.0.get_mut(&id)
    }

    /// Those that a node is in.
    pub(crate) fn of<'s>(&'s self, node: &Node) -> impl Iterator<Item = &'s Segment> + use<'s> {
        let ids: Vec<SegmentId> = node.keys().iter().map(|key| key.segment).collect();
        ids.into_iter().filter_map(|id| self.find(id))
    }

    /// The first that a node is in; the first of all for one that is in none.
    pub(crate) fn home_of(&self, node: &Node) -> &Segment {
        self.of(node).next().unwrap_or_else(|| self.first())
    }

    /// The highest number that is an address in every segment.
    pub(crate) fn last_host(&self) -> u32 {
        let last = self.iter().map(|segment| segment.network().last_host());
        last.min().unwrap_or_default()
    }

    /// Whether an address is in the range of one of them.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.iter().any(|it| it.network().contains(address))
    }

    /// The first one: of a mesh whose configuration names none, the only one.
    pub(crate) fn first(&self) -> &Segment {
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
