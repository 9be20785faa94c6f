//! The timestamps that a peer's initiations have shown: which one is news, and which one a recording.
//!
//! An initiation under a recognised index is *named*: it says which generation it means, and is held
//! against that generation besides. Any other is a stock WireGuard's. The index is under MAC1 alone,
//! which anybody can make anew, so that a recording of either kind can come again as the other.
//!
//! Implementations disagree on TAI64N: boringtun adds the 37 leap seconds that TAI has had since 2017,
//! others the ten that TAI began with. A stock WireGuard in the place of a meshd therefore stamps as
//! if it came from 27 s before, and would be taken for a recording as long.

use crate::initiation::Timestamp;
use crate::limits::{MAX_NAMED, MAX_UNNAMED};
use std::collections::BTreeSet;

#[derive(Default)]
pub(crate) struct Stamps {
    /// The newest of all.
    newest: Timestamp,
    /// The newest of those that named no generation when they came: they must not name one that is
    /// installed later.
    unnamed: BTreeSet<Timestamp>,
    /// The newest of those that named one: they must not come again without a name, nor name another.
    named: BTreeSet<Timestamp>,
    /// Those that a clock showed which was set back afterwards, apart from the others: they would push out those
    /// that come at the right time.
    future: BTreeSet<Timestamp>,
    /// Up to here what has been shown is forgotten, and nothing without a name is news.
    forgotten: Timestamp,
}

impl Stamps {
    /// Of a peer that is known again: of what it has shown, all but the newest is forgotten.
    pub(crate) fn since(newest: Timestamp) -> Self {
        Self {
            newest,
            forgotten: newest,
            ..Self::default()
        }
    }

    pub(crate) fn newest(&self) -> Timestamp {
        self.newest
    }

    /// Keeps the timestamp of an initiation that names a generation. False if it has come before, with
    /// this name, another or none.
    pub(crate) fn show_named(&mut self, timestamp: Timestamp) -> bool {
        // Remembered before anything else is checked: an initiation that leads to nothing now may be
        // repeated when it would.
        let is_first = !self.future.contains(&timestamp)
            && self.named.insert(timestamp)
            && !self.unnamed.contains(&timestamp);
        if is_first {
            self.newest = self.newest.max(timestamp);
        }
        if self.named.len() > MAX_NAMED {
            let lowest = self.named.pop_first();
            self.forgotten = self.forgotten.max(lowest.unwrap_or_default());
        }
        is_first
    }

    /// Keeps the timestamp of one that names none. False if it may be a recording.
    pub(crate) fn show_unnamed(&mut self, timestamp: Timestamp) -> bool {
        let newest = self.newest;
        let is_newest_unnamed = self.unnamed.last().is_none_or(|last| *last < timestamp);
        let is_named = self.named.contains(&timestamp) || self.future.contains(&timestamp);
        let is_known = is_named || timestamp <= self.forgotten;
        // A recording of a named one must not stand in the way of a stock WireGuard, whose clock is
        // behind it. The newest stay: repeating old ones pushes none of them out.
        let is_first = !is_named && self.unnamed.insert(timestamp);
        if self.unnamed.len() > MAX_UNNAMED {
            self.unnamed.pop_first();
        }
        if !is_first {
            return false;
        }
        self.newest = newest.max(timestamp);
        let may_be_behind = is_newest_unnamed && !is_known && !timestamp.is_out_of_reach_of(newest);
        // After a step back, what is forgotten may be newer than the newest that counts.
        (timestamp > newest && timestamp > self.forgotten) || may_be_behind
    }

    /// Timestamps after `limit` are from the future of a clock that has been set back: they stay
    /// remembered, and nothing has to be newer any more. Returns the newest of those before, or `floor` if that
    /// is newer: what is older may have been forgotten, and is no news at any rate.
    pub(crate) fn set_back(&mut self, floor: Timestamp, limit: Timestamp) -> Timestamp {
        let before = |shown: &BTreeSet<Timestamp>| shown.range(..=limit).next_back().copied();
        let held = |stamp: Timestamp| (stamp <= limit).then_some(stamp);
        let kept = [
            before(&self.named),
            before(&self.unnamed),
            held(self.forgotten),
            held(self.newest),
        ];
        let kept = kept.into_iter().flatten().fold(floor, Timestamp::max);
        self.newest = kept;
        let past = |stamp: &Timestamp| *stamp <= limit;
        self.future.extend(self.named.iter().filter(|it| !past(it)));
        self.named.retain(past);
        while self.future.len() > MAX_NAMED {
            self.future.pop_first();
        }
        kept
    }

    /// How many are remembered, of either kind.
    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.named.len(), self.unnamed.len())
    }
}

impl Timestamp {
    /// Whether it is older than `newest` by more than clocks disagree that are right.
    fn is_out_of_reach_of(self, newest: Self) -> bool {
        self.later_by(LEAP_SECONDS) < newest
    }
}

/// Leap seconds between the beginning of TAI's offset in 1972 and 2017.
const LEAP_SECONDS: u64 = 27;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().later_by((1 << 62) + 1_000_000 + seconds)
    }

    #[test]
    fn a_stock_wireguard_in_the_place_of_another_is_heard_at_once() {
        let mut stamps = Stamps::default();
        for second in [37, 38, 47] {
            assert!(stamps.show_named(at(second)));
        }
        // Second 20 of a stock WireGuard has the look of second 47 of a meshd, and somebody who repeats
        // what was named then is not heard, and keeps nobody from being heard.
        for (second, is_news) in [(47, false), (20, true), (25, true), (47, false), (48, true)] {
            assert_eq!(stamps.show_unnamed(at(second)), is_news, "{second}");
        }
    }

    #[test]
    fn what_is_older_than_clocks_disagree_is_a_recording() {
        let mut stamps = Stamps::default();
        assert!(stamps.show_named(at(100)));
        assert!(!stamps.show_unnamed(at(72)));
        assert!(stamps.show_unnamed(at(73)));
        assert!(!stamps.show_unnamed(at(73)), "once");
        assert!(!stamps.show_unnamed(at(72)), "nor what came before it");
        assert!(stamps.show_unnamed(at(99)));
        assert!(!stamps.show_unnamed(at(74)), "below the newest unnamed");
    }

    #[test]
    fn a_recording_that_was_given_another_index_is_none_the_less_one() {
        let mut stamps = Stamps::default();
        for second in 0..40 {
            assert!(stamps.show_named(at(second)));
        }
        for second in 0..40 {
            assert!(!stamps.show_unnamed(at(second)), "{second}");
        }
        // And the other way.
        let mut stamps = Stamps::default();
        for second in 0..40 {
            assert!(stamps.show_unnamed(at(second)));
        }
        for second in 0..40 {
            assert!(!stamps.show_named(at(second)), "{second}");
        }
        // And under another name, whatever the clock does.
        let mut stamps = Stamps::default();
        for second in (0..40).rev() {
            assert!(stamps.show_named(at(second)));
        }
        for second in 0..40 {
            assert!(!stamps.show_named(at(second)), "{second}");
        }
    }

    #[test]
    fn one_that_names_nothing_any_more_but_did_is_a_recording() {
        let mut stamps = Stamps::default();
        assert!(stamps.show_named(at(50)));
        assert!(stamps.show_named(at(60)));
        assert!(!stamps.show_unnamed(at(50)));
        assert!(stamps.show_unnamed(at(55)));
    }

    #[test]
    fn what_was_remembered_and_had_to_be_forgotten_counts_as_shown() {
        let mut stamps = Stamps::default();
        let many = MAX_NAMED as u64 + 10;
        let moment = |number: u64| at(100).later_by_nanos(number as u32 * 1_000);
        for number in 0..many {
            assert!(stamps.show_named(moment(number)));
            assert!(stamps.len().0 <= MAX_NAMED);
        }
        // Between the forgotten ones nothing is news; between those that are remembered it is.
        assert!(!stamps.show_unnamed(at(99)));
        for number in 0..many {
            assert!(!stamps.show_unnamed(moment(number)), "{number}");
        }
        let between = moment(many - 2).later_by_nanos(500);
        assert!(stamps.show_unnamed(between));
    }

    #[test]
    fn of_a_peer_that_returns_nothing_from_before_is_news() {
        let mut stamps = Stamps::since(at(100));
        for second in 70..=100 {
            assert!(!stamps.show_unnamed(at(second)), "{second}");
        }
        assert!(stamps.show_unnamed(at(101)));
    }

    #[test]
    fn after_a_clock_was_set_back_the_future_bars_nothing_and_does_not_come_again() {
        for show in [Stamps::show_named, Stamps::show_unnamed] {
            let mut stamps = Stamps::default();
            for second in [50, 100, 90_000, 90_010] {
                assert!(show(&mut stamps, at(second)));
            }
            assert_eq!(stamps.set_back(at(70), at(130)), at(100));
            assert_eq!(stamps.newest(), at(100));
            for second in [50, 100, 90_000, 90_010] {
                assert!(!show(&mut stamps, at(second)), "{second} is a recording");
            }
        }
        // A future that had to be forgotten stays shown, as far as nothing names a generation.
        let mut stamps = Stamps::default();
        for number in 0..=MAX_NAMED as u64 {
            assert!(stamps.show_named(at(90_000 + number)));
        }
        stamps.set_back(at(70), at(130));
        assert!(!stamps.show_unnamed(at(90_000)), "it is a recording");
        // Nor does what was shown at the right time, and then pushed out of the memory by that future, become
        // news; and what comes at the right time afterwards is remembered beside it.
        let mut stamps = Stamps::default();
        for number in 0..100 {
            assert!(stamps.show_named(at(number)));
        }
        for number in 0..=MAX_NAMED as u64 {
            assert!(stamps.show_named(at(90_000 + number)));
        }
        assert_eq!(stamps.set_back(at(470), at(530)), at(470));
        assert!(stamps.show_named(at(500)));
        assert!(!stamps.show_named(at(500)), "it is remembered");
        assert!(!stamps.show_named(at(90_100)), "so is the future");
        // Without a future, nothing changes.
        let mut stamps = Stamps::since(at(100));
        assert_eq!(stamps.set_back(at(70), at(130)), at(100));
        assert!(!stamps.show_unnamed(at(99)));
    }

    #[test]
    fn whatever_a_peer_stamps_what_is_remembered_is_bounded() {
        let mut stamps = Stamps::default();
        let last = Timestamp::default().later_by(u64::MAX);
        for second in 0..1_000 {
            stamps.show_named(at(second));
            stamps.show_unnamed(at(second));
        }
        assert!(stamps.show_named(last));
        assert!(!stamps.show_unnamed(last));
        assert_eq!(stamps.newest(), last);
        assert!(stamps.len().0 <= MAX_NAMED && stamps.len().1 <= MAX_UNNAMED);
    }
}
