//! A peer as status and metrics see it. Holds nothing secret, and nothing that changes the peer.

use crate::path::Path;
use crate::peer::Peer;
use keys::{Epoch, WgPublicKey};
use std::time::Duration;

/// A peer as it looks from outside; nothing secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSnapshot {
    /// The peer.
    pub key: WgPublicKey,
    /// Where packets to it go.
    pub endpoint: Option<Path>,
    /// Epoch of the session that packets are sent on; `None`: no live session.
    pub session_epoch: Option<Epoch>,
    /// Time since that session's handshake.
    pub session_age: Option<Duration>,
    /// Whether a live session of the epoch after the current one is ready.
    pub next_ready: bool,
    /// Bytes of inner packets sent.
    pub tx_bytes: u64,
    /// Bytes of inner packets received.
    pub rx_bytes: u64,
}

impl PeerSnapshot {
    pub(crate) fn of(peer: &Peer, now: Duration) -> Self {
        let slot = peer.generations.sending(now);
        let sending = slot.and_then(|slot| peer.generations.at(slot));
        let next = peer.generations.next.as_ref();
        Self {
            key: peer.key,
            endpoint: peer.whereabouts.endpoint(),
            session_epoch: sending.map(|generation| generation.epoch),
            session_age: sending
                .and_then(|generation| generation.live_age(now))
                .map(|(age, _)| age),
            next_ready: next.is_some_and(|next| next.is_live(now)),
            tx_bytes: peer.traffic.tx_bytes,
            rx_bytes: peer.traffic.rx_bytes,
        }
    }
}
