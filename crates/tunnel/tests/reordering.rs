//! How much reordering a session bears. boringtun remembers the last 1,024 counters of a session, and that
//! cannot be changed from here; what lies beyond is lost, never delivered twice. With `--nocapture` the
//! figures of docs/BENCHMARKS.md are printed.

mod carry;

use carry::Carried;
use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use rand_core::OsRng;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tunnel::{Config, DropReason, Inbound, Inside, Outbound, PeerSpec, Range};

struct Side {
    tunnel: Carried,
    key: WgPublicKey,
    host: u8,
}

impl Side {
    fn new(host: u8) -> Self {
        let secret = WgSecret::generate(&mut OsRng);
        Self {
            key: secret.public(),
            tunnel: Carried::new(
                u64::MAX,
                Config {
                    secret,
                    mtu: 1420,
                    seed: host.into(),
                    inside: Inside {
                        own: vec![inner(host).into()],
                        ranges: vec![Range::new(inner(0).into(), 24)],
                    },
                },
            ),
            host,
        }
    }

    fn begin(&mut self, (key, host): (WgPublicKey, u8)) {
        let allowed = vec![inner(host).into()];
        let peers = vec![(PeerSpec { key, allowed }, Psk::from_bytes([1; 32]))];
        let (epoch, tunnel) = (Epoch(1), &mut self.tunnel);
        tunnel.install(epoch, peers, Duration::ZERO, None, NOW);
        tunnel.set_endpoints(&key, [outer(host)], NOW);
        tunnel.activate(epoch, NOW);
    }

    /// The datagram of a packet to `host`, if there is a session.
    fn seal(&mut self, host: u8) -> Option<Vec<u8>> {
        let mut packet = vec![0; LEN + 15];
        packet[0] = 0x45;
        packet[3] = LEN as u8;
        packet[12..16].copy_from_slice(&inner(self.host).octets());
        packet[16..20].copy_from_slice(&inner(host).octets());
        let mut out = vec![0; 256];
        match carry::send(&mut self.tunnel, &mut packet, LEN, &mut out, NOW) {
            Outbound::Send { len, .. } => Some(out[..len].to_vec()),
            Outbound::Queued | Outbound::Dropped(_) => None,
        }
    }

    fn open(&mut self, from: u8, datagram: &[u8]) -> Inbound {
        carry::receive(&mut self.tunnel, outer(from), datagram, &mut [0; 256], NOW)
    }
}

fn inner(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host)
}

fn outer(host: u8) -> SocketAddr {
    ([192, 0, 2, host], 51_820).into()
}

/// Two sides with a session.
fn pair() -> (Side, Side) {
    let (mut one, mut two) = (Side::new(1), Side::new(2));
    one.begin((two.key, 2));
    two.begin((one.key, 1));
    one.seal(2);
    for _ in 0..3 {
        while let Some(datagram) = one.tunnel.poll_transmit() {
            two.open(1, &datagram.payload);
        }
        while let Some(datagram) = two.tunnel.poll_transmit() {
            one.open(2, &datagram.payload);
        }
    }
    (one, two)
}

/// Sends [`PACKETS`] packets that arrive in the order of their number plus `late` of it, each twice in the
/// end; how many of them were lost.
fn lost(mut late: impl FnMut(u64) -> u64) -> u64 {
    let (mut one, mut two) = pair();
    let mut sent: Vec<_> = (0..PACKETS)
        .map(|number| (number + late(number), one.seal(2).expect("a session")))
        .collect();
    sent.sort_by_key(|(at, _)| *at);
    let mut open = |datagram: &[u8]| matches!(two.open(1, datagram), Inbound::Deliver { .. });
    let delivered = sent.iter().filter(|(_, datagram)| open(datagram)).count() as u64;
    let again = sent.iter().filter(|(_, datagram)| open(datagram)).count();
    assert_eq!(again, 0, "nothing is delivered twice");
    let lost = PACKETS - delivered;
    assert_eq!(two.tunnel.drops().get(DropReason::Replayed), PACKETS + lost);
    lost
}

/// Every second packet takes a way that is longer by so many packets.
fn by_two_ways(depth: u64) -> u64 {
    lost(|number| if number % 2 == 0 { depth } else { 0 })
}

/// Every packet is held back as long as it takes to send 0 to `depth` others.
fn by_jitter(depth: u64) -> u64 {
    let mut state = 1_u64;
    lost(|_| {
        // Xorshift, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % (depth + 1)
    })
}

#[test]
fn packets_that_come_at_most_a_thousand_later_arrive_and_none_arrives_twice() {
    for depth in [0, 1_023, 1_100, 2_048, 4_096, 8_192] {
        let (ways, jitter) = (by_two_ways(depth), by_jitter(depth));
        if depth < WINDOW {
            assert_eq!((ways, jitter), (0, 0), "{depth}");
        } else {
            assert!(ways > 0 && jitter <= PACKETS, "{depth}");
        }
        let percent = |lost: u64| lost as f64 * 100.0 / PACKETS as f64;
        println!(
            "{depth:>6}  {:>5.1} %  {:>5.1} %",
            percent(ways),
            percent(jitter)
        );
    }
}

/// Counters that boringtun 0.7.1 remembers (`N_BITS` in its session.rs).
const WINDOW: u64 = 1_024;
const PACKETS: u64 = 30_000;
const NOW: Duration = Duration::from_secs(1_000);
/// Bytes of a packet.
const LEN: usize = 64;
