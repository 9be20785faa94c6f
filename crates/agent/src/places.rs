//! Where the controller said that nodes are. A peer that was gone for a while is found again without
//! asking anew. Nothing here is believed beyond what a handshake proves.

use crate::data::Places;
use epoch::member::View;
use keys::{NodeId, SegmentId, WgPublicKey};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use tunnel::{Inside, Range};
use wire::endpoints::PlacesMark;
use wire::{Place, family};

/// The places, by node.
#[derive(Debug, Default)]
pub(crate) struct Whereabouts {
    said: HashMap<NodeId, Vec<SocketAddr>>,
    /// Places that cannot be used, because they are inside the mesh.
    within: HashMap<NodeId, Vec<SocketAddr>>,
    /// Addresses of this machine that peers can reach it at.
    own: Vec<IpAddr>,
    /// Up to where the controller has told, by segment.
    told: Vec<PlacesMark>,
}

impl Whereabouts {
    /// Takes what the controller says. Returned is the part of it that the data plane shall know; by node, for
    /// [`known`].
    pub(crate) fn handle_endpoints(
        &mut self,
        entries: Vec<(NodeId, Vec<SocketAddr>)>,
        inside: &Inside,
        views: &[View<'_>],
    ) -> Vec<(NodeId, Vec<SocketAddr>)> {
        let mut usable = Vec::with_capacity(entries.len());
        for (node, endpoints) in entries {
            // An endpoint inside the mesh would send the tunnel's packets into the tunnel, each wrapped
            // once more with every turn.
            let is_within = |at: &SocketAddr| inside.contains(at.ip());
            let (within, endpoints): (Vec<_>, Vec<_>) = endpoints.into_iter().partition(is_within);
            self.keep_within(node, within, views);
            usable.push((node, endpoints.clone()));
            self.said.insert(node, endpoints);
        }
        usable
    }

    /// Everything up to there was told.
    pub(crate) fn handle_mark(&mut self, mark: PlacesMark) -> &[PlacesMark] {
        self.told.retain(|told| told.segment != mark.segment);
        self.told.push(mark);
        &self.told
    }

    /// Up to where the controller has told.
    pub(crate) fn told(&self) -> &[PlacesMark] {
        &self.told
    }

    /// The node is not in this segment any more.
    pub(crate) fn forget_segment(&mut self, segment: SegmentId) {
        self.told.retain(|told| told.segment != segment);
    }

    fn keep_within(&mut self, node: NodeId, within: Vec<SocketAddr>, views: &[View<'_>]) {
        if within.is_empty() {
            self.within.remove(&node);
        } else if self.within.get(&node) != Some(&within) {
            let peer = views.iter().find_map(|view| name_of(view, &node));
            tracing::warn!(peer, endpoints = ?within, "a peer is announced inside the mesh's address range: not used");
            self.within.insert(node, within);
        }
    }

    /// Takes the addresses of this machine that peers can reach it at.
    pub(crate) fn handle_own(&mut self, own: Vec<IpAddr>) {
        self.own = own;
    }

    /// Why no packet of this machine can reach a node, by the addresses of both.
    pub(crate) fn gap(&self, node: &NodeId) -> Option<String> {
        let peer = self.of(node).iter().map(SocketAddr::ip);
        family::none_in_common(self.own.iter().copied(), peer)
    }

    /// The faults of the places of a node.
    pub(crate) fn faults(&self, node: &NodeId, is_reached: bool) -> Vec<String> {
        let within = self.within.get(node).into_iter().flatten();
        let within = within
            .map(|at| format!("announced at {at}, inside the mesh's address range: not used"));
        within
            .chain(self.gap(node).filter(|_| !is_reached))
            .collect()
    }

    /// Everything that is known of the peers of the epochs at hand.
    pub(crate) fn of_peers(&self, view: &View<'_>) -> Places {
        let known = self.said.iter();
        let known = known.filter_map(|(node, at)| Some((key_of(view, node)?, at.clone())));
        known.collect()
    }

    pub(crate) fn of(&self, node: &NodeId) -> &[SocketAddr] {
        self.said.get(node).map_or(&[], Vec::as_slice)
    }

    /// Forgets nodes that no update of any segment names any more: the memory would otherwise grow with every node
    /// that was ever enrolled.
    pub(crate) fn forget_strangers(&mut self, views: &[View<'_>]) {
        let named = |node: &NodeId| {
            let names = |update: &wire::EpochUpdate| {
                update.member(node).is_some() || update.exclusion(node).is_some()
            };
            let updates = views.iter().flat_map(|view| [view.update, view.next]);
            updates.flatten().any(names)
        };
        self.said.retain(|node, _| named(node));
        self.within.retain(|node, _| named(node));
    }
}

/// The peers of a segment that were told to have no address family in common with this machine.
#[derive(Debug, Default)]
pub(crate) struct Gaps(HashSet<NodeId>);

impl Gaps {
    /// Tells of peers that cannot be reached for want of an address family, each once while it lasts.
    pub(crate) fn tell(&mut self, places: &Whereabouts, view: &View<'_>, own: &NodeId) {
        let members = view.update.into_iter().flat_map(|update| &update.roster);
        let mut apart = HashSet::new();
        for member in members.filter(|member| member.node != *own) {
            let Some(gap) = places.gap(&member.node) else {
                continue;
            };
            if !self.0.contains(&member.node) {
                tracing::warn!(peer = %member.name, "no tunnel: {gap}");
            }
            apart.insert(member.node);
        }
        self.0 = apart;
    }
}

/// Of these places, those of the peers of one segment, by their keys there.
pub(crate) fn known(entries: &[(NodeId, Vec<SocketAddr>)], view: &View<'_>) -> Places {
    let known = entries.iter();
    let known = known.filter_map(|(node, at)| Some((key_of(view, node)?, at.clone())));
    known.collect()
}

/// The mesh's own addresses, as a node at these places has to know them.
pub fn inside_all<'p>(places: impl IntoIterator<Item = &'p Place>) -> Inside {
    let mut all = Inside::default();
    for place in places {
        let Inside { own, ranges } = inside(place);
        all.own.extend(own);
        all.ranges.extend(ranges);
    }
    all
}

/// The segment's own addresses, as a node at this place has to know them.
pub fn inside(place: &Place) -> Inside {
    let (v4, v6) = (IpAddr::V4(place.v4.0), IpAddr::V6(place.v6.0));
    Inside {
        own: vec![v4, v6],
        ranges: vec![Range::new(v4, place.v4.1), Range::new(v6, place.v6.1)],
    }
}

fn key_of(view: &View<'_>, node: &NodeId) -> Option<WgPublicKey> {
    let mut updates = [view.next, view.update].into_iter().flatten();
    let member = updates.find_map(|update| update.member(node))?;
    Some(member.wg)
}

fn name_of(view: &View<'_>, node: &NodeId) -> Option<String> {
    let mut updates = [view.next, view.update].into_iter().flatten();
    let member = updates.find_map(|update| update.member(node))?;
    Some(member.name.to_string())
}
