//! A node that was never enrolled, though it knows every public key, address and port.

use crate::arsenal::{Arsenal, Known, Scope, by_udp, seal, tunnel_of};
use crate::cut_off::netns;
use crate::node::Clock;
use crate::packets::{echo, is_data, is_response};
use crate::witness::{Witness, inside};
use anyhow::{Context as _, bail};
use keys::{Epoch, NodeSecret, Psk, TokenSecret, WgSecret};
use quic::Dialer;
use rand::Rng as _;
use rand_core::OsRng;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use tests::harness::{self, Mesh, mesh::name};
use tunnel::PeerSpec;
use wire::message::{Enrol, Hello, Refusal};
use wire::{Place, ToController, ToNode, Token};

#[test]
fn a_stranger_who_knows_all_public_keys_gets_no_packet_through() {
    let mut mesh = Mesh::builder().nodes(2).probation_epochs(0).start();
    mesh.add_host(STRANGER, 2);
    let known = MEMBERS.map(|member| known(&mesh, member));
    let node = NodeSecret::generate(&mut OsRng).public();
    let place = Place {
        node,
        mesh: keys::MeshId([0; 16]),
        segment: keys::SegmentId::FIRST,
        segment_name: wire::SegmentName::default(),
        name: name(STRANGER),
        v4: ([10, 76, 0, 200].into(), 16),
        v6: (known[0].member.v6.to_bits().wrapping_add(0xFFFF).into(), 64),
    };
    let scope = Scope { node, place };
    let own = scope.addresses().to_vec();
    let witness = |member| Witness::new(&netns(&mesh, member), own.clone()).expect("it opens");
    let witnesses = MEMBERS.map(witness);
    let dropped = || MEMBERS.map(|member| dropped(&mesh, member));
    let before = dropped();

    let newest = Epoch(mesh.epoch());
    let attack = inside(&netns(&mesh, STRANGER), move || {
        attack(scope, known.into(), newest)
    });
    let answers = attack.expect("its namespace is there").expect("it attacks");
    assert_eq!(answers, 0, "a member answers a stranger");

    for (member, witness) in MEMBERS.iter().zip(&witnesses) {
        let seen = witness.seen().expect("it counts");
        assert_eq!(
            (seen.v4, seen.v6, seen.spoofed),
            (0, 0, 0),
            "delivered at {member}"
        );
        assert!(seen.all > 100, "the witness at {member} is deaf");
    }
    for (before, now) in before.into_iter().zip(dropped()) {
        assert!(
            now.0 >= before.0 + 50 && now.1 >= before.1 + 50,
            "{before:?} {now:?}"
        );
    }
    assert!(
        mesh.all_reach(&MEMBERS),
        "the members' own traffic suffered"
    );
}

#[test]
fn a_stranger_may_say_nothing_to_the_controller_but_enrol_with_a_good_token() {
    let mut mesh = Mesh::builder().nodes(1).probation_epochs(0).start();
    mesh.add_host(STRANGER, 1);
    let used = std::fs::read_to_string(mesh.folder().join("node-a.token")).expect("it was used");
    let before = mesh.status();
    let asked = inside(&netns(&mesh, STRANGER), move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(ask(used.parse()?))
    });
    let refusals = asked.expect("its namespace is there").expect("it asks");
    assert_eq!(
        refusals,
        [
            Refusal::NotEnrolled,
            Refusal::NotEnrolled,
            Refusal::BadToken,
            Refusal::BadToken
        ]
    );
    let after = mesh.status();
    assert_eq!(
        before.nodes.keys().collect::<Vec<_>>(),
        after.nodes.keys().collect::<Vec<_>>()
    );
}

/// Says what no stranger may; returns the refusals.
async fn ask(used: Token) -> anyhow::Result<Vec<Refusal>> {
    let controller: SocketAddr = used.controllers[0].parse()?;
    let enrol = |token| {
        ToController::Enrol(Enrol {
            token,
            name: None,
            segments: vec![wire::Ask::unnamed(WgSecret::generate(&mut OsRng).public())],
            addresses: Vec::new(),
        })
    };
    let hello = Hello {
        software: "stranger".into(),
        listen_port: 51820,
        advertised: Vec::new(),
        addresses: Vec::new(),
        newest: Vec::new(),
        holds: Vec::new(),
        told: Vec::new(),
        log: None,
        unix_ms: 0,
        instance: wire::fixtures::instance(1, 1),
    };
    let attempts = [
        ToController::Hello(hello),
        ToController::Evidence {
            envelope: b"{}".to_vec(),
        },
        enrol(TokenSecret::generate(&mut OsRng)),
        enrol(TokenSecret::from_bytes(*used.secret.expose())),
    ];
    let mut refusals = Vec::new();
    for attempt in attempts {
        let dialer = Dialer::bind(&NodeSecret::generate(&mut OsRng), used.controller)?;
        let connection = dialer.connect(controller).await?;
        let (mut send, mut receive) = connection.open_stream::<ToController, ToNode>().await?;
        send.send(&attempt).await?;
        match receive
            .recv()
            .await
            .with_context(|| format!("after {attempt:?}"))?
        {
            Some(ToNode::Refused { reason }) => refusals.push(reason),
            other => bail!("{attempt:?} is answered with {other:?}"),
        }
    }
    Ok(refusals)
}

/// Five seconds of everything that takes no secret; returns how many datagrams came back.
fn attack(scope: Scope, known: Vec<Known>, newest: Epoch) -> anyhow::Result<u64> {
    let sockets = [UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("0.0.0.0:0")?];
    sockets
        .iter()
        .try_for_each(|socket| socket.set_nonblocking(true))?;
    let wg = WgSecret::generate(&mut OsRng);
    let mut tunnel = tunnel_of(&wg, &scope.place, 1);
    let specs = known.iter().map(|known| {
        let allowed = vec![known.member.v4.into(), known.member.v6.into()];
        (
            PeerSpec {
                key: known.member.wg,
                allowed,
            },
            Psk::from_bytes(known.psk),
        )
    });
    tunnel.install(newest, specs.collect(), Duration::ZERO, None, Clock.now());
    tunnel.activate(newest, Clock.now());
    for known in &known {
        let endpoints = known.endpoint;
        tunnel.set_endpoints(&known.member.wg, endpoints, Clock.now());
    }
    let mut arsenal = Arsenal::new(scope, wg);
    arsenal.secrets = vec![(newest, OsRng.r#gen())];
    arsenal.known = known.clone();
    let own = arsenal.scope.addresses()[0];
    let begun = harness::now();
    let (mut answers, mut datagram) = (0, [0; 2048]);
    while begun.elapsed() < ATTACK {
        let mut shots: Vec<_> = arsenal
            .strike(&mut tunnel, newest, Clock)
            .into_iter()
            .map(|shot| (shot.socket, shot.to, shot.datagram))
            .collect();
        for known in &known {
            let _ = seal(
                &mut tunnel,
                &echo(own, known.member.v4.into(), 1),
                Clock.now(),
            );
            let to = known.endpoint.context("an endpoint")?;
            let mut noise = vec![0; 96];
            OsRng.fill(&mut noise[..]);
            noise[..4].copy_from_slice(&[4, 0, 0, 0]);
            shots.push((0, to, noise));
        }
        tunnel.handle_timeout(Clock.now());
        while let Some(transmit) = tunnel.poll_transmit() {
            shots.push((0, by_udp(transmit.to), transmit.payload));
        }
        for (socket, to, datagram) in shots {
            sockets[socket].send_to(&datagram, to)?;
        }
        std::thread::sleep(ROUND);
        for socket in &sockets {
            // A cookie reply is no answer: it says nothing but that the address is the sender's.
            while let Ok((len, _)) = socket.recv_from(&mut datagram) {
                let datagram = &datagram[..len];
                answers += u64::from(is_data(datagram) || is_response(datagram));
            }
        }
    }
    Ok(answers)
}

/// The facts that anybody can know of a member, and a PSK out of thin air.
fn known(mesh: &Mesh, member: &str) -> Known {
    let status = mesh.node(member);
    let v4 = |endpoint: &&SocketAddr| endpoint.is_ipv4();
    Known {
        epoch: Epoch(mesh.epoch()),
        member: wire::Member {
            node: status.node.parse().expect("an identity"),
            name: name(member),
            wg: format!("wg:{}", status.wireguard).parse().expect("a key"),
            v4: status.v4,
            v6: status.v6,
            groups: wire::rules::Groups::default(),
            routes: Vec::new(),
        },
        psk: OsRng.r#gen(),
        endpoint: status.endpoints.iter().find(v4).copied(),
    }
}

/// Initiations by unknown keys, and data for unknown indices.
fn dropped(mesh: &Mesh, member: &str) -> (u64, u64) {
    let dropped = mesh.node_status(member).dropped;
    (dropped["unknown_peer"], dropped["unknown_index"])
}

const MEMBERS: [&str; 2] = ["node-a", "node-b"];
const STRANGER: &str = "node-x";
const ATTACK: Duration = Duration::from_secs(5);
const ROUND: Duration = Duration::from_millis(20);
