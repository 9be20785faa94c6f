//! What peers and tunnel share: the means to make sessions, and everything that goes out.

use crate::admission::Refusal;
use crate::allowed_ips::PeerId;
use crate::drops::{DropCounters, DropReason};
use crate::forge::Forge;
use crate::indices::IndexTable;
use crate::path::Path;
use keys::{Epoch, WgPublicKey};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A datagram of the tunnel's own: handshake messages, keepalives, packets that had waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Path,
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
        endpoint: Path,
    },
}

/// Inner packets that were carried, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets sealed.
    pub tx_packets: u64,
    /// Bytes of inner packets sealed.
    pub tx_bytes: u64,
    /// Packets opened.
    pub rx_packets: u64,
    /// Bytes of inner packets opened.
    pub rx_bytes: u64,
}

impl Traffic {
    pub(crate) fn add(&mut self, other: Self) {
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
    }
}

/// Events that nobody has fetched yet; beyond the limit the newest are not kept.
#[derive(Default)]
pub(crate) struct Events(Mutex<VecDeque<Event>>);

impl Events {
    pub(crate) fn push(&self, event: Event) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() < MAX_EVENTS {
            events.push_back(event);
        }
    }

    pub(crate) fn pop(&self) -> Option<Event> {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.pop_front()
    }
}

/// Where peers are expected, each place with how many peers are there.
#[derive(Default)]
pub(crate) struct Endpoints(Mutex<HashMap<Path, usize>>);

impl Endpoints {
    pub(crate) fn contains(&self, endpoint: Path) -> bool {
        self.counts().contains_key(&endpoint)
    }

    pub(crate) fn add(&self, endpoint: Path) {
        *self.counts().entry(endpoint).or_default() += 1;
    }

    pub(crate) fn remove(&self, endpoint: Path) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(&endpoint) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&endpoint);
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Path, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> HashMap<Path, usize> {
        self.counts().clone()
    }
}

pub(crate) struct Core {
    pub(crate) forge: Forge,
    pub(crate) indices: IndexTable,
    pub(crate) mtu: usize,
    pub(crate) drops: DropCounters,
    /// What peers that are gone have carried.
    pub(crate) carried: Traffic,
    pub(crate) handshakes: u64,
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: Events,
    /// When which peer's next handshake message is due.
    pub(crate) due: BTreeSet<(Duration, PeerId)>,
    pub(crate) endpoints: Endpoints,
}

impl Core {
    pub(crate) fn transmit(&mut self, peer: PeerId, to: Path, payload: Vec<u8>) {
        self.transmits.push_back(Transmit {
            to,
            payload,
            peer: Some(peer),
        });
    }

    /// Answers a handshake message that was refused, if there is an answer.
    pub(crate) fn unless_refused(
        &mut self,
        admitted: Result<(), Refusal>,
    ) -> Result<(), DropReason> {
        admitted.map_err(|(reason, cookie)| {
            self.transmits.extend(cookie);
            reason
        })
    }
}

const MAX_EVENTS: usize = 1024;
