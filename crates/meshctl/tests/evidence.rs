//! `meshctl evidence`: what it prints, signs and hands in, and what it refuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use daemon::{Daemon, meshctl, stderr, stdout};
use keys::{EvaluatorId, MeshId, NodeId};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use wire::Digest;
use wire::evidence::Attested;

const NODE: NodeId = NodeId([0xab; 32]);
const MESH: MeshId = MeshId([5; 16]);
const UPDATE: Digest = Digest([6; 32]);

fn fixture(name: &str) -> String {
    format!("{}/../harness/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A new key file, and its public half.
fn evaluator(folder: &Path) -> (PathBuf, EvaluatorId) {
    let path = folder.join("key");
    let output = path.to_str().unwrap();
    let made = meshctl(
        Path::new("/nonexistent/s"),
        &["key", "generate", "evaluator", "--output", output],
    );
    (path, stdout(&made).trim().parse().unwrap())
}

fn status() -> (u16, String) {
    let status = json!({
        "role": "controller", "schema": 1, "version": "0.1.0", "mesh": MESH.to_string(),
        "generated_utc": "2031-01-01T00:01:00Z",
        "epoch": {
            "id": 12, "activated_utc": "2031-01-01T00:00:42Z", "expiry_utc": "2031-01-01T00:01:42Z",
            "secret_hash": "sha256:01", "update": UPDATE.to_string(), "members": 1
        },
        "policy": {
            "threshold": 0.7, "max_benchmark_age": 120, "epoch_seconds": 60, "digest": "sha256:03"
        },
        "nodes": { "node-a": {
            "node": NODE.to_string(), "membership": "DENIED", "state": "QUARANTINED",
            "last_benchmark": null, "psk": "none", "control": "connected",
            "v4": "10.90.0.2", "v6": "fd00::2", "wireguard": "AAAA", "endpoints": [], "epoch": null,
            "probation_left": 0, "enrolled_utc": "2031-01-01T00:00:00Z"
        } }
    });
    (200, status.to_string())
}

fn taken() -> (u16, String) {
    (
        200,
        json!({ "digest": "sha256:aa", "accepted": true }).to_string(),
    )
}

#[test]
fn a_dry_run_says_what_it_would_submit_and_asks_nobody() {
    let nowhere = Path::new("/nonexistent/s");
    let (log, node) = (
        fixture("inspect/refusal.eval"),
        ["--node", "node-a", "--dry-run"],
    );
    let args = [&["evidence", "from", "inspect", &log][..], &node].concat();
    let shown = meshctl(nowhere, &args);
    assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
    let shown = stdout(&shown);
    for expected in [
        "suite     refusal 3\n",
        "harness   inspect 0.3.285\n",
        "model     mockllm/model\n",
        "samples   4\n",
        "overall   -\n",
        "metric    includes/accuracy 0.75\n",
    ] {
        assert!(shown.contains(expected), "{shown}");
    }
    let json = meshctl(nowhere, &[&["--json"], &args[..]].concat());
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[0]["metrics"]["includes/accuracy"], 0.75);

    let results = fixture("lm-eval/results.json");
    let args = [&["evidence", "from", "lm-eval", &results][..], &node].concat();
    let shown = stdout(&meshctl(nowhere, &args));
    assert_eq!(shown.matches("suite ").count(), 3, "{shown}");
    assert!(shown.contains("(less is better)"), "{shown}");
    let code = [
        "evidence",
        "from",
        "exit-code",
        "--code",
        "1",
        "--suite",
        "disk",
    ];
    let shown = stdout(&meshctl(nowhere, &[&code[..], &node].concat()));
    assert!(
        shown.contains("disk unversioned") && shown.contains("0.000"),
        "{shown}"
    );
}

#[test]
fn what_is_refused_says_why_and_submits_nothing() {
    let nowhere = Path::new("/nonexistent/s");
    let (nan, report) = (fixture("inspect/nan.json"), fixture("junit/pytest.xml"));
    for (args, expected) in [
        (
            ["inspect", nan.as_str()],
            "nan.json: `results.scores[0].metrics.odd.value` is NaN: not a finite number",
        ),
        (
            ["lm-eval", report.as_str()],
            "no JSON: something where a value has to be",
        ),
        (
            ["junit", "/dev/zero"],
            "/dev/zero: cannot be read: not a regular file",
        ),
        (
            ["nope", report.as_str()],
            "must be meshd, inspect, lm-eval, junit or exit-code",
        ),
        (["exit-code", "--code=2"], "`exit code` is 2: unknown"),
        (
            ["junit", "--code=0"],
            "--code is an exit code, but the format is junit",
        ),
    ] {
        let rest = ["--node", "node-a", "--dry-run"];
        let output = meshctl(nowhere, &[&["evidence", "from"], &args[..], &rest].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn results_are_signed_for_the_node_the_mesh_and_the_epoch_and_handed_in() {
    let folder = tempfile::tempdir().unwrap();
    let (key, evaluator) = evaluator(folder.path());
    let daemon = Daemon::answering(vec![status(), taken(), taken()]);
    let (key, report) = (key.to_str().unwrap(), fixture("junit/pytest.xml"));
    let log = fixture("junit/node.xml");
    let output = daemon.run(&[
        "evidence", "from", "junit", &report, &log, "--node", "node-a", "--key", key,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).ends_with("accepted  sha256:aa\naccepted  sha256:aa\n"));
    let asked = daemon.asked();
    assert_eq!(asked[1].line, "POST /v1/nodes/node-a/evidence HTTP/1.1");
    let suites = asked[1..].iter().map(|asked| {
        let attested = Attested::verify(asked.body.as_bytes(), &NODE, MESH, &[evaluator]);
        let run = attested.unwrap().benchmark().clone();
        assert_eq!(run.challenge, Some(UPDATE));
        run.suite
    });
    assert_eq!(suites.collect::<Vec<_>>(), ["pytest tests", "counts"]);
}

#[test]
fn a_refusal_by_the_controller_is_told_and_an_unknown_node_is_not_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (key, _) = evaluator(folder.path());
    let key = key.to_str().unwrap();
    let refused = json!({
        "digest": "sha256:bb", "accepted": false, "reason": "its nonce has been used before"
    });
    let daemon = Daemon::answering(vec![status(), (200, refused.to_string())]);
    let code = [
        "evidence",
        "from",
        "exit-code",
        "--code",
        "0",
        "--key",
        key,
        "--node",
    ];
    let output = daemon.run(&[&code[..], &["node-a"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).ends_with("refused  sha256:bb: its nonce has been used before\n"));
    let error = stderr(&output);
    assert!(
        error.contains("error: evidence refused: its nonce has been used before"),
        "{error}"
    );

    let daemon = Daemon::answering(vec![status()]);
    let output = daemon.run(&[&code[..], &["node-z"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no node is called node-z"));
    assert_eq!(daemon.asked().len(), 1);
}

#[test]
fn an_envelope_is_brought_as_it_is_to_the_node_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let (key, _) = evaluator(folder.path());
    let report = fixture("inspect/refusal.json");
    let signed = meshctl(
        Path::new("/nonexistent/s"),
        &[
            "evidence",
            "sign",
            "--format",
            "inspect",
            "--key",
            key.to_str().unwrap(),
            "--name",
            "node-a",
            "--node",
            &NODE.to_string(),
            "--mesh",
            &MESH.to_string(),
            &report,
        ],
    );
    assert_eq!(signed.status.code(), Some(0), "{}", stderr(&signed));
    let envelope = folder.path().join("envelope.json");
    std::fs::write(&envelope, &signed.stdout).unwrap();
    let daemon = Daemon::answering(vec![taken()]);
    let output = daemon.run(&["evidence", "submit", envelope.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let asked = daemon.asked();
    assert_eq!(asked[0].line, "POST /v1/nodes/node-a/evidence HTTP/1.1");
    assert_eq!(asked[0].body.as_bytes(), signed.stdout);
    let output = meshctl(
        Path::new("/nonexistent/s"),
        &["evidence", "submit", &report],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("no DSSE envelope"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn evidence_signed_offline_is_believed_under_the_printed_key() {
    let folder = tempfile::tempdir().unwrap();
    let (key, result) = (folder.path().join("key"), folder.path().join("result.json"));
    let generate = [
        "key",
        "generate",
        "evaluator",
        "--output",
        key.to_str().unwrap(),
    ];
    let nowhere = Path::new("/nonexistent/s");
    let generated = meshctl(nowhere, &generate);
    let evaluator = stdout(&generated).trim().parse().unwrap();
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        meshctl(nowhere, &generate).status.code(),
        Some(2),
        "overwrote a key"
    );

    let run = json!({
        "harness": "h", "suite": "s", "suiteVersion": "1", "overall": 0.9,
        "samplesTotal": 1, "samplesCompleted": 1, "nonce": "00112233445566778899aabbccddeeff",
        "startedAt": "2025-01-01T00:00:00Z", "finishedAt": "2025-01-01T00:00:10Z"
    });
    std::fs::write(&result, run.to_string()).unwrap();
    let node = keys::NodeId([7; 32]);
    let (mesh, challenge) = (keys::MeshId([5; 16]), wire::Digest([6; 32]));
    let sign = |result: &Path| {
        let (key, node) = (key.to_str().unwrap(), node.to_string());
        let (mesh, challenge) = (mesh.to_string(), challenge.to_string());
        let args = [
            "evidence",
            "sign",
            "--key",
            key,
            "--node",
            &node,
            "--name",
            "node-a",
            "--mesh",
            &mesh,
            "--challenge",
            &challenge,
        ];
        meshctl(nowhere, &[&args[..], &[result.to_str().unwrap()]].concat())
    };
    let signed = sign(&result);
    assert_eq!(signed.status.code(), Some(0), "{}", stderr(&signed));
    let signed = signed.stdout;
    let attested = wire::evidence::Attested::verify(&signed, &node, mesh, &[evaluator]).unwrap();
    assert_eq!(attested.benchmark().challenge, Some(challenge));
    assert_eq!(attested.benchmark().suite, "s");
    assert_eq!(sign(&key).status.code(), Some(2));
}
