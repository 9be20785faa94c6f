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

#[path = "star.rs"]
mod star;

use boringtun::noise::{Tunn, TunnResult};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keys::schedule::Side;
use keys::{
    Epoch, EpochSecret, MeshId, NodeId, Psk, Scope, SegmentId, SharedSecret, WgPublicKey, WgSecret,
};
use rand_core::OsRng;
use star::{Star, psk};
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;
use tunnel::PeerSpec;

const PEERS: [usize; 5] = [1, 10, 100, 1_000, 10_000];

fn derive(c: &mut Criterion) {
    let scope = Scope {
        mesh: MeshId([1; 16]),
        segment: SegmentId::FIRST,
        epoch: Epoch(1),
    };
    let secret = EpochSecret::generate(&mut OsRng);
    let own = WgSecret::generate(&mut OsRng);
    let own_key = secret.node_key(scope, &NodeId([1; 32]));
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
                    let key = secret.node_key(scope, node);
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
                let (now, lead) = (star.now, star::LEAD);
                black_box(
                    star.hub
                        .tunnel
                        .install(Epoch(epoch), peers, lead, None, now),
                );
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
