//! The lab's settings, as its scripts read and check them: nothing is started for settings that make no sense. The lab itself
//! is run by `.ci/run`.

use std::process::{Command, Output};

/// Runs a piece of bash with the lab's functions and these settings.
fn bash(settings: &[(&str, &str)], script: &str) -> Output {
    let lab = concat!(env!("CARGO_MANIFEST_DIR"), "/../netns-lab/lab.bash");
    let script = format!("set -euo pipefail; source {lab}; settings_from_environment; {script}");
    let mut command = Command::new("bash");
    let command = command.env_clear().env("PATH", "/usr/bin:/bin");
    let command = command.envs(settings.iter().copied());
    let ran = command.args(["-c", &script]).output();
    ran.expect("there is a bash")
}

#[test]
fn segments_that_make_no_sense_are_refused_by_name() {
    let seventeen: Vec<String> = (0..17).map(|it| format!("s{it}:node-a")).collect();
    let seventeen = seventeen.join(" ");
    let long = format!("{}:node-a", "s".repeat(64));
    for (segments, cause) in [
        ("training", "\"training\" is not NAME:NODE,NODE…"),
        ("training:", "\"training:\" is not"),
        ("-x:node-a", "\"-x:node-a\" is not"),
        (long.as_str(), "is not NAME:NODE"),
        ("a:node-a,,node-b", "\"a:node-a,,node-b\" is not"),
        ("$(id):node-a", "makes no sense"),
        (
            "default:node-a",
            "\"default\" is the name of a mesh without",
        ),
        ("a:node-a a:node-b", "\"a\" is there twice"),
        (
            "a:node-a,node-d b:node-b,node-c",
            "\"a\" has node-d, and the lab has not",
        ),
        ("a:node-a,node-a b:node-b,node-c", "\"a\" has node-a twice"),
        ("a:node-a b:node-b", "node-c is in no segment"),
        (seventeen.as_str(), "there are more than 16"),
    ] {
        let refused = bash(&[("SEGMENTS", segments)], "");
        assert_eq!(refused.status.code(), Some(1), "{segments}");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.starts_with("error: SEGMENTS"), "{segments}: {said}");
        assert!(said.contains(cause), "{segments}: {said}");
        assert!(said.contains("\nhint: "), "{segments}: {said}");
    }
}

#[test]
fn segments_are_read_in_their_order_and_a_lab_without_is_as_ever() {
    let script =
        "segment_names; for_each_place say; segments_of node-b; places; say $NODE_C_SCORE_MEAN";
    let segments = "training:node-a,node-b  inference:node-b,node-c";
    let read = bash(&[("SEGMENTS", segments)], script);
    let is = "training inference training node-a training node-b inference node-b inference node-c \
              training inference 4 0.85";
    let words = |of: &Output| {
        let said = String::from_utf8_lossy(&of.stdout);
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words(&read), is, "{read:?}");
    let read = bash(&[("NUM_NODES", "5")], script);
    assert_eq!(words(&read), "5 0.40", "{read:?}");
}

#[test]
fn settings_out_of_range_are_refused_with_their_range() {
    for (name, value, range) in [
        ("NUM_NODES", "0", "1 to 676"),
        ("NUM_NODES", "677", "1 to 676"),
        ("EPOCH_SECONDS", "86401", "1 to 86400"),
        ("EPOCH_SECONDS", "1.5", "1 to 86400"),
        ("THRESHOLD", "70", "0 to 1"),
        ("NODE_B_SCORE_MEAN", "-1", "0 to 1"),
        ("PROBATION_EPOCHS", "10000", "0 to 9999"),
        ("LOG_FORMAT", "xml", "text or json"),
        ("BENCHMARK", "none", "mock or inspect"),
        // With epochs of a minute, 15 s pass between two benchmarks.
        ("MAX_BENCHMARK_AGE", "15", "16 to 86400"),
    ] {
        let refused = bash(&[(name, value)], "");
        assert_eq!(refused.status.code(), Some(1), "{name}={value}");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(&format!("error: {name}={value} ")), "{said}");
        assert!(said.contains(range), "{name}={value}: {said}");
    }
}

#[test]
fn a_variable_that_looks_like_a_setting_and_is_none_is_named() {
    for (name, meant) in [
        ("NUM_NODE", "is NUM_NODES meant?"),
        ("NUMNODES", "is NUM_NODES meant?"),
        ("num_nodes", "is NUM_NODES meant?"),
        ("TRESHOLD", "is THRESHOLD meant?"),
        ("EPOCHS_SECOND", "is EPOCH_SECONDS meant?"),
        ("MAX_BENCHMARK_AGES", "is MAX_BENCHMARK_AGE meant?"),
        ("MESH_BIN_DIR", "is MESHD_BIN_DIR meant?"),
        ("NODE_A_SCORE_MEANS", "is NODE_A_SCORE_MEAN meant?"),
        ("NODE_B_MEAN", "is NODE_B_SCORE_MEAN meant?"),
        ("NODE_D_SCORE_MEAN", "the lab has not that node"),
        ("NODE_2_SCORE_MEAN", "the lab has not that node"),
        ("node_a_score_mean", "names are in capitals"),
    ] {
        let refused = bash(&[(name, "0.5")], "refuse_strangers");
        assert_eq!(refused.status.code(), Some(1), "{name}: {refused:?}");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.starts_with(&format!("error: {name} ")), "{said}");
        assert!(said.contains(meant), "{name}: {said}");
        assert!(said.contains("\nhint: "), "{name}: {said}");
    }
    let others = [
        ("NUM_NODES", "4"),
        ("NODE_D_SCORE_MEAN", "0.5"),
        ("UP_DEADLINE", "60"),
        ("NODE_ENV", "production"),
        ("NODE_OPTIONS", ""),
        ("SUDO_USER", "somebody"),
        ("LANG", "C.UTF-8"),
        ("LOG_LEVEL", "debug"),
    ];
    let taken = bash(&others, "refuse_strangers");
    assert!(taken.status.success(), "{taken:?}");
}

#[test]
fn the_end_of_a_log_is_shown_where_errors_are() {
    let script = "LOGS=$(mktemp -d); say first >$LOGS/controller.log; say last >>$LOGS/controller.log; \
                  show_log controller; show_log node-a; rm -r $LOGS";
    let shown = bash(&[], script);
    let said = String::from_utf8_lossy(&shown.stderr);
    assert!(
        shown.status.success() && shown.stdout.is_empty(),
        "{shown:?}"
    );
    assert!(said.contains("controller.log\nfirst\nlast\n"), "{said}");
    assert!(said.contains("node-a.log\n(no log)\n"), "{said}");
}
