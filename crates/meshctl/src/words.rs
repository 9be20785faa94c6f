//! Words that more than one command has for the same thing.

use crate::failure::Failure;
use crate::table::{Fields, clean, or_dash};
use crate::{terminal, units};
use wire::NodeName;
use wire::admin::{
    Control, ControllerStatus, EpochChange, Membership, NodeState, PolicyStatus, PskState,
};
use wire::visible::few;

/// `ALLOWED` or `DENIED`.
pub(crate) fn membership(membership: Membership) -> &'static str {
    match membership {
        Membership::Allowed => "ALLOWED",
        Membership::Denied => "DENIED",
    }
}

/// A node's state.
pub(crate) fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "ACTIVE",
        NodeState::Probation => "PROBATION",
        NodeState::Quarantined => "QUARANTINED",
        NodeState::Offline => "OFFLINE",
        NodeState::Evicted => "EVICTED",
        NodeState::Impaired => "IMPAIRED",
    }
}

/// The conditions that an operator has to look at, as fields.
pub(crate) fn alarms(status: &ControllerStatus) -> Fields {
    let mut fields = Fields::default();
    for alarm in &status.alarms {
        fields.field("ALARM", alarm.clone());
    }
    fields
}

/// A policy in a line.
pub(crate) fn policy(policy: &PolicyStatus) -> String {
    format!(
        "overall score at least {}, evidence at most {} old, epochs of {}",
        policy.threshold,
        units::span(policy.max_benchmark_age as f64),
        units::span(policy.epoch_seconds as f64),
    )
}

/// How far away a time is, by the time at which the controller made its answer.
pub(crate) fn until(now: &str, then: &str) -> String {
    or_dash(units::seconds_until(now, then).map(units::relative))
}

/// `connected`, `silent for 8 s` or `disconnected, heard 40 s ago`. `heard`: seconds since the other side was.
pub(crate) fn control(control: Control, heard: Option<f64>) -> String {
    match (control, heard.map(units::span)) {
        (Control::Connected, _) => "connected".into(),
        (Control::Silent, None) => "silent".into(),
        (Control::Silent, Some(silence)) => format!("silent for {silence}"),
        (Control::Disconnected, None) => "disconnected".into(),
        (Control::Disconnected, Some(ago)) => format!("disconnected, heard {ago} ago"),
    }
}

/// Removals that wait for an operator, in words.
pub(crate) fn held(names: &[NodeName]) -> Option<String> {
    let listed = names.iter().map(NodeName::as_str).collect::<Vec<_>>();
    (!listed.is_empty()).then(|| {
        format!(
            "{} (still members: removing so many at once takes `meshctl epoch rotate --confirm-removals`)",
            listed.join(", ")
        )
    })
}

/// Asks whether members may go, if they are many: more than one, and a quarter or more of all.
pub(crate) fn confirm_many<'n>(
    going: impl Iterator<Item = &'n NodeName>,
    status: &ControllerStatus,
) -> Result<(), Failure> {
    let names: Vec<&NodeName> = going.collect();
    let members = status.nodes.values();
    let members = members
        .filter(|it| it.membership == Membership::Allowed)
        .count();
    if names.len() < 2 || names.len() * 4 < members {
        return Ok(());
    }
    let shown = few(&names, NAMED).unwrap_or_default();
    let question = format!(
        "{} of {members} members would lose their tunnels: {shown}. Go on?",
        names.len()
    );
    if terminal::confirms(&question) {
        Ok(())
    } else {
        let hint = "answer `y`, or give --yes, to go on";
        Err(Failure::refused("nothing was changed", hint))
    }
}

/// The effect of a request on the epoch, in words.
pub(crate) fn change(change: &EpochChange) -> String {
    let when = match change.activates_in_ms {
        0 => "is in force".into(),
        ms => format!("will be in force in {:.1} s", ms as f64 / 1000.0),
    };
    let members = units::count(change.members, "member", "members");
    let mut lines = vec![format!("epoch {} {when}, with {members}", change.epoch)];
    lines.extend(
        change
            .excluded
            .iter()
            .map(|(name, reason)| format!("excluded: {name}, {}", clean(reason))),
    );
    lines.extend(held(&change.held).map(|held| format!("held: {held}")));
    lines.join("\n")
}

/// Nodes that a question names.
const NAMED: usize = 8;

/// Whether a node holds the PSKs of the epoch in force, in a word.
pub(crate) fn psk(psk: PskState) -> &'static str {
    match psk {
        PskState::Valid => "valid",
        PskState::None => "none",
        PskState::Unknown => "unknown",
    }
}
