//! Logs of Inspect: whole ones, and all that makes a run prove nothing.

use super::*;
use wire::evidence::EvidenceError;

#[test]
fn a_log_of_inspect_is_read_in_each_of_its_forms() {
    for (name, version) in [
        ("inspect/refusal.eval", "0.3.285"),
        ("inspect/refusal-deflate.eval", "0.3.100"),
        ("inspect/refusal.json", "0.3.285"),
    ] {
        let run = only(Format::Inspect, &fixture(name));
        let metrics = metrics(&run);
        let expected = [
            ("includes/accuracy", 0.75),
            ("includes/stderr", 0.25),
            ("match/accuracy", 0.0),
            ("match/stderr", 0.0),
        ];
        assert_eq!(metrics, expected, "{name}");
        assert_eq!((run.overall, run.samples_total), (None, 4));
        assert_eq!(
            (&*run.harness, &*run.suite, &*run.suite_version),
            ("inspect", "refusal", "3")
        );
        assert_eq!(run.harness_version.as_deref(), Some(version));
        assert_eq!(run.model.as_deref(), Some("mockllm/model"));
        assert!(run.finished_at < modified(), "the log's own time: {name}");
        assert!(run.log_digest.unwrap().starts_with("sha256:"));
    }
    let epochs = only(Format::Inspect, &fixture("inspect/epochs.eval"));
    assert_eq!(epochs.samples_total, 8, "twice each of four");
}

#[test]
fn a_log_of_inspect_that_proves_nothing_is_refused_by_field_and_value() {
    for (name, expected) in [
        (
            "inspect/error.eval",
            "`status` is \"error\": the run did not succeed",
        ),
        (
            "inspect/partial.eval",
            "`results.completed_samples` is 3: fewer samples were completed than `results.total_samples`",
        ),
        (
            "inspect/limit.eval",
            "`eval.config.limit` is 2: the run was limited to a part of the suite",
        ),
        (
            "inspect/one-sample.eval",
            "`eval.config.sample_id` is 2: the run was limited to a part of the suite",
        ),
        (
            "inspect/invalidated.eval",
            "`invalidated` is true: samples of the run were invalidated",
        ),
        (
            "inspect/nan.json",
            "`results.scores[0].metrics.odd.value` is NaN: not a finite number",
        ),
        (
            "inspect/nan.eval",
            "`results.scores[0].metrics.odd.value` is NaN: not a finite number",
        ),
        (
            "inspect/unscored.eval",
            "`results.scores` is a list of 0: the run has no scores",
        ),
    ] {
        assert_eq!(refused(Format::Inspect, &fixture(name)), expected, "{name}");
    }
    for (from, to, expected) in [
        ("\"success\"", "\"started\"", "the run has not ended"),
        (
            "\"version\": 2",
            "\"version\": 3",
            "`version` is 3: a schema version that is not known here, which is 2",
        ),
        (
            "\"version\": 2",
            "\"version\": \"2\"",
            "`version` is \"2\": not a whole number",
        ),
        (
            "\"unscored_samples\": 0",
            "\"unscored_samples\": 1",
            "`results.scores[0].unscored_samples` is 1: samples without a score are left out of the metrics",
        ),
        (
            "\"total_samples\": 4,\n    \"completed_samples\": 4",
            "\"total_samples\": 3,\n    \"completed_samples\": 3",
            "`results.total_samples` is 3: not `eval.dataset.samples` times `eval.config.epochs`",
        ),
        (
            "\"total_samples\": 4,",
            "\"total_samples\": 4, \"logged_samples\": 2,",
            "`results.logged_samples` is 2: fewer samples were run than `results.total_samples`",
        ),
        (
            "\"total_samples\": 4,",
            "\"total_samples\": 4, \"early_stopping\": {},",
            "`results.early_stopping` is an object: the run was stopped early",
        ),
        (
            "\"value\": 0.75",
            "\"value\": -Infinity",
            "`results.scores[0].metrics.accuracy.value` is -Infinity: not a finite number",
        ),
        (
            "\"value\": 0.75",
            "\"value\": 0.75, \"value\": 1.0",
            "`results.scores[0].metrics.accuracy.value` is there twice: a name may occur once in an object",
        ),
        (
            "\"completed_at\": \"2026",
            "\"completed_at\": \"yesterday 2026",
            "not a time of RFC 3339 with its offset",
        ),
        (
            "\"completed_at\": \"2026",
            "\"completed_at\": \"2036",
            "s in the future: check the clocks",
        ),
        (
            "\"name\": \"includes\",\n        \"scorer\"",
            "\"name\": \"match\",\n        \"scorer\"",
            "`results.scores[1].name` is \"match\": two scores with the same metric",
        ),
    ] {
        let refused = refused(Format::Inspect, &changed("inspect/refusal.json", from, to));
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn a_scorer_that_was_reduced_in_two_ways_has_the_reducer_in_the_names() {
    let two = changed(
        "inspect/refusal.json",
        "\"name\": \"includes\",\n        \"scorer\"",
        "\"name\": \"match\", \"reducer\": \"max\",\n        \"scorer\"",
    );
    let run = only(Format::Inspect, &two);
    assert!(run.metrics.contains_key("match/max/accuracy"));
    assert!(run.metrics.contains_key("match/accuracy"));
}

#[test]
fn a_text_that_evidence_cannot_carry_is_refused_by_its_field() {
    let long = format!("\"task\": \"{}\"", "x".repeat(129));
    let read = read_as(
        Format::Inspect,
        &changed("inspect/refusal.json", "\"task\": \"refusal\"", &long),
        &Labels::default(),
    );
    let Err(Fault::Rule(EvidenceError::Field { field, .. })) = read else {
        panic!("{read:?}");
    };
    assert_eq!(field, "suite");
}
