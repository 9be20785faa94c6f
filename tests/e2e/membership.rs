//! Membership, and how an operator sees it.

use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::harness::Mesh;
use wire::admin::{Control, ControllerStatus, Membership, NodeState, PskState};

#[test]
fn a_node_that_scores_too_low_is_shut_out_and_comes_back_while_the_others_lose_nothing() {
    // Long enough on probation for everybody to have met everybody.
    let builder = Mesh::builder().threshold(0.7).probation_epochs(5);
    let mut mesh = builder.mean("node-c", 0.4).start();
    let pings = [
        mesh.keep_pinging("node-a", "node-b"),
        mesh.keep_pinging("node-b", "node-a"),
    ];

    mesh.wait_until_membership("node-c", Membership::Denied);
    let node = mesh.node("node-c");
    assert_eq!(node.reason.as_deref(), Some("score below threshold"));
    assert_eq!(node.state, NodeState::Quarantined);
    assert_eq!(
        node.control,
        Control::Connected,
        "so that it can prove itself"
    );
    assert_eq!(node.psk, PskState::None);
    let explained = mesh.explain("node-c");
    assert_eq!(explained.decision.membership, Membership::Denied);
    assert!(explained.rules.iter().any(|rule| !rule.holds));
    mesh.wait_until("node-c knows", |mesh| {
        let own = mesh.node_status("node-c");
        own.membership == Some(Membership::Denied)
            && own.reason.as_deref() == Some("score below threshold")
    });
    let own = mesh.node_status("node-c");
    let mut peers = own.peers.values();
    assert!(
        peers.all(|peer| peer.session_epoch.is_none()),
        "it drops its own sessions too: {own:?}"
    );
    assert!(mesh.none_reach("node-c", &["node-a", "node-b"]));
    mesh.wait_epochs(2);
    assert!(mesh.none_reach("node-c", &["node-a", "node-b"]), "still");
    assert_eq!(mesh.node("node-c").state, NodeState::Quarantined);

    mesh.set_score("node-c", 0.95);
    mesh.wait_until_all_reach_all();
    assert_eq!(mesh.node("node-c").state, NodeState::Active);
    mesh.wait_until("node-c holds the keys", |mesh| {
        mesh.node("node-c").psk == PskState::Valid
    });
    for ping in pings {
        let losses = ping.stop();
        assert!(losses.sent > 50, "{losses:?}");
        assert_eq!(losses.lost, 0, "{losses:?}");
    }
}

#[test]
fn epochs_come_and_go_under_load_without_a_lost_packet() {
    let mut mesh = Mesh::builder().nodes(4).epoch_seconds(1).start();
    let nodes = mesh.nodes();
    let mut pings = Vec::new();
    for from in &nodes {
        for to in nodes.iter().filter(|to| *to != from) {
            pings.push(mesh.keep_pinging(from, to));
        }
    }
    let before = mesh.epoch();
    let after = mesh.wait_epochs(12);
    assert!(after >= before + 12);
    for ping in pings {
        let losses = ping.stop();
        assert!(losses.sent > 30, "{losses:?}");
        assert_eq!(losses.lost, 0, "{losses:?}");
    }
}

#[test]
fn status_json_is_whole_at_every_read() {
    let mut mesh = Mesh::builder().epoch_seconds(1).start();
    // Everything that may be absent is there once everybody was judged and has reported.
    mesh.wait_until("everybody has reported", |mesh| {
        let text = std::fs::read(mesh.status_file()).unwrap_or_default();
        let status = serde_json::from_slice::<ControllerStatus>(&text).ok();
        let mut nodes = status.iter().flat_map(|status| status.nodes.values());
        nodes.all(|node| {
            let known = node.last_benchmark.is_some() && node.clock_skew_ms.is_some();
            known && node.observes.len() == 2
        })
    });
    let stop = Arc::new(AtomicBool::new(false));
    let (path, done) = (mesh.status_file(), Arc::clone(&stop));
    let reader = std::thread::spawn(move || {
        let mut epochs = std::collections::BTreeSet::new();
        let mut reads = 0_u32;
        while !done.load(Ordering::Relaxed) {
            let text = std::fs::read(&path).expect("it is always there");
            let status: ControllerStatus = serde_json::from_slice(&text)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
            let value: Value = serde_json::from_slice(&text).expect("it was JSON just now");
            assert_fields(&value);
            epochs.insert(status.epoch.id);
            reads += 1;
            std::thread::sleep(Duration::from_micros(500));
        }
        (reads, epochs)
    });
    mesh.wait_epochs(6);
    stop.store(true, Ordering::Relaxed);
    let (reads, epochs) = reader.join().expect("every read was whole");
    assert!(reads > 1000, "{reads} reads");
    assert!(epochs.len() >= 5, "it changed meanwhile: {epochs:?}");
    let ids: Vec<u64> = epochs.iter().copied().collect();
    assert_eq!(
        ids.last().copied().unwrap_or(0) - ids[0],
        ids.len() as u64 - 1,
        "every epoch was there to see"
    );
}

/// Every field that an operator's scripts may rely on, with its form.
fn assert_fields(status: &Value) {
    let text = |value: &Value, field: &str| {
        let found = value[field].as_str();
        found
            .unwrap_or_else(|| panic!("no text in `{field}`: {value}"))
            .to_owned()
    };
    let number = |value: &Value, field: &str| {
        let found = value[field].as_f64();
        found.unwrap_or_else(|| panic!("no number in `{field}`: {value}"))
    };
    assert_eq!(number(status, "schema"), 1.0);
    text(status, "version");
    assert!(text(status, "mesh").starts_with("mesh:"));
    assert_utc(&text(status, "generated_utc"));

    let epoch = &status["epoch"];
    assert!(number(epoch, "id") >= 1.0);
    assert_eq!(number(epoch, "members"), 3.0);
    for field in ["activated_utc", "expiry_utc"] {
        assert_utc(&text(epoch, field));
    }
    assert!(text(epoch, "activated_utc") < text(epoch, "expiry_utc"));
    for field in ["secret_hash", "update"] {
        assert_sha256(&text(epoch, field));
    }

    let policy = &status["policy"];
    assert_eq!(number(policy, "threshold"), 0.7);
    assert_eq!(number(policy, "max_benchmark_age"), 120.0);
    assert_eq!(number(policy, "epoch_seconds"), 1.0);
    assert_sha256(&text(policy, "digest"));

    let nodes = status["nodes"].as_object().expect("nodes by name");
    assert_eq!(nodes.len(), 3);
    for node in nodes.values() {
        assert!(text(node, "node").starts_with("node:"));
        for (field, words) in [
            ("membership", &["ALLOWED", "DENIED"][..]),
            (
                "state",
                &["ACTIVE", "PROBATION", "QUARANTINED", "OFFLINE", "EVICTED"],
            ),
            ("psk", &["valid", "none"]),
            ("control", &["connected", "disconnected"]),
        ] {
            let word = text(node, field);
            assert!(words.contains(&word.as_str()), "{field}: {word}");
        }
        for field in ["v4", "v6", "wireguard", "software"] {
            text(node, field);
        }
        for field in ["epoch", "probation_left", "clock_skew_ms"] {
            number(node, field);
        }
        assert_utc(&text(node, "enrolled_utc"));
        assert!(
            node["endpoints"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        );
        assert!(node["observes"].is_object());
        let benchmark = &node["last_benchmark"];
        assert!((0.0..=1.0).contains(&number(benchmark, "overall")));
        assert_utc(&text(benchmark, "timestamp"));
        for field in ["suite", "suite_version"] {
            text(benchmark, field);
        }
        assert_eq!(text(benchmark, "signer"), "self");
        assert_sha256(&text(benchmark, "digest"));
    }
}

fn assert_utc(text: &str) {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert!(
        shape.starts_with("0000-00-00T00:00:00") && shape.ends_with('Z'),
        "{text}"
    );
}

fn assert_sha256(text: &str) {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    assert!(
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()),
        "{text}"
    );
}
