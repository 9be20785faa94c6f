//! The real binary against a daemon that answers from a script: exit codes, streams and looks.
//!
//! The file is long because each command has a test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use daemon::{Daemon, meshctl, stderr, stdout};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn node(membership: &str, overall: f64, reason: Option<&str>) -> Value {
    let mut node = json!({
        "node": format!("node:{}", "ab".repeat(32)),
        "membership": membership,
        "state": if membership == "ALLOWED" { "ACTIVE" } else { "QUARANTINED" },
        "last_benchmark": {
            "overall": overall, "timestamp": "2031-01-01T00:00:48Z", "suite": "mock",
            "suite_version": "1", "signer": "self", "digest": "sha256:00"
        },
        "psk": if membership == "ALLOWED" { "valid" } else { "none" },
        "control": "connected",
        "v4": "10.90.0.2", "v6": "fd00::2",
        "wireguard": "AAAA", "endpoints": [], "epoch": 12,
        "probation_left": 0, "enrolled_utc": "2031-01-01T00:00:00Z"
    });
    if let Some(reason) = reason {
        node["reason"] = json!(reason);
    }
    node
}

fn controller() -> Value {
    json!({
        "role": "controller", "schema": 1, "version": "0.1.0", "mesh": "mesh:00",
        "generated_utc": "2031-01-01T00:01:00Z",
        "epoch": {
            "id": 12, "activated_utc": "2031-01-01T00:00:42Z", "expiry_utc": "2031-01-01T00:01:42Z",
            "secret_hash": "sha256:01", "update": "sha256:02", "members": 1,
            "next": { "id": 13, "activates_utc": "2031-01-01T00:01:05Z" },
            "held": ["node-c"]
        },
        "policy": { "threshold": 0.7, "max_benchmark_age": 120, "epoch_seconds": 60, "digest": "sha256:03" },
        "nodes": {
            "node-a": node("ALLOWED", 0.912, None),
            "node-c": node("DENIED", 0.69999, Some("score below threshold\u{1b}[2J"))
        }
    })
}

fn daemon() -> Value {
    json!({
        "role": "node", "schema": 1, "version": "0.1.0", "generated_utc": "2031-01-01T00:01:00Z",
        "node": format!("node:{}", "ab".repeat(32)), "name": "node-a", "wireguard": "AAAA",
        "v4": "10.90.0.1", "v6": "fd00::1", "control": "connected", "controller": "198.18.0.1:7443",
        "membership": "ALLOWED", "epoch": 12, "next_epoch": null, "lease_seconds": 100.0,
        "interface": {
            "name": "meshd0", "mtu": 1440, "underlay_mtu": 1500, "fragments": false,
            "backend": "tun-tap", "listen_port": 51820
        },
        "last_evidence": null,
        "peers": {
            "node-b": {
                "node": "node:00", "membership": "ALLOWED", "v4": "10.90.0.2", "v6": "fd00::2",
                "wireguard": "BBBB", "endpoint": "198.18.1.2:51820", "session_epoch": 11, "lag": 1,
                "handshake_seconds": 3.2, "tx_bytes": 1536, "rx_bytes": 10,
                "ping_v4": { "ok": true, "rtt_ms": 0.52, "at_utc": "2031-01-01T00:00:59Z" },
                "ping_v6": { "ok": false, "rtt_ms": null, "cause": "timeout", "at_utc": "2031-01-01T00:00:59Z" }
            }
        },
        "dropped": { "no_route": 3, "replayed": 0 }
    })
}

#[test]
fn the_status_of_a_controller_is_a_header_and_a_table() {
    let output = Daemon::with(200, &controller()).run(&["status"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let expected = "\
WELL      1 of 2 nodes is a member

controller of mesh:00, meshd 0.1.0, 2031-01-01T00:01:00Z
epoch    12, ends in 42 s
members  1 of 2
next     epoch 13, begins in 5 s
held     node-c (still members: removing so many at once takes `meshctl epoch rotate --confirm-removals`)
policy   overall score at least 0.7, evidence at most 2 min 0 s old, epochs of 1 min 0 s

NODE    MEMBERSHIP  STATE        SCORE  AGE   PSK    CONTROL    EPOCH  ADDRESS    REASON
node-a  ALLOWED     ACTIVE       0.912  12 s  valid  connected  12     10.90.0.2  -
node-c  DENIED      QUARANTINED  0.699  12 s  none   connected  12     10.90.0.2  score below threshold\\u{1b}[2J
";
    assert_eq!(stdout(&output), expected);
}

#[test]
fn faults_are_shown_at_the_node_and_at_the_controller() {
    let mut status = controller();
    status["alarms"] = json!(["the disk is full; free some space"]);
    status["attention"] = json!([
        "node-a: is down",
        "node-a to node-c: 10.90.0.3 goes by way of eth1\u{1b}[2J"
    ]);
    let shown = stdout(&Daemon::with(200, &status).run(&["status"]));
    let verdict = "\
NOT WELL  3 things need attention:
       1. the disk is full; free some space
       2. node-a: is down
       3. node-a to node-c: 10.90.0.3 goes by way of eth1\\u{1b}[2J
";
    assert!(shown.starts_with(verdict), "{shown}");
    let mut status = daemon();
    status["attention"] = json!(["meshd0: is gone"]);
    status["interface"]["state"] = json!("unusable");
    status["interface"]["faults"] = json!(["is gone"]);
    status["peers"]["node-b"]["faults"] = json!(["its packets to 10.90.0.2 go nowhere there"]);
    let shown = stdout(&Daemon::with(200, &status).run(&["status"]));
    let verdict = "NOT WELL  1 thing needs attention:\n       1. meshd0: is gone\n";
    assert!(shown.starts_with(verdict), "{shown}");
    assert!(shown.contains("meshd0, UNUSABLE, MTU 1440"), "{shown}");
    assert!(shown.contains("fault       is gone\n"), "{shown}");
    let peer = "fault       node-b: its packets to 10.90.0.2 go nowhere there\n";
    assert!(shown.contains(peer), "{shown}");
}

#[test]
fn the_status_of_a_node_shows_its_peers_and_what_it_dropped() {
    let shown = stdout(&Daemon::with(200, &daemon()).run(&["status"]));
    assert!(
        shown.contains("lease       ends in 1 min 40 s\n"),
        "{shown}"
    );
    assert!(
        shown.contains(
            "node-b  ALLOWED     11 (1 behind)  3 s ago    0.5 ms   failed: timeout  1.5 KiB  10 B  198.18.1.2:51820  -\n"
        ),
        "{shown}"
    );
    assert!(shown.ends_with("packets dropped: no_route 3\n"), "{shown}");
}

#[test]
fn the_status_of_a_node_shows_its_mtu_and_what_the_underlay_makes_of_it() {
    let interface = |status: &Value| {
        let shown = stdout(&Daemon::with(200, status).run(&["status"]));
        let lines = shown.lines().filter(|line| line.contains("MTU"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut status = daemon();
    let expected = [
        "interface   meshd0, MTU 1440, tun-tap, UDP port 51820",
        "underlay    MTU 1500",
    ];
    assert_eq!(interface(&status), expected);
    status["interface"] = json!({
        "name": "meshd0", "mtu": 1280, "underlay_mtu": 1280, "fragments": true,
        "backend": "tun-tap", "listen_port": 51820
    });
    let expected = [
        "interface   meshd0, MTU 1280, tun-tap, UDP port 51820",
        "underlay    MTU 1280: too narrow for full packets, their datagrams are fragmented",
    ];
    assert_eq!(interface(&status), expected);
    // An older daemon does not tell.
    status["interface"] = json!({
        "name": "meshd0", "mtu": 1420, "backend": "tun-tap", "listen_port": 51820
    });
    let expected = ["interface   meshd0, MTU 1420, tun-tap, UDP port 51820"];
    assert_eq!(interface(&status), expected);
}

#[test]
fn json_is_the_form_as_it_came_with_what_this_version_does_not_know() {
    let mut status = controller();
    status["new_in_a_later_version"] = json!([1]);
    let output = Daemon::with(200, &status).run(&["--json", "status"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap(),
        status
    );
    let output = Daemon::with(200, &status).run(&["node", "show", "node-c", "--json"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap(),
        status["nodes"]["node-c"]
    );
}

/// In every place that holds words of another machine, in every output.
#[test]
fn nothing_that_another_machine_said_hides_or_steers() {
    let foreign = "a\u{202e}b\u{200b}c\u{1b}[2Jd\u{2028}e\u{feff}f\u{9b}1mg\nFAKE\u{e0041}é";
    let mut status = controller();
    for field in ["reason", "software"] {
        status["nodes"]["node-c"][field] = json!(foreign);
    }
    status["nodes"]["node-c"]["last_benchmark"]["suite"] = json!(foreign);
    let event = json!({
        "seq": 1, "at_utc": "2031-01-01T00:00:00Z", "kind": "evidence_accepted",
        "body": { "suite": foreign, foreign: 1 }, "leaf": "sha256:00"
    });
    let events = json!({ "events": [event], "head": 1, "next": 1 });
    let refusal = json!({ "error": foreign, "hint": foreign });
    for (code, reply, arguments) in [
        (200, &status, &["status"][..]),
        (200, &status, &["node", "show", "node-c"]),
        (200, &events, &["events", "--after", "0"]),
        (404, &refusal, &["explain", "x"]),
    ] {
        for json in [&[][..], &["--json"]] {
            let output = Daemon::with(code, reply).run(&[json, arguments].concat());
            let shown = format!("{}{}", stdout(&output), stderr(&output));
            let hidden = shown
                .chars()
                .find(|c| *c != '\n' && wire::visible::is_hidden(*c));
            assert_eq!(hidden, None, "{arguments:?} {json:?}: {shown:?}");
            let text = code == 200 && arguments != ["status"];
            assert!(!text || shown.contains('é'), "{shown}");
            assert!(!shown.contains("\nFAKE"), "a line of its own: {shown}");
            if code == 200 && !json.is_empty() {
                assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok());
            }
        }
    }
}

#[test]
fn a_refusal_exits_with_1_and_a_hint() {
    let refusal = json!({ "error": "no node is called x", "hint": "try another" });
    let output = Daemon::with(404, &refusal).run(&["explain", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    assert_eq!(
        stderr(&output),
        "error: no node is called x\nhint: try another\n"
    );

    let output = Daemon::answering(vec![(404, String::new())]).run(&["epoch", "rotate"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("\nhint: "));
}

#[test]
fn whoever_asks_for_json_gets_errors_in_json_too() {
    let error = |output: &Output| -> Value {
        assert_eq!(stdout(output), "");
        serde_json::from_str(&stderr(output)).unwrap()
    };
    let refusal = json!({ "error": "no node is called x", "hint": "try another" });
    let refused = Daemon::with(404, &refusal).run(&["--json", "explain", "x"]);
    let expected = json!({ "error": "no node is called x", "hint": "try another", "code": 1 });
    assert_eq!(error(&refused), expected);
    let unread = Daemon::with(200, &controller()).run(&["--json", "no-such-noun"]);
    assert_eq!(unread.status.code(), Some(2));
    let unread = error(&unread);
    assert!(
        unread["error"].as_str().unwrap().contains("no-such-noun"),
        "{unread}"
    );
    assert_eq!(unread["code"], 2);
}

#[test]
fn a_nodes_socket_refuses_a_controllers_commands_by_name() {
    let output = Daemon::with(200, &daemon()).run(&["node", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is a node's socket"));
}

#[test]
fn breakages_exit_with_2_and_a_hint() {
    let nowhere = meshctl(Path::new("/nonexistent/s"), &["status"]);
    let cases = [
        nowhere,
        Daemon::with(503, &json!({ "error": "starting" })).run(&["status"]),
        Daemon::answering(vec![(200, "no json".into())]).run(&["status"]),
        Daemon::with(200, &json!({ "role": "other" })).run(&["status"]),
    ];
    for output in cases {
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("\nhint: "), "{}", stderr(&output));
    }
    for args in [
        &["explain", "../status"][..],
        &["score", "set", "1.1"],
        &["token", "revoke", "a/b"],
    ] {
        assert_eq!(
            meshctl(Path::new("/nonexistent/s"), args).status.code(),
            Some(2)
        );
    }
}

#[test]
fn a_token_stands_alone_on_stdout() {
    let created = json!({ "id": "t1", "token": "SECRET", "expires_utc": "2031-01-01T01:00:00Z" });
    let mesh = Daemon::with(201, &created);
    let output = mesh.run(&["token", "create", "--name", "node-a", "--ttl-seconds", "60"]);
    assert_eq!(stdout(&output), "SECRET\n");
    assert!(!stderr(&output).contains("SECRET"));
    let asked = mesh.asked();
    assert_eq!(asked[0].line, "POST /v1/tokens HTTP/1.1");
    assert_eq!(
        serde_json::from_str::<Value>(&asked[0].body).unwrap(),
        json!({ "name": "node-a", "ttl_seconds": 60, "uses": null })
    );
}

#[test]
fn requests_carry_what_was_asked_for() {
    let change = json!({ "epoch": 13, "activates_in_ms": 0, "members": 1, "excluded": { "node-c": "evicted" } });
    let mesh = Daemon::with(200, &change);
    let output = mesh.run(&["node", "evict", "node-c", "--reason", "leaked"]);
    assert_eq!(
        stdout(&output),
        "node-c is evicted: epoch 13 is in force, with 1 member\nexcluded: node-c, evicted\n"
    );
    let asked = mesh.asked();
    assert_eq!(asked[0].line, "POST /v1/nodes/node-c/evict HTTP/1.1");
    assert_eq!(asked[0].body, r#"{"reason":"leaked"}"#);

    let mesh = Daemon::with(200, &change);
    mesh.run(&["epoch", "rotate", "--now"]);
    assert_eq!(
        mesh.asked()[0].body,
        r#"{"now":true,"confirm_removals":false}"#
    );

    let mesh = Daemon::answering(vec![(204, String::new())]);
    let output = mesh.run(&["score", "set", "0.4"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(mesh.asked()[0].body, r#"{"mean":0.4}"#);
}

#[test]
fn events_begin_with_the_newest_unless_told() {
    let event = json!({
        "seq": 99, "at_utc": "2031-01-01T00:00:00Z", "by": "uid:0", "kind": "node_evicted",
        "body": { "name": "node-a", "reason": "two words" }, "leaf": "sha256:00"
    });
    let mesh = Daemon::answering(vec![
        (
            200,
            json!({ "events": [], "head": 100, "next": 1 }).to_string(),
        ),
        (
            200,
            json!({ "events": [event], "head": 100, "next": 100 }).to_string(),
        ),
    ]);
    let output = mesh.run(&["events", "--limit", "2"]);
    assert_eq!(
        stdout(&output),
        "    99  2031-01-01T00:00:00Z  uid:0     node-a evicted: two words\n"
    );
    assert_eq!(
        mesh.asked()[1].line,
        "GET /v1/events?after=98&limit=2 HTTP/1.1"
    );
}

#[test]
fn a_token_goes_into_a_new_file_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node-a.token");
    let create = [
        "token",
        "create",
        "--reusable",
        "5",
        "--output",
        path.to_str().unwrap(),
    ];
    // Refused by the daemon: no file stays.
    let refusal = json!({ "error": "no", "hint": "yes" });
    let refused = Daemon::with(409, &refusal).run(&create);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!path.exists());
    let created = json!({ "id": "t1", "token": "SECRET", "expires_utc": "2031-01-01T01:00:00Z" });
    let mesh = Daemon::with(200, &created);
    let output = mesh.run(&[&["--json"], &create[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert!(
        !said.contains("SECRET") && said.contains("5 times"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "SECRET\n");
    let form: Value = serde_json::from_str(&mesh.asked()[0].body).unwrap();
    assert_eq!(form["uses"], 5);
    // A file that is there is not overwritten, and no token is made for it.
    let again = meshctl(Path::new("/nonexistent/s"), &create);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        stderr(&again).contains("never overwritten"),
        "before anybody is asked"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "SECRET\n");
}

#[test]
fn metrics_are_printed_as_they_came() {
    let text = "# TYPE meshd_epoch_current gauge\nmeshd_epoch_current 12\n# EOF\n";
    let mesh = Daemon::answering(vec![(200, text.into())]);
    let output = mesh.run(&["metrics"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), text);
    assert_eq!(mesh.asked()[0].line, "GET /metrics HTTP/1.1");

    let stopping = json!({ "error": "the node is stopping" });
    let refused = Daemon::with(503, &stopping).run(&["metrics"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).starts_with("error: the node is stopping\nhint: "));

    let no_form = meshctl(Path::new("/nonexistent/s"), &["--json", "metrics"]);
    assert_eq!(no_form.status.code(), Some(2));
    assert!(stderr(&no_form).contains("no JSON form"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mesh = Daemon::with(200, &controller());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["status", "--socket"])
        .arg(mesh.socket())
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
}

#[test]
fn an_export_is_for_root_and_lands_in_a_file_of_its_own() {
    let export = json!({ "epoch": 12, "config": "[Interface]\n" });
    let mesh = Daemon::with(200, &export);
    let file = mesh.folder.path().join("wg.conf");
    let args = [
        "peer",
        "export",
        "node-b",
        "--output",
        file.to_str().unwrap(),
    ];
    let output = mesh.run(&args);
    if output.status.code() == Some(1) {
        assert!(stderr(&output).contains("for root only"));
        return;
    }
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("valid for epoch 12 only"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "[Interface]\n");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_was_not_observed_lately_is_shown_with_its_age() {
    let mut status = controller();
    let gone = &mut status["nodes"]["node-a"];
    gone["control"] = json!("disconnected");
    gone["psk"] = json!("unknown");
    gone["heard_utc"] = json!("2031-01-01T00:00:20Z");
    let silent = &mut status["nodes"]["node-c"];
    silent["control"] = json!("silent");
    silent["heard_utc"] = json!("2031-01-01T00:00:52Z");
    silent["observed_utc"] = json!("2031-01-01T00:00:50Z");
    silent["observes"] = json!({ "node-a": {
        "session_epoch": 12, "rtt_v4_ms": 0.3, "rtt_v6_ms": null,
        "tunnel": {"handshake_seconds": 75, "echoes": 64, "lost": 3},
        "at_utc": "2031-01-01T00:00:30Z"
    }});
    let mesh = Daemon::with(200, &status);
    let shown = stdout(&mesh.run(&["status"]));
    assert!(
        shown.contains("unknown  disconnected, heard 40 s ago"),
        "{shown}"
    );
    assert!(shown.contains("none     silent for 8 s"), "{shown}");
    let mesh = Daemon::with(200, &status);
    let shown = stdout(&mesh.run(&["node", "show", "node-c"]));
    assert!(shown.contains("silent for 8 s; PSK none"), "{shown}");
    assert!(shown.contains("Reported 10 s ago:"), "{shown}");
    assert!(
        shown.contains("1 min 15 s") && shown.contains("3 of 64"),
        "its handshake and its loss: {shown}"
    );
    assert!(
        shown.contains("30 s ago"),
        "that pair was not in it: {shown}"
    );

    let mut status = daemon();
    status["control"] = json!("silent");
    status["control_heard_seconds"] = json!(9.4);
    status["peers"]["node-b"]["ping_v4"]["at_utc"] = json!("2031-01-01T00:00:30Z");
    let shown = stdout(&Daemon::with(200, &status).run(&["status"]));
    assert!(shown.contains("silent for 9 s, 198.18.0.1:7443"), "{shown}");
    assert!(shown.contains("0.5 ms (30 s ago)"), "{shown}");
}

#[test]
fn an_evaluators_next_key_comes_with_the_word_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (old, new, word) = (path("old"), path("new"), path("word"));
    let nowhere = Path::new("/nonexistent/s");
    let generated = meshctl(nowhere, &["key", "generate", "evaluator", "--output", &old]);
    let rotate = [
        "key",
        "rotate",
        "evaluator",
        "--key",
        &old,
        "--output",
        &new,
    ];
    let rotated = meshctl(nowhere, &rotate);
    assert_eq!(rotated.status.code(), Some(0), "{}", stderr(&rotated));
    std::fs::write(&word, &rotated.stdout).unwrap();
    let said: wire::succession::EvaluatorSuccession =
        serde_json::from_slice(&rotated.stdout).unwrap();
    assert!(said.verify().is_ok());
    assert_eq!(said.old, stdout(&generated).trim());
    assert_eq!(
        meshctl(nowhere, &rotate).status.code(),
        Some(2),
        "never overwritten"
    );
    let mesh = Daemon::with(200, &serde_json::to_value(&said).unwrap());
    let output = mesh.run(&["key", "submit", &word]);
    assert!(stdout(&output).contains(&said.new), "{}", stderr(&output));
    assert_eq!(mesh.asked()[0].line, "POST /v1/evaluators/rotate HTTP/1.1");
}

#[test]
fn a_node_that_is_named_twice_is_evicted_once() {
    let change = json!({ "epoch": 13, "activates_in_ms": 0, "members": 1, "excluded": {} });
    let mesh = Daemon::with(200, &change);
    let output = mesh.run(&["node", "evict", "node-c", "node-c", "--yes"]);
    assert!(
        stdout(&output).starts_with("node-c is evicted:"),
        "{}",
        stdout(&output)
    );
    assert_eq!(mesh.asked()[0].line, "POST /v1/nodes/node-c/evict HTTP/1.1");
    let mesh = Daemon::with(200, &change);
    let output = mesh.run(&["node", "evict", "node-c", "node-a", "node-c", "--yes"]);
    assert!(
        stdout(&output).starts_with("2 nodes are evicted:"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_path_that_is_no_socket_is_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let pipe = folder.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let is_broken = |path: &Path, words: &str| {
        let told = stderr(&meshctl(path, &["status"]));
        assert!(told.contains(words) && !told.contains("start it"), "{told}");
    };
    is_broken(&file, "it is a file, and no socket");
    is_broken(&pipe, "it is a pipe, and no socket");
    is_broken(folder.path(), "it is a folder, and no socket");
    is_broken(&folder.path().join("none"), "is meshd running here?");
}

#[test]
fn an_error_in_json_is_one_line_without_escapes() {
    for args in [
        &["--json", "explain"][..],
        &["--json", "node", "evict"],
        &["--json", "status", "--watch=x"],
    ] {
        let output = meshctl(Path::new("/nonexistent/s"), args);
        let error: Value = serde_json::from_str(&stderr(&output)).unwrap();
        let error = error["error"].as_str().unwrap();
        assert!(!error.contains("\\u{") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_controller_that_is_too_old_to_tell_is_not_called_well() {
    let mut old = controller();
    old["version"] = json!("0.0.9");
    let output = Daemon::with(200, &old).run(&["status"]);
    assert!(
        stdout(&output).starts_with("UNKNOWN   meshd 0.0.9 says nothing"),
        "{}",
        stdout(&output)
    );
}
