//! Bytes to messages and back.
//!
//! Every decoder here is total: any bytes give a value or a typed error, never a panic, and no
//! allocation beyond the stated limits. A value that needs a signature comes out as a proof type
//! ([`Verified`], [`evidence::Attested`]) that nothing else can construct. This crate decides nothing.
//!
//! | Module | Holds |
//! |---|---|
//! | [`frame`] | the 8-byte header, types and size limits of control-channel frames |
//! | [`message`] | what node and controller say to each other |
//! | [`update`] | the epoch update: roster, exclusions, durations; its mark |
//! | [`changes`] | an update as what changed against an earlier one |
//! | [`endpoints`] | where nodes can be reached |
//! | [`prefix`] | networks behind members |
//! | [`rules`] | which members connect, and what they may send to each other |
//! | [`log`] | the end of the controller's log, as nodes hear of it |
//! | [`place`] | a node's place in a mesh |
//! | [`signed`] | `Signed<T>` → `Verified<T>` |
//! | [`succession`] | the word of an authority for the next one |
//! | [`evidence`] | DSSE envelope around an in-toto statement with the benchmark predicate |
//! | [`token`] | the enrolment token's one string |
//! | [`name`] | names of nodes and segments |
//! | [`segment`] | a node asks for a place in a segment |
//! | [`family`] | whether two machines can reach each other by the families of their addresses |
//! | [`host_port`] | where a machine is reached, as a person writes it |
//! | [`instance`] | which process speaks for a node |
//! | [`way`] | where a system sends what is meant for a peer |
//! | [`admin`] | the JSON of the admin sockets and of `status.json` |

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

pub mod admin;
pub mod changes;
pub mod endpoints;
pub mod evidence;
pub mod family;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod frame;
pub mod host_port;
pub mod instance;
pub mod log;
pub mod message;
pub mod name;
pub mod place;
pub mod prefix;
pub mod rules;
pub mod segment;
pub mod signed;
pub mod succession;
pub mod token;
pub mod update;
pub mod visible;
pub mod way;

pub use changes::Changes;
pub use frame::{Frame, FrameError};
pub use host_port::HostPort;
pub use instance::{Duplicate, Instance};
pub use message::{ToController, ToNode};
pub use name::{NodeName, SegmentName};
pub use place::Place;
pub use prefix::Prefix;
pub use rules::Rules;
pub use segment::{Ask, Unplaced};
pub use signed::{Digest, Signed, Verified, VerifyError};
pub use succession::Succession;
pub use token::Token;
pub use update::{EpochUpdate, Excluded, LeaseEnd, Mark, Member};
pub use way::Way;

/// The newest version of the control protocol that this build speaks. The first byte of a frame is the version that
/// brought its type, or changed its form last.
pub const PROTOCOL_VERSION: u8 = 2;
/// The oldest one that it speaks: the one before, so that a mesh is upgraded machine by machine.
pub const OLDEST_PROTOCOL_VERSION: u8 = PROTOCOL_VERSION - 1;
