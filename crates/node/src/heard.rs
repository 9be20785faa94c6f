//! When the controller was last heard: on the connection that there is, or on the one before. Decides nothing.

use quic::Pulse;
use std::time::Duration;

/// The controller's last sign of life.
#[derive(Debug, Default)]
pub(crate) enum Heard {
    /// There was no connection since the start.
    #[default]
    Never,
    /// There is a connection.
    On(Pulse),
    /// There was one; the last sign on it, on the boot-time clock.
    At(Duration),
}

impl Heard {
    /// The controller has welcomed this node.
    pub(crate) fn connected(&mut self, pulse: Pulse) {
        *self = Self::On(pulse);
    }

    /// The connection is lost, or could not be made.
    pub(crate) fn disconnected(&mut self, now: Duration) {
        if let Self::On(pulse) = self {
            *self = Self::At(now.saturating_sub(pulse.silence()));
        }
    }

    /// For how long nothing has been heard; `None`: since the start.
    pub(crate) fn silence(&self, now: Duration) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::On(pulse) => Some(pulse.silence()),
            Self::At(at) => Some(now.saturating_sub(*at)),
        }
    }
}
