//! The page over a real socket, with a role that answers from fixed words.

use crate::sheet::Sheet;
use crate::{Board, Config, Listener, Refusal, Source, Token};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::admin::{ControllerStatus, EventInfo, EventList, Explanation, Membership};
use wire::{NodeName, SegmentName};
use zeroize::Zeroizing;

#[derive(Clone)]
struct Role;

impl Source for Role {
    async fn explain(
        &self,
        name: NodeName,
        _: Option<SegmentName>,
    ) -> Result<Explanation, Refusal> {
        Err(Refusal::new(404, format!("asked about {name}"), "none"))
    }

    async fn events(&self, _: u64, _: u64) -> Result<EventList, Refusal> {
        let verdict =
            json!({"name": "node-b", "membership": "denied", "score": 0.4, "reason": "low"});
        let event = EventInfo {
            seq: 1,
            at_utc: "2026-11-26T04:00:00Z".to_owned(),
            by: None,
            kind: "decided".to_owned(),
            body: json!({"segment": 0, "epoch": 7, "nodes": [verdict]}),
            leaf: String::new(),
        };
        Ok(EventList {
            events: vec![event],
            head: 1,
            next: 1,
        })
    }
}

fn node(state: &str, membership: &str, observes: &Value) -> Value {
    let v4 = if state == "ACTIVE" {
        "10.76.0.1"
    } else {
        "10.76.0.2"
    };
    json!({
        "node": "node:00", "membership": membership, "state": state, "last_benchmark": null, "psk": "valid",
        "control": "connected", "v4": v4, "v6": "fd00::1", "wireguard": "", "endpoints": [], "epoch": 7,
        "probation_left": 0, "enrolled_utc": "2026-11-26T03:00:00Z", "observes": observes,
        "segments": {"default": {
            "membership": membership, "state": state, "epoch": 7, "probation_left": 0, "v4": v4, "v6": "fd00::1",
            "wireguard": "",
        }},
    })
}

fn status() -> Arc<ControllerStatus> {
    let epoch = json!({
        "id": 7, "activated_utc": "2026-11-26T04:00:00Z", "expiry_utc": "2026-11-26T04:01:00Z", "secret_hash": "",
        "update": "", "members": 3,
    });
    let policy =
        json!({"threshold": 0.7, "max_benchmark_age": 120, "epoch_seconds": 60, "digest": ""});
    let said = |epoch: u64, rtt: Option<f64>, faults: &[&str]| {
        json!({"session_epoch": epoch, "rtt_v4_ms": rtt, "rtt_v6_ms": null, "faults": faults,
               "tunnel": {"handshake_seconds": 31, "echoes": 64, "lost": 2}, "at_utc": "2026-11-26T04:00:00Z"})
    };
    let of_a = json!({"node-b": said(7, Some(1.5), &[]), "node-c": said(5, Some(2.5), &[]),
                      "node-d": said(7, Some(1.0), &[])});
    let of_b = json!({"node-a": said(7, None, &[]), "node-c": said(7, Some(1.0), &["no way"])});
    let status = json!({
        "schema": 1, "version": "0", "mesh": "mesh:00", "generated_utc": "2026-11-26T04:00:10Z",
        "epoch": epoch, "policy": policy,
        "segments": {"default": {"id": 0, "v4": "10.76.0.0/15", "v6": "fd00::/64", "epoch": epoch, "policy": policy}},
        "nodes": {
            "node-a": node("ACTIVE", "ALLOWED", &of_a), "node-b": node("ACTIVE", "ALLOWED", &of_b),
            "node-c": node("ACTIVE", "ALLOWED", &json!({})), "node-d": node("QUARANTINED", "DENIED", &json!({})),
        },
    });
    Arc::new(serde_json::from_value(status).unwrap())
}

/// A page of [`Role`]; its address.
async fn page(token: Option<&str>) -> SocketAddr {
    let token = token.map(|text| Token::read(&Zeroizing::new(text.to_owned())).unwrap());
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::open(Config { address, token }, 4);
    let address = listener.standing().status().address;
    let board = Arc::new(Board::default());
    board.lay(status());
    tokio::spawn(listener.serve(board, Role));
    address
}

/// Sends a request with these lines; the answer's status, and all of it.
async fn say(at: SocketAddr, request: &str, lines: &[&str]) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let mut words = format!("{request} HTTP/1.1\r\nconnection: close\r\n");
    for line in lines {
        words.push_str(line);
        words.push_str("\r\n");
    }
    words.push_str("\r\n");
    stream.write_all(words.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

fn body(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

const OWN: &str = "host: localhost";

#[test]
fn the_page_is_built_in() {
    assert!(
        crate::is_built(),
        "npm is missing, or could not install the packages: see the build's warning"
    );
}

#[tokio::test]
async fn every_path_is_for_reading_alone() {
    let at = page(None).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "EVICT"] {
        for path in ["/", "/v1/mesh", "/v1/nodes/node-a/evict", "/nothing"] {
            let (status, answer) = say(at, &format!("{method} {path}"), &[OWN]).await;
            assert_eq!(status, 405, "{method} {path}");
            assert!(
                answer.to_lowercase().contains("\r\nallow: get\r\n"),
                "{answer}"
            );
        }
    }
    // The paths of the admin socket that change something, and those of its secrets, are no paths here.
    for path in [
        "/v1/nodes/node-a/evict",
        "/v1/tokens",
        "/v1/status",
        "/metrics",
        "/v1/",
        "/x",
    ] {
        assert_eq!(
            say(at, &format!("GET {path}"), &[OWN]).await.0,
            404,
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_answer_binds_the_browser_to_the_page() {
    let at = page(None).await;
    let asked = [
        ("GET /", OWN, 200),
        ("GET /page.js", OWN, 200),
        ("GET /v1/mesh", OWN, 200),
        ("GET /x", OWN, 404),
        ("POST /", OWN, 405),
        ("GET /", "host: elsewhere.example", 421),
    ];
    for (request, host, expected) in asked {
        let (status, answer) = say(at, request, &[host]).await;
        assert_eq!(status, expected, "{request}");
        let head = answer.split("\r\n\r\n").next().unwrap().to_lowercase();
        for line in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cache-control: no-cache",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(line), "{request}: {line} is not in {head}");
        }
    }
}

#[tokio::test]
async fn a_page_without_a_token_is_asked_by_address_or_as_localhost() {
    let at = page(None).await;
    for (host, expected) in [
        ("host: localhost:7480", 200),
        ("host: 127.0.0.1:7480", 200),
        ("host: [::1]:7480", 200),
        ("host: rebound.example", 421),
        ("x-nothing: here", 421),
    ] {
        assert_eq!(say(at, "GET /v1/mesh", &[host]).await.0, expected, "{host}");
    }
    let (status, _) = say(at, "GET http://rebound.example/v1/mesh", &[OWN]).await;
    assert_eq!(status, 421);
}

#[tokio::test]
async fn a_token_opens_what_has_data_and_under_any_name() {
    const TOKEN: &str = "MDEyMzQ1Njc4OWFiY2RlZmdoaWo=";
    let at = page(Some(TOKEN)).await;
    let right = format!("authorization: Bearer {TOKEN}");
    let host = "host: mesh.example";
    for path in [
        "/v1/mesh",
        "/v1/events",
        "/v1/history?node=node-a",
        "/v1/nodes/node-a/pairs",
    ] {
        let request = format!("GET {path}");
        let (status, answer) = say(at, &request, &[host]).await;
        assert_eq!(status, 401, "{path}");
        assert!(
            answer.to_lowercase().contains("www-authenticate: bearer"),
            "{answer}"
        );
        assert!(!answer.contains("node-b"), "{answer}");
        let wrong = "authorization: Bearer MDEyMzQ1Njc4OWFiY2RlZmdoaWo";
        assert_eq!(say(at, &request, &[host, wrong]).await.0, 401, "{path}");
        assert_eq!(say(at, &request, &[host, &right]).await.0, 200, "{path}");
    }
    assert_eq!(
        say(at, "GET /v1/nodes/node-a/explain", &[host, &right])
            .await
            .0,
        404
    );
    assert_eq!(
        say(at, "GET /v1/nodes/node-a/explain", &[host]).await.0,
        401
    );
    assert_eq!(
        say(at, "GET /", &[host]).await.0,
        200,
        "the form for the token"
    );
    for _ in 0..20 {
        say(at, "GET /v1/mesh", &[host, "authorization: Bearer no"]).await;
    }
    let guess = say(at, "GET /v1/mesh", &[host, "authorization: Bearer no"]).await;
    assert_eq!(guess.0, 429);
    assert_eq!(say(at, "GET /v1/mesh", &[host, &right]).await.0, 200);
}

#[tokio::test]
async fn the_mesh_has_a_letter_for_each_pair_and_is_sent_once() {
    let at = page(None).await;
    let (_, answer) = say(at, "GET /v1/mesh", &[OWN]).await;
    let mesh = body(&answer);
    assert_eq!(
        mesh["pairs"]["default"]["rows"],
        json!(["-wl-", "d-f-", "??--", "----"])
    );
    assert_eq!(mesh["pairs"]["default"]["unwell"], 3);
    assert_eq!(mesh["pairs"]["default"]["sums"][0], json!([1, 1, 0, 2.5]));
    assert_eq!(
        mesh["pairs"]["default"]["links"].as_array().unwrap().len(),
        4
    );
    assert!(mesh["status"]["nodes"]["node-a"]["observes"].is_null());
    assert_eq!(mesh["status"]["nodes"]["node-d"]["state"], "QUARANTINED");
    let tag = answer
        .lines()
        .find_map(|line| line.strip_prefix("etag: "))
        .unwrap();
    let known = format!("if-none-match: {tag}");
    let (status, again) = say(at, "GET /v1/mesh", &[OWN, &known]).await;
    assert_eq!(status, 304);
    assert!(again.ends_with("\r\n\r\n"), "{again}");
}

#[tokio::test]
async fn a_node_has_its_pairs_its_history_and_its_events() {
    let at = page(None).await;
    let pairs = body(&say(at, "GET /v1/nodes/node-b/pairs", &[OWN]).await.1);
    assert_eq!(pairs["says"]["node-c"]["faults"], json!(["no way"]));
    assert_eq!(pairs["said"]["node-a"]["rtt_v4_ms"], 1.5);
    assert_eq!(pairs["said"]["node-a"]["tunnel"]["lost"], 2);
    let request = "GET /v1/history?segment=default&node=node-b&node=node-c&points=9";
    let history = body(&say(at, request, &[OWN]).await.1);
    assert_eq!(history["thresholds"], json!([[0, 0.7]]));
    assert_eq!(history["nodes"]["node-b"]["decisions"][0]["score"], 0.4);
    assert_eq!(history["nodes"]["node-c"]["decisions"], json!([]));
    let events = body(
        &say(at, "GET /v1/events?node=node-b&limit=5", &[OWN])
            .await
            .1,
    );
    assert_eq!(events["events"][0]["seq"], 1);
    let many = "&node=x".repeat(51);
    for (request, status, word) in [
        ("GET /v1/history?segment=other", 404, "segment"),
        (&*format!("GET /v1/history?{many}"), 400, "50"),
        ("GET /v1/history?node=%3Cscript", 400, "name"),
        ("GET /v1/events?limit=x", 400, "`limit` is not a number"),
        ("GET /v1/nodes/nobody/pairs", 404, "no node nobody"),
        ("GET /v1/nodes/..%2f/explain", 400, "name"),
        ("GET /v1/nodes/node-b/explain", 404, "asked about node-b"),
    ] {
        let (got, answer) = say(at, request, &[OWN]).await;
        assert_eq!(got, status, "{request}: {answer}");
        let error = body(&answer);
        assert!(error["error"].as_str().unwrap().contains(word), "{error}");
        assert!(error["hint"].is_string(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_taken_is_waited_for_and_told() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let config = Config {
        address,
        token: None,
    };
    let listener = Listener::open(config, 1);
    let standing = listener.standing();
    let fault = standing.status().fault.unwrap();
    assert!(
        fault.contains(&address.to_string()) && fault.contains("`page`"),
        "{fault}"
    );
    tokio::spawn(listener.serve(Arc::new(Board::default()), Role));
    drop(taken);
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(standing.status().fault, None);
    assert_eq!(
        say(address, "GET /v1/mesh", &[OWN]).await.0,
        503,
        "no status yet"
    );
}

#[test]
fn each_segment_has_its_own_pairs() {
    let mut status = (*status()).clone();
    let default = status.segments.keys().next().unwrap().clone();
    let other: SegmentName = "a-second".parse().unwrap();
    let mut segment = status.segments[&default].clone();
    (segment.id, segment.epoch.id) = (1, 3);
    status.segments.insert(other.clone(), segment);
    // Three of the four are in it, too, and one says that another does not answer there.
    for name in ["node-a", "node-b", "node-d"] {
        let name: NodeName = name.parse().unwrap();
        let node = status.nodes.get_mut(&name).unwrap();
        let mut here = node.segments[&default].clone();
        here.membership = Membership::Allowed;
        if name.as_str() == "node-d" {
            let mut seen = status.nodes[&"node-a".parse().unwrap()]
                .observes
                .values()
                .next()
                .cloned()
                .unwrap();
            seen.session_epoch = Some(3);
            let well = seen.clone();
            (seen.rtt_v4_ms, seen.rtt_v6_ms) = (None, None);
            here.observes = [("node-a", seen), ("node-b", well)]
                .map(|(name, it)| (name.parse().unwrap(), it))
                .into();
        }
        let node = status.nodes.get_mut(&name).unwrap();
        node.segments.insert(other.clone(), here);
    }
    let sheet = Sheet::of(status, 1);
    let mesh: Value = serde_json::from_slice(&sheet.body).unwrap();
    assert_eq!(
        mesh["pairs"]["default"]["rows"],
        json!(["-wl-", "d-f-", "??--", "----"])
    );
    assert_eq!(
        mesh["pairs"]["a-second"]["rows"],
        json!(["-??", "?-?", "dw-"])
    );
    let d: NodeName = "node-d".parse().unwrap();
    assert_eq!(sheet.home(&d), Some(&default), "by number, not by name");
    let around = |segment| serde_json::to_value(sheet.around(&d, segment)).unwrap();
    assert_eq!(around(&other)["says"].as_object().unwrap().len(), 2);
    assert_eq!(around(&default)["says"], Value::Null);
    let c: NodeName = "node-c".parse().unwrap();
    assert!(sheet.around(&c, &other).is_none(), "it is not in it");
    let body = String::from_utf8(sheet.body.to_vec()).unwrap();
    assert!(
        !body.contains("observes"),
        "the reports are beside the status"
    );
}
