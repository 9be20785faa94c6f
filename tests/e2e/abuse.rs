//! Strangers at the controller's port: it goes on serving its nodes.

use keys::{ControllerId, NodeSecret, WgSecret};
use quic::{Connection, Dialer, Receiver, Sender};
use rand_core::{OsRng, RngCore as _};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;
use tests::harness::{CONTROLLER, Mesh, now};
use tokio::net::UdpSocket;
use wire::frame::Frame;
use wire::message::Hello;
use wire::{ToController, ToNode, Token};

#[test]
fn a_controller_under_abuse_serves_its_nodes_as_ever() {
    let mut mesh = Mesh::builder().threshold(0.7).start();
    let token: Token = mesh.token("node-z").parse().expect("a token is a token");
    let controller = token.controller;
    for (index, host) in ["noise", "half-open", "strangers"].iter().enumerate() {
        mesh.add_host(host, 100 + index);
    }
    let ping = mesh.keep_pinging("node-a", "node-b");
    let attackers = [
        mesh.namespace("noise").enter(|| block_on(noise())),
        mesh.namespace("half-open")
            .enter(move || block_on(half_open(controller))),
        mesh.namespace("strangers")
            .enter(move || block_on(strangers(controller))),
    ];

    let began = mesh.epoch();
    while attackers.iter().any(|attacker| !attacker.is_finished()) {
        // An operator is answered, and evidence still decides.
        mesh.wait_epochs(1);
        let status = mesh.status();
        assert_eq!(status.epoch.members, 3);
        std::thread::sleep(Duration::from_millis(200));
    }
    let done: Vec<usize> = attackers
        .into_iter()
        .map(|attacker| attacker.join().expect("an attack runs to its end"))
        .collect();
    assert!(mesh.epoch() >= began + 4, "epochs went on");
    assert!(
        done[0] > 1000 && done[1] > 20 && done[2] > 20,
        "there were attacks: {done:?}"
    );
    let losses = ping.stop();
    assert!(losses.sent > 40, "{losses:?}");
    assert_eq!(losses.lost, 0, "{losses:?}");

    // A decision and a new node, after all of that.
    mesh.set_score("node-c", 0.1);
    mesh.wait_until_membership("node-c", wire::admin::Membership::Denied);
    mesh.set_score("node-c", 0.9);
    mesh.wait_until_all_reach_all();
    let nodes = mesh.status().nodes.len();
    assert_eq!(nodes, 3, "no stranger was enrolled");
    assert!(mesh.is_running(CONTROLLER));
    let log = mesh.log(CONTROLLER);
    assert!(!log.contains("panicked"));
    assert!(
        log.len() < 1 << 20,
        "abuse does not fill the log: {} bytes",
        log.len()
    );
}

/// Random bytes at the port, of every length; some of them look like QUIC at first.
async fn noise() -> usize {
    let socket = UdpSocket::bind("0.0.0.0:0").await.expect("a port is free");
    let mut sent = 0_usize;
    let mut bytes = [0_u8; 1400];
    let end = now() + TIME;
    while now() < end {
        OsRng.fill_bytes(&mut bytes);
        if sent.is_multiple_of(2) {
            // A long header, version 1, Initial.
            bytes[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        let len = 1 + (usize::from(bytes[1399]) * 6) % 1400;
        sent += usize::from(socket.send_to(&bytes[..len], CONTROLLER_AT).await.is_ok());
        if sent.is_multiple_of(50) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    sent
}

/// Handshakes that begin and never go on: what the controller answers is never read.
async fn half_open(controller: ControllerId) -> usize {
    let mut begun = 0;
    let mut open = Vec::new();
    let end = now() + TIME;
    while now() < end {
        let here = UdpSocket::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let there = UdpSocket::bind("0.0.0.0:0").await.expect("a port is free");
        let address = here.local_addr().expect("it is bound");
        let dialer = Dialer::bind(&NodeSecret::generate(&mut OsRng), controller);
        let dialer = dialer.expect("a port is free");
        let dial = tokio::spawn(async move { dialer.connect(address).await.is_ok() });
        // The first flight, which is more than one datagram, and its first repetition.
        let mut bytes = [0; 2048];
        for _ in 0..4 {
            let next = here.recv_from(&mut bytes);
            if let Ok(Ok((len, _))) = tokio::time::timeout(Duration::from_millis(20), next).await {
                let _ = there.send_to(&bytes[..len], CONTROLLER_AT).await;
            }
        }
        begun += 1;
        open.push((there, dial));
    }
    for (_, dial) in open {
        dial.abort();
    }
    begun
}

/// Keys that nobody knows, each with something else to say.
async fn strangers(controller: ControllerId) -> usize {
    let mut connected = 0;
    let mut open = Vec::new();
    let end = now() + TIME;
    for turn in 0_usize.. {
        if now() >= end {
            break;
        }
        let secret = NodeSecret::generate(&mut OsRng);
        let dialer = Dialer::bind(&secret, controller).expect("a port is free");
        if let Ok(connection) = dialer.connect(CONTROLLER_AT).await {
            connected += 1;
            let said = tokio::time::timeout(Duration::from_secs(2), say(&connection, turn)).await;
            if turn.is_multiple_of(3) {
                // Stays, and says nothing more.
                open.push((connection, dialer, said.ok()));
            }
        }
    }
    connected
}

type Streams = (Sender<Junk>, Receiver<ToNode>);

async fn say(connection: &Connection, turn: usize) -> Option<Streams> {
    if turn.is_multiple_of(5) {
        let hello = ToController::Hello(Hello {
            software: "stranger".into(),
            listen_port: 51_820,
            advertised: Vec::new(),
            addresses: Vec::new(),
            newest: Vec::new(),
            holds: Vec::new(),
            told: Vec::new(),
            log: None,
            unix_ms: 0,
            instance: wire::fixtures::instance(1, 1),
        });
        let (mut sender, mut receiver): (Sender<ToController>, Receiver<ToNode>) =
            connection.open_stream().await.ok()?;
        let _ = sender.send(&hello).await;
        let _ = receiver.recv().await;
        return None;
    }
    let (mut sender, mut receiver): Streams = connection.open_stream().await.ok()?;
    let mut garbage = vec![0; 400];
    OsRng.fill_bytes(&mut garbage);
    let wg = WgSecret::generate(&mut OsRng).public().to_base64();
    let junk = match turn % 5 {
        1 => Junk {
            kind: 1,
            payload: garbage,
        },
        2 => Junk {
            kind: 1,
            payload: wg.into_bytes(),
        },
        3 => Junk {
            kind: 3,
            payload: vec![b'{'; 8 << 20],
        },
        _ => Junk {
            kind: 200,
            payload: garbage,
        },
    };
    let _ = sender.send(&junk).await;
    let _ = receiver.recv().await;
    Some((sender, receiver))
}

/// A frame of any type with any payload.
#[derive(Debug, Serialize, Deserialize)]
struct Junk {
    #[serde(skip)]
    kind: u8,
    payload: Vec<u8>,
}

impl Frame for Junk {
    fn frame_type(&self) -> u8 {
        self.kind
    }

    fn since(_: u8) -> u8 {
        1
    }

    fn limit(_: u8) -> Option<usize> {
        Some(16 << 20)
    }
}

fn block_on(attack: impl Future<Output = usize>) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    // The thread is in the attacker's namespace, so the runtime must not have others.
    runtime.expect("a runtime can be had").block_on(attack)
}

const CONTROLLER_AT: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1)),
    7443,
);
const TIME: Duration = Duration::from_secs(10);
