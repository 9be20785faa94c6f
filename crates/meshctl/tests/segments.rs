//! The real binary against daemons of a mesh with several segments.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use daemon::{Daemon, stderr, stdout};
use serde_json::{Value, json};

const NOW: &str = "2031-01-01T00:01:00Z";

fn epoch(id: u64, members: usize) -> Value {
    json!({
        "id": id, "activated_utc": "2031-01-01T00:00:42Z", "expiry_utc": "2031-01-01T00:01:42Z",
        "secret_hash": "sha256:01", "update": "sha256:02", "members": members
    })
}

fn segment(id: u32, range: &str, epoch: Value) -> Value {
    json!({
        "id": id, "v4": range, "v6": "fd00::/64", "epoch": epoch, "policy": policy()
    })
}

fn policy() -> Value {
    json!({ "threshold": 0.7, "max_benchmark_age": 120, "epoch_seconds": 60, "digest": "sha256:03" })
}

fn place(membership: &str, state: &str, v4: &str, reason: Option<&str>) -> Value {
    json!({
        "membership": membership, "state": state, "reason": reason, "score": 0.5, "epoch": 12,
        "probation_left": 0, "v4": v4, "v6": "fd00::2", "wireguard": "KEY=",
        "psk": if membership == "ALLOWED" { "valid" } else { "none" },
    })
}

fn node(segments: Value) -> Value {
    json!({
        "node": "node:ab", "segments": segments, "membership": "ALLOWED", "state": "ACTIVE",
        "last_benchmark": null, "psk": "valid", "control": "connected", "v4": "10.80.0.2",
        "v6": "fd00::2", "wireguard": "AAAA", "endpoints": [], "epoch": 12, "probation_left": 0,
        "enrolled_utc": "2031-01-01T00:00:00Z"
    })
}

fn controller() -> Value {
    let mut inference = epoch(4, 1);
    inference["held"] = json!(["node-b"]);
    let mut training = epoch(12, 1);
    training["next"] = json!({ "id": 13, "activates_utc": "2031-01-01T00:01:05Z" });
    json!({
        "role": "controller", "schema": 1, "version": "0.1.0", "mesh": "mesh:00",
        "generated_utc": NOW, "alarms": ["look at it"], "epoch": training, "policy": policy(),
        "segments": {
            "training": segment(0, "10.80.0.0/16", training.clone()),
            "inference": segment(1, "10.81.0.0/16", inference)
        },
        "nodes": {
            "node-a": node(json!({})),
            "node-b": node(json!({
                "training": place("ALLOWED", "ACTIVE", "10.80.0.2", None),
                "inference": place("DENIED", "QUARANTINED", "10.81.0.2", Some("score below threshold"))
            }))
        }
    })
}

#[test]
fn a_controller_shows_each_segment_and_each_node_in_each() {
    let output = Daemon::with(200, &controller()).run(&["status"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let expected = "\
NOT WELL  1 thing needs attention:
       1. look at it

controller of mesh:00, meshd 0.1.0, 2031-01-01T00:01:00Z

SEGMENT    EPOCH  ENDS     NEXT               MEMBERS  POLICY
inference  4      in 42 s  -                  1 of 1   overall score at least 0.7, evidence at most 2 min 0 s old, epochs of 1 min 0 s
training   12     in 42 s  13, begins in 5 s  1 of 1   overall score at least 0.7, evidence at most 2 min 0 s old, epochs of 1 min 0 s

NODE    SEGMENT    MEMBERSHIP  STATE        SCORE  AGE  PSK    CONTROL    EPOCH  ADDRESS    REASON
node-a  -          ALLOWED     ACTIVE       -      -    -      connected  -      -          in no segment
node-b  inference  DENIED      QUARANTINED  0.500  -    none   connected  12     10.81.0.2  score below threshold
node-b  training   ALLOWED     ACTIVE       0.500  -    valid  connected  12     10.80.0.2  -
";
    assert_eq!(stdout(&output), expected);
}

#[test]
fn a_mesh_whose_one_segment_is_the_default_shows_none() {
    let mut status = controller();
    let training = status["segments"]["training"].take();
    status["segments"] = json!({ "default": training });
    let place = place("ALLOWED", "ACTIVE", "10.80.0.2", None);
    status["nodes"] = json!({ "node-b": node(json!({ "default": place })) });
    for command in [
        &["status"][..],
        &["node", "show", "node-b"],
        &["epoch", "show"],
    ] {
        let shown = stdout(&Daemon::with(200, &status).run(command));
        assert!(shown.contains("12"), "{shown}");
        let words = shown.to_lowercase();
        assert!(
            !words.contains("segment") && !words.contains("default"),
            "{shown}"
        );
    }
}

#[test]
fn a_node_is_shown_with_each_of_its_segments() {
    let mut status = controller();
    status["nodes"]["node-b"]["observed_utc"] = json!("2031-01-01T00:00:50Z");
    status["nodes"]["node-b"]["segments"]["inference"]["observes"] = json!({ "node-c": {
        "session_epoch": 4, "rtt_v4_ms": 0.3, "rtt_v6_ms": null, "at_utc": "2031-01-01T00:00:50Z"
    }});
    let shown = stdout(&Daemon::with(200, &status).run(&["node", "show", "node-b"]));
    let rows = "\
SEGMENT    MEMBERSHIP  STATE        SCORE  EPOCH  PSK    PROBATION  ADDRESSES          WIREGUARD  REASON
inference  DENIED      QUARANTINED  0.500  12     none   -          10.81.0.2 fd00::2  KEY=       score below threshold
training   ALLOWED     ACTIVE       0.500  12     valid  -          10.80.0.2 fd00::2  KEY=       -
";
    assert!(shown.contains(rows), "{shown}");
    // Said once, with its segment, and nowhere as if it were the node's everywhere.
    assert!(
        !shown.contains("membership") && !shown.contains("addresses"),
        "{shown}"
    );
    assert!(
        shown.contains("\nIts peers in training:\nReported 10 s ago")
            && shown.contains("\nIts peers in inference:\nPEER "),
        "{shown}"
    );
    let shown = stdout(&Daemon::with(200, &status).run(&["node", "show", "node-a"]));
    assert!(shown.contains("It is in no segment"), "{shown}");
    assert!(!shown.contains("Its peers in"), "{shown}");
}

#[test]
fn the_epoch_of_each_segment_is_shown_or_of_one() {
    let shown = stdout(&Daemon::with(200, &controller()).run(&["epoch", "show"]));
    assert!(
        shown
            .starts_with("ALARM  look at it\n\nsegment    inference\nepoch      4, ends in 42 s\n"),
        "{shown}"
    );
    assert!(
        shown.contains("\n\nsegment    training\nepoch      12, ends in 42 s\n"),
        "{shown}"
    );
    assert!(
        shown.contains("next       epoch 13, begins in 5 s\n"),
        "{shown}"
    );
    assert!(
        shown.contains("range      10.80.0.0/16 fd00::/64\n"),
        "{shown}"
    );
    let one = ["epoch", "show", "--segment", "inference"];
    let shown = stdout(&Daemon::with(200, &controller()).run(&one));
    assert!(
        shown.starts_with("segment    inference\n") && !shown.contains("training"),
        "{shown}"
    );
    let json = Daemon::with(200, &controller()).run(&[&["--json"], &one[..]].concat());
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["id"], 4);
    let none = ["epoch", "show", "--segment", "nowhere"];
    let refused = Daemon::with(200, &controller()).run(&none);
    assert_eq!(refused.status.code(), Some(1));
    let said = "error: no segment is called nowhere\nhint: `meshctl status` names the segments\n";
    assert_eq!(stderr(&refused), said);
}

fn own(membership: &str, interface: &str, v4: &str, peer: &str) -> Value {
    json!({
        "wireguard": "AAAA", "v4": v4, "v6": "fd00::1", "membership": membership, "epoch": 12,
        "next_epoch": null, "lease_seconds": 100.0,
        "interface": {
            "name": interface, "mtu": 1440, "backend": "tun-tap", "listen_port": 51820
        },
        "peers": { peer: {
            "node": "node:00", "membership": "ALLOWED", "v4": "10.80.0.9", "v6": "fd00::9",
            "wireguard": "BBBB", "endpoint": null, "session_epoch": 12, "lag": 0,
            "handshake_seconds": 3.2, "tx_bytes": 0, "rx_bytes": 0, "ping_v4": null, "ping_v6": null
        } },
        "dropped": { "no_route": 3, "replayed": 0 }
    })
}

#[test]
fn a_node_in_several_segments_shows_each_with_its_peers() {
    let mut inference = own("DENIED", "meshd-inference", "10.81.0.1", "node-c");
    inference["reason"] = json!("score below threshold");
    inference["dropped"] = json!({ "no_route": 0 });
    let training = own("ALLOWED", "meshd0", "10.80.0.1", "node-b");
    let mut status = training.clone();
    for (field, value) in [
        ("role", json!("node")),
        ("schema", json!(1)),
        ("version", json!("0.1.0")),
        ("generated_utc", json!(NOW)),
        ("node", json!("node:ab")),
        ("name", json!("node-a")),
        ("control", json!("connected")),
        ("controller", json!("198.18.0.1:7443")),
        ("last_evidence", Value::Null),
        (
            "segments",
            json!({ "training": training, "inference": inference }),
        ),
        (
            "not_placed",
            json!({ "tooling": "the mesh has no segment of this name" }),
        ),
    ] {
        status[field] = value;
    }
    let output = Daemon::with(200, &status).run(&["status"]);
    let shown = stdout(&output);
    let head = "\
WELL      the controller is there, and this node's peers answer as far as they were asked

node        node-a, node:ab, meshd 0.1.0
control     connected, 198.18.0.1:7443
not placed  in tooling: the mesh has no segment of this name

segment     inference
membership  DENIED: score below threshold
epoch       12
lease       ends in 1 min 40 s
interface   meshd-inference, MTU 1440, tun-tap, UDP port 51820
";
    assert!(shown.starts_with(head), "{shown}{}", stderr(&output));
    let (inference, training) = shown.split_once("\n\nsegment     training\n").unwrap();
    assert!(
        inference.contains("addresses   10.81.0.1 fd00::1\n"),
        "{inference}"
    );
    assert!(
        inference.contains("\nnode-c ") && !inference.contains("node-b"),
        "{inference}"
    );
    assert!(!inference.contains("packets dropped"), "{inference}");
    assert!(training.contains("interface   meshd0, "), "{training}");
    assert!(
        training.contains("\nnode-b ") && !training.contains("node-c"),
        "{training}"
    );
    assert!(
        training.ends_with("\npackets dropped: no_route 3\n"),
        "{training}"
    );
    // One that has no segment by name, and asks for one in vain.
    status["segments"] = json!({});
    let shown = stdout(&Daemon::with(200, &status).run(&["status"]));
    assert!(shown.contains("membership  ALLOWED\n"), "{shown}");
    assert!(shown.contains("not placed  in tooling: "), "{shown}");
    assert!(!shown.contains("segment     "), "{shown}");
}

#[test]
fn events_name_segments_and_are_shown_with_numbers_where_nobody_says_their_names() {
    let event = json!({
        "seq": 9, "at_utc": NOW, "by": "uid:0", "kind": "node_left_segment",
        "body": { "name": "node-a", "segment": 1, "reason": null }, "leaf": "sha256:00"
    });
    let page = json!({ "events": [event], "head": 9, "next": 9 }).to_string();
    let status = controller().to_string();
    let refusal = json!({ "error": "no" }).to_string();
    for (reply, expected) in [
        ((200, status), "node-a taken out of inference\n"),
        ((503, refusal), "node-a taken out of segment 1\n"),
    ] {
        let mesh = Daemon::answering(vec![(200, page.clone()), reply]);
        let shown = stdout(&mesh.run(&["events", "--after", "8", "--limit", "1"]));
        assert!(shown.ends_with(expected), "{shown}");
        assert_eq!(mesh.asked()[1].line, "GET /v1/status HTTP/1.1");
    }
}
