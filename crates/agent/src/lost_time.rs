//! Time that this machine's clocks did not count. The boot-time clock goes on while a machine sleeps,
//! but not while a virtual machine is paused, nor between a snapshot and its restoration. The wall clock
//! stands still as well, until somebody sets it: then it jumps ahead of the boot-time clock, and the jump
//! is what was lost. Somebody who sets a clock that was wrong looks the same.

use std::time::Duration;

/// The wall clock moved against the boot-time clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is ahead: so much time was lost.
    Lost(Duration),
    /// It was set back by so much.
    SetBack(Duration),
}

/// Compares the two clocks.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// The wall clock less the boot-time clock, in nanoseconds, as it was believed last.
    offset: Option<i128>,
}

impl Clocks {
    /// Takes a reading of both; the step since the last one.
    pub(crate) fn handle_reading(&mut self, boot: Duration, wall: i128) -> Option<Step> {
        let offset = wall - i128::try_from(boot.as_nanos()).unwrap_or(i128::MAX);
        let before = *self.offset.get_or_insert(offset);
        let ahead = offset - before;
        if ahead < 0 {
            // Set back: nothing is lost, and coming forward again will count.
            self.offset = Some(offset);
        }
        // Small steps forward add up, as the offset is kept: many short pauses are a long one.
        let tolerance = TOLERANCE.as_nanos().cast_signed();
        if ahead.abs() < tolerance {
            return None;
        }
        self.offset = Some(offset);
        let nanos = u64::try_from(ahead.unsigned_abs()).unwrap_or(u64::MAX);
        let by = Duration::from_nanos(nanos);
        Some(if ahead < 0 {
            Step::SetBack(by)
        } else {
            Step::Lost(by)
        })
    }
}

/// Wall clocks that are being corrected run a little faster.
const TOLERANCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    /// Steps in whole seconds, for a row of readings in seconds.
    fn steps(readings: &[(u64, f64)]) -> Vec<i64> {
        let mut clocks = Clocks::default();
        let whole = |by: Duration| (by.as_secs_f64() + 1e-6) as i64;
        let steps = readings.iter().filter_map(|(boot, wall)| {
            let wall = (wall * SECOND as f64) as i128;
            clocks.handle_reading(Duration::from_secs(*boot), wall)
        });
        let steps = steps.map(|step| match step {
            Step::Lost(by) => whole(by),
            Step::SetBack(by) => -whole(by),
        });
        steps.collect()
    }

    /// Lost seconds alone.
    fn lost(readings: &[(u64, f64)]) -> Vec<i64> {
        let steps = steps(readings).into_iter();
        steps.filter(|step| *step > 0).collect()
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
        assert_eq!(
            steps(&[(10, 1000.0), (11, 101.0), (12, 1002.0)]),
            [-900, 900]
        );
        assert!(steps(&[(10, 1000.0), (11, 1000.5)]).is_empty());
    }
}
