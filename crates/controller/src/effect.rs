//! What the engine hands to its shell. Refuses to carry it out.

use wire::message::{Refusal, ToNode};

/// A connection, as the engine names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// What the shell shall do.
#[derive(Debug)]
pub enum Effect {
    /// Send a message.
    Send(ConnectionId, Box<ToNode>),
    /// Say why, then close.
    Close(ConnectionId, Refusal),
}
