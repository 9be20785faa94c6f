//! How far each node has come, and what all nodes together were told. Scenarios read it; nodes write it.

use keys::Epoch;
use quic::Connection;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tests::harness::now;
use wire::message::Refusal;
use wire::{NodeName, ToNode};

/// One node's progress.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Progress>);

/// How far it has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// Its connection while it has a session.
    pub(crate) connection: Option<Connection>,
    /// When its session began.
    pub(crate) connected_at: Option<Instant>,
    /// The newest epoch of an update that arrived, and when it had.
    pub(crate) arrived: Step,
    /// The same of the acknowledgement that it is installed.
    pub(crate) installed: Step,
    /// The same of the acknowledgement that it is in force.
    pub(crate) activated: Step,
    /// Whether the epoch in force has it as a member.
    pub(crate) is_member: bool,
    /// When it was a member for the first time.
    pub(crate) member_at: Option<Instant>,
}

/// A step of an epoch, with its time.
pub(crate) type Step = Option<(u64, Instant)>;

/// The stage of a node's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not enrolled.
    #[default]
    Unknown,
    /// Enrolled, without a session.
    Enrolled,
    /// In a session.
    Connected,
}

impl Slot {
    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.0)
    }

    pub(crate) fn stage(&self, stage: Stage) {
        self.progress().stage = stage;
    }

    pub(crate) fn connected(&self, connection: Connection) {
        let mut progress = self.progress();
        progress.stage = Stage::Connected;
        progress.connection = Some(connection);
        progress.connected_at = Some(now());
    }

    /// The session has ended; returns its connection.
    pub(crate) fn disconnected(&self) -> Option<Connection> {
        let mut progress = self.progress();
        if progress.stage == Stage::Connected {
            progress.stage = Stage::Enrolled;
        }
        progress.connection.take()
    }

    pub(crate) fn arrived(&self, epoch: Epoch, at: Instant) {
        self.progress().arrived = Some((epoch.0, at));
    }

    pub(crate) fn installed(&self, epoch: Epoch, at: Instant) {
        self.progress().installed = Some((epoch.0, at));
    }

    pub(crate) fn activated(&self, epoch: Epoch, is_member: bool, at: Instant) {
        let mut progress = self.progress();
        progress.activated = Some((epoch.0, at));
        progress.is_member = is_member;
        if is_member {
            progress.member_at.get_or_insert(at);
        }
    }
}

/// The messages that all nodes were told since the beginning.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Bytes of frames, with their headers.
    pub(crate) frames: AtomicU64,
    /// Bytes of UDP payload on connections that have ended.
    pub(crate) datagrams: AtomicU64,
    /// Evidence.
    pub(crate) submitted: AtomicU64,
    pub(crate) accepted: AtomicU64,
    /// Updates that were not taken, because the proof that came with them began elsewhere.
    pub(crate) unproven: AtomicU64,
    /// Updates that were not taken, because they were changes against one that the node did not hold.
    pub(crate) whole: AtomicU64,
    /// Updates that were older than one that was taken.
    pub(crate) older: AtomicU64,
    by_kind: Mutex<BTreeMap<&'static str, (u64, u64)>>,
    refusals: Mutex<BTreeMap<String, u64>>,
    losses: Mutex<BTreeMap<String, u64>>,
    faults: Mutex<Vec<String>>,
}

impl Counts {
    pub(crate) fn received(&self, message: &ToNode, len: usize) {
        self.frames.fetch_add(len as u64, Ordering::Relaxed);
        let mut kinds = lock(&self.by_kind);
        let kind = kinds.entry(name_of(message)).or_default();
        kind.0 += 1;
        kind.1 += len as u64;
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        *lock(&self.refusals)
            .entry(format!("{refusal:?}"))
            .or_default() += 1;
    }

    /// Evidence is to be sent again.
    pub(crate) fn put_off(&self, reason: &str) {
        let reason = format!("evidence: {reason}");
        *lock(&self.refusals).entry(reason).or_default() += 1;
    }

    /// A connection was lost, or could not be made.
    pub(crate) fn lost(&self, error: &anyhow::Error) {
        let reason = format!("{error:#}");
        *lock(&self.losses).entry(reason).or_default() += 1;
    }

    /// Something that must not happen.
    pub(crate) fn fault(&self, node: &NodeName, error: &anyhow::Error) {
        let mut faults = lock(&self.faults);
        if faults.len() < FAULTS {
            faults.push(format!("{node}: {error:#}"));
        }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }

    /// Messages and bytes by kind, and refusals and losses by reason, in words.
    pub(crate) fn summary(&self) -> String {
        let kinds = lock(&self.by_kind);
        let kinds = kinds.iter().map(|(kind, (count, bytes))| {
            format!("{kind} {count} ({:.1} MB)", *bytes as f64 / 1e6)
        });
        let mut lines = vec![kinds.collect::<Vec<String>>().join(", ")];
        for (what, count) in [
            ("asked for anew, proved from elsewhere", &self.unproven),
            (
                "asked for anew, changes against what is not held",
                &self.whole,
            ),
            ("older than what was taken", &self.older),
        ] {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                lines.push(format!("updates {what}: {count}"));
            }
        }
        for (what, counts) in [("refused", &self.refusals), ("lost", &self.losses)] {
            let counts = lock(counts);
            let counts = counts.iter().map(|(why, count)| format!("{why}: {count}"));
            let counts: Vec<String> = counts.collect();
            if !counts.is_empty() {
                lines.push(format!("{what}: {}", counts.join("; ")));
            }
        }
        lines.join("\n")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Faults that are kept: the first say what is wrong.
const FAULTS: usize = 20;

/// The kind of a message, for errors.
pub(crate) fn name_of(message: &ToNode) -> &'static str {
    match message {
        ToNode::Enrolled(_) => "Enrolled",
        ToNode::Welcome { .. } => "Welcome",
        ToNode::Update(_) => "Update",
        ToNode::Changes(_) => "Changes",
        ToNode::Endpoints { .. } => "Endpoints",
        ToNode::EvidenceResult { .. } => "EvidenceResult",
        ToNode::Refused { .. } => "Refused",
        ToNode::RollCall => "RollCall",
        ToNode::Duplicate(_) => "Duplicate",
        ToNode::Seen { .. } => "Seen",
        ToNode::Ways { .. } => "Ways",
        ToNode::Waiting { .. } => "Waiting",
        ToNode::Authorities { .. } => "Authorities",
        ToNode::Placed(_) => "Placed",
        ToNode::NotPlaced { .. } => "NotPlaced",
        ToNode::Invited { .. } => "Invited",
        ToNode::Left { .. } => "Left",
    }
}
