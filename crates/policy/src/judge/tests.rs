//! Decisions, by example and by property.
//!
//! The file is long because each rule has its examples.

use super::*;
use crate::reason::Fault;
use crate::record::{Evidence, Run};
use crate::require::Signers;
use crate::rules::rules;
use crate::settings::RequiredSigner;
use keys::{EvaluatorId, NodeId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use wire::NodeName;
use wire::evidence::Signer;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Accepted evidence that can be changed before it is judged.
#[derive(Debug, Clone)]
struct Given {
    run: Run,
    accepted_for: Option<Duration>,
    set_back_to: Option<Timestamp>,
}

/// A record that owns what it is of.
#[derive(Debug, Clone)]
struct Facts {
    evicted: bool,
    ruling: Option<Ruling>,
    probation_left: u32,
    evidence: Vec<Given>,
    standing: Standing,
}

static NAME: LazyLock<NodeName> = LazyLock::new(|| "node-a".parse().unwrap());
static GROUPS: LazyLock<BTreeSet<String>> = LazyLock::new(|| ["gpu".to_owned()].into());

impl Facts {
    fn record(&self) -> Record<'_> {
        let evidence = self.evidence.iter().map(|it| Evidence {
            run: &it.run,
            accepted_for: it.accepted_for,
            set_back_to: it.set_back_to,
        });
        Record {
            name: &NAME,
            groups: &GROUPS,
            evicted: self.evicted,
            ruling: self.ruling,
            probation_left: self.probation_left,
            evidence: evidence.collect(),
            standing: self.standing,
        }
    }
}

fn judge(policy: &Policy, facts: &Facts, now: Timestamp) -> Decision {
    super::judge(policy, &facts.record(), now)
}

fn run(overall: f64, finished: i64) -> Run {
    Run {
        overall: Some(overall),
        metrics: BTreeMap::from([("refusal".into(), overall)]),
        lower_is_better: BTreeSet::new(),
        samples: 10,
        harness: "mock".into(),
        suite: "safety".into(),
        suite_version: "1".into(),
        finished_at: at(finished),
        signer: Signer::Node(NodeId([1; 32])),
        digest: Digest([9; 32]),
    }
}

fn evidence(overall: f64, finished: i64) -> Given {
    Given {
        run: run(overall, finished),
        accepted_for: Some(Duration::ZERO),
        set_back_to: None,
    }
}

fn record(evidence: Option<Given>, standing: Standing) -> Facts {
    Facts {
        evicted: false,
        ruling: None,
        probation_left: 0,
        evidence: evidence.into_iter().collect(),
        standing,
    }
}

const MEMBER: Standing = Standing::In { failures: 0 };
const OUT: Standing = Standing::Out { passes: 0 };

fn reason(policy: &Policy, record: &Facts, now: i64) -> String {
    let decision = judge(policy, record, at(now));
    assert!(!decision.allowed());
    decision.reason.unwrap().to_string()
}

#[test]
fn each_failure_has_its_words() {
    let policy = Policy {
        metric_minimum: BTreeMap::from([("refusal".into(), 0.8), ("safety".into(), 0.0)]),
        ..Policy::default()
    };
    let of = |score, now| reason(&policy, &record(Some(evidence(score, 1_000)), MEMBER), now);
    assert_eq!(
        reason(&policy, &record(None, MEMBER), 1_000),
        "no benchmark"
    );
    assert_eq!(of(0.9, 1_121), "benchmark stale");
    assert_eq!(of(0.41, 1_010), "score below threshold");
    assert_eq!(of(0.75, 1_010), "metric refusal below minimum");
    assert_eq!(of(0.9, 1_010), "metric safety below minimum");
    let mut evicted = record(Some(evidence(0.9, 1_000)), MEMBER);
    evicted.evicted = true;
    assert_eq!(reason(&policy, &evicted, 1_000), "evicted");
}

#[test]
fn the_threshold_and_the_age_limit_themselves_still_pass() {
    let decision = judge(
        &Policy::default(),
        &record(Some(evidence(0.70, 1_000)), MEMBER),
        at(1_120),
    );
    assert!(decision.allowed());
    assert_eq!(decision.state, State::Active);
    assert_eq!(decision.age, Some(Duration::from_secs(120)));
}

#[test]
fn a_node_returns_after_enough_passes_in_a_row() {
    let policy = Policy {
        passes_to_return: 2,
        ..Policy::default()
    };
    let good = |standing| record(Some(evidence(0.9, 1_000)), standing);
    let first = judge(&policy, &good(OUT), at(1_001));
    assert_eq!(first.reason.unwrap().to_string(), "on trial: 1 of 2 passes");
    let second = judge(&policy, &good(first.standing), at(1_002));
    assert!(second.allowed());
    assert_eq!(second.standing, MEMBER);
    let relapse = judge(
        &policy,
        &record(Some(evidence(0.1, 1_000)), first.standing),
        at(1_002),
    );
    assert_eq!(relapse.standing, OUT);
}

#[test]
fn a_member_leaves_after_enough_failures_in_a_row() {
    let policy = Policy {
        failures_to_leave: 2,
        ..Policy::default()
    };
    let bad = |standing| record(Some(evidence(0.1, 1_000)), standing);
    let first = judge(&policy, &bad(MEMBER), at(1_001));
    assert!(first.allowed());
    assert_eq!(first.reason, Some(Reason::of(Fault::BelowThreshold)));
    let second = judge(&policy, &bad(first.standing), at(1_002));
    assert!(!second.allowed());
    assert_eq!(second.standing, OUT);
}

#[test]
fn probation_admits_regardless_and_says_what_would_deny() {
    let mut node = record(Some(evidence(0.1, 1_000)), Standing::New);
    node.probation_left = 1;
    let decision = judge(&Policy::default(), &node, at(1_001));
    assert_eq!(decision.state, State::Probation);
    assert_eq!(decision.reason, Some(Reason::of(Fault::BelowThreshold)));
    node.probation_left = 0;
    node.standing = decision.standing;
    assert!(!judge(&Policy::default(), &node, at(1_001)).allowed());
}

#[test]
fn a_new_node_without_evidence_stays_new_and_joins_on_its_first_pass() {
    let policy = Policy {
        passes_to_return: 3,
        ..Policy::default()
    };
    let waiting = judge(&policy, &record(None, Standing::New), at(1_000));
    assert_eq!(waiting.standing, Standing::New);
    let node = record(Some(evidence(0.9, 1_000)), waiting.standing);
    assert!(judge(&policy, &node, at(1_001)).allowed());
}

#[test]
fn evidence_of_a_signer_that_no_longer_counts_is_none() {
    let key = EvaluatorId([5; 32]);
    let mut node = record(Some(evidence(0.9, 1_000)), MEMBER);
    let mut policy = Policy {
        required_signer: RequiredSigner::Evaluator,
        evaluators: vec![key],
        ..Policy::default()
    };
    let no_signer = "no benchmark by a signer that counts (evaluator)";
    assert_eq!(reason(&policy, &node, 1_000), no_signer);
    node.evidence[0].run.signer = Signer::Evaluator(key);
    assert!(judge(&policy, &node, at(1_000)).allowed());
    policy.evaluators = vec![EvaluatorId([6; 32])];
    assert_eq!(reason(&policy, &node, 1_000), no_signer);
}

#[test]
fn a_clock_that_is_set_back_makes_nothing_young() {
    let policy = Policy::default();
    let accepted = |seconds| {
        let mut evidence = evidence(0.9, 1_000);
        evidence.accepted_for = Some(Duration::from_secs(seconds));
        record(Some(evidence), MEMBER)
    };
    // Set back by an hour: by the wall clock the run has not even finished.
    let reason_at = |seconds, now| judge(&policy, &accepted(seconds), at(now)).reason;
    assert_eq!(reason_at(120, 980), None);
    assert_eq!(reason_at(121, 980), Some(Reason::of(Fault::Stale)));
    // Beyond the skew, the evidence comes from a clock that was wrong.
    assert_eq!(reason_at(0, 970), None);
    assert_eq!(reason_at(0, 969), Some(Reason::of(Fault::Void)));
    let explained = rules(&policy, &accepted(0).record(), at(900));
    let future = explained.iter().find(|r| r.rule.contains("ahead")).unwrap();
    assert!(
        !future.holds && future.value.contains("100 s ahead: void"),
        "{future:?}"
    );
    assert_eq!(
        stale_in(&policy, &accepted(20).record(), at(1_010)),
        Some(Duration::from_secs(100))
    );
    assert_eq!(stale_in(&policy, &accepted(121).record(), at(1_010)), None);
}

#[test]
fn evidence_from_the_future_of_a_corrected_clock_counts_for_no_rule_and_stays_void() {
    let policy = Policy {
        metric_minimum: BTreeMap::from([("refusal".into(), 0.5)]),
        passes_to_return: 2,
        ..Policy::default()
    };
    let tomorrow = |set_back_to, accepted_for| Given {
        set_back_to,
        accepted_for,
        ..evidence(0.9, 87_400)
    };
    let fresh = Some(Duration::ZERO);
    let void = [
        (tomorrow(None, fresh), 1_000, "86400 s ahead: void"),
        // The day after, when its time has come, and it was accepted a moment ago by a clock that began to
        // count with this start.
        (
            tomorrow(Some(at(1_020)), fresh),
            87_400,
            "86380 s ahead when that clock was set back",
        ),
        (
            tomorrow(None, None),
            87_400,
            "set back while the controller was away",
        ),
    ];
    for (evidence, now, words) in void {
        let of = |standing| record(Some(evidence.clone()), standing);
        let decision = judge(&policy, &of(MEMBER), at(now));
        assert_eq!(decision.reason, Some(Reason::of(Fault::Void)));
        assert_eq!((decision.score, decision.age), (None, None));
        assert!(!decision.allowed() && is_void(&policy, &of(MEMBER).record(), at(now)));
        let trial = Standing::Out { passes: 1 };
        assert_eq!(judge(&policy, &of(trial), at(now)).standing, OUT);
        let new = judge(&policy, &of(Standing::New), at(now));
        assert_eq!(new.standing, Standing::New, "never judged on evidence");
        assert_eq!(stale_in(&policy, &of(MEMBER).record(), at(now)), None);
        let explained = rules(&policy, &of(MEMBER).record(), at(now));
        let broken: Vec<_> = explained.iter().filter(|rule| !rule.holds).collect();
        assert_eq!(
            broken.len(),
            4,
            "its time, age, score and metric: {broken:?}"
        );
        assert!(broken[0].value.contains(words), "{broken:?}");
    }
    // A step within the skew makes nothing void, and nothing young.
    let near = Given {
        set_back_to: Some(at(980)),
        ..evidence(0.9, 1_000)
    };
    let node = record(Some(near), MEMBER);
    assert!(judge(&policy, &node, at(985)).allowed());
}

#[test]
fn evidence_of_another_suite_than_the_policy_pins_today_is_none() {
    let node = record(Some(evidence(0.9, 1_000)), MEMBER);
    let pinned = |suite: &str| Policy {
        suite: Some(suite.into()),
        ..Policy::default()
    };
    assert!(judge(&pinned("safety"), &node, at(1_000)).allowed());
    let no_suite = "no benchmark of the suite that counts";
    assert_eq!(reason(&pinned("other"), &node, 1_000), no_suite);
    let explained = rules(&pinned("other"), &node.record(), at(1_000));
    assert!(
        explained
            .iter()
            .any(|r| r.rule == "suite other" && !r.holds)
    );
}

#[test]
fn explained_rules_hold_exactly_where_the_node_passes() {
    let policy = Policy::default();
    let bad = rules(
        &policy,
        &record(Some(evidence(0.41, 1_000)), MEMBER).record(),
        at(1_005),
    );
    let broken: Vec<_> = bad.iter().filter(|r| !r.holds).collect();
    assert_eq!(broken.len(), 1);
    assert_eq!(broken[0].rule, "overall >= 0.70");
    assert_eq!(broken[0].value, "0.410");
}

fn any_standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::New),
        (0u32..5).prop_map(|failures| Standing::In { failures }),
        (0u32..5).prop_map(|passes| Standing::Out { passes }),
    ]
}

proptest! {
    #[test]
    fn a_denial_has_a_reason_and_an_admission_a_cause(
        score in 0.0f64..=1.0, finished in 0i64..400, now in 0i64..400, present: bool,
        standing in any_standing(), evicted: bool, probation_left in 0u32..3,
        passes_to_return in 1u32..4, failures_to_leave in 1u32..4,
    ) {
        let policy = Policy { passes_to_return, failures_to_leave, ..Policy::default() };
        let node = Facts {
            evicted, ruling: None, probation_left, standing,
            evidence: present.then(|| evidence(score, finished)).into_iter().collect(),
        };
        let decision = judge(&policy, &node, at(now));
        prop_assert!(decision.allowed() || decision.reason.is_some());
        prop_assert!(!(evicted && decision.allowed()));
        if decision.allowed() {
            let passes = present && score >= 0.7 && now - finished <= 120;
            let patience = matches!(standing, Standing::In { failures } if failures + 1 < failures_to_leave);
            prop_assert!(passes || patience || probation_left > 0);
        }
        if !evicted && probation_left == 0 && policy.passes_to_return == 1 {
            let all_hold = rules(&policy, &node.record(), at(now)).iter().all(|r| r.holds);
            prop_assert!(!all_hold || decision.allowed());
        }
    }

    #[test]
    fn a_better_score_never_harms(low in 0.0f64..=1.0, more in 0.0f64..=1.0, standing in any_standing()) {
        let policy = Policy { failures_to_leave: 2, passes_to_return: 2, ..Policy::default() };
        let allowed = |score| judge(&policy, &record(Some(evidence(score, 0)), standing), at(1)).allowed();
        prop_assert!(!allowed(low) || allowed(low.max(more)));
    }
}

#[test]
fn evidence_without_an_overall_score_reaches_no_threshold() {
    let policy = Policy {
        threshold: 0.0,
        ..Policy::default()
    };
    let mut evidence = evidence(0.9, 1_000);
    evidence.run.overall = None;
    let record = record(Some(evidence), Standing::New);
    let decision = judge(&policy, &record, at(1_000));
    assert_eq!(decision.reason, Some(Reason::of(Fault::NoScore)));
    assert!(!decision.allowed());
}

fn of(suite: &str, score: f64, finished: i64, signer: Signer) -> Given {
    let mut given = evidence(score, finished);
    given.run.suite = suite.into();
    given.run.signer = signer;
    given.run.digest = Digest([suite.len() as u8; 32]);
    given
}

const SELF: Signer = Signer::Node(NodeId([1; 32]));

fn evaluator(byte: u8) -> Signer {
    Signer::Evaluator(EvaluatorId([byte; 32]))
}

/// A policy with the evaluators 1 to 3, of which the third is held to `agent-*` for the group `cpu`.
fn policy(requirements: &str) -> Policy {
    let key = |byte: u8| EvaluatorId([byte; 32]);
    Policy::from_toml(&format!(
        "evaluators = [\"{}\", \"{}\"]\n{requirements}\n[[evaluator]]\nkey = \"{}\"\nsuites = [\"agent-*\"]\n\
         groups = [\"cpu\"]",
        key(1),
        key(2),
        key(3)
    ))
    .unwrap()
}

fn with(evidence: &[Given]) -> Facts {
    let mut facts = record(None, MEMBER);
    facts.evidence = evidence.to_vec();
    facts
        .evidence
        .sort_by_key(|it| std::cmp::Reverse(it.run.finished_at));
    facts
}

#[test]
fn every_requirement_has_to_hold_and_the_score_is_their_weighted_mean() {
    let policy = policy(
        "[[require]]\nname = \"a\"\nsuite = \"a\"\nweight = 3\n[[require]]\nname = \"bb\"\nsuite = \"bb\"\n\
         threshold = 0.5\nmax_age_seconds = 10\nmin_samples = 10",
    );
    let judge = |evidence: &[Given], now| judge(&policy, &with(evidence), at(now));
    let both = [of("a", 0.9, 1_000, SELF), of("bb", 0.5, 1_000, SELF)];
    let decision = judge(&both, 1_005);
    assert!(decision.allowed());
    assert_eq!(decision.score, Some(0.8));
    let late = judge(&both, 1_011);
    assert_eq!(late.reason.unwrap().to_string(), "bb: benchmark stale");
    assert_eq!(late.evidence, Some(Digest([2; 32])), "the one that fails");
    let one = judge(&both[..1], 1_005).reason.unwrap().to_string();
    assert_eq!(one, "bb: no benchmark of the suite that counts");
    let mut few = both.clone();
    few[1].run.samples = 9;
    let few = judge(&few, 1_005).reason.unwrap().to_string();
    assert_eq!(few, "bb: too few samples");
    assert_eq!(
        stale_in(&policy, &with(&both).record(), at(1_004)),
        Some(Duration::from_secs(6))
    );
}

#[test]
fn a_mapping_judges_metrics_of_any_size_and_not_against_its_harness() {
    let policy = policy(
        "[[require]]\nname = \"lm\"\nthreshold = 0.6\n[[require.score]]\nmetric = \"acc,none\"\nweight = 3\n\
         minimum = 0.5\n[[require.score]]\nmetric = \"perplexity\"\ndirection = \"lower\"\nrange = [10, 30]",
    );
    let given = |acc: f64, perplexity: f64| {
        let mut given = evidence(0.0, 1_000);
        given.run.overall = None;
        given.run.metrics =
            BTreeMap::from([("acc,none".into(), acc), ("perplexity".into(), perplexity)]);
        given
    };
    let judge = |given: &Given| judge(&policy, &with(std::slice::from_ref(given)), at(1_000));
    let good = judge(&given(0.7, 20.0));
    assert!(good.allowed() && (good.score.unwrap() - 0.65).abs() < 1e-9);
    let words = |given: &Given| judge(given).reason.unwrap().to_string();
    assert_eq!(words(&given(0.7, 40.0)), "lm: score below threshold");
    let mut low = policy.clone();
    low.require[0].threshold = 0.1;
    let below = super::judge(&low, &with(&[given(0.4, 10.0)]).record(), at(1_000));
    assert_eq!(
        below.reason.unwrap().to_string(),
        "lm: metric acc,none below minimum"
    );
    let mut contradicted = given(0.7, 20.0);
    contradicted.run.lower_is_better = ["acc,none".to_owned()].into();
    let words_of = words(&contradicted);
    assert!(
        words_of.contains("metric acc,none: lower is better, says the harness"),
        "{words_of}"
    );
    let mut missing = given(0.7, 20.0);
    missing.run.metrics.remove("perplexity");
    assert_eq!(words(&missing), "lm: metric perplexity missing");
}

#[test]
fn several_evaluators_have_to_vouch_each_with_a_run_that_passes() {
    let policy = policy("[[require]]\nname = \"x\"\nsigners = \"2 of evaluators\"");
    let judge = |evidence: &[Given]| judge(&policy, &with(evidence), at(1_100));
    let words = |evidence: &[Given]| judge(evidence).reason.unwrap().to_string();
    let (one, two) = (
        of("s", 0.9, 1_000, evaluator(1)),
        of("s", 0.8, 1_050, evaluator(2)),
    );
    let pair = [one.clone(), two.clone()];
    assert!(judge(&pair).allowed());
    assert_eq!(
        stale_in(&policy, &with(&pair).record(), at(1_100)),
        Some(Duration::from_secs(20)),
        "by the oldest that is needed"
    );
    let twice = [one.clone(), of("t", 0.9, 1_060, evaluator(1))];
    assert_eq!(
        words(&twice),
        "x: 1 of 2 evaluators vouch for a run that passes"
    );
    let own = [one.clone(), of("s", 0.9, 1_060, SELF)];
    assert_eq!(
        words(&own),
        "x: 1 of 2 evaluators vouch for a run that passes"
    );
    let bad = [one, of("s", 0.1, 1_060, evaluator(2))];
    assert_eq!(words(&bad), "x: score below threshold");
    assert_eq!(
        words(&[of("s", 0.9, 1_060, SELF)]),
        "x: no benchmark by a signer that counts (2 of evaluators)"
    );
}

#[test]
fn reasons_tell_apart_why_there_is_nothing_to_judge_and_what_would_have_to_change() {
    let policy = policy("[[require]]\nname = \"x\"\nsuite = \"agent-x\"\nsigners = \"evaluator\"");
    let fault = |evidence: &[Given]| match judge(&policy, &with(evidence), at(1_000)).reason {
        Some(reason) => (reason.to_string(), reason.remedy()),
        None => Default::default(),
    };
    let cases = [
        (vec![], "x: no benchmark", "a run is handed in"),
        (
            vec![of("other", 0.9, 1_000, evaluator(1))],
            "x: no benchmark of the suite that counts",
            "a run of the suite",
        ),
        (
            vec![of("agent-x", 0.9, 1_000, SELF)],
            "x: no benchmark by a signer that counts (evaluator)",
            "an evaluator of the policy signs",
        ),
        (
            vec![of("agent-x", 0.9, 1_000, evaluator(3))],
            "x: evaluator 03030303 may not vouch for suite agent-x here",
            "the scope of this one",
        ),
    ];
    for (evidence, words, remedy) in cases {
        let (said, change) = fault(&evidence);
        assert_eq!(said, words);
        assert!(change.contains(remedy), "{change}");
        let explained = rules(&policy, &with(&evidence).record(), at(1_000));
        assert!(explained.iter().any(|rule| !rule.holds), "{explained:?}");
    }
    // One evaluator beyond its scope does not take away the word of another.
    let both = [
        of("agent-x", 0.9, 1_000, evaluator(3)),
        of("agent-x", 0.9, 990, evaluator(1)),
    ];
    assert!(judge(&policy, &with(&both), at(1_000)).allowed());
    assert_eq!(policy.require[0].signers, Signers::Evaluator);
}

#[test]
fn an_operators_ruling_goes_before_evidence_and_behind_an_eviction() {
    let policy = Policy::default();
    let judge = |ruling, score, standing, evicted| {
        let mut facts = record(Some(evidence(score, 1_000)), standing);
        (facts.ruling, facts.evicted) = (Some(ruling), evicted);
        judge(&policy, &facts, at(1_000))
    };
    let allowed = judge(Ruling::Allow, 0.1, OUT, false);
    assert!(allowed.allowed());
    assert_eq!(
        allowed.reason,
        Some(Reason::of(Fault::BelowThreshold)),
        "said all the same"
    );
    assert!(!judge(Ruling::Allow, 0.9, OUT, true).allowed());
    let denied = judge(Ruling::Deny, 0.9, MEMBER, false);
    assert_eq!(
        (denied.reason, denied.standing),
        (Some(Reason::Overridden), OUT)
    );
    assert_eq!(
        judge(Ruling::Deny, 0.9, Standing::New, false).standing,
        Standing::New
    );
    assert!(judge(Ruling::Threshold(0.5), 0.6, MEMBER, false).allowed());
    assert!(!judge(Ruling::Threshold(0.95), 0.9, MEMBER, false).allowed());
}
