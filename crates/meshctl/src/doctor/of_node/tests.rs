//! Each way out is that of what was seen.

use super::*;
use crate::doctor::State;
use serde_json::json;

/// A peer with a session or without, and with these answers to its echoes.
fn peer(session: bool, v4: Option<bool>, v6: Option<bool>, faults: &[&str]) -> PeerStatus {
    let ping = |ok: Option<bool>| {
        ok.map(|ok| json!({"ok": ok, "rtt_ms": null, "at_utc": "2026-01-01T00:00:00Z"}))
    };
    let peer = json!({
        "node": "node:1", "membership": "ALLOWED", "v4": "10.76.0.2", "v6": "fd00::2", "wireguard": null,
        "endpoint": "192.0.2.2:51820", "session_epoch": session.then_some(7), "lag": null,
        "handshake_seconds": null, "tx_bytes": 1, "rx_bytes": 0, "ping_v4": ping(v4), "ping_v6": ping(v6),
        "faults": faults,
    });
    serde_json::from_value(peer).unwrap()
}

#[test]
fn each_way_in_which_a_peer_is_not_reached_is_told_apart() {
    let (yes, no) = (Some(true), Some(false));
    for (peer, state, words) in [
        (peer(true, yes, yes, &[]), State::Ok, ""),
        (peer(true, yes, None, &[]), State::Ok, ""),
        (peer(true, yes, no, &[]), State::Warning, "over IPv6"),
        (peer(true, no, yes, &[]), State::Warning, "over IPv4"),
        (
            peer(true, no, no, &[]),
            State::Wrong,
            "nothing has come from it",
        ),
        (
            peer(false, no, None, &[]),
            State::Wrong,
            "no handshake with 192.0.2.2:51820",
        ),
        (peer(true, None, None, &[]), State::Unknown, "no echo"),
        (
            peer(false, None, None, &[]),
            State::Unknown,
            "nothing was sent",
        ),
        (peer(true, yes, yes, &["by eth1"]), State::Wrong, "by eth1"),
    ] {
        let found = judged("", &"node-b".parse().unwrap(), &peer);
        let (is, seen) = found.map_or((State::Ok, String::new()), |it| (it.state, it.seen));
        assert_eq!(is, state, "{peer:?}");
        assert!(seen.contains(words), "{seen}");
    }
}

fn status(changes: &[(&str, serde_json::Value)]) -> NodeDaemonStatus {
    let mut status = json!({
        "schema": 1, "version": "0.1.0", "generated_utc": "2031-01-01T00:01:00Z", "node": "node:1",
        "name": "node-a", "wireguard": "", "v4": null, "v6": null, "control": "connected",
        "controller": "198.18.0.1:7443", "membership": "ALLOWED", "epoch": 12, "next_epoch": null,
        "lease_seconds": 100.0, "interface": null, "last_evidence": null, "peers": {}, "dropped": {}
    });
    for (name, value) in changes {
        status[*name] = value.clone();
    }
    serde_json::from_value(status).unwrap()
}

fn found<'f>(all: &'f [Finding], area: &str) -> &'f Finding {
    all.iter().find(|it| it.area == area).unwrap()
}

#[test]
fn evidence_that_was_not_sent_has_the_cause_that_is_known() {
    let (set, not) = (
        Local::of_settings("emitter = 'mock'"),
        Local::of_settings(""),
    );
    let way_out = |status: &NodeDaemonStatus, local: &Local| {
        let it = benchmark(status, local);
        format!("{} {}", it.seen, it.way_out.unwrap_or_default())
    };
    let (there, gone) = (status(&[]), status(&[("control", json!("disconnected"))]));
    for local in [&set, &not] {
        let words = way_out(&gone, local);
        assert!(
            words.contains("no connection") && !words.contains("emitter"),
            "{words}"
        );
    }
    assert!(way_out(&there, &not).contains("set `emitter`"));
    let words = way_out(&there, &set);
    assert!(
        words.contains("`emitter` is `mock`") && !words.contains("set `emitter`"),
        "{words}"
    );
}

#[test]
fn a_node_that_is_not_enrolled_says_so_and_no_more() {
    let attention =
        "this node is not enrolled yet: the last attempt failed (x); see that the controller runs";
    let status = status(&[("name", json!(null)), ("attention", json!([attention]))]);
    let all = look(&status, &Local::of_settings(""));
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(
        all[0].way_out.as_deref(),
        Some("see that the controller runs")
    );
    assert!(
        all[0]
            .seen
            .contains("not enrolled yet: the last attempt failed")
    );
}

#[test]
fn another_controller_is_not_looked_for_with_a_packet_dump() {
    let error = format!("{OTHER_CONTROLLER}: its key is not the one that this node was given");
    let status = status(&[
        ("control", json!("disconnected")),
        ("control_error", json!(error)),
    ]);
    let all = look(&status, &Local::of_settings(""));
    let way_out = found(&all, "controller").way_out.clone().unwrap();
    assert!(
        way_out.contains("token") && !way_out.contains("tcpdump"),
        "{way_out}"
    );
}

#[test]
fn ipv6_that_is_off_here_is_looked_for_here() {
    let mut peer = peer(true, Some(true), Some(false), &[]);
    if let Some(ping) = &mut peer.ping_v6 {
        ping.cause = Some("not sent: Cannot assign requested address (os error 99)".into());
    }
    let found = judged("", &"node-b".parse().unwrap(), &peer).unwrap();
    let way_out = found.way_out.unwrap();
    assert!(
        way_out.contains("on here") && !way_out.contains("node-b"),
        "{way_out}"
    );
    let off = way_out_of(&["fd00::1/64 is missing: IPv4 only, because it is off".into()]);
    assert!(
        off.contains("disable_ipv6") && !off.contains("remove"),
        "{off}"
    );
    let foreign = "eth1 has 10.76.0.9, an address of the mesh range: remove it there";
    assert_eq!(way_out_of(&[foreign.into()]), "remove what is named");
    let nowhere =
        way_out_of_way("fd00::2 goes nowhere, not through the tunnel: remove that route or rule");
    assert!(
        nowhere.contains("ip route get fd00::2") && nowhere.contains("IPv6 is on"),
        "{nowhere}"
    );
}
