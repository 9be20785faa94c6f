//! One peer's WireGuard state under one epoch's PSK.
//!
//! ```text
//!              response opened
//!   initiation ────────────────┐
//!                              ├─▶ session, the first of which is sent on
//!   answer ────────────────────┘
//!              first data opened
//! ```
//!
//! Every handshake has a `Tunn` of its own with an index of its own: an answer to any initiation that
//! is under way is good, however many were sent meanwhile, and no number of handshakes, failed,
//! repeated or crossing, can push a session out of boringtun's ring of eight. The 24-bit index of an
//! initiation is 22 bits that the PSK determines, then the epoch modulo 4. The other side therefore
//! knows from it which generation is meant, and a stock WireGuard peer need not care.

use crate::allowed_ips::PeerId;
use crate::forge::{self, Forge};
use crate::initiation::Timestamp;
use crate::limits::*;
use crate::link::{Link, Session};
use boringtun::noise::Tunn;
use keys::{Epoch, Psk, WgPublicKey};
use std::collections::VecDeque;
use std::time::Duration;

pub(crate) struct Generation {
    pub(crate) epoch: Epoch,
    /// Whether it has been in force here: packets of this side and of the other go by it.
    pub(crate) was_in_force: bool,
    psk: Psk,
    /// Newest timestamp of an initiation that named this generation.
    pub(crate) newest: Timestamp,
    /// Set while this side wants a handshake.
    pub(crate) initiating: Option<Initiating>,
    variant: u8,
    /// Initiations that were sent, oldest first.
    initiations: VecDeque<Link>,
    /// Answers that nothing has confirmed yet, oldest first.
    answers: VecDeque<Link>,
    /// Confirmed handshakes. The first is sent on; the other side may still send on any.
    sessions: VecDeque<Session>,
}

/// A handshake that this side is trying to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Initiating {
    pub(crate) since: Duration,
    pub(crate) attempts: u32,
    pub(crate) next_at: Duration,
}

impl Initiating {
    /// From `at` on.
    pub(crate) fn at(at: Duration) -> Self {
        Self {
            since: at,
            attempts: 0,
            next_at: at,
        }
    }
}

impl Generation {
    pub(crate) fn new(epoch: Epoch, psk: Psk) -> Self {
        Self {
            epoch,
            was_in_force: false,
            psk,
            newest: Timestamp::default(),
            initiating: None,
            variant: 0,
            initiations: VecDeque::new(),
            answers: VecDeque::new(),
            sessions: VecDeque::new(),
        }
    }

    pub(crate) fn psk(&self) -> &Psk {
        &self.psk
    }

    /// Whether `index` (24 bits) is one that `owner` derives from this generation's PSK.
    pub(crate) fn recognises(&self, index: u32, owner: &WgPublicKey) -> bool {
        forge::names(index, (self.epoch, &self.psk), owner)
    }

    /// The other side's initiation was answered: ours would only cross it.
    pub(crate) fn step_back(&mut self, now: Duration) {
        // Two initiations that cross make two sessions, and either side would send first on one that the
        // other has not confirmed. Ours is put off, not given up: the answer to theirs may be lost.
        if let Some(initiating) = &mut self.initiating {
            initiating.next_at = initiating.next_at.max(now + RESPONDER_PAUSE);
        }
    }

    /// The last initiation did not count: the next one goes to the same place, now.
    pub(crate) fn initiate_again(&mut self, now: Duration) {
        // Counted, it would double the wait for the next one, which might go to another endpoint than the
        // one that has just given a cookie.
        if let Some(initiating) = &mut self.initiating {
            initiating.attempts = initiating.attempts.saturating_sub(1);
            initiating.next_at = now;
        }
    }

    /// The session to send on, unless it is too old.
    pub(crate) fn sender(&mut self, now: Duration) -> Option<&mut Tunn> {
        // A session near its end is not sent on, even as the only one: the other side may have made it
        // a round trip earlier, and drops what arrives after its own time without a word.
        let session = self.sessions.front_mut().filter(|it| it.sends(now))?;
        Some(&mut session.link.tunn)
    }

    /// Whether a handshake is under way, and not to be tried again just now.
    pub(crate) fn is_waiting(&self, now: Duration) -> bool {
        self.initiating.is_some_and(|it| it.next_at > now)
    }

    pub(crate) fn is_live(&self, now: Duration) -> bool {
        self.sessions.front().is_some_and(|it| it.sends(now))
    }

    /// Age of the session to send on and whether this side initiated it.
    pub(crate) fn live_age(&self, now: Duration) -> Option<(Duration, bool)> {
        let session = self.sessions.front()?;
        let age = now.saturating_sub(session.established);
        Some((age, session.initiator))
    }

    /// The state that waits for a response at this 24-bit index.
    pub(crate) fn initiator_at(&mut self, index: u32) -> Option<&mut Tunn> {
        let mut initiations = self.initiations.iter_mut();
        let initiation = initiations.find(|link| link.index == index)?;
        Some(&mut initiation.tunn)
    }

    /// The handshake whose message from this 24-bit index may have asked for too much of the other side.
    pub(crate) fn shaking_at(&mut self, index: u32) -> Option<&mut Link> {
        let mut links = self.initiations.iter_mut().chain(&mut self.answers);
        links.find(|link| link.index == index)
    }

    /// Whether data for this 24-bit index would confirm a handshake.
    pub(crate) fn is_unconfirmed(&self, index: u32) -> bool {
        self.answers.iter().any(|link| link.index == index)
    }

    /// The state that opens data for this 24-bit index, and whether it is yet unconfirmed.
    pub(crate) fn opener_at(&mut self, index: u32, now: Duration) -> Option<(&mut Tunn, bool)> {
        let mut sessions = self.sessions.iter_mut();
        if let Some(session) = sessions.find(|it| it.link.index == index) {
            return session
                .opens(now)
                .then_some((&mut session.link.tunn, false));
        }
        // An answer opens data as well, since its first data is what confirms it; but no longer than the
        // session would, lest a recording revive a handshake that nobody remembers.
        let mut answers = self.answers.iter_mut();
        let link = answers.find(|link| link.index == index && link.may_be_confirmed(now))?;
        Some((&mut link.tunn, true))
    }

    /// Whether nobody has shaken hands on it, nor tried to.
    pub(crate) fn is_blank(&self) -> bool {
        self.links().next().is_none()
    }

    pub(crate) fn has_session(&self) -> bool {
        !self.sessions.is_empty()
    }

    pub(crate) fn owns(&self, index: u32) -> bool {
        // In this order, because all packets of a pair ask, and almost all of them mean a session.
        self.sessions.iter().any(|it| it.link.index == index)
            || self.answers.iter().any(|link| link.index == index)
            || self.initiations.iter().any(|link| link.index == index)
    }

    /// A handshake for the next initiation.
    pub(crate) fn initiator(
        &mut self,
        peer: (PeerId, WgPublicKey),
        now: Duration,
        forge: &mut Forge,
    ) -> &mut Link {
        if self.initiations.len() >= MAX_INITIATIONS {
            // Before a new index is chosen: the oldest one's is among the few that name this generation.
            self.initiations.pop_front();
        }
        let mean = (self.epoch, &self.psk);
        let initiation = forge.initiator(peer, mean, &mut self.variant, now);
        self.initiations.push_back(initiation);
        self.initiations.back_mut().expect("it was just put there")
    }

    /// A handshake to answer an initiation with.
    pub(crate) fn responder(
        &mut self,
        peer: (PeerId, WgPublicKey),
        now: Duration,
        forge: &mut Forge,
    ) -> &mut Link {
        // The oldest answer goes, never a session: initiations that repeat themselves, from whatever
        // cause, must not push out what carries packets.
        if self.answers.len() >= MAX_ANSWERS {
            self.answers.pop_front();
        }
        let answer = forge.responder(peer, (self.epoch, &self.psk), now);
        self.answers.push_back(answer);
        self.answers.back_mut().expect("it was just put there")
    }

    /// The handshake with this 24-bit index is confirmed: its session is the one to send on from here on.
    /// Where two crossed, each side may choose another one, and opens both.
    pub(crate) fn promote(&mut self, index: u32, now: Duration) {
        let answer = take(&mut self.answers, |link| link.index == index);
        let initiator = answer.is_none();
        let confirmed = answer.or_else(|| take(&mut self.initiations, |link| link.index == index));
        // Safe to forget our other initiations: a responder may not send on one before we confirm it,
        // and we will not.
        self.give_up();
        let Some(link) = confirmed else {
            return;
        };
        // Older ones stay, for the other side may send on any of them until it hears from here. Beyond a
        // few none can be in use; with the last goes its index, and nothing for it is opened any more.
        self.sessions.push_front(link.confirmed(initiator, now));
        self.sessions.truncate(MAX_SESSIONS);
    }

    /// Drops sessions that are too old to be used, and answers that nobody confirmed.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.sessions.retain(|session| session.opens(now));
        self.answers.retain(|link| link.may_be_confirmed(now));
    }

    /// Waits no longer for answers.
    pub(crate) fn give_up(&mut self) {
        self.initiating = None;
        self.initiations.clear();
    }

    /// Gives back the memory that its handshakes and sessions took.
    pub(crate) fn shrink(&mut self) {
        self.initiations.shrink_to_fit();
        self.answers.shrink_to_fit();
        self.sessions.shrink_to_fit();
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        let sessions = self.sessions.iter().map(|it| &it.link);
        sessions.chain(&self.answers).chain(&self.initiations)
    }

    /// The indices of everything in it, which is bounded.
    #[cfg(test)]
    pub(crate) fn checked_indices(&self) -> Vec<u32> {
        assert!(self.initiations.len() <= MAX_INITIATIONS);
        assert!(self.answers.len() <= MAX_ANSWERS);
        assert!(self.sessions.len() <= MAX_SESSIONS);
        self.links().map(|link| link.index.value()).collect()
    }
}

/// Takes out the first of `links` that is `wanted`.
fn take(links: &mut VecDeque<Link>, wanted: impl Fn(&Link) -> bool) -> Option<Link> {
    let at = links.iter().position(wanted)?;
    links.remove(at)
}
