//! Changes that an operator may want to know, until the owner fetches them. Any thread tells. Bounded:
//! beyond the limit the newest are not kept, because nothing depends on them.

use crate::path::Path;
use keys::{Epoch, WgPublicKey};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

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

const MAX_EVENTS: usize = 1024;
