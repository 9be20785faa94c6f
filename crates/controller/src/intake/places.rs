//! The places: who holds one, and who loses it to whom. An address cannot crowd out others, a stranger cannot
//! crowd out strangers, and nobody crowds out the addresses where enrolled nodes were served.

use super::allowances::{Allowance, Kind};
use super::{Turned, TurnedAway};
use crate::effect::ConnectionId;
use allowance::{Bucket, network};
use keys::NodeId;
use quic::Connection;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) enrolled: HashSet<NodeId>,
    pub(super) allowances: HashMap<NodeId, Allowance>,
    pub(super) addresses: HashMap<IpAddr, Address>,
    pub(super) strangers: BTreeMap<ConnectionId, Stranger>,
    pub(super) half_open: BTreeMap<u64, Half>,
    pub(super) last_half_open: u64,
    /// Where enrolled nodes were served last: a crowd elsewhere must not keep them from coming back.
    pub(super) homes: HashMap<NodeId, IpAddr>,
    /// How many nodes have an address as theirs.
    pub(super) at_home: HashMap<IpAddr, usize>,
    /// Refusals since the start, by reason.
    pub(super) turned: TurnedAway,
    /// When addresses are looked through next.
    pub(super) look_at: Duration,
    /// Connections with a proven key and no stream yet.
    pub(super) silent: usize,
}

/// The places that one address holds.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) half_open: usize,
    pub(super) strangers: usize,
    pub(super) handshakes: Bucket,
}

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) address: IpAddr,
    pub(super) since: Duration,
    pub(super) revoke: Arc<Notify>,
}

/// A connection of an unknown key.
#[derive(Debug)]
pub(super) struct Stranger {
    pub(super) address: IpAddr,
    pub(super) since: Duration,
    pub(super) connection: Option<Connection>,
}

impl State {
    /// The address whose place a handshake from `remote` takes, if there is one.
    ///
    /// Handshakes that are never finished must not keep out those that are: where all places are taken,
    /// the oldest one, of the address that holds most, loses its own. Addresses of enrolled nodes have
    /// places beside those.
    pub(super) fn place_for(&mut self, remote: SocketAddr, now: Duration) -> Option<IpAddr> {
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
    pub(super) fn oldest_half_open(&self, address: IpAddr, now: Duration) -> Option<u64> {
        let mut of_address = self.half_open.iter().filter(|(_, h)| h.address == address);
        let (number, half) = of_address.next()?;
        (half.since + STRANGER_TIME <= now).then_some(*number)
    }

    pub(super) fn revoke(&mut self, number: u64) {
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
    pub(super) fn comes_from(&mut self, peer: NodeId, home: IpAddr) {
        if let Some(before) = self.homes.insert(peer, home) {
            self.leaves(before);
        }
        *self.at_home.entry(home).or_default() += 1;
    }

    pub(super) fn leaves(&mut self, home: IpAddr) {
        if let Some(nodes) = self.at_home.get_mut(&home) {
            *nodes -= 1;
            if *nodes == 0 {
                self.at_home.remove(&home);
            }
        }
    }

    pub(super) fn address(&mut self, address: IpAddr) -> &mut Address {
        self.addresses.entry(address).or_insert_with(|| Address {
            half_open: 0,
            strangers: 0,
            handshakes: Bucket::new(HANDSHAKES_PER_SECOND, HANDSHAKE_BURST),
        })
    }

    /// Takes one of a key's allowance.
    pub(super) fn take(&mut self, key: NodeId, kind: Kind, now: Duration) -> bool {
        let allowance = self.allowances.entry(key);
        allowance.or_insert_with(Allowance::new).take(kind, now)
    }

    pub(super) fn bar(&mut self, key: NodeId, now: Duration) {
        if let Some(allowance) = self.allowances.get_mut(&key) {
            allowance.bar(now);
        }
    }

    /// Strangers that say nothing must not keep out one that has a token: where all places are taken,
    /// the one that has been silent for longest loses its own.
    pub(super) fn admit_stranger(
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
    pub(super) fn forget_idle(&mut self, now: Duration) {
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
/// Connections of unknown keys.
pub(super) const STRANGERS: usize = 64;
pub(super) const STRANGERS_PER_ADDRESS: usize = 8;
/// How long a stranger keeps its place against others: ten round trips across the world and a lost
/// datagram.
pub(super) const STRANGER_TIME: Duration = Duration::from_secs(2);
