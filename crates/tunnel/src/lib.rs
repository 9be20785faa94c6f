//! The WireGuard data plane, sans-IO: bytes and the time go in, bytes and the next timeout come out.
//!
//! # The way of a packet
//!
//! ```text
//! TUN → UDP   Carrier::turn, Turn::send                UDP → TUN   Carrier::receive
//!  1 destination address      → malformed               1 outer source address      → endpoint_inside_mesh
//!  2 allowed IPs, networks    → no_route                2 type and length           → malformed
//!  3 peer's endpoint          → no_endpoint             3 receiver index            → unknown_index
//!  4 generation with a live session; none: queue the    4 generation, open (AEAD)   → replayed, bad_aead
//!    packet, shake hands      → no_session              5 source address against    → source_not_allowed
//!  5 pad to 16 bytes, seal                                allowed IPs of the peer, networks behind it
//!                                                       6 destination address       → destination_not_allowed
//!                                                       7 rules of the segment      → no_rule
//!                                                       8 deliver
//! ```
//!
//! On the left: `carrier.rs`, `outbound.rs`, `peer.rs`, `generations.rs`. On the right: `carrier.rs`,
//! `door.rs` (1 to 3, and the admission of handshake messages), `opening.rs` or, with the tunnel alone,
//! `inbound.rs` and `handshake.rs`.
//!
//! A *generation* is the WireGuard state of one peer under one epoch's PSK. A peer has one `current`
//! (used to send once its handshake is done), perhaps a `next` (shaking hands ahead of its
//! activation), and `previous` ones (accepted for the grace): `generations.rs`. Handshakes and sessions
//! live inside one: `generation.rs`.
//!
//! boringtun's `Tunn` does the Noise handshake and the AEAD; everything that has to do with time,
//! retries, roaming, allowed IPs, replay across generations and the choice of a session is decided
//! here. `Tunn::update_timers` is never called. No `Tunn` and no `TunnResult` is ever formatted:
//! their `Debug` prints the preshared key.
//!
//! # Threads
//!
//! Every call that changes the tunnel (epochs, handshakes, timers) takes it as `&mut`. Calls that merely
//! carry packets on live sessions take it as `&` and lock one peer for a batch. [`Carrier`] puts the
//! tunnel behind a read-write lock and knows when to take which way: as many threads carry as its owner
//! likes, and a peer that was removed under the write lock is gone for all of them at once.
//!
//! This crate reads no clock and owns no socket. One breach is known: boringtun draws ephemeral keys
//! and TAI64N timestamps from the operating system, so that simulations replay behaviour, not bytes.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

mod activity;
mod admission;
mod agenda;
mod allowed_ips;
#[cfg(test)]
mod apart;
#[cfg(test)]
mod behind;
mod carrier;
mod config;
mod cookie;
mod door;
mod drops;
mod events;
mod forge;
#[cfg(test)]
mod gated;
mod gates;
mod generation;
mod generations;
mod handshake;
mod inbound;
mod indices;
mod initiation;
mod inside;
#[cfg(test)]
mod large;
mod limits;
mod link;
mod local;
mod lone;
mod networks;
mod opening;
mod outbound;
mod outbox;
mod outer;
mod packet;
mod path;
mod peer;
mod peers;
mod remembered;
mod role;
#[cfg(test)]
mod routed;
#[cfg(test)]
mod routes;
mod snapshot;
mod stamps;
#[cfg(test)]
mod stock;
#[cfg(test)]
mod stress;
mod traffic;
mod tunnel;
mod tunnel_id;
#[cfg(test)]
mod turns;
mod unreachable;
mod whereabouts;

pub use carrier::{Carrier, DatagramSink, Headers, PacketSink, PacketSource, Received, Turn};
pub use config::Config;
pub use door::{FrontDoor, OpenError};
pub use drops::{DropReason, Drops};
pub use events::Event;
pub use filter::{Groups, Protocol, Rule};
pub use inbound::Inbound;
pub use inside::{Inside, Range};
pub use limits::*;
pub use lone::LoneTunnel;
pub use outbound::{Outbound, Sealing};
pub use outbox::Transmit;
pub use outer::{Outer, Route, TrafficClass};
pub use packet::destination;
pub use path::Path;
pub use snapshot::PeerSnapshot;
pub use traffic::Traffic;
pub use tunnel::{PeerSpec, Tunnel};
pub use tunnel_id::TunnelId;
