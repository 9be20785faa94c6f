//! The controller's one clock. Epochs run on the boot-time clock, which no operator sets and which
//! goes on while the machine sleeps; the wall clock is for evidence, tokens and people.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// One moment, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since the machine booted, its sleep included.
    pub boot: Duration,
    /// By the calendar.
    pub wall: Timestamp,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self {
            boot: boot(),
            wall: Timestamp::now(),
        }
    }

    /// Milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        u64::try_from(self.wall.as_millisecond()).unwrap_or(0)
    }

    /// Seconds since 1970.
    pub fn unix(&self) -> u64 {
        u64::try_from(self.wall.as_second()).unwrap_or(0)
    }

    /// Milliseconds on the boot-time clock.
    pub fn boot_ms(&self) -> i64 {
        i64::try_from(self.boot.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Tells this boot of the machine from every other.
pub fn boot_id() -> String {
    // Without it, a restart falls back on the wall clock: correct to its error, never unsafe.
    std::fs::read_to_string(BOOT_ID).map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

/// Since the machine booted, its sleep included.
pub(crate) fn boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_runs_forward() {
        let (first, second) = (Now::read(), Now::read());
        assert!(first.boot > Duration::ZERO && second.boot >= first.boot);
    }
}
