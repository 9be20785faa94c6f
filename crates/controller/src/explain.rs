//! Why a node is where it is, in a form for operators. Everything in it is of the fold of the log and of a time, so
//! that it can be said of an earlier time as of now; only the outlook of now knows the timers.

use crate::clock::Now;
use crate::decide::joins;
use crate::fleet::{Case, Node};
use crate::format::{shown, utc};
use crate::segment::Segment;
use keys::SegmentId;
use policy::{Decision, Policy, Record, judge, rules, stale_in};
use std::time::Duration;
use wire::admin::{DecisionStatus, Explanation, KeptEvidence, Membership, RuleStatus};
use wire::evidence::Signer;
use wire::{NodeName, SegmentName};

/// Explains a node that is, or is not, in the roster of the newest epoch, held there or not.
pub(crate) fn explain(
    case: &Case<'_>,
    (segment, policy): (&SegmentName, &Policy),
    (member, held): (bool, bool),
    now: Now,
) -> Explanation {
    let record = case.record(now);
    let decision = judge(policy, &record, now.wall);
    let rules = rules(policy, &record, now.wall);
    Explanation {
        name: case.name.clone(),
        segment: segment.clone(),
        status: None,
        decision: DecisionStatus {
            membership: shown(decision.membership),
            reason: decision.reason.as_ref().map(ToString::to_string),
            score: decision.score,
            age_seconds: decision.age.as_ref().map(Duration::as_secs_f64),
            evidence: decision.evidence.map(|digest| digest.to_string()),
            decided_utc: utc(now.wall),
        },
        remedy: decision.reason.as_ref().map(policy::Reason::remedy),
        outlook: outlook(case, policy, &decision, (member, held), now),
        evidence: evidence(&record),
        policy: policy.digest().to_string(),
        rules: rules
            .into_iter()
            .map(|it| RuleStatus {
                rule: it.rule,
                value: it.value,
                holds: it.holds,
            })
            .collect(),
    }
}

/// Explains a node that is in no segment, so that no policy is asked about it.
pub(crate) fn explain_nowhere(
    case: &Case<'_>,
    name_of: impl Fn(SegmentId) -> Option<SegmentName>,
    now: Now,
) -> Explanation {
    let (name, node) = (case.name, case.node);
    let mut outlook = ruled(node, now);
    outlook.push("in no segment: it has no place, and joins nothing".into());
    let may_come = may_come(node, name_of);
    let remedy = match may_come.is_empty() {
        true => Some(let_in(name)),
        false => None,
    };
    outlook.extend(may_come);
    Explanation {
        name: name.clone(),
        segment: SegmentName::default(),
        status: None,
        decision: DecisionStatus {
            membership: Membership::Denied,
            reason: Some("in no segment".to_owned()),
            score: None,
            age_seconds: None,
            evidence: None,
            decided_utc: utc(now.wall),
        },
        remedy,
        outlook,
        evidence: evidence(&case.record(now)),
        policy: String::new(),
        rules: Vec::new(),
    }
}

/// Why a node that is in no segment is not, with the way out.
pub(crate) fn nowhere(
    name: &NodeName,
    node: &Node,
    name_of: impl Fn(SegmentId) -> Option<SegmentName>,
) -> String {
    let may_come = may_come(node, name_of);
    let then = match may_come.is_empty() {
        true => let_in(name),
        false => may_come.join("; "),
    };
    format!("in no segment: {then}")
}

fn let_in(name: &NodeName) -> String {
    format!("`meshctl node join {name} SEGMENT` lets it into one")
}

/// The segments that a node may come into and has not asked for, and when it does; `name_of` knows those that there
/// are.
pub(crate) fn may_come(
    node: &Node,
    name_of: impl Fn(SegmentId) -> Option<SegmentName>,
) -> Vec<String> {
    let (mut invited, mut by_token) = (Vec::new(), Vec::new());
    for id in node.permitted() {
        let Some(name) = name_of(id) else { continue };
        match node.invited().contains(&id) {
            true => invited.push(name.to_string()),
            false => by_token.push(name.to_string()),
        }
    }
    let mut said = Vec::new();
    if !invited.is_empty() {
        let names = invited.join(", ");
        said.push(format!(
            "may come into {names}: it asks when it is connected"
        ));
    }
    if !by_token.is_empty() {
        let names = by_token.join(", ");
        said.push(format!(
            "may come into {names} by its token: it asks when its setting `segments` names it"
        ));
    }
    said
}

fn evidence(record: &Record<'_>) -> Vec<KeptEvidence> {
    let kept = record.evidence.iter().map(|it| KeptEvidence {
        harness: it.run.harness.clone(),
        suite: it.run.suite.clone(),
        suite_version: it.run.suite_version.clone(),
        signer: match it.run.signer {
            Signer::Node(_) => "self".to_owned(),
            Signer::Evaluator(key) => key.to_string(),
        },
        finished_utc: it.run.finished_at.to_string(),
        samples: it.run.samples,
        overall: it.run.overall,
        digest: it.run.digest.to_string(),
    });
    kept.collect()
}

/// The words of operators about a node that are in force in every segment.
fn ruled(node: &Node, now: Now) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(eviction) = node.eviction() {
        let by = eviction
            .by
            .map_or("nobody knows whom".to_owned(), |by| by.to_string());
        said.push(format!("evicted by {by} at {}", utc(eviction.at)));
    }
    if let Some(it) = node.overriding(now) {
        let by = it
            .by
            .map_or("nobody knows whom".to_owned(), |by| by.to_string());
        said.push(format!(
            "overridden by {by} until {}: {}",
            utc(it.until()),
            it.reason
        ));
    }
    said
}

fn outlook(
    case: &Case<'_>,
    policy: &Policy,
    decision: &Decision,
    (member, held): (bool, bool),
    now: Now,
) -> Vec<String> {
    let mut outlook = ruled(case.node, now);
    let mut say = |words: String| outlook.push(words);
    match (member, decision.allowed()) {
        (true, _) if held => say(
            "a member: held by the sanity floor, until an operator confirms the removal (`meshctl epoch rotate \
             --confirm-removals`)"
                .into(),
        ),
        (true, true) => say("a member".into()),
        (true, false) => say("a member, and leaving".into()),
        (false, true) if joins(case, decision) => say("no member, on its way in: joins with the next epoch".into()),
        (false, true) => say("no member, on its way in: returns at the next scheduled rotation".into()),
        (false, false) => say("no member".into()),
    }
    let left = stale_in(policy, &case.record(now), now.wall);
    if let Some(left) = left.filter(|_| decision.reason.is_none()) {
        let left = left.as_secs();
        say(format!(
            "its evidence counts for {left} s more: without a new run it fails then"
        ));
    }
    outlook
}

/// When a member that fails leaves, or one that returns comes, by the timers of a segment.
pub(crate) fn when(segment: &Segment, member: bool, allowed: bool, now: Now) -> Option<String> {
    if member == allowed {
        return None;
    }
    if member && segment.revokes_at_once() {
        return Some("leaving at once: the policy revokes now".into());
    }
    let newest = segment.newest()?;
    let wait = newest.ends.saturating_sub(now.boot).as_secs();
    let word = if member { "leaving" } else { "on its way in" };
    Some(format!(
        "{word} in {wait} s at the latest, when the newest epoch ends"
    ))
}
