//! Attacks left to a node that was cut off: from everything that it knew while it was a member, and
//! everything that it sent or received. One call of [`Arsenal::strike`] makes the next volley.
//!
//! | Attack | Made of |
//! |---|---|
//! | live data | the sessions that were live at the cut, sealed on as if nothing had happened |
//! | moved | the same from another UDP port |
//! | forged index | the same data for every index that the survivor could be using now |
//! | handshakes | initiations with every PSK that was known, with PSKs made for the new epoch from the old secret, and without any, under the tags of all epochs |
//! | forged tags | those initiations with the sender index of a stock peer and of later epochs |
//! | replays | every datagram sent or received while a member, from both ports, to both survivors |
//! | spoofing | inner packets under another member's address |
//!
//! [`Arsenal::haunt`] is for a node that was readmitted: the sessions of its earlier memberships, and
//! what it recorded then.

use crate::node::{Clock, Count};
use crate::packets::{echo, is_data, is_initiation, with_receiver, with_sender};
use keys::{Epoch, EpochSecret, NodeId, Psk, WgPublicKey, WgSecret};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tunnel::{Event, Inbound, Inside, LoneTunnel, Outbound, Path, PeerSpec, Range, Tunnel};
use wire::Place;

/// Its identity and its place, once enrolled.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) node: NodeId,
    pub(crate) place: Place,
}

/// A PSK that it had, and where the other end is.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) epoch: Epoch,
    pub(crate) member: wire::Member,
    pub(crate) psk: [u8; 32],
    pub(crate) endpoint: Option<SocketAddr>,
}

impl Known {
    /// Its addresses in the mesh.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        [self.member.v4.into(), self.member.v6.into()]
    }
}

/// A datagram and the way that it took.
struct Recording {
    /// The survivor at the other end.
    peer: SocketAddr,
    datagram: Vec<u8>,
}

/// A datagram to send from one of the node's sockets.
pub(crate) struct Shot {
    pub(crate) socket: usize,
    pub(crate) to: SocketAddr,
    pub(crate) datagram: Vec<u8>,
    pub(crate) kind: Count,
}

/// A handshake that somebody answers, perhaps.
struct Lane {
    tunnel: LoneTunnel,
    socket: usize,
    begun: Duration,
}

pub(crate) struct Arsenal {
    pub(crate) scope: Scope,
    pub(crate) wg: WgSecret,
    /// PSKs that were derived while a member, newest epoch first.
    pub(crate) known: Vec<Known>,
    pub(crate) secrets: Vec<(Epoch, [u8; 32])>,
    handshakes: Vec<Recording>,
    data: Vec<Recording>,
    lanes: VecDeque<Lane>,
    round: usize,
}

impl Arsenal {
    pub(crate) fn new(scope: Scope, wg: WgSecret) -> Self {
        Self {
            scope,
            wg,
            known: Vec::new(),
            secrets: Vec::new(),
            handshakes: Vec::new(),
            data: Vec::new(),
            lanes: VecDeque::new(),
            round: 0,
        }
    }

    /// Keeps a datagram that was sent to or came from `peer`.
    pub(crate) fn record(&mut self, peer: SocketAddr, datagram: &[u8]) {
        let datagram = datagram.to_vec();
        let recordings = if is_data(&datagram) {
            &mut self.data
        } else {
            &mut self.handshakes
        };
        recordings.push(Recording { peer, datagram });
    }

    /// The next volley. `frozen` is the tunnel as it was when the node was cut off; `newest` is the
    /// epoch of the newest update that the node has heard of.
    pub(crate) fn strike(&mut self, frozen: &mut Tunnel, newest: Epoch, clock: Clock) -> Vec<Shot> {
        let mut shots = Vec::new();
        self.round += 1;
        let targets = self.targets();
        for (at, target) in targets.iter().enumerate() {
            self.live_data(target, &targets, frozen, newest, clock, &mut shots);
            if (self.round + at).is_multiple_of(HANDSHAKE_ROUNDS) {
                self.handshake(target, newest, clock, &mut shots);
            }
            self.replay(target, &mut shots);
        }
        self.advance(clock, &mut shots);
        shots
    }

    /// The next volley of a node that is a member again, made of its memberships before: new packets
    /// on their sessions, and their recordings.
    pub(crate) fn haunt(&mut self, relics: &mut [LoneTunnel], clock: Clock) -> Vec<Shot> {
        let mut shots = Vec::new();
        self.round += 1;
        let [v4, v6] = self.scope.addresses();
        for target in self.targets() {
            let (to_v4, to_v6) = (target.member.v4.into(), target.member.v6.into());
            for relic in &mut *relics {
                for (from, to) in [(v4, to_v4), (v6, to_v6)] {
                    let packet = echo(from, to, sequence(self.round));
                    let sealed = seal(relic, &packet, clock.now());
                    shots.extend(sealed.map(|(to, datagram)| Shot {
                        socket: self.round % 2,
                        to,
                        datagram,
                        kind: Count::OldSession,
                    }));
                }
            }
            self.replay(&target, &mut shots);
        }
        shots
    }

    /// Offers a datagram from a survivor to every handshake under way; counts what came of it.
    pub(crate) fn hear(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        clock: Clock,
    ) -> (Vec<Shot>, u64, u64) {
        let (mut shots, mut delivered, mut handshakes) = (Vec::new(), 0, 0);
        let mut out = vec![0; datagram.len().max(tunnel::MIN_BUFFER)];
        for lane in &mut self.lanes {
            if let Inbound::Deliver { .. } =
                lane.tunnel
                    .handle_udp(from, datagram, &mut out, clock.now())
            {
                delivered += 1;
            }
            handshakes += lane.flush(&mut shots);
        }
        (shots, delivered, handshakes)
    }

    /// The newest PSK of every survivor whose place is known.
    fn targets(&self) -> Vec<Known> {
        let newest = self.known.first().map(|known| known.epoch);
        let of_newest = self
            .known
            .iter()
            .filter(|known| Some(known.epoch) == newest);
        of_newest
            .filter(|known| known.endpoint.is_some())
            .cloned()
            .collect()
    }

    fn live_data(
        &mut self,
        target: &Known,
        all: &[Known],
        frozen: &mut Tunnel,
        newest: Epoch,
        clock: Clock,
        shots: &mut Vec<Shot>,
    ) {
        let own = self.scope.addresses();
        let others = all
            .iter()
            .filter(|other| other.member.wg != target.member.wg);
        let mut inner: Vec<Vec<u8>> = Vec::new();
        for (own, to) in own
            .iter()
            .zip([IpAddr::V4(target.member.v4), IpAddr::V6(target.member.v6)])
        {
            inner.push(echo(*own, to, sequence(self.round)));
        }
        // Under another member's address: wrong even while this node is a member.
        inner.extend(others.map(|other| {
            echo(
                other.member.v4.into(),
                target.member.v4.into(),
                sequence(self.round),
            )
        }));
        for packet in inner {
            let Some((to, datagram)) = seal(frozen, &packet, clock.now()) else {
                continue;
            };
            let receiver = next_index(target, newest, self.round);
            let stale = u32::from_le_bytes(*datagram[4..].first_chunk().expect("a header"));
            let shot = |socket, datagram, kind| Shot {
                socket,
                to,
                datagram,
                kind,
            };
            shots.push(shot(1, datagram.clone(), Count::LiveData));
            for receiver in [receiver, receiver ^ 1, stale ^ 0x100, stale.rotate_left(7)] {
                shots.push(shot(
                    0,
                    with_receiver(&datagram, receiver),
                    Count::ForgedIndex,
                ));
            }
            shots.push(shot(0, datagram, Count::LiveData));
        }
    }

    /// Begins a handshake with the next combination of PSK and epoch tag.
    fn handshake(&mut self, target: &Known, newest: Epoch, clock: Clock, shots: &mut Vec<Shot>) {
        let Some(endpoint) = target.endpoint else {
            return;
        };
        let turn = self.round / HANDSHAKE_ROUNDS;
        let psks = self.psks(target, newest);
        let (epoch, psk) = &psks[turn % psks.len()];
        let claimed = Epoch(epoch.0 + (turn / psks.len() % 4) as u64);
        let spec = PeerSpec {
            key: target.member.wg,
            allowed: vec![target.member.v4.into(), target.member.v6.into()],
        };
        let mut tunnel = tunnel_of(&self.wg, &self.scope.place, turn as u64);
        tunnel.install(
            claimed,
            vec![(spec, Psk::from_bytes(*psk))],
            Duration::ZERO,
            None,
            clock.now(),
        );
        tunnel.set_endpoints(&target.member.wg, vec![endpoint], clock.now());
        tunnel.activate(claimed, clock.now());
        let own = self.scope.addresses();
        let packet = echo(own[0], target.member.v4.into(), sequence(self.round));
        // The packet waits for the session that never comes.
        let _ = seal(&mut tunnel, &packet, clock.now());
        let mut lane = Lane {
            tunnel,
            socket: turn % 2,
            begun: clock.now(),
        };
        let first = shots.len();
        lane.flush(shots);
        let forged: Vec<Shot> = shots[first..]
            .iter()
            .filter(|shot| is_initiation(&shot.datagram))
            .flat_map(|shot| self.forged_tags(shot, target, newest))
            .collect();
        shots.extend(forged);
        self.lanes.push_back(lane);
    }

    /// PSKs to try with one survivor, with the epoch that each is for.
    fn psks(&self, target: &Known, newest: Epoch) -> Vec<(Epoch, [u8; 32])> {
        let of_target = self
            .known
            .iter()
            .filter(|known| known.member.wg == target.member.wg);
        let mut psks: Vec<_> = of_target
            .take(OLD_EPOCHS)
            .map(|known| (known.epoch, known.psk))
            .collect();
        // The old secret in the schedule of the new epoch, and of the one after.
        if let Some((_, secret)) = self.secrets.first() {
            for epoch in [newest, newest.next()] {
                psks.extend(
                    self.scope
                        .psk(&self.wg, &target.member, *secret, epoch)
                        .map(|psk| (epoch, psk)),
                );
            }
        }
        psks.push((newest, [0; 32]));
        psks
    }

    /// An initiation under the sender index of a stock peer, and of the epochs that are in force now.
    fn forged_tags(&self, shot: &Shot, target: &Known, newest: Epoch) -> Vec<Shot> {
        let Known { psk, .. } = target;
        let bits = Psk::from_bytes(*psk).index_bits(&self.wg.public(), 0) << 2;
        let tags = [newest.0, newest.0 + 1].map(|epoch| (bits | (epoch & 3) as u32) << 8);
        let indices = [
            tags[0],
            tags[1],
            0x0BAD_CAFE_u32.rotate_left(self.round as u32),
        ];
        let forged = indices.map(|index| Shot {
            socket: 1 - shot.socket,
            to: shot.to,
            datagram: with_sender(&shot.datagram, index, &target.member.wg),
            kind: Count::ForgedTag,
        });
        forged.into_iter().collect()
    }

    /// The next few recordings, whoever sent them: handshake messages in turn, and data from the
    /// newest backwards.
    fn replay(&self, target: &Known, shots: &mut Vec<Shot>) {
        let Some(to) = target.endpoint else { return };
        for at in self.round * REPLAYS..(self.round + 1) * REPLAYS {
            let handshake = self
                .handshakes
                .iter()
                .cycle()
                .nth(at % self.handshakes.len().max(1));
            let data = self.data.iter().rev().nth(at % self.data.len().max(1));
            for recording in handshake.into_iter().chain(data) {
                shots.push(Shot {
                    socket: at / 2 % 2,
                    // To whom it went, and to the other one.
                    to: if at.is_multiple_of(2) {
                        recording.peer
                    } else {
                        to
                    },
                    datagram: recording.datagram.clone(),
                    kind: Count::Replay,
                });
            }
        }
    }

    /// Lets handshakes retry, and gives up the oldest.
    fn advance(&mut self, clock: Clock, shots: &mut Vec<Shot>) {
        let now = clock.now();
        self.lanes
            .retain(|lane| now.saturating_sub(lane.begun) < LANE_LIFE);
        for lane in &mut self.lanes {
            lane.tunnel.handle_timeout(now);
            lane.flush(shots);
        }
    }
}

impl Lane {
    /// Takes what the tunnel has to send; returns how many handshakes it has completed.
    fn flush(&mut self, shots: &mut Vec<Shot>) -> u64 {
        while let Some(transmit) = self.tunnel.poll_transmit() {
            let kind = if is_data(&transmit.payload) {
                Count::LiveData
            } else {
                Count::Handshake
            };
            shots.push(Shot {
                socket: self.socket,
                to: by_udp(transmit.to),
                datagram: transmit.payload,
                kind,
            });
        }
        let mut handshakes = 0;
        while let Some(event) = self.tunnel.poll_event() {
            handshakes += u64::from(matches!(event, Event::Handshake { .. }));
        }
        handshakes
    }
}

/// A tunnel of this key in this place, without peers.
pub(crate) fn tunnel_of(wg: &WgSecret, place: &Place, seed: u64) -> LoneTunnel {
    let (v4, v6) = (IpAddr::V4(place.v4.0), IpAddr::V6(place.v6.0));
    LoneTunnel::new(
        10_000,
        tunnel::Config {
            secret: wg.duplicate(),
            mtu: 1420,
            seed,
            inside: Inside {
                own: vec![v4, v6],
                ranges: vec![Range::new(v4, place.v4.1), Range::new(v6, place.v6.1)],
            },
        },
    )
}

/// Where a datagram of the tunnel goes: this node knows no way but UDP.
pub(crate) fn by_udp(Path::Udp(to): Path) -> SocketAddr {
    to
}

/// Seals an inner packet, if there is a session for it.
pub(crate) fn seal(
    tunnel: &mut Tunnel,
    packet: &[u8],
    now: Duration,
) -> Option<(SocketAddr, Vec<u8>)> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + tunnel::PADDING, 0);
    let mut out = vec![0; 2048];
    match tunnel.handle_tun(&mut buffer, packet.len(), &mut out, now) {
        Outbound::Send { to, len } => {
            out.truncate(len);
            Some((by_udp(to), out))
        }
        Outbound::Queued | Outbound::Dropped(_) => None,
    }
}

/// The same on a live session with whoever has `peer` in the mesh, wherever the packet is to go.
pub(crate) fn seal_to(
    tunnel: &Tunnel,
    peer: IpAddr,
    packet: &[u8],
    now: Duration,
) -> Option<(SocketAddr, Vec<u8>)> {
    let mut session = tunnel.sealing(peer, now).ok()??;
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + tunnel::PADDING, 0);
    let mut out = vec![0; 2048];
    let len = session.seal(&mut buffer, packet.len(), &mut out).ok()?;
    out.truncate(len);
    Some((by_udp(session.to()), out))
}

/// A receiver index that the survivor would use with this PSK if `newest` had it.
fn next_index(target: &Known, newest: Epoch, round: usize) -> u32 {
    let variant = (round % usize::from(tunnel::INDEX_VARIANTS)) as u8;
    let bits = Psk::from_bytes(target.psk).index_bits(&target.member.wg, variant);
    (bits << 2 | (newest.0 & 3) as u32) << 8
}

fn sequence(round: usize) -> u16 {
    (round & 0xFFFF) as u16
}

impl Scope {
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        [self.place.v4.0.into(), self.place.v6.0.into()]
    }

    /// The PSK of a pair as the schedule has it for `epoch`, from a secret that may be another's.
    fn psk(
        &self,
        wg: &WgSecret,
        peer: &wire::Member,
        secret: [u8; 32],
        epoch: Epoch,
    ) -> Option<[u8; 32]> {
        let secret = EpochSecret::from_bytes(secret);
        let scope = keys::Scope {
            mesh: self.place.mesh,
            segment: self.place.segment,
            epoch,
        };
        let node_key = |node| secret.node_key(scope, node);
        let (own_key, peer_key) = (node_key(&self.node), node_key(&peer.node));
        let own_wg: WgPublicKey = wg.public();
        let side = |node_key, wg| keys::schedule::Side { node_key, wg };
        let psk = Psk::derive(
            scope,
            &side(&own_key, &own_wg),
            &side(&peer_key, &peer.wg),
            &wg.shared_with(&peer.wg)?,
        );
        Some(*psk.expose())
    }
}

/// A new handshake per survivor this often, in rounds.
const HANDSHAKE_ROUNDS: usize = 3;
/// Epochs before the cut whose PSKs are tried.
const OLD_EPOCHS: usize = 3;
/// Recordings of either kind per survivor and round.
const REPLAYS: usize = 3;
/// Long enough for a few retries of the tunnel's own.
const LANE_LIFE: Duration = Duration::from_secs(2);
