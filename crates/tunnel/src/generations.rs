//! A peer's generations: `next`, `current` and the `previous` ones, newest first.
//!
//! There can be more than one previous: two epochs may follow each other within a round trip, and the two
//! sides of a pair see them at different times. One side must go on opening as long as the other may
//! still send on an older one. All of them end together, with the grace of the newest epoch. A peer
//! that is not in that epoch is gone as a whole, so nothing here can keep a removed peer alive.

use crate::generation::Generation;
use crate::limits::MAX_PREVIOUS;
use boringtun::noise::Tunn;
use keys::Epoch;
use std::time::Duration;

/// Where a generation stands that can be sent on; good as long as the peer is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Current,
    /// Newest first.
    Previous(usize),
}

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
        // Dropped instead, it would take a session along that the other side, where the superseded epoch
        // began, is sending on: its packets would be lost until the pair had shaken hands again.
        if let Some(superseded) = self.next.replace(generation) {
            self.step_down(superseded);
        }
    }

    /// `next → current → previous`; false when `next` is not of `epoch`.
    pub(crate) fn activate(&mut self, epoch: Epoch) -> bool {
        // Only the generation of this very epoch. Put in force in its place, one of another epoch would
        // seal under a secret that was given to other nodes, perhaps to some that this one leaves out.
        let Some(mut next) = self.next.take_if(|next| next.epoch == epoch) else {
            return false;
        };
        next.was_in_force = true;
        if let Some(before) = self.current.replace(next) {
            self.step_down(before);
        }
        true
    }

    /// Wipes everything older than `current`; whether there was anything.
    pub(crate) fn discard_previous(&mut self) -> bool {
        let had_any = !self.previous.is_empty();
        self.previous = Vec::new();
        had_any
    }

    /// Wipes everything but `next`.
    pub(crate) fn close(&mut self) {
        // In one step: a previous generation that outlived `current` would go on opening packets of an
        // epoch that has ended, and be sent on as soon as another is in force.
        self.previous.clear();
        self.current = None;
    }

    /// The slot to send on: `current` once it is live, until then the newest before it that is. Never
    /// `next`: the other side may not have that epoch in force, and a peer that it leaves out is still
    /// a peer until it is.
    pub(crate) fn sending(&self, now: Duration) -> Option<Slot> {
        let current = self.current.as_ref()?;
        if current.is_live(now) {
            return Some(Slot::Current);
        }
        let is_live = |it: &Generation| it.epoch <= current.epoch && it.is_live(now);
        self.previous.iter().position(is_live).map(Slot::Previous)
    }

    /// The generation in a slot.
    pub(crate) fn at(&self, slot: Slot) -> Option<&Generation> {
        match slot {
            Slot::Current => self.current.as_ref(),
            Slot::Previous(at) => self.previous.get(at),
        }
    }

    /// The `Tunn` to send on in the slot that [`Self::sending`] gives.
    pub(crate) fn sender(&mut self, slot: Slot, now: Duration) -> Option<&mut Tunn> {
        let generation = match slot {
            Slot::Current => self.current.as_mut(),
            Slot::Previous(at) => self.previous.get_mut(at),
        };
        generation?.sender(now)
    }

    /// Whether an older generation carries what `current` cannot yet.
    pub(crate) fn is_between(&self, now: Duration) -> bool {
        self.sending(now).is_some_and(|slot| self.is_older(slot))
    }

    /// Whether the generation in a slot is of an older epoch than `current`.
    pub(crate) fn is_older(&self, slot: Slot) -> bool {
        let epoch = |generation: &Generation| generation.epoch;
        self.at(slot).map(epoch) != self.current.as_ref().map(epoch)
    }

    /// Whether the epoch in force is the first since this peer is known.
    pub(crate) fn is_first(&self) -> bool {
        self.previous.is_empty()
    }

    /// Whether no handshake is under way and no session is left in any of them.
    pub(crate) fn are_blank(&self) -> bool {
        let present = self.current.iter().chain(&self.next);
        present.chain(&self.previous).all(Generation::is_blank)
    }

    /// The same; and gives back the memory that handshakes and sessions took, if none is left.
    pub(crate) fn rest(&mut self) -> bool {
        let are_blank = self.are_blank();
        if are_blank {
            self.iter_mut().for_each(Generation::shrink);
        }
        are_blank
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
