//! The page before 300 nodes. The status is made of the forms of the admin socket and laid anew twice a second, each
//! time with other round trips and other unwell pairs, as reports of nodes change it.

use crate::Browser;
use page::{Board, Config, Listener, Refusal, Source, Token};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use wire::admin::{ControllerStatus, EventInfo, EventList, Explanation};
use wire::{NodeName, SegmentName};

#[test]
fn a_mesh_of_300_is_redrawn_at_once_and_words_of_others_stay_text() {
    let _alone = crate::alone();
    const TOKEN: &str = "dGhlIHRva2VuIG9mIHRoZSBwYWdl";
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let guard = runtime.enter();
    let config = Config {
        address: "127.0.0.1:0".parse().expect("an address"),
        token: Some(Token::read(&TOKEN.to_owned().into()).expect("a token")),
    };
    let listener = Listener::open(config, 16);
    let address = listener.standing().status().address;
    let board = Arc::new(Board::default());
    runtime.spawn(listener.serve(Arc::clone(&board), Log));
    std::thread::spawn(move || {
        let first = status();
        for round in 0.. {
            let mut status = first.clone();
            change(&mut status, round);
            board.lay(Arc::new(status));
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    drop(guard);
    let settings = json!({
        "url": format!("http://{address}/"), "token": TOKEN, "count": NODES, "redraws": 12,
        "hostile": [HOSTILE],
        // The machine of a test run has other work; PAGE_LIMIT_MS holds the figure where it has none.
        "limit": std::env::var("PAGE_LIMIT_MS").ok().and_then(|it| it.parse::<u32>().ok()),
    });
    let mut browser = Browser::start(Command::new("node"), "large", settings);
    for view in ["graph", "matrix"] {
        let figure = browser.hear();
        assert_eq!(figure["redraw"], view);
        println!("{figure}");
    }
    assert_eq!(browser.hear()["say"], "done");
    browser.end();
    runtime.shutdown_background();
}

#[derive(Clone)]
struct Log;

impl Source for Log {
    async fn explain(
        &self,
        name: NodeName,
        _: Option<SegmentName>,
    ) -> Result<Explanation, Refusal> {
        let error = wire::admin::ApiError {
            error: format!("{name} is not explained here"),
            hint: None,
        };
        Err(Refusal { status: 404, error })
    }

    async fn events(&self, after: u64, limit: u64) -> Result<EventList, Refusal> {
        let events = (after + 1..=(after + limit).min(EVENTS)).map(|seq| EventInfo {
            seq,
            at_utc: jiff::Timestamp::now().to_string(),
            by: None,
            kind: "decided".to_owned(),
            body: json!({"segment": 0, "epoch": seq, "nodes": (0..NODES).map(|at| {
                json!({"name": name(at), "membership": "allowed", "score": 0.8, "reason": HOSTILE})
            }).collect::<Vec<_>>()}),
            leaf: String::new(),
        });
        Ok(EventList {
            events: events.collect(),
            head: EVENTS,
            next: (after + limit).min(EVENTS),
        })
    }
}

fn name(at: usize) -> String {
    format!("node-{at:03}")
}

/// The mesh after a round: other round trips, and other pairs that are not well.
fn change(status: &mut ControllerStatus, round: usize) {
    status.generated_utc = jiff::Timestamp::now().to_string();
    for (at, node) in status.nodes.values_mut().enumerate() {
        for (peer, said) in node.observes.values_mut().enumerate() {
            if (at * 31 + peer * 17 + round).is_multiple_of(997) {
                said.rtt_v4_ms = None;
            } else if (at * 13 + peer * 7 + round).is_multiple_of(1499) {
                said.session_epoch = Some(95);
            } else {
                said.rtt_v4_ms = said.rtt_v4_ms.map(|it| it + (round % 10) as f64 / 10.0);
            }
        }
    }
}

/// The status of the whole mesh, in which every 29th node is not a member.
fn status() -> ControllerStatus {
    let now = jiff::Timestamp::now();
    let soon = now + jiff::SignedDuration::from_secs(30);
    let epoch = json!({
        "id": 100, "activated_utc": now.to_string(), "expiry_utc": soon.to_string(), "secret_hash": "",
        "update": "", "members": NODES,
    });
    let policy =
        json!({"threshold": 0.7, "max_benchmark_age": 120, "epoch_seconds": 60, "digest": ""});
    let nodes = (0..NODES).map(|at| (name(at), node(at, &now.to_string())));
    let nodes: serde_json::Map<String, Value> = nodes.collect();
    let status = json!({
        "schema": 1, "version": "0", "mesh": "mesh:00112233445566778899", "generated_utc": now.to_string(),
        "alarms": [HOSTILE], "epoch": epoch, "policy": policy,
        "segments": {"default": {"id": 0, "v4": "10.76.0.0/15", "v6": "fd00::/64", "epoch": epoch, "policy": policy}},
        "nodes": nodes,
    });
    serde_json::from_value(status).expect("these are the forms of the admin socket")
}

fn node(at: usize, now: &str) -> Value {
    let out = at.is_multiple_of(29);
    let observes = (0..NODES).filter(|peer| *peer != at && !out).map(|peer| {
        let faults: &[&str] = if at == 7 && peer == 11 { &[HOSTILE] } else { &[] };
        let trip = 0.3 + ((at + peer) % 50) as f64 / 10.0;
        let said = json!({
            "session_epoch": 100, "rtt_v4_ms": trip, "rtt_v6_ms": null, "faults": faults, "at_utc": now,
        });
        (name(peer), said)
    });
    let observes: serde_json::Map<String, Value> = observes.collect();
    let (membership, state) = match (out, at % 58) {
        (true, 0) => ("DENIED", "QUARANTINED"),
        (true, _) => ("DENIED", "OFFLINE"),
        (false, _) => ("ALLOWED", "ACTIVE"),
    };
    let v4 = format!("10.76.{}.{}", at / 250, at % 250 + 1);
    let reason = out.then_some(HOSTILE);
    json!({
        "node": "node:00", "membership": membership, "state": state, "last_benchmark": null, "psk": "valid",
        "control": "connected", "v4": v4, "v6": "fd00::1", "wireguard": "", "endpoints": [], "epoch": 100,
        "probation_left": 0, "enrolled_utc": now, "observes": observes, "score": 0.8, "reason": reason,
        "segments": {"default": {
            "membership": membership, "state": state, "epoch": 100, "probation_left": 0, "v4": v4, "v6": "fd00::1",
            "wireguard": "", "score": 0.8, "reason": reason,
        }},
    })
}

const NODES: usize = 300;
const EVENTS: u64 = 40;
/// A text of another machine or of an operator that a browser would run if it were markup.
const HOSTILE: &str = "<img src=x onerror=\"window.hostile=1\"><script>window.hostile=1</script>";
