//! Every table on terminals of 40 to 500 columns: no line is wider, no word is lost below 70, and none stands a letter a line.

use crate::terminal::tests::shown;
use crate::{explain, node, status, table, token};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn of<T: DeserializeOwned>(value: &Value) -> T {
    T::deserialize(value).unwrap()
}

/// The texts in a document, but for those that no table has.
fn check(name: &str, words: &[&str], show: impl Fn() -> String) {
    for width in [40, 60, 80, 120, 500] {
        let text = shown(width, &show);
        for line in text.lines() {
            assert!(
                table::columns(line) <= width,
                "{name} at {width}: `{line}`\n{text}"
            );
        }
        let is_whole = !text.contains("(too narrow for");
        assert!(is_whole || width >= 70, "{name} at {width}: {text}");
        for word in words.iter().filter(|_| is_whole) {
            assert!(
                text.split_whitespace().any(|it| it == *word),
                "{name} at {width}: no `{word}`\n{text}"
            );
        }
        let alone = text.lines().filter(|it| it.trim().chars().count() == 1);
        assert!(
            alone.count() < 3,
            "{name} at {width}: a letter a line\n{text}"
        );
    }
}

fn key() -> String {
    format!("node:{}", "ab".repeat(32))
}

fn one(membership: &str, state: &str, reason: Option<&str>) -> Value {
    json!({
        "node": key(), "membership": membership, "state": state,
        "last_benchmark": {
            "overall": 0.912, "timestamp": "2031-01-01T00:00:48Z", "suite": "mock-safety",
            "suite_version": "1", "signer": key(), "digest": format!("sha256:{}", "01".repeat(32))
        },
        "psk": "valid", "control": "connected", "v4": "10.90.0.2", "v6": "fd00::2",
        "wireguard": "A".repeat(44), "endpoints": ["192.0.2.17:51820"], "epoch": 12, "reason": reason,
        "probation_left": 0, "enrolled_utc": "2031-01-01T00:00:00Z"
    })
}

fn seen() -> Value {
    json!({ "a-node-of-a-long-name-in-frankfurt": {
        "session_epoch": 12, "rtt_v4_ms": 0.52, "rtt_v6_ms": null, "at_utc": "2031-01-01T00:00:59Z",
        "tunnel": { "handshake_seconds": 3, "echoes": 60, "lost": 12 },
        "faults": ["10.76.0.2 goes by way of wlp0s20f3, not through the tunnel: remove that route"]
    }})
}

#[test]
fn the_controllers_tables() {
    let epoch = json!({
        "id": 12, "activated_utc": "2031-01-01T00:00:42Z", "expiry_utc": "2031-01-01T00:01:42Z",
        "secret_hash": "sha256:01", "update": "sha256:02", "members": 1
    });
    let mesh: wire::admin::ControllerStatus = of(&json!({
        "schema": 1, "version": "0.1.0", "mesh": format!("mesh:{}", "cd".repeat(32)),
        "generated_utc": "2031-01-01T00:01:00Z", "epoch": epoch,
        "attention": ["members that are not connected: node-c; they hear of no epoch: start them"],
        "policy": { "threshold": 0.7, "max_benchmark_age": 120, "epoch_seconds": 60, "digest": "sha256:03" },
        "waiting": { "node-w": {
            "node": key(), "wireguard": [], "token": "0123456789abcdef", "since_utc": "2031-01-01T00:00:00Z",
            "address": "192.0.2.18:49152", "replaces": true
        }},
        "nodes": {
            "node-a": one("ALLOWED", "ACTIVE", None),
            "a-node-of-a-long-name-in-frankfurt":
                one("DENIED", "QUARANTINED", Some("score below threshold, and the evidence is old")),
        }
    }));
    let words = [
        "QUARANTINED",
        "threshold,",
        "10.90.0.2",
        "0.912",
        "0123456789abcdef",
        "them",
    ];
    check("status", &words, || status::controller(&mesh));
    let (name, node) = mesh.nodes.last_key_value().unwrap();
    let fields = || node::fields(name, node, &mesh.generated_utc, false);
    check("node show", &["ALLOWED", "192.0.2.17:51820"], || {
        fields().render()
    });
    let observes = of(&seen());
    let words = ["wlp0s20f3,", "60", "route"];
    check("peers", &words, || {
        node::peers(&observes, "2031-01-01T00:01:00Z")
    });
    let banned: Vec<wire::admin::BannedKey> = of(&json!([{
        "node": key(), "wireguard": [], "name": "node-c", "at_utc": "2031-01-01T00:00:00Z", "by": "uid:1000",
        "reason": "its keys were stolen from a backup"
    }]));
    check("banned", &["uid:1000", "stolen", "backup"], || {
        node::banned(&banned)
    });
    let tokens: Vec<wire::admin::TokenInfo> = of(&json!([{
        "id": "0123456789abcdef", "state": "used", "uses": 20, "name": null, "segments": ["inference", "tooling"],
        "used_by": ["node-a", "a-node-of-a-long-name-in-frankfurt"],
        "created_utc": "2031-01-01T00:00:00Z", "expires_utc": "2031-01-01T01:00:00Z"
    }]));
    let words = ["2031-01-01T01:00:00Z", "0123456789abcdef", "tooling"];
    check("tokens", &words, || token::table(&tokens));
    let explanation: wire::admin::Explanation = of(&json!({
        "name": "node-a", "segment": "default", "policy": format!("sha256:{}", "03".repeat(32)),
        "outlook": [], "status": one("DENIED", "QUARANTINED", Some("score below threshold")),
        "decision": {
            "membership": "DENIED", "reason": "score below threshold", "score": 0.5, "age_seconds": 12.0,
            "evidence": null, "decided_utc": "2031-01-01T00:01:00Z", "state": "QUARANTINED"
        },
        "rules": [{
            "rule": "the newest evidence that counts is at most 2 min old", "value": "none was handed in", "holds": false
        }],
        "evidence": [{
            "suite": "mock-safety", "suite_version": "1", "harness": "mock", "signer": key(), "overall": 0.5,
            "finished_utc": "2031-01-01T00:00:48Z", "samples": 200, "digest": "sha256:00"
        }]
    }));
    let words = ["NO", "handed", "2031-01-01T00:00:48Z", "200"];
    check("explain", &words, || explain::explain(&explanation));
}

#[test]
fn a_nodes_tables() {
    let cause = "no tunnel: this node is denied, score below threshold";
    let ping =
        json!({ "ok": false, "rtt_ms": null, "cause": cause, "at_utc": "2031-01-01T00:00:09Z" });
    let node: wire::admin::NodeDaemonStatus = of(&json!({
        "schema": 1, "version": "0.1.0", "generated_utc": "2031-01-01T00:01:00Z",
        "node": key(), "name": "node-a", "wireguard": "AAAA",
        "v4": "10.90.0.1", "v6": "fd00::1", "control": "connected", "controller": "198.18.0.1:7443",
        "membership": "DENIED", "reason": "score below threshold", "epoch": 12, "next_epoch": null,
        "lease_seconds": 100.0, "interface": null, "last_evidence": null,
        "attention": ["this node is no member (score below threshold): `meshctl explain` says what it lacks"],
        "peers": { "node-b": {
            "node": key(), "membership": "DENIED", "v4": "10.90.0.2", "v6": "fd00::2",
            "wireguard": "BBBB", "endpoint": "198.18.1.2:51820", "session_epoch": null, "lag": null,
            "handshake_seconds": null, "tx_bytes": 1536, "rx_bytes": 10, "ping_v4": ping, "ping_v6": ping,
            "reason": "this node is denied, score below threshold",
            "faults": ["10.90.0.2 goes by way of wlp0s20f3, not through the tunnel: remove that route"]
        }},
        "dropped": { "no_route": 3, "source_not_allowed": 17, "destination_not_allowed": 1234567 }
    }));
    let words = [
        "198.18.1.2:51820",
        "denied,",
        "wlp0s20f3,",
        "1234567,",
        "lacks",
    ];
    check("status", &words, || status::daemon(&node));
    let text = shown(120, || status::daemon(&node));
    assert!(!text.contains("no tunnel"), "the reason says it: {text}");
}
