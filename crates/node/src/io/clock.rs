//! The node's two clocks. Epochs run on the boot-time clock, which counts through suspend and knows
//! no steps; the wall clock is for evidence, logs and the operator's eye.

use agent::Now;
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

/// Both clocks, one after the other.
pub(crate) fn now() -> Now {
    Now {
        boot: boot(),
        wall: wall(),
    }
}

/// Both clocks at one moment. `None` where this thread was held up between the two, again and again.
pub(crate) fn both() -> Option<Now> {
    (0..ATTEMPTS).find_map(|_| {
        let now = now();
        let took = boot().saturating_sub(now.boot);
        (took < AT_ONCE).then_some(now)
    })
}

/// The identifier that the kernel draws at each boot (`random(4)`); empty where it shows none.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Sleeps until a time on the boot clock, but no longer than `longest`: tokio's clock stands still while the
/// machine sleeps, and the boot clock does not.
pub(crate) async fn until(at: Option<Duration>, longest: Duration) {
    let left = at.map_or(longest, |at| at.saturating_sub(boot()));
    tokio::time::sleep(left.min(longest)).await;
}

/// The wall clock.
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

/// The wall clock in milliseconds since 1970; zero before.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(wall().as_millisecond()).unwrap_or(0)
}

/// For the agent: both clocks are compared this often at least.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 3;
const AT_ONCE: Duration = Duration::from_millis(10);
