//! The daemon's edge: settings, state directory, admin socket, logs.
//!
//! A library only so that tests can hold the commented examples under `docs/config` against the
//! same parser that the daemon uses.

#![forbid(unsafe_code)]

mod addresses;
pub mod config;
pub mod founding;
pub mod logging;
pub mod private;
pub mod settings;
pub mod socket;
pub mod state_dir;
