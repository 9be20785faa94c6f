//! The controller's metrics: each declared once, and filled from the engine's state when somebody asks.
//! `Counts` holds what nothing else counts; it decides nothing, and nothing reads it but a scrape.

use crate::clock::Now;
use crate::decide::Ballot;
use crate::engine::{Engine, Stage};
use crate::intake::Waiting;
use crate::rotate::Unpublished;
use epoch::authority::Span;
use exposition::{Page, Tally};
use policy::Unacceptable;
use std::time::Duration;
use wire::admin::{Membership, NodeState};
use wire::evidence::EvidenceError;
use wire::message::Refusal;

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

/// What nothing else counts, since the start.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) updates: Tally<UpdateResult>,
    pub(crate) decisions: Tally<Decided>,
    pub(crate) evidence: Tally<EvidenceResult>,
    pub(crate) refusals: Tally<Refusal>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            updates: Tally::new(&UpdateResult::ALL),
            decisions: Tally::new(&Decided::ALL),
            evidence: Tally::new(&EvidenceResult::ALL),
            refusals: Tally::new(&REFUSED),
        }
    }
}

impl Counts {
    /// What a published epoch was decided on.
    pub(crate) fn ballot(&mut self, ballot: &Ballot) {
        for verdict in &ballot.verdicts {
            self.decisions.count(match verdict.membership {
                _ if verdict.held => Decided::Held,
                Membership::Allowed => Decided::Allowed,
                Membership::Denied => Decided::Denied,
            });
        }
    }
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

/// What became of an attempt to publish an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpdateResult {
    Published,
    NotNow,
    Invalid,
    Unwritten,
}

impl UpdateResult {
    const ALL: [Self; 4] = [
        Self::Published,
        Self::NotNow,
        Self::Invalid,
        Self::Unwritten,
    ];

    pub(crate) fn of(result: &Result<(), Unpublished>) -> Self {
        match result {
            Ok(()) => Self::Published,
            Err(Unpublished::NotNow(_)) => Self::NotNow,
            Err(Unpublished::Rule(_)) => Self::Invalid,
            Err(Unpublished::Log) => Self::Unwritten,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::NotNow => "not_now",
            Self::Invalid => "invalid",
            Self::Unwritten => "unwritten",
        }
    }
}

/// What was decided about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    Allowed,
    Denied,
    Held,
}

impl Decided {
    const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Held];

    fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Held => "held",
        }
    }
}

/// What became of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EvidenceResult {
    Accepted,
    TooMuch,
    NotEnrolled,
    Evicted,
    Malformed,
    BadSignature,
    OtherNode,
    OtherMesh,
    SignerNotCounted,
    OtherSuite,
    BadChallenge,
    Future,
    Replayed,
    Unwritten,
}

impl EvidenceResult {
    const ALL: [Self; 14] = [
        Self::Accepted,
        Self::TooMuch,
        Self::NotEnrolled,
        Self::Evicted,
        Self::Malformed,
        Self::BadSignature,
        Self::OtherNode,
        Self::OtherMesh,
        Self::SignerNotCounted,
        Self::OtherSuite,
        Self::BadChallenge,
        Self::Future,
        Self::Replayed,
        Self::Unwritten,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::TooMuch => "too_much",
            Self::NotEnrolled => "not_enrolled",
            Self::Evicted => "evicted",
            Self::Malformed => "malformed",
            Self::BadSignature => "bad_signature",
            Self::OtherNode => "other_node",
            Self::OtherMesh => "other_mesh",
            Self::SignerNotCounted => "signer_not_counted",
            Self::OtherSuite => "other_suite",
            Self::BadChallenge => "bad_challenge",
            Self::Future => "future",
            Self::Replayed => "replayed",
            Self::Unwritten => "unwritten",
        }
    }
}

impl From<&EvidenceError> for EvidenceResult {
    fn from(error: &EvidenceError) -> Self {
        match error {
            EvidenceError::Signature => Self::BadSignature,
            EvidenceError::Subject => Self::OtherNode,
            EvidenceError::Mesh => Self::OtherMesh,
            EvidenceError::TooLarge
            | EvidenceError::Envelope
            | EvidenceError::Statement
            | EvidenceError::Field(_) => Self::Malformed,
        }
    }
}

impl From<&Unacceptable> for EvidenceResult {
    fn from(error: &Unacceptable) -> Self {
        match error {
            Unacceptable::NodeSigner | Unacceptable::EvaluatorSigner => Self::SignerNotCounted,
            Unacceptable::Pinned(_) => Self::OtherSuite,
            Unacceptable::NoChallenge | Unacceptable::UnknownChallenge => Self::BadChallenge,
            Unacceptable::Future { .. } => Self::Future,
            Unacceptable::NotNewer(_) | Unacceptable::NonceUsed => Self::Replayed,
        }
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

const REFUSED: [Refusal; 11] = [
    Refusal::NotEnrolled,
    Refusal::BadToken,
    Refusal::NameTaken,
    Refusal::KeyTaken,
    Refusal::MeshFull,
    Refusal::Superseded,
    Refusal::Protocol,
    Refusal::Busy,
    Refusal::Stopping,
    Refusal::TooMuch,
    Refusal::WeakKey,
];

fn refused(reason: Refusal) -> &'static str {
    match reason {
        Refusal::NotEnrolled => "not_enrolled",
        Refusal::BadToken => "bad_token",
        Refusal::NameTaken => "name_taken",
        Refusal::KeyTaken => "key_taken",
        Refusal::MeshFull => "mesh_full",
        Refusal::Superseded => "superseded",
        Refusal::Protocol => "protocol",
        Refusal::Busy => "busy",
        Refusal::Stopping => "stopping",
        Refusal::TooMuch => "too_much",
        Refusal::WeakKey => "weak_key",
    }
}
