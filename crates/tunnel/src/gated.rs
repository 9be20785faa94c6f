//! Rules of a segment at the data path: where packets are held against them, and from when on.

use crate::turns::{LEN, NOW, Node, inner, outer, packet, pair};
use crate::{
    Carrier, DatagramSink, DropReason, Groups, Headers, Inbound, Outbound, Outer, PacketSink,
    PeerSpec, Protocol, Received, Rule, TunnelId,
};
use keys::{Epoch, Psk, WgPublicKey};
use std::ops::Range;
use std::time::Duration;

/// Counts packets that are delivered.
struct Delivered(usize);

impl PacketSink for Delivered {
    fn put(&mut self, _: TunnelId, _: &[u8], _: Range<usize>) {
        self.0 += 1;
    }

    fn flush(&mut self, _: &mut [u8]) {}
}

impl DatagramSink for Delivered {
    fn room(&mut self, _: Outer, _: usize) -> &mut [u8] {
        &mut []
    }

    fn push(&mut self, _: usize) {}

    fn flush(&mut self) {}

    fn send(&mut self, _: Outer, _: &[u8]) {}

    fn refuse(&mut self, _: &[u8]) {}

    fn deadline_changed(&mut self) {}
}

/// A UDP packet between two hosts.
fn udp(from: (u8, u16), to: (u8, u16)) -> Vec<u8> {
    let mut packet = packet(from.0, to.0);
    packet[9] = 17;
    packet[20..22].copy_from_slice(&from.1.to_be_bytes());
    packet[22..24].copy_from_slice(&to.1.to_be_bytes());
    packet
}

fn seal(node: &mut Node, mut packet: Vec<u8>) -> Vec<u8> {
    let mut out = vec![0; 256];
    let outbound = node.door.handle_tun(&mut packet, LEN, &mut out, NOW);
    let Outbound::Send { len, .. } = outbound else {
        panic!("no session: {outbound:?}")
    };
    out.truncate(len);
    out
}

/// With the tunnel alone.
fn hear(node: &mut Node, from: u8, datagram: &[u8]) -> Inbound {
    let route = outer(from);
    node.door.handle_udp(route, datagram, &mut [0; 256], NOW)
}

/// As a thread that shares it: how many of a batch are delivered.
fn hear_shared(node: &mut Node, datagrams: &[Vec<u8>]) -> usize {
    let bytes = datagrams.concat();
    let mut at = 0;
    let each = datagrams.iter().map(|datagram| {
        at += datagram.len();
        (outer(1), at - datagram.len()..at)
    });
    let each: Vec<_> = each.collect();
    let received = Received {
        datagrams: &bytes,
        plain: &mut vec![0; bytes.len()],
        each: each.into_iter(),
    };
    let mut delivered = Delivered(0);
    let carrier = Carrier::new(&mut node.door);
    carrier.receive(received, &mut Headers::default(), &mut delivered, || NOW);
    delivered.0
}

fn allow(port: u16, from: u64) -> Rule {
    Rule {
        protocol: Protocol::Udp,
        ports: vec![port..=port],
        from: Groups(from),
        to: Groups(0),
    }
}

fn install(node: &mut Node, epoch: u64, peer: (WgPublicKey, u8)) {
    let spec = PeerSpec {
        key: peer.0,
        allowed: vec![inner(peer.1).into()],
    };
    let peers = vec![(spec, Psk::from_bytes([epoch as u8; 32]))];
    let door = &mut node.door;
    door.install(Epoch(epoch), peers, Duration::ZERO, None, NOW);
}

fn dropped(node: &Node) -> u64 {
    node.door.drops().get(DropReason::NoRule)
}

#[test]
fn a_packet_that_no_rule_allows_is_dropped_alone_and_in_a_batch() {
    let (mut one, mut two) = pair();
    install(&mut two, 2, (one.key, 1));
    two.door.install_rules(vec![allow(53, 0)], Groups(0), []);
    two.door.activate(Epoch(2), NOW);
    let open = seal(&mut one, udp((1, 9), (2, 53)));
    assert_eq!(hear(&mut two, 1, &open), Inbound::Deliver { len: LEN });
    let closed = seal(&mut one, udp((1, 9), (2, 54)));
    let refused = Inbound::Dropped(DropReason::NoRule);
    assert_eq!(hear(&mut two, 1, &closed), refused);
    assert_eq!(dropped(&two), 1);
    // The addresses are the same as those of the packet before: only the ports tell.
    let batch = [53, 54, 53, 54, 54].map(|port| seal(&mut one, udp((1, 9), (2, port))));
    assert_eq!(hear_shared(&mut two, &batch), 2);
    assert_eq!(dropped(&two), 4);
    assert_eq!(two.door.passed_by_rule(), Some(vec![3]));
    assert_eq!(one.door.passed_by_rule(), None);
}

#[test]
fn answers_pass_to_what_this_side_has_sent_also_from_the_queue() {
    let (mut one, mut two) = pair();
    install(&mut two, 2, (one.key, 1));
    // It may ask anybody, and nobody it.
    two.door.install_rules(vec![allow(53, 2)], Groups(2), []);
    two.door.activate(Epoch(2), NOW);
    let answer = udp((1, 53), (2, 4_000));
    let early = seal(&mut one, answer.clone());
    assert_eq!(hear_shared(&mut two, &[early]), 0);
    seal(&mut two, udp((2, 4_000), (1, 53)));
    let (late, other) = (
        seal(&mut one, answer),
        seal(&mut one, udp((1, 53), (2, 4_001))),
    );
    assert_eq!(hear_shared(&mut two, &[late, other]), 1);
}

#[test]
fn rules_come_into_force_with_their_epoch_and_go_with_it() {
    let (mut one, mut two) = pair();
    let mut passes = |two: &mut Node, port| {
        let packet = seal(&mut one, udp((1, 9), (2, port)));
        hear(two, 1, &packet) == Inbound::Deliver { len: LEN }
    };
    let key = Node::new(1).key;
    install(&mut two, 2, (key, 1));
    two.door
        .install_rules(vec![allow(53, 1)], Groups(0), [(key, Groups(1))]);
    assert!(passes(&mut two, 54), "not yet");
    two.door.activate(Epoch(2), NOW);
    assert!(passes(&mut two, 53) && !passes(&mut two, 54));
    // The same rules again: counters go on.
    install(&mut two, 3, (key, 1));
    two.door
        .install_rules(vec![allow(53, 1)], Groups(0), [(key, Groups(1))]);
    two.door.activate(Epoch(3), NOW);
    assert!(passes(&mut two, 53));
    assert_eq!(two.door.passed_by_rule(), Some(vec![2]));
    // The peer has left the group.
    install(&mut two, 4, (key, 1));
    two.door.install_rules(vec![allow(53, 1)], Groups(0), []);
    assert!(passes(&mut two, 53), "not yet");
    two.door.activate(Epoch(4), NOW);
    assert!(!passes(&mut two, 53));
    // An epoch that never begins changes nothing.
    install(&mut two, 5, (key, 1));
    assert!(!passes(&mut two, 53));
    install(&mut two, 6, (key, 1));
    two.door.activate(Epoch(6), NOW);
    assert!(passes(&mut two, 54), "there are no rules any more");
    assert_eq!(two.door.passed_by_rule(), None);
}

#[test]
fn a_newcomer_that_is_ahead_is_held_against_the_rules_already() {
    let (mut one, mut two) = (Node::new(1), Node::new(2));
    one.begin(2, &[(two.key, 2)], NOW);
    install(&mut two, 2, (one.key, 1));
    two.door.install_rules(vec![allow(53, 0)], Groups(0), []);
    let mut waiting = udp((1, 9), (2, 54));
    one.door.handle_tun(&mut waiting, LEN, &mut [0; 256], NOW);
    let initiation = one.door.poll_transmit().expect("it is wanted").payload;
    hear(&mut two, 1, &initiation);
    let response = two.door.poll_transmit().expect("it is answered").payload;
    hear(&mut one, 2, &response);
    let mut heard = Vec::new();
    while let Some(transmit) = one.door.poll_transmit() {
        heard.push(hear(&mut two, 1, &transmit.payload));
    }
    let open = seal(&mut one, udp((1, 9), (2, 53)));
    heard.push(hear(&mut two, 1, &open));
    let refused = Inbound::Dropped(DropReason::NoRule);
    let expected = [Inbound::Consumed, refused, Inbound::Deliver { len: LEN }];
    assert_eq!(heard, expected);
}
