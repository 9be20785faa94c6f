//! A peer's generations: `next`, `current` and the `previous` ones, newest first.
//!
//! There can be more than one previous: two epochs may follow each other within a round trip, and the two
//! sides of a pair see them at different times. What one side still sends on, the other must still
//! open. All of them end together, with the grace of the newest epoch. Who is not in that epoch is
//! gone as a whole, so nothing here can keep a removed peer alive.

use crate::generation::Generation;
use crate::limits::MAX_PREVIOUS;
use boringtun::noise::Tunn;
use keys::Epoch;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Generations {
    previous: Vec<Generation>,
    pub(crate) current: Option<Generation>,
    pub(crate) next: Option<Generation>,
}

impl Generations {
    /// Fills the slot `next`. One that is superseded may be in force on the other side already: it
    /// becomes a previous one like any other.
    pub(crate) fn install(&mut self, generation: Generation) {
        if let Some(superseded) = self.next.replace(generation) {
            self.step_down(superseded);
        }
    }

    /// `next → current → previous`; false when `next` is not of `epoch`.
    pub(crate) fn activate(&mut self, epoch: Epoch) -> bool {
        let Some(mut next) = self.next.take_if(|next| next.epoch == epoch) else {
            return false;
        };
        next.was_in_force = true;
        if let Some(before) = self.current.replace(next) {
            self.step_down(before);
        }
        true
    }

    /// Wipes everything older than `current`.
    pub(crate) fn discard_previous(&mut self) {
        self.previous.clear();
    }

    /// Wipes everything but `next`.
    pub(crate) fn close(&mut self) {
        self.previous.clear();
        self.current = None;
    }

    /// The `Tunn` to send on: `current` once it is live, until then the newest before it that is.
    pub(crate) fn sender(&mut self, now: Duration) -> Option<&mut Tunn> {
        let in_force = self.current.as_ref()?.epoch;
        self.current
            .iter_mut()
            .chain(&mut self.previous)
            .find(|generation| generation.epoch <= in_force && generation.is_live(now))?
            .sender(now)
    }

    /// The generation whose `Tunn` [`Self::sender`] gives.
    pub(crate) fn sending(&self, now: Duration) -> Option<&Generation> {
        let in_force = self.current.as_ref()?.epoch;
        self.current
            .iter()
            .chain(&self.previous)
            .find(|generation| generation.epoch <= in_force && generation.is_live(now))
    }

    /// Whether an older generation carries what `current` cannot yet.
    pub(crate) fn is_between(&self, now: Duration) -> bool {
        let sending = self.sending(now).map(|generation| generation.epoch);
        sending.is_some() && sending != self.current.as_ref().map(|current| current.epoch)
    }

    /// Whether the epoch in force is the first since this peer is known.
    pub(crate) fn is_first(&self) -> bool {
        self.previous.is_empty()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Generation> {
        let Self {
            previous,
            current,
            next,
        } = self;
        current.iter_mut().chain(next).chain(previous)
    }

    /// Newest first, by epoch. Without a handshake there is nothing to keep; beyond the limit the
    /// oldest without a session goes first, then the oldest that never was in force here: any number
    /// can be superseded while the one in force carries all packets.
    fn step_down(&mut self, mut generation: Generation) {
        generation.initiating = None;
        if generation.is_blank() {
            return;
        }
        self.previous.push(generation);
        self.previous
            .sort_by_key(|generation| std::cmp::Reverse(generation.epoch));
        if self.previous.len() > MAX_PREVIOUS {
            let last = self.previous.len() - 1;
            let idle = self.previous.iter().rposition(|it| !it.has_session());
            let least = idle.or_else(|| self.previous.iter().rposition(|it| !it.was_in_force));
            self.previous.remove(least.unwrap_or(last));
        }
    }
}
