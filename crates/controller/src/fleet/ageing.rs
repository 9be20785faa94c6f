//! How old something is, on a clock that nobody sets. All of it is folded from the log: a replay gives the same
//! ages.

use crate::clock::{Now, steps_back};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When something was written down, on a clock that nobody sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ageing {
    /// It is counted.
    Counted {
        /// By the calendar.
        at: Timestamp,
        /// On the boot-time clock, in milliseconds; negative: before this boot.
        boot_ms: i64,
    },
    /// The calendar was set back while no other clock counted: nobody knows.
    Unknown,
}

impl Ageing {
    /// By the calendar.
    pub(super) fn at(self) -> Option<Timestamp> {
        match self {
            Self::Counted { at, .. } => Some(at),
            Self::Unknown => None,
        }
    }

    /// Counted anew from a start of the controller on: it is as old as the calendar says then. `last` is the time
    /// of the newest event before. A calendar that is behind that was set back while nobody counted, so that
    /// nobody knows how old anything is.
    pub(super) fn restart(self, last: Option<Timestamp>, start: Now) -> Self {
        let Self::Counted { at, .. } = self else {
            return self;
        };
        if steps_back(last.map_or(at, |last| last.max(at)), start.wall) {
            return Self::Unknown;
        }
        let age = start.wall.as_millisecond() - at.as_millisecond();
        let boot_ms = start.boot_ms().saturating_sub(age);
        Self::Counted { at, boot_ms }
    }

    /// The time that has passed; `None`: nobody knows.
    pub(super) fn age(self, now: Now) -> Option<Duration> {
        let Self::Counted { boot_ms, .. } = self else {
            return None;
        };
        // Within the second by which two readings of one clock may differ.
        let ms = now.boot_ms().saturating_sub(boot_ms).max(0);
        Some(Duration::from_millis(ms.unsigned_abs()))
    }
}
