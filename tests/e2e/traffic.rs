//! Rules inside a segment: what passes between members of groups, and which members connect at all.

use crate::quiet_mesh;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use tests::harness::mesh::name;
use tests::harness::{CONTROLLER, Mesh};
use wire::admin::{NodeStatus, PolicyApplied, Simulation};

/// Epochs that do not end by themselves, as in [`quiet_mesh`].
const QUIET: &str = "epoch_seconds = 3600\nmax_benchmark_age = 3600\n";

/// Does something in a node's namespace.
fn inside<T: Send + 'static>(
    mesh: &Mesh,
    node: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let done = mesh.namespace(node).enter(work).join();
    done.expect("a thread ends")
}

fn group(mesh: &Mesh, node: &str, group: &str) {
    let _: NodeStatus = mesh.ask(CONTROLLER, &["node", "group", "add", node, group]);
}

/// Writes a policy to a file; its path.
fn policy(mesh: &Mesh, text: &str) -> String {
    let file = mesh.folder().join("policy.toml");
    std::fs::write(&file, format!("{QUIET}{text}")).expect("a file can be written");
    file.display().to_string()
}

/// Has a policy in force on all nodes.
fn apply(mesh: &mut Mesh, text: &str) {
    let file = policy(mesh, text);
    let applied: PolicyApplied = mesh.ask(CONTROLLER, &["policy", "apply", &file]);
    assert!(applied.changed);
    let change = mesh.rotate_now();
    mesh.wait_until("its epoch is in force everywhere", |mesh| {
        let nodes = mesh.nodes();
        nodes
            .iter()
            .all(|node| mesh.node_status(node).epoch == Some(change.epoch))
    });
}

fn v4(mesh: &Mesh, node: &str) -> Ipv4Addr {
    match mesh.addresses(node)[0] {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => panic!("the first is the IPv4 address"),
    }
}

/// Answers one TCP connection at a port of a node, and each of its bytes with the next one.
fn listen(mesh: &Mesh, node: &str, at: SocketAddr) {
    let listener = inside(mesh, node, move || TcpListener::bind(at));
    let listener = listener.expect("the port is free");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() {
                byte[0] = byte[0].wrapping_add(1);
                if stream.write_all(&byte).is_err() {
                    break;
                }
            }
        }
    });
}

/// A connection from a node, if one comes about in time.
fn connect(mesh: &Mesh, node: &str, to: SocketAddr, patience: Duration) -> Option<TcpStream> {
    let connect = move || TcpStream::connect_timeout(&to, patience).ok();
    let stream = inside(mesh, node, connect)?;
    let timeout = Some(PATIENCE);
    stream
        .set_read_timeout(timeout)
        .expect("a time that is not zero");
    Some(stream)
}

fn is_answered(stream: &mut TcpStream) -> bool {
    let mut byte = [7];
    stream.write_all(&byte).is_ok() && stream.read_exact(&mut byte).is_ok() && byte == [8]
}

fn udp(mesh: &Mesh, node: &str, at: SocketAddr) -> UdpSocket {
    let socket = inside(mesh, node, move || UdpSocket::bind(at));
    let socket = socket.expect("the port is free");
    let timeout = Some(PATIENCE);
    socket
        .set_read_timeout(timeout)
        .expect("a time that is not zero");
    socket
}

fn dropped(mesh: &Mesh, node: &str, reason: &str) -> u64 {
    mesh.node_status(node).dropped[reason]
}

/// Packets that a node's rules have let in, rule by rule.
fn passed(mesh: &Mesh, node: &str) -> Vec<u64> {
    let rules = mesh.node_status(node).rules.expect("it has rules");
    rules.allow.iter().map(|it| it.packets).collect()
}

const RULES: &str = r#"
traffic = "deny"
[[allow]]
protocol = "tcp"
ports = [9000]
from = ["trainer"]
to = ["store"]
[[allow]]
protocol = "udp"
ports = ["9000-9001"]
to = ["store"]
"#;

#[test]
fn with_everything_denied_a_port_that_is_allowed_passes_with_its_answers_and_nothing_else() {
    let mut mesh = quiet_mesh();
    group(&mesh, "node-a", "trainer");
    group(&mesh, "node-b", "store");
    let addresses = mesh.addresses("node-b");
    for address in addresses {
        listen(&mesh, "node-b", (address, 9_000).into());
        listen(&mesh, "node-b", (address, 9_001).into());
    }
    let closed = (addresses[0], 9_001).into();
    let mut before = connect(&mesh, "node-a", closed, PATIENCE).expect("everything passes");
    assert!(is_answered(&mut before));
    assert_eq!(mesh.node_status("node-b").rules, None);

    let file = policy(&mesh, RULES);
    let simulated: Simulation = mesh.ask(CONTROLLER, &["policy", "simulate", &file]);
    let toward_store = simulated
        .traffic
        .iter()
        .find(|it| it.from == ["trainer"] && it.to == ["store"]);
    let closing = &toward_store.expect("a difference").closed;
    assert_eq!(closing[0], "tcp 0-8999, 9001-65535");

    apply(&mut mesh, RULES);
    // The connection of before is closed with the rest.
    before
        .set_read_timeout(Some(BRIEFLY))
        .expect("a time that is not zero");
    assert!(!is_answered(&mut before));
    for address in addresses {
        let (open, closed) = ((address, 9_000).into(), (address, 9_001).into());
        let mut stream = connect(&mesh, "node-a", open, PATIENCE).expect("a rule allows it");
        assert!((0..100).all(|_| is_answered(&mut stream)));
        let refused = dropped(&mesh, "node-b", "no_rule");
        assert!(connect(&mesh, "node-a", closed, BRIEFLY).is_none());
        // From no trainer, and to no store.
        assert!(connect(&mesh, "node-c", open, BRIEFLY).is_none());
        assert!(dropped(&mesh, "node-b", "no_rule") >= refused + 2);
    }
    assert!(passed(&mesh, "node-b")[0] >= 200);
    assert!(
        mesh.all_reach(&["node-a", "node-b", "node-c"]),
        "echoes pass"
    );

    // A datagram in fragments, and an answer that nobody has asked for.
    let at = |node, port| SocketAddr::from((v4(&mesh, node), port));
    let store = udp(&mesh, "node-b", at("node-b", 9_001));
    let trainer = udp(&mesh, "node-a", at("node-a", 5_000));
    let large = vec![7; 8_000];
    let mut buffer = vec![0; 9_000];
    store
        .send_to(&large, at("node-a", 5_000))
        .expect("it is sent");
    trainer
        .send_to(&large, at("node-b", 9_001))
        .expect("it is sent");
    let (len, from) = store.recv_from(&mut buffer).expect("a rule allows it");
    assert_eq!((&buffer[..len], from), (&large[..], at("node-a", 5_000)));
    store.send_to(&[1; 4_000], from).expect("it is sent");
    let (len, _) = trainer.recv_from(&mut buffer).expect("an answer passes");
    assert_eq!(buffer[..len], [1; 4_000]);

    crafted_packets_are_refused(&mesh);
}

/// A member of no group sends packets that pretend to be answers, errors or pieces of something.
fn crafted_packets_are_refused(mesh: &Mesh) {
    let (from, to) = (v4(mesh, "node-c"), v4(mesh, "node-b"));
    let tcp = |port: u16| {
        let mut header = [40_000_u16.to_be_bytes(), port.to_be_bytes()].concat();
        header.resize(20, 0);
        (header[12], header[13]) = (0x50, 0x10);
        header
    };
    let error = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &ip(to, from, 6, 0, &tcp(80))].concat();
    let crafted = [
        // A packet of a connection that there is not, and one that is cut into two fragments.
        ("no_rule", ip(from, to, 6, 0, &tcp(22))),
        ("unreadable", ip(from, to, 6, 0x2000, &tcp(9_000)[..16])),
        ("stray_fragment", ip(from, to, 6, 2, &[0; 40])),
        // "Too big", about a packet that was never sent.
        ("stray_icmp_error", ip(from, to, 1, 0, &error)),
    ];
    for (reason, packet) in crafted {
        let before = dropped(mesh, "node-b", reason);
        inside(mesh, "node-c", move || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
            let socket = socket.expect("the tests are root in their namespaces");
            for _ in 0..20 {
                let to = SocketAddr::from((to, 0));
                socket.send_to(&packet, &to.into()).expect("it is sent");
            }
        });
        let arrived =
            tests::harness::poll(PATIENCE, || dropped(mesh, "node-b", reason) >= before + 20);
        assert!(
            arrived,
            "{reason}: {}",
            dropped(mesh, "node-b", reason) - before
        );
    }
}

/// An IPv4 packet; `fragment`: flags and offset as they stand in the header.
fn ip(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend([from.octets(), to.octets()].concat());
    packet.extend(payload);
    packet
}

#[test]
fn with_hubs_two_other_members_have_no_tunnel_and_say_why() {
    let mut mesh = quiet_mesh();
    group(&mesh, "node-c", "core");
    apply(&mut mesh, "hub = [\"core\"]");
    let peer = |mesh: &Mesh, from, to| {
        let mut status = mesh.node_status(from);
        status.peers.remove(&name(to)).expect("it is a member")
    };
    for (from, to) in [("node-a", "node-b"), ("node-b", "node-a")] {
        let seen = peer(&mesh, from, to);
        assert_eq!(seen.reason.as_deref(), Some("no tunnel: neither is a hub"));
        assert_eq!((seen.session_epoch, seen.endpoint), (None, None));
        assert!(!mesh.ping(from, to));
    }
    mesh.wait_until("everybody reaches the hub", |mesh| {
        mesh.all_reach(&["node-a", "node-c"]) && mesh.all_reach(&["node-b", "node-c"])
    });
    let rules = mesh.node_status("node-c").rules.expect("it has rules");
    assert_eq!(
        (&rules.groups[..], &rules.hub[..]),
        (&["core".to_owned()][..], &["core".to_owned()][..])
    );
    assert_eq!(peer(&mesh, "node-c", "node-a").reason, None);

    apply(&mut mesh, "");
    mesh.wait_until_all_reach_all();
    assert_eq!(peer(&mesh, "node-a", "node-b").reason, None);
}

/// For something that comes.
const PATIENCE: Duration = Duration::from_secs(20);
/// For something that must not.
const BRIEFLY: Duration = Duration::from_secs(2);
