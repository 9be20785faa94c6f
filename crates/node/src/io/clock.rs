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

/// Both clocks at one moment: the wall clock in nanoseconds since 1970. `None` where this thread was held
/// up between the two, again and again.
pub(crate) fn both() -> Option<(Duration, i128)> {
    (0..ATTEMPTS).find_map(|_| {
        let before = boot();
        let wall = wall().as_nanosecond();
        let took = boot().saturating_sub(before);
        (took < AT_ONCE).then_some((before, wall))
    })
}

/// The wall clock.
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

/// The wall clock in milliseconds since 1970; zero before.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(wall().as_millisecond()).unwrap_or(0)
}

const ATTEMPTS: u32 = 3;
const AT_ONCE: Duration = Duration::from_millis(10);
