//! The daemon's edge: settings, state directory, admin socket, logs,
//! signals.
//!
//! A library only so that tests can hold the commented examples under `docs/config` against the
//! same parser that the daemon uses.

#![forbid(unsafe_code)]

mod addresses;
pub mod check;
pub mod config;
pub mod descriptors;
pub mod founding;
pub mod init;
pub mod logging;
pub mod paths;
pub mod ports;
pub mod private;
pub mod reload;
pub mod settings;
pub mod signals;
pub mod socket;
pub mod starting;
pub mod state_dir;
pub mod stderr;
