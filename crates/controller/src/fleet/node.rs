//! One enrolled node in the fold: its keys, its evidence, its groups, and what operators ruled about it. Its standing is a segment's; a [`Case`] puts both before a policy.

use super::NodeStanding;
use super::ageing::Ageing;
use super::kept::{MOST_KEPT, Records};
use super::routes::{self, Routes};
use crate::by::By;
use crate::clock::Now;
use crate::event::{Accepted, Event, KeyIn, Verdict, text};
use jiff::Timestamp;
use keys::{NodeId, SegmentId, WgPublicKey};
use policy::{History, Record, Ruling, Run, Standing, Unacceptable};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::Digest;
use wire::NodeName;
use wire::evidence::{Benchmark, Signer};

/// One node before one segment's policy: what it is, and what that segment decided about it.
#[derive(Debug, Clone, Copy)]
pub struct Case<'f> {
    /// Its name.
    pub name: &'f NodeName,
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
    /// Its WireGuard key in each segment that it is in.
    keys: Vec<KeyIn>,
    /// Segments that it may ask for: by its token, or by an operator's word.
    allowed: BTreeSet<SegmentId>,
    /// Those of them that an operator has let it into, and that it has not asked for yet.
    invited: BTreeSet<SegmentId>,
    /// Its number in the address ranges of all segments.
    pub host: u32,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    eviction: Option<Eviction>,
    /// The groups that operators have put it into.
    pub groups: BTreeSet<String>,
    /// The networks behind it, in each segment where there are any.
    routes: BTreeMap<SegmentId, Routes>,
    overriding: Option<Override>,
    records: Records,
}

/// An operator's ruling on a node, for a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Override {
    /// The ruling.
    pub ruling: Ruling,
    /// When it was given.
    pub at: Timestamp,
    /// How long it is in force, in seconds.
    pub seconds: u64,
    /// Whose it is.
    pub by: Option<By>,
    /// Why, in the operator's words.
    pub reason: String,
    ageing: Ageing,
}

impl Override {
    /// When it ends by the calendar.
    pub fn until(&self) -> Timestamp {
        let until = self.at.checked_add(Duration::from_secs(self.seconds));
        until.unwrap_or(Timestamp::MAX)
    }

    /// How long it is in force yet; `None`: it is over, by either clock.
    pub fn left(&self, now: Now) -> Option<Duration> {
        let life = Duration::from_secs(self.seconds);
        let by_boot = life.checked_sub(self.ageing.age(now)?)?;
        let by_wall = Duration::try_from(self.until().duration_since(now.wall)).ok()?;
        Some(by_boot.min(by_wall)).filter(|left| !left.is_zero())
    }
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

impl<'f> Case<'f> {
    /// The record that the policy judges.
    pub fn record(&self, now: Now) -> Record<'f> {
        let node = self.node;
        Record {
            name: self.name,
            groups: &node.groups,
            evicted: node.evicted(),
            ruling: node.overriding(now).map(|it| it.ruling),
            probation_left: self.standing.probation_left,
            evidence: node.records.evidence(now),
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
    pub(super) fn new(id: NodeId, keys: &[KeyIn], host: u32, at: Timestamp) -> Self {
        Self {
            id,
            keys: keys.to_vec(),
            allowed: keys.iter().map(|key| key.segment).collect(),
            invited: BTreeSet::new(),
            host,
            enrolled_at: at,
            eviction: None,
            groups: BTreeSet::new(),
            routes: BTreeMap::new(),
            overriding: None,
            records: Records::default(),
        }
    }

    /// The networks behind it in a segment.
    pub fn routes(&self, segment: SegmentId) -> &Routes {
        self.routes.get(&segment).unwrap_or(&routes::NONE)
    }

    pub(super) fn change_routes(&mut self, segment: SegmentId, change: impl FnOnce(&mut Routes)) {
        change(self.routes.entry(segment).or_default());
        self.routes.retain(|_, it| !it.is_empty());
    }

    /// Its WireGuard key in a segment; `None`: it is not in it.
    pub fn wg(&self, segment: SegmentId) -> Option<WgPublicKey> {
        let mut keys = self.keys.iter();
        keys.find(|key| key.segment == segment).map(|key| key.wg)
    }

    /// Whether it is in a segment.
    pub fn is_in(&self, segment: SegmentId) -> bool {
        self.wg(segment).is_some()
    }

    /// Its keys, one for each segment that it is in.
    pub fn keys(&self) -> &[KeyIn] {
        &self.keys
    }

    /// Whether it may ask for a place in a segment.
    pub fn may_ask_for(&self, segment: SegmentId) -> bool {
        self.allowed.contains(&segment)
    }

    /// The segments that it is to ask for, at an operator's word.
    pub fn invited(&self) -> &BTreeSet<SegmentId> {
        &self.invited
    }

    /// The segments that it may ask for and is not in.
    pub fn permitted(&self) -> impl Iterator<Item = SegmentId> {
        let all = self.allowed.iter().copied();
        all.filter(|id| !self.is_in(*id))
    }

    pub(super) fn allow(&mut self, segments: &[SegmentId]) {
        self.allowed.extend(segments);
    }

    pub(super) fn invite(&mut self, segment: SegmentId) {
        self.allowed.insert(segment);
        self.invited.insert(segment);
    }

    pub(super) fn join(&mut self, key: KeyIn) {
        self.leave(key.segment);
        self.allowed.insert(key.segment);
        self.keys.push(key);
        self.keys.sort_by_key(|key| key.segment);
    }

    /// It is out, and may not ask again.
    pub(super) fn leave(&mut self, segment: SegmentId) {
        self.keys.retain(|key| key.segment != segment);
        self.allowed.remove(&segment);
        self.invited.remove(&segment);
    }

    /// Another identity has the name: it is in the segments that it asked for, and in no other.
    pub(super) fn forget_keys(&mut self) {
        self.keys.clear();
    }

    /// The evidence accepted earlier, as far as it concerns a run. `known` says which challenges are.
    pub(super) fn history(
        &self,
        run: &Benchmark,
        signer: &Signer,
        known: impl Fn(&Digest) -> bool,
        now: Now,
    ) -> History {
        let (last_finished, nonce_used) = self.records.history(run, signer, now);
        History {
            last_finished,
            nonce_used,
            challenge_known: run.challenge.as_ref().map(known),
        }
    }

    /// The run that was accepted last.
    pub fn newest_run(&self) -> Option<&Run> {
        self.records.newest()
    }

    /// Why no evidence of one more suite, harness or signer can be kept, if it cannot. Runs that finished before
    /// `counts_from` are too old to count.
    pub fn has_room_for(
        &self,
        run: &Benchmark,
        signer: &Signer,
        counts_from: Timestamp,
    ) -> Result<(), Unacceptable> {
        if self.records.is_full_for(run, signer, counts_from) {
            Err(Unacceptable::TooManySuites(MOST_KEPT))
        } else {
            Ok(())
        }
    }

    /// The operator's ruling that is in force.
    pub fn overriding(&self, now: Now) -> Option<&Override> {
        self.overriding.as_ref().filter(|it| it.left(now).is_some())
    }

    /// An operator rules on it, or takes that back. `boot_ms` is the time on the boot-time clock.
    pub(super) fn set_override(&mut self, (at, by): (Timestamp, Option<By>), event: &Event) {
        self.overriding = match event {
            Event::OverrideSet {
                ruling,
                seconds,
                reason,
                boot_ms,
                ..
            } => Some(Override {
                ruling: *ruling,
                at,
                seconds: *seconds,
                by,
                reason: reason.clone(),
                ageing: Ageing::Counted {
                    at,
                    boot_ms: *boot_ms,
                },
            }),
            _ => None,
        };
    }

    /// The log shows that the calendar was set back from `last`. A ruling that was over by then stays so.
    pub(super) fn clock_set_back(&mut self, last: Timestamp, to: Timestamp) {
        self.records.clock_set_back(to);
        self.overriding = self.overriding.take().filter(|it| it.until() > last);
    }

    /// The controller was started.
    pub(super) fn restart(&mut self, last: Option<Timestamp>, start: Now) {
        self.records.restart(last, start);
        if let Some(overriding) = &mut self.overriding {
            overriding.ageing = overriding.ageing.restart(last, start);
        }
    }

    pub(super) fn set_eviction(&mut self, eviction: Option<Eviction>) {
        self.eviction = eviction;
    }

    /// Another identity has the name: nothing that was proved by the old one speaks for it.
    pub(super) fn forget_identity(&mut self, id: NodeId) {
        self.id = id;
        self.records = Records::default();
        // Approvals are for the name. The other machine has to offer the networks itself.
        self.routes
            .values_mut()
            .for_each(|it| it.advertised.clear());
        self.routes.retain(|_, it| !it.is_empty());
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
        self.records.accept(at, accepted);
    }
}
