//! Why a node is where it is, in a form for operators. Everything in it is of the fold of the log and of a time, so
//! that it can be said of an earlier time as of now; only the outlook of now knows the timers.

use crate::clock::Now;
use crate::decide::joins;
use crate::fleet::Case;
use crate::format::{shown, utc};
use crate::segment::Segment;
use policy::{Decision, Policy, judge, rules, stale_in};
use std::time::Duration;
use wire::SegmentName;
use wire::admin::{DecisionStatus, Explanation, KeptEvidence, RuleStatus};
use wire::evidence::Signer;

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
    let evidence = record.evidence.iter().map(|it| KeptEvidence {
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
        evidence: evidence.collect(),
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

fn outlook(
    case: &Case<'_>,
    policy: &Policy,
    decision: &Decision,
    (member, held): (bool, bool),
    now: Now,
) -> Vec<String> {
    let mut outlook = Vec::new();
    let mut say = |words: String| outlook.push(words);
    if let Some(eviction) = case.node.eviction() {
        let by = eviction
            .by
            .map_or("nobody knows whom".to_owned(), |by| by.to_string());
        say(format!("evicted by {by} at {}", utc(eviction.at)));
    }
    if let Some(it) = case.node.overriding(now) {
        let by = it
            .by
            .map_or("nobody knows whom".to_owned(), |by| by.to_string());
        say(format!(
            "overridden by {by} until {}: {}",
            utc(it.until()),
            it.reason
        ));
    }
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
