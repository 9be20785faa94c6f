//! The life of an epoch, as two machines without IO: time goes in as a duration on the machine's
//! boot clock, effects come out as values.
//!
//! ```text
//! controller   decide ─▶ sign ─▶ persist ─▶ push                                       authority
//! node                                      verify ─▶ install ─▶ activate ─▶ discard    member
//!                                                     next      next→current→previous
//! ```
//!
//! This crate does not know the data plane: [`Command`]s are carried out elsewhere, one by one. It refuses anything that is not a [`wire::Verified`] update.

#![forbid(unsafe_code)]

pub mod authority;
pub mod command;
mod derivation;
pub mod member;
mod plan;

pub use command::{Change, Command, EpochChange, Install, Keep, Notice, Turn};
pub use derivation::{Derivation, Derived};
pub use member::{DERIVE_AT_ONCE, Member, UpdateError};
pub use plan::PeerPlan;
