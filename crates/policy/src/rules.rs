//! The rules of a policy in words, one by one, with what a node has to show for each: for whoever asks why.

use crate::finding::{Finding, age, counts, in_scope, misses};
use crate::judge::first_failure;
use crate::record::{Evidence, Record, Ruling, Standing};
use crate::require::{Direction, Metric, Requirement, Signers};
use crate::settings::Policy;
use jiff::Timestamp;
use std::time::Duration;
use wire::evidence::Signer;

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

/// The rules, one by one, with what they were held against.
pub fn rules(policy: &Policy, record: &Record<'_>, now: Timestamp) -> Vec<Rule> {
    let requirements = policy.requirements();
    let findings: Vec<_> = requirements
        .iter()
        .map(|requirement| Finding::of(policy, requirement, record, now))
        .collect();
    let word = if record.evicted {
        "evicted"
    } else {
        "not evicted"
    };
    let mut rules = vec![rule("not evicted", word, !record.evicted)];
    rules.extend(record.ruling.map(|ruling| match ruling {
        Ruling::Allow => rule("overridden by an operator", "admitted regardless", true),
        Ruling::Deny => rule("not overridden by an operator", "denied", false),
        Ruling::Threshold(least) => rule(
            "overridden by an operator",
            format!("threshold {least:.2}"),
            true,
        ),
    }));
    for finding in &findings {
        let prefix = match finding.requirement.name.as_str() {
            "" => String::new(),
            name => format!("{name}: "),
        };
        let of = of_requirement(policy, record, finding, now);
        rules.extend(of.into_iter().map(|it| Rule {
            rule: format!("{prefix}{}", it.rule),
            ..it
        }));
    }
    let failing = first_failure(&findings).is_some();
    rules.extend(patience_rule(policy, record, failing));
    rules
}

fn of_requirement(
    policy: &Policy,
    record: &Record<'_>,
    finding: &Finding<'_, '_>,
    now: Timestamp,
) -> Vec<Rule> {
    let requirement = finding.requirement;
    let mut rules = Vec::new();
    rules.extend(pin_rule(requirement, record));
    rules.push(signer_rule(policy, finding, record));
    rules.extend(future_rule(policy, finding, now));
    let evidence = finding.evidence;
    let limit = requirement.max_age_seconds;
    let text = format!("benchmark age <= {limit} s");
    let void = finding.void.filter(|_| evidence.is_none());
    rules.push(match (evidence.and_then(|it| age(&it, now)), void) {
        (Some(age), _) => {
            let holds = age <= Duration::from_secs(limit);
            rule(text, format!("{:.0} s", age.as_secs_f64()), holds)
        }
        (None, Some((_, void))) => rule(text, void.to_string(), false),
        (None, None) => rule(text, "no benchmark", false),
    });
    if requirement.min_samples > 1 {
        let samples = evidence.map(|it| it.run.samples);
        let value = samples.map_or("none".to_owned(), |samples| samples.to_string());
        let holds = samples.is_some_and(|samples| samples >= requirement.min_samples);
        rules.push(rule(
            format!("samples >= {}", requirement.min_samples),
            value,
            holds,
        ));
    }
    let what = if requirement.score.is_empty() {
        "overall"
    } else {
        "score"
    };
    rules.push(score_rule(what, finding.threshold, finding.score));
    for (metric, least) in &requirement.metric_minimum {
        let score = evidence.and_then(|it| it.run.metrics.get(metric).copied());
        rules.push(score_rule(&format!("metric {metric}"), *least, score));
    }
    rules.extend(
        requirement
            .score
            .iter()
            .map(|metric| metric_rule(metric, evidence)),
    );
    rules
}

/// The requirement's pins of harness, suite and version, where it has any, against the run that comes closest.
fn pin_rule(requirement: &Requirement, record: &Record<'_>) -> Option<Rule> {
    let version = requirement.suite_version.as_ref().map(ToString::to_string);
    let pins = [
        ("harness", &requirement.harness),
        ("suite", &requirement.suite),
        ("version", &version),
    ];
    let named = pins.iter().filter_map(|(what, pin)| {
        let pin = pin.as_deref()?;
        Some(format!("{what} {pin}"))
    });
    let wanted = named.collect::<Vec<_>>().join(", ");
    if wanted.is_empty() {
        return None;
    }
    let fits = |it: &&Evidence<'_>| {
        let run = it.run;
        misses(requirement, &run.harness, &run.suite, &run.suite_version).is_none()
    };
    let fitting = record.evidence.iter().find(fits);
    Some(match fitting.or(record.evidence.first()) {
        None => rule(wanted, "no benchmark", false),
        Some(it) => {
            let run = it.run;
            let has = format!("{}, {}, {}", run.harness, run.suite, run.suite_version);
            rule(wanted, has, fitting.is_some())
        }
    })
}

fn signer_rule(policy: &Policy, finding: &Finding<'_, '_>, record: &Record<'_>) -> Rule {
    let requirement = finding.requirement;
    let wanted = match requirement.signers {
        Signers::Any => "signed by the node or an evaluator".to_owned(),
        Signers::Own => "signed by the node".to_owned(),
        Signers::Evaluator => "signed by an evaluator".to_owned(),
        Signers::Several(needed) => {
            let text = format!("signed by {needed} evaluators, each with a run that passes");
            let have = finding.vouching;
            return rule(text, have.to_string(), have >= needed);
        }
    };
    let of_suite = record.evidence.iter().filter(|it| {
        let run = it.run;
        misses(requirement, &run.harness, &run.suite, &run.suite_version).is_none()
    });
    let shown = finding.evidence.or(finding.void.map(|(it, _)| it));
    let newest = shown.or_else(|| of_suite.max_by_key(|it| it.run.finished_at).copied());
    let Some(newest) = newest.or_else(|| record.evidence.first().copied()) else {
        return rule(wanted, "no benchmark", false);
    };
    let run = newest.run;
    let scoped = in_scope(policy, &run.signer, &run.harness, &run.suite, record);
    let counts = counts(policy, requirement.signers, &run.signer);
    let value = match run.signer {
        Signer::Node(_) => "self".to_owned(),
        Signer::Evaluator(key) if counts && !scoped => {
            format!("{key}, which may not vouch for suite {} here", run.suite)
        }
        Signer::Evaluator(key) => key.to_string(),
    };
    rule(wanted, value, counts && scoped)
}

/// The rule that evidence is of a time that has come, where there is any.
fn future_rule(policy: &Policy, finding: &Finding<'_, '_>, now: Timestamp) -> Option<Rule> {
    let void = finding.void.filter(|_| finding.evidence.is_none());
    let evidence = finding.evidence.or(void.map(|(it, _)| it))?;
    let skew = policy.max_future_skew;
    let text = format!("finished at most {skew} s ahead of the controller's clock");
    let ahead = evidence.run.finished_at.duration_since(now).as_secs();
    let value = match void {
        Some((_, void)) => void.to_string(),
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

/// A metric's part in the score.
fn metric_rule(metric: &Metric, evidence: Option<Evidence<'_>>) -> Rule {
    let [low, high] = metric.range;
    let better = match metric.direction {
        Direction::Higher => "higher",
        Direction::Lower => "lower",
    };
    let least = metric
        .minimum
        .map_or(String::new(), |least| format!(", >= {least:.2}"));
    let text = format!(
        "metric {}, {better} is better in {low} to {high}{least}",
        metric.metric
    );
    let Some(run) = evidence.map(|it| it.run) else {
        return rule(text, "none", false);
    };
    let Some(raw) = run.metrics.get(&metric.metric) else {
        return rule(text, "not in the run", false);
    };
    match metric.map(&run.metrics, &run.lower_is_better) {
        Ok(mapped) => {
            let holds = metric.minimum.is_none_or(|least| mapped >= least);
            let shown = (mapped * 1_000.0).floor() / 1_000.0;
            rule(text, format!("{raw}, which is {shown:.3}"), holds)
        }
        Err(_) => rule(
            text,
            format!("{raw}, of which the harness says that lower is better"),
            false,
        ),
    }
}

/// Probation or hysteresis, where either plays a part.
fn patience_rule(policy: &Policy, record: &Record<'_>, failing: bool) -> Option<Rule> {
    if record.probation_left > 0 {
        let left = format!("{} epochs left", record.probation_left);
        return Some(rule("on probation: admitted regardless", left, true));
    }
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
