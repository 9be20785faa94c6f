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
