//! The log, read again from its first entry: the state at an earlier time, the decisions taken anew, and those that
//! another policy would have taken. Everything that a decision depends on is in the log, so that the same entries give
//! the same bytes. Evidence that has left the log by its age is missing here: a decision that rested on it is taken
//! without it.
//!
//! It runs on the thread that publishes epochs, so that a log of more than [`MOST_ENTRIES`] entries is refused.

use crate::clock::Now;
use crate::decide::{Cause, decide, recorded};
use crate::event::{Event, Published};
use crate::explain;
use crate::fleet::{Fleet, Node};
use crate::format::{shown, utc};
use crate::log::{self, Log, LogError};
use jiff::Timestamp;
use keys::{Epoch, SegmentId};
use policy::{Membership, Policy};
use std::collections::{BTreeMap, BTreeSet};
use wire::admin::{Difference, Explanation, Simulation};
use wire::{NodeName, SegmentName};

/// Why the log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreplayed {
    #[error("the event log cannot be read: {0}")]
    Log(#[from] LogError),
    #[error(
        "the event log has {0} entries, and at most {MOST_ENTRIES} are replayed while epochs wait"
    )]
    TooLong(u64),
    #[error("the event log has an entry of an unknown kind")]
    Unknown,
}

/// Takes every decision of a log again: `each` gets the number of its entry, what the log has, and what was decided
/// now.
#[cfg(test)]
pub(crate) fn decisions(
    log: &Log,
    mut each: impl FnMut(u64, &Event, &Event),
) -> Result<(), Unreplayed> {
    let mut fleet = Fleet::default();
    walk(log, |seq, at, by, event| {
        if let Event::Decided {
            segment,
            epoch,
            cause,
            confirmed,
            boot_ms,
            ..
        } = event
        {
            let policy = fleet.policy(*segment).cloned().unwrap_or_default();
            let now = Now::at(*boot_ms, at);
            if let Some(cause) = Cause::of_word(cause, *confirmed) {
                let ballot = decide(&fleet, *segment, &policy, cause, now);
                let again = recorded(&fleet, (*segment, *epoch), cause, &ballot, now);
                each(seq, event, &again);
            }
        }
        fleet.apply(at, by, event);
        true
    })
}

/// Explains a node as it was at that time in a segment; without one, in the first that it was in. `None`: it was not
/// enrolled then, or not in that segment.
pub(crate) fn explain_at(
    log: &Log,
    name: &NodeName,
    of: Option<&SegmentName>,
    then: Timestamp,
) -> Result<Option<Explanation>, Unreplayed> {
    let mut fleet = Fleet::default();
    // The boot-time clock at an entry that tells it, and the calendar with it.
    let mut clock: Option<(i64, Timestamp)> = None;
    walk(log, |_, at, by, event| {
        if at > then {
            return false;
        }
        if let Some(boot_ms) = boot_ms(event) {
            clock = Some((boot_ms, at));
        }
        fleet.apply(at, by, event);
        true
    })?;
    let keys = fleet.node(name).map(Node::keys).unwrap_or_default();
    let first = keys.first().map(|key| key.segment).unwrap_or_default();
    let case = match of {
        None => Some((first, fleet.case_as_if(first, name))),
        Some(of) => fleet
            .segment_number(of)
            .map(|segment| (segment, fleet.case(segment, name))),
    };
    let Some((segment, Some(case))) = case else {
        return Ok(None);
    };
    let (boot_ms, at) = clock.unwrap_or((0, then));
    let since = then.as_millisecond() - at.as_millisecond();
    let now = Now::at(boot_ms.saturating_add(since), then);
    if of.is_none() && keys.is_empty() {
        let called = |id| Some(fleet.segment_name(id));
        return Ok(Some(explain::explain_nowhere(&case, called, now)));
    }
    let called = fleet.segment_name(segment);
    let policy = fleet.policy(segment).cloned().unwrap_or_default();
    let member = fleet.standings(segment).roster().contains(name);
    let held = case.verdict().is_some_and(|verdict| verdict.held);
    let of = (&called, &policy);
    Ok(Some(explain::explain(&case, of, (member, held), now)))
}

/// The decisions of a segment, taken by another policy at the times and for the causes of those that were
/// taken, on the evidence that was accepted. What the policy in force refused is not on record, and a
/// `revoke = "now"` of the other policy waits for the next decision.
pub(crate) fn simulate(
    log: &Log,
    policy: &Policy,
    since: Option<Timestamp>,
    of: SegmentId,
) -> Result<Simulation, Unreplayed> {
    let (mut real, mut other) = (Fleet::default(), Fleet::default());
    let mut told = Told {
        segment: of,
        ..Told::default()
    };
    walk(log, |_, at, by, event| {
        real.apply(at, by, event);
        match event {
            Event::Decided {
                segment,
                epoch,
                cause,
                confirmed,
                boot_ms,
                ..
            } if *segment == of => {
                let now = Now::at(*boot_ms, at);
                if let Some(cause) = Cause::of_word(cause, *confirmed) {
                    told.decided(&mut other, policy, (*epoch, cause), now, since);
                }
            }
            Event::EpochPublished(published) if published.segment == of => {
                let published = told.publish(&other, published);
                other.apply(at, by, &Event::EpochPublished(Box::new(published)));
                if since.is_none_or(|since| at >= since) {
                    told.compare(&real, &other, at);
                }
            }
            Event::PolicyChanged { segment, .. } if *segment == of => {}
            _ => other.apply(at, by, event),
        }
        true
    })?;
    let mut simulation = told.simulation(policy);
    // Of members of now: a rule judges no evidence, so that the past has nothing to tell of it.
    let in_force = real.policy(of).cloned().unwrap_or_default();
    let roster = real.standings(of).roster();
    let members = real
        .nodes()
        .iter()
        .filter(|(name, _)| roster.contains(*name));
    let members = members.map(|(name, node)| (name, &node.groups));
    let rules = (&in_force.rules(), &policy.rules());
    let (traffic, is_cut) = policy::traffic_changes(rules, members);
    simulation.traffic = traffic;
    simulation.cut |= is_cut;
    Ok(simulation)
}

/// The findings of a trial.
#[derive(Debug, Default)]
struct Told {
    segment: SegmentId,
    decisions: u64,
    from: Option<Timestamp>,
    /// The roster that was decided on last, and why the others are not in it.
    roster: BTreeSet<NodeName>,
    reasons: BTreeMap<NodeName, String>,
    /// By node, the place in the list of the stretch that lasts.
    open: BTreeMap<NodeName, usize>,
    differences: Vec<Difference>,
    cut: bool,
}

impl Told {
    fn decided(
        &mut self,
        other: &mut Fleet,
        policy: &Policy,
        (epoch, cause): (Epoch, Cause),
        now: Now,
        since: Option<Timestamp>,
    ) {
        let ballot = decide(other, self.segment, policy, cause, now);
        let event = recorded(other, (self.segment, epoch), cause, &ballot, now);
        other.apply(now.wall, None, &event);
        (self.roster, self.reasons) = (ballot.roster, ballot.excluded);
        if since.is_none_or(|since| now.wall >= since) {
            self.decisions += 1;
            self.from.get_or_insert(now.wall);
        }
    }

    /// The publication as it would have been.
    fn publish(&self, other: &Fleet, published: &Published) -> Published {
        let before = other.standings(self.segment).roster();
        let removed = before.difference(&self.roster).map(|name| {
            let reason = self.reasons.get(name).cloned().unwrap_or_default();
            (name.clone(), reason)
        });
        Published {
            members: self.roster.len(),
            joined: self.roster.difference(before).cloned().collect(),
            removed: removed.collect(),
            ..published.clone()
        }
    }

    fn compare(&mut self, real: &Fleet, other: &Fleet, at: Timestamp) {
        let (happened, would) = (
            real.standings(self.segment).roster(),
            other.standings(self.segment).roster(),
        );
        for name in real.nodes().keys() {
            let (is, would_be) = (happened.contains(name), would.contains(name));
            let lasts = self.open.get(name).copied();
            let same = lasts.and_then(|at| self.differences.get(at));
            let same = same.is_some_and(|it| is != would_be && it.happened == word(is));
            if same {
                continue;
            }
            if let Some(it) = self
                .open
                .remove(name)
                .and_then(|at| self.differences.get_mut(at))
            {
                it.until_utc = Some(utc(at));
            }
            if is == would_be {
                continue;
            }
            if self.differences.len() >= MOST_DIFFERENCES {
                self.cut = true;
                continue;
            }
            self.open.insert(name.clone(), self.differences.len());
            self.differences.push(Difference {
                name: name.clone(),
                from_utc: utc(at),
                until_utc: None,
                happened: word(is),
                would: word(would_be),
                reason: self.reasons.get(name).filter(|_| !would_be).cloned(),
            });
        }
    }

    fn simulation(self, policy: &Policy) -> Simulation {
        Simulation {
            policy: policy.digest().to_string(),
            decisions: self.decisions,
            from_utc: self.from.map(utc),
            differences: self.differences,
            traffic: Vec::new(),
            cut: self.cut,
        }
    }
}

fn word(member: bool) -> wire::admin::Membership {
    shown(if member {
        Membership::Allowed
    } else {
        Membership::Denied
    })
}

/// The boot-time clock at an event, where it tells it.
fn boot_ms(event: &Event) -> Option<i64> {
    match event {
        Event::ControllerStarted { boot_ms, .. }
        | Event::TokenCreated { boot_ms, .. }
        | Event::OverrideSet { boot_ms, .. }
        | Event::Decided { boot_ms, .. } => Some(*boot_ms),
        Event::EvidenceAccepted(accepted) => Some(accepted.boot_ms),
        _ => None,
    }
}

fn walk(
    log: &Log,
    mut each: impl FnMut(u64, Timestamp, Option<crate::by::By>, &Event) -> bool,
) -> Result<(), Unreplayed> {
    let entries = log.events();
    if entries > MOST_ENTRIES {
        return Err(Unreplayed::TooLong(entries));
    }
    let mut unknown = false;
    log.store().replay(0, |entry| match log::read(&entry) {
        Some((at, by, event)) => each(entry.seq, at, by, &event),
        None => {
            unknown = true;
            false
        }
    })?;
    if unknown {
        Err(Unreplayed::Unknown)
    } else {
        Ok(())
    }
}

/// About a second.
const MOST_ENTRIES: u64 = 100_000;
/// Stretches in one answer.
const MOST_DIFFERENCES: usize = 1_000;
