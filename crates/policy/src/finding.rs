//! One requirement, held against one node's record: which run is judged, its score, and the fault if there is
//! one. Every run that could count is looked at in an order that tells apart why none does.

use crate::reason::Fault;
use crate::record::{Evidence, Record, Ruling};
use crate::require::{Requirement, Signers, Unmapped};
use crate::scope::Evaluator;
use crate::settings::Policy;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use wire::evidence::Signer;

/// The outcome for one requirement.
#[derive(Debug, Clone)]
pub(crate) struct Finding<'p, 'r> {
    pub(crate) requirement: &'p Requirement,
    /// The run that was judged, or, where none counts, nothing.
    pub(crate) evidence: Option<Evidence<'r>>,
    /// The newest run of the suite by a signer that counts, which is void.
    pub(crate) void: Option<(Evidence<'r>, Void)>,
    pub(crate) score: Option<f64>,
    pub(crate) threshold: f64,
    /// Evaluators whose runs pass, where it takes several.
    pub(crate) vouching: u32,
    pub(crate) fault: Option<Fault>,
}

/// Why evidence is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Void {
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

impl<'p, 'r> Finding<'p, 'r> {
    /// Holds a requirement of `policy` against a record.
    pub(crate) fn of(
        policy: &Policy,
        requirement: &'p Requirement,
        record: &Record<'r>,
        now: Timestamp,
    ) -> Self {
        let threshold = match record.ruling {
            Some(Ruling::Threshold(threshold)) => threshold,
            Some(Ruling::Allow | Ruling::Deny) | None => requirement.threshold,
        };
        let mut finding = Self {
            requirement,
            evidence: None,
            void: None,
            score: None,
            threshold,
            vouching: 0,
            fault: None,
        };
        match candidates(policy, requirement, record) {
            Err(fault) => finding.fault = Some(fault),
            Ok(candidates) => finding.judge(policy, &candidates, now),
        }
        finding
    }

    fn judge(&mut self, policy: &Policy, candidates: &[Evidence<'r>], now: Timestamp) {
        let is_live = |it: &&Evidence<'_>| void(policy, it, now).is_none();
        let live: Vec<_> = candidates.iter().filter(is_live).copied().collect();
        let newest = candidates.first().copied();
        self.void = newest.and_then(|it| Some((it, void(policy, &it, now)?)));
        let Some(newest) = live.first().copied() else {
            self.fault = Some(Fault::Void);
            return;
        };
        if let Signers::Several(needed) = self.requirement.signers {
            self.judge_several(needed, &live, now);
        } else {
            self.evidence = Some(newest);
            let judged = self.test(&newest, now);
            self.score = judged.0;
            self.fault = judged.1;
        }
    }

    /// So many different evaluators have to vouch, each with its newest run.
    fn judge_several(&mut self, needed: u32, live: &[Evidence<'r>], now: Timestamp) {
        let mut by_signer: BTreeMap<[u8; 32], Evidence<'r>> = BTreeMap::new();
        for it in live {
            if let Signer::Evaluator(key) = it.run.signer {
                by_signer.entry(key.0).or_insert(*it);
            }
        }
        let judged = by_signer.values().map(|it| (*it, self.test(it, now)));
        let judged: Vec<_> = judged.collect();
        let (passing, failing): (Vec<_>, Vec<_>) =
            judged.iter().partition(|(_, (_, fault))| fault.is_none());
        let scores: Vec<f64> = passing
            .iter()
            .filter_map(|(_, (score, _))| *score)
            .collect();
        self.vouching = u32::try_from(passing.len()).unwrap_or(u32::MAX);
        if self.vouching >= needed {
            // The oldest of those that are needed: when it turns stale, the requirement may fail.
            let mut runs: Vec<_> = passing.iter().map(|(it, _)| *it).collect();
            runs.sort_by_key(|it| std::cmp::Reverse(it.run.finished_at));
            let last = usize::try_from(needed)
                .unwrap_or(usize::MAX)
                .saturating_sub(1);
            self.evidence = runs.get(last).copied();
            self.score = Some(scores.iter().sum::<f64>() / scores.len().max(1) as f64);
            return;
        }
        let have = self.vouching;
        let too_few = Fault::TooFewSigners { have, needed };
        match failing.first() {
            // With enough evaluators that have a word, the one that says no is the reason.
            Some((it, (score, Some(fault)))) if by_signer.len() >= needed as usize => {
                (self.evidence, self.score) = (Some(*it), *score);
                self.fault = Some(fault.clone());
            }
            _ => {
                self.evidence = live.first().copied();
                self.fault = Some(too_few);
            }
        }
    }

    /// The score of a run, and the first rule that it breaks.
    fn test(&self, evidence: &Evidence<'_>, now: Timestamp) -> (Option<f64>, Option<Fault>) {
        let (requirement, run) = (self.requirement, evidence.run);
        let (score, unmapped) = self.score(evidence);
        let limit = Duration::from_secs(requirement.max_age_seconds);
        if age(evidence, now).is_none_or(|age| age > limit) {
            return (score, Some(Fault::Stale));
        }
        if run.samples < requirement.min_samples {
            return (score, Some(Fault::TooFewSamples));
        }
        let Some(value) = score else {
            return (None, Some(unmapped.unwrap_or(Fault::NoScore)));
        };
        // Written so that a NaN, wherever it came from, fails.
        let reaches = |score: f64, least: f64| score >= least;
        if !reaches(value, self.threshold) {
            return (score, Some(Fault::BelowThreshold));
        }
        let raw = |metric: &str| run.metrics.get(metric).copied().unwrap_or(f64::NAN);
        let mut minima = requirement.metric_minimum.iter();
        if let Some((metric, _)) = minima.find(|(metric, least)| !reaches(raw(metric), **least)) {
            return (score, Some(Fault::MetricBelowMinimum(metric.clone())));
        }
        let fails = requirement.score.iter().find(|metric| {
            let mapped = metric.map(&run.metrics, &run.lower_is_better);
            let mapped = mapped.unwrap_or(f64::NAN);
            metric.minimum.is_some_and(|least| !reaches(mapped, least))
        });
        (
            score,
            fails.map(|it| Fault::MetricBelowMinimum(it.metric.clone())),
        )
    }

    /// The run's score by the requirement's mapping, or why there is none.
    fn score(&self, evidence: &Evidence<'_>) -> (Option<f64>, Option<Fault>) {
        let run = evidence.run;
        if self.requirement.score.is_empty() {
            return (run.overall, None);
        }
        let (mut sum, mut weights) = (0.0, 0.0);
        for metric in &self.requirement.score {
            match metric.map(&run.metrics, &run.lower_is_better) {
                Ok(mapped) => {
                    sum += mapped * metric.weight;
                    weights += metric.weight;
                }
                Err(Unmapped::Missing) => {
                    return (None, Some(Fault::MetricMissing(metric.metric.clone())));
                }
                Err(Unmapped::Contradicted) => {
                    return (None, Some(Fault::Contradicted(metric.metric.clone())));
                }
            }
        }
        (Some(sum / weights), None)
    }
}

/// The evidence that counts for a requirement, newest first, or why there is none.
fn candidates<'r>(
    policy: &Policy,
    requirement: &Requirement,
    record: &Record<'r>,
) -> Result<Vec<Evidence<'r>>, Fault> {
    let some = |list: Vec<Evidence<'r>>, fault| {
        if list.is_empty() {
            Err(fault)
        } else {
            Ok(list)
        }
    };
    let all = some(record.evidence.clone(), Fault::NoBenchmark)?;
    let of_suite = all.into_iter().filter(|it| {
        let run = it.run;
        misses(requirement, &run.harness, &run.suite, &run.suite_version).is_none()
    });
    let of_suite = some(of_suite.collect(), Fault::NoSuchSuite)?;
    let counts = |it: &Evidence<'_>| counts(policy, requirement.signers, &it.run.signer);
    let (counting, _): (Vec<_>, Vec<_>) = of_suite.into_iter().partition(counts);
    let counting = some(counting, Fault::NoSuchSigner(requirement.signers))?;
    let within = |it: &Evidence<'_>| {
        let run = it.run;
        in_scope(policy, &run.signer, &run.harness, &run.suite, record)
    };
    let (scoped, beyond): (Vec<_>, Vec<_>) = counting.into_iter().partition(within);
    match beyond.first().map(|it| (it.run.signer, it.run)) {
        Some((Signer::Evaluator(evaluator), run)) if scoped.is_empty() => Err(Fault::OutOfScope {
            evaluator,
            suite: run.suite.clone(),
        }),
        _ => Ok(scoped),
    }
}

/// The first thing about a run that a requirement does not take.
pub(crate) fn misses(
    requirement: &Requirement,
    harness: &str,
    suite: &str,
    version: &str,
) -> Option<&'static str> {
    let is = |pin: &Option<String>, has: &str| pin.as_deref().is_none_or(|pin| pin == has);
    let versions = &requirement.suite_version;
    if !is(&requirement.harness, harness) {
        Some("harness")
    } else if !is(&requirement.suite, suite) {
        Some("suite")
    } else if versions.as_ref().is_some_and(|it| !it.has(version)) {
        Some("suite version")
    } else {
        None
    }
}

/// Whether runs of this signer count, its scope aside.
pub(crate) fn counts(policy: &Policy, signers: Signers, signer: &Signer) -> bool {
    match (signer, signers) {
        (Signer::Node(_), Signers::Any | Signers::Own) => true,
        (Signer::Node(_), Signers::Evaluator | Signers::Several(_))
        | (Signer::Evaluator(_), Signers::Own) => false,
        (Signer::Evaluator(key), Signers::Any | Signers::Evaluator | Signers::Several(_)) => {
            policy.evaluators.contains(key) || policy.evaluator.iter().any(|it| it.key == *key)
        }
    }
}

/// Whether the signer may vouch for a run of this suite with this harness about this node.
pub(crate) fn in_scope(
    policy: &Policy,
    signer: &Signer,
    harness: &str,
    suite: &str,
    record: &Record<'_>,
) -> bool {
    let Signer::Evaluator(key) = signer else {
        return true;
    };
    let may = |it: &Evaluator| it.key == *key && it.may_vouch(harness, suite, record.subject());
    policy.evaluators.contains(key) || policy.evaluator.iter().any(may)
}

/// Why evidence proves nothing, if it does not: it is from the future of a clock that has been set back since.
/// Once void it stays so, even when the time has come that it names: it is as old as it is.
fn void(policy: &Policy, evidence: &Evidence<'_>, now: Timestamp) -> Option<Void> {
    let skew = policy.max_future_skew.cast_signed();
    let ahead_of = |clock: Timestamp| {
        let ahead = evidence.run.finished_at.duration_since(clock);
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
pub(crate) fn age(evidence: &Evidence<'_>, now: Timestamp) -> Option<Duration> {
    let by_wall = Duration::try_from(now.duration_since(evidence.run.finished_at)).ok();
    by_wall.max(evidence.accepted_for)
}
