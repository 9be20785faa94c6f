//! The controller's metrics: each declared once, and filled from the engine's state when somebody asks.
//! `Counts` holds what nothing else counts; it decides nothing, and nothing reads it but a scrape.

use crate::clock::Now;
use crate::counts::refused;
use crate::engine::{Engine, Stage};
use crate::intake::Waiting;
use epoch::authority::Span;
use exposition::{Page, Tally};
use std::time::Duration;
use wire::admin::NodeState;

exposition::metrics! {
    /// The version that runs; always 1
    BUILD_INFO: Gauge = "meshd_build_info" by "version";
    /// Number of the epoch in force
    EPOCH: Gauge = "meshd_epoch_current";
    /// Time until the epoch in force is scheduled to end; 0 when it is overdue
    EPOCH_REMAINING: Gauge = "meshd_epoch_remaining_seconds";
    /// Members of the epoch in force
    EPOCH_MEMBERS: Gauge = "meshd_epoch_members";
    /// Attempts to publish an epoch, by what became of them
    EPOCH_UPDATES: Counter = "meshd_epoch_updates_total" by "result";
    /// Decisions about a node's membership that an epoch was published with
    DECISIONS: Counter = "meshd_policy_decisions_total" by "decision";
    /// Members whose removal the sanity floor holds back until an operator confirms it
    HELD: Gauge = "meshd_removals_held";
    /// Enrolled nodes, by state
    NODES: Gauge = "meshd_nodes" by "state";
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

impl Engine {
    /// Everything that is measured, as it is now.
    pub(crate) fn metrics(&self, held: Held, now: Now) -> Page {
        let mut page = Page::default();
        page.put_each(BUILD_INFO, [(env!("CARGO_PKG_VERSION"), true)]);
        self.put_epoch(&mut page, now);
        let decisions = self.counts.decisions.iter();
        page.put_each(DECISIONS, decisions.map(|(it, n)| (it.name(), n)));
        page.put(HELD, self.held.len());
        page.put_each(NODES, self.states().iter().map(|(it, n)| (word(it), n)));
        let evidence = self.counts.evidence.iter();
        page.put_each(EVIDENCE, evidence.map(|(it, n)| (it.name(), n)));
        self.put_connections(held, &mut page);
        page.put(LOG_EVENTS, self.log.head().seq);
        page.put(LOG_WRITABLE, self.log_writable());
        page.put(ALARMS, self.alarms().len());
        page
    }

    fn put_epoch(&self, page: &mut Page, now: Now) {
        let span = self.authority.in_force();
        let left = |span: &Span| span.ends.saturating_sub(now.boot);
        let published = span.and_then(|span| self.fleet.epoch(span.epoch));
        page.put(EPOCH, span.map_or(0, |span| span.epoch.0));
        page.put(
            EPOCH_REMAINING,
            span.map_or(Duration::ZERO, left).as_secs_f64(),
        );
        page.put(
            EPOCH_MEMBERS,
            published.map_or(0, |(_, published)| published.members),
        );
        let updates = self.counts.updates.iter();
        page.put_each(EPOCH_UPDATES, updates.map(|(it, n)| (it.name(), n)));
    }

    fn put_connections(&self, held: Held, page: &mut Page) {
        let serving = |stage: &Stage| matches!(stage, Stage::Serving { .. });
        let all = self.sessions.len();
        let serving = self.sessions.values().filter(|s| serving(&s.stage)).count();
        let Waiting {
            handshakes,
            silent,
            turned,
        } = held.waiting;
        // The rest of those that hold memory has been refused, and is on its way out.
        let closing = held.connections.saturating_sub(all + handshakes + silent);
        page.put_each(
            CONNECTIONS,
            [
                ("handshake", handshakes),
                ("silent", silent),
                ("opening", all - serving),
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
        let refusals = self.counts.refusals.iter();
        page.put_each(REFUSALS, refusals.map(|(it, n)| (refused(it), n)));
    }

    fn states(&self) -> Tally<NodeState> {
        let mut states = Tally::new(&NODE_STATES);
        for (name, node) in self.fleet.nodes() {
            states.count(self.state_of(name, node));
        }
        states
    }
}

const NODE_STATES: [NodeState; 5] = [
    NodeState::Active,
    NodeState::Probation,
    NodeState::Quarantined,
    NodeState::Offline,
    NodeState::Evicted,
];

fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "active",
        NodeState::Probation => "probation",
        NodeState::Quarantined => "quarantined",
        NodeState::Offline => "offline",
        NodeState::Evicted => "evicted",
    }
}
