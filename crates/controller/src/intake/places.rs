//! The places: who holds one, and who loses it to whom. An address cannot crowd out others, a stranger cannot
//! crowd out strangers, and nobody crowds out the addresses where enrolled nodes were served.

use super::allowances::{Allowance, Kind};
use super::{Turned, TurnedAway, Waiting};
use crate::effect::ConnectionId;
use allowance::{Bucket, network};
use keys::NodeId;
use quic::Connection;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Everything that the connections of a controller share before the engine hears of them.
#[derive(Debug, Default)]
pub(super) struct State {
    enrolled: HashSet<NodeId>,
    /// Those of the mesh, besides the first.
    further_segments: u32,
    allowances: HashMap<NodeId, Allowance>,
    pub(super) addresses: HashMap<IpAddr, Address>,
    pub(super) strangers: BTreeMap<ConnectionId, Stranger>,
    half_open: BTreeMap<u64, Half>,
    last_half_open: u64,
    /// Where enrolled nodes were served last: a crowd elsewhere must not keep them from coming back.
    homes: HashMap<NodeId, IpAddr>,
    /// How many nodes have an address as theirs.
    at_home: HashMap<IpAddr, usize>,
    /// Refusals since the start, by reason.
    turned: TurnedAway,
    /// When addresses are looked through next.
    look_at: Duration,
    /// Connections with a proven key and no stream yet.
    silent: usize,
}

/// The places that one address holds.
#[derive(Debug)]
pub(super) struct Address {
    half_open: usize,
    pub(super) strangers: usize,
    handshakes: Bucket,
}

/// A handshake under way.
#[derive(Debug)]
struct Half {
    address: IpAddr,
    since: Duration,
    revoke: Arc<Notify>,
}

/// A connection of an unknown key.
#[derive(Debug)]
pub(super) struct Stranger {
    address: IpAddr,
    since: Duration,
    connection: Option<Connection>,
}

impl State {
    /// Which keys are enrolled from now on.
    pub(super) fn set_enrolled(&mut self, enrolled: impl Iterator<Item = NodeId>) {
        self.enrolled = enrolled.collect();
        let enrolled = &self.enrolled;
        self.allowances.retain(|key, _| enrolled.contains(key));
        let gone: Vec<NodeId> = self.homes.keys().copied().collect();
        for node in gone {
            if !self.enrolled.contains(&node)
                && let Some(home) = self.homes.remove(&node)
            {
                self.leaves(home);
            }
        }
    }

    /// These keys are enrolled as well.
    pub(super) fn enrol(&mut self, keys: Vec<NodeId>) {
        self.enrolled.extend(keys);
    }

    pub(super) fn is_enrolled(&self, key: &NodeId) -> bool {
        self.enrolled.contains(key)
    }

    pub(super) fn enrolled(&self) -> usize {
        self.enrolled.len()
    }

    /// Whether an address holds so much already that it must prove that it is no forgery.
    pub(super) fn is_suspect(&self, remote: SocketAddr) -> bool {
        let of = |address: IpAddr| {
            self.addresses
                .get(&address)
                .map_or(0, |held| held.half_open)
        };
        let home = remote.ip().to_canonical();
        of(home).max(of(network(home))) >= HALF_OPEN_PER_ADDRESS / 4
    }

    /// Takes a place for a handshake; `revoke` is told when it is somebody else's.
    pub(super) fn admit_handshake(
        &mut self,
        remote: SocketAddr,
        revoke: Arc<Notify>,
        now: Duration,
    ) -> Option<u64> {
        let Some(address) = self.place_for(remote, now) else {
            self.turned.unanswered += 1;
            return None;
        };
        self.last_half_open += 1;
        let half = Half {
            address,
            since: now,
            revoke,
        };
        self.half_open.insert(self.last_half_open, half);
        Some(self.last_half_open)
    }

    /// Takes a place for a connection whose key has proved itself; it is silent until it speaks.
    pub(super) fn admit(
        &mut self,
        id: ConnectionId,
        peer: NodeId,
        remote: SocketAddr,
        connection: Option<&Connection>,
        now: Duration,
    ) -> Result<(), Turned> {
        if self.is_enrolled(&peer) {
            if !self.take(peer, Kind::Connection, now) {
                self.turned.barred += 1;
                return Err(Turned::Barred);
            }
            self.comes_from(peer, remote.ip().to_canonical());
        } else if let Err(turned) = self.admit_stranger(id, network(remote.ip()), connection, now) {
            self.turned.crowded += 1;
            return Err(turned);
        }
        self.silent += 1;
        Ok(())
    }

    /// A connection that had a place is silent no longer: it spoke, or is gone.
    pub(super) fn breaks_silence(&mut self) {
        self.silent -= 1;
    }

    pub(super) fn waiting(&self) -> Waiting {
        Waiting {
            handshakes: self.half_open.len(),
            silent: self.silent,
            turned: self.turned,
        }
    }

    /// The address whose place a handshake from `remote` takes, if there is one.
    ///
    /// Handshakes that are never finished must not keep out those that are: where all places are taken,
    /// the oldest one, of the address that holds most, loses its own. Addresses of enrolled nodes have
    /// places beside those.
    fn place_for(&mut self, remote: SocketAddr, now: Duration) -> Option<IpAddr> {
        let home = remote.ip().to_canonical();
        let is_home = self.at_home.contains_key(&home);
        let address = if is_home { home } else { network(home) };
        self.forget_idle(now);
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&address) {
            return None;
        }
        let most = if is_home { 2 * HALF_OPEN } else { HALF_OPEN };
        let loser = if self.address(address).half_open >= HALF_OPEN_PER_ADDRESS {
            Some(self.oldest_half_open(address, now)?)
        } else if self.half_open.len() >= most {
            let held = self.addresses.iter().max_by_key(|(_, held)| held.half_open);
            let (crowded, _) = held?;
            Some(self.oldest_half_open(*crowded, now)?)
        } else {
            None
        };
        if !self.address(address).handshakes.take(now) {
            return None;
        }
        if let Some(number) = loser {
            self.revoke(number);
        }
        self.address(address).half_open += 1;
        Some(address)
    }

    /// The oldest handshake of an address, if it has had its time.
    fn oldest_half_open(&self, address: IpAddr, now: Duration) -> Option<u64> {
        let mut of_address = self.half_open.iter().filter(|(_, h)| h.address == address);
        let (number, half) = of_address.next()?;
        (half.since + STRANGER_TIME <= now).then_some(*number)
    }

    fn revoke(&mut self, number: u64) {
        if let Some(half) = self.half_open.get(&number) {
            half.revoke.notify_one();
        }
        self.forget_half_open(number);
    }

    pub(super) fn forget_half_open(&mut self, number: u64) {
        let Some(half) = self.half_open.remove(&number) else {
            return;
        };
        if let Some(held) = self.addresses.get_mut(&half.address) {
            held.half_open -= 1;
        }
    }

    /// An enrolled node is served at this address.
    fn comes_from(&mut self, peer: NodeId, home: IpAddr) {
        if let Some(before) = self.homes.insert(peer, home) {
            self.leaves(before);
        }
        *self.at_home.entry(home).or_default() += 1;
    }

    fn leaves(&mut self, home: IpAddr) {
        if let Some(nodes) = self.at_home.get_mut(&home) {
            *nodes -= 1;
            if *nodes == 0 {
                self.at_home.remove(&home);
            }
        }
    }

    fn address(&mut self, address: IpAddr) -> &mut Address {
        self.addresses.entry(address).or_insert_with(|| Address {
            half_open: 0,
            strangers: 0,
            handshakes: Bucket::new(HANDSHAKES_PER_SECOND, HANDSHAKE_BURST),
        })
    }

    /// The mesh has so many segments.
    pub(super) fn set_segments(&mut self, segments: usize) {
        let further = u32::try_from(segments.saturating_sub(1));
        self.further_segments = further.unwrap_or(u32::MAX);
    }

    /// Takes one of a key's allowance.
    pub(super) fn take(&mut self, key: NodeId, kind: Kind, now: Duration) -> bool {
        let segments = self.further_segments.saturating_add(1);
        let allowance = self.allowances.entry(key);
        let allowance = allowance.or_insert_with(|| Allowance::new(segments));
        allowance.take(kind, now)
    }

    pub(super) fn bar(&mut self, key: NodeId, now: Duration) {
        if let Some(allowance) = self.allowances.get_mut(&key) {
            allowance.bar(now);
        }
    }

    /// Strangers that say nothing must not keep out one that has a token: where all places are taken,
    /// the one that has been silent for longest loses its own.
    fn admit_stranger(
        &mut self,
        id: ConnectionId,
        address: IpAddr,
        connection: Option<&Connection>,
        now: Duration,
    ) -> Result<(), Turned> {
        if self.address(address).strangers >= STRANGERS_PER_ADDRESS {
            return Err(Turned::Crowded);
        }
        if self.strangers.len() >= STRANGERS {
            let oldest = self.strangers.iter().min_by_key(|(_, s)| s.since);
            let oldest = oldest.filter(|(_, s)| s.since + STRANGER_TIME <= now);
            let oldest = oldest.map(|(id, _)| *id).ok_or(Turned::Crowded)?;
            self.forget_stranger(oldest);
        }
        self.address(address).strangers += 1;
        let stranger = Stranger {
            address,
            since: now,
            connection: connection.cloned(),
        };
        self.strangers.insert(id, stranger);
        Ok(())
    }

    /// Gives a stranger's place back; its connection, if it is still there, ends.
    pub(super) fn forget_stranger(&mut self, id: ConnectionId) {
        let Some(stranger) = self.strangers.remove(&id) else {
            return;
        };
        if let Some(held) = self.addresses.get_mut(&stranger.address) {
            held.strangers -= 1;
        }
        if let Some(connection) = stranger.connection {
            connection.close("another unknown key needs the place");
        }
    }

    /// Addresses that hold nothing and could make a whole burst of handshakes again are not remembered.
    fn forget_idle(&mut self, now: Duration) {
        if self.addresses.len() >= ADDRESSES && self.look_at <= now {
            // Looking through all of them for each handshake would be the attacker's gain.
            self.look_at = now + Duration::from_secs(1);
            let is_held = |held: &Address| held.half_open > 0 || held.strangers > 0;
            self.addresses
                .retain(|_, held| is_held(held) || !held.handshakes.is_full(now));
        }
    }
}

/// Handshakes per second and address: a thousand nodes behind one NAT are back in ten seconds.
pub(super) const HANDSHAKES_PER_SECOND: u32 = 100;
pub(super) const HANDSHAKE_BURST: u32 = 200;
/// Handshakes under way, about 40 kB each; as many again for addresses of enrolled nodes.
pub(super) const HALF_OPEN: usize = 512;
pub(super) const HALF_OPEN_PER_ADDRESS: usize = 64;
/// Addresses that are remembered.
pub(super) const ADDRESSES: usize = 16_384;
/// Connections of unknown keys, at 60 kB each: a fleet that enrols at once.
pub(super) const STRANGERS: usize = 256;
pub(super) const STRANGERS_PER_ADDRESS: usize = 8;
/// How long a stranger keeps its place against others: ten round trips across the world and a lost
/// datagram.
pub(super) const STRANGER_TIME: Duration = Duration::from_secs(2);
