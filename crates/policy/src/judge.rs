//! One node's record, held against the rules.
//!
//! [`judge`] answers what a scheduled decision taken at this moment would be. The caller keeps
//! [`Decision::standing`] only when it takes that decision; a look in between changes nothing.

use crate::settings::{Policy, RequiredSigner};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use wire::Digest;
use wire::evidence::Signer;

/// The known facts about a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// An operator has excluded it.
    pub evicted: bool,
    /// Epochs for which it is still admitted regardless, the one decided on included.
    pub probation_left: u32,
    /// Its newest accepted evidence.
    pub evidence: Option<Evidence>,
    /// Its standing after earlier scheduled decisions.
    pub standing: Standing,
}

/// Accepted evidence, as far as a decision needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The run's score of the whole, if the harness gave one.
    pub overall: Option<f64>,
    /// Score per metric.
    pub metrics: BTreeMap<String, f64>,
    /// The program that ran the suite.
    pub harness: String,
    /// The suite.
    pub suite: String,
    /// The suite's version.
    pub suite_version: String,
    /// When the run finished, by the clock of whoever ran it.
    pub finished_at: Timestamp,
    /// How long it has been accepted, by a clock that nobody sets: a wall clock that is set back must
    /// not make old evidence young. `None`: nobody knows, because the wall clock was set back while no
    /// other one counted.
    pub accepted_for: Option<Duration>,
    /// The earliest time that the controller's wall clock was set back to since it was accepted.
    pub set_back_to: Option<Timestamp>,
    /// The party that vouches.
    pub signer: Signer,
    /// SHA-256 of the statement.
    pub digest: Digest,
}

/// A node's standing after earlier scheduled decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Never judged on evidence: it may join as soon as it passes.
    New,
    /// A member, and how many scheduled decisions in a row it has failed.
    In {
        /// Failures in a row.
        failures: u32,
    },
    /// Quarantined, and how many scheduled decisions in a row it has passed.
    Out {
        /// Passes in a row.
        passes: u32,
    },
}

/// A node's state after a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Admitted regardless, because it is newly enrolled.
    Probation,
    /// Admitted on the strength of its evidence.
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

/// A rule of the policy, asked about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The rule, in words.
    pub rule: String,
    /// The node's value, in words.
    pub value: String,
    /// Whether it holds.
    pub holds: bool,
}

/// A decision with what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The decision.
    pub membership: Membership,
    /// The node's state if the decision is taken.
    pub state: State,
    /// Why it is denied, or, where it is not, what would deny it without probation or patience.
    pub reason: Option<Reason>,
    /// The score that was judged.
    pub score: Option<f64>,
    /// The evidence's age: since the run finished or since it was accepted, whichever is longer. `None`: there
    /// is no evidence, or it is void.
    pub age: Option<Duration>,
    /// Digest of the evidence.
    pub evidence: Option<Digest>,
    /// The node's standing if this is taken as a scheduled decision.
    pub standing: Standing,
}

/// Why a node is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Excluded by an operator.
    Evicted,
    /// No accepted evidence of a signer that counts.
    NoBenchmark,
    /// The newest evidence is of a time that has not come: a clock was ahead, and has been set back since.
    BenchmarkVoid,
    /// The newest evidence is too old.
    BenchmarkStale,
    /// The newest evidence has no overall score.
    NoScore,
    /// The overall score is too low.
    ScoreBelowThreshold,
    /// A metric that the policy names is too low, or is not there.
    MetricBelowMinimum(String),
    /// It passes, but not yet often enough in a row to return.
    OnTrial {
        /// Passes in a row, with the present one.
        passes: u32,
        /// Passes that it takes.
        needed: u32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicted => f.write_str("evicted"),
            Self::NoBenchmark => f.write_str("no benchmark"),
            Self::BenchmarkVoid => f.write_str("benchmark void: of a time that has not come"),
            Self::BenchmarkStale => f.write_str("benchmark stale"),
            Self::NoScore => f.write_str("no overall score"),
            Self::ScoreBelowThreshold => f.write_str("score below threshold"),
            Self::MetricBelowMinimum(name) => write!(f, "metric {name} below minimum"),
            Self::OnTrial { passes, needed } => write!(f, "on trial: {passes} of {needed} passes"),
        }
    }
}

impl Decision {
    /// Whether the node is admitted.
    pub fn allowed(&self) -> bool {
        self.membership == Membership::Allowed
    }
}

/// A scheduled decision about this node, as it would be at `now`.
pub fn judge(policy: &Policy, record: &Record, now: Timestamp) -> Decision {
    let evidence = counting(policy, record, now);
    let failure = failure(policy, record, now);
    let (state, reason, standing) = if record.evicted {
        let out = Standing::Out { passes: 0 };
        (State::Evicted, Some(Reason::Evicted), out)
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
        score: evidence.and_then(|e| e.overall),
        age: evidence.and_then(|e| age(e, now)),
        evidence: evidence.map(|e| e.digest),
        standing,
    }
}

/// In how long a node's evidence turns stale, if it has any that counts and is not stale.
pub fn stale_in(policy: &Policy, record: &Record, now: Timestamp) -> Option<Duration> {
    let limit = Duration::from_secs(policy.max_benchmark_age);
    limit.checked_sub(age(counting(policy, record, now)?, now)?)
}

/// Whether a node's newest evidence would count, if it were not of a time that has not come.
pub fn is_void(policy: &Policy, record: &Record, now: Timestamp) -> bool {
    of_signer_and_suite(policy, record).is_some_and(|e| void(policy, e, now).is_some())
}

/// The rules, one by one, with what they were held against.
pub fn rules(policy: &Policy, record: &Record, now: Timestamp) -> Vec<Rule> {
    let evidence = counting(policy, record, now);
    let mut rules = vec![
        rule("not evicted", word(!record.evicted), !record.evicted),
        signer_rule(policy, record),
    ];
    rules.extend(pin_rule(policy, record));
    let void = of_signer_and_suite(policy, record).and_then(|e| void(policy, e, now));
    rules.extend(future_rule(policy, record, void, now));
    let limit = policy.max_benchmark_age;
    let text = format!("benchmark age <= {limit} s");
    let age = evidence.and_then(|e| age(e, now));
    rules.push(match (age, void) {
        (Some(age), _) => {
            let holds = age <= Duration::from_secs(limit);
            rule(text, format!("{:.0} s", age.as_secs_f64()), holds)
        }
        (None, Some(void)) => rule(text, void.to_string(), false),
        (None, None) => rule(text, "no benchmark", false),
    });
    rules.push(score_rule(
        "overall",
        policy.threshold,
        evidence.and_then(|e| e.overall),
    ));
    for (metric, least) in &policy.metric_minimum {
        let score = evidence.and_then(|e| e.metrics.get(metric).copied());
        rules.push(score_rule(&format!("metric {metric}"), *least, score));
    }
    rules.extend(patience_rule(policy, record, now));
    rules
}

/// The record's evidence, if its signer and its suite count under the policy of today, and its time has come.
fn counting<'a>(policy: &Policy, record: &'a Record, now: Timestamp) -> Option<&'a Evidence> {
    let evidence = of_signer_and_suite(policy, record)?;
    void(policy, evidence, now).is_none().then_some(evidence)
}

fn of_signer_and_suite<'a>(policy: &Policy, record: &'a Record) -> Option<&'a Evidence> {
    let evidence = record.evidence.as_ref()?;
    (is_pinned_suite(policy, evidence) && policy.counts(&evidence.signer)).then_some(evidence)
}

fn is_pinned_suite(policy: &Policy, evidence: &Evidence) -> bool {
    is_pinned(&policy.harness, &evidence.harness)
        && is_pinned(&policy.suite, &evidence.suite)
        && is_pinned(&policy.suite_version, &evidence.suite_version)
}

/// Whether a field of evidence has the one value that the policy allows, if it names one.
pub(crate) fn is_pinned(pin: &Option<String>, has: &str) -> bool {
    pin.as_deref().is_none_or(|pin| pin == has)
}

/// Why evidence is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Void {
    /// Its run ends so far ahead of the controller's clock.
    Ahead(SignedDuration),
    /// It ended so far ahead when that clock was set back.
    WasAhead(SignedDuration),
    /// The clock was set back, and nothing says how old it is.
    Ageless,
}

impl fmt::Display for Void {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead(by) => write!(f, "{} s ahead", by.as_secs()),
            Self::WasAhead(by) => {
                let by = by.as_secs();
                write!(f, "{by} s ahead when that clock was set back")
            }
            Self::Ageless => f.write_str("that clock was set back while the controller was away"),
        }?;
        f.write_str(": void, and the next run replaces it")
    }
}

/// Why evidence proves nothing, if it does not: it is from the future of a clock that has been set back since.
/// Once void it stays so, even when the time has come that it names: it is as old as it is.
fn void(policy: &Policy, evidence: &Evidence, now: Timestamp) -> Option<Void> {
    let skew = policy.max_future_skew.cast_signed();
    let ahead_of = |clock: Timestamp| {
        let ahead = evidence.finished_at.duration_since(clock);
        (ahead > SignedDuration::from_secs(skew)).then_some(ahead)
    };
    let by_now = ahead_of(now).map(Void::Ahead);
    let by_then = evidence.set_back_to.and_then(ahead_of).map(Void::WasAhead);
    let ageless = evidence.accepted_for.is_none().then_some(Void::Ageless);
    by_now.or(by_then).or(ageless)
}

/// Evidence grows older by both clocks. The wall clock alone would stand still, or run backwards, when it
/// is set back, and a node that stopped proving itself would stay a member for as long. Where it has not come
/// to the run's end yet, the time since the evidence was accepted is the age.
fn age(evidence: &Evidence, now: Timestamp) -> Option<Duration> {
    let by_wall = Duration::try_from(now.duration_since(evidence.finished_at)).ok();
    by_wall.max(evidence.accepted_for)
}

/// The first rule that the evidence breaks.
fn failure(policy: &Policy, record: &Record, now: Timestamp) -> Option<Reason> {
    let Some(evidence) = counting(policy, record, now) else {
        return Some(if is_void(policy, record, now) {
            Reason::BenchmarkVoid
        } else {
            Reason::NoBenchmark
        });
    };
    let limit = Duration::from_secs(policy.max_benchmark_age);
    if age(evidence, now).is_none_or(|age| age > limit) {
        return Some(Reason::BenchmarkStale);
    }
    // Written so that a NaN, wherever it came from, fails.
    let reaches = |score: f64, least: f64| score >= least;
    match evidence.overall {
        None => return Some(Reason::NoScore),
        Some(overall) if !reaches(overall, policy.threshold) => {
            return Some(Reason::ScoreBelowThreshold);
        }
        Some(_) => {}
    }
    let score = |metric: &str| evidence.metrics.get(metric).copied().unwrap_or(f64::NAN);
    let mut minima = policy.metric_minimum.iter();
    minima
        .find(|(metric, least)| !reaches(score(metric), **least))
        .map(|(metric, _)| Reason::MetricBelowMinimum(metric.clone()))
}

fn on_probation(standing: Standing, failure: Option<&Reason>) -> Standing {
    match (standing, failure) {
        // Not judged on evidence yet, so that it may still join when probation ends without any.
        (Standing::New, Some(Reason::NoBenchmark | Reason::BenchmarkVoid)) => Standing::New,
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
        (Standing::New, Some(reason @ (Reason::NoBenchmark | Reason::BenchmarkVoid))) => {
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

fn signer_rule(policy: &Policy, record: &Record) -> Rule {
    let wanted = match policy.required_signer {
        RequiredSigner::Any => "signed by the node or an evaluator",
        RequiredSigner::Own => "signed by the node",
        RequiredSigner::Evaluator => "signed by an evaluator",
    };
    let evidence = record.evidence.as_ref();
    let value = match evidence.map(|e| e.signer) {
        None => "no benchmark".to_owned(),
        Some(Signer::Node(_)) => "self".to_owned(),
        Some(Signer::Evaluator(key)) => key.to_string(),
    };
    let holds = evidence.is_some_and(|e| policy.counts(&e.signer));
    rule(wanted, value, holds)
}

/// The policy's pins of harness, suite and version, where it has any.
fn pin_rule(policy: &Policy, record: &Record) -> Option<Rule> {
    let pins = [
        ("harness", &policy.harness),
        ("suite", &policy.suite),
        ("version", &policy.suite_version),
    ];
    let named = pins.iter().filter_map(|(what, pin)| {
        let pin = pin.as_deref()?;
        Some(format!("{what} {pin}"))
    });
    let wanted = named.collect::<Vec<_>>().join(", ");
    if wanted.is_empty() {
        return None;
    }
    Some(match &record.evidence {
        None => rule(wanted, "no benchmark", false),
        Some(e) => {
            let has = format!("{}, {}, {}", e.harness, e.suite, e.suite_version);
            rule(wanted, has, is_pinned_suite(policy, e))
        }
    })
}

/// The rule that evidence is of a time that has come, where there is any.
fn future_rule(
    policy: &Policy,
    record: &Record,
    void: Option<Void>,
    now: Timestamp,
) -> Option<Rule> {
    let evidence = of_signer_and_suite(policy, record)?;
    let skew = policy.max_future_skew;
    let text = format!("finished at most {skew} s ahead of the controller's clock");
    let ahead = evidence.finished_at.duration_since(now).as_secs();
    let value = match void {
        Some(void) => void.to_string(),
        None if ahead > 0 => format!("{ahead} s ahead"),
        None => "not ahead".to_owned(),
    };
    Some(rule(text, value, void.is_none()))
}

fn score_rule(what: &str, least: f64, score: Option<f64>) -> Rule {
    let text = format!("{what} >= {least:.2}");
    match score {
        // Cut, not rounded: 0.6999 must not read as the 0.700 that it misses.
        Some(score) => {
            let shown = (score * 1_000.0).floor() / 1_000.0;
            rule(text, format!("{shown:.3}"), score >= least)
        }
        None => rule(text, "none", false),
    }
}

/// Probation or hysteresis, where either plays a part.
fn patience_rule(policy: &Policy, record: &Record, now: Timestamp) -> Option<Rule> {
    if record.probation_left > 0 {
        let left = format!("{} epochs left", record.probation_left);
        return Some(rule("on probation: admitted regardless", left, true));
    }
    let failing = failure(policy, record, now).is_some();
    match record.standing {
        Standing::New => None,
        Standing::In { failures } => {
            let most = policy.failures_to_leave;
            let seen = failures.saturating_add(u32::from(failing));
            let text = format!("fewer than {most} failures in a row");
            (most > 1).then(|| rule(text, seen.to_string(), seen < most))
        }
        Standing::Out { passes } => {
            let needed = policy.passes_to_return;
            let seen = if failing { 0 } else { passes.saturating_add(1) };
            let text = format!("{needed} passes in a row");
            (needed > 1).then(|| rule(text, seen.to_string(), seen >= needed))
        }
    }
}

fn rule(rule: impl Into<String>, value: impl Into<String>, holds: bool) -> Rule {
    Rule {
        rule: rule.into(),
        value: value.into(),
        holds,
    }
}

fn word(holds: bool) -> &'static str {
    if holds { "not evicted" } else { "evicted" }
}

#[cfg(test)]
mod tests;
