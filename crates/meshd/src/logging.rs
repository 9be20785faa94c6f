//! Logs to standard error: one line per change of state, text or JSON.

use crate::settings::LogFormat;
use std::io::{IsTerminal as _, stderr};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Reads a level, or a filter in the form of `tracing-subscriber`.
///
/// # Errors
/// When `level` is not a filter.
pub fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    // Libraries speak at WARN unless the operator's filter names them.
    EnvFilter::try_new(format!("warn,{}", scoped(level)))
}

/// Installs the subscriber; once per process.
pub fn install(format: LogFormat, filter: EnvFilter) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .init(),
    }
}

/// A bare level means our own crates.
fn scoped(level: &str) -> String {
    if level.contains([',', '=']) {
        return level.to_owned();
    }
    OURS.map(|name| format!("{name}={level}")).join(",")
}

const OURS: [&str; 8] = [
    "meshd",
    "node",
    "controller",
    "epoch",
    "policy",
    "quic",
    "tunnel",
    "exposition",
];
