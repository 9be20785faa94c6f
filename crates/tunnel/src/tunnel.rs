//! The tunnel: peers, indices and the two ways of a packet, in the order in which a packet meets them.

use crate::allowed_ips::{AllowedIps, PeerId};
use crate::drops::{DropReason, Drops};
use crate::generation::{Forge, Generation};
use crate::initiation::{Claimed, Opener};
use crate::limits::*;
use crate::packet::{self, Message};
use crate::peer::{Peer, PeerSnapshot};
use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use x25519_dalek::{PublicKey, StaticSecret};

/// What a tunnel is made from.
pub struct Config {
    /// This node's WireGuard key.
    pub secret: WgSecret,
    /// MTU of the interface, in bytes: the most that padding may reach.
    pub mtu: usize,
    /// Handshake messages per second above which senders must prove their address with a cookie.
    pub handshakes_per_second: u64,
    /// Seeds the jitter; nothing secret depends on it.
    pub seed: u64,
}

/// A peer as an epoch knows it.
#[derive(Debug, Clone)]
pub struct PeerSpec {
    /// Its WireGuard key.
    pub key: WgPublicKey,
    /// Its addresses inside the mesh.
    pub allowed: Vec<IpAddr>,
}

/// What became of a packet from the TUN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// `len` bytes of the lent buffer are to be sent.
    Send {
        /// Where to.
        to: SocketAddr,
        /// Bytes in the buffer.
        len: usize,
    },
    /// It waits for a session.
    Queued,
    /// It was dropped and counted.
    Dropped(DropReason),
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbound {
    /// `len` bytes of the lent buffer are an inner packet for the TUN device.
    Deliver {
        /// Bytes in the buffer.
        len: usize,
    },
    /// It was a handshake message or a keepalive.
    Consumed,
    /// It was dropped and counted.
    Dropped(DropReason),
}

/// A datagram of the tunnel's own: handshake messages, keepalives, packets that had waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// The datagram.
    pub payload: Vec<u8>,
    pub(crate) peer: Option<PeerId>,
}

/// A change that an operator may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A session is established.
    Handshake {
        /// With whom.
        peer: WgPublicKey,
        /// Of which epoch.
        epoch: Epoch,
        /// Whether this side initiated.
        initiator: bool,
    },
    /// The peer is heard from somewhere else.
    Endpoint {
        /// The peer.
        peer: WgPublicKey,
        /// Its new endpoint.
        endpoint: SocketAddr,
    },
}

/// A WireGuard data plane.
pub struct Tunnel {
    core: Core,
    opener: Opener,
    limiter: RateLimiter,
    limiter_used: Option<Duration>,
    peers: Vec<Option<Peer>>,
    by_key: HashMap<WgPublicKey, PeerId>,
    allowed: AllowedIps,
    next_tick: Option<Duration>,
    /// From when on nothing passes any more.
    closes_at: Option<Duration>,
}

/// What peers and tunnel share.
pub(crate) struct Core {
    pub(crate) forge: Forge,
    pub(crate) mtu: usize,
    pub(crate) drops: Drops,
    pub(crate) handshakes: u64,
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
    /// When which peer's next handshake message is due.
    pub(crate) due: BTreeSet<(Duration, PeerId)>,
}

impl Tunnel {
    /// A tunnel without peers.
    pub fn new(config: Config) -> Self {
        let secret = StaticSecret::from(*config.secret.expose());
        let public = PublicKey::from(&secret);
        let forge = Forge {
            secret: secret.clone(),
            public: config.secret.public(),
            wg: config.secret,
            limiter: Arc::new(RateLimiter::new(&public, u64::MAX)),
            indices: HashMap::new(),
            rng: SmallRng::seed_from_u64(config.seed),
        };
        Self {
            core: Core {
                forge,
                mtu: config.mtu,
                drops: Drops::default(),
                handshakes: 0,
                transmits: VecDeque::new(),
                events: VecDeque::new(),
                due: BTreeSet::new(),
            },
            opener: Opener::new(secret),
            limiter: RateLimiter::new(&public, config.handshakes_per_second),
            limiter_used: None,
            peers: Vec::new(),
            by_key: HashMap::new(),
            allowed: AllowedIps::default(),
            next_tick: None,
            closes_at: None,
        }
    }

    // ---- TUN → UDP --------------------------------------------------------------------------

    /// Takes the inner packet in the first `len` bytes of `buffer` and seals it into `out`. The
    /// bytes of `buffer` behind `len` may be overwritten with padding; 15 of them are enough.
    /// `out` needs the padded length + [`DATA_OVERHEAD`] bytes and at least [`MIN_BUFFER`].
    pub fn handle_tun(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        out: &mut [u8],
        now: Duration,
    ) -> Outbound {
        match self.outbound(buffer, len, out, now) {
            Ok(outbound) => outbound,
            Err(reason) => {
                self.core.drops.count(reason);
                Outbound::Dropped(reason)
            }
        }
    }

    fn outbound(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        out: &mut [u8],
        now: Duration,
    ) -> Result<Outbound, DropReason> {
        self.check_lease(now)?;
        let packet = buffer.get(..len).ok_or(DropReason::TooLarge)?;
        let destination = packet::destination(packet).ok_or(DropReason::Malformed)?;
        let id = self.allowed.get(destination).ok_or(DropReason::NoRoute)?;
        let peer = self
            .peers
            .get_mut(id)
            .and_then(Option::as_mut)
            .ok_or(DropReason::NoRoute)?;
        let to = peer
            .endpoint
            .or(peer.candidates.first().copied())
            .ok_or(DropReason::NoEndpoint)?;

        let padded = packet::padded(len, self.core.mtu).min(buffer.len());
        if out.len() < (padded + DATA_OVERHEAD).max(MIN_BUFFER) {
            return Err(DropReason::TooLarge);
        }
        if let Some(padding) = buffer.get_mut(len..padded) {
            padding.fill(0);
        }
        let plaintext = buffer.get(..padded).ok_or(DropReason::TooLarge)?;
        if let Some(len) = peer.seal(plaintext, len, out, now) {
            return Ok(Outbound::Send { to, len });
        }
        let packet = buffer.get(..len).ok_or(DropReason::TooLarge)?;
        if peer.enqueue(packet, now, &mut self.core) {
            Ok(Outbound::Queued)
        } else {
            Err(DropReason::NoSession)
        }
    }

    // ---- UDP → TUN --------------------------------------------------------------------------

    /// Takes a datagram that came from `from`; an inner packet in it is opened into `out`, which
    /// needs the datagram's length.
    pub fn handle_udp(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Inbound {
        match self.inbound(from, datagram, out, now) {
            Ok(inbound) => inbound,
            Err(reason) => {
                self.core.drops.count(reason);
                Inbound::Dropped(reason)
            }
        }
    }

    fn inbound(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        self.check_lease(now)?;
        match packet::parse_message(datagram).ok_or(DropReason::Malformed)? {
            Message::Data { receiver } => self.data(receiver >> 8, from, datagram, out, now),
            Message::Initiation { sender } => {
                self.admit(from, datagram, now)?;
                self.initiation(sender >> 8, from, datagram, now)
            }
            Message::Response { receiver } => {
                self.admit(from, datagram, now)?;
                self.response(receiver >> 8, from, datagram, now)
            }
            Message::CookieReply { receiver } => self.cookie_reply(receiver >> 8, from, datagram),
        }
    }

    fn data(
        &mut self,
        index: u32,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        if out.len() < datagram.len() {
            return Err(DropReason::TooLarge);
        }
        let (peer, core) = peer_at(&mut self.peers, &mut self.core, index)?;
        let generation = peer.owner_of(index).ok_or(DropReason::UnknownIndex)?;
        let (tunn, unconfirmed) = generation
            .opener_at(index, now)
            .ok_or(DropReason::UnknownIndex)?;
        let (len, source) = match tunn.decapsulate(Some(from.ip()), datagram, out) {
            TunnResult::Done => (0, None),
            TunnResult::WriteToTunnelV4(packet, source) => {
                (packet.len(), Some(IpAddr::from(source)))
            }
            TunnResult::WriteToTunnelV6(packet, source) => {
                (packet.len(), Some(IpAddr::from(source)))
            }
            TunnResult::Err(error) => return Err(reason(&error)),
            TunnResult::WriteToNetwork(_) => return Err(DropReason::Malformed),
        };
        peer.heard(from, len, now, core);
        if unconfirmed {
            peer.confirm(index, false, now, core);
        }
        match source {
            None => Ok(Inbound::Consumed),
            Some(source) if self.allowed.get(source) == Some(peer.id) => {
                Ok(Inbound::Deliver { len })
            }
            Some(_) => Err(DropReason::SourceNotAllowed),
        }
    }

    /// MAC1, and MAC2 while there are too many handshakes (whitepaper, section 5.3).
    fn admit(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Duration,
    ) -> Result<(), DropReason> {
        self.limiter_used.get_or_insert(now);
        let mut cookie = [0; MIN_BUFFER];
        let refused = match self
            .limiter
            .verify_packet(Some(from.ip()), datagram, &mut cookie)
        {
            Ok(_) => return Ok(()),
            Err(refused) => refused,
        };
        match refused {
            TunnResult::WriteToNetwork(reply) => {
                let payload = reply.to_vec();
                self.core.transmits.push_back(Transmit {
                    to: from,
                    payload,
                    peer: None,
                });
                Err(DropReason::UnderLoad)
            }
            TunnResult::Err(error) => Err(reason(&error)),
            _ => Err(DropReason::Malformed),
        }
    }

    fn initiation(
        &mut self,
        index: u32,
        from: SocketAddr,
        datagram: &[u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        let claimed = self
            .opener
            .claim(datagram)
            .ok_or(DropReason::BadHandshake)?;
        let id = *self
            .by_key
            .get(&claimed.sender)
            .ok_or(DropReason::UnknownPeer)?;
        let peer = self
            .peers
            .get_mut(id)
            .and_then(Option::as_mut)
            .ok_or(DropReason::UnknownPeer)?;
        let key = (peer.id, peer.key);
        let generation = choose(peer, &claimed, index, now)?;

        let mut response = [0; MIN_BUFFER];
        let tunn = generation.responder(key, &mut self.core.forge);
        match tunn.decapsulate(Some(from.ip()), datagram, &mut response) {
            TunnResult::WriteToNetwork(message) => {
                let payload = message.to_vec();
                peer.heard(from, 0, now, &mut self.core);
                self.core.transmit(id, from, payload);
                Ok(Inbound::Consumed)
            }
            TunnResult::Err(error) => Err(reason(&error)),
            _ => Err(DropReason::BadHandshake),
        }
    }

    fn response(
        &mut self,
        index: u32,
        from: SocketAddr,
        datagram: &[u8],
        now: Duration,
    ) -> Result<Inbound, DropReason> {
        let (peer, core) = peer_at(&mut self.peers, &mut self.core, index)?;
        let fresh = peer
            .owner_of(index)
            .and_then(|generation| generation.fresh_at(index));
        let mut keepalive = [0; MIN_BUFFER];
        match fresh.ok_or(DropReason::UnknownIndex)?.decapsulate(
            Some(from.ip()),
            datagram,
            &mut keepalive,
        ) {
            TunnResult::WriteToNetwork(message) => {
                let payload = message.to_vec();
                peer.heard(from, 0, now, core);
                core.transmit(peer.id, from, payload);
                peer.confirm(index, true, now, core);
                Ok(Inbound::Consumed)
            }
            TunnResult::Err(error) => Err(reason(&error)),
            _ => Err(DropReason::BadHandshake),
        }
    }

    fn cookie_reply(
        &mut self,
        index: u32,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Inbound, DropReason> {
        let (peer, _) = peer_at(&mut self.peers, &mut self.core, index)?;
        let fresh = peer
            .owner_of(index)
            .and_then(|generation| generation.fresh_at(index));
        match fresh.ok_or(DropReason::UnknownIndex)?.decapsulate(
            Some(from.ip()),
            datagram,
            &mut [0; MIN_BUFFER],
        ) {
            TunnResult::Done => Ok(Inbound::Consumed),
            _ => Err(DropReason::BadHandshake),
        }
    }

    // ---- epochs -----------------------------------------------------------------------------

    /// Prepares `epoch`: gives each peer a generation in the slot `next`, replacing one that was
    /// superseded. Pairs with traffic shake hands within `lead`. Peers whose key is of low order
    /// are left out and returned.
    pub fn install(
        &mut self,
        epoch: Epoch,
        peers: Vec<(PeerSpec, Psk)>,
        lead: Duration,
        now: Duration,
    ) -> Vec<WgPublicKey> {
        let named: HashSet<WgPublicKey> = peers.iter().map(|(spec, _)| spec.key).collect();
        for peer in self
            .peers
            .iter_mut()
            .flatten()
            .filter(|peer| !named.contains(&peer.key))
        {
            if let Some(superseded) = peer.generations.next.take() {
                superseded.retire(&mut self.core.forge);
            }
        }
        let mut refused = Vec::new();
        for (spec, psk) in peers {
            let Some(id) = self.peer_for(&spec) else {
                refused.push(spec.key);
                continue;
            };
            if let Some(peer) = self.peers.get_mut(id).and_then(Option::as_mut) {
                peer.install(Generation::new(epoch, psk), lead, now, &mut self.core);
            }
        }
        self.next_tick.get_or_insert(now + TICK);
        refused
    }

    /// Begins `epoch`: `next → current → previous`. A peer that is not part of it is gone when this
    /// returns: sessions, indices, allowed IPs, queued packets, endpoint. From `closes_at` on the
    /// tunnel carries nothing, even if nobody calls it in time: a machine that slept wakes closed.
    pub fn activate(&mut self, epoch: Epoch, closes_at: Option<Duration>, now: Duration) {
        self.closes_at = closes_at;
        for id in 0..self.peers.len() {
            let Some(peer) = self.peers.get_mut(id).and_then(Option::as_mut) else {
                continue;
            };
            if !peer.activate(epoch, now, &mut self.core) {
                self.remove(id);
            }
        }
    }

    /// Ends the grace: what is left of the epoch before the current one is wiped.
    pub fn discard_previous(&mut self) {
        for peer in self.peers.iter_mut().flatten() {
            peer.discard_previous(&mut self.core);
        }
    }

    /// Drops every peer in one step.
    pub fn clear(&mut self) {
        for id in 0..self.peers.len() {
            self.remove(id);
        }
        self.core.transmits.clear();
        self.next_tick = None;
        self.closes_at = None;
    }

    /// Where a peer is said to be, best first. A place where it was heard stays preferred, unless
    /// it is not among a new list and the peer has no live session.
    pub fn set_endpoints(&mut self, key: &WgPublicKey, endpoints: Vec<SocketAddr>, now: Duration) {
        let Some(peer) = self
            .by_key
            .get(key)
            .and_then(|id| self.peers.get_mut(*id)?.as_mut())
        else {
            return;
        };
        peer.candidates = endpoints;
        peer.candidates.truncate(MAX_ENDPOINTS);
        let has_session = peer.snapshot(now).session_epoch.is_some();
        if peer.endpoint.is_none() || !has_session {
            peer.endpoint = peer.candidates.first().copied();
        }
    }

    // ---- time and outputs -------------------------------------------------------------------

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let due = self.core.due.first().map(|(due, _)| *due);
        let reset = self.limiter_used.map(|used| used + TICK);
        [due, self.next_tick, reset].into_iter().flatten().min()
    }

    /// Does what is due: initiations, renewals, keepalives, expiry.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some((_, id)) = self
            .core
            .due
            .first()
            .copied()
            .filter(|(due, _)| *due <= now)
        {
            match self.peers.get_mut(id).and_then(Option::as_mut) {
                Some(peer) => peer.run_due(now, &mut self.core),
                None => self.core.due.retain(|(_, owner)| *owner != id),
            }
        }
        if self.next_tick.is_some_and(|tick| tick <= now) {
            for peer in self.peers.iter_mut().flatten() {
                peer.tick(now, &mut self.core);
            }
            self.next_tick = (!self.by_key.is_empty()).then_some(now + TICK);
        }
        if self.limiter_used.is_some_and(|used| used + TICK <= now) {
            self.limiter.reset_count();
            self.limiter_used = None;
        }
    }

    /// The next datagram to send besides what [`Self::handle_tun`] sealed.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.core.transmits.pop_front()
    }

    /// The next change to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// Every peer, as observed.
    pub fn snapshot(&self, now: Duration) -> Vec<PeerSnapshot> {
        self.peers
            .iter()
            .flatten()
            .map(|peer| peer.snapshot(now))
            .collect()
    }

    /// The epoch that is in force for a peer, and its PSK: for an operator's explicit export.
    pub fn current_psk(&self, key: &WgPublicKey) -> Option<(Epoch, &Psk)> {
        let peer = self.peers.get(*self.by_key.get(key)?)?.as_ref()?;
        peer.generations.current.as_ref().map(|current| (current.epoch, current.psk()))
    }

    /// Packets that were not carried.
    pub fn drops(&self) -> &Drops {
        &self.core.drops
    }

    /// Handshakes completed since start, both roles.
    pub fn handshakes(&self) -> u64 {
        self.core.handshakes
    }

    // ---- details ----------------------------------------------------------------------------

    fn check_lease(&self, now: Duration) -> Result<(), DropReason> {
        if self.closes_at.is_some_and(|closes_at| closes_at <= now) {
            Err(DropReason::LeaseOver)
        } else {
            Ok(())
        }
    }

    fn peer_for(&mut self, spec: &PeerSpec) -> Option<PeerId> {
        let id = match self.by_key.get(&spec.key) {
            Some(id) => *id,
            None => {
                let shared = self.core.forge.wg.shared_with(&spec.key)?;
                let id = self
                    .peers
                    .iter()
                    .position(Option::is_none)
                    .unwrap_or(self.peers.len());
                let peer = Peer::new(id, spec.key, shared);
                match self.peers.get_mut(id) {
                    Some(slot) => *slot = Some(peer),
                    None => self.peers.push(Some(peer)),
                }
                self.by_key.insert(spec.key, id);
                id
            }
        };
        let peer = self.peers.get_mut(id).and_then(Option::as_mut)?;
        if peer.allowed != spec.allowed {
            peer.allowed.clone_from(&spec.allowed);
            self.allowed.remove_peer(id);
            spec.allowed
                .iter()
                .for_each(|address| self.allowed.insert(*address, id));
        }
        Some(id)
    }

    fn remove(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(id).and_then(Option::take) {
            self.by_key.remove(&peer.key);
            self.allowed.remove_peer(id);
            peer.retire(&mut self.core);
        }
    }
}

impl Core {
    pub(crate) fn transmit(&mut self, peer: PeerId, to: SocketAddr, payload: Vec<u8>) {
        self.transmits.push_back(Transmit {
            to,
            payload,
            peer: Some(peer),
        });
    }
}

/// The generation that an initiation means, its timestamp checked and remembered.
///
/// An index that the PSK determines names its generation, and the timestamp is held against that
/// generation's newest: a stepped wall clock cannot stop a rotation. Any other index is a stock
/// WireGuard's, or a recording: `current` answers, at a bounded rate, and only to a timestamp newer
/// than any that this peer has shown.
fn choose<'a>(
    peer: &'a mut Peer,
    claimed: &Claimed,
    index: u32,
    now: Duration,
) -> Result<&'a mut Generation, DropReason> {
    let timestamp = claimed
        .timestamp(&peer.shared)
        .ok_or(DropReason::BadHandshake)?;
    let newest = peer.newest;
    peer.newest = newest.max(timestamp);
    let key = peer.key;
    let named = peer
        .generations
        .iter_mut()
        .find(|generation| generation.recognises(index, &key))
        .map(|g| g.epoch);
    let generation = match named {
        Some(epoch) => peer
            .generations
            .iter_mut()
            .find(|generation| generation.epoch == epoch),
        None if timestamp <= newest => return Err(DropReason::Replayed),
        None if !peer.stock.take(STOCK_INITIATIONS_PER_SECOND, now) => {
            return Err(DropReason::NoGeneration);
        }
        None => peer.generations.current.as_mut(),
    };
    let generation = generation.ok_or(DropReason::NoGeneration)?;
    if timestamp <= generation.newest {
        return Err(DropReason::Replayed);
    }
    generation.newest = timestamp;
    Ok(generation)
}

fn peer_at<'a>(
    peers: &'a mut [Option<Peer>],
    core: &'a mut Core,
    index: u32,
) -> Result<(&'a mut Peer, &'a mut Core), DropReason> {
    let id = *core
        .forge
        .indices
        .get(&index)
        .ok_or(DropReason::UnknownIndex)?;
    let peer = peers
        .get_mut(id)
        .and_then(Option::as_mut)
        .ok_or(DropReason::UnknownIndex)?;
    Ok((peer, core))
}

fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::DuplicateCounter
        | WireGuardError::InvalidCounter
        | WireGuardError::WrongTai64nTimestamp => DropReason::Replayed,
        WireGuardError::InvalidAeadTag => DropReason::BadAead,
        WireGuardError::InvalidMac => DropReason::BadMac,
        WireGuardError::UnderLoad => DropReason::UnderLoad,
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => DropReason::UnknownIndex,
        WireGuardError::InvalidPacket => DropReason::Malformed,
        _ => DropReason::BadHandshake,
    }
}

/// How often sessions are looked after, and how often the handshake limiter's count starts anew.
const TICK: Duration = Duration::from_secs(1);
