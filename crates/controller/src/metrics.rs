//! The controller's metrics: each declared once, and filled from a view of the state when somebody asks.
//! Counts nothing itself.

use crate::clock::Now;
use crate::connections::Report;
use crate::counts::{Counts, refused};
use crate::intake::Waiting;
use crate::segment::Segment;
use crate::view::{View, control};
use epoch::authority::Span;
use exposition::{Page, Tally};
use keys::SegmentId;
use std::time::Duration;
use wire::admin::{Control, NodeState};
use wire::message::NodeFaultKind;

exposition::metrics! {
    /// The version that runs; always 1
    BUILD_INFO: Gauge = "meshd_build_info" by "version";
    /// Number of the epoch in force
    EPOCH: Gauge = "meshd_epoch_current" in segment;
    /// Time until the epoch in force is scheduled to end; 0 when it is overdue
    EPOCH_REMAINING: Gauge = "meshd_epoch_remaining_seconds" in segment;
    /// Members of the epoch in force
    EPOCH_MEMBERS: Gauge = "meshd_epoch_members" in segment;
    /// Attempts to publish an epoch, by what became of them
    EPOCH_UPDATES: Counter = "meshd_epoch_updates_total" by "result";
    /// Decisions about a node's membership that an epoch was published with
    DECISIONS: Counter = "meshd_policy_decisions_total" by "decision";
    /// Members whose removal the sanity floor holds back until an operator confirms it
    HELD: Gauge = "meshd_removals_held" in segment;
    /// Connected members that have not said, 15 s after the epoch in force began, that it is in force there
    BEHIND: Gauge = "meshd_members_behind" in segment;
    /// Pairs of connected members between which no echo passes, by the word of either
    DARK_PAIRS: Gauge = "meshd_dark_pairs" in segment;
    /// Time from the beginning of the epoch in force until the newest acknowledgement of it; 0 before the first
    FOLLOWED: Gauge = "meshd_epoch_followed_seconds" in segment;
    /// Nodes with a place in the segment, by state
    NODES: Gauge = "meshd_nodes" by "state" in segment;
    /// Connected nodes that report a fault, by what it concerns
    NODE_FAULTS: Gauge = "meshd_node_faults" by "kind";
    /// Evidence that nodes sent, by what became of it
    EVIDENCE: Counter = "meshd_evidence_total" by "result";
    /// Connections of the control channel that hold memory, by how far they have come
    CONNECTIONS: Gauge = "meshd_connections" by "stage";
    /// Connections that got no place, by reason
    TURNED_AWAY: Counter = "meshd_turned_away_total" by "reason";
    /// Connections that the controller closed with a word, by reason
    REFUSALS: Counter = "meshd_refusals_total" by "reason";
    /// Events in the log, those of earlier runs included
    LOG_EVENTS: Counter = "meshd_log_events_total";
    /// Whether the last attempt to write the event log succeeded
    LOG_WRITABLE: Gauge = "meshd_log_writable";
    /// Alarms in the status: what an operator has to look at
    ALARMS: Gauge = "meshd_alarms";
}

/// Connections that the engine does not see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) waiting: Waiting,
    /// All that hold memory.
    pub(crate) connections: usize,
}

/// Everything that is measured, as it is now.
pub(crate) fn page(view: &View<'_>, counts: &Counts, held: Held, now: Now) -> Page {
    let mut page = Page::default();
    page.put_each(BUILD_INFO, [(env!("CARGO_PKG_VERSION"), true)]);
    put_epoch(view, counts, &mut page, now);
    let decisions = counts.decisions.iter();
    page.put_each(DECISIONS, decisions.map(|(it, n)| (it.name(), n)));
    let segments: Vec<&Segment> = view.segments.iter().collect();
    let name = |it: &Segment| it.name().as_str().to_owned();
    page.put_in(HELD, &segments, |it| (it.name().as_str(), it.held().len()));
    page.put_in(BEHIND, &segments, |it| {
        (it.name().as_str(), view.members_behind(it, now).count())
    });
    page.put_in(DARK_PAIRS, &segments, |it| {
        (it.name().as_str(), view.dark_pairs(it, now).len())
    });
    page.put_in(FOLLOWED, &segments, |it| {
        let followed = it.followed().unwrap_or_default();
        (it.name().as_str(), followed.as_secs_f64())
    });
    let states: Vec<_> = segments
        .iter()
        .map(|it| (name(it), states(view, it)))
        .collect();
    page.put_each_in(NODES, &states, |(name, states)| {
        (name, states.iter().map(|(it, n)| (word(it), n)))
    });
    page.put_each(NODE_FAULTS, node_faults(view, now));
    let evidence = counts.evidence.iter();
    page.put_each(EVIDENCE, evidence.map(|(it, n)| (it.name(), n)));
    put_connections(view, held, &mut page);
    page.put(LOG_EVENTS, view.journal.log().events());
    page.put(LOG_WRITABLE, view.journal.is_writable());
    page.put(ALARMS, view.alarms(now).len());
    page
}

/// Connected nodes by the kinds of their faults: those of the wire, and their interfaces.
fn node_faults(view: &View<'_>, now: Now) -> [(&'static str, usize); 3] {
    let nodes = view.fleet().nodes().iter();
    let live = nodes.filter_map(|(name, node)| Some((node, view.connections.live(name)?)));
    let live = live.filter(|(_, live)| control(Some(live), now) == Control::Connected);
    let mut counts = [("benchmark", 0), ("state", 0), ("interface", 0)];
    for (node, live) in live {
        let has = |kind| live.condition.iter().any(|it| it.kind == kind);
        let of_interface = |(id, report): (&SegmentId, &Report)| {
            node.is_in(*id) && !report.interface.faults.is_empty()
        };
        counts[0].1 += usize::from(has(NodeFaultKind::Benchmark));
        counts[1].1 += usize::from(has(NodeFaultKind::State));
        counts[2].1 += usize::from(live.reports.iter().any(of_interface));
    }
    counts
}

fn put_epoch(view: &View<'_>, counts: &Counts, page: &mut Page, now: Now) {
    let segments: Vec<&Segment> = view.segments.iter().collect();
    let left = |span: &Span| span.ends.saturating_sub(now.boot);
    let remaining = |it: &Segment| it.in_force().map_or(Duration::ZERO, left).as_secs_f64();
    let members = |it: &Segment| {
        let standings = it.standings(view.fleet());
        let published = standings.epoch(it.current());
        published.map_or(0, |(_, published)| published.members)
    };
    page.put_in(EPOCH, &segments, |it| (it.name().as_str(), it.current().0));
    page.put_in(EPOCH_REMAINING, &segments, |it| {
        (it.name().as_str(), remaining(it))
    });
    page.put_in(EPOCH_MEMBERS, &segments, |it| {
        (it.name().as_str(), members(it))
    });
    let updates = counts.updates.iter();
    page.put_each(EPOCH_UPDATES, updates.map(|(it, n)| (it.name(), n)));
}

fn put_connections(view: &View<'_>, held: Held, page: &mut Page) {
    let serving = view.connections.serving().count();
    let opening = view.connections.openings().count();
    let Waiting {
        handshakes,
        silent,
        turned,
    } = held.waiting;
    // The rest of those that hold memory has been refused, and is on its way out.
    let known = opening + serving + handshakes + silent;
    let closing = held.connections.saturating_sub(known);
    page.put_each(
        CONNECTIONS,
        [
            ("handshake", handshakes),
            ("silent", silent),
            ("opening", opening),
            ("serving", serving),
            ("closing", closing),
        ],
    );
    page.put_each(
        TURNED_AWAY,
        [
            ("unanswered", turned.unanswered),
            ("crowded", turned.crowded),
            ("barred", turned.barred),
        ],
    );
    let refusals = view.connections.refused().iter();
    page.put_each(REFUSALS, refusals.map(|(it, n)| (refused(it), n)));
}

fn states(view: &View<'_>, segment: &Segment) -> Tally<NodeState> {
    let mut states = Tally::new(&NODE_STATES);
    for name in view.fleet().nodes().keys() {
        if let Some(case) = view.fleet().case(segment.id(), name) {
            states.count(view.state_in(segment, name, &case));
        }
    }
    states
}

const NODE_STATES: [NodeState; 6] = [
    NodeState::Active,
    NodeState::Probation,
    NodeState::Quarantined,
    NodeState::Offline,
    NodeState::Evicted,
    NodeState::Impaired,
];

fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "active",
        NodeState::Probation => "probation",
        NodeState::Quarantined => "quarantined",
        NodeState::Offline => "offline",
        NodeState::Evicted => "evicted",
        NodeState::Impaired => "impaired",
    }
}
