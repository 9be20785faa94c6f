//! `top` on a screen in memory.

use super::draw::draw;
use super::state::{Request, State};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode};
use serde_json::{Value, json};
use wire::admin::Status;

fn mesh(nodes: usize) -> Value {
    let epoch = json!({
        "id": 7, "activated_utc": "2031-01-01T00:00:00Z", "expiry_utc": "2031-01-01T00:01:00Z",
        "secret_hash": "sha256:00", "update": "sha256:00", "members": nodes
    });
    let policy = json!({
        "threshold": 0.7, "max_benchmark_age": 120, "epoch_seconds": 60, "digest": "sha256:00"
    });
    let node = |at: usize| {
        let (state, reason) = match at % 3 {
            1 => ("QUARANTINED", Some("score below threshold \u{1b}[2J")),
            _ => ("ACTIVE", None),
        };
        let mut node = json!({
            "node": format!("node:{at:064x}"), "membership": if reason.is_some() { "DENIED" } else { "ALLOWED" },
            "state": state, "last_benchmark": null, "score": 0.5, "psk": "valid", "control": "connected",
            "v4": "10.76.0.2", "v6": "fd00::2", "wireguard": "", "endpoints": [], "epoch": 7,
            "probation_left": 0, "enrolled_utc": "2031-01-01T00:00:00Z"
        });
        if let Some(reason) = reason {
            node["reason"] = json!(reason);
        }
        (format!("node-{at:03}"), node)
    };
    json!({
        "role": "controller", "schema": 1, "version": "0.1.0", "mesh": "mesh:00",
        "generated_utc": "2031-01-01T00:00:15Z", "epoch": epoch, "policy": policy,
        "segments": { "default": {
            "id": 0, "v4": "10.76.0.0/15", "v6": "fd00::/64", "epoch": epoch, "policy": policy
        }},
        "nodes": (0..nodes).map(node).collect::<serde_json::Map<_, _>>()
    })
}

fn state(status: Value) -> State {
    State::new(serde_json::from_value::<Status>(status).unwrap())
}

/// The text on a screen of so many columns and rows.
fn shown(state: &mut State, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    terminal.backend().to_string()
}

fn press(state: &mut State, code: KeyCode) -> Option<Request> {
    state.handle(&Event::Key(code.into()))
}

#[test]
fn a_mesh_has_its_verdict_its_epoch_and_every_node_in_words() {
    let mut state = state(mesh(3));
    let text = shown(&mut state, 110, 20);
    for words in [
        "WELL      2 of 3 nodes are members",
        "epoch 7 ends in 45 s, 3 members",
        "node-000",
        "QUARANTINED",
        "0.500",
        "score below threshold \\u{1b}[2J",
    ] {
        assert!(text.contains(words), "no `{words}`:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn whatever_is_wrong_is_told_first_and_an_old_picture_says_that_it_is_old() {
    let mut status = mesh(3);
    status["attention"] = json!(["members that are not connected: node-000; start them"]);
    let mut state = state(status);
    let text = shown(&mut state, 110, 20);
    assert!(
        text.contains("NOT WELL  1 thing needs attention:"),
        "{text}"
    );
    assert!(
        text.contains("1. members that are not connected: node-000"),
        "{text}"
    );
    state.handle_status(Err("the daemon has ended".to_owned()));
    let text = shown(&mut state, 110, 20);
    assert!(text.contains("NOT CURRENT: the daemon has ended"), "{text}");
    state.handle_status(serde_json::from_value(mesh(3)).map_err(|_| String::new()));
    assert!(!shown(&mut state, 110, 20).contains("NOT CURRENT"));
}

#[test]
fn each_thing_that_is_wrong_is_told_to_its_way_out_on_a_narrow_screen() {
    let mut status = mesh(3);
    let long = "members that are not connected: node-000, node-001; they hear of no epoch: start them, or look for what \
                is between them and this controller";
    status["attention"] = json!([
        long,
        "a second one; `meshctl explain node-002` says which rule it fails"
    ]);
    let mut state = state(status);
    for columns in [40, 60, 80] {
        let text = shown(&mut state, columns, 40);
        let text = text.replace(['"', '\n'], " ");
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        assert!(
            text.contains(long) && text.contains("which rule it fails"),
            "{columns}: {text}"
        );
    }
    let small = shown(&mut state, 40, 10);
    assert!(small.contains("more lines: `meshctl status`"), "{small}");
}

#[test]
fn a_reason_is_whole_on_every_screen() {
    let mut status = mesh(3);
    let reason = "score below threshold, and the evidence is older than the policy allows";
    status["nodes"]["node-001"]["reason"] = json!(reason);
    let mut state = state(status);
    for columns in [40, 60, 80, 120] {
        let text = shown(&mut state, columns, 40);
        for word in reason.split(' ').chain(["node-001", "QUARANTINED"]) {
            assert!(text.contains(word), "{columns}: no `{word}`:\n{text}");
        }
    }
}

#[test]
fn every_screen_has_room_and_three_hundred_nodes_scroll() {
    let mut state = state(mesh(300));
    for (columns, rows) in [(1, 1), (20, 3), (40, 10), (80, 24), (300, 100)] {
        shown(&mut state, columns, rows);
    }
    assert!(!shown(&mut state, 80, 24).contains("node-299"));
    assert_eq!(press(&mut state, KeyCode::End), None);
    assert!(shown(&mut state, 80, 24).contains("> node-299"));
    // Fewer nodes than the one that was chosen.
    state.handle_status(serde_json::from_value(mesh(3)).map_err(|_| String::new()));
    assert!(shown(&mut state, 80, 24).contains("> node-002"));
}

#[test]
fn keys_choose_explain_and_quit() {
    let mut state = state(mesh(3));
    assert_eq!(press(&mut state, KeyCode::Down), None);
    let asked = press(&mut state, KeyCode::Enter);
    assert_eq!(asked, Some(Request::Explain("node-001".parse().unwrap())));
    state.show("RULE overall >= 0.70\nNO".to_owned());
    assert!(shown(&mut state, 80, 24).contains("RULE overall >= 0.70"));
    assert_eq!(
        press(&mut state, KeyCode::Char('q')),
        None,
        "it closes the text"
    );
    assert!(!shown(&mut state, 80, 24).contains("RULE"));
    assert_eq!(press(&mut state, KeyCode::Char('q')), Some(Request::Quit));
}
