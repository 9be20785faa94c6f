//! The controller's one clock. Epochs run on the boot-time clock, which no operator sets and which
//! goes on while the machine sleeps; the wall clock is for evidence, tokens and people.

use jiff::{SignedDuration, Timestamp};
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
    /// Reads both clocks, at one moment if the system lets it: a thread that is held up between the two would
    /// take that for a step.
    pub fn read() -> Self {
        let both = || {
            let (boot, wall) = (boot(), whole_ms(Timestamp::now()));
            Self { boot, wall }
        };
        let mut attempts = (0..ATTEMPTS).map(|_| both());
        let at_once = attempts.find(|now| boot().saturating_sub(now.boot) < AT_ONCE);
        at_once.unwrap_or_else(both)
    }

    /// A moment that was written down; before this boot, the boot-time clock stands at zero.
    pub(crate) fn at(boot_ms: i64, wall: Timestamp) -> Self {
        let boot = Duration::from_millis(u64::try_from(boot_ms).unwrap_or(0));
        Self { boot, wall }
    }

    /// The calendar's time of a moment on the boot-time clock.
    pub(crate) fn calendar(&self, boot: Duration) -> Timestamp {
        let ahead = SignedDuration::try_from(boot).unwrap_or(SignedDuration::MAX);
        let since = SignedDuration::try_from(self.boot).unwrap_or(SignedDuration::MAX);
        let at = self.wall.checked_add(ahead.saturating_sub(since));
        at.unwrap_or(Timestamp::MAX)
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

/// Without the part of a millisecond that the log does not keep: a decision must be the same when it is replayed.
fn whole_ms(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

/// Whether the calendar shows an earlier time than it did, by more than two readings of it may differ.
pub(crate) fn steps_back(before: Timestamp, now: Timestamp) -> bool {
    before.duration_since(now) >= STEP
}

/// The steps of the wall clock against the boot-time clock.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// The wall clock less the boot-time clock, at the last reading.
    offset: Option<SignedDuration>,
    newest: Option<Step>,
}

/// One step of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Negative: it was set back.
    pub(crate) by: SignedDuration,
    /// When it was seen, on the boot-time clock.
    pub(crate) seen: Duration,
}

impl Steps {
    /// The clock that goes on from the newest event of the log.
    pub(crate) fn since(last_at: Option<Timestamp>, now: Now) -> Self {
        let mut steps = Self::default();
        if let Some(last) = last_at.filter(|last| steps_back(*last, now.wall)) {
            // By as much at least: nothing says how long nobody has looked.
            steps.step(now.wall.duration_since(last), now);
        }
        steps
    }

    /// Takes a reading; whether the wall clock was set since the last one.
    pub(crate) fn handle_reading(&mut self, now: Now) -> bool {
        let boot = SignedDuration::try_from(now.boot).unwrap_or(SignedDuration::MAX);
        let wall = now.wall.as_duration();
        let offset = wall.saturating_sub(boot);
        let before = self.offset.replace(offset).unwrap_or(offset);
        let by = offset.saturating_sub(before);
        let is_step = by.abs() >= STEP;
        if is_step {
            self.step(by, now);
        }
        is_step
    }

    /// The newest step, as long as it may matter.
    pub(crate) fn newest(&self, now: Now) -> Option<Step> {
        let is_news = |step: &Step| now.boot.saturating_sub(step.seen) < STEP_SHOWN;
        self.newest.filter(is_news)
    }

    fn step(&mut self, by: SignedDuration, now: Now) {
        let seconds = by.as_secs();
        if by.is_negative() {
            tracing::warn!(
                seconds,
                "the wall clock was set back: evidence of runs that end after the time that it shows now is \
                 void, and newer runs replace it; epochs and leases go by another clock"
            );
        } else {
            tracing::warn!(
                seconds,
                "the wall clock was set forward, or this machine stood still: evidence and tokens are older \
                 by as much; epochs and leases go by another clock"
            );
        }
        let seen = now.boot;
        self.newest = Some(Step { by, seen });
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

/// Less than this is a correction, or the time between two readings.
const STEP: SignedDuration = SignedDuration::from_secs(1);
/// How long the status shows a step: the evidence and the tokens that it concerns are replaced by then, or
/// are shown themselves.
const STEP_SHOWN: Duration = Duration::from_secs(600);
const ATTEMPTS: u32 = 3;
const AT_ONCE: Duration = Duration::from_millis(10);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_runs_forward() {
        let (first, second) = (Now::read(), Now::read());
        assert!(first.boot > Duration::ZERO && second.boot >= first.boot);
    }

    fn at(boot: u64, wall: i64) -> Now {
        Now {
            boot: Duration::from_secs(boot),
            wall: Timestamp::from_second(wall).unwrap(),
        }
    }

    #[test]
    fn each_step_of_the_wall_clock_is_seen_once_in_either_direction() {
        let mut steps = Steps::default();
        let readings = [
            (10, 1_000, None),
            (20, 1_010, None),
            (21, 87_411, Some(86_400)),
            (22, 87_412, None),
            (30, 1_020, Some(-86_400)),
            (31, 1_021, None),
            // The machine slept, and both clocks went on.
            (5_031, 6_021, None),
            (5_032, 6_082, Some(60)),
        ];
        for (boot, wall, step) in readings {
            let now = at(boot, wall);
            assert_eq!(steps.handle_reading(now), step.is_some(), "{boot}");
            let shown = steps.newest(now).map(|step| step.by.as_secs());
            assert!(step.is_none() || shown == step, "{boot}");
        }
        assert_eq!(steps.newest(at(6_000, 7_050)), None, "it matters no more");
    }

    #[test]
    fn a_clock_that_is_behind_the_log_was_set_back() {
        let last = Timestamp::from_second(1_000).ok();
        let step = |wall| Steps::since(last, at(10, wall)).newest(at(10, wall));
        assert_eq!(step(400).map(|step| step.by.as_secs()), Some(-600));
        assert_eq!((step(1_000), step(5_000)), (None, None));
        let now = at(100, 1_000);
        let calendar = |boot| now.calendar(Duration::from_secs(boot)).as_second();
        assert_eq!((calendar(40), calendar(160)), (940, 1_060));
    }
}
