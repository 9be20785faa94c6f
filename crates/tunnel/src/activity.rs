//! When data last went each way between a pair, and what follows: whether the pair is worth a handshake
//! ahead of an epoch, whether a session is dead, whether a keepalive is owed. And when anything was last
//! sent, which is all that an address translator in between sees.

use crate::limits::{ACTIVE_FOR, DEAD_AFTER, KEEPALIVE_TIMEOUT, SEARCH_AFTER, SEARCH_EVERY};
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Activity {
    last_sent: Option<Duration>,
    last_data_sent: Option<Duration>,
    last_data_received: Option<Duration>,
    /// Since when data was sent and nothing was heard.
    unanswered_since: Option<Duration>,
    /// Since when data was heard and nothing was sent.
    silent_since: Option<Duration>,
    /// When other places of the other side were looked for last.
    searched_at: Option<Duration>,
}

impl Activity {
    /// A packet was sent.
    pub(crate) fn sent_data(&mut self, now: Duration) {
        self.silent_since = None;
        self.last_sent = Some(now);
        self.last_data_sent = Some(now);
        self.unanswered_since.get_or_insert(now);
    }

    /// A message without a packet was sent: the other side knows that this one is there.
    pub(crate) fn sent_message(&mut self, now: Duration) {
        self.silent_since = None;
        self.last_sent = Some(now);
    }

    /// A packet was received.
    pub(crate) fn heard_data(&mut self, now: Duration) {
        self.unanswered_since = None;
        self.last_data_received = Some(now);
        self.silent_since.get_or_insert(now);
    }

    /// A message without a packet was received.
    pub(crate) fn heard_message(&mut self) {
        self.unanswered_since = None;
    }

    /// Whether there was data lately, either way.
    pub(crate) fn is_recent(&self, now: Duration) -> bool {
        let recent =
            |at: Option<Duration>| at.is_some_and(|at| now.saturating_sub(at) < ACTIVE_FOR);
        recent(self.last_data_sent) || recent(self.last_data_received)
    }

    /// Whether the other side has been silent for so long that the session must be taken for dead. Said
    /// once, and again when as much time has passed.
    pub(crate) fn take_dead(&mut self, now: Duration) -> bool {
        let is_dead = is_over(self.unanswered_since, DEAD_AFTER, now);
        if is_dead {
            self.unanswered_since = Some(now);
        }
        is_dead
    }

    /// Whether the other side has been silent for so long that it should be looked for where else it may be.
    /// Said once in a while.
    pub(crate) fn take_lost(&mut self, now: Duration) -> bool {
        let is_soon = self
            .searched_at
            .is_some_and(|at| now.saturating_sub(at) < SEARCH_EVERY);
        let is_lost = !is_soon && is_over(self.unanswered_since, SEARCH_AFTER, now);
        if is_lost {
            self.searched_at = Some(now);
        }
        is_lost
    }

    /// Whether the other side must hear something lest it takes the session for dead.
    pub(crate) fn owes_keepalive(&self, now: Duration) -> bool {
        is_over(self.silent_since, KEEPALIVE_TIMEOUT, now)
    }

    /// Whether nothing was sent for so long, or since `began`.
    pub(crate) fn is_unsent_for(&self, time: Duration, began: Duration, now: Duration) -> bool {
        is_over(self.last_sent.max(Some(began)), time, now)
    }
}

fn is_over(since: Option<Duration>, limit: Duration, now: Duration) -> bool {
    since.is_some_and(|since| now.saturating_sub(since) >= limit)
}
