//! The control channel as the agent sees it: up or down, and since when that is worth a line. Carries
//! nothing itself.

use crate::effect::Now;
use std::net::SocketAddr;
use std::time::Duration;
use wire::{Duplicate, Place, ToNode};

/// News of the control channel for the agent.
#[derive(Debug)]
pub enum SessionEvent {
    /// The controller has welcomed this node.
    Up {
        /// Which of the configured addresses it was.
        address: String,
        /// Where the controller is.
        remote: SocketAddr,
        /// When this connection was begun, on the boot-time clock.
        dialled: Duration,
        /// The node's places, one in each of its segments; the authority has signed them.
        places: Vec<Place>,
        /// The node's wall clock minus the controller's, in milliseconds.
        skew_ms: i64,
    },
    /// The controller says something.
    Message(Box<ToNode>),
    /// The connection is lost, or could not be made.
    Down {
        /// Which of the configured addresses it was.
        address: String,
        /// Why.
        error: String,
    },
    /// The controller serves another process that runs with this node's keys.
    Duplicate {
        /// Which of the configured addresses it was.
        address: String,
        /// The two processes.
        duplicate: Duplicate,
    },
}

/// The control channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Not connected; the address that was tried last and why it failed.
    Down {
        /// `None` before the first attempt.
        address: Option<String>,
        /// Likewise.
        error: Option<String>,
    },
    /// Welcomed.
    Up {
        /// Which of the configured addresses it is.
        address: String,
        /// Where the controller is.
        remote: SocketAddr,
        /// The controller's wall clock minus the node's boot-time clock, in milliseconds: both go on, whatever the
        /// node's wall clock is set to.
        apart_ms: i64,
    },
}

impl Default for Control {
    fn default() -> Self {
        Self::Down {
            address: None,
            error: None,
        }
    }
}

impl Control {
    /// Whether the controller has welcomed this node.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }

    /// The node's wall clock minus the controller's, in milliseconds; `None`: not connected.
    pub fn skew_ms(&self, now: Now) -> Option<i64> {
        match self {
            Self::Up { apart_ms, .. } => Some(ahead_ms(now).saturating_sub(*apart_ms)),
            Self::Down { .. } => None,
        }
    }

    pub(crate) fn up(&mut self, address: String, remote: SocketAddr, skew_ms: i64, now: Now) {
        tracing::info!(controller = %address, skew_ms, "control channel up");
        if skew_ms.unsigned_abs() > SKEW_WARNING_MS {
            tracing::warn!(
                skew_ms,
                "this machine's clock differs from the controller's: evidence may be refused"
            );
        }
        *self = Self::Up {
            address,
            remote,
            apart_ms: ahead_ms(now).saturating_sub(skew_ms),
        };
    }

    pub(crate) fn down(&mut self, address: String, error: String) {
        let is_news = match self {
            Self::Up { .. } | Self::Down { error: None, .. } => true,
            Self::Down { error: Some(_), .. } => false,
        };
        if is_news {
            tracing::warn!(controller = %address, %error, "control channel down; trying on");
        } else {
            tracing::debug!(controller = %address, %error, "no control channel yet");
        }
        self.refused(address, error);
    }

    /// The same where the operator has been told already.
    pub(crate) fn refused(&mut self, address: String, error: String) {
        *self = Self::Down {
            address: Some(address),
            error: Some(error),
        };
    }

    /// Gives a connection up, if there is one; whether there was.
    pub(crate) fn give_up(&mut self, error: &str) -> bool {
        let Self::Up { address, .. } = self else {
            return false;
        };
        *self = Self::Down {
            address: Some(std::mem::take(address)),
            error: Some(error.to_owned()),
        };
        true
    }
}

/// The wall clock minus the boot-time clock, in milliseconds.
fn ahead_ms(now: Now) -> i64 {
    let boot = i64::try_from(now.boot.as_millis()).unwrap_or(i64::MAX);
    now.wall.as_millisecond().saturating_sub(boot)
}

/// Clock skew from which on it is worth a warning, in milliseconds.
const SKEW_WARNING_MS: u64 = 5_000;
