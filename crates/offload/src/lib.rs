//! Segmentation offload, bytes only: what a TUN device with `IFF_VNET_HDR` hands out as one
//! super-packet becomes the packets that go on the wire, and packets from the wire become
//! super-packets again.
//!
//! ```text
//! TUN ─▶ virtio-net header ‖ super-packet ─▶ Split ─▶ packets, each with its own headers and checksum
//! TUN ◀─ virtio-net header ‖ super-packet ◀─ Coalescer ◀─ packets that continue one flow
//! ```
//!
//! Neither way copies a payload or allocates for a packet. [`Split`] writes each packet's headers in
//! front of its payload, over bytes that were sent already; [`Coalescer`] hands out slices for a
//! gathering write. TCP and UDP, IPv4 and IPv6. Packets that cannot be merged without a trace are passed on
//! as they came: splitting a super-packet gives the very packets that it was made from.
//!
//! This crate owns no descriptor and trusts no byte.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

mod checksum;
mod coalesce;
mod headers;
mod probe;
mod split;
mod virtio;

pub use coalesce::{Coalescer, MAX_SEGMENTS, Verdict};
pub use probe::martian;
pub use split::{MAX_HEADERS, Malformed, SPARE, Segment, Split};
pub use virtio::{VNET_HEADER_LEN, VnetHeader};
