//! A whole controller with its sockets, on loopback.

use super::*;
use crate::{Config, Controller, Keys, OpenError};
use keys::ControllerSecret;
use quic::Dialer;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use wire::admin::ApiError;

fn config(dir: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: Vec::new(),
        state_dir: dir.join("state"),
        founding: true,
        status_file: dir.join("status.json"),
        segments: crate::setup::SegmentSetup::only(
            Policy::default(),
            crate::open::DEFAULT_MESH_V4,
            None,
        ),
        enrolment: Default::default(),
        log_name: "test".into(),
        keep_evidence: Duration::ZERO,
        adopt_log: None,
        page: None,
        metrics_listen: None,
        clients: 16,
    }
}

/// The socket is beside the state directory, as the daemon would bind it.
fn open(config: Config) -> Result<Controller, OpenError> {
    let socket = socket_of(&config);
    let _ = std::fs::remove_file(&socket);
    let admin = UnixListener::bind(socket).unwrap();
    admin.set_nonblocking(true).unwrap();
    let authority = AuthoritySecret::from_base64(&format!("{}=", "A".repeat(43))).unwrap();
    let bound = Controller::bind(config.listen)?;
    Controller::open(
        config,
        Keys {
            connection: ControllerSecret::generate(&mut OsRng),
            authority,
            log: log_key(),
        },
        admin,
        bound,
    )
}

fn socket_of(config: &Config) -> PathBuf {
    config.state_dir.with_file_name("admin.sock")
}

async fn http(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let len = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_node_enrols_and_an_operator_asks_through_the_real_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (socket, status_file) = (socket_of(&config), config.status_file.clone());
    let controller = open(config).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(controller.serve(
        async {
            let _ = stopped.await;
        },
        service::Service::default(),
    ));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&status_file), 0o644);

    let (code, body) = http(&socket, "POST", "/v1/tokens", "").await;
    assert_eq!(code, 200);
    let created: wire::admin::TokenCreated = serde_json::from_str(&body).unwrap();
    let token: Token = created.token.parse().unwrap();

    let node = NodeSecret::generate(&mut OsRng);
    let dialer = Dialer::bind(&node, token.controller).unwrap();
    let connection = dialer
        .connect(token.controllers[0].parse().unwrap())
        .await
        .unwrap();
    let (mut sender, mut receiver) = connection
        .open_stream::<ToController, ToNode>()
        .await
        .unwrap();
    let enrol = Enrol {
        token: token.secret,
        name: Some(name("node-a")),
        segments: vec![wire::Ask::unnamed(wg())],
        addresses: Vec::new(),
    };
    sender.send(&ToController::Enrol(enrol)).await.unwrap();
    let answer = receiver.recv().await.unwrap();
    let Some(ToNode::Enrolled(place)) = answer else {
        panic!("{answer:?}");
    };
    let place = place[0].verify(&token.authorities).unwrap();
    assert_eq!((place.name.as_str(), place.node), ("node-a", node.public()));
    let hello = Hello {
        software: "test".into(),
        listen_port: 1,
        advertised: Vec::new(),
        addresses: Vec::new(),
        newest: Vec::new(),
        holds: Vec::new(),
        told: Vec::new(),
        log: None,
        unix_ms: 0,
        instance: wire::fixtures::instance(1, 1),
    };
    sender.send(&ToController::Hello(hello)).await.unwrap();
    assert!(matches!(
        receiver.recv().await.unwrap(),
        Some(ToNode::Welcome { .. })
    ));
    assert!(matches!(
        receiver.recv().await.unwrap(),
        Some(ToNode::Update(_))
    ));

    let (code, body) = http(&socket, "GET", "/v1/status", "").await;
    let status: Status = serde_json::from_str(&body).unwrap();
    let Status::Controller(status) = status else {
        panic!("{body}");
    };
    assert_eq!((code, status.nodes.len()), (200, 1));
    let uid = dir.path().metadata().unwrap().uid();
    let (code, body) = http(&socket, "GET", "/v1/events", "").await;
    let list: wire::admin::EventList = serde_json::from_str(&body).unwrap();
    let by = |kind: &str| {
        let event = list.events.iter().find(|event| event.kind == kind);
        event.unwrap().by.clone()
    };
    assert_eq!(
        (code, by("token_created")),
        (200, Some(format!("uid:{uid}")))
    );
    // The node asked for its place itself, and the mesh was nobody's order.
    assert_eq!((by("node_enrolled"), by("mesh_created")), (None, None));
    refusals(&socket).await;

    stop.send(()).unwrap();
    let last = receiver.recv().await.unwrap();
    assert!(matches!(
        last,
        Some(ToNode::Refused {
            reason: Refusal::Stopping
        })
    ));
    // A node that has had the last word closes.
    drop((sender, receiver));
    connection.close("");
    serving.await.unwrap().unwrap();
    let written = std::fs::read_to_string(&status_file).unwrap();
    let written: wire::admin::ControllerStatus = serde_json::from_str(&written).unwrap();
    assert_eq!(written.nodes.len(), 1);
}

#[tokio::test]
async fn metrics_are_served_on_the_admin_socket_and_on_the_address_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        metrics_listen: "127.0.0.1:0".parse().ok(),
        ..config(dir.path())
    };
    let socket = socket_of(&config);
    let controller = open(config).unwrap();
    let address = controller.metrics.as_ref().unwrap().local_addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(controller.serve(
        async {
            let _ = stopped.await;
        },
        service::Service::default(),
    ));
    let (code, inside) = http(&socket, "GET", "/metrics", "").await;
    assert_eq!(code, 200);
    assert!(
        inside.contains("\nmeshd_epoch_current{segment=\"default\"} 1\n"),
        "{inside}"
    );
    assert!(
        inside.ends_with('\n') && !inside.contains("# EOF"),
        "{inside}"
    );

    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut outside = String::new();
    stream.read_to_string(&mut outside).await.unwrap();
    let head = format!(
        "content-type: {}\r\n",
        exposition::Format::Plain.content_type()
    );
    assert!(outside.contains(&head), "{outside}");
    assert!(
        outside.contains("\nmeshd_epoch_current{segment=\"default\"} 1\n"),
        "{outside}"
    );
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

async fn refusals(socket: &Path) {
    let long = "x".repeat(70_000);
    let refused = [
        ("GET", "/v1/nothing", "", 404),
        ("POST", "/v1/score", r#"{"mean": 1}"#, 404),
        ("POST", "/v1/status", "", 405),
        ("GET", "/v1/nodes/nobody/explain", "", 404),
        ("GET", "/v1/nodes/No%20Name/explain", "", 400),
        ("POST", "/v1/epoch/rotate", "{", 400),
        ("POST", "/v1/epoch/rotate", r#"{"later": true}"#, 400),
        ("POST", "/v1/tokens", long.as_str(), 413),
        ("DELETE", "/v1/tokens/none", "", 404),
        ("GET", "/v1/events?after=x", "", 400),
    ];
    for (method, path, body, code) in refused {
        let (got, reply) = http(socket, method, path, body).await;
        assert_eq!(got, code, "{method} {path}: {reply}");
        let error: ApiError = serde_json::from_str(&reply).unwrap();
        assert!(error.hint.is_some(), "{path}");
    }
    let (code, body) = http(socket, "GET", "/v1/events?limit=2", "").await;
    let page: wire::admin::EventList = serde_json::from_str(&body).unwrap();
    assert_eq!((code, page.events.len()), (200, 2));
    assert_eq!(page.events[0].kind, "mesh_created");
}

#[tokio::test]
async fn what_cannot_be_opened_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(config(dir.path())).unwrap();
    let message = |config: Config| open(config).unwrap_err().to_string();

    let in_use = message(config(dir.path()));
    assert!(in_use.contains("another controller"), "{in_use}");

    let other = tempfile::tempdir().unwrap();
    let taken = Config {
        listen: first.local_addr().unwrap(),
        ..config(other.path())
    };
    let taken = message(taken);
    assert!(taken.contains("another program has this port"), "{taken}");

    let file = other.path().join("file");
    std::fs::write(&file, "").unwrap();
    let not_a_directory = Config {
        state_dir: file,
        ..config(other.path())
    };
    let not_a_directory = message(not_a_directory);
    assert!(
        not_a_directory.contains("not a directory"),
        "{not_a_directory}"
    );

    let no_status = Config {
        status_file: other.path().join("missing/status.json"),
        ..config(other.path())
    };
    let no_status = message(no_status);
    assert!(no_status.contains("status file"), "{no_status}");
}
