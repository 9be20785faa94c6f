//! One enrolled node in the fold: its keys, its evidence and how old that is, and whether an operator has
//! excluded it. Its standing is a segment's; a [`Case`] puts both before a policy.

use super::NodeStanding;
use crate::by::By;
use crate::clock::{Now, steps_back};
use crate::event::{Accepted, Verdict, text};
use jiff::Timestamp;
use keys::{NodeId, WgPublicKey};
use policy::{Evidence, History, Record, Standing};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// Its identity.
    #[serde(with = "text")]
    pub id: NodeId,
    /// Its WireGuard key.
    #[serde(with = "text")]
    pub wg: WgPublicKey,
    /// Its number in the mesh's address ranges.
    pub host: u32,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// Its newest accepted evidence.
    pub evidence: Option<Accepted>,
    eviction: Option<Eviction>,
    /// When its newest evidence was accepted.
    ageing: Ageing,
    /// Accepted evidence, oldest first, as far as new evidence is held against it.
    past: VecDeque<Past>,
}

/// An operator's word that excludes a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eviction {
    /// When it was given.
    pub at: Timestamp,
    /// Whose it is.
    pub by: Option<By>,
    /// Why, in the operator's words.
    pub reason: Option<String>,
}

/// When something was written down, on a clock that nobody sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ageing {
    /// Only the calendar says it so far.
    Since {
        /// By the calendar.
        at: Timestamp,
    },
    /// It is counted.
    Counted {
        /// By the calendar.
        at: Timestamp,
        /// On the boot-time clock, in milliseconds; negative: before this boot.
        boot_ms: i64,
    },
    /// The calendar was set back while no other clock counted: nobody knows.
    Unknown,
}

/// Evidence that was accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Past {
    finished_at: Timestamp,
    nonce: String,
    /// The earliest time that the calendar was set back to since.
    set_back_to: Option<Timestamp>,
}

impl<'f> Case<'f> {
    /// The record that the policy judges.
    pub fn record(&self, now: Now) -> Record {
        let node = self.node;
        Record {
            evicted: node.evicted(),
            probation_left: self.standing.probation_left,
            evidence: node.evidence.as_ref().map(|e| Evidence {
                overall: e.overall,
                metrics: e.metrics.clone(),
                harness: e.harness.clone(),
                suite: e.suite.clone(),
                suite_version: e.suite_version.clone(),
                finished_at: e.finished_at,
                accepted_for: node.ageing.age(now),
                set_back_to: node.set_back_to(now),
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
            eviction: None,
            ageing: Ageing::Unknown,
            past: VecDeque::new(),
        }
    }

    /// The evidence accepted earlier, as far as it concerns a run. `known` says which challenges are.
    pub(super) fn history(
        &self,
        run: &Benchmark,
        known: impl Fn(&Digest) -> bool,
        now: Now,
    ) -> History {
        let used = |past: &Past| past.nonce.eq_ignore_ascii_case(&run.nonce);
        // A run whose time had not come, now or when the calendar was set back, is no measure of what is newer:
        // it would keep out every honest one until its time comes. Its nonce stays used.
        let is_measure = |past: &&Past| {
            let to = past.set_back_to.map_or(now.wall, |to| to.min(now.wall));
            past.finished_at <= to
        };
        let measures = self.past.iter().filter(is_measure);
        History {
            last_finished: measures.map(|past| past.finished_at).max(),
            nonce_used: self.past.iter().any(used),
            challenge_known: run.challenge.as_ref().map(known),
        }
    }

    /// The log shows that the calendar was set back.
    pub(super) fn clock_set_back(&mut self, to: Timestamp) {
        for past in &mut self.past {
            past.set_back_to = Some(past.set_back_to.map_or(to, |before| before.min(to)));
        }
    }

    /// The earliest time that the calendar was set back to since the newest evidence was accepted, whether the
    /// log shows it yet or not.
    fn set_back_to(&self, now: Now) -> Option<Timestamp> {
        let since = self.is_set_back(now).then_some(now.wall);
        let logged = self.past.back().and_then(|past| past.set_back_to);
        [logged, since].into_iter().flatten().min()
    }

    /// Whether the calendar is before the acceptance of the newest evidence.
    fn is_set_back(&self, now: Now) -> bool {
        match self.ageing {
            Ageing::Since { at } | Ageing::Counted { at, .. } => steps_back(at, now.wall),
            Ageing::Unknown => false,
        }
    }

    pub(super) fn set_eviction(&mut self, eviction: Option<Eviction>) {
        self.eviction = eviction;
    }

    /// Another identity has the name: nothing that was proved by the old one speaks for it.
    pub(super) fn forget_identity(&mut self, id: NodeId) {
        self.id = id;
        self.evidence = None;
        self.ageing = Ageing::Unknown;
        self.past.clear();
    }

    /// See [`super::Fleet::start_ageing`].
    pub(super) fn start_ageing(&mut self, now: Now) {
        self.ageing = self.ageing.counted(now);
    }

    /// Whether an operator has excluded it.
    pub fn evicted(&self) -> bool {
        self.eviction.is_some()
    }

    /// The operator's word that excluded it.
    pub fn eviction(&self) -> Option<&Eviction> {
        self.eviction.as_ref()
    }

    pub(super) fn accept(&mut self, at: Timestamp, accepted: &Accepted) {
        self.ageing = Ageing::Since { at };
        self.past.push_back(Past {
            finished_at: accepted.finished_at,
            nonce: accepted.nonce.clone(),
            set_back_to: None,
        });
        if self.past.len() > REMEMBERED {
            // A run that finished later was accepted by a clock that was ahead. Its time is yet to come, and
            // with its nonce forgotten it could come again then.
            let is_past = |past: &Past| past.finished_at < accepted.finished_at;
            let first = self.past.iter().position(is_past);
            let surplus = (self.past.len() > MOST).then_some(0);
            if let Some(at) = first.or(surplus) {
                self.past.remove(at);
            }
        }
        let mut evidence = accepted.clone();
        // The log has the envelope; the state has no use for it.
        evidence.envelope = String::new();
        self.evidence = Some(evidence);
    }
}

/// A snapshot keeps what the calendar says: the boot-time clock is another one after the next boot.
impl Serialize for Ageing {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Since { at } | Self::Counted { at, .. } => Some(at).serialize(to),
            Self::Unknown => None::<Timestamp>.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Ageing {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let at = Option::deserialize(from)?;
        Ok(at.map_or(Self::Unknown, |at| Self::Since { at }))
    }
}

impl Ageing {
    /// Counted from now on.
    pub(super) fn counted(self, now: Now) -> Self {
        match self {
            Self::Counted { .. } | Self::Unknown => self,
            // Set back by an unknown time: it is as old as that and what has passed since.
            Self::Since { at } if steps_back(at, now.wall) => Self::Unknown,
            Self::Since { at } => {
                let age = now.wall.as_millisecond() - at.as_millisecond();
                let boot_ms = now.boot_ms().saturating_sub(age);
                Self::Counted { at, boot_ms }
            }
        }
    }

    /// The time that has passed; `None`: nobody knows.
    pub(super) fn age(self, now: Now) -> Option<Duration> {
        let Self::Counted { boot_ms, .. } = self.counted(now) else {
            return None;
        };
        // Within the second by which two readings of one clock may differ.
        let ms = now.boot_ms().saturating_sub(boot_ms).max(0);
        Some(Duration::from_millis(ms.unsigned_abs()))
    }
}

/// Evidence that is remembered per node. A run from before the newest needs no memory: evidence must be of
/// a later run, so that an old envelope is refused by its time.
const REMEMBERED: usize = 64;
/// The same where the calendar was set back: as long as the time of a run is yet to come, it is remembered.
const MOST: usize = 256;
