//! The policy engine's shell: enrolment, ingest, event log, push, admin.
//!
//! One task owns all state: it awaits an input and applies it synchronously to the
//! [`engine::Engine`], whose outputs are values. Tasks per connection are dumb pipes. Nothing takes
//! effect, and nobody is told, before it is durable in the event log, of which all durable state is
//! the fold. This crate refuses to carry packets, to hold a node's secrets and to link `tunnel`.
//!
//! | Module | Holds |
//! |---|---|
//! | [`open`](mod@open) | everything that can fail at the start, with the way out |
//! | [`serve`] | the loop: select, then apply |
//! | [`engine`] | the state and its timers, synchronous |
//! | [`rotate`], [`decide`] | a new epoch, from the decision to the push |
//! | [`enrol`], [`ingest`], [`push`], [`operator`] | what is said to the controller, and by it |
//! | [`log`](mod@log), [`event`], [`fleet`] | the event log, what is in it, what it folds to |
//! | [`network`] | the mesh's address ranges |
//! | `intake`, `outbox` | what a connection may take before the engine hears of it; what waits to be sent on it |
//! | [`session`], [`admin`], [`status`] | QUIC connection, admin socket, `status.json` |
//! | `reserve` | room on the disk for what must always be written |
//! | [`metrics`] | what is counted and measured, for scrapers |
//! | [`clock`] | the one clock |

pub mod admin;
pub mod clock;
pub mod decide;
pub mod effect;
pub mod engine;
pub mod enrol;
pub mod event;
pub mod fleet;
pub mod ingest;
pub mod log;
pub mod metrics;
pub mod network;
pub mod open;
pub mod operator;
pub mod push;
pub mod request;
pub mod rotate;
pub mod serve;
pub mod session;
pub mod status;

mod counts;
mod format;
mod inputs;
mod intake;
mod outbox;
mod reserve;
mod status_file;

pub use open::{Config, Controller, OpenError};
pub use serve::ServeError;

#[cfg(test)]
mod tests;
