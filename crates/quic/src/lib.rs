//! Mutually authenticated connections that carry wire frames.
//!
//! QUIC with TLS 1.3, raw public keys (RFC 7250) on both sides, key exchange X25519MLKEM768 only,
//! ALPN `meshd/N` with the version of the control protocol, no resumption and no 0-RTT: a resumed session would outlive a revocation. There is
//! no certificate authority; a peer *is* its Ed25519 key. This crate proves which key is on the other
//! side and refuses to judge it: whether that key may do anything is for the caller to say.
//!
//! | Module | Holds |
//! |---|---|
//! | [`listener`] | the controller's side: accept, validate addresses, bound half-open handshakes |
//! | [`dialer`] | the node's side: connect to one pinned key |
//! | [`connection`] | a connection, its one stream, frames in and out |
//! | [`pulse`] | when the other side was last heard, and when that is too long ago |

#![forbid(unsafe_code)]

pub mod connection;
pub mod dialer;
pub mod listener;
pub mod pulse;

mod restart;
mod socket;
mod tls;
#[cfg(test)]
mod versions;
mod wiped;

pub use connection::{Connection, ConnectionError, Receiver, RecvError, SendError, Sender};
pub use dialer::Dialer;
pub use listener::{BindError, Bound, Incoming, Listener};
pub use pulse::Pulse;
