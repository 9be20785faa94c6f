//! Handshake messages by one that was a member once: it knows every public key, which is all that
//! MAC1 takes, and it is on the network of those that stay. While it sends in their names, and under as
//! many names of their network as it likes, their epochs change every two seconds.

use crate::cut_off::netns;
use crate::packets::{udp, with_sender};
use crate::witness::inside;
use anyhow::Context as _;
use keys::WgPublicKey;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tests::harness::{self, Mesh, mesh::name, ping::Losses};

#[test]
fn initiations_in_the_name_of_a_peer_cost_its_pair_no_packet() {
    let mesh = Mesh::builder().nodes(2).start();
    suffer(mesh, Flood::names_of_peers);
}

#[test]
fn initiations_from_all_over_the_network_of_a_peer_cost_its_pair_no_packet() {
    let advertise = |n| format!("[\"[fd00:6d65:7368::1:{n}]:51820\"]");
    let builder = Mesh::builder().nodes(2);
    let builder = builder.node_setting(NODES[0], "advertise", advertise(1));
    let mesh = builder
        .node_setting(NODES[1], "advertise", advertise(2))
        .start();
    suffer(mesh, Flood::names_of_their_network);
}

/// Pings both ways over some epochs, with `strike` all the while.
fn suffer(mut mesh: Mesh, strike: fn(&mut Flood) -> u64) {
    mesh.add_host(STRANGER, NODES.len());
    let ends = NODES.map(|node| End::of(&mut mesh, node));
    let in_peace = pings(&mut mesh, 2);
    assert!(in_peace.iter().all(|it| it.lost == 0), "{in_peace:?}");
    let before = NODES.map(|node| mesh.node_status(node).dropped["under_load"]);
    let flooding = Flooding::start(&netns(&mesh, STRANGER), ends, strike);
    let losses = pings(&mut mesh, 5);
    let sent = flooding.stop().expect("raw sockets");
    for (node, before) in NODES.iter().zip(before) {
        let refused = mesh.node_status(node).dropped["under_load"] - before;
        assert!(
            refused > 1_000,
            "{sent} were sent, {refused} were too many for {node}"
        );
    }
    for losses in losses {
        assert!(losses.sent >= 100, "{losses:?}");
        assert_eq!(losses.lost, 0, "{losses:?}, {sent} initiations");
    }
}

/// Pings both ways over so many epochs.
fn pings(mesh: &mut Mesh, epochs: u64) -> [Losses; 2] {
    let pingers = [[NODES[0], NODES[1]], [NODES[1], NODES[0]]];
    let pingers = pingers.map(|[from, to]| mesh.keep_pinging_fast(from, to, 56));
    mesh.wait_epochs(epochs);
    pingers.map(|pinger| pinger.stop())
}

/// One of the pair.
#[derive(Debug, Clone, Copy)]
struct End {
    endpoint: SocketAddr,
    key: WgPublicKey,
}

impl End {
    fn of(mesh: &mut Mesh, node: &str) -> Self {
        let other = NODES.into_iter().find(|it| *it != node).expect("a pair");
        let seen = mesh.node_status(other).peers[&name(node)].clone();
        let key = seen.wireguard.expect("a member has a key");
        Self {
            endpoint: seen.endpoint.expect("they talk"),
            key: format!("wg:{key}").parse().expect("it is one"),
        }
    }
}

/// The flood, on a thread of its own.
struct Flooding {
    stopping: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<u64>>,
}

struct Flood {
    sockets: [Socket; 2],
    ends: [End; 2],
    rng: SmallRng,
}

impl Flooding {
    fn start(netns: &Path, ends: [End; 2], strike: fn(&mut Flood) -> u64) -> Self {
        let stopping = Arc::new(AtomicU64::new(0));
        let (stop, netns) = (stopping.clone(), netns.to_owned());
        let thread = std::thread::spawn(move || {
            let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(IPPROTO_RAW)));
            let sockets = inside(&netns, move || {
                anyhow::Ok([raw(Domain::IPV4)?, raw(Domain::IPV6)?])
            })??;
            let mut flood = Flood {
                sockets,
                ends,
                rng: SmallRng::seed_from_u64(1),
            };
            let (begun, mut sent) = (harness::now(), 0);
            while stop.load(Ordering::SeqCst) == 0 && begun.elapsed() < AT_MOST {
                // Messages that a busy machine did not let it send are not made up for.
                sent += (0..BURST).map(|_| strike(&mut flood)).sum::<u64>();
                std::thread::sleep(PAUSE);
            }
            Ok(sent)
        });
        Self { stopping, thread }
    }

    /// How many were sent.
    fn stop(self) -> anyhow::Result<u64> {
        self.stopping.store(1, Ordering::SeqCst);
        self.thread.join().ok().context("the flood panicked")?
    }
}

impl Flood {
    /// To each of the two, in the name of the other.
    fn names_of_peers(&mut self) -> u64 {
        let [a, b] = self.ends;
        u64::from(self.send(a.endpoint, b)) + u64::from(self.send(b.endpoint, a))
    }

    /// To each of the two: from some address of the other's /64, and from some port of the other's.
    fn names_of_their_network(&mut self) -> u64 {
        let [a, b] = self.ends;
        let mut sent = 0;
        for (name, to) in [(a.endpoint, b), (b.endpoint, a)] {
            if let IpAddr::V6(v6) = name.ip() {
                let host = u128::from(self.rng.r#gen::<u64>());
                let neighbour = Ipv6Addr::from(u128::from(v6) >> 64 << 64 | host);
                sent += u64::from(self.send(SocketAddr::new(neighbour.into(), 51_820), to));
            }
            let port = self.rng.gen_range(1..=u16::MAX);
            sent += u64::from(self.send(SocketAddr::new(name.ip(), port), to));
        }
        sent
    }

    /// An initiation that nobody made, with a MAC1 for `to`.
    fn send(&mut self, from: SocketAddr, to: End) -> bool {
        let mut message = [0; 148];
        self.rng.fill(&mut message[..]);
        message[..4].copy_from_slice(&[1, 0, 0, 0]);
        message[132..].fill(0);
        let message = with_sender(&message, self.rng.r#gen(), &to.key);
        let packet = udp(from, to.endpoint, &message);
        let mut next_hop = to.endpoint;
        next_hop.set_port(0);
        let socket = &self.sockets[usize::from(next_hop.is_ipv6())];
        socket.send_to(&packet, &next_hop.into()).is_ok()
    }
}

const NODES: [&str; 2] = ["node-a", "node-b"];
const STRANGER: &str = "stranger";
/// The header is in what is sent.
const IPPROTO_RAW: i32 = 255;
/// Together with the pause, some 1,500 a second to each of the two in the name of the other: what one
/// source may have opened is used up in an instant.
const BURST: usize = 8;
const PAUSE: Duration = Duration::from_millis(5);
/// In case that nobody stops it.
const AT_MOST: Duration = Duration::from_secs(120);
