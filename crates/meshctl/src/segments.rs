//! The segments of a mesh, as its controller sees them. A mesh whose one segment has the name of the default is shown as if there
//! were none.

use crate::table::{DASH, Fields, Rows, or_dash};
use crate::units;
use crate::words::{self, held, membership};
use wire::SegmentName;
use wire::admin::{ControllerStatus, NodeInSegment, NodeStatus, SegmentStatus};

/// Whether the mesh's segments are shown by name.
pub(crate) fn has_several(status: &ControllerStatus) -> bool {
    status.segments.keys().any(|it| it.told().is_some())
}

/// The segments, one a row.
pub(crate) fn table(status: &ControllerStatus) -> String {
    let now = &status.generated_utc;
    let mut rows = Rows::new(&["SEGMENT", "EPOCH", "ENDS", "NEXT", "MEMBERS", "POLICY"]);
    for (name, segment) in &status.segments {
        let epoch = &segment.epoch;
        rows.row([
            name.to_string(),
            epoch.id.to_string(),
            words::until(now, &epoch.expiry_utc),
            or_dash(next(segment, now)),
            members(status, name, segment),
            words::policy(&segment.policy),
        ]);
    }
    rows.render("No segments.")
}

/// One segment's epoch in full, as fields.
pub(crate) fn epoch(
    status: &ControllerStatus,
    name: &SegmentName,
    segment: &SegmentStatus,
) -> Fields {
    let (now, epoch) = (&status.generated_utc, &segment.epoch);
    let mut fields = Fields::default();
    fields.field("segment", name);
    let ends = words::until(now, &epoch.expiry_utc);
    fields.field("epoch", format!("{}, ends {ends}", epoch.id));
    fields.field("members", members(status, name, segment));
    let next = next(segment, now);
    fields.maybe("next", next.map(|next| format!("epoch {next}")));
    fields.maybe("held", held(&epoch.held));
    fields.field("policy", words::policy(&segment.policy));
    fields.field("range", format!("{} {}", segment.v4, segment.v6));
    fields.field("began", &epoch.activated_utc);
    fields.field("secret", &epoch.secret_hash);
    fields.field("update", &epoch.update);
    fields.field("policy is", &segment.policy.digest);
    fields
}

/// The segments of a node, one a row.
pub(crate) fn of_node(node: &NodeStatus) -> String {
    let mut rows = Rows::new(&[
        "SEGMENT",
        "MEMBERSHIP",
        "STATE",
        "SCORE",
        "EPOCH",
        "PSK",
        "PROBATION",
        "ADDRESSES",
        "WIREGUARD",
        "REASON",
    ]);
    for (name, it) in &node.segments {
        let NodeInSegment { v4, v6, .. } = it;
        rows.row([
            name.to_string(),
            membership(it.membership).into(),
            words::state(it.state).into(),
            or_dash(it.score.map(units::score)),
            or_dash(it.epoch),
            or_dash(it.psk.map(words::psk)),
            probation(it.probation_left),
            format!("{v4} {v6}"),
            it.wireguard.clone(),
            or_dash(it.reason.as_ref()),
        ]);
    }
    rows.render("It is in no segment; `meshctl node join` lets it into one.")
}

fn probation(left: u32) -> String {
    match left {
        0 => DASH.into(),
        left => left.to_string(),
    }
}

fn next(segment: &SegmentStatus, now: &str) -> Option<String> {
    let next = segment.epoch.next.as_ref()?;
    let begins = words::until(now, &next.activates_utc);
    Some(format!("{}, begins {begins}", next.id))
}

/// As in `2 of 3`.
fn members(status: &ControllerStatus, name: &SegmentName, segment: &SegmentStatus) -> String {
    let nodes = status.nodes.values();
    let nodes = nodes.filter(|node| node.segments.contains_key(name));
    format!("{} of {}", segment.epoch.members, nodes.count())
}
