//! The controller's side of one segment: when a new epoch is due, and how long everything in its
//! update lasts.
//!
//! Sans-IO: time is an argument, counted on the machine's boot-time clock. The machine refuses to
//! know who is a member or what a secret is. The caller asks [`Authority::due`], decides on the
//! roster, turns a [`Schedule`] into a signed update, makes it durable, and only then calls
//! [`Authority::publish`]: a failure on the way leaves the machine as it was.
//!
//! ```text
//!        publish                          handle_timeout(activation)
//! Start ────────► InForce ── publish ──► Pending ──────────────────► InForce
//!                    ▲                    │    ▲ └─ publish (supersedes `next`, number + 1)
//!                    └── publish (no lead)┘    └────────┘
//! ```
//!
//! | Kind | Lead | Scheduled end |
//! |---|---|---|
//! | [`Kind::Scheduled`] | min(5 s, epoch / 4) | a whole epoch after its beginning |
//! | [`Kind::Join`] | min(1 s, epoch / 4) | that of the epoch in force; too late for that: it waits for the scheduled one |
//! | [`Kind::Immediate`] | none | that of the epoch in force; too late for that: a whole epoch |
//!
//! The tests are the longer part of the file.
//!
//! The file is long because a third of it and more is its tests.

use keys::Epoch;
use std::time::Duration;
use wire::update::LeaseEnd;
use wire::{Digest, EpochUpdate};

/// The policy's durations, and a node's action at the end of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Scheduled length of an epoch.
    pub epoch: Duration,
    /// From an epoch's beginning: how long a node without news goes on.
    pub lease: Duration,
    /// A node's action after that.
    pub on_lease_end: LeaseEnd,
}

/// Why an epoch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The epoch before ends, or an operator asked for a rotation.
    Scheduled,
    /// Members are added to a roster that has some.
    Join,
    /// Members are removed at once, or nobody is there who could lose a packet.
    Immediate,
}

/// An epoch's place on the boot-time clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The epoch.
    pub epoch: Epoch,
    /// Digest of its signed update.
    pub update: Digest,
    /// When it begins.
    pub activates: Duration,
    /// When it is scheduled to end.
    pub ends: Duration,
}

/// All of an [`EpochUpdate`] that is not membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Why.
    pub kind: Kind,
    /// The epoch's number.
    pub epoch: Epoch,
    /// Digest of the update before; zeros for the first.
    pub previous: Digest,
    /// Milliseconds from now until the epoch begins.
    pub activate_in_ms: u64,
    /// Milliseconds from its beginning to its scheduled end.
    pub epoch_ms: u64,
    /// Milliseconds from its beginning to the end of the lease.
    pub lease_ms: u64,
    /// Milliseconds for which the epoch before is still accepted.
    pub grace_ms: u64,
    /// A node's action when the lease ends.
    pub on_lease_end: LeaseEnd,
    signed_at: Duration,
}

/// The event that [`Authority::poll_timeout`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// A published epoch begins: call [`Authority::handle_timeout`].
    Activation,
    /// The next update is due: decide, then [`Authority::publish`].
    Scheduled,
}

/// Why an update cannot be published now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// A published epoch has not begun; try again when it has.
    #[error("an epoch is on its way")]
    Pending,
    /// The scheduled update is so near that it will do.
    #[error("the scheduled update is about to go out")]
    Soon,
}

/// The machine.
///
/// Call contract: wait for [`Self::poll_timeout`]; at [`Timer::Activation`] call [`Self::handle_timeout`], at
/// [`Timer::Scheduled`] decide who is a member. For every update: [`Self::schedule`], then sign, then make the
/// update durable, then [`Self::publish`] with the same schedule, and only then tell anybody. A schedule is
/// good for the state that it was asked in; between the two calls nothing else may be published.
#[derive(Debug, Clone)]
pub struct Authority {
    timing: Timing,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start(Start),
    InForce(InForce),
    Pending(Pending),
}

/// Nothing was ever published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start;

/// One epoch holds; nothing is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InForce {
    current: Span,
}

/// One epoch holds; its successor is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    current: Span,
    next: Span,
}

impl Authority {
    /// A segment without history: its first epoch is due.
    pub fn new(timing: Timing) -> Self {
        let state = State::Start(Start);
        Self { timing, state }
    }

    /// A segment as it was recorded: the epoch in force, and its successor if one was published.
    /// Spans that lie before the machine's boot are given as zero.
    pub fn resume(timing: Timing, current: Span, next: Option<Span>, now: Duration) -> Self {
        let state = match next.filter(|next| next.epoch > current.epoch) {
            Some(next) => State::Pending(Pending { current, next }),
            None => State::InForce(InForce { current }),
        };
        let mut authority = Self { timing, state };
        authority.handle_timeout(now);
        authority
    }

    /// The epoch in force.
    pub fn in_force(&self) -> Option<&Span> {
        match &self.state {
            State::Start(Start) => None,
            State::InForce(InForce { current }) | State::Pending(Pending { current, .. }) => {
                Some(current)
            }
        }
    }

    /// The epoch that is published and has not begun.
    pub fn next(&self) -> Option<&Span> {
        match &self.state {
            State::Start(Start) | State::InForce(InForce { .. }) => None,
            State::Pending(Pending { next, .. }) => Some(next),
        }
    }

    /// When to look again, and what for.
    pub fn poll_timeout(&self) -> (Duration, Timer) {
        match &self.state {
            State::Start(Start) => (Duration::ZERO, Timer::Scheduled),
            State::InForce(InForce { current }) => (self.due_at(current), Timer::Scheduled),
            State::Pending(Pending { next, .. }) => (next.activates, Timer::Activation),
        }
    }

    /// Lets a published epoch begin whose time has come; returns its number if it did.
    pub fn handle_timeout(&mut self, now: Duration) -> Option<Epoch> {
        match self.state {
            State::Pending(Pending { next, .. }) if next.activates <= now => {
                self.state = State::InForce(InForce { current: next });
                Some(next.epoch)
            }
            State::Start(Start) | State::InForce(InForce { .. }) | State::Pending(_) => None,
        }
    }

    /// Whether the scheduled update is due. Stays true until it is published.
    pub fn due(&self, now: Duration) -> bool {
        let (at, timer) = self.poll_timeout();
        timer == Timer::Scheduled && at <= now
    }

    /// The durations of an update of this kind, signed now. Changes nothing.
    ///
    /// # Errors
    /// [`NotNow`] for a join that has to wait. Other kinds supersede an epoch that is on its way.
    pub fn schedule(&self, kind: Kind, now: Duration) -> Result<Schedule, NotNow> {
        let (activates, ends) = match kind {
            Kind::Scheduled => self.scheduled(now),
            Kind::Join => self.join(now)?,
            Kind::Immediate => self.immediate(now),
        };
        let length = ends.saturating_sub(activates);
        // Durations and no times of day go into the update: a node whose calendar is wrong, or was made wrong,
        // begins and ends its epochs with the others.
        let newest = self.next().or_else(|| self.in_force());
        Ok(Schedule {
            kind,
            epoch: newest.map_or(Epoch(0), |span| span.epoch).next(),
            previous: newest.map_or(Digest::default(), |span| span.update),
            activate_in_ms: millis(activates.saturating_sub(now)),
            epoch_ms: millis(length).max(1),
            lease_ms: millis(self.timing.lease).max(1),
            grace_ms: millis(GRACE.min(length / 2)),
            on_lease_end: self.timing.on_lease_end,
            signed_at: now,
        })
    }

    /// The update with this schedule and digest is durable and goes out.
    ///
    /// # Panics
    /// Never on a schedule of this machine's present state; one from an earlier state is ignored
    /// in release builds, so that an epoch's number cannot go back.
    pub fn publish(&mut self, schedule: &Schedule, update: Digest) {
        // Two updates with one number would be a fork: nodes that took one refuse the other for ever, and an
        // eviction in it would not reach them.
        let newest = self.next().or_else(|| self.in_force());
        let stale = newest.is_some_and(|span| span.epoch >= schedule.epoch);
        debug_assert!(!stale, "a schedule is used once");
        if stale {
            return;
        }
        let span = schedule.span(update);
        // An epoch without lead is in force with this call. The one before and one on its way are forgotten
        // here in the same step, so that neither can begin after the members of it were judged anew.
        self.state = match self.in_force() {
            Some(current) if schedule.activate_in_ms > 0 => State::Pending(Pending {
                current: *current,
                next: span,
            }),
            _ => State::InForce(InForce { current: span }),
        };
    }

    /// When the next scheduled update goes out.
    fn due_at(&self, current: &Span) -> Duration {
        current.ends.saturating_sub(self.lead())
    }

    fn lead(&self) -> Duration {
        LEAD.min(self.timing.epoch / 4)
    }

    fn short_lead(&self) -> Duration {
        SHORT_LEAD.min(self.timing.epoch / 4)
    }

    fn scheduled(&self, now: Duration) -> (Duration, Duration) {
        let activates = match self.in_force() {
            None => now,
            // Late, as after a restart: what is left of the lead, but never less than nodes need.
            Some(current) if self.due_at(current) <= now => {
                current.ends.max(now + self.short_lead())
            }
            Some(_) => now + self.lead(),
        };
        (activates, activates + self.timing.epoch)
    }

    fn join(&self, now: Duration) -> Result<(Duration, Duration), NotNow> {
        let lead = self.short_lead();
        match &self.state {
            State::Start(Start) => Ok((now, now + self.timing.epoch)),
            State::Pending(_) => Err(NotNow::Pending),
            State::InForce(InForce { current }) if now + 2 * lead > self.due_at(current) => {
                Err(NotNow::Soon)
            }
            State::InForce(InForce { current }) => Ok((now + lead, current.ends)),
        }
    }

    fn immediate(&self, now: Duration) -> (Duration, Duration) {
        // The scheduled end is kept where there is time for it: an attacker who causes evictions must not be
        // able to put off, again and again, the rotation at which everybody is judged.
        let whole = now + self.timing.epoch;
        let kept = self.in_force().map(|current| current.ends);
        (
            now,
            kept.filter(|ends| *ends >= now + 2 * self.lead())
                .unwrap_or(whole),
        )
    }
}

impl Schedule {
    /// The epoch's place on the clock.
    pub fn span(&self, update: Digest) -> Span {
        let activates = self.signed_at + Duration::from_millis(self.activate_in_ms);
        Span {
            epoch: self.epoch,
            update,
            activates,
            ends: activates + Duration::from_millis(self.epoch_ms),
        }
    }
}

impl Span {
    /// The place on the clock of an update that was signed at `signed_at`.
    pub fn of(update: &EpochUpdate, digest: Digest, signed_at: Duration) -> Self {
        let activates = signed_at + update.activate_in();
        Self {
            epoch: update.epoch,
            update: digest,
            activates,
            ends: activates + update.length(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long before its beginning a scheduled epoch is published, at most.
const LEAD: Duration = Duration::from_secs(5);
/// The lead of an epoch that only adds members, and the least lead of a late one.
const SHORT_LEAD: Duration = Duration::from_secs(1);
/// How long sessions of the epoch before are accepted, at most.
const GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn timing(epoch: Duration) -> Timing {
        Timing {
            epoch,
            lease: s(300),
            on_lease_end: LeaseEnd::Close,
        }
    }

    fn publish(authority: &mut Authority, kind: Kind, now: Duration) -> Schedule {
        let schedule = authority.schedule(kind, now).unwrap();
        authority.publish(&schedule, Digest([1; 32]));
        schedule
    }

    /// Epoch 1 in force from second 100 to 160.
    fn running() -> Authority {
        let mut authority = Authority::new(timing(s(60)));
        publish(&mut authority, Kind::Scheduled, s(100));
        authority
    }

    #[test]
    fn the_first_epoch_is_due_at_once_and_has_no_lead() {
        let mut authority = Authority::new(timing(s(60)));
        assert!(authority.due(Duration::ZERO));
        let first = publish(&mut authority, Kind::Scheduled, s(100));
        assert_eq!((first.epoch, first.activate_in_ms), (Epoch(1), 0));
        assert_eq!(first.previous, Digest::default());
        assert_eq!((first.epoch_ms, first.grace_ms), (60_000, 2_000));
        assert_eq!(authority.in_force().unwrap().ends, s(160));
    }

    #[test]
    fn a_scheduled_update_goes_out_a_lead_before_the_end() {
        let mut authority = running();
        assert_eq!(authority.poll_timeout(), (s(155), Timer::Scheduled));
        assert!(!authority.due(s(154)) && authority.due(s(155)));
        let second = publish(&mut authority, Kind::Scheduled, s(155));
        assert_eq!((second.epoch, second.activate_in_ms), (Epoch(2), 5_000));
        assert_eq!(second.previous, Digest([1; 32]));
        assert_eq!(authority.poll_timeout(), (s(160), Timer::Activation));
        assert!(!authority.due(s(159)));
        assert_eq!(authority.handle_timeout(s(159)), None);
        assert_eq!(authority.handle_timeout(s(160)), Some(Epoch(2)));
        assert_eq!(authority.in_force().unwrap().ends, s(220));
    }

    #[test]
    fn short_epochs_have_leads_of_a_quarter_and_graces_of_half() {
        let mut authority = Authority::new(timing(s(2)));
        let first = publish(&mut authority, Kind::Scheduled, s(10));
        assert_eq!(first.grace_ms, 1_000);
        let (at, _) = authority.poll_timeout();
        assert_eq!(at, Duration::from_millis(11_500));
    }

    #[test]
    fn an_operators_rotation_is_a_whole_epoch_after_a_whole_lead() {
        let mut authority = running();
        let rotated = publish(&mut authority, Kind::Scheduled, s(110));
        assert_eq!((rotated.activate_in_ms, rotated.epoch_ms), (5_000, 60_000));
    }

    #[test]
    fn a_join_keeps_the_scheduled_end() {
        let mut authority = running();
        let join = publish(&mut authority, Kind::Join, s(120));
        assert_eq!((join.activate_in_ms, join.epoch_ms), (1_000, 39_000));
        assert_eq!(authority.handle_timeout(s(121)), Some(Epoch(2)));
        assert_eq!(authority.poll_timeout(), (s(155), Timer::Scheduled));
    }

    #[test]
    fn a_join_just_before_the_scheduled_update_waits_for_it() {
        let mut authority = running();
        assert!(authority.schedule(Kind::Join, s(153)).is_ok());
        assert_eq!(
            authority.schedule(Kind::Join, s(154)),
            Err(NotNow::Soon),
            "it would begin no earlier than the scheduled update goes out"
        );
        publish(&mut authority, Kind::Scheduled, s(155));
        assert_eq!(authority.schedule(Kind::Join, s(156)), Err(NotNow::Pending));
    }

    #[test]
    fn an_immediate_epoch_has_no_lead_and_keeps_the_end_while_there_is_room() {
        let mut authority = running();
        let early = publish(&mut authority, Kind::Immediate, s(120));
        assert_eq!((early.activate_in_ms, early.epoch_ms), (0, 40_000));
        let late = publish(&mut authority, Kind::Immediate, s(151));
        assert_eq!((late.epoch, late.epoch_ms), (Epoch(3), 60_000));
    }

    #[test]
    fn an_immediate_epoch_supersedes_one_that_has_not_begun() {
        let mut authority = running();
        publish(&mut authority, Kind::Scheduled, s(155));
        let early = publish(&mut authority, Kind::Immediate, s(156));
        assert_eq!(early.epoch, Epoch(3));
        assert_eq!(authority.next(), None);
        assert_eq!(authority.in_force().unwrap().epoch, Epoch(3));
        assert_eq!(
            authority.handle_timeout(s(160)),
            None,
            "epoch 2 never begins"
        );
    }

    #[test]
    fn what_is_not_published_changes_nothing() {
        let authority = running();
        let twice = [0, 1].map(|_| authority.schedule(Kind::Scheduled, s(155)));
        assert_eq!(twice[0], twice[1]);
        assert!(authority.due(s(155)));
    }

    #[test]
    fn a_late_scheduled_update_still_leaves_a_short_lead() {
        let mut authority = running();
        let late = publish(&mut authority, Kind::Scheduled, s(400));
        assert_eq!((late.epoch, late.activate_in_ms), (Epoch(2), 1_000));
    }

    #[test]
    fn a_resumed_segment_goes_on_where_it_was() {
        let mut authority = running();
        publish(&mut authority, Kind::Scheduled, s(155));
        let (current, next) = (*authority.in_force().unwrap(), authority.next().copied());
        let before = Authority::resume(timing(s(60)), current, next, s(158));
        assert_eq!(before.in_force().unwrap().epoch, Epoch(1));
        assert_eq!(before.poll_timeout(), (s(160), Timer::Activation));
        let after = Authority::resume(timing(s(60)), current, next, s(300));
        assert_eq!(after.in_force().unwrap().epoch, Epoch(2));
        assert!(after.due(s(300)));
        let next = after.schedule(Kind::Scheduled, s(300)).unwrap();
        assert_eq!(next.epoch, Epoch(3));
    }

    proptest! {
        #[test]
        fn numbers_rise_and_durations_stay_within_their_rules(
            epoch in 1u64..200,
            steps in proptest::collection::vec((0u64..100_000, 0u8..4), 1..60),
        ) {
            let mut authority = Authority::new(timing(s(epoch)));
            let (mut now, mut newest) = (s(1_000), Epoch(0));
            for (wait, step) in steps {
                now += Duration::from_millis(wait);
                authority.handle_timeout(now);
                let kind = match step {
                    0 => Kind::Join,
                    1 => Kind::Immediate,
                    2 => Kind::Scheduled,
                    _ if authority.due(now) => Kind::Scheduled,
                    _ => continue,
                };
                let Ok(schedule) = authority.schedule(kind, now) else {
                    prop_assert_eq!(kind, Kind::Join);
                    continue;
                };
                prop_assert_eq!(schedule.epoch, newest.next());
                prop_assert!(schedule.epoch_ms > 0 && schedule.epoch_ms <= epoch * 1_000);
                prop_assert!(schedule.grace_ms <= 2_000 && schedule.grace_ms * 2 <= schedule.epoch_ms);
                prop_assert!(schedule.activate_in_ms <= 5_000);
                authority.publish(&schedule, Digest([2; 32]));
                newest = schedule.epoch;
                let (at, _) = authority.poll_timeout();
                prop_assert!(at >= now.saturating_sub(s(epoch)));
            }
        }
    }
}
