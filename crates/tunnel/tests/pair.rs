//! Tunnels that talk over a network made of a vector, in virtual time.
//!
//! The file is long because each rule of a pair has a test, and all share one network.

mod carry;

use carry::Carried;
use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use rand_core::OsRng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tunnel::{Config, DropReason, Inbound, Inside, Outbound, PeerSpec, Range};

/// One side of a pair.
struct Side {
    tunnel: Carried,
    key: WgPublicKey,
    inner: Ipv4Addr,
    outer: SocketAddr,
    delivered: Vec<Vec<u8>>,
    /// When the epochs end that are installed from here on.
    closes_at: Option<Duration>,
    sent: Vec<Vec<u8>>,
}

struct Pair {
    a: Side,
    b: Side,
    now: Duration,
    /// Of how many datagrams one is lost, at random; 0: none.
    lose_one_in: u64,
    random: u64,
    carried: usize,
}

fn side(host: u8) -> Side {
    let secret = WgSecret::generate(&mut OsRng);
    let key = secret.public();
    let tunnel = Carried::new(
        u64::MAX,
        Config {
            secret,
            mtu: 1420,
            seed: host.into(),
            inside: inside(host),
        },
    );
    Side {
        tunnel,
        key,
        inner: Ipv4Addr::new(10, 0, 0, host),
        outer: SocketAddr::from(([192, 0, 2, host], 51820)),
        delivered: Vec::new(),
        closes_at: None,
        sent: Vec::new(),
    }
}

/// The IPv6 address inside of a side that has this number.
fn inner_v6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into())
}

fn inside(host: u8) -> Inside {
    Inside {
        own: vec![Ipv4Addr::new(10, 0, 0, host).into(), inner_v6(host).into()],
        ranges: vec![
            Range::new(Ipv4Addr::new(10, 0, 0, 0).into(), 8),
            Range::new("fd00::".parse().expect("an address"), 64),
        ],
    }
}

fn psk(epoch: Epoch) -> Psk {
    Psk::from_bytes([epoch.0 as u8; 32])
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, payload: usize) -> Vec<u8> {
    let mut packet = vec![0xA5; 40 + payload];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    packet[8..24].copy_from_slice(&from.octets());
    packet[24..40].copy_from_slice(&to.octets());
    packet
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, len: usize) -> Vec<u8> {
    let mut packet = vec![0xA5; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet
}

impl Side {
    fn install(&mut self, peer: &Spec, epoch: Epoch, lead: Duration, now: Duration) {
        let spec = PeerSpec {
            key: peer.key,
            allowed: vec![
                IpAddr::V4(peer.inner),
                inner_v6(peer.inner.octets()[3]).into(),
            ],
        };
        assert!(
            self.tunnel
                .install(epoch, vec![(spec, psk(epoch))], lead, self.closes_at, now)
                .is_empty()
        );
        self.tunnel.set_endpoints(&peer.key, vec![peer.outer], now);
    }

    /// Sends one inner packet; returns the datagrams that leave at once.
    fn send(&mut self, packet: &[u8], now: Duration) -> Outbound {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + 15, 0xFF);
        let mut out = vec![0; 2048];
        let len = packet.len();
        let outbound = carry::send(&mut self.tunnel, &mut buffer, len, &mut out, now);
        if let Outbound::Send { len, .. } = outbound {
            self.sent.push(out[..len].to_vec());
        }
        outbound
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8], now: Duration) -> Inbound {
        let mut out = vec![0; 2048];
        let inbound = carry::receive(&mut self.tunnel, from, datagram, &mut out, now);
        if let Inbound::Deliver { len } = inbound {
            self.delivered.push(out[..len].to_vec());
        }
        inbound
    }

    fn datagrams(&mut self) -> Vec<Vec<u8>> {
        let mut all = std::mem::take(&mut self.sent);
        all.extend(std::iter::from_fn(|| self.tunnel.poll_transmit()).map(|t| t.payload));
        all
    }
}

/// All that one side knows of the other.
struct Spec {
    key: WgPublicKey,
    inner: Ipv4Addr,
    outer: SocketAddr,
}

impl Pair {
    fn new() -> Self {
        Self {
            a: side(1),
            b: side(2),
            now: Duration::from_secs(1000),
            lose_one_in: 0,
            random: 1,
            carried: 0,
        }
    }

    fn specs(&self) -> (Spec, Spec) {
        let spec = |side: &Side| Spec {
            key: side.key,
            inner: side.inner,
            outer: side.outer,
        };
        (spec(&self.a), spec(&self.b))
    }

    fn install(&mut self, epoch: u64, lead: Duration) {
        let (a, b) = self.specs();
        self.a.install(&b, Epoch(epoch), lead, self.now);
        self.b.install(&a, Epoch(epoch), lead, self.now);
    }

    fn activate(&mut self, epoch: u64) {
        self.a.tunnel.activate(Epoch(epoch), self.now);
        self.b.tunnel.activate(Epoch(epoch), self.now);
    }

    /// Carries datagrams until both sides are silent; returns every datagram seen.
    fn carry(&mut self) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        loop {
            let (from_a, from_b) = (self.a.datagrams(), self.b.datagrams());
            if from_a.is_empty() && from_b.is_empty() {
                return seen;
            }
            let (outer_a, outer_b) = (self.a.outer, self.b.outer);
            for datagram in from_a {
                if self.survives() {
                    self.b.receive(outer_a, &datagram, self.now);
                }
                seen.push(datagram);
            }
            for datagram in from_b {
                if self.survives() {
                    self.a.receive(outer_b, &datagram, self.now);
                }
                seen.push(datagram);
            }
        }
    }

    fn survives(&mut self) -> bool {
        self.carried += 1;
        // Knuth's linear congruential generator: the same losses in every run.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.lose_one_in == 0 || !(self.random >> 33).is_multiple_of(self.lose_one_in)
    }

    /// Lets `time` pass in steps, carrying whatever is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let due = [self.a.tunnel.poll_timeout(), self.b.tunnel.poll_timeout()];
            let next = due.into_iter().flatten().min().unwrap_or(end);
            self.now = next.clamp(self.now + Duration::from_millis(1), end);
            self.a.tunnel.handle_timeout(self.now);
            self.b.tunnel.handle_timeout(self.now);
            self.carry();
        }
    }

    fn a_to_b(&mut self, len: usize) -> Outbound {
        let packet = ipv4(self.a.inner, self.b.inner, len);
        let outbound = self.a.send(&packet, self.now);
        self.carry();
        outbound
    }

    fn b_to_a(&mut self, len: usize) -> Outbound {
        let packet = ipv4(self.b.inner, self.a.inner, len);
        let outbound = self.b.send(&packet, self.now);
        self.carry();
        outbound
    }

    fn connected() -> Self {
        let mut pair = Self::new();
        pair.install(1, Duration::ZERO);
        pair.activate(1);
        pair.a_to_b(100);
        pair.b_to_a(100);
        assert_eq!((pair.a.delivered.len(), pair.b.delivered.len()), (1, 1));
        pair
    }

    fn session_epochs(&self) -> (Option<u64>, Option<u64>) {
        let epoch = |side: &Side| {
            side.tunnel
                .snapshot(self.now)
                .first()
                .and_then(|p| p.session_epoch)
                .map(|e| e.0)
        };
        (epoch(&self.a), epoch(&self.b))
    }
}

#[test]
fn the_first_packet_waits_for_the_handshake_and_arrives() {
    let mut pair = Pair::new();
    pair.install(1, Duration::ZERO);
    pair.activate(1);
    assert_eq!(pair.a_to_b(333), Outbound::Queued);
    assert_eq!(
        pair.b.delivered,
        [ipv4(pair.a.inner, pair.b.inner, 333)],
        "the padding is cut off again"
    );
    assert_eq!(
        pair.b.send(&[0x45], pair.now),
        Outbound::Dropped(DropReason::Malformed)
    );
    assert!(matches!(
        pair.b_to_a(1420),
        Outbound::Send { len: 1452, .. }
    ));
}

#[test]
fn data_is_padded_to_sixteen_bytes() {
    let mut pair = Pair::connected();
    let Outbound::Send { len, .. } = pair.a_to_b(100) else {
        panic!("there is a session")
    };
    assert_eq!(len, 112 + 32);
}

#[test]
fn a_rotation_with_lead_loses_nothing_and_moves_both_sides() {
    let mut pair = Pair::connected();
    for epoch in 2..30 {
        pair.install(epoch, Duration::from_secs(5));
        for _ in 0..50 {
            pair.pass(Duration::from_millis(100));
            assert!(matches!(pair.a_to_b(100), Outbound::Send { .. }));
            assert!(matches!(pair.b_to_a(100), Outbound::Send { .. }));
        }
        // One side is late by a push.
        pair.a.tunnel.activate(Epoch(epoch), pair.now);
        assert!(matches!(pair.a_to_b(100), Outbound::Send { .. }));
        assert!(matches!(pair.b_to_a(100), Outbound::Send { .. }));
        pair.b.tunnel.activate(Epoch(epoch), pair.now);
        assert_eq!(pair.session_epochs(), (Some(epoch), Some(epoch)));
        pair.pass(Duration::from_secs(2));
        pair.a.tunnel.discard_previous();
        pair.b.tunnel.discard_previous();
    }
    assert_eq!(pair.a.delivered.len(), 1 + 28 * 51);
    assert_eq!(pair.b.delivered.len(), 1 + 28 * 51);
}

#[test]
fn a_rotation_without_lead_loses_nothing() {
    let mut pair = Pair::connected();
    for epoch in 2..20 {
        pair.install(epoch, Duration::ZERO);
        pair.activate(epoch);
        let (sent_a, sent_b) = (pair.a_to_b(100), pair.b_to_a(100));
        assert!(matches!(
            (sent_a, sent_b),
            (Outbound::Send { .. }, Outbound::Send { .. })
        ));
        pair.pass(Duration::from_secs(1));
        assert_eq!(pair.session_epochs(), (Some(epoch), Some(epoch)));
    }
    assert_eq!((pair.a.delivered.len(), pair.b.delivered.len()), (19, 19));
}

#[test]
fn epochs_in_quick_succession_keep_the_only_session() {
    let mut pair = Pair::connected();
    for epoch in 2..6 {
        pair.install(epoch, Duration::ZERO);
        pair.activate(epoch);
    }
    assert!(matches!(pair.a_to_b(100), Outbound::Send { .. }));
    assert_eq!(pair.b.delivered.len(), 2);
}

#[test]
fn a_pair_without_traffic_does_nothing_for_an_epoch() {
    let mut pair = Pair::connected();
    pair.pass(tunnel::ACTIVE_FOR + Duration::from_secs(20));
    let before = pair.carried;
    pair.install(2, Duration::from_secs(5));
    pair.pass(Duration::from_secs(5));
    pair.activate(2);
    pair.pass(Duration::from_secs(30));
    assert_eq!(pair.carried, before);
    pair.a_to_b(100);
    assert_eq!(
        pair.b.delivered.len(),
        2,
        "and shakes hands when it has something to say"
    );
}

#[test]
fn handshakes_heal_through_loss() {
    for lose_one_in in 3..6 {
        let mut pair = Pair::connected();
        pair.lose_one_in = lose_one_in;
        for epoch in 2..12 {
            pair.install(epoch, Duration::from_secs(5));
            pair.pass(Duration::from_secs(5));
            pair.a_to_b(100);
            pair.b_to_a(100);
            pair.activate(epoch);
            pair.pass(Duration::from_secs(60));
            assert_eq!(
                pair.session_epochs(),
                (Some(epoch), Some(epoch)),
                "losing one in {lose_one_in}"
            );
        }
    }
}

#[test]
fn a_peer_that_is_not_in_the_epoch_is_gone_in_one_step() {
    let mut pair = Pair::connected();
    let before = pair.b.tunnel.drops().clone();
    let packet = ipv4(pair.a.inner, pair.b.inner, 100);
    pair.a.send(&packet, pair.now);
    let in_flight = pair.a.datagrams();
    assert!(
        pair.b
            .tunnel
            .install(Epoch(2), Vec::new(), Duration::ZERO, None, pair.now)
            .is_empty()
    );
    pair.b.tunnel.activate(Epoch(2), pair.now);
    for datagram in &in_flight {
        assert_eq!(
            pair.b.receive(pair.a.outer, datagram, pair.now),
            Inbound::Dropped(DropReason::UnknownIndex)
        );
    }
    assert_eq!(pair.b_to_a(100), Outbound::Dropped(DropReason::NoRoute));
    // It goes on with its live session, then with its old PSK.
    for _ in 0..100 {
        pair.pass(Duration::from_secs(1));
        pair.a_to_b(100);
    }
    assert_eq!(pair.b.delivered.len(), 1);
    assert_eq!(pair.a.delivered.len(), 1, "nor is it answered");
    assert!(
        pair.b.tunnel.drops().get(DropReason::UnknownPeer) > before.get(DropReason::UnknownPeer)
    );
    assert!(pair.b.tunnel.snapshot(pair.now).is_empty());
}

#[test]
fn a_peer_with_an_old_psk_gets_no_session() {
    let mut pair = Pair::connected();
    let (a, b) = pair.specs();
    // b moves on, and a is still a member: but a never learns the new PSK.
    pair.b.install(&a, Epoch(2), Duration::ZERO, pair.now);
    pair.b.tunnel.activate(Epoch(2), pair.now);
    pair.b.tunnel.discard_previous();
    for _ in 0..100 {
        pair.pass(Duration::from_secs(1));
        pair.a_to_b(100);
        pair.b_to_a(100);
    }
    assert_eq!((pair.a.delivered.len(), pair.b.delivered.len()), (1, 1));
    // It catches up, and the pair heals by itself.
    pair.a.install(&b, Epoch(2), Duration::ZERO, pair.now);
    pair.a.tunnel.activate(Epoch(2), pair.now);
    pair.pass(Duration::from_secs(15));
    pair.a_to_b(100);
    pair.b_to_a(100);
    assert_eq!(pair.session_epochs(), (Some(2), Some(2)));
}

#[test]
fn recordings_of_earlier_epochs_change_nothing() {
    let mut pair = Pair::new();
    pair.install(1, Duration::ZERO);
    pair.activate(1);
    let packet = ipv4(pair.a.inner, pair.b.inner, 100);
    pair.a.send(&packet, pair.now);
    let mut recorded = pair.carry();
    for epoch in 2..=9 {
        pair.install(epoch, Duration::from_secs(5));
        for _ in 0..5 {
            pair.pass(Duration::from_secs(1));
            let (a, b) = (
                ipv4(pair.a.inner, pair.b.inner, 50),
                ipv4(pair.b.inner, pair.a.inner, 50),
            );
            pair.a.send(&a, pair.now);
            pair.b.send(&b, pair.now);
            recorded.extend(pair.carry());
        }
        pair.activate(epoch);
        pair.pass(Duration::from_secs(2));
        pair.a.tunnel.discard_previous();
        pair.b.tunnel.discard_previous();
    }
    let delivered = (pair.a.delivered.len(), pair.b.delivered.len());
    let sessions = pair.session_epochs();
    for datagram in &recorded {
        let (outer_a, outer_b) = (pair.a.outer, pair.b.outer);
        for (side, from) in [(&mut pair.b, outer_a), (&mut pair.a, outer_b)] {
            assert!(!matches!(
                side.receive(from, datagram, pair.now),
                Inbound::Deliver { .. }
            ));
            assert!(side.datagrams().is_empty(), "a recording is not answered");
        }
    }
    assert_eq!((pair.a.delivered.len(), pair.b.delivered.len()), delivered);
    assert_eq!(pair.session_epochs(), sessions);
    pair.a_to_b(100);
    pair.b_to_a(100);
    assert_eq!(
        (pair.a.delivered.len(), pair.b.delivered.len()),
        (delivered.0 + 1, delivered.1 + 1)
    );
}

#[test]
fn no_initiation_that_came_before_its_epoch_is_answered_when_it_comes_again() {
    let mut pair = Pair::connected();
    let (_, b) = pair.specs();
    let now = pair.now;
    pair.a.install(&b, Epoch(2), Duration::ZERO, now);
    pair.a.tunnel.activate(Epoch(2), now);
    pair.a_to_b(100);
    let mut early = Vec::new();
    // More within a second than b cares to answer.
    for _ in 0..1_000 {
        pair.now += Duration::from_millis(1);
        pair.a.tunnel.handle_timeout(pair.now);
        early.extend(pair.carry().into_iter().filter(|it| it.len() == 148));
    }
    assert!(early.len() > tunnel::STOCK_INITIATIONS_PER_SECOND as usize);
    let (a, _) = pair.specs();
    pair.b.install(&a, Epoch(2), Duration::ZERO, pair.now);
    pair.b.tunnel.activate(Epoch(2), pair.now);
    let elsewhere = SocketAddr::from(([203, 0, 113, 1], 1));
    for initiation in early {
        let inbound = pair.b.receive(elsewhere, &initiation, pair.now);
        assert_eq!(inbound, Inbound::Dropped(DropReason::Replayed));
    }
    let endpoint = pair.b.tunnel.snapshot(pair.now)[0].endpoint;
    assert_eq!(endpoint, Some(pair.a.outer.into()));
}

#[test]
fn an_inner_source_that_is_not_the_peers_is_dropped() {
    let mut pair = Pair::connected();
    let forged = ipv4(Ipv4Addr::new(10, 0, 0, 9), pair.b.inner, 100);
    pair.a.send(&forged, pair.now);
    pair.carry();
    assert_eq!(pair.b.delivered.len(), 1);
    assert_eq!(pair.b.tunnel.drops().get(DropReason::SourceNotAllowed), 1);
}

#[test]
fn an_inner_length_below_a_header_is_malformed() {
    let mut pair = Pair::connected();
    for len in [0u16, 10, 19] {
        let mut packet = ipv4(pair.a.inner, pair.b.inner, 100);
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        pair.a.send(&packet, pair.now);
    }
    pair.carry();
    assert_eq!(pair.b.delivered.len(), 1, "what connected the pair");
    assert_eq!(pair.b.tunnel.drops().get(DropReason::Malformed), 3);
}

#[test]
fn nobody_is_heard_from_a_port_that_nothing_can_be_sent_to() {
    let mut pair = Pair::connected();
    let packet = ipv4(pair.a.inner, pair.b.inner, 100);
    pair.a.send(&packet, pair.now);
    let nowhere = SocketAddr::new(pair.a.outer.ip(), 0);
    for datagram in pair.a.datagrams() {
        let inbound = pair.b.receive(nowhere, &datagram, pair.now);
        assert_eq!(inbound, Inbound::Dropped(DropReason::Malformed));
    }
    let endpoint = pair.b.tunnel.snapshot(pair.now)[0].endpoint;
    assert_eq!(endpoint, Some(pair.a.outer.into()));
}

#[test]
fn a_session_is_renewed_within_a_long_epoch_and_never_outlives_its_time() {
    let mut pair = Pair::connected();
    for second in 0..3600 {
        pair.pass(Duration::from_secs(1));
        pair.a_to_b(60);
        pair.b_to_a(60);
        let age = pair.a.tunnel.snapshot(pair.now)[0]
            .session_age
            .expect("there is always a session");
        assert!(age < tunnel::REJECT_AFTER_TIME, "second {second}: {age:?}");
    }
    assert_eq!(
        (pair.a.delivered.len(), pair.b.delivered.len()),
        (3601, 3601)
    );
    pair.pass(tunnel::ACTIVE_FOR + tunnel::REJECT_AFTER_TIME + Duration::from_secs(10));
    assert_eq!(pair.session_epochs(), (None, None), "idle sessions end");
}

#[test]
fn a_peer_that_lost_its_state_is_found_again() {
    let mut pair = Pair::connected();
    // b restarts in the same epoch: same key, no sessions. Only a talks.
    let (a, _) = pair.specs();
    pair.b.tunnel.close();
    pair.b.install(&a, Epoch(1), Duration::ZERO, pair.now);
    pair.b.tunnel.activate(Epoch(1), pair.now);
    let before = pair.b.delivered.len();
    for _ in 0..30 {
        pair.pass(Duration::from_secs(1));
        pair.a_to_b(100);
    }
    assert!(
        pair.b.delivered.len() > before,
        "a notices the silence and shakes hands again"
    );
}

#[test]
fn a_pair_whose_path_dies_moves_to_another_within_seconds_and_one_that_is_well_stays() {
    let mut pair = Pair::connected();
    let (dead, other) = (pair.b.outer, SocketAddr::from(([203, 0, 113, 2], 4242)));
    let key = pair.b.key;
    pair.a
        .tunnel
        .set_endpoints(&key, vec![dead, other], pair.now);
    let endpoint = |pair: &Pair| pair.a.tunnel.snapshot(pair.now)[0].endpoint;
    // Data one way for minutes: the other side has nothing to say, and nobody moves.
    for _ in 0..300 {
        pair.a_to_b(100);
        pair.pass(Duration::from_secs(1));
        assert_eq!(endpoint(&pair), Some(dead.into()));
    }
    // From here on nothing passes between the first addresses; a datagram goes by `other`, if to there.
    let died = pair.now;
    let packet = ipv4(pair.a.inner, pair.b.inner, 100);
    let outer_a = pair.a.outer;
    while endpoint(&pair) == Some(dead.into()) {
        assert!(pair.now - died < Duration::from_secs(40), "it stays dark");
        // Sent to where it is dead.
        pair.a.send(&packet, pair.now);
        pair.a.sent.clear();
        let until = pair.now + Duration::from_secs(1);
        while pair.now < until {
            pair.now += Duration::from_millis(50);
            pair.a.tunnel.handle_timeout(pair.now);
            pair.b.tunnel.handle_timeout(pair.now);
            let from_a: Vec<_> = std::iter::from_fn(|| pair.a.tunnel.poll_transmit()).collect();
            for datagram in from_a.into_iter().filter(|it| it.to == other.into()) {
                pair.b.receive(outer_a, &datagram.payload, pair.now);
                for answer in pair.b.datagrams() {
                    pair.a.receive(other, &answer, pair.now);
                }
            }
        }
    }
    assert_eq!(endpoint(&pair), Some(other.into()));
}

#[test]
fn a_peer_that_moves_is_followed() {
    let mut pair = Pair::connected();
    pair.a.outer = SocketAddr::from(([198, 51, 100, 7], 4242));
    pair.a_to_b(100);
    assert_eq!(
        pair.b.tunnel.snapshot(pair.now)[0].endpoint,
        Some(pair.a.outer.into())
    );
}

#[test]
fn a_closed_tunnel_has_nothing_to_send_or_to_deliver() {
    let mut pair = Pair::connected();
    let packet = ipv4(pair.a.inner, pair.b.inner, 100);
    pair.a.send(&packet, pair.now);
    let in_flight = pair.a.datagrams();
    pair.b.tunnel.close();
    for datagram in &in_flight {
        assert!(matches!(
            pair.b.receive(pair.a.outer, datagram, pair.now),
            Inbound::Dropped(_)
        ));
    }
    assert_eq!(
        pair.b.tunnel.poll_timeout().map(|_| ()),
        pair.b.tunnel.poll_timeout().map(|_| ())
    );
    assert!(pair.b.tunnel.poll_transmit().is_none());
    assert_eq!(pair.b_to_a(100), Outbound::Dropped(DropReason::NoRoute));
}

#[test]
fn a_stock_wireguard_peer_is_served_under_the_current_psk() {
    use boringtun::noise::{Tunn, TunnResult};
    let mut pair = Pair::new();
    let stock_secret = WgSecret::generate(&mut OsRng);
    let secret = x25519_dalek::StaticSecret::from(*stock_secret.expose());
    let spec = PeerSpec {
        key: stock_secret.public(),
        allowed: vec![IpAddr::V4(pair.a.inner)],
    };
    pair.b.tunnel.install(
        Epoch(1),
        vec![(spec, psk(Epoch(1)))],
        Duration::ZERO,
        None,
        pair.now,
    );
    pair.b.tunnel.activate(Epoch(1), pair.now);
    for index in 0..8 {
        let peer = x25519_dalek::PublicKey::from(pair.b.key.0);
        let mut stock = Tunn::new(
            secret.clone(),
            peer,
            Some([1; 32]),
            None,
            0x00AB_CD00 | index,
            None,
        );
        let mut buffer = [0; 2048];
        let TunnResult::WriteToNetwork(initiation) =
            stock.format_handshake_initiation(&mut buffer, true)
        else {
            panic!("an initiation")
        };
        let initiation = initiation.to_vec();
        pair.now += Duration::from_secs(1);
        pair.b.receive(pair.a.outer, &initiation, pair.now);
        let response = pair.b.datagrams().pop().expect("an answer");
        let TunnResult::WriteToNetwork(keepalive) = stock.decapsulate(None, &response, &mut buffer)
        else {
            panic!("the stock peer accepts the answer")
        };
        let keepalive = keepalive.to_vec();
        assert_eq!(
            pair.b.receive(pair.a.outer, &keepalive, pair.now),
            Inbound::Consumed
        );
    }
    assert_eq!(pair.session_epochs().1, Some(1));
}

#[test]
fn after_the_lease_nothing_passes_even_if_nobody_closed_the_tunnel() {
    let mut pair = Pair::connected();
    let end = pair.now + Duration::from_secs(60);
    pair.a.closes_at = Some(end);
    pair.install(2, Duration::ZERO);
    pair.activate(2);
    pair.a_to_b(100);
    assert_eq!(pair.b.delivered.len(), 2);
    pair.now = end;
    assert_eq!(pair.a_to_b(100), Outbound::Dropped(DropReason::LeaseOver));
    pair.b_to_a(100);
    assert_eq!((pair.a.delivered.len(), pair.b.delivered.len()), (1, 2));
}

#[test]
fn an_epoch_to_come_is_over_at_its_end_even_if_it_never_began_here() {
    for is_first in [false, true] {
        let mut pair = Pair::connected();
        if is_first {
            pair.b.tunnel.close();
        }
        let end = pair.now + Duration::from_secs(60);
        pair.b.closes_at = Some(end);
        pair.install(2, Duration::from_secs(5));
        pair.pass(Duration::from_secs(5));
        // b sleeps from here on.
        pair.a.tunnel.activate(Epoch(2), pair.now);
        pair.a_to_b(100);
        pair.pass(Duration::from_secs(2));
        let before = pair.b.delivered.len();
        pair.a_to_b(100);
        assert_eq!(pair.b.delivered.len(), before + 1, "who is ahead is heard");
        pair.now = end;
        pair.a_to_b(100);
        assert_eq!(pair.b.delivered.len() > before + 1, !is_first);
    }
}

#[test]
fn one_behind_an_address_translator_is_never_silent_for_long_and_the_other_may_be() {
    let every = Duration::from_secs(25);
    let mut pair = Pair::connected();
    pair.a.tunnel.set_keepalive(Some(every));
    let (mut last, mut handshakes, mut all) = (pair.now, 0, 0);
    let end = pair.now + Duration::from_secs(600);
    while pair.now < end {
        pair.now += Duration::from_millis(500);
        pair.a.tunnel.handle_timeout(pair.now);
        pair.b.tunnel.handle_timeout(pair.now);
        let from_a = pair.a.datagrams();
        if !from_a.is_empty() {
            last = pair.now;
        }
        assert!(pair.now - last <= every + Duration::from_secs(1), "silent");
        all += from_a.len();
        handshakes += from_a.iter().filter(|it| it[0] == 1).count();
        let (outer_a, outer_b) = (pair.a.outer, pair.b.outer);
        for datagram in from_a {
            pair.b.receive(outer_a, &datagram, pair.now);
        }
        for datagram in pair.b.datagrams() {
            assert_ne!(datagram[0], 1, "the other side begins nothing");
            pair.a.receive(outer_b, &datagram, pair.now);
        }
    }
    // One each time that the session has ended, and none to renew what nobody uses.
    assert!((2..=4).contains(&handshakes), "{handshakes}");
    assert!(all < 40, "{all}: no more than it takes");
    let idle = pair.b.tunnel.snapshot(pair.now);
    assert_eq!(idle[0].tx_bytes, 100, "keepalives are no packets");
}

#[test]
fn a_peer_that_is_no_member_and_a_lease_that_is_over_get_no_keepalive() {
    let every = Some(Duration::from_secs(5));
    // An epoch that has not begun: its peers are no members yet.
    let mut pair = Pair::new();
    pair.a.tunnel.set_keepalive(every);
    pair.install(1, Duration::from_secs(60));
    for _ in 0..30 {
        pair.now += Duration::from_secs(1);
        pair.a.tunnel.handle_timeout(pair.now);
        assert_eq!(pair.a.datagrams(), Vec::<Vec<u8>>::new());
    }
    // The end of the lease.
    let mut pair = Pair::connected();
    pair.a.tunnel.set_keepalive(every);
    let end = pair.now + Duration::from_secs(20);
    pair.a.closes_at = Some(end);
    pair.install(2, Duration::ZERO);
    pair.activate(2);
    pair.pass(Duration::from_secs(19));
    pair.now = end;
    for _ in 0..30 {
        pair.now += Duration::from_secs(1);
        pair.a.tunnel.handle_timeout(pair.now);
        assert_eq!(pair.a.datagrams(), Vec::<Vec<u8>>::new());
    }
    // A peer that the next epoch leaves out.
    let mut pair = Pair::connected();
    pair.a.tunnel.set_keepalive(every);
    let none = pair
        .a
        .tunnel
        .install(Epoch(2), Vec::new(), Duration::ZERO, None, pair.now);
    assert!(none.is_empty());
    pair.a.tunnel.activate(Epoch(2), pair.now);
    for _ in 0..30 {
        pair.now += Duration::from_secs(1);
        pair.a.tunnel.handle_timeout(pair.now);
        assert_eq!(pair.a.datagrams(), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn after_the_lease_not_even_a_keepalive_is_sent() {
    let mut pair = Pair::connected();
    let end = pair.now + Duration::from_secs(20);
    pair.a.closes_at = Some(end);
    pair.install(2, Duration::ZERO);
    pair.activate(2);
    pair.pass(Duration::from_secs(19));
    pair.b_to_a(100);
    // a sleeps, and owes a keepalive when it wakes.
    pair.now = end + Duration::from_secs(20);
    pair.a.tunnel.handle_timeout(pair.now);
    assert_eq!(pair.a.datagrams(), Vec::<Vec<u8>>::new());
}

#[test]
fn an_epoch_that_begins_after_its_lease_sends_nothing_that_waited_and_shows_no_session() {
    let mut pair = Pair::new();
    while pair.a.key > pair.b.key {
        // The lower key is to shake hands ahead of the epoch.
        pair = Pair::new();
    }
    let (_, b) = pair.specs();
    pair.a.install(&b, Epoch(1), Duration::ZERO, pair.now);
    pair.a.tunnel.activate(Epoch(1), pair.now);
    assert_eq!(pair.a_to_b(100), Outbound::Queued);
    let end = pair.now + Duration::from_secs(60);
    pair.a.closes_at = Some(end);
    pair.install(2, Duration::from_secs(5));
    pair.pass(Duration::from_secs(5));
    assert!(pair.a.tunnel.snapshot(pair.now)[0].next_ready);
    pair.now = end;
    pair.a.tunnel.activate(Epoch(2), end);
    assert_eq!(pair.a.datagrams(), Vec::<Vec<u8>>::new());
    assert_eq!(pair.session_epochs().0, None, "none that carries anything");
    assert_eq!(pair.a.tunnel.drops().get(DropReason::LeaseOver), 1);
}

#[test]
fn who_is_a_peer_only_under_superseded_epochs_is_gone_with_the_next_installation() {
    let mut pair = Pair::connected();
    pair.b.tunnel.close();
    pair.install(2, Duration::from_secs(5));
    pair.a.tunnel.activate(Epoch(2), pair.now);
    pair.a_to_b(100);
    pair.pass(Duration::from_secs(2));
    pair.install(3, Duration::from_secs(5));
    assert_eq!(pair.b.tunnel.snapshot(pair.now).len(), 1);
    let (lead, now) = (Duration::from_secs(5), pair.now);
    pair.b.tunnel.install(Epoch(4), Vec::new(), lead, None, now);
    assert_eq!(pair.b.tunnel.snapshot(now), []);
    let before = pair.b.delivered.len();
    pair.a_to_b(100);
    assert_eq!(pair.b.delivered.len(), before);
}

#[test]
fn a_recording_from_before_a_removal_is_not_answered_after_the_return() {
    let mut pair = Pair::new();
    pair.install(1, Duration::ZERO);
    pair.activate(1);
    let packet = ipv4(pair.a.inner, pair.b.inner, 100);
    pair.a.send(&packet, pair.now);
    let recorded = pair.carry().swap_remove(0);
    let (a, _) = pair.specs();
    let (none, now) = (Duration::ZERO, pair.now);
    pair.b.tunnel.install(Epoch(2), Vec::new(), none, None, now);
    pair.b.tunnel.activate(Epoch(2), now);
    pair.b.install(&a, Epoch(3), none, now);
    pair.b.tunnel.activate(Epoch(3), now);
    pair.b.datagrams();
    let from = pair.a.outer;
    assert_eq!(
        pair.b.receive(from, &recorded, now),
        Inbound::Dropped(DropReason::Replayed)
    );
    assert!(pair.b.datagrams().is_empty());
}

// ---- inside and outside -------------------------------------------------------------------------

/// Forms of addresses inside, and of the pair itself.
const INSIDE: [&str; 5] = [
    "10.0.0.1:51820",
    "10.0.0.2:51820",
    "[::ffff:10.0.0.1]:51820",
    "[::10.0.0.1]:51820",
    "[fd00::1]:51820",
];

#[test]
fn nothing_is_heard_from_inside_the_mesh_whatever_authenticates_it() {
    for from in INSIDE {
        let from: SocketAddr = from.parse().unwrap();
        let mut pair = Pair::connected();
        let (packet, now) = (ipv4(pair.a.inner, pair.b.inner, 100), pair.now);
        pair.a.send(&packet, now);
        let mut messages = pair.a.datagrams();
        // An initiation, and the response to one.
        pair.install(2, Duration::ZERO);
        pair.activate(2);
        pair.a.send(&packet, now);
        pair.now += Duration::from_secs(1);
        pair.a.tunnel.handle_timeout(pair.now);
        messages.extend(pair.a.datagrams());
        assert!(messages.iter().any(|it| it[0] == 1) && messages.iter().any(|it| it[0] == 4));
        let before = pair.b.tunnel.drops();
        for message in &messages {
            assert_eq!(
                pair.b.receive(from, message, pair.now),
                Inbound::Dropped(DropReason::EndpointInsideMesh),
                "{from}"
            );
        }
        let dropped = pair.b.tunnel.drops().get(DropReason::EndpointInsideMesh);
        let dropped_before = before.get(DropReason::EndpointInsideMesh);
        assert_eq!(dropped - dropped_before, messages.len() as u64);
        assert_eq!(
            pair.b.tunnel.snapshot(pair.now)[0].endpoint,
            Some(pair.a.outer.into())
        );
        assert!(pair.b.datagrams().iter().all(|it| it[0] != 2), "no answer");
        // They are good: from outside they are heard.
        for message in &messages {
            assert!(!matches!(
                pair.b.receive(pair.a.outer, message, pair.now),
                Inbound::Dropped(_)
            ));
        }
    }
}

#[test]
fn no_datagram_goes_to_an_address_inside_the_mesh() {
    let mut pair = Pair::new();
    pair.install(1, Duration::ZERO);
    pair.activate(1);
    let mut places: Vec<SocketAddr> = INSIDE.iter().map(|it| it.parse().unwrap()).collect();
    places.push("192.0.2.2:0".parse().unwrap());
    places.push("224.0.0.1:51820".parse().unwrap());
    let (key, now) = (pair.b.key, pair.now);
    pair.a.tunnel.set_endpoints(&key, places, now);
    assert_eq!(pair.a.tunnel.snapshot(now)[0].endpoint, None);
    let packet = ipv4(pair.a.inner, pair.b.inner, 100);
    assert_eq!(
        pair.a.send(&packet, now),
        Outbound::Dropped(DropReason::NoEndpoint)
    );
    for _ in 0..20 {
        pair.now += Duration::from_secs(1);
        pair.a.tunnel.handle_timeout(pair.now);
        assert!(pair.a.tunnel.poll_transmit().is_none());
    }
}

#[test]
fn no_packet_to_an_address_outside_the_mesh_is_sealed_whatever_an_epoch_says() {
    let mut pair = Pair::new();
    pair.a.inner = Ipv4Addr::new(192, 0, 2, 1);
    pair.b.inner = Ipv4Addr::new(192, 0, 2, 2);
    pair.install(1, Duration::ZERO);
    pair.activate(1);
    assert_eq!(pair.a_to_b(100), Outbound::Dropped(DropReason::NoRoute));
}

#[test]
fn only_what_is_for_this_node_is_delivered_over_ipv4_and_ipv6() {
    let mut pair = Pair::connected();
    let (from_v4, from_v6) = (pair.a.inner, inner_v6(1));
    let to_v4 = |to: &str| ipv4(from_v4, to.parse().unwrap(), 60);
    let to_v6 = |to: &str| ipv6(from_v6, to.parse().unwrap(), 60);
    let good = [to_v4("10.0.0.2"), to_v6("fd00::2")];
    // Its other interfaces, other nodes, everybody, and what is behind it.
    let bad = [
        to_v4("192.0.2.2"),
        to_v4("127.0.0.1"),
        to_v4("10.0.0.3"),
        to_v4("10.0.0.1"),
        to_v4("224.0.0.1"),
        to_v4("255.255.255.255"),
        to_v4("10.255.255.255"),
        to_v4("0.0.0.0"),
        to_v4("8.8.8.8"),
        to_v6("::1"),
        to_v6("::ffff:10.0.0.2"),
        to_v6("fd00::3"),
        to_v6("ff02::1"),
        to_v6("fe80::1"),
        to_v6("2001:db8::1"),
    ];
    let peer = pair.a.tunnel.sealing(pair.b.inner.into(), pair.now);
    let mut peer = peer.unwrap().expect("a session");
    let mut seal = |packet: &[u8]| {
        let (mut buffer, mut out) = (packet.to_vec(), vec![0; 256]);
        buffer.resize(packet.len() + 15, 0);
        let sealed = peer.seal(&mut buffer, packet.len(), &mut out).unwrap();
        out.truncate(sealed);
        out
    };
    // In one batch, between good ones: there the last allowed ends are remembered.
    let (mut datagrams, mut each, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for packet in &bad {
        for good in &good {
            for packet in [good, packet] {
                let start = datagrams.len();
                datagrams.extend(seal(packet));
                each.push((pair.a.outer.into(), start..datagrams.len()));
            }
            expected.push(good.clone());
        }
    }
    let mut plain = vec![0; datagrams.len()];
    let (tunnel, each) = (&mut pair.b.tunnel, each.into_iter());
    let delivered = carry::receive_all(tunnel, &datagrams, &mut plain, each, pair.now);
    let delivered: Vec<_> = delivered.into_iter().map(|at| &plain[at]).collect();
    assert_eq!(delivered, expected);
    let dropped = tunnel.drops().get(DropReason::DestinationNotAllowed);
    assert_eq!(dropped as usize, expected.len(), "as many bad ones");
    // And with the tunnel alone.
    let mut alone = |datagram: &[u8]| {
        let tunnel = &mut pair.b.tunnel;
        tunnel.handle_udp(pair.a.outer, datagram, &mut [0; 256], pair.now)
    };
    assert!(matches!(alone(&seal(&good[0])), Inbound::Deliver { .. }));
    let refused = Inbound::Dropped(DropReason::DestinationNotAllowed);
    assert_eq!(alone(&seal(&bad[0])), refused);
}
