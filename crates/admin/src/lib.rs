//! The admin socket's server, the same for both roles: JSON over HTTP on a Unix socket that only its
//! owner may open, and `GET /metrics` there and on an address for scrapers. A role brings its routes; all
//! that a path of one role has in common with a path of the other is here: the way to the one task that
//! owns the state, the form of a refusal, limits, and the answer to a path that does not exist.
//!
//! Decides nothing, and holds no state of a role.

#![forbid(unsafe_code)]

mod desk;
mod refused;
mod server;
#[cfg(test)]
mod tests;

pub use desk::{Desk, Question, Words};
pub use exposition::http::Caller;
pub use refused::Refused;
pub use server::{Body, form, router, serve, serve_metrics};
