//! Answers leave from the address that was asked, and nothing but answers depends on it.

use crate::turns::{LEN, NOW, Node, Packets, inner, outer, packet, pair};
use crate::{
    Carrier, DatagramSink, Event, Headers, Inbound, MIN_BUFFER, Outer, PacketSink, Path, Received,
    Route, TrafficClass, TunnelId,
};
use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

/// Notes the outer header of every datagram.
struct Outers(Vec<Outer>, Vec<u8>);

impl DatagramSink for Outers {
    fn room(&mut self, to: Outer, _: usize) -> &mut [u8] {
        self.0.push(to);
        &mut self.1
    }

    fn push(&mut self, _: usize) {}

    fn flush(&mut self) {}

    fn send(&mut self, to: Outer, _: &[u8]) {
        self.0.push(to);
    }

    fn refuse(&mut self, _: &[u8]) {}

    fn deadline_changed(&mut self) {}
}

impl PacketSink for Outers {
    fn put(&mut self, _: TunnelId, plain: &[u8], range: Range<usize>) {
        self.1 = plain[range].to_vec();
    }

    fn flush(&mut self, _: &mut [u8]) {}
}

fn here(last: u8) -> IpAddr {
    [198, 51, 100, last].into()
}

fn from_one_at(last: u8) -> Route {
    let (path, here) = (outer(1), Some(here(last)));
    Route { path, here }
}

/// The route of the next packet for the first node.
fn next_route(two: &mut Node) -> Route {
    let carrier = Carrier::new(&mut two.door);
    let mut outers = Outers(Vec::new(), vec![0; 2048]);
    let mut turn = carrier.turn(TunnelId::FIRST, &mut outers);
    turn.send(Some(inner(1).into()), &mut Packets(packet(2, 1), 1), || NOW);
    drop(turn);
    outers.0[0].route
}

fn endpoint_events(node: &Node) -> usize {
    let events = std::iter::from_fn(|| node.door.poll_event());
    events
        .filter(|event| matches!(event, Event::Endpoint { .. }))
        .count()
}

#[test]
fn packets_leave_from_the_address_at_which_the_peer_was_heard_last() {
    let (mut one, mut two) = pair();
    endpoint_events(&two);
    for last in [7, 8] {
        let data = one.seal_for(2, NOW).expect("a session");
        two.door
            .handle_udp(from_one_at(last), &data, &mut [0; 256], NOW);
        assert_eq!(next_route(&mut two), from_one_at(last));
    }
    assert_eq!(endpoint_events(&two), 0, "the peer is where it was");
    // It roams, and is heard at yet another address.
    let roamed = Route {
        path: outer(9),
        here: Some(here(9)),
    };
    let data = one.seal_for(2, NOW).expect("a session");
    two.door.handle_udp(roamed, &data, &mut [0; 256], NOW);
    assert_eq!(next_route(&mut two), roamed);
    assert_eq!(endpoint_events(&two), 1);
    // Damaged, it moves nothing.
    let mut forged = one.seal_for(2, NOW).expect("a session");
    *forged.last_mut().expect("it has a tag") ^= 1;
    two.door
        .handle_udp(from_one_at(7), &forged, &mut [0; 256], NOW);
    assert_eq!(next_route(&mut two), roamed);
}

#[test]
fn an_address_that_is_gone_or_a_way_that_is_another_leaves_the_choice_to_the_system() {
    let (mut one, mut two) = pair();
    let hear = |one: &mut Node, two: &mut Node| {
        let data = one.seal_for(2, NOW).expect("a session");
        two.door
            .handle_udp(from_one_at(7), &data, &mut [0; 256], NOW);
        assert_eq!(next_route(two), from_one_at(7));
    };
    hear(&mut one, &mut two);
    two.door.leave_address(here(8));
    two.door.leave_routes(&HashSet::from([outer(3)]));
    assert_eq!(
        next_route(&mut two),
        from_one_at(7),
        "others are left alone"
    );
    two.door.leave_address(here(7));
    assert_eq!(next_route(&mut two), outer(1).into());
    hear(&mut one, &mut two);
    two.door.leave_routes(&HashSet::from([outer(1)]));
    assert_eq!(next_route(&mut two), outer(1).into());
}

#[test]
fn a_handshake_is_answered_from_where_it_was_asked_and_marked_as_one() {
    let (mut one, mut two) = (Node::new(1), Node::new(2));
    one.begin(1, &[(two.key, 2)], NOW);
    two.begin(1, &[(one.key, 1)], NOW);
    one.seal_for(2, NOW);
    let initiation = one.door.poll_transmit().expect("it is wanted");
    assert_eq!(initiation.outer().class, TrafficClass::HANDSHAKE);
    assert_eq!(initiation.outer().route, outer(2).into());
    two.door
        .handle_udp(from_one_at(7), &initiation.payload, &mut [0; 256], NOW);
    let response = two.door.poll_transmit().expect("an answer").outer();
    assert_eq!(response.class, TrafficClass::HANDSHAKE);
    assert_eq!(response.route, from_one_at(7));
}

#[test]
fn an_initiation_that_stays_without_an_answer_is_sent_from_elsewhere() {
    let (mut one, mut two) = pair();
    let data = two.seal_for(1, NOW).expect("a session");
    let asked = Route {
        path: outer(2),
        here: Some(here(7)),
    };
    one.door.handle_udp(asked, &data, &mut [0; 256], NOW);
    one.begin(2, &[(two.key, 2)], NOW);
    one.seal_for(2, NOW);
    let mut routes = Vec::new();
    for second in 0..60 {
        one.door.handle_timeout(NOW + Duration::from_secs(second));
        let own = std::iter::from_fn(|| one.door.poll_transmit());
        let initiations = own.filter(|transmit| transmit.payload[0] == 1);
        routes.extend(initiations.map(|transmit| transmit.outer().route));
    }
    assert_eq!(routes[..2], [asked, outer(2).into()]);
}

#[test]
fn nothing_is_taken_that_was_sent_to_an_address_inside_the_mesh() {
    let (mut one, mut two) = pair();
    let data = one.seal_for(2, NOW).expect("a session");
    let inside = Route {
        path: outer(1),
        here: Some(inner(2).into()),
    };
    let inbound = two.door.handle_udp(inside, &data, &mut [0; 256], NOW);
    let dropped = Inbound::Dropped(crate::DropReason::EndpointInsideMesh);
    assert_eq!(inbound, dropped);
}

#[test]
fn ecn_passes_between_inner_and_outer_header_both_ways() {
    let (mut one, mut two) = pair();
    let (ect_0, ce) = (2, TrafficClass::from_bits(0x88 | 3));
    let mut marked = packet(1, 2);
    marked[1] = 0xB8 | ect_0;
    let mut outers = Outers(Vec::new(), vec![0; 2048]);
    let carrier = Carrier::new(&mut one.door);
    let mut turn = carrier.turn(TunnelId::FIRST, &mut outers);
    turn.send(Some(inner(2).into()), &mut Packets(marked, 1), || NOW);
    drop(turn);
    let sealed = outers.0[0];
    assert_eq!(sealed.class, TrafficClass::from_bits(ect_0));
    outers
        .1
        .truncate(crate::packet::padded(LEN, 1420) + crate::DATA_OVERHEAD);
    // Shared with other threads, and alone.
    let mut delivered = Outers(Vec::new(), Vec::new());
    let datagrams = outers.1;
    let outer_header = Outer {
        route: Path::Udp(([192, 0, 2, 1], 51_820).into()).into(),
        class: ce,
    };
    let received = Received {
        datagrams: &datagrams,
        plain: &mut vec![0; datagrams.len().max(MIN_BUFFER)],
        each: std::iter::once((outer_header, 0..datagrams.len())),
    };
    let carrier = Carrier::new(&mut two.door);
    carrier.receive(received, &mut Headers::default(), &mut delivered, || NOW);
    assert_eq!(delivered.1[1], 0xB8 | 3, "congestion is told");
}

#[test]
fn a_packet_that_waited_for_a_session_leaves_with_its_own_ecn() {
    let (mut one, mut two) = (Node::new(1), Node::new(2));
    one.begin(1, &[(two.key, 2)], NOW);
    two.begin(1, &[(one.key, 1)], NOW);
    let mut marked = packet(1, 2);
    marked[1] = 0xB8 | 1;
    one.door.handle_tun(&mut marked, LEN, &mut [0; 256], NOW);
    let mut out = [0; 256];
    let initiation = one.door.poll_transmit().expect("it is wanted");
    two.door
        .handle_udp(outer(1), &initiation.payload, &mut out, NOW);
    let response = two.door.poll_transmit().expect("an answer");
    one.door
        .handle_udp(outer(2), &response.payload, &mut out, NOW);
    let classes = std::iter::from_fn(|| one.door.poll_transmit());
    let classes: Vec<_> = classes.map(|it| it.outer().class.bits()).collect();
    assert_eq!(classes, [0, 1], "a keepalive, and the packet");
}
