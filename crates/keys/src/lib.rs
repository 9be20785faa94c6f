//! Identities, secrets and the key schedule.
//!
//! This crate owns every secret type: nothing else constructs one, and the only way to the bytes of
//! one is its `expose()`, so that a review of where secrets go is a search for that word. It refuses
//! to read clocks, files or the operating system's randomness: callers pass a generator.
//!
//! | Module | Holds |
//! |---|---|
//! | [`public`] | public keys by role, with their printed prefixes |
//! | [`signing`] | Ed25519 secrets by role |
//! | [`wireguard`] | X25519 secrets and the static-static shared secret of a pair |
//! | [`schedule`] | epoch secret → node key → pair PSK → index tag, as a table of labels |
//! | [`scope`] | where a key is valid: mesh, segment, epoch |
//! | [`token`] | the single-use secret in an enrolment token |

#![forbid(unsafe_code)]

pub mod public;
pub mod schedule;
pub mod scope;
pub mod signing;
pub mod token;
pub mod wireguard;

mod secret;

pub use public::{
    AuthorityId, ControllerId, EvaluatorId, KeyParseError, LogId, NodeId, WgPublicKey, write_hex,
};
pub use schedule::{Commitment, EpochSecret, NodeKey, Psk};
pub use scope::{Epoch, MeshId, Scope, SegmentId};
pub use secret::SecretParseError;
pub use signing::{
    AuthoritySecret, ControllerSecret, EvaluatorSecret, LogSecret, NodeSecret, Signature,
};
pub use token::{TokenHash, TokenSecret};
pub use wireguard::{SharedSecret, WgSecret};
