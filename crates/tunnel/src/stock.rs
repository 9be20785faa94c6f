//! A stock WireGuard in the place of a meshd, whose clock knows no leap seconds: its initiations, with
//! any timestamp, made by hand.

use crate::initiation::{Timestamp, sealed};
use crate::{Config, DropReason, Inbound, Inside, LoneTunnel, MIN_BUFFER, Path, PeerSpec, Range};
use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const EPOCH: Epoch = Epoch(6);
const PSK: [u8; 32] = [9; 32];
const NOW: Duration = Duration::from_secs(1_000);

struct Place {
    tunnel: LoneTunnel,
    own: WgPublicKey,
    peer: WgSecret,
}

impl Place {
    fn new() -> Self {
        let secret = |of: char| WgSecret::from_base64(&format!("{}=", of.to_string().repeat(43)));
        let (own, peer) = (secret('A').expect("a key"), secret('I').expect("a key"));
        let own_key = own.public();
        let tunnel = LoneTunnel::new(
            1_000,
            Config {
                secret: own,
                mtu: 1420,
                seed: 1,
                inside: Inside {
                    own: vec![Ipv4Addr::new(10, 0, 0, 1).into()],
                    ranges: vec![Range::new(Ipv4Addr::new(10, 0, 0, 0).into(), 8)],
                },
            },
        );
        let mut place = Self {
            tunnel,
            own: own_key,
            peer,
        };
        place.begin(EPOCH);
        place
    }

    fn begin(&mut self, epoch: Epoch) {
        let spec = PeerSpec {
            key: self.peer.public(),
            allowed: vec![IpAddr::from([10, 0, 0, 2])],
        };
        let peers = vec![(spec, Psk::from_bytes(PSK))];
        self.tunnel.install(epoch, peers, Duration::ZERO, None, NOW);
        self.tunnel.activate(epoch, NOW);
    }

    fn leave(&mut self, epoch: Epoch) {
        self.tunnel
            .install(epoch, Vec::new(), Duration::ZERO, None, NOW);
        self.tunnel.activate(epoch, NOW);
    }

    /// As a meshd sends it that has this epoch.
    fn named(&self, epoch: Epoch, seconds: u64) -> Vec<u8> {
        let bits = Psk::from_bytes(PSK).index_bits(&self.peer.public(), 0);
        let index = (bits << 2 | (epoch.0 & 3) as u32) << 8;
        sealed(&self.peer, &self.own, index, at(seconds))
    }

    fn unnamed(&self, seconds: u64) -> Vec<u8> {
        sealed(&self.peer, &self.own, 0x1234_5678, at(seconds))
    }

    /// Whether it is answered; else it must have been taken for a recording.
    fn answers(&mut self, from: Path, message: &[u8], now: Duration) -> bool {
        let inbound = self
            .tunnel
            .handle_udp(from, message, &mut [0; MIN_BUFFER], now);
        let answer = std::iter::from_fn(|| self.tunnel.poll_transmit())
            .find(|it| it.payload[0] == 2 && it.to == from);
        match inbound {
            Inbound::Consumed => assert!(answer.is_some()),
            Inbound::Dropped(reason) => {
                assert_eq!((reason, answer), (DropReason::Replayed, None));
            }
            Inbound::Deliver { .. } => panic!("it shakes hands"),
        }
        inbound == Inbound::Consumed
    }

    fn endpoint(&self) -> Option<Path> {
        self.tunnel.snapshot(NOW)[0].endpoint
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::default().later_by((1 << 62) + 1_000_000 + seconds)
}

fn from(host: u8) -> Path {
    Path::Udp(([192, 0, 2, host], 51_820).into())
}

fn relabelled(message: &[u8], index: u32, own: &WgPublicKey) -> Vec<u8> {
    let mut message = message.to_vec();
    message[4..8].copy_from_slice(&index.to_le_bytes());
    crate::cookie::address(own, &mut message);
    message
}

#[test]
fn a_stock_wireguard_is_answered_as_soon_as_it_is_in_the_place_of_a_meshd() {
    let mut place = Place::new();
    let meshd = place.named(EPOCH, 37);
    assert!(place.answers(from(1), &meshd, NOW));
    assert_eq!(place.endpoint(), Some(from(1)));
    // A second later, by a clock that is 27 s behind.
    let stock = place.unnamed(11);
    assert!(place.answers(from(2), &stock, NOW));
    assert!(!place.answers(from(3), &stock, NOW), "once");
    let next = place.unnamed(16);
    assert!(place.answers(from(2), &next, NOW));
    let much_older = place.unnamed(9);
    assert!(!place.answers(from(3), &much_older, NOW));
    let as_new_as_any = place.unnamed(38);
    assert!(place.answers(from(2), &as_new_as_any, NOW + Duration::from_secs(1)));
    // Nothing more is sent to the new place before there is data from there.
    assert_eq!(place.endpoint(), Some(from(1)));
}

#[test]
fn no_recording_is_answered_under_another_index() {
    let mut place = Place::new();
    // One a second: none is refused for coming too often.
    let mut seconds = 0..;
    let mut now = || NOW + Duration::from_secs(seconds.next().expect("it has no end"));
    let meshd: Vec<_> = (30..40).map(|second| place.named(EPOCH, second)).collect();
    for message in &meshd {
        assert!(place.answers(from(1), message, NOW));
    }
    let stock: Vec<_> = (13..16).map(|second| place.unnamed(second)).collect();
    for message in &stock {
        assert!(place.answers(from(2), message, now()));
    }
    // The next epoch has heard nothing yet that could be newer.
    let next = EPOCH.next();
    place.begin(next);
    let label = place.named(next, 0)[4..8].try_into();
    let label = u32::from_le_bytes(label.expect("four bytes"));
    for index in [label, 0x0BAD_CAFE] {
        for recording in meshd.iter().chain(&stock) {
            let message = relabelled(recording, index, &place.own);
            assert!(!place.answers(from(3), &message, now()), "{index:x}");
        }
    }
}

#[test]
fn of_a_peer_that_was_removed_no_recording_is_answered_whatever_its_clock() {
    let mut place = Place::new();
    let meshd = place.named(EPOCH, 37);
    assert!(place.answers(from(1), &meshd, NOW));
    let stock = place.unnamed(11);
    assert!(place.answers(from(1), &stock, NOW));
    let withheld = place.unnamed(20);
    place.leave(EPOCH.next());
    let returned = EPOCH.next().next();
    place.begin(returned);
    for recording in [&meshd, &stock, &withheld] {
        let message = relabelled(recording, 0x0BAD_CAFE, &place.own);
        assert!(!place.answers(from(3), &message, NOW));
    }
    let greeting = place.named(returned, 40);
    assert!(place.answers(from(1), &greeting, NOW));
    let label = u32::from_le_bytes(greeting[4..8].try_into().expect("four bytes"));
    for recording in [&meshd, &stock, &withheld] {
        let message = relabelled(recording, label, &place.own);
        assert!(!place.answers(from(3), &message, NOW));
    }
}

#[test]
fn a_recording_that_is_answered_after_a_start_leads_nowhere() {
    let recording = Place::new().named(EPOCH, 37);
    let mut restarted = Place::new();
    let key = restarted.peer.public();
    restarted.tunnel.set_endpoints(&key, vec![from(1)], NOW);
    assert!(restarted.answers(from(3), &recording, NOW));
    assert_eq!(restarted.endpoint(), Some(from(1)));
}
