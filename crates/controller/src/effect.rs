//! The engine's way out to its shell: effects in order, and the news that something changed which the shell
//! shows or filters by. Every part of the engine may put in; refuses to carry anything out.

use keys::NodeId;
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
    /// Members are elsewhere than the connection was told: when it can take more, ask
    /// [`Engine::places_for`](crate::engine::Engine::places_for) for what it is to be told.
    Places(ConnectionId),
    /// Say why, then close.
    Close(ConnectionId, Refusal),
}

/// How the keys of enrolled nodes have changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum KeysChanged {
    /// They have not.
    #[default]
    No,
    /// There are these as well.
    Added(Vec<NodeId>),
    /// They may be others.
    Otherwise,
}

/// The engine's end of the way out.
#[derive(Debug)]
pub(crate) struct Output {
    effects: VecDeque<Effect>,
    /// The status may differ from the one that was shown last.
    status_changed: bool,
    keys: KeysChanged,
}

impl Output {
    /// Nothing to do yet, and everything to be looked at.
    pub(crate) fn new() -> Self {
        Self {
            effects: VecDeque::new(),
            status_changed: true,
            keys: KeysChanged::Otherwise,
        }
    }

    pub(crate) fn send(&mut self, id: ConnectionId, message: ToNode) {
        self.effects.push_back(Effect::Send(id, Box::new(message)));
    }

    /// A connection has news of places to be told.
    pub(crate) fn places(&mut self, id: ConnectionId) {
        self.effects.push_back(Effect::Places(id));
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
        self.keys = KeysChanged::Otherwise;
    }

    /// One more key is enrolled. Thousands may come, and each must not cost a look at all.
    pub(crate) fn add_key(&mut self, key: NodeId) {
        match &mut self.keys {
            KeysChanged::Added(keys) => keys.push(key),
            KeysChanged::No => self.keys = KeysChanged::Added(vec![key]),
            KeysChanged::Otherwise => {}
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn take_status_changed(&mut self) -> bool {
        std::mem::take(&mut self.status_changed)
    }

    pub(crate) fn take_keys_changed(&mut self) -> KeysChanged {
        std::mem::take(&mut self.keys)
    }
}
