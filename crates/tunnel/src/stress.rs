//! Random lives of three nodes in virtual time, and the rules that hold through all of them: all that is
//! kept is bounded and belongs to somebody, a peer that is out is out, and a pair that stays loses
//! nothing that the network does not lose. It is long because a life needs a whole world: nodes, a
//! network with weather, a plan of epochs, and the rules.
//!
//! The file is long because a random world, its rules and its schedules are read together.

#[path = "../tests/carry/mod.rs"]
mod carry;

use crate as tunnel;
use crate::limits::*;
use crate::{Config, DropReason, Inbound, Inside, Outbound, Path, PeerSpec, Range, Tunnel};
use carry::Carried;
use keys::{Epoch, Psk, WgSecret};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rand_core::{CryptoRng, RngCore};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

struct Node {
    tunnel: Carried,
    secret: WgSecret,
    current: Option<u64>,
    next: Option<u64>,
    /// Per other node, the newest epoch that it is known not to be part of.
    out_since: [u64; NODES],
    discard_at: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Install(u64, u64),
    Activate(u64),
    Close,
    Restart,
}

struct Datagram {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

struct Packet {
    from: usize,
    to: usize,
    /// Of the session it was sealed on; `None`: it waited for one.
    epoch: Option<u64>,
    at: Duration,
}

/// The deeds of the network to datagrams. One in so many; 0: none.
#[derive(Clone, Copy, Default)]
struct Weather {
    delay: u64,
    loses: u32,
    repeats: u32,
    /// Not one keepalive arrives: nothing confirms a handshake but data.
    is_deaf: bool,
    /// Brings back any datagram of the past, from anywhere.
    replays: u32,
}

struct World {
    nodes: Vec<Node>,
    /// The members of each epoch.
    epochs: Vec<[bool; NODES]>,
    leases: Vec<Option<Duration>>,
    now: Duration,
    rng: SmallRng,
    weather: Weather,
    flying: BTreeMap<(Duration, u64), Datagram>,
    past: Vec<(usize, Vec<u8>)>,
    plan: Vec<(Duration, usize, Step)>,
    sent: HashMap<u64, Packet>,
    delivered: HashSet<u64>,
    serial: u64,
    per_second: u64,
}

/// Makes the keys of a world: the same in every run, so that the same side has the lower one.
pub(crate) struct Keys(pub(crate) SmallRng);

impl RngCore for Keys {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        self.0.fill_bytes(to);
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.try_fill_bytes(to)
    }
}

impl CryptoRng for Keys {}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn inner(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, node as u8 + 1)
}

fn outer(node: usize) -> Path {
    Path::Udp(([192, 0, 2, node as u8 + 1], 51820).into())
}

fn tunnel(at: usize, secret: &WgSecret, handshakes_per_second: u64, seed: u64) -> Carried {
    Carried::new(
        handshakes_per_second,
        Config {
            inside: Inside {
                own: vec![inner(at).into()],
                ranges: vec![Range::new(inner(0).into(), 8)],
            },
            secret: secret.duplicate(),
            mtu: 1420,
            seed,
        },
    )
}

impl World {
    fn new(seed: u64, weather: Weather, per_second: u64) -> Self {
        let mut keys = Keys(SmallRng::seed_from_u64(seed));
        let mut node = |at| {
            let secret = WgSecret::generate(&mut keys);
            Node {
                tunnel: tunnel(at as usize, &secret, per_second, seed + at),
                secret,
                current: None,
                next: None,
                out_since: [0; NODES],
                discard_at: None,
            }
        };
        Self {
            nodes: (0..NODES as u64).map(&mut node).collect(),
            epochs: vec![[false; NODES]],
            leases: vec![None],
            now: Duration::from_secs(1_000),
            rng: SmallRng::seed_from_u64(seed),
            weather,
            flying: BTreeMap::new(),
            past: Vec::new(),
            plan: Vec::new(),
            sent: HashMap::new(),
            delivered: HashSet::new(),
            serial: 0,
            per_second,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.gen_range(0..bound.max(1))
    }

    fn one_in(&mut self, count: u32) -> bool {
        count > 0 && self.rng.gen_range(0..count) == 0
    }

    // ---- epochs -----------------------------------------------------------------------------

    /// A new epoch, of which its members hear within `skew`.
    fn announce(&mut self, members: [bool; NODES], lead: u64, skew: u64, lease: Option<u64>) {
        let epoch = self.epochs.len() as u64;
        self.epochs.push(members);
        self.leases
            .push(lease.map(|lease| self.now + ms(lead + lease)));
        for node in (0..NODES).filter(|node| members[*node]) {
            let heard = self.now + ms(self.below(skew));
            self.plan.push((heard, node, Step::Install(epoch, lead)));
            let begins = match lead {
                0 => heard,
                _ => (self.now + ms(lead + self.below(20))).max(heard),
            };
            self.plan.push((begins, node, Step::Activate(epoch)));
        }
    }

    fn is_member(&self, epoch: Option<u64>, node: usize) -> bool {
        epoch.is_some_and(|epoch| self.epochs[epoch as usize][node])
    }

    fn install(&mut self, at: usize, epoch: u64, lead: u64) {
        let members = self.epochs[epoch as usize];
        let others: Vec<usize> = (0..NODES).filter(|it| *it != at && members[*it]).collect();
        let peers = others.iter().map(|other| {
            let spec = PeerSpec {
                key: self.nodes[*other].secret.public(),
                allowed: vec![IpAddr::V4(inner(*other))],
            };
            let (low, high) = (at.min(*other) as u8, at.max(*other) as u8);
            (
                spec,
                Psk::from_bytes([epoch as u8 ^ (low << 6) ^ (high << 4); 32]),
            )
        });
        let peers: Vec<_> = peers.collect();
        let keys: Vec<_> = peers.iter().map(|(spec, _)| spec.key).collect();
        let (now, lease) = (self.now, self.leases[epoch as usize]);
        let node = &mut self.nodes[at];
        node.tunnel
            .install(Epoch(epoch), peers, ms(lead), lease, now);
        for (other, key) in others.iter().zip(keys) {
            node.tunnel.set_endpoints(&key, vec![outer(*other)], now);
        }
        node.next = Some(epoch);
        if node.current.is_none() {
            self.put_out(at, epoch);
        }
    }

    /// `epoch` says at `at` who is out.
    fn put_out(&mut self, at: usize, epoch: u64) {
        let members = self.epochs[epoch as usize];
        for other in (0..NODES).filter(|other| !members[*other]) {
            self.nodes[at].out_since[other] = epoch;
        }
    }

    fn step(&mut self, at: usize, step: Step) {
        let now = self.now;
        let newest = self.nodes[at].next.max(self.nodes[at].current);
        match step {
            Step::Install(epoch, lead) if newest < Some(epoch) => self.install(at, epoch, lead),
            Step::Activate(epoch) if self.nodes[at].next == Some(epoch) => {
                let node = &mut self.nodes[at];
                node.tunnel.activate(Epoch(epoch), now);
                (node.current, node.next) = (Some(epoch), None);
                node.discard_at = Some(now + ms(GRACE));
                self.put_out(at, epoch);
            }
            Step::Install(..) | Step::Activate(_) => {}
            Step::Close => {
                self.nodes[at].tunnel.close();
                self.nodes[at].current = None;
            }
            Step::Restart => {
                let (seed, per_second) = (self.below(u64::MAX), self.per_second);
                let node = &mut self.nodes[at];
                node.tunnel = tunnel(at, &node.secret, per_second, seed);
                let epoch = node.current.take();
                node.next = None;
                if let Some(epoch) = epoch {
                    self.install(at, epoch, 0);
                    self.step(at, Step::Activate(epoch));
                }
            }
        }
    }

    // ---- packets ----------------------------------------------------------------------------

    fn send(&mut self, from: usize, to: usize) {
        self.serial += 1;
        let id = self.serial;
        let mut packet = [0; 128];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&100u16.to_be_bytes());
        packet[12..16].copy_from_slice(&inner(from).octets());
        packet[16..20].copy_from_slice(&inner(to).octets());
        packet[20..28].copy_from_slice(&id.to_be_bytes());
        let mut out = [0; 256];
        let (now, key) = (self.now, self.nodes[to].secret.public());
        let tunnel = &mut self.nodes[from].tunnel;
        let outbound = carry::send(tunnel, &mut packet, 100, &mut out, now);
        let snapshot = tunnel.snapshot(now);
        let peer = snapshot.iter().find(|peer| peer.key == key);
        let epoch = peer
            .and_then(|peer| peer.session_epoch)
            .map(|epoch| epoch.0);
        let node = &self.nodes[from];
        let epoch = match outbound {
            Outbound::Send { len, .. } => {
                assert!(
                    epoch <= node.current,
                    "sent on an epoch that is not in force"
                );
                self.assert_in_lease(from);
                self.launch(from, to, out[..len].to_vec());
                epoch
            }
            Outbound::Queued => None,
            Outbound::Dropped(reason) => {
                assert_ne!(reason, DropReason::BadAead);
                // Counted as sent all the same.
                None
            }
        };
        let at = self.now;
        let packet = Packet {
            from,
            to,
            epoch,
            at,
        };
        self.sent.insert(id, packet);
    }

    fn assert_in_lease(&self, node: usize) {
        let node = &self.nodes[node];
        let epoch = node.current.or(node.next).expect("an epoch");
        let lease = self.leases[epoch as usize];
        assert!(
            lease.is_none_or(|lease| self.now < lease),
            "the lease is over"
        );
    }

    fn launch(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        let copies = 1 + u32::from(self.one_in(self.weather.repeats));
        for _ in 0..copies {
            let is_unheard = self.weather.is_deaf && bytes.len() == DATA_OVERHEAD;
            if !is_unheard && !self.one_in(self.weather.loses) {
                self.fly(from, to, bytes.clone());
            }
        }
        if self.past.len() < 2_000 {
            self.past.push((to, bytes));
        }
    }

    fn fly(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        self.serial += 1;
        let lands = self.now + ms(1 + self.below(self.weather.delay));
        let datagram = Datagram { from, to, bytes };
        self.flying.insert((lands, self.serial), datagram);
    }

    fn land(&mut self, Datagram { from, to, bytes }: Datagram) {
        let mut out = [0; 256];
        let now = self.now;
        let tunnel = &mut self.nodes[to].tunnel;
        let inbound = carry::receive(tunnel, outer(from), &bytes, &mut out, now);
        let Inbound::Deliver { len } = inbound else {
            return;
        };
        assert_eq!(len, 100);
        let id = u64::from_be_bytes(out[20..28].try_into().expect("eight bytes"));
        assert!(self.delivered.insert(id), "delivered twice");
        let packet = &self.sent[&id];
        assert_eq!(packet.to, to);
        let node = &self.nodes[to];
        assert!(
            self.is_member(node.current, packet.from) || self.is_member(node.next, packet.from),
            "{} is out, and was heard by {to}",
            packet.from
        );
        let out_since = node.out_since[packet.from];
        assert!(
            packet.epoch.is_none_or(|epoch| epoch > out_since),
            "sealed before {} was out",
            packet.from
        );
        self.assert_in_lease(to);
    }

    // ---- time -------------------------------------------------------------------------------

    fn collect(&mut self) {
        for from in 0..NODES {
            while let Some(transmit) = self.nodes[from].tunnel.poll_transmit() {
                let to = (0..NODES).find(|node| outer(*node) == transmit.to);
                if let Some(to) = to.filter(|to| *to != from) {
                    self.launch(from, to, transmit.payload);
                }
            }
            while self.nodes[from].tunnel.poll_event().is_some() {}
        }
    }

    /// Goes to the next moment at which anything happens, `end` at the latest.
    fn advance(&mut self, end: Duration) {
        let timeouts = self.nodes.iter().filter_map(|it| it.tunnel.poll_timeout());
        let discards = self.nodes.iter().filter_map(|node| node.discard_at);
        let landing = self.flying.keys().next().map(|(when, _)| *when);
        let planned = self.plan.iter().map(|(when, ..)| *when);
        let next = timeouts.chain(discards).chain(landing).chain(planned).min();
        self.now = next
            .unwrap_or(end)
            .clamp(self.now + ms(1), end.max(self.now + ms(1)));
        let now = self.now;
        for node in &mut self.nodes {
            if node.discard_at.take_if(|at| *at <= now).is_some() {
                node.tunnel.discard_previous();
            }
            node.tunnel.handle_timeout(now);
        }
        let (mut due, plan): (Vec<_>, Vec<_>) = std::mem::take(&mut self.plan)
            .into_iter()
            .partition(|(when, ..)| *when <= now);
        self.plan = plan;
        due.sort_by_key(|(when, ..)| *when);
        for (_, at, step) in due {
            self.step(at, step);
        }
        while let Some(entry) = self.flying.first_entry().filter(|it| it.key().0 <= now) {
            let datagram = entry.remove();
            self.land(datagram);
        }
        if !self.past.is_empty() && self.one_in(self.weather.replays) {
            let at = self.below(self.past.len() as u64) as usize;
            let (to, bytes) = self.past[at].clone();
            let from = self.below(NODES as u64) as usize;
            self.land(Datagram { from, to, bytes });
        }
        self.collect();
        // Often enough: a fault stays once it is there.
        if self.one_in(8) {
            self.check();
        }
    }

    /// Lets `time` pass; each of `flows` sends once in about `every` milliseconds, 0: never.
    fn run(&mut self, time: u64, every: u64, flows: &[(usize, usize)]) {
        let end = self.now + ms(time);
        let mut next = self.now;
        while self.now < end {
            if every > 0 && next <= self.now {
                for (from, to) in flows {
                    if self.below(2) == 0 {
                        self.send(*from, *to);
                    }
                }
                self.collect();
                next = self.now + ms(1 + self.below(every));
            }
            self.advance(if every > 0 { next.min(end) } else { end });
        }
    }

    // ---- what has to hold -------------------------------------------------------------------

    fn check(&mut self) {
        for node in &mut self.nodes {
            let indices = node.tunnel.indices().all().into_iter();
            let indices = indices.map(|(index, (_, peer))| (index, peer)).collect();
            let tunnel: &mut Tunnel = &mut node.tunnel;
            let mut owned = HashMap::new();
            let mut peers = 0;
            let mut keys = Vec::new();
            let mut endpoints = HashMap::new();
            for peer in tunnel.peers.iter_mut() {
                for endpoint in peer.whereabouts.all() {
                    *endpoints.entry(endpoint).or_default() += 1;
                }
                peers += 1;
                keys.push((peer.key, peer.id));
                assert!(peer.queue.len() <= MAX_QUEUED);
                let (named, unnamed) = peer.stamps.len();
                assert!(named <= MAX_NAMED && unnamed <= MAX_UNNAMED);
                assert!(peer.generations.iter_mut().count() <= 2 + MAX_PREVIOUS);
                let wanted: Vec<_> = peer
                    .generations
                    .iter_mut()
                    .filter_map(|it| it.initiating)
                    .collect();
                let first = wanted.iter().map(|it| it.next_at).min();
                let due = tunnel.local.agenda.of(peer.id);
                assert!(
                    due.len() <= 1 && (first.is_none() || due.first().copied() <= first),
                    "nobody will call"
                );
                let is_awake = tunnel.local.awake.contains(&peer.id);
                assert!(is_awake || peer.generations.are_blank(), "nobody will look");
                for generation in peer.generations.iter_mut() {
                    for index in generation.checked_indices() {
                        assert_eq!(owned.insert(index, peer.id), None, "two own an index");
                    }
                }
            }
            assert_eq!(endpoints, tunnel.local.endpoints.all());
            assert_eq!(owned, indices);
            assert_eq!(peers, tunnel.peers.count());
            let id_of = |key| tunnel.peers.id_of(key);
            assert!(keys.iter().all(|(key, id)| id_of(key) == Some(*id)));
            assert!(tunnel.local.agenda.len() <= peers);
            assert!(tunnel.local.awake.len() <= peers && tunnel.allowed.len() <= peers);
        }
    }

    /// Packets from `from` to `to` that were sent since `since` and did not arrive.
    fn lost(&self, from: usize, to: usize, since: Duration) -> usize {
        let of_pair =
            |packet: &Packet| packet.from == from && packet.to == to && packet.at >= since;
        let missing = |id: &u64| !self.delivered.contains(id);
        self.sent
            .iter()
            .filter(|(id, it)| of_pair(it) && missing(id))
            .count()
    }
}

/// Members 0 and 1, and sometimes 2.
fn members(world: &mut World) -> [bool; NODES] {
    [true, true, world.below(2) == 0]
}

fn a_calm_life(seed: u64) {
    let weather = Weather {
        delay: [5, 40, 120, 250][seed as usize % 4],
        repeats: 10,
        is_deaf: seed % 3 == 2,
        ..Weather::default()
    };
    let mut world = World::new(seed, weather, u64::MAX);
    world.announce([true; NODES], 0, 1, None);
    world.run(10, 0, &[]);
    world.run(3_000, 50, &ALL);
    for _ in 0..10 {
        let members = members(&mut world);
        let skew = [1, 50, 200][world.below(3) as usize];
        match world.below(4) {
            0 => world.announce(members, 0, skew, None),
            1 => world.announce(members, 5_000, skew, None),
            2 => {
                world.announce(members, 2_000, skew, None);
                let soon = world.below(2_500);
                world.run(soon, 20, &ALL);
                world.announce(members, 0, skew, None);
            }
            _ => {
                let time = world.below(250_000);
                let every = [0, 1_000, 60_000, 90_000][world.below(4) as usize];
                world.run(time, every, &ALL);
            }
        }
        let time = 200 + world.below(4_000);
        let every = [20, 100, 700][world.below(3) as usize];
        world.run(time, every, &ALL);
    }
    world.run(3_000, 0, &[]);
    for (from, to) in [(0, 1), (1, 0)] {
        let lost = world.lost(from, to, Duration::ZERO);
        assert_eq!(lost, 0, "seed {seed}, from {from} to {to}");
    }
}

fn a_wild_life(seed: u64) {
    let weather = Weather {
        delay: 80,
        loses: [0, 3, 10][seed as usize % 3],
        repeats: 5,
        replays: 3,
        ..Weather::default()
    };
    let per_second = [u64::MAX, 10][seed as usize % 2];
    let mut world = World::new(seed, weather, per_second);
    world.announce([true; NODES], 0, 1, None);
    for _ in 0..15 {
        let members = members(&mut world);
        let (at, lead) = (
            world.below(NODES as u64) as usize,
            [0, 1_000, 5_000][world.below(3) as usize],
        );
        let lease = [None, Some(3_000), Some(30_000)][world.below(3) as usize];
        match world.below(7) {
            0..=2 => world.announce(members, lead, 300, lease),
            3 => world.plan.push((world.now, at, Step::Restart)),
            4 => world.plan.push((world.now, at, Step::Close)),
            5 => {
                // Nothing in force, and epochs to come that supersede each other.
                world.plan.push((world.now, at, Step::Close));
                world.announce(members, 5_000, 300, lease);
                let time = world.below(4_000);
                world.run(time, 50, &ALL);
                world.announce([true, true, !members[2]], 5_000, 300, lease);
            }
            _ => {
                let time = world.below(200_000);
                world.run(time, 1_000, &ALL);
            }
        }
        let time = world.below(3_000);
        world.run(time, 50, &ALL);
    }
    // Peace is an epoch of all and a network that loses nothing; or only that, for those who have
    // restarted within the epoch meanwhile.
    world.announce([true; NODES], 0, 1, None);
    let mut heals_in = 3_000;
    if seed.is_multiple_of(2) {
        heals_in = 17_000;
        for _ in 0..4 {
            let (at, time) = (world.below(NODES as u64) as usize, world.below(600));
            world.run(time, 50, &ALL);
            world.plan.push((world.now, at, Step::Restart));
        }
    }
    world.weather.loses = 0;
    world.run(heals_in, 300, &ALL);
    let since = world.now;
    world.run(2_000, 100, &ALL);
    world.run(1_000, 0, &[]);
    for (from, to) in ALL {
        let lost = world.lost(from, to, since);
        assert_eq!(lost, 0, "seed {seed}, from {from} to {to}");
    }
}

#[test]
fn a_pair_that_stays_loses_nothing_whatever_epochs_and_the_order_of_datagrams_do() {
    for seed in 0..seeds(5) {
        a_calm_life(seed);
    }
}

#[test]
fn who_is_out_is_out_and_peace_heals_whatever_was_lost_replayed_restarted_or_closed() {
    for seed in 0..seeds(5) {
        a_wild_life(seed);
    }
}

#[test]
fn a_member_that_floods_its_pair_with_initiations_costs_nobody_a_packet() {
    let weather = Weather {
        delay: 20,
        ..Weather::default()
    };
    let mut world = World::new(1, weather, u64::MAX);
    world.announce([true; NODES], 0, 1, None);
    world.run(10, 0, &[]);
    world.run(2_000, 50, &ALL);
    let mut answers = 0;
    let begun = world.now;
    for _ in 0..1_000 {
        let (now, key) = (world.now, world.nodes[1].secret.public());
        let tunnel: &mut Tunnel = &mut world.nodes[0].tunnel;
        let id = tunnel.peers.id_of(&key).expect("a peer");
        let peer = tunnel.peers.get_mut(id).expect("a peer");
        let current = peer.generations.current.as_mut().expect("an epoch");
        let forge = &mut tunnel.local.forge;
        let link = current.initiator((peer.id, key), now, forge);
        let mut initiation = [0; MIN_BUFFER];
        let _ = link.tunn.format_handshake_initiation(&mut initiation, true);
        world.fly(0, 1, initiation.to_vec());
        // Nothing ever comes of the answers.
        world.run(3, 5, &ALL);
        let is_answer = |it: &Datagram| (it.from, it.to, it.bytes.len()) == (1, 0, RESPONSE_LEN);
        answers += world.flying.values().filter(|it| is_answer(it)).count();
        world.flying.retain(|_, it| !is_answer(it));
        world.check();
    }
    // As many as any endpoint may have opened, and each of them a handshake that comes to nothing.
    let seconds = (world.now - begun).as_secs() as usize;
    let most = (seconds + 1) * INITIATIONS_PER_ENDPOINT as usize;
    assert!(
        (most / 4..=most).contains(&answers),
        "{answers} were answered in {seconds} s"
    );
    world.run(1_000, 0, &[]);
    for (from, to) in ALL {
        let lost = world.lost(from, to, Duration::ZERO);
        assert_eq!(lost, 0, "from {from} to {to}");
    }
}

/// More of them with `SEEDS` in the environment.
fn seeds(usual: u64) -> u64 {
    let asked = std::env::var("SEEDS").ok();
    asked.and_then(|it| it.parse().ok()).unwrap_or(usual)
}

const NODES: usize = 3;
/// Everybody to everybody.
const ALL: [(usize, usize); 6] = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
/// Milliseconds.
const GRACE: u64 = 2_000;
const RESPONSE_LEN: usize = 92;
