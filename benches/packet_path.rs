//! `cargo bench packet_path`: what it costs to carry one super-packet, without system calls, beside
//! the same packets through boringtun alone; and how threads share one tunnel.
//!
//! | Step | What runs, for 45 TCP segments of 1,368 bytes |
//! |---|---|
//! | `seal` | split the super-packet, complete its checksums, pad, seal into one buffer |
//! | `bare_seal` | the floor: `Tunn::encapsulate` of 45 packets |
//! | `open` | open 45 datagrams, check sources and checksums, merge them into a super-packet |
//! | `bare_open` | the floor: `Tunn::decapsulate` of 45 datagrams |
//! | `threads` | THREADS threads, each sealing for a peer of its own, or all for one peer |

#[path = "star.rs"]
mod star;

use boringtun::noise::{Tunn, TunnResult};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use offload::{Coalescer, SPARE, Split, Verdict, VnetHeader};
use star::Star;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Duration;
use tunnel::{
    Carrier, DatagramSink, Headers, LoneTunnel, Outer, PacketSink, PacketSource, Path, Received,
    TunnelId,
};

const SEGMENTS: usize = 45;
const PAYLOAD: usize = 1_368;
const HEADERS: usize = 52;
const DATAGRAM: usize = HEADERS + PAYLOAD + tunnel::DATA_OVERHEAD;
const INNER_BYTES: u64 = (SEGMENTS * PAYLOAD) as u64;

/// A TCP super-packet as the kernel hands it out, and its offload header.
fn super_packet(from: Ipv4Addr, to: Ipv4Addr) -> (VnetHeader, Vec<u8>) {
    let len = HEADERS + SEGMENTS * PAYLOAD;
    let mut packet = vec![0x5A; len + SPARE];
    packet[..HEADERS].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[6] = 0x40;
    packet[8..10].copy_from_slice(&[64, 6]);
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet[20..24].copy_from_slice(&[0x13, 0x89, 0x13, 0x8A]);
    packet[32..34].copy_from_slice(&[0x80, 0x10]);
    packet[36..38].copy_from_slice(&pseudo_sum(from, to, len - 20).to_be_bytes());
    let mut header = [1, 1, 0, 0, 0, 0, 20, 0, 16, 0];
    header[2..4].copy_from_slice(&(HEADERS as u16).to_ne_bytes());
    header[4..6].copy_from_slice(&(PAYLOAD as u16).to_ne_bytes());
    let (header, _) = VnetHeader::parse(&header).expect("it is ten bytes long");
    (header, packet)
}

fn pseudo_sum(from: Ipv4Addr, to: Ipv4Addr, len: usize) -> u16 {
    let words = [from, to].map(u32::from);
    let sum: u32 = words
        .iter()
        .map(|word| (word >> 16) + (word & 0xFFFF))
        .sum();
    let sum = sum + 6 + len as u32;
    ((sum >> 16) + (sum & 0xFFFF)) as u16
}

/// Both ends of the way: datagrams one behind the other, packets that are merged.
struct Ends<'b> {
    out: &'b mut [u8],
    at: usize,
    count: usize,
    coalescer: Coalescer,
    writes: usize,
}

impl<'b> Ends<'b> {
    fn new(out: &'b mut [u8]) -> Self {
        Self {
            out,
            at: 0,
            count: 0,
            coalescer: Coalescer::new(true, true),
            writes: 0,
        }
    }
}

impl DatagramSink for Ends<'_> {
    fn room(&mut self, _: Outer, _: usize) -> &mut [u8] {
        &mut self.out[self.at..]
    }

    fn push(&mut self, len: usize) {
        self.at += len;
        self.count += 1;
    }

    fn flush(&mut self) {}

    fn send(&mut self, _: Outer, _: &[u8]) {}

    fn refuse(&mut self, _: &[u8]) {}

    fn deadline_changed(&mut self) {}
}

impl PacketSink for Ends<'_> {
    fn put(&mut self, _: TunnelId, plain: &[u8], range: Range<usize>) {
        self.coalescer.push(plain, range);
    }

    fn flush(&mut self, plain: &mut [u8]) {
        self.coalescer.drain(plain, |_, slices| {
            black_box(slices);
            self.writes += 1;
            Verdict::Done
        });
    }
}

struct Segments<'p>(Split<'p>);

impl PacketSource for Segments<'_> {
    fn next(&mut self) -> Option<(&mut [u8], usize)> {
        let segment = self.0.next_segment()?;
        Some((segment.bytes, segment.len))
    }

    fn remaining(&self) -> usize {
        self.0.remaining()
    }
}

/// Splits and seals a super-packet into `out`, and returns how many datagrams it made.
fn seal(
    carrier: &Carrier<LoneTunnel>,
    (header, packet): &mut (VnetHeader, Vec<u8>),
    out: &mut [u8],
    now: Duration,
) -> usize {
    let len = packet.len() - SPARE;
    let destination = tunnel::destination(packet);
    let split = Split::new(*header, packet, len).expect("the header fits the packet");
    let mut ends = Ends::new(out);
    let mut turn = carrier.turn(TunnelId::FIRST, &mut ends);
    turn.send(destination, &mut Segments(split), || now);
    drop(turn);
    ends.count
}

fn ways(c: &mut Criterion) {
    let mut star = Star::connected(1);
    star.check();
    let (now, outer) = (star.now, Path::Udp(star.hub.outer));
    let peer = star.spokes.remove(0);
    let (hub, spoke) = (star.hub.inner, peer.inner);
    let (sealer, opener) = (Carrier::new(star.hub.tunnel), Carrier::new(peer.tunnel));
    let mut packet = super_packet(hub, spoke);
    let mut out = vec![0; SEGMENTS * DATAGRAM + tunnel::MIN_BUFFER];
    let mut group = c.benchmark_group("packet_path");
    group.throughput(Throughput::Bytes(INNER_BYTES));

    // Splitting writes over what was sent: the headers in front are the first segment's after that,
    // so each round begins with a fresh copy of them.
    let pristine = packet.1[..HEADERS].to_vec();
    group.bench_function("seal", |b| {
        b.iter(|| {
            packet.1[..HEADERS].copy_from_slice(&pristine);
            let made = seal(&sealer, &mut packet, &mut out, now);
            assert_eq!(made, SEGMENTS);
        });
    });

    let mut plain = vec![0; SEGMENTS * DATAGRAM];
    let sealed = || {
        let mut packet = super_packet(hub, spoke);
        let mut out = vec![0; SEGMENTS * DATAGRAM + tunnel::MIN_BUFFER];
        seal(&sealer, &mut packet, &mut out, now);
        out.truncate(SEGMENTS * DATAGRAM);
        out
    };
    let mut headers = Headers::default();
    // Its buffers are a thread's, and last.
    let mut unused = [];
    let mut ends = Ends::new(&mut unused);
    group.bench_function("open", |b| {
        b.iter_batched_ref(
            sealed,
            |datagrams| {
                let start = |slot| slot * DATAGRAM;
                let received = Received {
                    datagrams,
                    plain: &mut plain,
                    each: (0..SEGMENTS).map(|slot| (outer, start(slot)..start(slot + 1))),
                };
                ends.writes = 0;
                opener.receive(received, &mut headers, &mut ends, || now);
                assert_eq!(ends.writes, 1, "one super-packet");
            },
            BatchSize::PerIteration,
        );
    });

    let (mut one, mut other) = bare_pair();
    let segment = vec![0x45; HEADERS + PAYLOAD];
    group.bench_function("bare_seal", |b| {
        b.iter(|| bare_seal(&mut one, &segment, &mut out));
    });
    let mut inner = segment.clone();
    inner[2..4].copy_from_slice(&((HEADERS + PAYLOAD) as u16).to_be_bytes());
    group.bench_function("bare_open", |b| {
        b.iter_batched_ref(
            || {
                let mut datagrams = vec![0; SEGMENTS * DATAGRAM + tunnel::MIN_BUFFER];
                bare_seal(&mut one, &inner, &mut datagrams);
                datagrams
            },
            |datagrams| {
                for (slot, datagram) in datagrams.chunks_exact(DATAGRAM).enumerate() {
                    let room = &mut plain[slot * DATAGRAM..(slot + 1) * DATAGRAM];
                    let opened = other.decapsulate(None, datagram, room);
                    assert!(matches!(opened, TunnResult::WriteToTunnelV4(..)));
                }
            },
            BatchSize::PerIteration,
        );
    });
}

fn bare_seal(tunn: &mut Tunn, segment: &[u8], out: &mut [u8]) {
    for slot in 0..SEGMENTS {
        let sealed = tunn.encapsulate(segment, &mut out[slot * DATAGRAM..]);
        assert!(matches!(sealed, TunnResult::WriteToNetwork(_)));
    }
}

/// Two of boringtun's tunnels with a session between them.
fn bare_pair() -> (Tunn, Tunn) {
    use x25519_dalek::{PublicKey, StaticSecret};
    let (a, b) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
    let (public_a, public_b) = (PublicKey::from(&a), PublicKey::from(&b));
    let mut one = Tunn::new(a, public_b, None, None, 1, None);
    let mut other = Tunn::new(b, public_a, None, None, 2, None);
    let (mut there, mut back) = ([0; 256], [0; 256]);
    let TunnResult::WriteToNetwork(init) = one.format_handshake_initiation(&mut there, true) else {
        panic!("an initiation can be made")
    };
    let TunnResult::WriteToNetwork(answer) = other.decapsulate(None, init, &mut back) else {
        panic!("it is answered")
    };
    let TunnResult::WriteToNetwork(keepalive) = one.decapsulate(None, answer, &mut there) else {
        panic!("and confirmed")
    };
    assert!(matches!(
        other.decapsulate(None, keepalive, &mut back),
        TunnResult::Done
    ));
    (one, other)
}

/// Threads that share one tunnel behind a read-write lock, as the daemon's do.
fn threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("packet_path/threads");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (name, threads, peers) in [
        ("one_alone", 1, 1),
        ("each_its_own_peer", cores, cores),
        ("all_the_same_peer", cores, 1),
    ] {
        let star = Star::connected(peers);
        star.check();
        let (now, hub) = (star.now, star.hub.inner);
        let spokes: Vec<Ipv4Addr> = star.spokes.iter().map(|spoke| spoke.inner).collect();
        let carrier = Carrier::new(star.hub.tunnel);
        group.throughput(Throughput::Bytes(threads as u64 * INNER_BYTES));
        group.bench_function(BenchmarkId::new(name, threads), |b| {
            b.iter_custom(|rounds| {
                let start = clock();
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let (carrier, to) = (&carrier, spokes[thread % peers]);
                        scope.spawn(move || {
                            let mut packet = super_packet(hub, to);
                            let pristine = packet.1[..HEADERS].to_vec();
                            let mut out = vec![0; SEGMENTS * DATAGRAM + tunnel::MIN_BUFFER];
                            for _ in 0..rounds {
                                packet.1[..HEADERS].copy_from_slice(&pristine);
                                seal(carrier, &mut packet, &mut out, now);
                            }
                        });
                    }
                });
                start.elapsed()
            });
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

criterion_group!(benches, ways, threads);
criterion_main!(benches);
