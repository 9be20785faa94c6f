//! The limits of a connection before the engine hears a word of it: it takes a place, and has an
//! allowance for each kind of message.
//!
//! | Who | May | Beyond it |
//! |---|---|---|
//! | an address (IPv4 address, IPv6 /64; one where an enrolled node was served: by itself) | `HANDSHAKES_PER_SECOND`, `HALF_OPEN_PER_ADDRESS` at a time | the oldest makes room, or it is left unanswered |
//! | an unknown key | `STRANGERS` at a time, `STRANGERS_PER_ADDRESS` from an address; say Enrol or Hello | closed; the longest silent one makes room |
//! | an enrolled key | `Kind::allowance` of each kind of message and of connections | cut, and barred for `BAR_TIME` |
//!
//! Allowances belong to the key, not to the connection: a node that is cut does not get a new one by
//! dialling again. They are taken by the connection's own task, before the message enters the queue that
//! all connections and operators share: a flood is over where it begins. This file decides nothing about
//! membership, and knows of nodes only which keys are enrolled.

use crate::effect::ConnectionId;
use allowances::Kind;
use keys::NodeId;
use places::State;
use quic::Connection;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use wire::frame::Header;
use wire::message::{report_limit, tunnels_limit};

mod allowances;
mod places;

/// The one intake of a controller, shared by its connections.
#[derive(Debug, Default)]
pub(crate) struct Intake(Mutex<State>);

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
        self.state().set_enrolled(enrolled);
    }

    /// These keys are enrolled as well.
    pub(crate) fn enrol(&self, keys: Vec<NodeId>) {
        self.state().enrol(keys);
    }

    /// Whether an address holds so much already that it must prove that it is no forgery.
    pub(crate) fn is_suspect(&self, remote: SocketAddr) -> bool {
        self.state().is_suspect(remote)
    }

    /// A place for a handshake.
    pub(crate) fn admit_handshake(
        self: &Arc<Self>,
        remote: SocketAddr,
        now: Duration,
    ) -> Option<HalfOpen> {
        let revoke = Arc::new(Notify::new());
        let place = self
            .state()
            .admit_handshake(remote, Arc::clone(&revoke), now);
        Some(HalfOpen {
            intake: Arc::clone(self),
            number: place?,
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
        self.state().admit(id, peer, remote, connection, now)?;
        Ok(Pass {
            intake: Arc::clone(self),
            id,
            peer,
            spoke: false,
            openings: AtomicU32::new(0),
        })
    }

    /// One for a mesh with so many segments.
    pub(crate) fn of_segments(segments: usize) -> Self {
        let intake = Self::default();
        intake.state().set_segments(segments);
        intake
    }

    /// Connections that have no place in the engine yet.
    pub(crate) fn waiting(&self) -> Waiting {
        self.state().waiting()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The connection has opened its stream: the engine knows it from now on.
    pub(crate) fn speaks(&mut self) {
        if !std::mem::replace(&mut self.spoke, true) {
            self.intake.state().breaks_silence();
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
        if !state.is_enrolled(&self.peer) {
            return match kind {
                Some(_) => Err(Unread::NotEnrolled),
                None => Ok(()),
            };
        }
        let Some(kind) = kind else {
            return Ok(());
        };
        // A controller whose log is an old copy knows fewer nodes than those who report on them.
        let nodes = state.enrolled().max(FEWEST_REPORTED);
        let limit = match kind {
            Kind::Report => report_limit(nodes),
            Kind::Tunnels => tunnels_limit(nodes),
            _ => header.len,
        };
        if header.len > limit || !state.take(self.peer, kind, now) {
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
        if !self.spoke {
            state.breaks_silence();
        }
        state.forget_stranger(self.id);
    }
}

/// Enrol and Hello on one connection.
const OPENINGS: u32 = 2;
/// Nodes that a report may be about, however small the mesh.
const FEWEST_REPORTED: usize = 1_000;

#[cfg(test)]
mod tests;
