//! Two tunnels behind one door: what is in the one never comes out of the other, and what happens to the one
//! costs the other nothing.

use crate::{
    Carrier, Config, DatagramSink, DropReason, FrontDoor, Headers, Inbound, Inside, MAX_TUNNELS,
    MIN_BUFFER, OpenError, Outbound, Outer, PacketSink, Path, PeerSpec, Range, Received, TunnelId,
};
use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Three nodes: the first two share segment 0, the last two segment 1.
struct Mesh {
    nodes: [Node; 3],
    epochs: [u64; 2],
    now: Duration,
}

struct Node {
    door: FrontDoor,
    /// By segment.
    tunnels: [Option<(TunnelId, WgPublicKey)>; 2],
}

const MEMBERS: [[usize; 2]; 2] = [[0, 1], [1, 2]];
/// The node that is in both.
const BOTH: usize = 1;

fn inner(segment: usize, node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, segment as u8, 0, node as u8 + 1)
}

fn outer(node: usize) -> Path {
    Path::Udp(([192, 0, 2, node as u8 + 1], 51_820).into())
}

/// The same in every run; another for each number below 64.
fn secret(number: usize) -> WgSecret {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = &DIGITS[number..=number];
    WgSecret::from_base64(&format!("AA{digit}{}=", "A".repeat(40))).expect("32 bytes")
}

fn config(segment: usize, node: usize) -> Config {
    Config {
        secret: secret(segment * 3 + node),
        mtu: 1420,
        seed: 1,
        inside: Inside {
            own: vec![inner(segment, node).into()],
            ranges: vec![Range::new(inner(segment, 0).into(), 24)],
        },
    }
}

fn packet(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0; LEN + 16];
    packet[0] = 0x45;
    packet[3] = LEN as u8;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet
}

impl Mesh {
    fn new() -> Self {
        let nodes = [0, 1, 2].map(|node| {
            let mut door = FrontDoor::new(1_000);
            let tunnels = [0, 1].map(|segment| {
                MEMBERS[segment].contains(&node).then(|| {
                    let config = config(segment, node);
                    let key = config.secret.public();
                    (door.open(config).unwrap(), key)
                })
            });
            Node { door, tunnels }
        });
        let mut mesh = Self {
            nodes,
            epochs: [0; 2],
            now: Duration::from_secs(1_000),
        };
        mesh.rotate(0);
        mesh.rotate(1);
        mesh.settle();
        mesh
    }

    /// Begins another epoch of a segment, without lead.
    fn rotate(&mut self, segment: usize) {
        self.epochs[segment] += 1;
        let epoch = self.epochs[segment];
        let now = self.now;
        let [one, other] = MEMBERS[segment];
        for (own, peer) in [(one, other), (other, one)] {
            let Some((_, key)) = self.nodes[peer].tunnels[segment] else {
                continue;
            };
            let allowed = vec![inner(segment, peer).into()];
            let psk = Psk::from_bytes([epoch as u8 ^ (segment as u8) << 7; 32]);
            let Some(tunnel) = self.nodes[own].tunnel(segment) else {
                continue;
            };
            let specs = vec![(PeerSpec { key, allowed }, psk)];
            tunnel.install(Epoch(epoch), specs, Duration::ZERO, None, now);
            tunnel.set_endpoints(&key, [outer(peer)], now);
            tunnel.activate(Epoch(epoch), now);
        }
    }

    /// Carries the tunnels' own datagrams until there are none, for a second and a half.
    fn settle(&mut self) {
        for _ in 0..15 {
            self.pass(Duration::from_millis(100));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        self.nodes
            .iter_mut()
            .for_each(|it| it.door.handle_timeout(now));
        for _ in 0..8 {
            for from in 0..3 {
                while let Some(transmit) = self.nodes[from].door.poll_transmit() {
                    self.deliver(from, transmit.to, &transmit.payload);
                }
            }
        }
    }

    fn deliver(&mut self, from: usize, to: Path, datagram: &[u8]) {
        let to = (0..3).find(|node| outer(*node) == to).unwrap();
        let mut out = vec![0; datagram.len().max(MIN_BUFFER)];
        let door = &mut self.nodes[to].door;
        door.handle_udp(outer(from), datagram, &mut out, self.now);
    }

    /// Seals a packet that is read from the device of a segment.
    fn seal(
        &mut self,
        segment: usize,
        node: usize,
        mut packet: Vec<u8>,
    ) -> Result<Vec<u8>, DropReason> {
        let now = self.now;
        let mut out = vec![0; 256];
        let tunnel = self.nodes[node].tunnel(segment).unwrap();
        match tunnel.handle_tun(&mut packet, LEN, &mut out, now) {
            Outbound::Send { len, .. } => {
                out.truncate(len);
                Ok(out)
            }
            Outbound::Dropped(reason) => Err(reason),
            Outbound::Queued => panic!("there is a session"),
        }
    }

    /// Takes a datagram at a node as its data threads do; for which tunnels' devices there were packets.
    fn take(&mut self, node: usize, from: usize, datagrams: &[Vec<u8>]) -> Vec<TunnelId> {
        let bytes = datagrams.concat();
        let mut at = 0;
        let each = datagrams.iter().map(|datagram| {
            at += datagram.len();
            (outer(from), at - datagram.len()..at)
        });
        let each: Vec<_> = each.collect();
        let received = Received {
            datagrams: &bytes,
            plain: &mut vec![0; bytes.len()],
            each: each.into_iter(),
        };
        let door = std::mem::replace(&mut self.nodes[node].door, FrontDoor::new(1));
        let carrier = Carrier::new(door);
        let mut devices = Devices(Vec::new());
        carrier.receive(received, &mut Headers::default(), &mut devices, || self.now);
        std::mem::swap(&mut self.nodes[node].door, &mut *carrier.write());
        devices.0
    }

    fn dropped(&mut self, node: usize, segment: usize, reason: DropReason) -> u64 {
        self.nodes[node]
            .tunnel(segment)
            .unwrap()
            .drops()
            .get(reason)
    }

    /// Whether a packet passes between the two members of a segment, each way.
    fn passes(&mut self, segment: usize) -> bool {
        let [one, other] = MEMBERS[segment];
        [(one, other), (other, one)].into_iter().all(|(from, to)| {
            let whole = packet(inner(segment, from), inner(segment, to));
            let sealed = self.seal(segment, from, whole).expect("a session");
            let tunnel = self.nodes[to].tunnels[segment].unwrap().0;
            self.take(to, from, &[sealed]) == [tunnel]
        })
    }
}

impl Node {
    fn tunnel(&mut self, segment: usize) -> Option<&mut crate::Tunnel> {
        self.door.tunnel_mut(self.tunnels[segment]?.0)
    }
}

/// The devices of the tunnels that packets were put to.
struct Devices(Vec<TunnelId>);

impl PacketSink for Devices {
    fn put(&mut self, tunnel: TunnelId, _: &[u8], _: std::ops::Range<usize>) {
        self.0.push(tunnel);
    }

    fn flush(&mut self, _: &mut [u8]) {}
}

impl DatagramSink for Devices {
    fn room(&mut self, _: Outer, _: usize) -> &mut [u8] {
        &mut []
    }

    fn push(&mut self, _: usize) {}

    fn flush(&mut self) {}

    fn send(&mut self, _: Outer, _: &[u8]) {}

    fn refuse(&mut self, _: &[u8]) {}

    fn deadline_changed(&mut self) {}
}

#[test]
fn packets_of_each_segment_come_out_at_its_own_device_even_from_one_batch() {
    let mut mesh = Mesh::new();
    assert!(mesh.passes(0) && mesh.passes(1));
    let [(first, _), (second, _)] = mesh.nodes[BOTH].tunnels.map(Option::unwrap);
    assert_ne!(first, second);
    let of_first = packet(inner(0, 0), inner(0, BOTH));
    let of_second = packet(inner(1, 2), inner(1, BOTH));
    let batch = [(0, 0, &of_first), (1, 2, &of_second)].repeat(2);
    let batch = batch
        .into_iter()
        .map(|(segment, node, packet)| mesh.seal(segment, node, packet.clone()).unwrap());
    let batch: Vec<_> = batch.collect();
    assert_eq!(mesh.take(BOTH, 0, &batch), [first, second, first, second]);
}

#[test]
fn a_member_of_one_segment_can_seal_nothing_that_comes_out_in_the_other() {
    let mut mesh = Mesh::new();
    // Its source is an address of the other segment's member, its destination this node's there or here.
    for (to, is_own) in [(inner(0, BOTH), true), (inner(1, BOTH), false)] {
        let before = mesh.dropped(BOTH, 0, DropReason::SourceNotAllowed);
        let forged = mesh.seal_forged(packet(inner(1, 2), to));
        assert_eq!(mesh.take(BOTH, 0, &[forged]), [], "{is_own}");
        let after = mesh.dropped(BOTH, 0, DropReason::SourceNotAllowed);
        assert_eq!(after, before + 1);
    }
    // Its own source, and a destination in the other segment: this node's address there, and its member's.
    for to in [inner(1, BOTH), inner(1, 2)] {
        let before = mesh.dropped(BOTH, 0, DropReason::DestinationNotAllowed);
        let crossing = mesh.seal_forged(packet(inner(0, 0), to));
        assert_eq!(mesh.take(BOTH, 0, &[crossing]), []);
        let after = mesh.dropped(BOTH, 0, DropReason::DestinationNotAllowed);
        assert_eq!(after, before + 1);
    }
    assert_eq!(mesh.dropped(BOTH, 1, DropReason::SourceNotAllowed), 0);
}

impl Mesh {
    /// Has node 0 seal any packet for the node that is in both segments, as one could that breaks the rules.
    fn seal_forged(&mut self, mut packet: Vec<u8>) -> Vec<u8> {
        let now = self.now;
        let tunnel = self.nodes[0].tunnel(0).unwrap();
        let mut sealing = tunnel.sealing(inner(0, BOTH).into(), now).unwrap().unwrap();
        let mut out = vec![0; 256];
        let len = sealing.seal(&mut packet, LEN, &mut out).unwrap();
        out.truncate(len);
        out
    }
}

#[test]
fn a_packet_from_the_device_of_one_segment_finds_no_way_into_the_other() {
    let mut mesh = Mesh::new();
    for source in [inner(0, BOTH), inner(1, BOTH), inner(0, 0)] {
        let sealed = mesh.seal(0, BOTH, packet(source, inner(1, 2)));
        assert_eq!(sealed, Err(DropReason::NoRoute));
    }
}

#[test]
fn a_recording_of_one_segment_is_nothing_in_the_other_whoever_sends_it() {
    let mut mesh = Mesh::new();
    let sealed = mesh
        .seal(0, 0, packet(inner(0, 0), inner(0, BOTH)))
        .unwrap();
    // To the node that is in the other segment alone.
    assert_eq!(mesh.take(2, 0, std::slice::from_ref(&sealed)), []);
    let door = &mesh.nodes[2].door;
    assert_eq!(door.drops().get(DropReason::UnknownIndex), 1);
    assert_eq!(mesh.take(BOTH, 0, &[sealed]).len(), 1);
}

#[test]
fn an_initiation_goes_to_the_tunnel_for_whose_key_it_was_made_and_to_no_other() {
    let mut mesh = Mesh::new();
    // Node 0 makes one for the key of the segment that it is not in: its own key is no peer there.
    let (_, key) = mesh.nodes[BOTH].tunnels[1].unwrap();
    let from = secret(STRANGER);
    let stamp = crate::initiation::Timestamp::default().later_by(1);
    let initiation = crate::initiation::sealed(&from, &key, 7, stamp);
    let handled =
        mesh.nodes[BOTH]
            .door
            .handle_udp(outer(0), &initiation, &mut [0; MIN_BUFFER], mesh.now);
    assert_eq!(handled, Inbound::Dropped(DropReason::UnknownPeer));
    assert_eq!(mesh.dropped(BOTH, 0, DropReason::UnknownPeer), 0);
    assert_eq!(mesh.dropped(BOTH, 1, DropReason::UnknownPeer), 1);
    // For nobody's key, no tunnel counts it.
    let nobody = secret(NOBODY).public();
    let stray = crate::initiation::sealed(&from, &nobody, 7, stamp);
    let door = &mut mesh.nodes[BOTH].door;
    let handled = door.handle_udp(outer(0), &stray, &mut [0; MIN_BUFFER], mesh.now);
    assert_eq!(handled, Inbound::Dropped(DropReason::BadMac));
    assert_eq!(door.drops().get(DropReason::BadMac), 1);
}

#[test]
fn two_tunnels_do_not_double_what_a_stranger_may_have_opened() {
    let opened = |tunnels: usize| {
        let mut door = FrontDoor::new(1_000);
        let keys = [0, 1].map(|segment| {
            let config = config(segment, 0);
            let key = config.secret.public();
            if segment < tunnels {
                door.open(config).unwrap();
            }
            key
        });
        let from = secret(STRANGER);
        let stamp = crate::initiation::Timestamp::default().later_by(1);
        let now = Duration::from_secs(1_000);
        let messages: Vec<_> = keys[..tunnels]
            .iter()
            .map(|key| crate::initiation::sealed(&from, key, 7, stamp))
            .collect();
        let tried = (0..200).flat_map(|_| &messages);
        let handled =
            tried.map(|message| door.handle_udp(outer(0), message, &mut [0; MIN_BUFFER], now));
        // One that is opened is found to be no peer's.
        handled
            .filter(|it| *it == Inbound::Dropped(DropReason::UnknownPeer))
            .count()
    };
    assert!(opened(1) > 0);
    assert_eq!(opened(2), opened(1));
}

#[test]
fn one_segment_that_rotates_every_second_costs_the_other_no_packet_and_no_handshake() {
    let mut mesh = Mesh::new();
    let handshakes = mesh.nodes[BOTH].tunnel(1).unwrap().handshakes();
    for _ in 0..20 {
        mesh.rotate(0);
        for _ in 0..10 {
            assert!(mesh.passes(1));
            mesh.pass(Duration::from_millis(100));
        }
        assert!(mesh.passes(0), "it is carried on as well");
    }
    let after = mesh.nodes[BOTH].tunnel(1).unwrap().handshakes();
    assert_eq!(after, handshakes);
    assert!(mesh.nodes[BOTH].tunnel(0).unwrap().handshakes() > 15);
}

#[test]
fn a_tunnel_that_is_closed_is_gone_at_once_and_the_other_does_not_notice() {
    let mut mesh = Mesh::new();
    let on_the_way = mesh
        .seal(0, 0, packet(inner(0, 0), inner(0, BOTH)))
        .unwrap();
    let (closed, _) = mesh.nodes[BOTH].tunnels[0].unwrap();
    let door = &mut mesh.nodes[BOTH].door;
    let before = door.tunnel(closed).unwrap().traffic();
    door.close(closed);
    assert!(door.tunnel(closed).is_none());
    assert_eq!(door.carried_before().0, before, "counts do not go back");
    let left = door.indices().all();
    assert!(!left.is_empty() && left.values().all(|(tunnel, _)| *tunnel != closed));
    assert_eq!(mesh.take(BOTH, 0, &[on_the_way]), []);
    assert!(mesh.passes(1));
    // Opened anew, it is another one: a thread with the old device reaches nothing by it.
    let again = mesh.nodes[BOTH].door.open(config(0, BOTH)).unwrap();
    assert_ne!(again, closed);
}

#[test]
fn what_could_not_be_told_apart_is_not_opened() {
    let mut door = FrontDoor::new(1_000);
    let first = config(0, 0);
    let same_key = Config {
        secret: first.secret.duplicate(),
        ..config(1, 0)
    };
    door.open(first).unwrap();
    assert_eq!(door.open(same_key), Err(OpenError::KeyInUse));
    assert_eq!(door.open(config(0, 1)), Err(OpenError::RangeInUse));
    for segment in 1..MAX_TUNNELS {
        door.open(config(segment, 0)).unwrap();
    }
    assert_eq!(door.open(config(MAX_TUNNELS, 0)), Err(OpenError::TooMany));
}

#[test]
fn the_inside_of_one_segment_is_no_place_for_a_peer_of_the_other() {
    let mut mesh = Mesh::new();
    let now = mesh.now;
    let within = Path::Udp((inner(1, 2), 51_820).into());
    let (_, key) = mesh.nodes[0].tunnels[0].unwrap();
    let tunnel = mesh.nodes[BOTH].tunnel(0).unwrap();
    tunnel.set_endpoints(&key, [within], now);
    assert_eq!(tunnel.snapshot(now)[0].endpoint, Some(outer(0)));
    // One that has no session yet would go wherever it is said to be.
    let key = secret(NOBODY).public();
    let allowed = vec![inner(0, 5).into()];
    let specs = vec![(PeerSpec { key, allowed }, Psk::from_bytes([9; 32]))];
    tunnel.install(Epoch(2), specs, Duration::ZERO, None, now);
    tunnel.set_endpoints(&key, [within], now);
    let seen = tunnel.snapshot(now);
    let newcomer = seen.iter().find(|peer| peer.key == key).unwrap();
    assert_eq!(newcomer.endpoint, None);
    let sealed = mesh
        .seal(0, 0, packet(inner(0, 0), inner(0, BOTH)))
        .unwrap();
    let door = &mut mesh.nodes[BOTH].door;
    let handled = door.handle_udp(within, &sealed, &mut [0; 256], now);
    assert_eq!(handled, Inbound::Dropped(DropReason::EndpointInsideMesh));
}

/// Numbers of keys that no member has.
const STRANGER: usize = 60;
const NOBODY: usize = 61;
/// Bytes of a packet.
const LEN: usize = 64;
