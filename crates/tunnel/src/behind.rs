//! A pair of which one side's clock, or both, are behind what the other remembers. The clock that boringtun
//! stamps with cannot be set: in its place the other side has been shown initiations from tomorrow, made by
//! hand.

use crate::initiation::{Opener, Timestamp, sealed};
use crate::limits::INITIATE_BACK_AFTER;
use crate::{Config, DropReason, Inbound, Inside, LoneTunnel, MIN_BUFFER, Outbound, Path};
use crate::{PeerSpec, Range};
use boringtun::noise::{Tunn, TunnResult};
use keys::{Epoch, Psk, WgSecret};
use std::net::Ipv4Addr;
use std::time::Duration;
use x25519_dalek::{PublicKey, StaticSecret};

const EPOCH: Epoch = Epoch(6);
const PSK: [u8; 32] = [9; 32];
const DAY: Duration = Duration::from_secs(86_400);

/// Two sides, and nothing between them. Side 0 has the address .1, side 1 has .2.
struct Pair {
    sides: [LoneTunnel; 2],
    now: Duration,
    /// Datagrams from one side to another place than the other side.
    astray: Vec<Path>,
    delivered: [usize; 2],
}

fn secret(side: usize) -> WgSecret {
    let letter = ["A", "I"][side];
    WgSecret::from_base64(&format!("{}=", letter.repeat(43))).expect("a key")
}

fn inner(side: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, side as u8 + 1)
}

fn outer(host: u8) -> Path {
    Path::Udp(([192, 0, 2, host], 51_820).into())
}

/// The time since 1970 by the clock that boringtun stamps with.
fn wall() -> Duration {
    let (from, to) = (secret(0), secret(1));
    let key = PublicKey::from(to.public().0);
    let own = StaticSecret::from(*from.expose());
    let mut tunn = Tunn::new(own, key, None, None, 1, None);
    let mut buffer = [0; MIN_BUFFER];
    let made = tunn.format_handshake_initiation(&mut buffer, true);
    let TunnResult::WriteToNetwork(message) = made else {
        panic!("it makes one");
    };
    let shared = to.shared_with(&from.public()).expect("a good key");
    let claimed = Opener::new(&to).claim(message).expect("it is for this key");
    claimed.timestamp(&shared).expect("it opens").unix()
}

/// An initiation of `side`, as it makes it when its clock shows `unix`.
fn initiation(side: usize, unix: Duration) -> Vec<u8> {
    let own = secret(side);
    let bits = Psk::from_bytes(PSK).index_bits(&own.public(), 0);
    let index = (bits << 2 | (EPOCH.0 & 3) as u32) << 8;
    sealed(&own, &secret(1 - side).public(), index, Timestamp::at(unix))
}

fn side(side: usize, now: Duration) -> LoneTunnel {
    let mut tunnel = LoneTunnel::new(
        1_000,
        Config {
            secret: secret(side),
            mtu: 1420,
            seed: side as u64,
            inside: Inside {
                own: vec![inner(side).into()],
                ranges: vec![Range::new(Ipv4Addr::new(10, 0, 0, 0).into(), 8)],
            },
        },
    );
    let other = 1 - side;
    let spec = PeerSpec {
        key: secret(other).public(),
        allowed: vec![inner(other).into()],
    };
    let key = spec.key;
    let peers = vec![(spec, Psk::from_bytes(PSK))];
    tunnel.install(EPOCH, peers, Duration::ZERO, None, now);
    tunnel.set_endpoints(&key, vec![outer(other as u8 + 1)], now);
    tunnel.activate(EPOCH, now);
    tunnel
}

impl Pair {
    fn new() -> Self {
        let now = Duration::from_secs(1_000);
        Self {
            sides: [side(0, now), side(1, now)],
            now,
            astray: Vec::new(),
            delivered: [0; 2],
        }
    }

    /// One side gets a datagram from somewhere; the places that it then sends to.
    fn hear(&mut self, at: usize, from: Path, datagram: &[u8]) -> (Inbound, Vec<Path>) {
        let mut out = vec![0; 2048];
        let inbound = self.sides[at].handle_udp(from, datagram, &mut out, self.now);
        let sent = std::iter::from_fn(|| self.sides[at].poll_transmit());
        (inbound, sent.map(|transmit| transmit.to).collect())
    }

    /// One side has shown the other initiations from tomorrow.
    fn show_tomorrow(&mut self, by: usize) -> Vec<Vec<u8>> {
        let shown: Vec<_> = (0..3)
            .map(|second| initiation(by, wall() + DAY + Duration::from_secs(second)))
            .collect();
        for message in &shown {
            let (inbound, _) = self.hear(1 - by, outer(by as u8 + 1), message);
            assert_eq!(inbound, Inbound::Consumed);
        }
        shown
    }

    /// Nothing is shaken for longer than any session lasts: the greeting of the start is over.
    fn rest(&mut self) {
        for _ in 0..300 {
            self.now += Duration::from_secs(1);
            for at in 0..2 {
                self.sides[at].handle_timeout(self.now);
                while self.sides[at].poll_transmit().is_some() {}
            }
        }
    }

    /// Lets time pass, and datagrams arrive at once.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(50);
            for at in 0..2 {
                self.sides[at].handle_timeout(self.now);
            }
            self.carry();
        }
    }

    fn carry(&mut self) {
        loop {
            let mut flying = Vec::new();
            for at in 0..2 {
                while let Some(transmit) = self.sides[at].poll_transmit() {
                    flying.push((at, transmit));
                }
            }
            if flying.is_empty() {
                return;
            }
            for (at, transmit) in flying {
                let other = 1 - at;
                if transmit.to == outer(other as u8 + 1) {
                    self.land(other, &transmit.payload);
                } else {
                    self.astray.push(transmit.to);
                }
            }
        }
    }

    fn land(&mut self, at: usize, datagram: &[u8]) {
        let from = outer((1 - at) as u8 + 1);
        let mut out = vec![0; 2048];
        let inbound = self.sides[at].handle_udp(from, datagram, &mut out, self.now);
        self.delivered[at] += usize::from(matches!(inbound, Inbound::Deliver { .. }));
    }

    /// A packet from one side to the other, which may have to wait for a session.
    fn send(&mut self, from: usize) {
        let mut packet = [0; 128];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&100_u16.to_be_bytes());
        packet[12..16].copy_from_slice(&inner(from).octets());
        packet[16..20].copy_from_slice(&inner(1 - from).octets());
        let mut out = [0; 256];
        let sent = self.sides[from].handle_tun(&mut packet, 100, &mut out, self.now);
        if let Outbound::Send { len, .. } = sent {
            self.land(1 - from, &out[..len]);
        }
    }

    fn replayed(&self, at: usize) -> u64 {
        let drops = self.sides[at].drops();
        let replayed = drops
            .iter()
            .find(|(reason, _)| *reason == DropReason::Replayed);
        replayed.map_or(0, |(_, count)| count)
    }
}

#[test]
fn a_node_that_was_started_again_with_its_clock_a_day_behind_is_heard_within_seconds() {
    for behind in 0..2 {
        let mut pair = Pair::new();
        pair.show_tomorrow(behind);
        pair.rest();
        pair.sides[behind] = side(behind, pair.now);
        pair.send(behind);
        pair.pass(Duration::from_secs(2));
        assert!(
            pair.replayed(1 - behind) > 0,
            "its own is a recording still"
        );
        assert_eq!(pair.delivered[1 - behind], 1);
        pair.send(1 - behind);
        pair.pass(Duration::from_secs(1));
        assert_eq!(pair.delivered[behind], 1);
        // The sessions that follow need the same, whoever has something to say.
        for _ in 0..3 {
            pair.pass(Duration::from_secs(400));
            pair.send(behind);
            pair.pass(Duration::from_secs(2));
        }
        assert_eq!(pair.delivered[1 - behind], 4);
        assert!(pair.astray.is_empty());
    }
}

#[test]
fn a_recording_is_answered_nowhere_and_moves_nothing_whether_it_was_heard_or_not() {
    let mut pair = Pair::new();
    let shown = pair.show_tomorrow(0);
    pair.rest();
    let place = |pair: &Pair| pair.sides[1].snapshot(pair.now)[0].endpoint;
    let before = place(&pair);
    let elsewhere = outer(66);
    let replayed = Inbound::Dropped(DropReason::Replayed);
    // One that was heard has no effect at all, from wherever it comes.
    for message in &shown {
        for from in [elsewhere, outer(1)] {
            assert_eq!(pair.hear(1, from, message), (replayed, Vec::new()));
        }
    }
    // Of those that never came, some make this side initiate: to the peer, and seldom.
    let mut sent = Vec::new();
    let (count, pause) = (100, Duration::from_millis(150));
    for number in 0..count {
        let withheld = initiation(0, wall() - Duration::from_secs(1_000 - number));
        let (inbound, to) = pair.hear(1, elsewhere, &withheld);
        assert_eq!(inbound, replayed);
        sent.extend(to);
        // Again, it is one that was heard.
        assert_eq!(pair.hear(1, elsewhere, &withheld), (replayed, Vec::new()));
        pair.now += pause;
    }
    let most = (pause * count as u32).as_secs() / INITIATE_BACK_AFTER.as_secs() + 1;
    assert!((1..=most).contains(&(sent.len() as u64)), "{sent:?}");
    assert!(sent.iter().all(|to| *to == outer(1)), "{sent:?}");
    assert_eq!(place(&pair), before);
}

#[test]
fn a_recording_of_another_epoch_makes_nobody_initiate() {
    let mut pair = Pair::new();
    pair.show_tomorrow(0);
    pair.rest();
    let mut message = initiation(0, wall());
    // The index of another PSK: it names nothing here.
    message[4..8].copy_from_slice(&0x1234_5678_u32.to_le_bytes());
    crate::cookie::address(&secret(1).public(), &mut message);
    let (inbound, sent) = pair.hear(1, outer(66), &message);
    let replayed = Inbound::Dropped(DropReason::Replayed);
    assert_eq!((inbound, sent), (replayed, Vec::new()));
}

#[test]
fn clocks_that_were_ahead_together_and_are_right_again_shut_nobody_out() {
    let mut pair = Pair::new();
    let recorded = [pair.show_tomorrow(0), pair.show_tomorrow(1)];
    pair.rest();
    // Neither knows that its clock was set back: each takes the other for a recording.
    pair.send(0);
    pair.pass(Duration::from_secs(20));
    assert_eq!(pair.delivered, [0, 0]);
    pair.rest();
    for side in &mut pair.sides {
        side.handle_clock_set_back(wall());
    }
    pair.send(0);
    pair.send(1);
    pair.pass(Duration::from_secs(2));
    assert_eq!(pair.delivered, [1, 1]);
    // Initiations from then are recordings as ever, and bar nothing afterwards.
    for (by, messages) in recorded.iter().enumerate() {
        for message in messages {
            let (inbound, sent) = pair.hear(1 - by, outer(66), message);
            let replayed = Inbound::Dropped(DropReason::Replayed);
            assert_eq!((inbound, sent), (replayed, Vec::new()));
        }
    }
    for from in [0, 1] {
        pair.rest();
        pair.send(from);
        pair.pass(Duration::from_secs(2));
    }
    assert_eq!(pair.delivered, [2, 2]);
}

#[test]
fn if_one_clock_is_set_back_before_the_other_the_pair_comes_together_all_the_same() {
    for first in 0..2 {
        let mut pair = Pair::new();
        pair.show_tomorrow(0);
        pair.show_tomorrow(1);
        pair.rest();
        pair.sides[first].handle_clock_set_back(wall());
        // The other is still ahead, and says so.
        let late = initiation(1 - first, wall() + DAY + Duration::from_secs(60));
        let (inbound, _) = pair.hear(first, outer((1 - first) as u8 + 1), &late);
        assert_eq!(inbound, Inbound::Consumed);
        pair.rest();
        pair.sides[1 - first].handle_clock_set_back(wall());
        for from in [1 - first, first] {
            pair.send(from);
            pair.pass(Duration::from_secs(2));
        }
        assert_eq!(pair.delivered, [1, 1], "{first}");
    }
}
