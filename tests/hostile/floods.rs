//! Floods on the control channel. A member that floods is the one that is cut: no other node loses its
//! connection, a packet or its membership to it, and no operator waits. Strangers cost the controller no
//! memory, and keep nobody out.

use crate::flooder::{Flood, Flooder, Raw, block_on, raw};
use anyhow::ensure;
use keys::{NodeSecret, TokenSecret, WgSecret};
use quic::{Connection, Dialer, Receiver, Sender};
use rand_core::OsRng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tests::harness::{CONTROLLER, Line, Mesh, PATIENCE, mesh::name, now};
use wire::admin::Membership;
use wire::message::Enrol;
use wire::{ToController, ToNode, Token};

#[test]
fn a_member_that_floods_is_the_one_that_is_cut_whatever_it_says() {
    flood_with(Duration::ZERO);
}

#[test]
fn a_member_that_floods_from_far_away_is_the_one_that_is_cut_too() {
    flood_with(Duration::from_millis(75));
}

/// Every kind of flood in turn, with so much delay each way between controller and nodes.
fn flood_with(delay: Duration) {
    let mut builder = Mesh::builder().nodes(3).probation_epochs(0);
    if !delay.is_zero() {
        let line = format!("[\"{LINE_AT}\"]");
        builder = builder.every_node_setting("controller", line);
        // The controller sees them at the line's end.
        for (index, node) in ["node-a", "node-b", "node-c"].iter().enumerate() {
            let own = format!("[\"198.18.1.{}:51820\"]", index + 1);
            builder = builder.node_setting(node, "advertise", own);
        }
    }
    let mut mesh = builder.prepare();
    mesh.add_host(LINE, LINE_INDEX);
    mesh.add_host(FLOODER, FLOODER_INDEX);
    let _line = Line::start(mesh.namespace(LINE), LINE_AT, CONTROLLER_AT, delay);
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    mesh.wait_until_all_reach_all();
    let at = if delay.is_zero() {
        CONTROLLER_AT
    } else {
        LINE_AT
    };
    // One for each kind: a key that was cut has to wait.
    let flooders: Vec<Flooder> = (0..Flood::ALL.len())
        .map(|number| {
            let token = mesh.token(&flooder(number)).parse().expect("a token");
            Flooder::start(mesh.namespace(FLOODER), token, at)
        })
        .collect();
    mesh.wait_until("the flooders are members", |mesh| {
        let Some(status) = mesh.try_status() else {
            return false;
        };
        (0..Flood::ALL.len()).all(|number| {
            let node = status.nodes.get(&name(&flooder(number)));
            node.is_some_and(|node| node.membership == Membership::Allowed)
        })
    });

    let lost = |mesh: &Mesh| -> Vec<usize> {
        let lines = |node| mesh.log(node).matches("control channel down").count();
        HEALTHY.map(lines).to_vec()
    };
    let before = lost(&mesh);
    let pings = [
        mesh.keep_pinging("node-a", "node-b"),
        mesh.keep_pinging("node-b", "node-a"),
    ];
    for (flood, flooder) in Flood::ALL.into_iter().zip(&flooders) {
        let epoch = mesh.epoch();
        assert_eq!(flooder.cut(), 0, "one that behaves is not cut");
        flooder.begin(flood);
        mesh.wait_until(&format!("it is cut for its flood of {flood:?}"), |_| {
            flooder.cut() > 0
        });
        // While it goes on as soon as it can, epochs do, and operators are answered.
        mesh.wait_until(&format!("epochs go on under {flood:?}"), |mesh| {
            mesh.epoch() >= epoch + 2
        });
    }
    assert_eq!(lost(&mesh), before, "healthy nodes lost their connection");
    for node in HEALTHY {
        assert_eq!(mesh.node(node).membership, Membership::Allowed, "{node}");
    }
    // An eviction is as quick as ever.
    let asked = now();
    mesh.evict("node-c");
    mesh.wait_until("node-c is out", |mesh| {
        HEALTHY.iter().all(|node| {
            let peers = mesh.node_status(node).peers;
            peers[&name("node-c")].membership == Membership::Denied
        })
    });
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    for ping in pings {
        let losses = ping.stop();
        assert!(losses.sent > 40, "{losses:?}");
        assert_eq!(losses.lost, 0, "{losses:?}");
    }
    for flooder in flooders {
        flooder.stop().expect("it ran to its end");
    }
}

fn flooder(number: usize) -> String {
    format!("{FLOODER}-{number}")
}

#[test]
fn an_evicted_node_cannot_fill_the_log() {
    let mut mesh = Mesh::builder().nodes(2).probation_epochs(0).start();
    mesh.add_host(FLOODER, FLOODER_INDEX);
    let token: Token = mesh.token(FLOODER).parse().expect("a token");
    let flooder = Flooder::start(mesh.namespace(FLOODER), token, CONTROLLER_AT);
    mesh.wait_until("the flooder is known", |mesh| {
        let status = mesh.try_status();
        status.is_some_and(|status| status.nodes.contains_key(&name(FLOODER)))
    });
    mesh.evict(FLOODER);
    let accepted = |mesh: &Mesh| {
        let events = mesh.events();
        let of_flooder = events
            .iter()
            .filter(|event| event.kind == "evidence_accepted" && event.body["name"] == FLOODER);
        of_flooder.count()
    };
    let (before, size) = (accepted(&mesh), log_size(&mesh));
    let cut = flooder.cut();
    flooder.begin(Flood::Evidence);
    mesh.wait_until("it has sent, and was cut", |_| flooder.cut() > cut);
    mesh.wait_epochs(2);
    assert_eq!(accepted(&mesh), before);
    let grown = log_size(&mesh).saturating_sub(size);
    assert!(grown < 4 << 20, "the log has grown by {grown} bytes");
    flooder.stop().expect("it ran to its end");
}

#[test]
fn strangers_hold_no_memory_and_keep_no_new_node_out() {
    let mut mesh = Mesh::builder().nodes(2).probation_epochs(0).start();
    let token: Token = mesh.token("node-z").parse().expect("a token");
    let controller = token.controller;
    let before = memory(&mesh);
    let stop = Arc::new(AtomicBool::new(false));
    let held = Arc::new(AtomicU64::new(0));
    let mut strangers = Vec::new();
    for host in 0..4 {
        let name = format!("stranger-{host}");
        mesh.add_host(&name, 100 + host);
        for kind in [
            Stranger::NoStream,
            Stranger::AlmostAReport,
            Stranger::Silent,
            Stranger::BadToken,
        ] {
            let (stop, held) = (stop.clone(), held.clone());
            strangers.push(
                mesh.namespace(&name)
                    .enter(move || block_on(strange(controller, kind, &stop, &held))),
            );
        }
    }
    mesh.wait_until("there are strangers", |_| held.load(Ordering::SeqCst) > 300);
    let grown = memory(&mesh).saturating_sub(before);
    assert!(grown < 96 << 10, "{grown} kB for strangers");
    let metrics = mesh.meshctl(CONTROLLER, &["metrics"]).stdout;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let stage = |stage: &str| -> f64 {
        let line = format!("meshd_connections{{stage=\"{stage}\"}} ");
        let value = metrics.lines().find_map(|l| l.strip_prefix(&line));
        value
            .and_then(|value| value.parse().ok())
            .expect("a metric")
    };
    let waiting = stage("silent") + stage("opening");
    assert!(
        waiting <= 64.0 + 2.0,
        "{waiting} strangers have a place\n{metrics}"
    );
    assert_eq!(stage("serving"), 2.0);

    // Under all that, a node with a token enrols, and is served.
    mesh.add_host("newcomer", 120);
    let enrolled = mesh
        .namespace("newcomer")
        .enter(move || block_on(newcomer(token)));
    let tries = enrolled.join().expect("it ends").expect("it is enrolled");
    assert!(held.load(Ordering::SeqCst) > 0 && !strangers.iter().any(JoinHandle::is_finished));
    assert!(tries < 40, "{tries} tries");
    stop.store(true, Ordering::SeqCst);
    for stranger in strangers {
        stranger.join().expect("an attack runs to its end");
    }
    assert!(mesh.is_running(CONTROLLER));
    assert!(mesh.all_reach(&["node-a", "node-b"]));
}

/// Ways to waste a connection.
#[derive(Debug, Clone, Copy)]
enum Stranger {
    NoStream,
    /// A frame that would be read up to its last byte, which never comes.
    AlmostAReport,
    Silent,
    /// Asks to be enrolled with a token that is none.
    BadToken,
}

/// Connects again and again, with another key each time, and keeps what it gets.
async fn strange(
    controller: keys::ControllerId,
    kind: Stranger,
    stop: &AtomicBool,
    held: &AtomicU64,
) {
    let end = now() + PATIENCE;
    let mut open = Vec::new();
    while !stop.load(Ordering::SeqCst) && now() < end {
        let Ok(dialer) = Dialer::bind(&NodeSecret::generate(&mut OsRng), controller) else {
            continue;
        };
        let Ok(connection) = dialer.connect(CONTROLLER_AT).await else {
            continue;
        };
        held.fetch_add(1, Ordering::SeqCst);
        let stream = match kind {
            Stranger::NoStream => None,
            Stranger::AlmostAReport => almost(&connection, 5, 4 << 20).await,
            Stranger::Silent => almost(&connection, 1, 200).await,
            Stranger::BadToken => ask(&connection).await,
        };
        open.push((connection, dialer, stream));
        if open.len() > KEPT {
            open.remove(0);
        }
    }
}

type Stream = (Sender<Raw>, Receiver<ToNode>);

/// Sends a frame less its last byte, as far as it is taken.
async fn almost(connection: &Connection, frame_type: u8, len: usize) -> Option<Stream> {
    let (mut sender, receiver): Stream = connection.open_stream().await.ok()?;
    let mut header = vec![wire::OLDEST_PROTOCOL_VERSION, frame_type, 0, 0];
    header.extend_from_slice(&u32::try_from(len).ok()?.to_be_bytes());
    header.resize(header.len() + len - 1, 0);
    let sent = tokio::time::timeout(Duration::from_secs(1), sender.send_encoded(&header)).await;
    sent.ok()?.ok()?;
    Some((sender, receiver))
}

/// Asks for a place without a token, and reads no answer.
async fn ask(connection: &Connection) -> Option<Stream> {
    let (mut sender, receiver): Stream = connection.open_stream().await.ok()?;
    let enrol = ToController::Enrol(Enrol {
        token: TokenSecret::generate(&mut OsRng),
        name: None,
        segments: vec![wire::Ask::unnamed(WgSecret::generate(&mut OsRng).public())],
        addresses: Vec::new(),
    });
    sender.send(&raw(&enrol)).await.ok()?;
    Some((sender, receiver))
}

/// Enrols, and tries again as a node does; how often it took.
async fn newcomer(token: Token) -> anyhow::Result<usize> {
    let identity = NodeSecret::generate(&mut OsRng);
    let dialer = Dialer::bind(&identity, token.controller)?;
    let end = now() + PATIENCE;
    for tries in 1.. {
        ensure!(now() < end, "not enrolled after {tries} tries");
        let enrol = ToController::Enrol(Enrol {
            token: TokenSecret::from_bytes(*token.secret.expose()),
            name: None,
            segments: vec![wire::Ask::unnamed(WgSecret::generate(&mut OsRng).public())],
            addresses: Vec::new(),
        });
        let attempt = async {
            let connection = dialer.connect(CONTROLLER_AT).await?;
            let (mut send, mut receive) = connection.open_stream::<ToController, ToNode>().await?;
            send.send(&enrol).await?;
            anyhow::Ok(receive.recv().await?)
        };
        if let Ok(Some(ToNode::Enrolled(_))) = attempt.await {
            return Ok(tries);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    unreachable!("the numbers do not end")
}

/// Resident memory of the controller, in kB.
fn memory(mesh: &Mesh) -> u64 {
    let path = format!("/proc/{}/status", mesh.pid(CONTROLLER));
    let status = std::fs::read_to_string(path).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    kilobytes.and_then(|n| n.parse().ok()).expect("a number")
}

/// Bytes of the controller's event log, its side files included.
fn log_size(mesh: &Mesh) -> u64 {
    let files = std::fs::read_dir(mesh.state_dir(CONTROLLER)).expect("it is there");
    let files = files.flatten().filter(|file| {
        file.file_name()
            .to_string_lossy()
            .starts_with("controller.db")
    });
    files
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}

const HEALTHY: [&str; 2] = ["node-a", "node-b"];
const FLOODER: &str = "flooder";
const FLOODER_INDEX: usize = 90;
const LINE: &str = "line";
const LINE_INDEX: usize = 91;
const LINE_AT: SocketAddr = at([198, 18, 1, 92]);
const CONTROLLER_AT: SocketAddr = at([198, 18, 0, 1]);
/// Connections that a stranger's task keeps open.
const KEPT: usize = 200;

const fn at([a, b, c, d]: [u8; 4]) -> SocketAddr {
    SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d)),
        7443,
    )
}
