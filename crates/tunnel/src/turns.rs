//! The rules by which threads share a tunnel, held against sinks that note what they are given, in which
//! order, and whether the tunnel was still taken.

use crate::generations::Slot;
use crate::peer::Readiness;
use crate::{
    Carrier, Config, DatagramSink, DropReason, Headers, Inside, LoneTunnel, MAX_QUEUED, Outbound,
    Outer, PacketSink, PacketSource, Path, PeerSpec, Range, Received, TunnelId,
};
use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A datagram was sealed.
    Push,
    /// All sealed datagrams were sent: so many.
    Sent(usize),
    /// One of the tunnel's own was sent, of this type.
    Own(u8),
    /// The deadline has changed.
    Deadline,
    /// This host was told of an error, of this type.
    Refused(u8),
    /// A packet was opened.
    Put,
    /// All opened packets were delivered: so many.
    Delivered(usize),
}

/// Both sinks of one carrier.
struct Notes<'c> {
    carrier: &'c Carrier<LoneTunnel>,
    steps: Vec<Step>,
    room: Vec<u8>,
    /// Sealed and not sent.
    sealed: Rc<Cell<usize>>,
    opened: usize,
}

impl<'c> Notes<'c> {
    fn of(carrier: &'c Carrier<LoneTunnel>) -> Self {
        Self {
            carrier,
            steps: Vec::new(),
            room: vec![0; 2048],
            sealed: Rc::default(),
            opened: 0,
        }
    }

    /// Nobody else may have the tunnel while anything is under way.
    fn note(&mut self, step: Step) {
        assert!(self.carrier.is_taken(), "{step:?}");
        self.steps.push(step);
    }
}

impl DatagramSink for Notes<'_> {
    fn room(&mut self, _: Outer, _: usize) -> &mut [u8] {
        &mut self.room
    }

    fn push(&mut self, _: usize) {
        self.sealed.set(self.sealed.get() + 1);
        self.note(Step::Push);
    }

    fn flush(&mut self) {
        let sealed = self.sealed.take();
        if sealed > 0 {
            self.note(Step::Sent(sealed));
        }
    }

    fn send(&mut self, _: Outer, datagram: &[u8]) {
        self.note(Step::Own(datagram[0]));
    }

    fn refuse(&mut self, error: &[u8]) {
        self.note(Step::Refused(error[20]));
    }

    fn deadline_changed(&mut self) {
        self.note(Step::Deadline);
    }
}

impl PacketSink for Notes<'_> {
    fn put(&mut self, _: TunnelId, _: &[u8], _: std::ops::Range<usize>) {
        self.opened += 1;
        self.note(Step::Put);
    }

    fn flush(&mut self, _: &mut [u8]) {
        let opened = std::mem::take(&mut self.opened);
        if opened > 0 {
            self.note(Step::Delivered(opened));
        }
    }
}

/// So many packets that are alike.
pub(crate) struct Packets(pub(crate) Vec<u8>, pub(crate) usize);

impl PacketSource for Packets {
    fn next(&mut self) -> Option<(&mut [u8], usize)> {
        self.1 = self.1.checked_sub(1)?;
        Some((&mut self.0, LEN))
    }

    fn remaining(&self) -> usize {
        self.1
    }
}

pub(crate) struct Node {
    pub(crate) door: LoneTunnel,
    pub(crate) key: WgPublicKey,
    host: u8,
}

impl Node {
    pub(crate) fn new(host: u8) -> Self {
        let secret = secret_of(host);
        Self {
            key: secret.public(),
            door: LoneTunnel::new(
                1_000,
                Config {
                    secret,
                    mtu: 1420,
                    seed: 1,
                    inside: Inside {
                        own: vec![inner(host).into()],
                        ranges: vec![Range::new(inner(0).into(), 24)],
                    },
                },
            ),
            host,
        }
    }

    pub(crate) fn begin(&mut self, epoch: u64, peers: &[(WgPublicKey, u8)], now: Duration) {
        let specs = peers.iter().map(|(key, host)| {
            let allowed = vec![inner(*host).into()];
            let spec = PeerSpec { key: *key, allowed };
            (spec, Psk::from_bytes([epoch as u8; 32]))
        });
        let door = &mut self.door;
        door.install(Epoch(epoch), specs.collect(), Duration::ZERO, None, now);
        for (key, host) in peers {
            door.set_endpoints(key, [outer(*host)], now);
        }
        door.activate(Epoch(epoch), now);
    }

    pub(crate) fn seal_for(&mut self, host: u8, now: Duration) -> Option<Vec<u8>> {
        let (mut packet, mut out) = (packet(self.host, host), vec![0; 256]);
        let outbound = self.door.handle_tun(&mut packet, LEN, &mut out, now);
        let Outbound::Send { len, .. } = outbound else {
            return None;
        };
        out.truncate(len);
        Some(out)
    }

    fn datagrams(&mut self) -> Vec<Vec<u8>> {
        let transmits = std::iter::from_fn(|| self.door.poll_transmit());
        transmits.map(|transmit| transmit.payload).collect()
    }
}

/// The same in every run, so that the same side leads.
fn secret_of(host: u8) -> WgSecret {
    let letter = ["A", "E", "I", "M", "Q"][usize::from(host)];
    WgSecret::from_base64(&(letter.repeat(43) + "=")).expect("32 bytes")
}

pub(crate) fn inner(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host)
}

pub(crate) fn outer(host: u8) -> Path {
    Path::Udp(([192, 0, 2, host], 51_820).into())
}

pub(crate) fn packet(from: u8, to: u8) -> Vec<u8> {
    let mut packet = vec![0; LEN + 16];
    packet[0] = 0x45;
    packet[3] = LEN as u8;
    packet[12..16].copy_from_slice(&inner(from).octets());
    packet[16..20].copy_from_slice(&inner(to).octets());
    packet
}

/// Two nodes with a session, and a peer of the first that nobody answers for.
pub(crate) fn pair() -> (Node, Node) {
    let (mut one, mut two) = (Node::new(1), Node::new(2));
    let silent = secret_of(3).public();
    one.begin(1, &[(two.key, 2), (silent, 3)], NOW);
    two.begin(1, &[(one.key, 1)], NOW);
    assert_eq!(one.seal_for(2, NOW), None, "it waits for a session");
    for _ in 0..3 {
        for (from, to) in [(0, 1), (1, 0)] {
            let nodes = [&mut one, &mut two];
            let place = outer(nodes[from].host);
            let datagrams = nodes.map(|node| node.datagrams());
            let to = if to == 0 { &mut one } else { &mut two };
            for datagram in &datagrams[from] {
                to.door.handle_udp(place, datagram, &mut [0; 256], NOW);
            }
        }
    }
    let is_live = |node: &Node| node.door.snapshot(NOW)[0].session_epoch.is_some();
    assert!(is_live(&one) && is_live(&two));
    (one, two)
}

/// Hands a carrier a batch of datagrams, and returns what its sinks noted.
fn receive(carrier: &Carrier<LoneTunnel>, batch: &[Vec<u8>], now: Duration) -> Vec<Step> {
    let datagrams = batch.concat();
    let mut at = 0;
    let each = batch.iter().map(|datagram| {
        at += datagram.len();
        (outer(1), at - datagram.len()..at)
    });
    let each: Vec<_> = each.collect();
    let received = Received {
        datagrams: &datagrams,
        plain: &mut vec![0; datagrams.len()],
        each: each.into_iter(),
    };
    let mut notes = Notes::of(carrier);
    carrier.receive(received, &mut Headers::default(), &mut notes, || now);
    assert!(!carrier.is_taken());
    notes.steps
}

#[test]
fn whether_a_peer_can_be_sent_to_follows_its_sessions_and_what_is_under_way() {
    let (mut one, two) = pair();
    let later = NOW + Duration::from_secs(1);
    let of = |node: &Node, host: u8| {
        let (door, inner) = (&node.door, inner(host).into());
        let peer = door.allowed.get(inner).and_then(|id| door.peers.lock(id));
        peer.expect("a peer").readiness(later)
    };
    assert_eq!(of(&one, 2), Readiness::Ready(Slot::Current));
    assert_eq!(of(&one, 3), Readiness::Wait);
    for _ in 0..MAX_QUEUED {
        assert_eq!(of(&one, 3), Readiness::Wait);
        one.seal_for(3, later);
    }
    let full = Readiness::Drop(DropReason::NoSession);
    assert_eq!(of(&one, 3), full, "and a handshake is under way");
    // An epoch without lead: the session of before carries, and a packet asks for a new one.
    one.begin(2, &[(two.key, 2)], NOW);
    let peer = one.door.allowed.get(inner(2).into()).expect("a peer");
    let peer = one.door.peers.get_mut(peer).expect("a peer");
    peer.generations
        .current
        .as_mut()
        .expect("an epoch")
        .give_up();
    assert_eq!(of(&one, 2), Readiness::Hurry(Slot::Previous(0)));
    assert!(one.seal_for(2, later).is_some());
    assert_eq!(of(&one, 2), Readiness::Ready(Slot::Previous(0)));
    // Known before its epoch begins, and without any: there is nothing to wait for.
    let mut three = Node::new(4);
    let spec = PeerSpec {
        key: two.key,
        allowed: vec![inner(2).into()],
    };
    let peers = vec![(spec, Psk::from_bytes([1; 32]))];
    three
        .door
        .install(Epoch(1), peers, Duration::ZERO, None, NOW);
    assert_eq!(of(&three, 2), full);
}

#[test]
fn a_turn_has_sent_all_that_it_sealed_when_it_gives_the_tunnel_back() {
    let (one, _) = pair();
    let carrier = Carrier::new(one.door);
    let mut notes = Notes::of(&carrier);
    let mut turn = carrier.turn(TunnelId::FIRST, &mut notes);
    let to = Some(inner(2).into());
    turn.send(to, &mut Packets(packet(1, 2), 2), || NOW);
    turn.send(to, &mut Packets(packet(1, 2), 1), || NOW);
    drop(turn);
    let expected = [Step::Push, Step::Push, Step::Push, Step::Sent(3)];
    assert_eq!(notes.steps, expected, "and nobody is told of a deadline");
    assert!(!carrier.is_taken());
}

#[test]
fn before_a_turn_takes_the_tunnel_alone_all_is_sent_and_afterwards_the_sleeper_is_told() {
    let (one, _) = pair();
    let carrier = Carrier::new(one.door);
    let mut notes = Notes::of(&carrier);
    let (unsent, seen) = (Rc::clone(&notes.sealed), RefCell::new(Vec::new()));
    // The time is asked for whenever the tunnel has just been taken, shared or alone.
    let clock = || {
        seen.borrow_mut().push(unsent.get());
        NOW
    };
    let mut turn = carrier.turn(TunnelId::FIRST, &mut notes);
    for host in [2, 3, 2] {
        let to = Some(inner(host).into());
        turn.send(to, &mut Packets(packet(1, host), 2), clock);
    }
    drop(turn);
    assert_eq!(seen.take(), [0, 2, 0, 0], "nothing is kept for the third");
    let live = [Step::Push, Step::Push, Step::Sent(2)];
    let alone = [Step::Own(INITIATION), Step::Deadline];
    assert_eq!(notes.steps, [&live[..], &alone, &live].concat());
}

#[test]
fn packets_of_a_batch_are_delivered_before_the_tunnel_is_given_back_and_handshakes_go_first() {
    let (mut one, mut two) = pair();
    let later = NOW + Duration::from_secs(1);
    let data = [(); 2].map(|()| one.seal_for(2, NOW).expect("a session"));
    one.begin(2, &[(two.key, 2)], NOW);
    two.begin(2, &[(one.key, 1)], NOW);
    one.seal_for(2, NOW);
    one.door.handle_timeout(later);
    let initiation = one.datagrams().pop().expect("it is wanted");
    assert_eq!(initiation[0], INITIATION);
    let carrier = Carrier::new(two.door);
    let [first, second] = data;
    let steps = receive(&carrier, &[first, initiation, second], later);
    let steps: Vec<_> = steps
        .into_iter()
        .filter(|it| *it != Step::Deadline)
        .collect();
    let opened = [Step::Put, Step::Put, Step::Delivered(2)];
    assert_eq!(steps, [&[Step::Own(RESPONSE)], &opened[..]].concat());
}

#[test]
fn data_that_confirms_a_handshake_is_delivered_before_the_tunnel_is_given_back() {
    let (mut one, mut two) = pair();
    let later = NOW + Duration::from_secs(1);
    one.begin(2, &[(two.key, 2)], NOW);
    two.begin(2, &[(one.key, 1)], NOW);
    one.seal_for(2, NOW);
    one.door.handle_timeout(later);
    for datagram in one.datagrams() {
        two.door
            .handle_udp(outer(1), &datagram, &mut [0; 256], later);
    }
    for datagram in two.datagrams() {
        one.door
            .handle_udp(outer(2), &datagram, &mut [0; 256], later);
    }
    // Its keepalive is lost: the first packet tells that the handshake is done.
    let _ = one.datagrams();
    let data = one.seal_for(2, later).expect("a session");
    let before = two.door.handshakes();
    let carrier = Carrier::new(two.door);
    let steps = receive(&carrier, &[data], later);
    assert_eq!(carrier.read().handshakes(), before + 1);
    assert_eq!(steps[..2], [Step::Put, Step::Delivered(1)]);
}

#[test]
fn a_peer_that_was_removed_between_two_turns_is_sent_nothing_and_heard_no_more() {
    let (mut one, mut two) = pair();
    let in_flight = one.seal_for(2, NOW).expect("a session");
    let sealed = two.seal_for(1, NOW).expect("a session");
    let carrier = Carrier::new(two.door);
    assert_eq!(
        receive(&carrier, &[in_flight], NOW),
        [Step::Put, Step::Delivered(1)]
    );
    let next = one.seal_for(2, NOW).expect("a session");
    let mut tunnel = carrier.write();
    tunnel.install(Epoch(2), Vec::new(), Duration::ZERO, None, NOW);
    tunnel.activate(Epoch(2), NOW);
    drop(tunnel);
    assert_eq!(receive(&carrier, &[next], NOW), []);
    let mut notes = Notes::of(&carrier);
    let mut packets = Packets(packet(2, 1), 3);
    carrier
        .turn(TunnelId::FIRST, &mut notes)
        .send(Some(inner(1).into()), &mut packets, || NOW);
    assert_eq!(notes.steps, [Step::Refused(DESTINATION_UNREACHABLE)]);
    assert!(!sealed.is_empty() && carrier.read().indices().all().is_empty());
}

pub(crate) const NOW: Duration = Duration::from_secs(1_000);
/// Bytes of a packet.
pub(crate) const LEN: usize = 64;
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const DESTINATION_UNREACHABLE: u8 = 3;
