//! Where the controller said that nodes are. A peer that was gone for a while is found again without
//! asking anew. Nothing here is believed beyond what a handshake proves.

use crate::data::Places;
use epoch::member::View;
use keys::{NodeId, WgPublicKey};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use tunnel::{Inside, Range};
use wire::Place;

/// The places, by node.
#[derive(Debug, Default)]
pub(crate) struct Whereabouts(HashMap<NodeId, Vec<SocketAddr>>);

impl Whereabouts {
    /// Takes what the controller says; of it, what the data plane shall know.
    pub(crate) fn handle_endpoints(
        &mut self,
        entries: Vec<(NodeId, Vec<SocketAddr>)>,
        inside: &Inside,
        view: &View<'_>,
    ) -> Places {
        let mut known = Vec::with_capacity(entries.len());
        for (node, mut endpoints) in entries {
            // An endpoint inside the mesh would send the tunnel's packets into the tunnel, each wrapped
            // once more with every turn.
            endpoints.retain(|endpoint| !inside.contains(endpoint.ip()));
            known.extend(key_of(view, &node).map(|key| (key, endpoints.clone())));
            self.0.insert(node, endpoints);
        }
        known
    }

    /// Everything that is known of the peers of the epochs at hand.
    pub(crate) fn of_peers(&self, view: &View<'_>) -> Places {
        let known = self.0.iter();
        let known = known.filter_map(|(node, at)| Some((key_of(view, node)?, at.clone())));
        known.collect()
    }

    pub(crate) fn of(&self, node: &NodeId) -> &[SocketAddr] {
        self.0.get(node).map_or(&[], Vec::as_slice)
    }

    /// Forgets nodes that no update names any more: the memory would otherwise grow with every node that
    /// was ever enrolled.
    pub(crate) fn forget_strangers(&mut self, view: &View<'_>) {
        let named = |node: &NodeId| {
            let names = |update: &wire::EpochUpdate| {
                update.member(node).is_some() || update.exclusion(node).is_some()
            };
            [view.update, view.next].into_iter().flatten().any(names)
        };
        self.0.retain(|node, _| named(node));
    }
}

/// The mesh's own addresses, as a node at this place has to know them.
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
