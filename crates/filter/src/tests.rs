//! Gates against packets made by hand and at random, and against a model that looks at every rule.
//!
//! The file is long because a packet of each kind is made by hand.

use crate::flows::{Flow, Flows};
use crate::parse::{Packet, Upper};
use crate::{
    Access, Gate, Groups, MAX_FLOWS, MAX_FLOWS_PER_PEER, Protocol, Refusal, Room, Rule, Rules,
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::from_secs(1_000);
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;

/// This node and its peer, by the family.
fn own(is_v6: bool) -> IpAddr {
    host(1, is_v6)
}

fn peer(is_v6: bool) -> IpAddr {
    host(2, is_v6)
}

fn host(last: u8, is_v6: bool) -> IpAddr {
    match is_v6 {
        false => Ipv4Addr::new(10, 76, 0, last).into(),
        true => Ipv6Addr::from(0xfd77 << 112 | u128::from(last)).into(),
    }
}

fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    fragment(from, to, protocol, payload, None)
}

/// `part`: identification, offset in bytes, and whether more come.
fn fragment(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    payload: &[u8],
    part: Option<(u16, u16, bool)>,
) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let (id, offset, more) = part.unwrap_or_default();
            let flags = (offset / 8) | (u16::from(more) << 13);
            let len = (20 + payload.len()) as u16;
            let mut packet = vec![0x45, 0];
            packet.extend(len.to_be_bytes());
            packet.extend(id.to_be_bytes());
            packet.extend(flags.to_be_bytes());
            packet.extend([64, protocol, 0, 0]);
            packet.extend([from.octets(), to.octets()].concat());
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut extensions = Vec::new();
            let mut next = protocol;
            if let Some((id, offset, more)) = part {
                extensions.extend([protocol, 0]);
                extensions.extend((offset | u16::from(more)).to_be_bytes());
                extensions.extend(u32::from(id).to_be_bytes());
                next = 44;
            }
            v6(from, to, next, &[&extensions[..], payload].concat())
        }
        _ => unreachable!("both ends are of one family"),
    }
}

fn v6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([from.octets(), to.octets()].concat());
    packet.extend(payload);
    packet
}

fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut header = [from.to_be_bytes(), to.to_be_bytes()].concat();
    header.resize(20, 0);
    header[12] = 0x50;
    header[13] = flags;
    header
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    let mut header = [from.to_be_bytes(), to.to_be_bytes()].concat();
    header.extend([0, 8, 0, 0]);
    header
}

fn echo(is_v6: bool, is_request: bool, id: u16) -> Vec<u8> {
    let kind = match (is_v6, is_request) {
        (false, true) => 8,
        (false, false) => 0,
        (true, true) => 128,
        (true, false) => 129,
    };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1]);
    message
}

fn icmp(is_v6: bool) -> u8 {
    if is_v6 { ICMPV6 } else { ICMP }
}

/// "Too big" about a packet.
fn too_big(is_v6: bool, quoted: &[u8]) -> Vec<u8> {
    let mut message = if is_v6 { vec![2, 0] } else { vec![3, 4] };
    message.extend([0; 6]);
    message.extend(quoted);
    message
}

fn inbound(is_v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip(peer(is_v6), own(is_v6), protocol, payload)
}

fn outbound(is_v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip(own(is_v6), peer(is_v6), protocol, payload)
}

fn rule(protocol: Protocol, ports: &[RangeInclusive<u16>]) -> Rule {
    Rule {
        protocol,
        ports: ports.to_vec(),
        from: Groups(0),
        to: Groups(0),
    }
}

/// A gate with these rules, where this node may send anything to the peer.
fn gate(rules: Vec<Rule>) -> Gate {
    Gate::new(with_all_out(rules))
}

fn with_all_out(mut rules: Vec<Rule>) -> Access {
    let (own, peer) = (Groups(1 << 62), Groups(1 << 63));
    rules.push(Rule {
        from: own,
        to: peer,
        ..rule(Protocol::Any, &[])
    });
    of(rules, own).toward(peer)
}

fn of(rules: Vec<Rule>, own: Groups) -> Rules {
    Rules::new(rules, own, room())
}

fn room() -> Arc<Room> {
    Arc::new(Room::new(7))
}

const NOTHING: Result<(), Refusal> = Err(Refusal::NoRule);

#[test]
fn a_rule_opens_its_ports_and_nothing_else() {
    for is_v6 in [false, true] {
        let mut gate = gate(vec![
            rule(Protocol::Tcp, &[22..=22, 8_000..=8_100]),
            rule(Protocol::Udp, &[53..=53]),
        ]);
        let mut admit =
            |protocol, payload: Vec<u8>| gate.admit(&inbound(is_v6, protocol, &payload), NOW);
        for port in [22, 8_000, 8_050, 8_100] {
            assert_eq!(admit(TCP, tcp(40_000, port, SYN)), Ok(()), "{port}");
        }
        for port in [0, 21, 23, 53, 7_999, 8_101, u16::MAX] {
            assert_eq!(admit(TCP, tcp(22, port, ACK)), NOTHING, "{port}");
        }
        assert_eq!(admit(UDP, udp(40_000, 53)), Ok(()));
        assert_eq!(admit(UDP, udp(53, 22)), NOTHING);
        assert_eq!(admit(132, vec![0; 40]), NOTHING);
        // Paths are measured with echoes, whatever the rules are; nobody has asked for a reply.
        assert_eq!(admit(icmp(is_v6), echo(is_v6, true, 7)), Ok(()));
        assert_eq!(admit(icmp(is_v6), echo(is_v6, false, 7)), NOTHING);
        // A redirect, and the ICMP of the other family.
        let redirect = if is_v6 { 137 } else { 5 };
        assert_eq!(
            admit(icmp(is_v6), [vec![redirect], vec![0; 40]].concat()),
            NOTHING
        );
        assert_eq!(admit(icmp(!is_v6), echo(!is_v6, true, 7)), NOTHING);
    }
}

#[test]
fn groups_say_from_whom_and_to_whom() {
    let (trainers, stores) = (Groups(0b01), Groups(0b10));
    let only = Rule {
        from: trainers,
        to: stores,
        ..rule(Protocol::Tcp, &[9_000..=9_000])
    };
    let packet = inbound(false, TCP, &tcp(40_000, 9_000, SYN));
    for (own, peer, expected) in [
        (stores, trainers, Ok(())),
        (stores, Groups(0b11), Ok(())),
        (stores, stores, NOTHING),
        (stores, Groups(0), NOTHING),
        (trainers, trainers, NOTHING),
        (Groups(0), trainers, NOTHING),
    ] {
        let mut rules = of(vec![only.clone()], own);
        let mut gate = Gate::new(rules.toward(peer));
        assert_eq!(gate.admit(&packet, NOW), expected, "{own:?} from {peer:?}");
        assert_eq!(rules.passed(), [u64::from(expected.is_ok())]);
    }
}

#[test]
fn the_first_rule_that_opens_a_port_is_the_one_that_counts() {
    let mut rules = of(
        vec![
            rule(Protocol::Tcp, &[100..=200]),
            rule(Protocol::Tcp, &[50..=300, 150..=u16::MAX]),
            rule(Protocol::Any, &[]),
        ],
        Groups(0),
    );
    let mut gate = Gate::new(rules.toward(Groups(0)));
    for (port, rule) in [
        (100, 0),
        (200, 0),
        (99, 1),
        (201, 1),
        (u16::MAX, 1),
        (49, 2),
    ] {
        let before = rules.passed();
        let packet = inbound(false, TCP, &tcp(1, port, SYN));
        assert_eq!(gate.admit(&packet, NOW), Ok(()));
        let counted = rules
            .passed()
            .iter()
            .zip(&before)
            .position(|(now, then)| now > then);
        assert_eq!(counted, Some(rule), "{port}");
    }
}

#[test]
fn answers_come_in_by_what_went_out_and_for_no_longer_than_it_is_used() {
    for is_v6 in [false, true] {
        let mut gate = gate(Vec::new());
        let pairs: [(u8, Vec<u8>, Vec<u8>, u64); 4] = [
            (TCP, tcp(40_000, 80, SYN), tcp(80, 40_000, SYN | ACK), 7_440),
            (UDP, udp(40_000, 53), udp(53, 40_000), 300),
            (icmp(is_v6), echo(is_v6, true, 7), echo(is_v6, false, 7), 60),
            (132, vec![1; 12], vec![2; 12], 600),
        ];
        for (protocol, sent, answer, idle) in pairs {
            let answer = inbound(is_v6, protocol, &answer);
            assert_eq!(gate.admit(&answer, NOW), NOTHING);
            gate.sent(&outbound(is_v6, protocol, &sent), NOW);
            assert_eq!(gate.admit(&answer, NOW), Ok(()));
            // The peer's packets do not keep it open.
            let idle = Duration::from_secs(idle);
            assert_eq!(
                gate.admit(&answer, NOW + idle - Duration::from_secs(1)),
                Ok(())
            );
            assert_eq!(gate.admit(&answer, NOW + idle), NOTHING);
            gate.sent(&outbound(is_v6, protocol, &sent), NOW + idle);
            assert_eq!(gate.admit(&answer, NOW + idle), Ok(()));
        }
        for (protocol, other) in [
            (TCP, tcp(80, 40_001, ACK)),
            (TCP, tcp(81, 40_000, ACK)),
            (UDP, udp(80, 40_000)),
            (icmp(is_v6), echo(is_v6, false, 8)),
        ] {
            assert_eq!(gate.admit(&inbound(is_v6, protocol, &other), NOW), NOTHING);
        }
        let third = ip(host(3, is_v6), own(is_v6), TCP, &tcp(80, 40_000, ACK));
        assert_eq!(
            gate.admit(&third, NOW),
            NOTHING,
            "another address of the peer"
        );
    }
}

#[test]
fn a_connection_that_this_host_ends_is_forgotten_sooner() {
    let mut gate = gate(Vec::new());
    let answer = inbound(false, TCP, &tcp(80, 40_000, ACK));
    let send = |gate: &mut Gate, flags| {
        gate.sent(&outbound(false, TCP, &tcp(40_000, 80, flags)), NOW);
    };
    let later = NOW + Duration::from_secs(240);
    send(&mut gate, SYN);
    assert_eq!(gate.admit(&answer, later), Ok(()));
    send(&mut gate, FIN | ACK);
    send(&mut gate, ACK);
    assert_eq!(gate.admit(&answer, NOW), Ok(()));
    assert_eq!(gate.admit(&answer, later), NOTHING);
    send(&mut gate, SYN);
    assert_eq!(
        gate.admit(&answer, later),
        Ok(()),
        "a new one with the same ports"
    );
}

#[test]
fn a_peer_cannot_fill_the_table() {
    let mut gate = gate(vec![rule(Protocol::Tcp, &[22..=22])]);
    for port in 0..10_000 {
        assert_eq!(
            gate.admit(&inbound(false, TCP, &tcp(port, 22, SYN)), NOW),
            Ok(())
        );
        gate.sent(&outbound(false, TCP, &tcp(22, port, ACK)), NOW);
        gate.sent(&outbound(false, ICMP, &echo(false, false, port)), NOW);
    }
    assert!(format!("{gate:?}").contains("flows: None"), "{gate:?}");
}

/// The flow of a packet to a port of the peer.
fn flow(port: u16) -> Flow {
    let packet = outbound(false, UDP, &udp(40_000, port));
    Flow::opened_by(&Packet::read(&packet).unwrap()).unwrap()
}

#[test]
fn the_table_has_limits_and_the_longest_idle_goes() {
    let room = room();
    let mut flows = Flows::new(Arc::clone(&room));
    let at = |port: u16| NOW + Duration::from_millis(u64::from(port));
    for port in 0..60_000 {
        flows.sent(flow(port), 0, at(port));
        assert!(
            flows.has(&flow(port), at(port)),
            "the newest always has room"
        );
    }
    let live = flows.live(at(60_000));
    assert!(
        (MAX_FLOWS_PER_PEER / 2..=MAX_FLOWS_PER_PEER).contains(&live),
        "{live}"
    );
    // Chance puts more into some sets than into others; the newest hundred are far from that.
    assert!((59_900..60_000).all(|port| flows.has(&flow(port), at(60_000))));
    assert!((0..2_000).all(|port| !flows.has(&flow(port), at(60_000))));
    assert!(room.left() < MAX_FLOWS);
    drop(flows);
    assert_eq!(room.left(), MAX_FLOWS);
}

#[test]
fn without_room_on_the_node_a_peer_has_its_first_places() {
    let room = room();
    let mut all: Vec<Flows> = Vec::new();
    while room.left() > 0 {
        let mut flows = Flows::new(Arc::clone(&room));
        (0..8_000).for_each(|port| flows.sent(flow(port), 0, NOW));
        all.push(flows);
        assert!(all.len() < 100, "every peer takes some");
    }
    let mut last = Flows::new(Arc::clone(&room));
    for port in 0..1_000 {
        last.sent(flow(port), 0, NOW);
        assert!(last.has(&flow(port), NOW));
    }
    assert!(last.live(NOW) <= 32);
}

#[test]
fn a_rule_that_is_taken_away_ends_what_it_allowed_and_nothing_else() {
    let mut gate = gate(vec![rule(Protocol::Tcp, &[22..=22])]);
    let (incoming, answer) = (
        inbound(false, TCP, &tcp(40_000, 22, ACK)),
        inbound(false, TCP, &tcp(80, 50_000, ACK)),
    );
    gate.sent(&outbound(false, TCP, &tcp(22, 40_000, ACK)), NOW);
    gate.sent(&outbound(false, TCP, &tcp(50_000, 80, SYN)), NOW);
    assert_eq!(gate.admit(&incoming, NOW), Ok(()));
    gate.set(with_all_out(Vec::new()));
    assert_eq!(gate.admit(&incoming, NOW), NOTHING);
    assert_eq!(gate.admit(&answer, NOW), Ok(()));
    gate.set(Access::All);
    assert_eq!(gate.admit(&incoming, NOW), Ok(()));
}

#[test]
fn what_this_host_still_sends_on_a_peers_connection_does_not_open_it_again() {
    let (own, peer) = (Groups(1), Groups(2));
    let from_to = |from, to, protocol, port: u16| Rule {
        from,
        to,
        ..rule(protocol, &[port..=port])
    };
    let out = from_to(own, peer, Protocol::Tcp, 80);
    let theirs = [(Protocol::Tcp, 22), (Protocol::Udp, 53)];
    let theirs = theirs.map(|(protocol, port)| from_to(peer, own, protocol, port));
    let all = [&theirs[..], std::slice::from_ref(&out)].concat();
    let access = |rules: &[Rule]| of(rules.to_vec(), own).toward(peer);
    for is_v6 in [false, true] {
        let mut gate = Gate::new(access(&all));
        let packets = [
            (TCP, tcp(40_000, 22, ACK), tcp(22, 40_000, ACK)),
            (UDP, udp(40_000, 53), udp(53, 40_000)),
        ];
        let exchange = |gate: &mut Gate| {
            packets.clone().map(|(protocol, theirs, ours)| {
                gate.sent(&outbound(is_v6, protocol, &ours), NOW);
                gate.admit(&inbound(is_v6, protocol, &theirs), NOW)
            })
        };
        assert_eq!(exchange(&mut gate), [Ok(()); 2]);
        gate.set(access(std::slice::from_ref(&out)));
        assert_eq!(exchange(&mut gate), [NOTHING; 2]);
        // A node that starts anew goes on with its own connections, and with no others.
        let mut gate = Gate::new(access(std::slice::from_ref(&out)));
        assert_eq!(exchange(&mut gate), [NOTHING; 2]);
        let answer = inbound(is_v6, TCP, &tcp(80, 50_000, ACK));
        gate.sent(&outbound(is_v6, TCP, &tcp(50_000, 80, ACK)), NOW);
        assert_eq!(gate.admit(&answer, NOW), Ok(()));
        // The peer may not go on with what this host may open no more.
        gate.set(access(&theirs));
        assert_eq!(gate.admit(&answer, NOW), NOTHING);
        assert_eq!(exchange(&mut gate), [Ok(()); 2]);
        // Measuring a path needs no rule.
        let icmp = icmp(is_v6);
        gate.sent(&outbound(is_v6, icmp, &echo(is_v6, true, 7)), NOW);
        gate.set(access(&[]));
        let reply = inbound(is_v6, icmp, &echo(is_v6, false, 7));
        assert_eq!(gate.admit(&reply, NOW), Ok(()));
    }
}

/// Admins may do everything, and the others may reach one port of theirs.
#[test]
fn nor_does_it_where_another_rule_lets_this_host_send_there() {
    let (own, peer) = (Groups(1), Groups(2));
    let all = Rule {
        from: own,
        to: peer,
        ..rule(Protocol::Any, &[])
    };
    let theirs = [(Protocol::Tcp, 22), (Protocol::Udp, 53)].map(|(protocol, port)| Rule {
        from: peer,
        to: own,
        ..rule(protocol, &[port..=port])
    });
    let access = |rules: &[Rule]| of(rules.to_vec(), own).toward(peer);
    let mut gate = Gate::new(access(&[&theirs[..], std::slice::from_ref(&all)].concat()));
    let exchange = |gate: &mut Gate, now| {
        [
            (TCP, tcp(40_000, 22, ACK), tcp(22, 40_000, ACK)),
            (UDP, udp(40_000, 53), udp(53, 40_000)),
        ]
        .map(|(protocol, theirs, ours)| {
            gate.sent(&outbound(false, protocol, &ours), now);
            gate.admit(&inbound(false, protocol, &theirs), now)
        })
    };
    // Of its own it has one that goes out by the very port, and one that does not.
    let own_flows = [(22, 50_000), (60_000, 80)];
    for (from, to) in own_flows {
        gate.sent(&outbound(false, TCP, &tcp(from, to, SYN)), NOW);
    }
    let own_pass = |gate: &mut Gate, now| {
        own_flows.map(|(from, to)| {
            gate.sent(&outbound(false, TCP, &tcp(from, to, ACK)), now);
            gate.admit(&inbound(false, TCP, &tcp(to, from, ACK)), now)
        })
    };
    assert_eq!(exchange(&mut gate, NOW), [Ok(()); 2]);
    gate.set(access(std::slice::from_ref(&all)));
    // And rules that change nothing here come between.
    gate.set(access(&[all.clone(), all]));
    assert_eq!(exchange(&mut gate, NOW), [NOTHING; 2]);
    assert_eq!(own_pass(&mut gate, NOW), [Ok(()); 2]);
    // Nobody goes on with a datagram that was not answered for so long.
    let later = NOW + Duration::from_secs(301);
    assert_eq!(exchange(&mut gate, later), [NOTHING, Ok(())]);
    assert_eq!(own_pass(&mut gate, later), [Ok(()); 2]);
}

#[test]
fn later_fragments_follow_their_first_and_nobody_elses() {
    for is_v6 in [false, true] {
        let mut gate = gate(vec![rule(Protocol::Udp, &[53..=53])]);
        let piece =
            |payload: &[u8], part| fragment(peer(is_v6), own(is_v6), UDP, payload, Some(part));
        let first = piece(&[udp(1, 53), vec![0; 1_000]].concat(), (5, 0, true));
        let later = piece(&[0; 500], (5, 1_008, false));
        assert_eq!(
            gate.admit(&later, NOW),
            Err(Refusal::Fragment),
            "it came first"
        );
        assert_eq!(gate.admit(&first, NOW), Ok(()));
        assert_eq!(gate.admit(&later, NOW), Ok(()));
        let other = piece(&[0; 500], (6, 1_008, false));
        assert_eq!(gate.admit(&other, NOW), Err(Refusal::Fragment));
        let forbidden = piece(&[udp(1, 54), vec![0; 1_000]].concat(), (6, 0, true));
        assert_eq!(gate.admit(&forbidden, NOW), NOTHING);
        assert_eq!(gate.admit(&other, NOW), Err(Refusal::Fragment));
        let late = NOW + Duration::from_secs(30);
        assert_eq!(gate.admit(&later, late), Err(Refusal::Fragment));
        // The memory is short.
        assert_eq!(gate.admit(&first, NOW), Ok(()));
        for id in 100..131 {
            let first = piece(&[udp(1, 53), vec![0; 8]].concat(), (id, 0, true));
            assert_eq!(gate.admit(&first, NOW), Ok(()));
        }
        assert_eq!(gate.admit(&later, NOW), Ok(()));
        let one_more = piece(&[udp(1, 53), vec![0; 8]].concat(), (200, 0, true));
        assert_eq!(gate.admit(&one_more, NOW), Ok(()));
        assert_eq!(gate.admit(&later, NOW), Err(Refusal::Fragment));
    }
    let mut open = gate(vec![rule(Protocol::Any, &[])]);
    let later = fragment(peer(false), own(false), UDP, &[0; 8], Some((5, 8, false)));
    assert_eq!(open.admit(&later, NOW), Ok(()), "a rule allows all of it");
}

#[test]
fn a_transport_header_in_pieces_is_unreadable() {
    let mut gate = gate(vec![rule(Protocol::Tcp, &[22..=22])]);
    for is_v6 in [false, true] {
        let whole = tcp(1, 22, SYN);
        let tiny = fragment(
            peer(is_v6),
            own(is_v6),
            TCP,
            &whole[..16],
            Some((1, 0, true)),
        );
        assert_eq!(gate.admit(&tiny, NOW), Err(Refusal::Unreadable));
        for len in 0..20 {
            let short = inbound(is_v6, TCP, &whole[..len]);
            assert_eq!(gate.admit(&short, NOW), Err(Refusal::Unreadable), "{len}");
        }
    }
}

#[test]
fn errors_pass_that_quote_what_this_host_has_sent() {
    for is_v6 in [false, true] {
        let mut gate = gate(vec![rule(Protocol::Tcp, &[22..=22])]);
        let admit = |gate: &mut Gate, quoted: &[u8]| {
            // Eight bytes of the transport header are what any error quotes.
            let quoted = &quoted[..quoted.len().min(if is_v6 { 48 } else { 28 })];
            let error = inbound(is_v6, icmp(is_v6), &too_big(is_v6, quoted));
            gate.admit(&error, NOW)
        };
        let stray = Err(Refusal::IcmpError);
        let request = outbound(is_v6, TCP, &tcp(40_000, 80, ACK));
        assert_eq!(admit(&mut gate, &request), stray);
        gate.sent(&request, NOW);
        assert_eq!(admit(&mut gate, &request), Ok(()));
        let answer = outbound(is_v6, TCP, &tcp(22, 40_000, ACK));
        assert_eq!(admit(&mut gate, &answer), Ok(()), "to what a rule allows");
        for not_ours in [
            outbound(is_v6, TCP, &tcp(40_001, 80, ACK)),
            outbound(is_v6, UDP, &udp(40_000, 80)),
            // Not from here, or not to the one that complains.
            inbound(is_v6, TCP, &tcp(40_000, 80, ACK)),
            ip(own(is_v6), host(3, is_v6), TCP, &tcp(22, 40_000, ACK)),
            ip(host(3, is_v6), peer(is_v6), TCP, &tcp(22, 40_000, ACK)),
            fragment(own(is_v6), peer(is_v6), TCP, &[0; 8], Some((1, 8, false))),
            Vec::new(),
        ] {
            assert_eq!(admit(&mut gate, &not_ours), stray, "{not_ours:?}");
        }
    }
}

#[test]
fn extension_headers_are_looked_past_and_too_many_are_unreadable() {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (peer(true), own(true)) else {
        unreachable!()
    };
    let mut gate = gate(vec![rule(Protocol::Tcp, &[22..=22])]);
    let mut admit = |kinds: &[u8], port| {
        let mut payload = tcp(1, port, SYN);
        let mut next = TCP;
        for kind in kinds.iter().rev() {
            let header = match kind {
                44 => vec![next, 0, 0, 0, 0, 0, 0, 9],
                60 => [vec![next, 1], vec![0; 14]].concat(),
                _ => [vec![next, 0], vec![0; 6]].concat(),
            };
            payload = [header, payload].concat();
            next = *kind;
        }
        gate.admit(&v6(from, to, next, &payload), NOW)
    };
    for kinds in [&[0_u8, 43, 60][..], &[0, 60, 43, 44, 60], &[60; 8]] {
        assert_eq!(admit(kinds, 22), Ok(()), "{kinds:?}");
        assert_eq!(admit(kinds, 23), NOTHING, "{kinds:?}");
    }
    for kinds in [&[60; 9][..], &[44, 44]] {
        assert_eq!(admit(kinds, 22), Err(Refusal::Unreadable), "{kinds:?}");
    }
    // Encrypted or authenticated, it is a protocol of its own.
    assert_eq!(admit(&[51], 22), NOTHING);
    assert_eq!(admit(&[50], 22), NOTHING);
}

#[test]
fn counters_go_on_where_the_rules_say_the_same() {
    let rules = |port, own| of(vec![rule(Protocol::Tcp, &[port..=port])], Groups(own));
    let mut before = rules(22, 1);
    let mut gate = Gate::new(before.toward(Groups(0)));
    let packet = inbound(false, TCP, &tcp(1, 22, SYN));
    assert_eq!(gate.admit(&packet, NOW), Ok(()));
    let mut same = rules(22, 1).after(Some(&before));
    gate.set(same.toward(Groups(0)));
    assert_eq!(gate.admit(&packet, NOW), Ok(()));
    assert_eq!(same.passed(), [2]);
    for other in [rules(23, 1), rules(22, 2)] {
        assert_eq!(other.after(Some(&before)).passed(), [0]);
    }
    assert_eq!(rules(22, 1).after(None).passed(), [0]);
}

// ---- at random ------------------------------------------------------------------------------

fn some_rule() -> impl Strategy<Value = Rule> {
    let protocol = prop_oneof![
        1 => Just(Protocol::Any),
        4 => Just(Protocol::Tcp),
        4 => Just(Protocol::Udp),
        2 => Just(Protocol::Icmp),
    ];
    let range = (0_u16..40, 0_u16..12).prop_map(|(first, more)| first..=first + more);
    let ports = proptest::collection::vec(range, 0..4);
    (protocol, ports, 0_u64..4, 0_u64..4).prop_map(|(protocol, ports, from, to)| Rule {
        protocol,
        ports,
        from: Groups(from),
        to: Groups(to),
    })
}

/// Whether any rule allows it, looked up one by one.
fn model(rules: &[Rule], (own, peer): (u64, u64), protocol: Protocol, port: u16) -> bool {
    rules.iter().any(|rule| {
        let means = |named: Groups, groups: u64| named.0 == 0 || named.0 & groups != 0;
        let fits = match rule.protocol {
            Protocol::Any => true,
            Protocol::Icmp => protocol == Protocol::Icmp,
            Protocol::Tcp | Protocol::Udp => {
                let fits = rule.ports.is_empty() || rule.ports.iter().any(|it| it.contains(&port));
                rule.protocol == protocol && fits
            }
        };
        fits && means(rule.from, peer) && means(rule.to, own)
    })
}

proptest! {
    #[test]
    fn gates_agree_with_the_rules_one_by_one(
        rules in proptest::collection::vec(some_rule(), 0..8),
        (own, peer) in (0_u64..4, 0_u64..4),
        is_v6: bool,
    ) {
        let mut compiled = of(rules.clone(), Groups(own));
        let mut gate = Gate::new(compiled.toward(Groups(peer)));
        for port in 0..60 {
            for (protocol, number, payload) in [
                (Protocol::Tcp, TCP, tcp(1, port, SYN)),
                (Protocol::Udp, UDP, udp(1, port)),
                (Protocol::Icmp, icmp(is_v6), echo(is_v6, false, port)),
            ] {
                let passes = gate.admit(&inbound(is_v6, number, &payload), NOW).is_ok();
                prop_assert_eq!(passes, model(&rules, (own, peer), protocol, port));
            }
        }
        let passed: u64 = compiled.passed().iter().sum();
        let expected = (0..60).flat_map(|port| {
            let rules = &rules;
            let all = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp].into_iter();
            all.filter(move |protocol| model(rules, (own, peer), *protocol, port))
        });
        prop_assert_eq!(passed, expected.count() as u64);
    }

    #[test]
    fn an_answer_passes_exactly_if_its_question_went_out(
        sent in proptest::collection::btree_set((0_u16..6, 0_u16..6, any::<bool>()), 0..12),
        is_v6: bool,
    ) {
        let mut gate = gate(Vec::new());
        let header = |is_tcp: bool, from, to| match is_tcp {
            true => (TCP, tcp(from, to, ACK)),
            false => (UDP, udp(from, to)),
        };
        for (from, to, is_tcp) in &sent {
            let (number, payload) = header(*is_tcp, *from, *to);
            gate.sent(&outbound(is_v6, number, &payload), NOW);
        }
        for from in 0..6 {
            for to in 0..6 {
                for is_tcp in [false, true] {
                    let (number, payload) = header(is_tcp, to, from);
                    let passes = gate.admit(&inbound(is_v6, number, &payload), NOW).is_ok();
                    prop_assert_eq!(passes, sent.contains(&(from, to, is_tcp)));
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_let_in_or_not(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        version in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        let mut gate = gate(vec![rule(Protocol::Tcp, &[22..=22])]);
        gate.sent(&bytes, NOW);
        if gate.admit(&bytes, NOW).is_ok() {
            // It can be read, and is no later fragment: nothing has passed before it.
            let packet = Packet::read(&bytes).unwrap();
            let is_other = matches!(packet.part, crate::parse::Part::Whole(Upper::Other(_)));
            prop_assert!(!is_other || packet.source == packet.destination);
        }
    }

    #[test]
    fn what_is_cut_off_never_passes(is_v6: bool, cut in 1_usize..40) {
        let mut gate = gate(vec![rule(Protocol::Any, &[])]);
        for (number, payload) in [(TCP, tcp(1, 22, SYN)), (UDP, udp(1, 22)), (99, vec![0; 60])] {
            let packet = inbound(is_v6, number, &payload);
            let len = packet.len().saturating_sub(cut);
            prop_assert_eq!(gate.admit(&packet[..len], NOW), Err(Refusal::Unreadable));
            prop_assert_eq!(gate.admit(&packet, NOW), Ok(()));
        }
    }
}

/// Networks behind both: 10.1.0.0/16 behind this node, 10.2.0.0/16 behind the peer.
struct Sites;

impl crate::Ends for Sites {
    fn is_peers(&self, address: IpAddr) -> bool {
        address == peer(false) || matches!(address, IpAddr::V4(v4) if v4.octets()[..2] == [10, 2])
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address == own(false)
    }
}

#[test]
fn an_echo_request_to_a_host_behind_this_node_needs_a_rule() {
    let behind = IpAddr::from([10, 1, 0, 5]);
    let request = ip(peer(false), behind, ICMP, &echo(false, true, 7));
    let mut gate = gate(Vec::new());
    let refused = gate.admit_between(&request, &Sites, NOW);
    assert_eq!(refused, Err(Refusal::NoRule));
    let to_node = inbound(false, ICMP, &echo(false, true, 7));
    assert_eq!(gate.admit_between(&to_node, &Sites, NOW), Ok(()));
    let mut open = super::tests::gate(vec![rule(Protocol::Icmp, &[])]);
    assert_eq!(open.admit_between(&request, &Sites, NOW), Ok(()));
}

#[test]
fn a_router_may_complain_of_answers_that_went_to_a_host_behind_it_and_to_no_other() {
    let (client, router) = (IpAddr::from([10, 2, 0, 9]), IpAddr::from([10, 2, 0, 1]));
    let mut gate = gate(vec![rule(Protocol::Tcp, &[22..=22])]);
    // This node answers a client behind the peer on its port 22, and the packet is too big on the way there.
    let answer = |to| ip(own(false), to, TCP, &tcp(22, 4_000, ACK));
    let error = |about: &[u8]| ip(router, own(false), ICMP, &too_big(false, about));
    let about_client = error(&answer(client));
    assert_eq!(gate.admit_between(&about_client, &Sites, NOW), Ok(()));
    let elsewhere = error(&answer([10, 3, 0, 9].into()));
    let refused = gate.admit_between(&elsewhere, &Sites, NOW);
    assert_eq!(refused, Err(Refusal::IcmpError));
    // Without networks behind anybody, only the one that they went to may.
    assert_eq!(gate.admit(&about_client, NOW), Err(Refusal::IcmpError));
}
