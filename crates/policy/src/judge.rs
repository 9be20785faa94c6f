//! One node's record, held against the rules.
//!
//! [`judge`] answers what a scheduled decision taken at this moment would be. The caller keeps
//! [`Decision::standing`] only when it takes that decision; a look in between changes nothing.

use crate::finding::{Finding, age};
use crate::reason::Reason;
use crate::record::{Record, Ruling, Standing};
use crate::settings::Policy;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use wire::Digest;

/// A node's state after a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Admitted regardless, because it is newly enrolled.
    Probation,
    /// Admitted on the strength of its evidence, or by an operator's override.
    Active,
    /// Not admitted.
    Quarantined,
    /// Excluded by an operator.
    Evicted,
}

/// Whether a node is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Membership {
    /// It is.
    Allowed,
    /// It is not.
    Denied,
}

/// A decision with what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The decision.
    pub membership: Membership,
    /// The node's state if the decision is taken.
    pub state: State,
    /// Why it is denied, or, where it is not, what would deny it without probation, override or patience.
    pub reason: Option<Reason>,
    /// The score that was judged: of several requirements, the weighted mean of those that have one.
    pub score: Option<f64>,
    /// The age of [`Self::evidence`]: since the run finished or since it was accepted, whichever is longer.
    pub age: Option<Duration>,
    /// Digest of the evidence of the first requirement that does not hold, or else of the first that has any;
    /// `None`: there is no evidence, or it is void.
    pub evidence: Option<Digest>,
    /// An operator admits it, whatever its evidence says.
    pub overridden: bool,
    /// The node's standing if this is taken as a scheduled decision.
    pub standing: Standing,
}

impl Decision {
    /// Whether the node is admitted.
    pub fn allowed(&self) -> bool {
        self.membership == Membership::Allowed
    }
}

/// A scheduled decision about this node, as it would be at `now`.
pub fn judge(policy: &Policy, record: &Record<'_>, now: Timestamp) -> Decision {
    let requirements = policy.requirements();
    let findings: Vec<_> = requirements
        .iter()
        .map(|requirement| Finding::of(policy, requirement, record, now))
        .collect();
    let failure = first_failure(&findings);
    let broken = findings.iter().find(|it| it.fault.is_some());
    let shown = broken
        .filter(|it| it.evidence.is_some())
        .or_else(|| findings.iter().find(|it| it.evidence.is_some()));
    let shown = shown.and_then(|it| it.evidence);
    let (state, reason, standing) = if record.evicted {
        let out = Standing::Out { passes: 0 };
        (State::Evicted, Some(Reason::Evicted), out)
    } else if record.ruling == Some(Ruling::Deny) {
        let standing = match record.standing {
            Standing::New => Standing::New,
            Standing::In { .. } | Standing::Out { .. } => Standing::Out { passes: 0 },
        };
        (State::Quarantined, Some(Reason::Overridden), standing)
    } else if record.ruling == Some(Ruling::Allow) {
        let standing = on_probation(record.standing, failure.as_ref());
        (State::Active, failure, standing)
    } else if record.probation_left > 0 {
        let standing = on_probation(record.standing, failure.as_ref());
        (State::Probation, failure, standing)
    } else {
        by_evidence(policy, record.standing, failure)
    };
    Decision {
        membership: match state {
            State::Probation | State::Active => Membership::Allowed,
            State::Quarantined | State::Evicted => Membership::Denied,
        },
        state,
        reason,
        score: score(&findings),
        age: shown.and_then(|it| age(&it, now)),
        evidence: shown.map(|it| it.run.digest),
        overridden: state == State::Active && record.ruling == Some(Ruling::Allow),
        standing,
    }
}

/// In how long the first of a node's evidence that is judged turns stale, of that which is not stale.
pub fn stale_in(policy: &Policy, record: &Record<'_>, now: Timestamp) -> Option<Duration> {
    let requirements = policy.requirements();
    let left = requirements.iter().filter_map(|requirement| {
        let limit = Duration::from_secs(requirement.max_age_seconds);
        let finding = Finding::of(policy, requirement, record, now);
        limit.checked_sub(age(&finding.evidence?, now)?)
    });
    left.min()
}

/// Whether some of a node's evidence that is judged has less than a tenth of its time left.
pub fn is_aging(policy: &Policy, record: &Record<'_>, now: Timestamp) -> bool {
    let requirements = policy.requirements();
    let mut requirements = requirements.iter();
    requirements.any(|requirement| {
        let limit = Duration::from_secs(requirement.max_age_seconds);
        let finding = Finding::of(policy, requirement, record, now);
        let age = finding.evidence.and_then(|it| age(&it, now));
        age.is_some_and(|age| age <= limit && age >= limit * 9 / 10)
    })
}

/// Whether a node's evidence would count for a requirement, if it were not of a time that has not come.
pub fn is_void(policy: &Policy, record: &Record<'_>, now: Timestamp) -> bool {
    let requirements = policy.requirements();
    let mut requirements = requirements.iter();
    requirements.any(|requirement| {
        let finding = Finding::of(policy, requirement, record, now);
        finding.void.is_some() && finding.evidence.is_none()
    })
}

pub(crate) fn first_failure(findings: &[Finding<'_, '_>]) -> Option<Reason> {
    findings.iter().find_map(|finding| {
        let fault = finding.fault.clone()?;
        let requirement = finding.requirement.name.clone();
        Some(Reason::Fails { requirement, fault })
    })
}

/// The weighted mean of the scores that there are.
fn score(findings: &[Finding<'_, '_>]) -> Option<f64> {
    let scores: Vec<(f64, f64)> = findings
        .iter()
        .filter_map(|it| Some((it.score?, it.requirement.weight)))
        .collect();
    match scores.as_slice() {
        [] => None,
        // As it is, and not as a division gives it back.
        [(score, _)] => Some(*score),
        several => {
            let weights: f64 = several.iter().map(|(_, weight)| weight).sum();
            let sum: f64 = several.iter().map(|(score, weight)| score * weight).sum();
            Some(sum / weights)
        }
    }
}

/// Admitted regardless: failures go on being counted.
fn on_probation(standing: Standing, failure: Option<&Reason>) -> Standing {
    match (standing, failure) {
        // Not judged on evidence yet, so that it may still join when probation ends without any.
        (Standing::New, Some(reason)) if reason.is_absence() => Standing::New,
        (Standing::In { failures }, Some(_)) => Standing::In {
            failures: failures.saturating_add(1),
        },
        (Standing::New | Standing::Out { .. }, Some(_)) => Standing::In { failures: 1 },
        (_, None) => Standing::In { failures: 0 },
    }
}

fn by_evidence(
    policy: &Policy,
    standing: Standing,
    failure: Option<Reason>,
) -> (State, Option<Reason>, Standing) {
    let out = Standing::Out { passes: 0 };
    match (standing, failure) {
        (Standing::New, Some(reason)) if reason.is_absence() => {
            (State::Quarantined, Some(reason), Standing::New)
        }
        (Standing::New | Standing::Out { .. }, Some(reason)) => {
            (State::Quarantined, Some(reason), out)
        }
        (Standing::New | Standing::In { .. }, None) => {
            (State::Active, None, Standing::In { failures: 0 })
        }
        (Standing::In { failures }, Some(reason)) => {
            let failures = failures.saturating_add(1);
            if failures < policy.failures_to_leave {
                (State::Active, Some(reason), Standing::In { failures })
            } else {
                (State::Quarantined, Some(reason), out)
            }
        }
        (Standing::Out { passes }, None) => {
            let (passes, needed) = (passes.saturating_add(1), policy.passes_to_return);
            if passes < needed {
                let trial = Reason::OnTrial { passes, needed };
                (State::Quarantined, Some(trial), Standing::Out { passes })
            } else {
                (State::Active, None, Standing::In { failures: 0 })
            }
        }
    }
}

#[cfg(test)]
mod tests;
