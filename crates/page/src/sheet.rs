//! The status as readers get it: without the reports about peers, which are beside it as letters. Made once for all.

use crate::pairs::{Pairs, Reports};
use hyper::body::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use wire::NodeName;
use wire::admin::{ControllerStatus, Observation};

/// A status, ready to be sent.
#[derive(Debug)]
pub(crate) struct Sheet {
    /// The JSON.
    pub(crate) body: Bytes,
    /// Its entity tag, with the quotation marks.
    pub(crate) tag: String,
    /// The numbers of the segments in the log, by name, with the threshold in force.
    pub(crate) segments: BTreeMap<wire::SegmentName, (u32, f64)>,
    reports: Reports,
}

#[derive(Serialize)]
struct Form<'s> {
    status: &'s ControllerStatus,
    pairs: Pairs,
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
        let nodes = status.nodes.iter_mut();
        let reports: Reports = nodes
            .map(|(name, node)| (name.clone(), std::mem::take(&mut node.observes)))
            .collect();
        let pairs = Pairs::of(&status, &reports);
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

    /// The words of a node and its peers on each other; `None`: there is no node of this name.
    pub(crate) fn around(&self, name: &NodeName) -> Option<Around<'_>> {
        let says = self.reports.get(name)?;
        let said = self.reports.iter();
        let said = said.filter_map(|(peer, about)| Some((peer, about.get(name)?)));
        Some(Around {
            says: (!says.is_empty()).then_some(says),
            said: said.collect(),
        })
    }
}
