//! Decisions, by example and by property.

use super::*;
use keys::{EvaluatorId, NodeId};
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn evidence(overall: f64, finished: i64) -> Evidence {
    Evidence {
        overall: Some(overall),
        metrics: BTreeMap::from([("refusal".into(), overall)]),
        harness: "mock".into(),
        suite: "safety".into(),
        suite_version: "1".into(),
        finished_at: at(finished),
        accepted_for: Some(Duration::ZERO),
        set_back_to: None,
        signer: Signer::Node(NodeId([1; 32])),
        digest: Digest([9; 32]),
    }
}

fn record(evidence: Option<Evidence>, standing: Standing) -> Record {
    Record {
        evicted: false,
        probation_left: 0,
        evidence,
        standing,
    }
}

const MEMBER: Standing = Standing::In { failures: 0 };
const OUT: Standing = Standing::Out { passes: 0 };

fn reason(policy: &Policy, record: &Record, now: i64) -> String {
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
    assert_eq!(first.reason, Some(Reason::ScoreBelowThreshold));
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
    assert_eq!(decision.reason, Some(Reason::ScoreBelowThreshold));
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
    assert_eq!(reason(&policy, &node, 1_000), "no benchmark");
    node.evidence.as_mut().unwrap().signer = Signer::Evaluator(key);
    assert!(judge(&policy, &node, at(1_000)).allowed());
    policy.evaluators = vec![EvaluatorId([6; 32])];
    assert_eq!(reason(&policy, &node, 1_000), "no benchmark");
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
    assert_eq!(reason_at(121, 980), Some(Reason::BenchmarkStale));
    // Beyond the skew, the evidence comes from a clock that was wrong.
    assert_eq!(reason_at(0, 970), None);
    assert_eq!(reason_at(0, 969), Some(Reason::BenchmarkVoid));
    let explained = rules(&policy, &accepted(0), at(900));
    let future = explained.iter().find(|r| r.rule.contains("ahead")).unwrap();
    assert!(
        !future.holds && future.value.contains("100 s ahead: void"),
        "{future:?}"
    );
    assert_eq!(
        stale_in(&policy, &accepted(20), at(1_010)),
        Some(Duration::from_secs(100))
    );
    assert_eq!(stale_in(&policy, &accepted(121), at(1_010)), None);
}

#[test]
fn evidence_from_the_future_of_a_corrected_clock_counts_for_no_rule_and_stays_void() {
    let policy = Policy {
        metric_minimum: BTreeMap::from([("refusal".into(), 0.5)]),
        passes_to_return: 2,
        ..Policy::default()
    };
    let tomorrow = |set_back_to, accepted_for| Evidence {
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
        assert_eq!(decision.reason, Some(Reason::BenchmarkVoid));
        assert_eq!((decision.score, decision.age), (None, None));
        assert!(!decision.allowed() && is_void(&policy, &of(MEMBER), at(now)));
        let trial = Standing::Out { passes: 1 };
        assert_eq!(judge(&policy, &of(trial), at(now)).standing, OUT);
        let new = judge(&policy, &of(Standing::New), at(now));
        assert_eq!(new.standing, Standing::New, "never judged on evidence");
        assert_eq!(stale_in(&policy, &of(MEMBER), at(now)), None);
        let explained = rules(&policy, &of(MEMBER), at(now));
        let broken: Vec<_> = explained.iter().filter(|rule| !rule.holds).collect();
        assert_eq!(
            broken.len(),
            4,
            "its time, age, score and metric: {broken:?}"
        );
        assert!(broken[0].value.contains(words), "{broken:?}");
    }
    // A step within the skew makes nothing void, and nothing young.
    let near = Evidence {
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
    assert_eq!(reason(&pinned("other"), &node, 1_000), "no benchmark");
    let explained = rules(&pinned("other"), &node, at(1_000));
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
        &record(Some(evidence(0.41, 1_000)), MEMBER),
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
        let node = Record {
            evicted, probation_left, standing,
            evidence: present.then(|| evidence(score, finished)),
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
            let all_hold = rules(&policy, &node, at(now)).iter().all(|r| r.holds);
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
    evidence.overall = None;
    let record = record(Some(evidence), Standing::New);
    let decision = judge(&policy, &record, at(1_000));
    assert_eq!(decision.reason, Some(Reason::NoScore));
    assert!(!decision.allowed());
}
