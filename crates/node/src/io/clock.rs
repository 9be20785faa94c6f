//! The node's two clocks. Epochs run on the boot-time clock, which counts through suspend and knows
//! no steps; the wall clock is for evidence, logs and the operator's eye.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Time since boot, suspend included (CLOCK_BOOTTIME, `clock_gettime(2)`).
pub(crate) fn boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// The wall clock.
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

/// The wall clock in milliseconds since 1970; zero before.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(wall().as_millisecond()).unwrap_or(0)
}
