//! A pair whose packets take time: rotations cost it nothing when epochs come close together, reach the
//! two sides at different times, or meet a restart. Virtual time, one millisecond a step.
//!
//! The file is long because each delay has a test.

mod carry;

use carry::Carried;
use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use rand_core::OsRng;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tunnel::{Config, DropReason, Inbound, Inside, Outbound, PeerSpec, Range};

struct Side {
    tunnel: Carried,
    secret: WgSecret,
    key: WgPublicKey,
    inner: Ipv4Addr,
    outer: SocketAddr,
    sent: u32,
    delivered: u32,
}

/// Side 0 has the lower key: it initiates rotations.
struct Link {
    sides: [Side; 2],
    now: Duration,
    one_way: Duration,
    /// How much longer initiations take.
    initiations: Duration,
    /// Initiations of this epoch are lost.
    lose: Option<u64>,
    /// How often a side gets no processor for a while: once in so many milliseconds; 0: never.
    stalls: u64,
    stalled_until: [Duration; 2],
    /// For everything that is random here.
    dice: u64,
    flying: Vec<(Duration, usize, Vec<u8>)>,
}

/// An event of one side, at some millisecond of a script.
#[derive(Clone, Copy)]
enum Step {
    /// An epoch without lead arrives and begins.
    Now(u64),
    /// An epoch with a lead of five seconds arrives.
    Ahead(u64),
    Begin(u64),
    Discard,
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn inside(host: u8) -> Inside {
    Inside {
        own: vec![Ipv4Addr::new(10, 0, 0, host).into()],
        ranges: vec![Range::new(Ipv4Addr::new(10, 0, 0, 0).into(), 8)],
    }
}

fn side(host: u8, secret: WgSecret, handshakes_per_second: u64) -> Side {
    let config = Config {
        secret: secret.duplicate(),
        mtu: 1420,
        seed: host.into(),
        inside: inside(host),
    };
    Side {
        tunnel: Carried::new(handshakes_per_second, config),
        key: secret.public(),
        secret,
        inner: Ipv4Addr::new(10, 0, 0, host),
        outer: SocketAddr::from(([192, 0, 2, host], 51820)),
        sent: 0,
        delivered: 0,
    }
}

impl Link {
    /// Two sides that know nothing of each other yet.
    fn apart(one_way: Duration) -> Self {
        let (one, two) = (
            WgSecret::generate(&mut OsRng),
            WgSecret::generate(&mut OsRng),
        );
        let (low, high) = if one.public() < two.public() {
            (one, two)
        } else {
            (two, one)
        };
        let sides = [side(1, low, u64::MAX), side(2, high, u64::MAX)];
        Self {
            sides,
            now: Duration::from_secs(1_000),
            one_way,
            initiations: Duration::ZERO,
            lose: None,
            stalls: 0,
            stalled_until: [Duration::ZERO; 2],
            dice: 1,
            flying: Vec::new(),
        }
    }

    fn connected(one_way: Duration) -> Self {
        let mut link = Self::apart(one_way);
        for at in 0..2 {
            link.step(at, Step::Now(1));
        }
        link.run(4_000, [20, 20]);
        link.run(1_000, [0, 0]);
        assert_eq!(link.lost(), [0, 0], "before anything happens");
        link
    }

    fn step(&mut self, at: usize, step: Step) {
        let now = self.now;
        match step {
            Step::Now(epoch) => {
                self.install(at, epoch, Duration::ZERO);
                self.sides[at].tunnel.activate(Epoch(epoch), now);
            }
            Step::Ahead(epoch) => self.install(at, epoch, Duration::from_secs(5)),
            Step::Begin(epoch) => self.sides[at].tunnel.activate(Epoch(epoch), now),
            Step::Discard => self.sides[at].tunnel.discard_previous(),
        }
        self.collect();
    }

    fn install(&mut self, at: usize, epoch: u64, lead: Duration) {
        let other = &self.sides[1 - at];
        let (key, inner, outer) = (other.key, other.inner, other.outer);
        let spec = PeerSpec {
            key,
            allowed: vec![IpAddr::V4(inner)],
        };
        let psk = Psk::from_bytes([epoch as u8; 32]);
        let tunnel = &mut self.sides[at].tunnel;
        tunnel.install(Epoch(epoch), vec![(spec, psk)], lead, None, self.now);
        tunnel.set_endpoints(&key, vec![outer], self.now);
    }

    fn send(&mut self, at: usize) -> Outbound {
        let (from, to) = (self.sides[at].inner, self.sides[1 - at].inner);
        let mut packet = [0xA5; 128];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&100u16.to_be_bytes());
        packet[12..16].copy_from_slice(&from.octets());
        packet[16..20].copy_from_slice(&to.octets());
        let mut out = [0; 256];
        let side = &mut self.sides[at];
        side.sent += 1;
        let outbound = carry::send(&mut side.tunnel, &mut packet, 100, &mut out, self.now);
        if let Outbound::Send { len, .. } = outbound {
            self.flying
                .push((self.now + self.one_way, at, out[..len].to_vec()));
        }
        self.collect();
        outbound
    }

    fn collect(&mut self) {
        for at in 0..2 {
            while let Some(transmit) = self.sides[at].tunnel.poll_transmit() {
                let is_initiation = transmit.payload.len() == INITIATION_LEN;
                // Bits 8 and 9 of its index.
                let epoch = u64::from(transmit.payload[5] & 3);
                if is_initiation && self.lose == Some(epoch) {
                    continue;
                }
                let extra = self.initiations * u32::from(is_initiation);
                self.flying
                    .push((self.now + self.one_way + extra, at, transmit.payload));
            }
            while self.sides[at].tunnel.poll_event().is_some() {}
        }
    }

    fn tick(&mut self) {
        self.now += ms(1);
        for at in 0..2 {
            if self.stalls > 0 && self.throw(self.stalls) == 0 {
                self.stalled_until[at] = self.now + ms(self.throw(LONGEST_STALL));
            }
        }
        let stalled = self.stalled_until.map(|until| until > self.now);
        for (at, side) in self.sides.iter_mut().enumerate() {
            if !stalled[at]
                && side
                    .tunnel
                    .poll_timeout()
                    .is_some_and(|due| due <= self.now)
            {
                side.tunnel.handle_timeout(self.now);
            }
        }
        let now = self.now;
        let (landed, flying) = std::mem::take(&mut self.flying)
            .into_iter()
            .partition(|(when, at, _)| *when <= now && !stalled[1 - *at]);
        self.flying = flying;
        let landed: Vec<(Duration, usize, Vec<u8>)> = landed;
        for (_, at, datagram) in landed {
            let from = self.sides[at].outer;
            let to = &mut self.sides[1 - at];
            let inbound = carry::receive(&mut to.tunnel, from, &datagram, &mut [0; 256], now);
            if let Inbound::Deliver { .. } = inbound {
                to.delivered += 1;
            }
        }
        self.collect();
    }

    /// Lets `time` milliseconds pass; side `i` sends every `every[i]` of them, 0: never.
    fn run(&mut self, time: u64, every: [u64; 2]) {
        self.script(time, every, &[]);
    }

    /// Lets `time` milliseconds pass in which nobody says anything, without a step for each.
    fn idle(&mut self, time: u64) {
        let end = self.now + ms(time);
        while self.now < end {
            let due = self.sides.iter().filter_map(|it| it.tunnel.poll_timeout());
            let landing = self.flying.iter().map(|(when, ..)| *when);
            let next = due.chain(landing).min().unwrap_or(end);
            self.now = next.clamp(self.now + ms(1), end) - ms(1);
            self.tick();
        }
    }

    fn script(&mut self, time: u64, every: [u64; 2], steps: &[(u64, usize, Step)]) {
        for k in 0..time {
            for (_, at, step) in steps.iter().filter(|(when, ..)| *when == k) {
                self.step(*at, *step);
            }
            for (at, every) in every.into_iter().enumerate() {
                if every > 0 && k.is_multiple_of(every) {
                    self.send(at);
                }
            }
            self.tick();
        }
    }

    /// A number below `bound`.
    fn throw(&mut self, bound: u64) -> u64 {
        // Xorshift, Marsaglia 2003.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % bound
    }

    /// Packets of each side that never arrived.
    fn lost(&self) -> [u32; 2] {
        [0, 1].map(|at| self.sides[at].sent - self.sides[1 - at].delivered)
    }

    fn session_epochs(&self) -> [Option<u64>; 2] {
        [0, 1].map(|at| {
            self.sides[at].tunnel.snapshot(self.now)[0]
                .session_epoch
                .map(|epoch| epoch.0)
        })
    }
}

/// An early epoch that reaches `late` by `skew` milliseconds after the other side.
fn early(epoch: u64, when: u64, late: usize, skew: u64) -> [(u64, usize, Step); 2] {
    [
        (when, 1 - late, Step::Now(epoch)),
        (when + skew, late, Step::Now(epoch)),
    ]
}

fn discard(when: u64) -> [(u64, usize, Step); 2] {
    [(when, 0, Step::Discard), (when, 1, Step::Discard)]
}

#[test]
fn two_evictions_in_a_row_cost_the_survivors_nothing() {
    for one_way in [1, 20, 50, 100] {
        for gap in [5, 20, 50, 150, 300] {
            for (late, skew) in [(0, 0), (0, 10), (1, 10), (1, 50)] {
                let mut link = Link::connected(ms(one_way));
                let mut steps = early(2, 100, late, skew).to_vec();
                steps.extend(early(3, 100 + gap, late, skew));
                steps.extend(discard(2_150 + gap));
                link.script(4_000, [5, 5], &steps);
                link.run(1_000, [0, 0]);
                assert_eq!(
                    link.lost(),
                    [0, 0],
                    "{one_way} ms, gap {gap}, side {late} late by {skew}"
                );
                assert_eq!(link.session_epochs(), [Some(3), Some(3)]);
            }
        }
    }
}

#[test]
fn an_epoch_that_only_one_side_began_before_it_was_superseded_costs_nothing() {
    for (one_way, skew) in [(1, 2), (20, 10), (50, 50)] {
        for first in [0, 1] {
            let mut link = Link::connected(ms(one_way));
            let second = 1 - first;
            let mut steps = vec![
                (100, 0, Step::Ahead(2)),
                (100, 1, Step::Ahead(2)),
                (5_099, second, Step::Now(3)),
                (5_100, first, Step::Begin(2)),
                (5_100 + skew, first, Step::Now(3)),
            ];
            steps.extend(discard(7_200));
            link.script(9_000, [5, 5], &steps);
            link.run(1_000, [0, 0]);
            assert_eq!(
                link.lost(),
                [0, 0],
                "{one_way} ms, side {second} ahead by {skew}"
            );
        }
    }
}

#[test]
fn an_early_epoch_that_one_side_hears_of_much_later_costs_nothing() {
    for one_way in [1, 20, 100] {
        for late in [0, 1] {
            let mut link = Link::connected(ms(one_way));
            let mut steps = early(2, 100, late, 800).to_vec();
            steps.extend(discard(2_900));
            link.script(5_000, [5, 5], &steps);
            link.run(1_000, [0, 0]);
            assert_eq!(link.lost(), [0, 0], "{one_way} ms, side {late} late");
        }
    }
}

#[test]
fn initiations_that_take_long_and_cross_on_machines_that_stall_cost_nothing() {
    for stalls in [0, 1_000] {
        let mut link = Link::connected(ms(100));
        (link.initiations, link.stalls) = (ms(500), stalls);
        for epoch in 2..60 {
            let (skew, late) = (link.throw(60), link.throw(2) as usize);
            let ([one, other], [end, end_too]) = (early(epoch, 0, late, skew), discard(2_000));
            let steps = [one, other, end, end_too];
            link.script(100, [50, 50], &steps);
            let mut passed = 100;
            // As soon as both are there, or a little later, the next one.
            while link.session_epochs() != [Some(epoch); 2] || link.throw(2) == 0 {
                link.script(
                    50,
                    [50, 50],
                    &steps.map(|(when, at, step)| (when.wrapping_sub(passed), at, step)),
                );
                passed += 50;
                assert!(passed < 10_000, "no session of epoch {epoch}");
            }
        }
        link.stalls = 0;
        link.run(2_000, [0, 0]);
        assert_eq!(link.lost(), [0, 0], "a stall each {stalls} ms");
    }
}

#[test]
fn nothing_is_sent_on_an_epoch_that_was_superseded_before_it_came_into_force() {
    let mut link = Link::connected(ms(1));
    let secret = link.sides[0].secret.duplicate();
    let (sent, delivered) = (link.sides[0].sent, link.sides[0].delivered);
    link.sides[0] = Side {
        sent,
        delivered,
        ..side(1, secret, u64::MAX)
    };
    link.lose = Some(1);
    link.step(0, Step::Now(1));
    assert_eq!(link.send(0), Outbound::Queued);
    for at in 0..2 {
        link.step(at, Step::Ahead(2));
    }
    link.run(4_000, [100, 0]);
    assert!(link.sides[0].tunnel.snapshot(link.now)[0].next_ready);
    for at in 0..2 {
        link.step(at, Step::Ahead(3));
    }
    link.run(10, [5, 0]);
    assert_eq!(link.session_epochs(), [None, Some(1)]);
    link.lose = None;
    for at in 0..2 {
        link.step(at, Step::Begin(3));
    }
    link.run(1_000, [0, 0]);
    assert_eq!(link.lost(), [0, 0], "what waited was sent then");
}

#[test]
fn many_epochs_that_were_superseded_before_they_began_cost_nothing() {
    for late in [0, 1] {
        let mut link = Link::connected(ms(20));
        for epoch in 2..8 {
            for at in 0..2 {
                link.step(at, Step::Ahead(epoch));
            }
            // Long enough for a session of each.
            link.run(3_500, [5, 5]);
        }
        link.script(4_000, [5, 5], &early(8, 0, late, 30));
        link.run(1_000, [0, 0]);
        assert_eq!(link.lost(), [0, 0], "side {late} late");
    }
}

#[test]
fn a_flow_that_begins_within_the_grace_outlives_it() {
    for one_way in [1, 10, 50] {
        for from in [0, 1] {
            let mut link = Link::connected(ms(one_way));
            link.run(70_000, [0, 0]);
            for at in 0..2 {
                link.step(at, Step::Ahead(2));
            }
            link.run(5_000, [0, 0]);
            for at in 0..2 {
                link.step(at, Step::Begin(2));
            }
            link.run(300, [0, 0]);
            let mut every = [0, 0];
            every[from] = 1;
            link.run(1_700, every);
            for at in 0..2 {
                link.step(at, Step::Discard);
            }
            link.run(2_000, every);
            link.run(1_000, [0, 0]);
            assert_eq!(link.lost(), [0, 0], "{one_way} ms, from side {from}");
        }
    }
}

#[test]
fn a_node_that_restarts_is_heard_of_at_once_even_by_one_that_only_talks() {
    let mut link = Link::connected(ms(10));
    link.run(1_000, [10, 0]);
    let (sent, delivered) = (link.sides[1].sent, link.sides[1].delivered);
    let secret = link.sides[1].secret.duplicate();
    link.sides[1] = Side {
        sent,
        delivered,
        ..side(2, secret, u64::MAX)
    };
    link.step(1, Step::Now(1));
    link.run(5_000, [10, 0]);
    link.run(1_000, [0, 0]);
    // Packets in flight, and those until its greeting: of a second at most.
    assert!(link.lost()[0] <= 110, "{:?}", link.lost());
}

#[test]
fn traffic_one_way_needs_no_new_handshakes() {
    let mut link = Link::connected(ms(10));
    let before = link.sides[0].tunnel.handshakes();
    link.run(100_000, [100, 0]);
    assert_eq!(link.sides[0].tunnel.handshakes(), before);
}

#[test]
fn a_closed_tunnel_keeps_what_is_installed_for_the_epoch_to_come() {
    let mut link = Link::connected(ms(1));
    for at in 0..2 {
        link.step(at, Step::Ahead(2));
    }
    link.run(1_000, [10, 10]);
    for at in 0..2 {
        link.sides[at].tunnel.close();
    }
    assert_eq!(
        link.send(0),
        Outbound::Dropped(DropReason::NoSession),
        "nothing is in force"
    );
    link.run(100, [0, 0]);
    for at in 0..2 {
        link.step(at, Step::Begin(2));
    }
    let before = link.lost();
    link.run(1_000, [10, 10]);
    link.run(1_000, [0, 0]);
    assert_eq!(link.lost(), before);
    assert_eq!(link.session_epochs(), [Some(2), Some(2)]);
}

#[test]
fn an_address_follows_the_epoch_that_came_into_force() {
    let mut link = Link::connected(ms(1));
    let stranger = WgSecret::generate(&mut OsRng).public();
    let inner = IpAddr::V4(link.sides[1].inner);
    let spec = PeerSpec {
        key: stranger,
        allowed: vec![inner],
    };
    let now = link.now;
    link.sides[0].tunnel.install(
        Epoch(2),
        vec![(spec, Psk::from_bytes([2; 32]))],
        ms(5_000),
        None,
        now,
    );
    assert!(
        matches!(link.send(0), Outbound::Send { .. }),
        "epoch 1 is in force"
    );
    for at in 0..2 {
        link.step(at, Step::Now(3));
    }
    link.run(1_000, [10, 10]);
    link.run(1_000, [0, 0]);
    assert_eq!(link.lost(), [0, 0]);
}

#[test]
fn a_counter_at_its_end_is_refused_before_it_can_wrap() {
    let mut link = Link::connected(ms(1));
    link.send(0);
    let (_, _, mut datagram) = link.flying.pop().expect("a datagram");
    datagram[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let from = link.sides[0].outer;
    let tunnel = &mut link.sides[1].tunnel;
    let inbound = carry::receive(tunnel, from, &datagram, &mut [0; 256], link.now);
    assert_eq!(inbound, Inbound::Dropped(DropReason::Malformed));
}

/// Side 1 has been there for long; side 0 has just come, and its greeting is answered, and the keepalive
/// that confirms the handshake is on its way.
fn greeted(one_way: Duration) -> Link {
    let mut link = Link::apart(one_way);
    link.step(1, Step::Now(1));
    link.idle(95_000);
    link.step(0, Step::Now(1));
    while !link.flying.iter().any(|(_, at, it)| *at == 0 && it[0] == 4) {
        link.tick();
    }
    link
}

#[test]
fn a_handshake_whose_confirmation_was_lost_serves_as_long_as_its_initiator_thinks() {
    let mut link = greeted(ms(10));
    link.flying.clear();
    link.idle(100_000);
    link.run(1_000, [20, 0]);
    link.run(100, [0, 0]);
    assert_eq!(link.lost(), [0, 0]);
}

#[test]
fn a_session_that_was_confirmed_late_ends_no_later() {
    let mut link = greeted(ms(10));
    link.flying.clear();
    link.idle(50_000);
    link.send(0);
    link.idle(135_000);
    link.run(1_000, [0, 20]);
    link.run(100, [0, 0]);
    assert_eq!(
        link.lost(),
        [0, 0],
        "what side 0 has dropped is not sent on"
    );
}

#[test]
fn what_is_on_its_way_when_a_session_ends_arrives() {
    for one_way in [1, 20, 100, 500] {
        let mut link = greeted(ms(one_way));
        link.idle(179_990);
        link.run(1_000, [20, 20]);
        link.run(one_way * 4, [0, 0]);
        assert_eq!(link.lost(), [0, 0], "{one_way} ms");
    }
}

#[test]
fn an_answer_by_one_that_has_restarted_since_is_not_preferred_for_long() {
    let mut link = Link::apart(ms(5));
    link.step(1, Step::Now(1));
    link.idle(95_000);
    link.step(0, Step::Now(1));
    let take_answer = |link: &mut Link, by: usize, is_lost: fn(usize) -> bool| loop {
        link.tick();
        link.flying
            .retain(|(_, at, it)| it[0] != 1 || !is_lost(*at));
        let answer = |(_, at, it): &(Duration, usize, Vec<u8>)| *at == by && it[0] == 2;
        if let Some(found) = link.flying.iter().position(answer) {
            break link.flying.remove(found).2;
        }
    };
    let late = take_answer(&mut link, 1, |_| false);
    let secret = link.sides[1].secret.duplicate();
    link.sides[1] = side(2, secret, u64::MAX);
    link.step(1, Step::Now(1));
    let answer = take_answer(&mut link, 0, |at| at == 0);
    link.flying.clear();
    link.tick();
    let (now, from) = (link.now, [link.sides[0].outer, link.sides[1].outer]);
    for (at, datagram) in [(0, late), (1, answer)] {
        let tunnel = &mut link.sides[at].tunnel;
        carry::receive(tunnel, from[1 - at], &datagram, &mut [0; 256], now);
    }
    link.collect();
    link.run(20_000, [20, 20]);
    link.run(100, [0, 0]);
    // Two seconds, and what is on its way.
    assert_eq!(link.lost()[1], 0);
    assert!(link.lost()[0] <= 110, "{} of 1000", link.lost()[0]);
}

const INITIATION_LEN: usize = 148;
/// Milliseconds.
const LONGEST_STALL: u64 = 400;
