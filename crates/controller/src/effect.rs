//! The engine's way out to its shell: effects in order, and the news that something changed which the shell
//! shows or filters by. Every part of the engine may put in; refuses to carry anything out.

use std::collections::VecDeque;
use wire::message::{Refusal, ToNode};

/// A connection, as the engine names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Something that the shell shall do.
#[derive(Debug)]
pub enum Effect {
    /// Send a message.
    Send(ConnectionId, Box<ToNode>),
    /// Say why, then close.
    Close(ConnectionId, Refusal),
}

/// The engine's end of the way out.
#[derive(Debug)]
pub(crate) struct Output {
    effects: VecDeque<Effect>,
    /// The status may differ from the one that was shown last.
    status_changed: bool,
    /// The keys of enrolled nodes may be others.
    keys_changed: bool,
}

impl Output {
    /// Nothing to do yet, and everything to be looked at.
    pub(crate) fn new() -> Self {
        Self {
            effects: VecDeque::new(),
            status_changed: true,
            keys_changed: true,
        }
    }

    pub(crate) fn send(&mut self, id: ConnectionId, message: ToNode) {
        self.effects.push_back(Effect::Send(id, Box::new(message)));
    }

    /// To be used by the owner of the connections alone, which has to forget this one.
    pub(crate) fn close(&mut self, id: ConnectionId, reason: Refusal) {
        self.effects.push_back(Effect::Close(id, reason));
    }

    /// Something that the status shows has changed.
    pub(crate) fn touch(&mut self) {
        self.status_changed = true;
    }

    pub(crate) fn change_keys(&mut self) {
        self.keys_changed = true;
    }

    pub(crate) fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn take_status_changed(&mut self) -> bool {
        std::mem::take(&mut self.status_changed)
    }

    pub(crate) fn take_keys_changed(&mut self) -> bool {
        std::mem::take(&mut self.keys_changed)
    }
}
