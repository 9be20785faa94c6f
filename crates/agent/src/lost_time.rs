//! Time that this machine's clocks did not count. The boot-time clock goes on while a machine sleeps,
//! but not while a virtual machine is paused, nor between a snapshot and its restoration. The wall clock
//! stands still as well, until somebody sets it: then it jumps ahead of the boot-time clock, and the jump
//! is what was lost. Somebody who sets a clock that was wrong looks the same.

use std::time::Duration;

/// Compares the two clocks.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// The wall clock less the boot-time clock, in nanoseconds, as it was believed last.
    offset: Option<i128>,
}

impl Clocks {
    /// Takes a reading of both; the time that was lost since the last one.
    pub(crate) fn handle_reading(&mut self, boot: Duration, wall: i128) -> Option<Duration> {
        let offset = wall - i128::try_from(boot.as_nanos()).unwrap_or(i128::MAX);
        let before = *self.offset.get_or_insert(offset);
        let ahead = offset - before;
        if ahead < 0 {
            // Set back: nothing is lost, and coming forward again will count.
            self.offset = Some(offset);
        }
        // Small steps add up, as the offset is kept: many short pauses are a long one.
        if ahead < TOLERANCE.as_nanos().cast_signed() {
            return None;
        }
        self.offset = Some(offset);
        let nanos = u64::try_from(ahead).unwrap_or(u64::MAX);
        Some(Duration::from_nanos(nanos))
    }
}

/// Wall clocks that are being corrected run a little faster.
const TOLERANCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    /// Lost seconds, for a row of readings in seconds.
    fn lost(readings: &[(u64, f64)]) -> Vec<u64> {
        let mut clocks = Clocks::default();
        let readings = readings.iter().filter_map(|(boot, wall)| {
            let wall = (wall * SECOND as f64) as i128;
            clocks.handle_reading(Duration::from_secs(*boot), wall)
        });
        readings
            .map(|lost| (lost.as_secs_f64() + 1e-6) as u64)
            .collect()
    }

    #[test]
    fn clocks_that_go_together_lose_nothing_and_a_pause_is_what_the_wall_clock_is_ahead() {
        assert!(lost(&[(10, 1000.0), (11, 1001.0), (500, 1490.0)]).is_empty());
        assert_eq!(lost(&[(10, 1000.0), (11, 4601.0), (12, 4602.0)]), [3600]);
        assert_eq!(lost(&[(10, 1000.0), (11, 1061.0), (12, 1122.0)]), [60, 60]);
    }

    #[test]
    fn short_pauses_add_up() {
        let readings: Vec<_> = (0..100).map(|n| (n, 1.9 * n as f64)).collect();
        // Every second reading is more than the tolerance ahead, by 1.8 s.
        assert_eq!(lost(&readings), [1; 49]);
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing_until_it_comes_forward_again() {
        assert!(lost(&[(10, 1000.0), (11, 101.0), (12, 102.0)]).is_empty());
        assert_eq!(lost(&[(10, 1000.0), (11, 101.0), (12, 1002.0)]), [900]);
        assert!(lost(&[(10, -5.0), (11, -4.0)]).is_empty(), "before 1970");
    }
}
