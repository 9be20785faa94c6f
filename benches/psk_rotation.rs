//! `cargo bench psk_rotation`: what one epoch costs per peer, in one process and on one core.
//!
//! | Step | What runs |
//! |---|---|
//! | `derive` | peer's node key and pair PSK from the epoch secret, static-static DH cached |
//! | `install` | a generation per peer in the slot `next`, no handshake yet |
//! | `hand_over` | both sides: install, handshake on `next`, switch, discard |
//! | `bare` | the floor beside it: two `Tunn::new` and one boringtun handshake, nothing of meshd |
//!
//! Criterion prints time per iteration and, as throughput, peers per second.

use boringtun::noise::{Tunn, TunnResult};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keys::schedule::Side;
use keys::{
    Epoch, EpochSecret, MeshId, NodeId, Psk, SegmentId, SharedSecret, WgPublicKey, WgSecret,
};
use rand_core::OsRng;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tunnel::{Config, Outbound, PeerSpec, Tunnel};

const PEERS: [usize; 4] = [1, 10, 100, 1_000];
const LEAD: Duration = Duration::from_secs(5);

/// A tunnel with its key and its place.
struct Endpoint {
    tunnel: Tunnel,
    key: WgPublicKey,
    inner: Ipv4Addr,
    outer: SocketAddr,
}

/// One node and all its peers.
struct Star {
    hub: Endpoint,
    spokes: Vec<Endpoint>,
    epoch: u64,
    now: Duration,
}

fn endpoint(number: u16) -> Endpoint {
    let secret = WgSecret::generate(&mut OsRng);
    let key = secret.public();
    let tunnel = Tunnel::new(Config {
        secret,
        mtu: 1420,
        handshakes_per_second: u64::MAX,
        seed: number.into(),
    });
    let [high, low] = number.to_be_bytes();
    let inner = Ipv4Addr::new(10, 77, high, low);
    Endpoint {
        tunnel,
        key,
        inner,
        outer: SocketAddr::from(([192, 0, 2, 1], 10_000 + number)),
    }
}

fn psk(epoch: u64, spoke: usize) -> Psk {
    let mut bytes = [epoch as u8; 32];
    bytes[..8].copy_from_slice(&(spoke as u64).to_be_bytes());
    Psk::from_bytes(bytes)
}

impl Star {
    /// All peers connected and active.
    fn connected(peers: usize) -> Self {
        let hub = endpoint(0);
        let spokes = (1..=peers).map(|number| endpoint(number as u16)).collect();
        let mut star = Self {
            hub,
            spokes,
            epoch: 0,
            now: Duration::from_secs(1_000),
        };
        star.install();
        star.activate();
        star.talk();
        star
    }

    fn install(&mut self) {
        self.epoch += 1;
        let (epoch, now) = (Epoch(self.epoch), self.now);
        let spec = |endpoint: &Endpoint| PeerSpec {
            key: endpoint.key,
            allowed: vec![IpAddr::V4(endpoint.inner)],
        };
        let peers = self
            .spokes
            .iter()
            .enumerate()
            .map(|(at, spoke)| (spec(spoke), psk(epoch.0, at)))
            .collect();
        self.hub.tunnel.install(epoch, peers, LEAD, now);
        for (at, spoke) in self.spokes.iter_mut().enumerate() {
            spoke
                .tunnel
                .install(epoch, vec![(spec(&self.hub), psk(epoch.0, at))], LEAD, now);
            self.hub
                .tunnel
                .set_endpoints(&spoke.key, vec![spoke.outer], now);
            spoke
                .tunnel
                .set_endpoints(&self.hub.key, vec![self.hub.outer], now);
        }
    }

    fn activate(&mut self) {
        let epoch = Epoch(self.epoch);
        self.hub.tunnel.activate(epoch, None, self.now);
        self.spokes
            .iter_mut()
            .for_each(|spoke| spoke.tunnel.activate(epoch, None, self.now));
    }

    fn discard(&mut self) {
        self.hub.tunnel.discard_previous();
        self.spokes
            .iter_mut()
            .for_each(|spoke| spoke.tunnel.discard_previous());
    }

    /// One packet from each peer, so that every pair counts as active.
    fn talk(&mut self) {
        let hub = self.hub.inner;
        let mut out = [0; 256];
        for spoke in &mut self.spokes {
            let mut packet = [0; 64];
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&48u16.to_be_bytes());
            packet[12..16].copy_from_slice(&spoke.inner.octets());
            packet[16..20].copy_from_slice(&hub.octets());
            if let Outbound::Send { len, .. } =
                spoke.tunnel.handle_tun(&mut packet, 48, &mut out, self.now)
            {
                self.hub
                    .tunnel
                    .handle_udp(spoke.outer, &out[..len], &mut [0; 256], self.now);
            }
        }
        self.settle();
    }

    /// Carries handshake messages until nobody has one.
    fn settle(&mut self) {
        let mut out = [0; 256];
        let mut busy = true;
        while std::mem::take(&mut busy) {
            self.hub.tunnel.handle_timeout(self.now);
            while let Some(transmit) = self.hub.tunnel.poll_transmit() {
                let spoke = &mut self.spokes[usize::from(transmit.to.port()) - 10_001];
                spoke
                    .tunnel
                    .handle_udp(self.hub.outer, &transmit.payload, &mut out, self.now);
                busy = true;
            }
            for spoke in &mut self.spokes {
                spoke.tunnel.handle_timeout(self.now);
                while let Some(transmit) = spoke.tunnel.poll_transmit() {
                    self.hub
                        .tunnel
                        .handle_udp(spoke.outer, &transmit.payload, &mut out, self.now);
                    busy = true;
                }
            }
        }
    }

    /// One whole rotation, as two sides of each pair see it.
    fn hand_over(&mut self) {
        self.install();
        self.now += LEAD;
        self.settle();
        self.activate();
        self.settle();
        self.discard();
    }

    fn check(&self) {
        let sessions = self.hub.tunnel.snapshot(self.now);
        assert_eq!(sessions.len(), self.spokes.len());
        assert!(
            sessions
                .iter()
                .all(|peer| peer.session_epoch == Some(Epoch(self.epoch))),
            "every peer moved"
        );
    }
}

fn derive(c: &mut Criterion) {
    let scope = (MeshId([1; 16]), SegmentId(0), Epoch(1));
    let secret = EpochSecret::generate(&mut OsRng);
    let own = WgSecret::generate(&mut OsRng);
    let own_key = secret.node_key(scope.0, scope.1, scope.2, &NodeId([1; 32]));
    let own_wg = own.public();
    let mut group = c.benchmark_group("psk_rotation/derive");
    for peers in PEERS {
        let others: Vec<(NodeId, WgPublicKey, SharedSecret)> = (0..peers)
            .map(|_| {
                let wg = WgSecret::generate(&mut OsRng).public();
                let shared = own
                    .shared_with(&wg)
                    .expect("a generated key is of full order");
                (NodeId(wg.0), wg, shared)
            })
            .collect();
        group.throughput(Throughput::Elements(peers as u64));
        group.bench_function(BenchmarkId::from_parameter(peers), |b| {
            b.iter(|| {
                for (node, wg, shared) in &others {
                    let key = secret.node_key(scope.0, scope.1, scope.2, node);
                    let (a, b) = (
                        Side {
                            node_key: &own_key,
                            wg: &own_wg,
                        },
                        Side { node_key: &key, wg },
                    );
                    black_box(Psk::derive(scope, &a, &b, shared));
                }
            });
        });
    }
}

fn install(c: &mut Criterion) {
    let mut group = c.benchmark_group("psk_rotation/install");
    for peers in PEERS {
        let mut star = Star::connected(peers);
        let specs: Vec<PeerSpec> = star
            .spokes
            .iter()
            .map(|spoke| PeerSpec {
                key: spoke.key,
                allowed: vec![IpAddr::V4(spoke.inner)],
            })
            .collect();
        group.throughput(Throughput::Elements(peers as u64));
        group.bench_function(BenchmarkId::from_parameter(peers), |b| {
            b.iter(|| {
                star.epoch += 1;
                let epoch = star.epoch;
                let peers = specs
                    .iter()
                    .enumerate()
                    .map(|(at, spec)| (spec.clone(), psk(epoch, at)))
                    .collect();
                black_box(star.hub.tunnel.install(Epoch(epoch), peers, LEAD, star.now));
            });
        });
    }
}

fn hand_over(c: &mut Criterion) {
    let mut group = c.benchmark_group("psk_rotation/hand_over");
    group.sample_size(10);
    for peers in PEERS {
        let mut star = Star::connected(peers);
        group.throughput(Throughput::Elements(peers as u64));
        group.bench_function(BenchmarkId::from_parameter(peers), |b| {
            b.iter_custom(|rotations| {
                let mut total = Duration::ZERO;
                for _ in 0..rotations {
                    star.talk();
                    let start = clock();
                    star.hand_over();
                    total += start.elapsed();
                    star.check();
                }
                total
            });
        });
    }
}

fn bare(c: &mut Criterion) {
    let secret = || x25519_dalek::StaticSecret::random_from_rng(OsRng);
    let (a, b) = (secret(), secret());
    let (public_a, public_b) = (
        x25519_dalek::PublicKey::from(&a),
        x25519_dalek::PublicKey::from(&b),
    );
    c.bench_function("psk_rotation/bare/1", |bench| {
        let (mut one, mut two) = ([0; 256], [0; 256]);
        bench.iter(|| {
            let mut tunn_a = Tunn::new(a.clone(), public_b, Some([1; 32]), None, 1, None);
            let mut tunn_b = Tunn::new(b.clone(), public_a, Some([1; 32]), None, 2, None);
            let TunnResult::WriteToNetwork(init) =
                tunn_a.format_handshake_initiation(&mut one, true)
            else {
                panic!()
            };
            let TunnResult::WriteToNetwork(answer) = tunn_b.decapsulate(None, init, &mut two)
            else {
                panic!()
            };
            let TunnResult::WriteToNetwork(keepalive) = tunn_a.decapsulate(None, answer, &mut one)
            else {
                panic!()
            };
            assert!(matches!(
                tunn_b.decapsulate(None, keepalive, &mut two),
                TunnResult::Done
            ));
        });
    });
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

criterion_group!(benches, derive, install, hand_over, bare);
criterion_main!(benches);
