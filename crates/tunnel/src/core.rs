//! What peers and tunnel share: the means to make sessions, and everything that goes out.

use crate::allowed_ips::PeerId;
use crate::drops::Drops;
use crate::generation::Forge;
use crate::limits::{RETRY_FIRST, RETRY_MAX, RETRY_MAX_IN_USE};
use keys::{Epoch, WgPublicKey};
use rand::Rng as _;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

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

impl Core {
    pub(crate) fn transmit(&mut self, peer: PeerId, to: SocketAddr, payload: Vec<u8>) {
        self.transmits.push_back(Transmit {
            to,
            payload,
            peer: Some(peer),
        });
    }

    /// How long to wait for an answer to the `attempt`-th initiation: doubling, with a fifth of
    /// jitter; never long while an older generation still carries packets that are about to stop.
    pub(crate) fn backoff(&mut self, attempt: u32, in_use: bool) -> Duration {
        let most = if in_use { RETRY_MAX_IN_USE } else { RETRY_MAX };
        let base = RETRY_FIRST.saturating_mul(1 << attempt.min(6)).min(most);
        base.mul_f64(self.forge.rng.gen_range(0.8..1.2))
    }

    pub(crate) fn jitter(&mut self, spread: Duration) -> Duration {
        spread.mul_f64(self.forge.rng.r#gen::<f64>())
    }
}
