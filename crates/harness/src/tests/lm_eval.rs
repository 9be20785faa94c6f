//! Results of lm-eval: tasks, groups, limits and times.

use super::*;
use std::io::Cursor;

#[test]
fn results_of_lm_eval_are_a_run_for_each_task_and_group() {
    let runs = runs(Format::LmEval, &fixture("lm-eval/results.json"));
    let [choice, generate, perplexity] = &runs[..] else {
        panic!("three tasks: {runs:?}");
    };
    let expected = [
        ("acc,none", 0.5),
        ("acc_norm,none", 0.75),
        ("acc_norm_stderr,none", 0.25),
        ("acc_stderr,none", 0.28867513459481287),
    ];
    let found = metrics(choice);
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, expected.map(|(name, _)| name));
    assert_eq!(
        (&*choice.harness, &*choice.suite, &*choice.suite_version),
        ("lm-eval", "meshd_choice", "2.0")
    );
    assert_eq!((choice.overall, choice.samples_total), (None, 4));
    assert_eq!(choice.harness_version.as_deref(), Some("0.4.13"));
    assert!(choice.lower_is_better.is_empty());
    // Its standard error is the text N/A.
    let names: Vec<&String> = perplexity.metrics.keys().collect();
    assert_eq!(names, ["bits_per_byte,none", "word_perplexity,none"]);
    assert!(perplexity.metrics["word_perplexity,none"] > 1.0);
    assert_eq!(perplexity.lower_is_better.len(), 2);
    assert_ne!(choice.nonce, generate.nonce, "two runs of one file");

    let group = self::runs(Format::LmEval, &fixture("lm-eval/results-group.json"));
    let group = group.iter().find(|run| run.suite == "meshd_group").unwrap();
    assert_eq!((group.samples_total, &*group.suite_version), (8, "1.0"));
    assert_eq!(
        metrics(group),
        [("acc,none", 0.0), ("acc_stderr,none", 0.0)]
    );
}

#[test]
fn results_of_lm_eval_that_prove_nothing_are_refused_by_field_and_value() {
    for (name, expected) in [
        (
            "lm-eval/results-limit.json",
            "`config.limit` is 2.0: the run was limited to a part of the suite",
        ),
        (
            "lm-eval/results-nan.json",
            "`results.meshd_nan.odd,none` is NaN: not a finite number",
        ),
    ] {
        assert_eq!(refused(Format::LmEval, &fixture(name)), expected, "{name}");
    }
    for (from, to, expected) in [
        (
            "\"effective\": 4",
            "\"effective\": 3",
            "`n-samples.meshd_choice.effective` is 3: fewer samples were run than `original`",
        ),
        (
            "\"n-samples\"",
            "\"n_samples\"",
            "`n-samples.meshd_choice` is missing: nobody can tell whether all samples were run",
        ),
        (
            "\"acc,none\": 0.5",
            "\"acc,none\": \"0.5\"",
            "`results.meshd_choice.acc,none` is \"0.5\": not a number",
        ),
        (
            "\"acc,none\": 0.5",
            "\"acc,none\": 0.5, \"acc,none\": 0.9",
            "`results.meshd_choice.acc,none` is there twice",
        ),
        (
            "\"date\": 1",
            "\"date\": 9",
            "s in the future: check the clocks",
        ),
        (
            "\"date\": 1",
            "\"date\": -1",
            "not a time in seconds since 1970",
        ),
        (
            "\"total_evaluation_time_seconds\": \"",
            "\"total_evaluation_time_seconds\": \"-",
            "not a time in seconds, below a year",
        ),
    ] {
        let refused = refused(Format::LmEval, &changed("lm-eval/results.json", from, to));
        assert!(refused.contains(expected), "{refused}");
    }
}

/// A file with these groups, where `t` is a task with so many samples.
fn of_groups(groups: &[(String, Vec<String>)], samples: u64) -> Vec<u8> {
    let groups: std::collections::BTreeMap<_, _> = groups.iter().cloned().collect();
    let file = serde_json::json!({
        "results": { "g0": { "acc,none": 0.5 } },
        "group_subtasks": groups,
        "n-samples": { "t": { "original": samples, "effective": samples } },
        "versions": { "g0": 1 },
        "date": 1_790_000_000,
        "config": {},
    });
    file.to_string().into_bytes()
}

#[test]
fn groups_of_groups_of_groups_are_read_in_bounded_time() {
    // 8 levels that name the next one 50 times each: 39 million million tasks in 3 kB.
    let names = |level: usize| match level {
        7 => vec!["t".to_owned(); 50],
        level => vec![format!("g{}", level + 1); 50],
    };
    let groups: Vec<_> = (0..8)
        .map(|level| (format!("g{level}"), names(level)))
        .collect();
    let refused = refused(Format::LmEval, &of_groups(&groups, 1));
    assert!(
        refused.contains("more tasks of groups than are looked at"),
        "{refused}"
    );
    let group = |count| vec![("g0".to_owned(), vec!["t".to_owned(); count])];
    let read = runs(Format::LmEval, &of_groups(&group(1000), 3));
    assert_eq!(read[0].samples_total, 3000);
}

#[test]
fn samples_that_cannot_be_counted_are_refused() {
    let group = vec![("g0".to_owned(), vec!["t".to_owned(); 2])];
    let refused = refused(Format::LmEval, &of_groups(&group, u64::MAX / 2 + 1));
    assert!(refused.contains("more than can be counted"), "{refused}");
}

#[test]
fn a_run_of_lm_eval_is_not_younger_than_its_file() {
    let bytes = fixture("lm-eval/results.json");
    let first = &runs(Format::LmEval, &bytes)[0];
    assert!(first.finished_at > first.started_at);
    let modified = first.started_at.checked_add(SECOND).unwrap();
    let source = Source {
        name: "results.json",
        origin: Origin::File { modified },
        now: now(),
        labels: &Labels::default(),
    };
    let runs = read(Format::LmEval, &mut Cursor::new(&bytes), &source)
        .unwrap()
        .runs;
    assert_eq!(runs[0].finished_at, modified);
}

#[test]
fn the_suites_that_are_wanted_are_taken_and_no_others() {
    let labels = |only: &str| Labels {
        only: vec![only.to_owned()],
        ..Labels::default()
    };
    let bytes = fixture("lm-eval/results.json");
    let runs = read_as(Format::LmEval, &bytes, &labels("meshd_generate")).unwrap();
    assert_eq!((runs.len(), &*runs[0].suite), (1, "meshd_generate"));
    let refused = read_as(Format::LmEval, &bytes, &labels("mmlu"));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "it has none of the suites that are wanted, but \"meshd_choice\", \"meshd_generate\", \"meshd_perplexity\""
    );
}

const SECOND: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);
