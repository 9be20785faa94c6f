//! Networks behind nodes at the data path: what goes there, who may speak for them, from when on and until when.

use crate::turns::{LEN, NOW, Node, outer, packet, pair};
use crate::{DropReason, Groups, Inbound, Outbound, Path, PeerSpec, Protocol, Range, Rule};
use keys::{Epoch, Psk, WgPublicKey};
use std::net::Ipv4Addr;
use std::time::Duration;

fn range(text: &str) -> Range {
    let (address, prefix) = text.split_once('/').unwrap();
    Range::new(address.parse().unwrap(), prefix.parse().unwrap())
}

/// A packet between any two addresses.
fn between(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut packet = packet(0, 0);
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet
}

fn send(node: &mut Node, mut packet: Vec<u8>) -> Result<Vec<u8>, DropReason> {
    let mut out = vec![0; 256];
    match node.door.handle_tun(&mut packet, LEN, &mut out, NOW) {
        Outbound::Send { len, .. } => {
            out.truncate(len);
            Ok(out)
        }
        Outbound::Dropped(reason) => Err(reason),
        Outbound::Queued => panic!("no session"),
    }
}

fn hear(node: &mut Node, from: u8, datagram: &[u8]) -> Inbound {
    let route = outer(from);
    node.door.handle_udp(route, datagram, &mut [0; 256], NOW)
}

fn install(node: &mut Node, epoch: u64, peers: &[(WgPublicKey, u8)]) {
    let specs = peers.iter().map(|(key, host)| {
        let allowed = vec![crate::turns::inner(*host).into()];
        let spec = PeerSpec { key: *key, allowed };
        (spec, Psk::from_bytes([epoch as u8; 32]))
    });
    let specs = specs.collect();
    let door = &mut node.door;
    door.install(Epoch(epoch), specs, Duration::ZERO, None, NOW);
}

/// Another epoch, with a network behind the first node and one behind the second.
fn route(one: &mut Node, two: &mut Node, epoch: u64) {
    let (first, second) = (range("172.16.1.0/24"), range("172.16.2.0/24"));
    let keys = (one.key, two.key);
    for (node, peer, host, own, other) in [
        (one, keys.1, 2, first, second),
        (two, keys.0, 1, second, first),
    ] {
        node.door.agree_to_networks(vec![own], true);
        install(node, epoch, &[(peer, host)]);
        node.door.install_own_networks(vec![own]);
        node.door.install_networks([(peer, vec![other])]);
        node.door.activate(Epoch(epoch), NOW);
    }
}

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const BEHIND_ONE: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 5);
const BEHIND_TWO: Ipv4Addr = Ipv4Addr::new(172, 16, 2, 5);
const NOWHERE: Ipv4Addr = Ipv4Addr::new(172, 16, 3, 5);

#[test]
fn packets_go_to_hosts_behind_a_peer_and_come_from_there_and_from_nowhere_else() {
    let (mut one, mut two) = pair();
    let before = send(&mut one, between(HOST, BEHIND_TWO));
    assert_eq!(before, Err(DropReason::NoRoute));
    route(&mut one, &mut two, 2);
    let refused = |reason| Inbound::Dropped(reason);
    let delivered = Inbound::Deliver { len: LEN };
    for (from, to, outcome) in [
        (HOST, PEER, delivered),
        (HOST, BEHIND_TWO, delivered),
        (BEHIND_ONE, PEER, delivered),
        (BEHIND_ONE, BEHIND_TWO, delivered),
        // A source that is another's, or nobody's.
        (BEHIND_TWO, PEER, refused(DropReason::SourceNotAllowed)),
        (NOWHERE, PEER, refused(DropReason::SourceNotAllowed)),
        (NOWHERE, BEHIND_TWO, refused(DropReason::SourceNotAllowed)),
        (PEER, BEHIND_TWO, refused(DropReason::SourceNotAllowed)),
    ] {
        let datagram = send(&mut one, between(from, to)).expect("it is routed");
        assert_eq!(hear(&mut two, 1, &datagram), outcome, "{from} to {to}");
    }
    assert_eq!(
        send(&mut one, between(HOST, NOWHERE)),
        Err(DropReason::NoRoute)
    );
    // The receiver delivers nothing to a network that is not behind it, whoever sends it there.
    let both = vec![range("172.16.2.0/24"), range("172.16.3.0/24")];
    install(&mut one, 3, &[(two.key, 2)]);
    one.door.install_networks([(two.key, both)]);
    one.door.activate(Epoch(3), NOW);
    let datagram = send(&mut one, between(HOST, NOWHERE)).expect("it is routed");
    let refused = Inbound::Dropped(DropReason::DestinationNotAllowed);
    assert_eq!(hear(&mut two, 1, &datagram), refused);
}

#[test]
fn the_source_of_another_routers_network_is_refused() {
    let (mut one, mut two) = pair();
    let three = Node::new(3).key;
    two.door.agree_to_networks(Vec::new(), true);
    install(&mut two, 2, &[(one.key, 1), (three, 3)]);
    let behind = |text| vec![range(text)];
    two.door.install_networks([
        (one.key, behind("172.16.0.0/16")),
        (three, behind("172.16.9.0/24")),
    ]);
    two.door.activate(Epoch(2), NOW);
    let mut says = |last: [u8; 2]| {
        let from = Ipv4Addr::new(172, 16, last[0], last[1]);
        let datagram = send(&mut one, between(from, PEER)).expect("a session");
        hear(&mut two, 1, &datagram)
    };
    assert_eq!(says([8, 1]), Inbound::Deliver { len: LEN });
    let refused = Inbound::Dropped(DropReason::SourceNotAllowed);
    assert_eq!(says([9, 1]), refused, "the longest prefix is the third's");
}

#[test]
fn networks_come_with_their_epoch_and_go_with_it_their_peer_and_the_lease() {
    let (mut one, mut two) = pair();
    route(&mut one, &mut two, 2);
    let sends = |one: &mut Node| send(one, between(HOST, BEHIND_TWO)).map(|_| ());
    assert_eq!(sends(&mut one), Ok(()));
    // An epoch without networks is installed, superseded by one with them, and begins.
    install(&mut one, 3, &[(two.key, 2)]);
    assert_eq!(sends(&mut one), Ok(()), "not yet");
    route(&mut one, &mut two, 4);
    assert_eq!(sends(&mut one), Ok(()));
    install(&mut one, 5, &[(two.key, 2)]);
    one.door.activate(Epoch(5), NOW);
    assert_eq!(sends(&mut one), Err(DropReason::NoRoute));

    // The router is left out.
    route(&mut one, &mut two, 6);
    assert_eq!(sends(&mut one), Ok(()));
    install(&mut one, 7, &[]);
    one.door
        .install_networks([(two.key, vec![range("172.16.2.0/24")])]);
    one.door.activate(Epoch(7), NOW);
    assert_eq!(sends(&mut one), Err(DropReason::NoRoute));
    // At once, before the epoch that leaves it out is installed.
    let (mut one, mut two) = pair();
    route(&mut one, &mut two, 2);
    one.door.keep_only(&Default::default(), true);
    assert_eq!(sends(&mut one), Err(DropReason::NoRoute));
    // Its slot is another's next, which does not have its networks.
    install(&mut one, 3, &[(Node::new(3).key, 3)]);
    assert_eq!(one.door.networks.owner(BEHIND_TWO.into()), None);
    // The lease ends.
    let (mut one, mut two) = pair();
    route(&mut one, &mut two, 2);
    let to_one = send(&mut two, between(PEER, BEHIND_ONE)).expect("it is routed");
    one.door.close();
    assert_eq!(sends(&mut one), Err(DropReason::NoRoute));
    assert!(matches!(hear(&mut one, 2, &to_one), Inbound::Dropped(_)));
    assert!(!one.door.networks.is_behind_here(BEHIND_ONE.into()));
}

#[test]
fn a_node_has_no_networks_that_it_did_not_agree_to_and_none_inside_the_mesh() {
    let (mut one, mut two) = pair();
    // One that accepts none.
    route(&mut one, &mut two, 2);
    let from_two = send(&mut two, between(BEHIND_TWO, HOST)).expect("it is routed");
    one.door.agree_to_networks(Vec::new(), false);
    install(&mut one, 3, &[(two.key, 2)]);
    let (first, second) = (range("172.16.1.0/24"), range("172.16.2.0/24"));
    one.door.install_own_networks(vec![first]);
    one.door.install_networks([(two.key, vec![second])]);
    one.door.activate(Epoch(3), NOW);
    let nowhere = send(&mut one, between(HOST, BEHIND_TWO));
    assert_eq!(nowhere, Err(DropReason::NoRoute));
    let refused = Inbound::Dropped(DropReason::SourceNotAllowed);
    assert_eq!(hear(&mut one, 2, &from_two), refused);
    // Nor is it a router by the controller's word alone.
    let to_behind = send(&mut two, between(PEER, BEHIND_ONE)).expect("it is routed");
    let refused = Inbound::Dropped(DropReason::DestinationNotAllowed);
    assert_eq!(hear(&mut one, 2, &to_behind), refused);
    // Addresses of the mesh are behind nobody, also those that no member has.
    let own = vec![range("10.0.0.64/26")];
    one.door.agree_to_networks(own.clone(), true);
    install(&mut one, 4, &[(two.key, 2)]);
    one.door.install_own_networks(own);
    let inside = vec![range("10.0.0.0/8"), range("10.0.0.64/26"), second];
    one.door.install_networks([(two.key, inside)]);
    one.door.activate(Epoch(4), NOW);
    let free = send(&mut one, between(HOST, Ipv4Addr::new(10, 0, 0, 77)));
    assert_eq!(free, Err(DropReason::NoRoute));
    assert!(!one.door.networks.is_behind_here([10, 0, 0, 77].into()));
    assert!(send(&mut one, between(HOST, BEHIND_TWO)).is_ok());
}

#[test]
fn nothing_is_sent_through_the_tunnel_to_where_a_peer_is_reached() {
    let (mut one, mut two) = pair();
    route(&mut one, &mut two, 2);
    assert!(send(&mut one, between(HOST, BEHIND_TWO)).is_ok());
    // The router is heard from inside its own network, in both forms that an address has, and from where it was.
    let inside = Path::Udp((BEHIND_TWO, 51_820).into());
    let mapped = Path::Udp((BEHIND_TWO.to_ipv6_mapped(), 51_820).into());
    for (from, sends) in [
        (inside, false),
        (outer(2), true),
        (mapped, false),
        (outer(2), true),
    ] {
        let datagram = send(&mut two, between(PEER, HOST)).expect("a session");
        let heard = one.door.handle_udp(from, &datagram, &mut [0; 256], NOW);
        assert_eq!(heard, Inbound::Deliver { len: LEN });
        let sent = send(&mut one, between(HOST, BEHIND_TWO));
        assert_eq!(sent.is_ok(), sends, "{from:?}");
    }
    // A router has an address in its own network, and may well be said to be there.
    one.door.set_endpoints(&two.key, [outer(2), inside], NOW);
    assert!(send(&mut one, between(HOST, BEHIND_TWO)).is_ok());
}

#[test]
fn rules_hold_for_hosts_behind_a_router_as_for_the_router_itself() {
    let (mut one, mut two) = pair();
    route(&mut one, &mut two, 2);
    let udp = |from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)| {
        let mut packet = between(from.0, to.0);
        packet[9] = 17;
        packet[20..22].copy_from_slice(&from.1.to_be_bytes());
        packet[22..24].copy_from_slice(&to.1.to_be_bytes());
        packet
    };
    let dns = Rule {
        protocol: Protocol::Udp,
        ports: vec![53..=53],
        from: Groups(1),
        to: Groups(0),
    };
    let asks = Rule {
        ports: vec![7..=7],
        from: Groups(2),
        ..dns.clone()
    };
    let own = range("172.16.2.0/24");
    install(&mut two, 3, &[(one.key, 1)]);
    two.door.install_own_networks(vec![own]);
    two.door
        .install_networks([(one.key, vec![range("172.16.1.0/24")])]);
    two.door
        .install_rules(vec![dns, asks], Groups(2), [(one.key, Groups(1))]);
    two.door.activate(Epoch(3), NOW);
    let mut says = |two: &mut Node, packet| {
        let datagram = send(&mut one, packet).expect("a session");
        hear(two, 1, &datagram)
    };
    let delivered = Inbound::Deliver { len: LEN };
    let refused = Inbound::Dropped(DropReason::NoRule);
    for from in [HOST, BEHIND_ONE] {
        for to in [PEER, BEHIND_TWO] {
            assert_eq!(says(&mut two, udp((from, 9), (to, 53))), delivered);
            assert_eq!(says(&mut two, udp((from, 9), (to, 54))), refused);
        }
    }
    // A host behind this node has asked one behind the other, and is answered.
    let answer = udp((BEHIND_ONE, 7), (BEHIND_TWO, 4_000));
    assert_eq!(says(&mut two, answer.clone()), refused);
    send(&mut two, udp((BEHIND_TWO, 4_000), (BEHIND_ONE, 7))).expect("it is routed");
    assert_eq!(says(&mut two, answer), delivered);
    assert_eq!(two.door.passed_by_rule(), Some(vec![4, 0]));
}
