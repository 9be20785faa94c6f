//! What a connection may take of the controller before the engine hears a word of it: a place, and an
//! allowance for each kind of message.
//!
//! | Who | May | Beyond it |
//! |---|---|---|
//! | an address (IPv4 address, IPv6 /64) | [`HANDSHAKES_PER_SECOND`], [`HALF_OPEN_PER_ADDRESS`] at a time | left unanswered |
//! | an unknown key | [`STRANGERS`] at a time, [`STRANGERS_PER_ADDRESS`] from an address; say Enrol or Hello | closed; the longest silent one makes room |
//! | an enrolled key | [`Kind::allowance`] of each kind of message and of connections | cut, and barred for [`BAR_TIME`] |
//!
//! Allowances belong to the key, not to the connection: a node that is cut does not get a new one by
//! dialling again. They are taken by the connection's own task, before the message enters the queue that
//! all connections and operators share: a flood is over where it begins. This file decides nothing about
//! membership, and knows of nodes only which keys are enrolled.

use crate::bucket::Bucket;
use crate::engine::ConnectionId;
use keys::NodeId;
use quic::Connection;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
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
    half_open: usize,
    /// When addresses are looked through next.
    look_at: Duration,
    /// Connections with a proven key and no stream yet.
    silent: usize,
}

/// What one address holds.
#[derive(Debug)]
struct Address {
    half_open: usize,
    strangers: usize,
    handshakes: Bucket,
}

/// A connection of an unknown key.
#[derive(Debug)]
struct Stranger {
    address: IpAddr,
    since: Duration,
    connection: Option<Connection>,
}

/// What one enrolled key has left.
#[derive(Debug)]
struct Allowance {
    buckets: [Bucket; Kind::ALL.len()],
    barred_until: Duration,
}

/// What an enrolled key has an allowance of.
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
    /// says in its busiest moment: two acknowledgements per epoch of a second, a report per probe of a
    /// second, evidence once a second.
    fn allowance(self) -> (u32, u32) {
        match self {
            Self::Connection => (5, 20),
            Self::Evidence => (200, 60),
            Self::Ack => (200, 200),
            Self::Report => (20, 20),
            Self::Endpoints => (10, 20),
        }
    }

    /// What a frame of this type counts as. Enrol and Hello come once per connection.
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
    address: IpAddr,
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    intake: Arc<Intake>,
    id: ConnectionId,
    peer: NodeId,
    spoke: bool,
}

/// How many connections wait before the engine knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) handshakes: usize,
    pub(crate) silent: usize,
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
    }

    /// Whether an address holds so much already that it must prove that it is no forgery.
    pub(crate) fn is_suspect(&self, remote: SocketAddr) -> bool {
        let state = self.state();
        let held = state.addresses.get(&network(remote.ip()));
        held.is_some_and(|held| held.half_open >= HALF_OPEN_PER_ADDRESS / 4)
    }

    /// A place for a handshake.
    pub(crate) fn admit_handshake(
        self: &Arc<Self>,
        remote: SocketAddr,
        now: Duration,
    ) -> Option<HalfOpen> {
        let mut state = self.state();
        let address = network(remote.ip());
        if state.half_open >= HALF_OPEN {
            return None;
        }
        state.forget_idle(now);
        if state.addresses.len() >= ADDRESSES && !state.addresses.contains_key(&address) {
            return None;
        }
        let held = state.address(address);
        if held.half_open >= HALF_OPEN_PER_ADDRESS || !held.handshakes.take(now) {
            return None;
        }
        held.half_open += 1;
        state.half_open += 1;
        Some(HalfOpen {
            intake: Arc::clone(self),
            address,
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
                return Err(Turned::Barred);
            }
        } else {
            state.admit_stranger(id, network(remote.ip()), connection, now)?;
        }
        state.silent += 1;
        Ok(Pass {
            intake: Arc::clone(self),
            id,
            peer,
            spoke: false,
        })
    }

    /// What has no place in the engine yet.
    pub(crate) fn waiting(&self) -> Waiting {
        let state = self.state();
        Waiting {
            handshakes: state.half_open,
            silent: state.silent,
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
        let mut state = self.intake.state();
        let kind = Kind::of(header.frame_type);
        if !state.enrolled.contains(&self.peer) {
            return match kind {
                Some(_) => Err(Unread::NotEnrolled),
                None => Ok(()),
            };
        }
        let Some(kind) = kind else {
            return Ok(());
        };
        let is_too_large = kind == Kind::Report && header.len > report_limit(state.enrolled.len());
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
        state.half_open -= 1;
        if let Some(held) = state.addresses.get_mut(&self.address) {
            held.half_open -= 1;
        }
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

/// What one sender can choose freely within: an IPv4 address, an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) >> 64 << 64).to_be_bytes()),
        v4 => v4,
    }
}

/// Handshakes per second and address: a thousand nodes behind one NAT are back in ten seconds.
const HANDSHAKES_PER_SECOND: u32 = 100;
const HANDSHAKE_BURST: u32 = 200;
/// Handshakes under way, about 40 kB each.
const HALF_OPEN: usize = 512;
const HALF_OPEN_PER_ADDRESS: usize = 64;
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
