//! One enrolled node in the fold: its keys, its evidence and how old that is, and whether an operator has
//! excluded it. Its standing is a segment's; a [`Case`] puts both before a policy.

use super::NodeStanding;
use crate::clock::Now;
use crate::event::{Accepted, Verdict};
use jiff::Timestamp;
use keys::{NodeId, WgPublicKey};
use policy::{Evidence, History, Record, Standing};
use std::collections::VecDeque;
use std::time::Duration;
use wire::Digest;
use wire::evidence::Benchmark;

/// One node before one segment's policy: what it is, and what that segment decided about it.
#[derive(Debug, Clone, Copy)]
pub struct Case<'f> {
    /// The node.
    pub node: &'f Node,
    pub(super) standing: &'f NodeStanding,
}

/// An enrolled node: what holds in every segment.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Its WireGuard key.
    pub wg: WgPublicKey,
    /// Its number in the mesh's address ranges.
    pub host: u32,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// Its newest accepted evidence.
    pub evidence: Option<Accepted>,
    evicted: bool,
    /// When its newest evidence was accepted, by the calendar.
    accepted_at: Option<Timestamp>,
    /// The same on the boot-time clock, in milliseconds; negative: before this boot.
    accepted_boot_ms: Option<i64>,
    last_finished: Option<Timestamp>,
    nonces: VecDeque<String>,
}

impl<'f> Case<'f> {
    /// The record that the policy judges.
    pub fn record(&self, now: Now) -> Record {
        let node = self.node;
        Record {
            evicted: node.evicted,
            probation_left: self.standing.probation_left,
            evidence: node.evidence.as_ref().map(|e| Evidence {
                overall: e.overall,
                metrics: e.metrics.clone(),
                harness: e.harness.clone(),
                suite: e.suite.clone(),
                suite_version: e.suite_version.clone(),
                finished_at: e.finished_at,
                accepted_for: node.accepted_for(now),
                signer: e.signer,
                digest: e.digest,
            }),
            standing: self.standing.standing,
        }
    }

    /// Epochs of probation left, the one in force included.
    pub fn probation_left(&self) -> u32 {
        self.standing.probation_left
    }

    /// The standing that earlier decisions left behind.
    pub fn standing(&self) -> Standing {
        self.standing.standing
    }

    /// The last decision.
    pub fn verdict(&self) -> Option<&'f Verdict> {
        self.standing.verdict.as_ref()
    }
}

impl Node {
    pub(super) fn new(id: NodeId, wg: WgPublicKey, host: u32, at: Timestamp) -> Self {
        Self {
            id,
            wg,
            host,
            enrolled_at: at,
            evidence: None,
            evicted: false,
            accepted_at: None,
            accepted_boot_ms: None,
            last_finished: None,
            nonces: VecDeque::new(),
        }
    }

    /// The evidence accepted earlier, as far as it concerns a run. `known` says which challenges are.
    pub(super) fn history(&self, run: &Benchmark, known: impl Fn(&Digest) -> bool) -> History {
        let used = |nonce: &String| nonce.eq_ignore_ascii_case(&run.nonce);
        History {
            last_finished: self.last_finished,
            nonce_used: self.nonces.iter().any(used),
            challenge_known: run.challenge.as_ref().map(known),
        }
    }

    pub(super) fn set_evicted(&mut self, evicted: bool) {
        self.evicted = evicted;
    }

    /// Another identity has the name: nothing that was proved by the old one speaks for it.
    pub(super) fn forget_identity(&mut self, id: NodeId) {
        self.id = id;
        self.evidence = None;
        (self.accepted_at, self.accepted_boot_ms) = (None, None);
        self.last_finished = None;
        self.nonces.clear();
    }

    /// See [`super::Fleet::start_ageing`].
    pub(super) fn start_ageing(&mut self, now: Now) {
        if let (Some(at), None) = (self.accepted_at, self.accepted_boot_ms) {
            let age = now.wall.as_millisecond() - at.as_millisecond();
            self.accepted_boot_ms = Some(now.boot_ms().saturating_sub(age.max(0)));
        }
    }

    /// Whether an operator has excluded it.
    pub fn evicted(&self) -> bool {
        self.evicted
    }

    fn accepted_for(&self, now: Now) -> Duration {
        let ms = match (self.accepted_boot_ms, self.accepted_at) {
            (Some(boot_ms), _) => now.boot_ms().saturating_sub(boot_ms),
            (None, Some(at)) => now.wall.as_millisecond() - at.as_millisecond(),
            (None, None) => 0,
        };
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    pub(super) fn accept(&mut self, at: Timestamp, accepted: &Accepted) {
        (self.accepted_at, self.accepted_boot_ms) = (Some(at), None);
        self.last_finished = Some(accepted.finished_at);
        self.nonces.push_back(accepted.nonce.clone());
        if self.nonces.len() > NONCES {
            self.nonces.pop_front();
        }
        let mut evidence = accepted.clone();
        // The log has the envelope; the state has no use for it.
        evidence.envelope = String::new();
        self.evidence = Some(evidence);
    }
}

/// Nonces that are remembered per node. Older ones need no memory: evidence must be of a later run
/// than the newest accepted, so that an old envelope is refused by its time.
const NONCES: usize = 64;
