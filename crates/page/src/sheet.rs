//! The status as readers get it: without the reports about peers, which are beside it as letters. Made once for all.

use crate::pairs::{Pairs, Reports};
use hyper::body::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use wire::admin::{ControllerStatus, Observation};
use wire::{NodeName, SegmentName};

/// A status, ready to be sent.
#[derive(Debug)]
pub(crate) struct Sheet {
    /// The JSON.
    pub(crate) body: Bytes,
    /// Its entity tag, with the quotation marks.
    pub(crate) tag: String,
    /// The numbers of the segments in the log, by name, with the threshold in force.
    pub(crate) segments: BTreeMap<SegmentName, (u32, f64)>,
    reports: BTreeMap<SegmentName, Reports>,
}

#[derive(Serialize)]
struct Form<'s> {
    status: &'s ControllerStatus,
    /// By segment.
    pairs: BTreeMap<&'s SegmentName, Pairs>,
}

/// The words of a node and its peers on each other.
#[derive(Debug, Serialize)]
pub(crate) struct Around<'s> {
    /// The node about its peers.
    says: Option<&'s BTreeMap<NodeName, Observation>>,
    /// Its peers about the node.
    said: BTreeMap<&'s NodeName, &'s Observation>,
}

impl Sheet {
    /// The sheet of a status, which is the `count`th of this run.
    pub(crate) fn of(mut status: ControllerStatus, count: u64) -> Self {
        let reports = taken(&mut status);
        let nothing = Reports::new();
        let segments = status.segments.iter();
        let pairs = segments.map(|(name, it)| {
            let reports = reports.get(name).unwrap_or(&nothing);
            (name, Pairs::of(&status, (name, it), reports))
        });
        let pairs = pairs.collect();
        let form = Form {
            status: &status,
            pairs,
        };
        let body = serde_json::to_vec(&form).unwrap_or_default();
        let segments = status.segments.iter();
        let segments = segments.map(|(name, it)| (name.clone(), (it.id, it.policy.threshold)));
        Self {
            body: body.into(),
            tag: format!("\"{}/{count}\"", status.generated_utc),
            segments: segments.collect(),
            reports,
        }
    }

    /// The words of a node and its peers in a segment on each other; `None`: no node of this name is in it.
    pub(crate) fn around(&self, name: &NodeName, segment: &SegmentName) -> Option<Around<'_>> {
        let reports = self.reports.get(segment)?;
        let says = reports.get(name)?;
        let said = reports.iter();
        let said = said.filter_map(|(peer, about)| Some((peer, about.get(name)?)));
        Some(Around {
            says: (!says.is_empty()).then_some(says),
            said: said.collect(),
        })
    }

    /// The first of the segments that a node is in, by their numbers.
    pub(crate) fn home(&self, name: &NodeName) -> Option<&SegmentName> {
        let of = self.reports.iter();
        let of = of.filter(|(_, reports)| reports.contains_key(name));
        of.map(|(segment, _)| segment)
            .min_by_key(|segment| self.segments.get(*segment).map(|(id, _)| *id))
    }
}

/// The reports, out of a status, for each of its segments and each node in it.
fn taken(status: &mut ControllerStatus) -> BTreeMap<SegmentName, Reports> {
    let numbers: BTreeMap<SegmentName, u32> = status
        .segments
        .iter()
        .map(|(name, it)| (name.clone(), it.id))
        .collect();
    let mut taken: BTreeMap<SegmentName, Reports> = BTreeMap::new();
    for (name, node) in &mut status.nodes {
        let segments = node.segments.keys();
        let home = segments.min_by_key(|it| numbers.get(*it)).cloned();
        for (segment, here) in &mut node.segments {
            // A node's own fields are those of its first segment.
            let said = match home.as_ref() == Some(segment) {
                true => std::mem::take(&mut node.observes),
                false => std::mem::take(&mut here.observes),
            };
            let of = taken.entry(segment.clone()).or_default();
            of.insert(name.clone(), said);
        }
    }
    taken
}
