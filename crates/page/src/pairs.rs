//! Every ordered pair of nodes in one letter, by the word of the first about the second. A status has an object for
//! each, which in a mesh of 300 would be 13 MB; the page needs the letters of all, and the details only of pairs that
//! are not well or that somebody looks at.

use serde::Serialize;
use std::collections::BTreeMap;
use wire::admin::{
    Control, ControllerStatus, Membership, NodeInSegment, Observation, SegmentStatus,
};
use wire::{NodeName, SegmentName};

/// The reports of the nodes in a segment about their peers in it.
pub(crate) type Reports = BTreeMap<NodeName, BTreeMap<NodeName, Observation>>;

/// All pairs of a segment.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Pairs {
    /// A row for each node and a letter for each peer, both in the order in which the status has the nodes of the
    /// segment; `None` where there are more nodes than [`MAX_ROWS`].
    pub(crate) rows: Option<Vec<String>>,
    /// For each node: its pairs that are well, those that are not, those that it says nothing of, and the median of
    /// its round trips in milliseconds.
    pub(crate) sums: Vec<(usize, usize, usize, Option<f64>)>,
    /// Pairs with their details: all where they are few, else those that are not well, at most [`MAX_LINKS`].
    pub(crate) links: Vec<Link>,
    /// How many pairs are not well.
    pub(crate) unwell: usize,
}

/// The word of a node on a peer.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Link {
    /// The node's place among those of the segment.
    pub(crate) from: usize,
    /// The peer's.
    pub(crate) to: usize,
    /// The letter of the pair.
    pub(crate) is: char,
    #[serde(flatten)]
    pub(crate) said: Observation,
}

/// Both are members, the peer answers within the newest epochs, and nothing is wrong with the way to it.
const WELL: char = 'w';
/// It answers by a session that is older than the epoch before the one in force.
const LAGS: char = 'l';
/// Its last echo was not answered, or there is no live session.
const DARK: char = 'd';
/// The node names a fault of the way.
const FAULTY: char = 'f';
/// The node says nothing of it, or is not connected.
const UNKNOWN: char = '?';
/// There is no tunnel between them: one is no member.
const APART: char = '-';

impl Pairs {
    /// The pairs of a segment in a status, by the reports that were taken out of it.
    pub(crate) fn of(
        status: &ControllerStatus,
        (name, segment): (&SegmentName, &SegmentStatus),
        reports: &Reports,
    ) -> Self {
        let epoch = segment.epoch.id;
        let nodes = status.nodes.iter();
        let nodes = nodes.filter_map(|(node, it)| Some((node, it.control, it.segments.get(name)?)));
        let nodes: Vec<(&NodeName, Control, &NodeInSegment)> = nodes.collect();
        let nothing = BTreeMap::new();
        let mut pairs = Self {
            rows: (nodes.len() <= MAX_ROWS).then(Vec::new),
            sums: Vec::with_capacity(nodes.len()),
            links: Vec::new(),
            unwell: 0,
        };
        let has_all = nodes.len() <= FEW;
        for (from, (node, control, here)) in nodes.iter().enumerate() {
            let said = reports.get(*node).unwrap_or(&nothing);
            let (mut well, mut unwell, mut unknown) = (0, 0, 0);
            let mut round_trips = Vec::new();
            let mut row = String::with_capacity(nodes.len());
            for (to, (peer, _, there)) in nodes.iter().enumerate() {
                let said = said.get(*peer);
                let is = if from == to {
                    APART
                } else {
                    letter((here, *control), there, said, epoch)
                };
                row.push(is);
                match is {
                    WELL => well += 1,
                    UNKNOWN => unknown += 1,
                    APART => {}
                    _ => unwell += 1,
                }
                let Some(said) = said.filter(|_| is != APART) else {
                    continue;
                };
                round_trips.extend(said.rtt_v4_ms.or(said.rtt_v6_ms));
                if (has_all || is != WELL) && pairs.links.len() < MAX_LINKS {
                    let said = said.clone();
                    pairs.links.push(Link { from, to, is, said });
                }
            }
            pairs.unwell += unwell;
            pairs
                .sums
                .push((well, unwell, unknown, median(round_trips)));
            if let Some(rows) = &mut pairs.rows {
                rows.push(row);
            }
        }
        pairs
    }
}

/// The letter of a pair in a segment with this epoch in force, by the word of the first.
fn letter(
    (node, control): (&NodeInSegment, Control),
    peer: &NodeInSegment,
    said: Option<&Observation>,
    in_force: u64,
) -> char {
    let is_member = |of: &NodeInSegment| of.membership == Membership::Allowed;
    if !is_member(node) || !is_member(peer) {
        return APART;
    }
    let Some(said) = said.filter(|_| control != Control::Disconnected) else {
        return UNKNOWN;
    };
    let answers = said.rtt_v4_ms.is_some() || said.rtt_v6_ms.is_some();
    match said.session_epoch {
        _ if !said.faults.is_empty() => FAULTY,
        None => DARK,
        Some(_) if !answers => DARK,
        // Within a rotation the session of the epoch before goes on.
        Some(epoch) if epoch + 1 < in_force => LAGS,
        Some(_) => WELL,
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Nodes of which every pair has its details.
const FEW: usize = 40;
/// Nodes of which every pair has a letter: a quarter of a megabyte.
const MAX_ROWS: usize = 512;
/// Pairs with details.
const MAX_LINKS: usize = 2_000;
