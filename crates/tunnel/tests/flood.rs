//! Handshake messages by one that knows all keys and is no member: a pair that stays loses nothing, and
//! waits for one round trip at most. Virtual time, one millisecond a step.

mod carry;

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use carry::Carried;
use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use rand_core::OsRng;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tunnel::{Config, DropReason, Inbound, Inside, Outbound, Path, PeerSpec, Range};

/// A node: the first two, A and B, are members; the others belong to one that is not.
struct Node {
    tunnel: Carried,
    key: WgPublicKey,
    inner: Ipv4Addr,
    outer: SocketAddr,
    sent: u32,
    delivered: u32,
}

/// The stranger's deeds of each millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    Nothing,
    /// From its own address.
    Own,
    /// From as many addresses as it likes, of the network that all of them are in.
    Network,
    /// In the name of each of the two, to the other.
    Spoofed,
    /// From all addresses that it has, with the cookies that it is given.
    Proven,
    /// In the names of everybody, everywhere, and under its own addresses.
    All,
}

struct World {
    nodes: Vec<Node>,
    now: Duration,
    one_way: Duration,
    flying: VecDeque<(Duration, SocketAddr, SocketAddr, Vec<u8>)>,
    /// The first message of each of the stranger's nodes to A and to B.
    plain: BTreeMap<(usize, usize), Vec<u8>>,
    /// The messages of each of its nodes to A and to B, with a cookie.
    proven: BTreeMap<(usize, usize), Vec<u8>>,
    cookies: u32,
    dice: u64,
}

/// Addresses of the stranger's: proven, they have more opened than their network may.
const STRANGERS: u8 = 8;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn outer(host: u64, port: u16) -> SocketAddr {
    SocketAddr::from((
        (0x2001_0db8_u128 << 96 | u128::from(host)).to_be_bytes(),
        port,
    ))
}

fn node(host: u8) -> Node {
    let secret = WgSecret::generate(&mut OsRng);
    let inner = Ipv4Addr::new(10, 0, 0, host);
    let key = secret.public();
    let tunnel = Carried::new(
        1_000,
        Config {
            secret,
            mtu: 1420,
            seed: host.into(),
            inside: Inside {
                own: vec![inner.into()],
                ranges: vec![Range::new(inner.into(), 24)],
            },
        },
    );
    Node {
        tunnel,
        key,
        inner,
        outer: outer(host.into(), 51_820),
        sent: 0,
        delivered: 0,
    }
}

impl World {
    /// A and B know each other; the stranger knows both.
    fn new() -> Self {
        let mut world = Self {
            nodes: (1..=2 + STRANGERS).map(node).collect(),
            now: Duration::from_secs(1_000),
            one_way: ms(5),
            flying: VecDeque::new(),
            plain: BTreeMap::new(),
            proven: BTreeMap::new(),
            cookies: 0,
            dice: 1,
        };
        for at in 0..2 {
            world.install(at, 1, &[1 - at], Duration::ZERO);
            world.nodes[at].tunnel.activate(Epoch(1), world.now);
        }
        for at in 2..world.nodes.len() {
            world.install(at, 1, &[0, 1], Duration::ZERO);
            world.nodes[at].tunnel.activate(Epoch(1), world.now);
            for to in 0..2 {
                let _ = world.send(at, to);
                let first = world.nodes[at].tunnel.poll_transmit();
                let first = first.expect("it has something to say").payload;
                world.plain.insert((at, to), first);
            }
        }
        world
    }

    fn install(&mut self, at: usize, epoch: u64, peers: &[usize], lead: Duration) {
        let known: Vec<_> = peers
            .iter()
            .map(|peer| &self.nodes[*peer])
            .map(|peer| (peer.key, peer.inner, peer.outer))
            .collect();
        let psk = || Psk::from_bytes([epoch as u8; 32]);
        let specs = known.iter().map(|(key, inner, _)| {
            let allowed = vec![IpAddr::V4(*inner)];
            (PeerSpec { key: *key, allowed }, psk())
        });
        let tunnel = &mut self.nodes[at].tunnel;
        tunnel.install(Epoch(epoch), specs.collect(), lead, None, self.now);
        for (key, _, outer) in known {
            tunnel.set_endpoints(&key, vec![outer], self.now);
        }
    }

    fn send(&mut self, from: usize, to: usize) -> Outbound {
        let (source, destination) = (self.nodes[from].inner, self.nodes[to].inner);
        let mut packet = [0; 128];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&100_u16.to_be_bytes());
        packet[12..16].copy_from_slice(&source.octets());
        packet[16..20].copy_from_slice(&destination.octets());
        let (now, mut out) = (self.now, [0; 256]);
        self.nodes[from].sent += 1;
        let outbound = carry::send(
            &mut self.nodes[from].tunnel,
            &mut packet,
            100,
            &mut out,
            now,
        );
        if let Outbound::Send { to, len } = outbound {
            self.launch(self.nodes[from].outer, to, out[..len].to_vec());
        }
        outbound
    }

    fn launch(&mut self, from: SocketAddr, to: Path, datagram: Vec<u8>) {
        let Path::Udp(to) = to;
        self.flying
            .push_back((self.now + self.one_way, from, to, datagram));
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        if let Some(at) = self.nodes.iter().position(|node| node.outer == to) {
            let node = &mut self.nodes[at];
            let inbound = carry::receive(&mut node.tunnel, from, datagram, &mut [0; 256], self.now);
            node.delivered += u32::from(matches!(inbound, Inbound::Deliver { .. }));
            if at >= 2 && datagram[0] == 3 {
                self.cookies += 1;
            }
        } else if datagram[0] == 3 {
            self.cookies += 1;
        }
        self.collect();
    }

    fn collect(&mut self) {
        for at in 0..self.nodes.len() {
            while let Some(transmit) = self.nodes[at].tunnel.poll_transmit() {
                let is_proven = transmit.payload[transmit.payload.len() - 16..] != [0; 16];
                if at >= 2 && is_proven && transmit.payload[0] == 1 {
                    // It is sent again and again.
                    let to = usize::from(Path::Udp(self.nodes[1].outer) == transmit.to);
                    self.proven.insert((at, to), transmit.payload.clone());
                }
                self.launch(self.nodes[at].outer, transmit.to, transmit.payload);
            }
        }
    }

    fn flood(&mut self, flood: Flood) {
        let all = flood == Flood::All;
        for to in 0..2 {
            let plain = self.plain[&(2, to)].clone();
            let (target, peer) = (self.nodes[to].outer, self.nodes[1 - to].outer);
            let mut strikes = Vec::new();
            if all || flood == Flood::Own {
                strikes.push((self.nodes[2].outer, plain.clone()));
            }
            if all || flood == Flood::Network {
                self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005) + 1;
                let host = self.dice >> 16;
                strikes.push((outer(host, host as u16 | 1), plain.clone()));
                // The peer's address and another port.
                strikes.push((SocketAddr::new(peer.ip(), host as u16 | 1), plain.clone()));
            }
            if all || flood == Flood::Spoofed {
                strikes.push((peer, plain.clone()));
            }
            if all || flood == Flood::Proven {
                for at in 2..self.nodes.len() {
                    let proven = self.proven.get(&(at, to));
                    let message = proven.unwrap_or(&self.plain[&(at, to)]).clone();
                    strikes.push((self.nodes[at].outer, message));
                }
            }
            for (from, message) in strikes {
                self.arrive(from, target, &message);
            }
        }
    }

    fn tick(&mut self, flood: Flood) {
        self.now += ms(1);
        for node in &mut self.nodes {
            node.tunnel.handle_timeout(self.now);
        }
        self.collect();
        self.flood(flood);
        while self.flying.front().is_some_and(|it| it.0 <= self.now) {
            let (_, from, to, datagram) = self.flying.pop_front().expect("it is there");
            self.arrive(from, to, &datagram);
        }
    }

    /// Epochs of two seconds with a lead of half a second, and packets all the time.
    fn rotate(&mut self, epochs: std::ops::Range<u64>, lead: u64, flood: Flood) {
        for epoch in epochs {
            for at in 0..2 {
                self.install(at, epoch, &[1 - at], ms(lead));
            }
            for step in 0..2_000 {
                if step == lead {
                    for at in 0..2 {
                        self.nodes[at].tunnel.activate(Epoch(epoch), self.now);
                    }
                }
                // The grace ends.
                if step == lead + 1_000 {
                    for at in 0..2 {
                        self.nodes[at].tunnel.discard_previous();
                    }
                }
                if step % 10 == 0 {
                    let _ = self.send(0, 1);
                    let _ = self.send(1, 0);
                }
                self.tick(flood);
            }
        }
        for _ in 0..100 {
            self.tick(Flood::Nothing);
        }
    }

    fn lost(&self) -> [i64; 2] {
        let lost = |from: usize, to: usize| {
            i64::from(self.nodes[from].sent) - i64::from(self.nodes[to].delivered)
        };
        [lost(0, 1), lost(1, 0)]
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let of = |node: &Node| node.tunnel.drops().get(reason);
        self.nodes[..2].iter().map(of).sum()
    }
}

#[test]
fn a_pair_that_stays_loses_nothing_whoever_the_flood_claims_to_be() {
    for (flood, lead) in [
        (Flood::Own, 0),
        (Flood::Network, 500),
        (Flood::Spoofed, 0),
        (Flood::Spoofed, 500),
        (Flood::Proven, 0),
        (Flood::All, 500),
    ] {
        let mut world = World::new();
        let is_proven = matches!(flood, Flood::Proven | Flood::All);
        if is_proven {
            // It gets its cookies before it sends so much that few are left.
            (0..100).for_each(|_| world.tick(Flood::Proven));
        }
        world.rotate(2..3, lead, Flood::Nothing);
        assert_eq!(world.lost(), [0, 0], "in peace");
        world.rotate(3..5, lead, flood);
        assert_eq!(world.lost(), [0, 0], "{flood:?}, lead {lead}");
        let dropped = world.dropped(DropReason::UnderLoad);
        assert!(dropped > 5_000, "{flood:?}: only {dropped} were too many");
        // Those in whose name it was sent are the ones that are answered.
        assert!(world.cookies > 100 || matches!(flood, Flood::Spoofed | Flood::Proven));
        assert!(world.proven.len() == 2 * usize::from(STRANGERS) || !is_proven);
    }
}

/// A pair at an activation without lead, which the side that initiates is told of first.
struct Moment {
    world: World,
    epoch: u64,
    from: usize,
}

impl Moment {
    fn new() -> Self {
        let mut world = World::new();
        world.rotate(2..3, 0, Flood::Nothing);
        let from = usize::from(world.nodes[0].key > world.nodes[1].key);
        let epoch = 2;
        Self { world, epoch, from }
    }

    /// The next epoch begins; returns its first initiation, as it leaves.
    fn begin(&mut self) -> Vec<u8> {
        self.epoch += 1;
        for at in 0..2 {
            self.world
                .install(at, self.epoch, &[1 - at], Duration::ZERO);
            let now = self.world.now;
            self.world.nodes[at].tunnel.activate(Epoch(self.epoch), now);
        }
        let _ = self.world.send(self.from, 1 - self.from);
        loop {
            self.world.tick(Flood::Nothing);
            let first = self.world.flying.iter().find(|it| it.3[0] == 1);
            if let Some(initiation) = first {
                return initiation.3.clone();
            }
        }
    }

    /// Milliseconds until it has a session.
    fn wait(&mut self) -> u128 {
        let begun = self.world.now;
        loop {
            self.world.tick(Flood::Nothing);
            let peer = &self.world.nodes[self.from].tunnel.snapshot(self.world.now)[0];
            if peer.session_epoch == Some(Epoch(self.epoch)) {
                return (self.world.now - begun).as_millis();
            }
        }
    }

    /// More initiations in the name of each, to the other, than are opened.
    fn spoof(&mut self) {
        for to in [0, 1].repeat(100) {
            let (from, target) = (self.world.nodes[1 - to].outer, self.world.nodes[to].outer);
            let message = self.world.plain[&(2, to)].clone();
            self.world.arrive(from, target, &message);
        }
    }
}

#[test]
fn who_sends_in_a_peers_name_costs_it_one_round_trip_and_none_while_it_has_a_cookie() {
    let mut moment = Moment::new();
    moment.begin();
    assert_eq!(moment.wait(), 10, "in peace");
    moment.world.rotate(4..5, 0, Flood::Nothing);
    moment.epoch = 4;
    for (round_trips, round) in [(2, "the first"), (1, "with the cookie"), (1, "again")] {
        moment.begin();
        moment.spoof();
        assert_eq!(moment.wait(), 10 * round_trips, "{round}");
        for _ in 0..2_000 {
            moment.world.tick(Flood::Nothing);
        }
    }
    assert_eq!(moment.world.lost(), [0, 0]);
}

/// Something that looks like a response to `initiation`, made for the owner of `key`.
fn forged_response(initiation: &[u8], key: &WgPublicKey, salt: u8) -> Vec<u8> {
    let mut message = vec![salt; 92];
    message[..4].copy_from_slice(&[2, 0, 0, 0]);
    message[8..12].copy_from_slice(&initiation[4..8]);
    address(&mut message, key);
    message
}

/// Makes MAC1 for the owner of `key`, as anybody can.
fn address(message: &mut [u8], key: &WgPublicKey) {
    let mac1_key = Blake2s256::new()
        .chain_update(b"mac1----")
        .chain_update(key.0)
        .finalize();
    let signed = message.len() - 32;
    let mac1 = Blake2sMac::<U16>::new_from_slice(&mac1_key)
        .expect("32 bytes")
        .chain(&message[..signed])
        .finalize_fixed();
    message[signed..signed + 16].copy_from_slice(&mac1);
}

#[test]
fn a_copy_of_an_initiation_that_was_refused_keeps_out_none_that_follows() {
    let mut moment = Moment::new();
    let mut copy = moment.begin();
    let to = 1 - moment.from;
    let (key, outer_to) = (moment.world.nodes[to].key, moment.world.nodes[to].outer);
    moment.spoof();
    // It comes first, with an index of its own: a stock WireGuard's, as it seems.
    copy[4..8].copy_from_slice(&[0xFE, 0xCA, 0xAD, 0x0B]);
    address(&mut copy, &key);
    moment.world.arrive(outer(99, 99), outer_to, &copy);
    assert_eq!(moment.wait(), 20, "a round trip more, for the cookie");
    moment.world.rotate(4..5, 0, Flood::Nothing);
    assert_eq!(moment.world.lost(), [0, 0]);
}

#[test]
fn who_reads_an_index_and_forges_responses_costs_one_round_trip() {
    let mut moment = Moment::new();
    let initiation = moment.begin();
    let (from, to) = (moment.from, 1 - moment.from);
    let (key, outer_from) = (moment.world.nodes[from].key, moment.world.nodes[from].outer);
    let outer_to = moment.world.nodes[to].outer;
    for salt in 0..200 {
        let forged = forged_response(&initiation, &key, salt);
        moment.world.arrive(outer_to, outer_from, &forged);
        moment.world.arrive(outer(99, 99), outer_from, &forged);
    }
    let dropped = moment.world.nodes[from].tunnel.drops();
    let opened = dropped.get(DropReason::BadHandshake);
    assert_eq!(opened, u64::from(tunnel::RESPONSES_PER_PEER));
    assert_eq!(dropped.get(DropReason::UnderLoad), 400 - opened);
    assert_eq!(moment.wait(), 20);
    moment.world.rotate(4..5, 0, Flood::Nothing);
    assert_eq!(moment.world.lost(), [0, 0]);
}

#[test]
fn a_response_to_nothing_takes_from_nobody() {
    let mut moment = Moment::new();
    let mut initiation = moment.begin();
    initiation[4] ^= 1;
    let (key, outer_from) = (
        moment.world.nodes[moment.from].key,
        moment.world.nodes[moment.from].outer,
    );
    let before = moment.world.nodes[moment.from].tunnel.drops();
    for salt in 0..200 {
        initiation[5] = initiation[5].wrapping_add(1);
        let forged = forged_response(&initiation, &key, salt);
        moment.world.arrive(outer(99, 99), outer_from, &forged);
    }
    let dropped = moment.world.nodes[moment.from].tunnel.drops();
    let unknown = |drops: &tunnel::Drops| drops.get(DropReason::UnknownIndex);
    assert_eq!(unknown(&dropped) - unknown(&before), 200);
    assert_eq!(moment.wait(), 10);
}
