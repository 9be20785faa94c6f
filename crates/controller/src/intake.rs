//! The limits of a connection before the engine hears a word of it: it takes a place, and has an
//! allowance for each kind of message.
//!
//! | Who | May | Beyond it |
//! |---|---|---|
//! | an address (IPv4 address, IPv6 /64; one where an enrolled node was served: by itself) | [`HANDSHAKES_PER_SECOND`], [`HALF_OPEN_PER_ADDRESS`] at a time | the oldest makes room, or it is left unanswered |
//! | an unknown key | [`STRANGERS`] at a time, [`STRANGERS_PER_ADDRESS`] from an address; say Enrol or Hello | closed; the longest silent one makes room |
//! | an enrolled key | [`Kind::allowance`] of each kind of message and of connections | cut, and barred for [`BAR_TIME`] |
//!
//! Allowances belong to the key, not to the connection: a node that is cut does not get a new one by
//! dialling again. They are taken by the connection's own task, before the message enters the queue that
//! all connections and operators share: a flood is over where it begins. This file decides nothing about
//! membership, and knows of nodes only which keys are enrolled.

use crate::effect::ConnectionId;
use allowance::{Bucket, network};
use keys::NodeId;
use quic::Connection;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use wire::frame::Header;
use wire::message::report_limit;

/// The one intake of a controller, shared by its connections.
#[derive(Debug, Default)]
pub(crate) struct Intake(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    enrolled: HashSet<NodeId>,
    allowances: HashMap<NodeId, Allowance>,
    addresses: HashMap<IpAddr, Address>,
    strangers: BTreeMap<ConnectionId, Stranger>,
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
struct Address {
    half_open: usize,
    strangers: usize,
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
struct Stranger {
    address: IpAddr,
    since: Duration,
    connection: Option<Connection>,
}

/// The allowances that one enrolled key has left.
#[derive(Debug)]
struct Allowance {
    buckets: [Bucket; Kind::ALL.len()],
    barred_until: Duration,
}

/// The kinds of message that an enrolled key has allowances of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Connections, each with its Hello.
    Connection,
    Evidence,
    Ack,
    Report,
    Endpoints,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Connection,
        Self::Evidence,
        Self::Ack,
        Self::Report,
        Self::Endpoints,
    ];

    /// How many of them in ten seconds for ever, and how many at once. Each is several times what a node
    /// says in its busiest moment: a report per probe of a second, evidence once a second; and two
    /// acknowledgements per epoch, of which an operator who evicts a thousand nodes makes a thousand.
    fn allowance(self) -> (u32, u32) {
        match self {
            Self::Connection => (5, 20),
            Self::Evidence => (200, 60),
            Self::Ack => (1_000, 2_000),
            Self::Report => (20, 20),
            Self::Endpoints => (10, 20),
        }
    }

    /// The kind that a frame of this type counts as. Enrol and Hello come once per connection.
    fn of(frame_type: u8) -> Option<Self> {
        match frame_type {
            3 => Some(Self::Evidence),
            4 => Some(Self::Ack),
            5 => Some(Self::Report),
            6 => Some(Self::Endpoints),
            _ => None,
        }
    }
}

/// Why a connection gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Turned {
    /// Too many unknown keys.
    #[error("too many unknown keys at once: try again later")]
    Crowded,
    /// The key has used up its allowance.
    #[error("more connections or messages than a node may have: try again later")]
    Barred,
}

/// Why a message is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The key may not say this.
    NotEnrolled,
    /// Its allowance is used up, or the message is larger than the mesh can make one.
    TooMuch,
}

/// A handshake's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    intake: Arc<Intake>,
    number: u64,
    revoke: Arc<Notify>,
}

impl HalfOpen {
    /// Resolves when the place is somebody else's.
    pub(crate) async fn revoked(&self) {
        self.revoke.notified().await;
    }
}

/// Connections that got no place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TurnedAway {
    /// Attempts that were left unanswered.
    pub(crate) unanswered: u64,
    /// Unknown keys.
    pub(crate) crowded: u64,
    /// Enrolled keys beyond their allowance.
    pub(crate) barred: u64,
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    intake: Arc<Intake>,
    id: ConnectionId,
    peer: NodeId,
    spoke: bool,
    /// Enrol and Hello, so far.
    openings: AtomicU32,
}

/// How many connections wait before the engine knows them, and how many got no place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) handshakes: usize,
    pub(crate) silent: usize,
    pub(crate) turned: TurnedAway,
}

impl Intake {
    /// Which keys are enrolled from now on.
    pub(crate) fn set_enrolled(&self, enrolled: impl Iterator<Item = NodeId>) {
        let mut state = self.state();
        state.enrolled = enrolled.collect();
        let State {
            enrolled,
            allowances,
            ..
        } = &mut *state;
        allowances.retain(|key, _| enrolled.contains(key));
        let gone: Vec<NodeId> = state.homes.keys().copied().collect();
        for node in gone {
            if !state.enrolled.contains(&node)
                && let Some(home) = state.homes.remove(&node)
            {
                state.leaves(home);
            }
        }
    }

    /// Whether an address holds so much already that it must prove that it is no forgery.
    pub(crate) fn is_suspect(&self, remote: SocketAddr) -> bool {
        let state = self.state();
        let of = |address: IpAddr| {
            state
                .addresses
                .get(&address)
                .map_or(0, |held| held.half_open)
        };
        let home = remote.ip().to_canonical();
        of(home).max(of(network(home))) >= HALF_OPEN_PER_ADDRESS / 4
    }

    /// A place for a handshake.
    pub(crate) fn admit_handshake(
        self: &Arc<Self>,
        remote: SocketAddr,
        now: Duration,
    ) -> Option<HalfOpen> {
        let mut state = self.state();
        let place = state.place_for(remote, now);
        if place.is_none() {
            state.turned.unanswered += 1;
        }
        let address = place?;
        state.last_half_open += 1;
        let (number, revoke) = (state.last_half_open, Arc::new(Notify::new()));
        let half = Half {
            address,
            since: now,
            revoke: Arc::clone(&revoke),
        };
        state.half_open.insert(number, half);
        Some(HalfOpen {
            intake: Arc::clone(self),
            number,
            revoke,
        })
    }

    /// A place for a connection whose key has proved itself.
    pub(crate) fn admit(
        self: &Arc<Self>,
        id: ConnectionId,
        peer: NodeId,
        remote: SocketAddr,
        connection: Option<&Connection>,
        now: Duration,
    ) -> Result<Pass, Turned> {
        let mut state = self.state();
        if state.enrolled.contains(&peer) {
            if !state.take(peer, Kind::Connection, now) {
                state.turned.barred += 1;
                return Err(Turned::Barred);
            }
            state.comes_from(peer, remote.ip().to_canonical());
        } else if let Err(turned) = state.admit_stranger(id, network(remote.ip()), connection, now)
        {
            state.turned.crowded += 1;
            return Err(turned);
        }
        state.silent += 1;
        Ok(Pass {
            intake: Arc::clone(self),
            id,
            peer,
            spoke: false,
            openings: AtomicU32::new(0),
        })
    }

    /// Connections that have no place in the engine yet.
    pub(crate) fn waiting(&self) -> Waiting {
        let state = self.state();
        Waiting {
            handshakes: state.half_open.len(),
            silent: state.silent,
            turned: state.turned,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The connection has opened its stream: the engine knows it from now on.
    pub(crate) fn speaks(&mut self) {
        if !std::mem::replace(&mut self.spoke, true) {
            self.intake.state().silent -= 1;
        }
    }

    /// Whether the message behind `header` may be read. Taken before a byte of it is kept.
    pub(crate) fn take(&self, header: Header, now: Duration) -> Result<(), Unread> {
        let kind = Kind::of(header.frame_type);
        // A place may be asked for, and then a session: a connection that goes on asking has no allowance
        // for that, and each answer costs a signature.
        if kind.is_none() && self.openings.fetch_add(1, Ordering::Relaxed) >= OPENINGS {
            return Err(Unread::TooMuch);
        }
        let mut state = self.intake.state();
        if !state.enrolled.contains(&self.peer) {
            return match kind {
                Some(_) => Err(Unread::NotEnrolled),
                None => Ok(()),
            };
        }
        let Some(kind) = kind else {
            return Ok(());
        };
        // A controller whose log is an old copy knows fewer nodes than those who report on them.
        let nodes = state.enrolled.len().max(FEWEST_REPORTED);
        let is_too_large = kind == Kind::Report && header.len > report_limit(nodes);
        if is_too_large || !state.take(self.peer, kind, now) {
            state.bar(self.peer, now);
            return Err(Unread::TooMuch);
        }
        Ok(())
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        let mut state = self.intake.state();
        state.forget_half_open(self.number);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.intake.state();
        state.silent -= usize::from(!self.spoke);
        state.forget_stranger(self.id);
    }
}

impl State {
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

    fn forget_half_open(&mut self, number: u64) {
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

    /// Takes one of a key's allowance.
    fn take(&mut self, key: NodeId, kind: Kind, now: Duration) -> bool {
        let allowance = self.allowances.entry(key).or_insert_with(|| Allowance {
            buckets: Kind::ALL.map(|kind| {
                let (in_ten_seconds, at_once) = kind.allowance();
                Bucket::per_ten_seconds(in_ten_seconds, at_once)
            }),
            barred_until: Duration::ZERO,
        });
        allowance.barred_until <= now && allowance.buckets[kind as usize].take(now)
    }

    fn bar(&mut self, key: NodeId, now: Duration) {
        if let Some(allowance) = self.allowances.get_mut(&key) {
            allowance.barred_until = now + BAR_TIME;
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
    fn forget_stranger(&mut self, id: ConnectionId) {
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
const HANDSHAKES_PER_SECOND: u32 = 100;
const HANDSHAKE_BURST: u32 = 200;
/// Handshakes under way, about 40 kB each; as many again for addresses of enrolled nodes.
const HALF_OPEN: usize = 512;
const HALF_OPEN_PER_ADDRESS: usize = 64;
/// Enrol and Hello on one connection.
const OPENINGS: u32 = 2;
/// Nodes that a report may be about, however small the mesh.
const FEWEST_REPORTED: usize = 1_000;
/// Addresses that are remembered.
const ADDRESSES: usize = 16_384;
/// Connections of unknown keys.
const STRANGERS: usize = 64;
const STRANGERS_PER_ADDRESS: usize = 8;
/// How long a stranger keeps its place against others: ten round trips across the world and a lost
/// datagram.
const STRANGER_TIME: Duration = Duration::from_secs(2);
/// How long a key that has used up its allowance is barred: longer would turn a node that was restarted in
/// a loop stale, shorter would not be felt.
const BAR_TIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
