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
use crate::cookie::{self, Cookie};
use crate::initiation::Timestamp;
use crate::limits::*;
use boringtun::noise::Tunn;
use boringtun::noise::rate_limiter::RateLimiter;
use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use rand::Rng as _;
use rand::rngs::SmallRng;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use x25519_dalek::{PublicKey, StaticSecret};

/// What making a `Tunn` takes.
pub(crate) struct Forge {
    pub(crate) wg: WgSecret,
    /// `wg` as boringtun takes it.
    pub(crate) secret: StaticSecret,
    pub(crate) public: WgPublicKey,
    /// Never under load: the tunnel's own limiter has judged every message before.
    pub(crate) limiter: Arc<RateLimiter>,
    /// 24-bit index → peer.
    pub(crate) indices: HashMap<u32, PeerId>,
    pub(crate) rng: SmallRng,
}

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
    /// Confirmed handshakes. The first is sent on; what the other side still sends on may be any.
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

/// A `Tunn` of one handshake, and its index.
pub(crate) struct Link {
    pub(crate) tunn: Box<Tunn>,
    index: u32,
    /// When the first message of the handshake was sent or answered.
    begun: Duration,
    /// This side's message of the handshake, while it may be refused.
    sent: Option<Sent>,
}

struct Sent {
    to: SocketAddr,
    message: Vec<u8>,
    /// Once is enough: a side that refuses its own cookie refuses it again.
    is_repeated: bool,
}

struct Session {
    link: Link,
    /// On the side that answered, when it did: no later than the initiator's.
    established: Duration,
    /// Whether this side initiated it.
    initiator: bool,
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
        index & 3 == tag(self.epoch)
            && (0..INDEX_VARIANTS).any(|variant| self.psk.index_bits(owner, variant) == index >> 2)
    }

    /// The other side's initiation was answered: ours would only cross it.
    pub(crate) fn step_back(&mut self, now: Duration) {
        if let Some(initiating) = &mut self.initiating {
            initiating.next_at = initiating.next_at.max(now + RESPONDER_PAUSE);
        }
    }

    /// The last initiation did not count: the next one goes to the same place, now.
    pub(crate) fn initiate_again(&mut self, now: Duration) {
        if let Some(initiating) = &mut self.initiating {
            initiating.attempts = initiating.attempts.saturating_sub(1);
            initiating.next_at = now;
        }
    }

    /// The session to send on, unless it is too old.
    pub(crate) fn sender(&mut self, now: Duration) -> Option<&mut Tunn> {
        let session = self.sessions.front_mut().filter(|it| it.sends(now))?;
        Some(&mut session.link.tunn)
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
        self.links().any(|link| link.index == index)
    }

    /// A handshake for the next initiation.
    pub(crate) fn initiator(
        &mut self,
        peer: (PeerId, WgPublicKey),
        now: Duration,
        forge: &mut Forge,
    ) -> &mut Link {
        if self.initiations.len() >= MAX_INITIATIONS {
            let oldest = self.initiations.pop_front();
            oldest.map(|link| forge.indices.remove(&link.index));
        }
        let index = self.free_index(forge);
        let initiation = forge.link(peer, index, &self.psk, now);
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
        if self.answers.len() >= MAX_ANSWERS {
            let oldest = self.answers.pop_front();
            oldest.map(|link| forge.indices.remove(&link.index));
        }
        let index = forge.any_index(self.epoch);
        let answer = forge.link(peer, index, &self.psk, now);
        self.answers.push_back(answer);
        self.answers.back_mut().expect("it was just put there")
    }

    /// The handshake with this 24-bit index is confirmed: its session is the one to send on from here on.
    /// Where two crossed, each side may choose another one, and opens both.
    pub(crate) fn promote(&mut self, index: u32, now: Duration, forge: &mut Forge) {
        let answer = take(&mut self.answers, |link| link.index == index);
        let initiator = answer.is_none();
        let confirmed = answer.or_else(|| take(&mut self.initiations, |link| link.index == index));
        // Who answered the others sends nothing on them before it hears from here.
        self.give_up(forge);
        let Some(mut link) = confirmed else {
            return;
        };
        link.sent = None;
        let session = Session {
            established: if initiator { now } else { link.begun },
            link,
            initiator,
        };
        self.sessions.push_front(session);
        if self.sessions.len() > MAX_SESSIONS {
            let oldest = self.sessions.pop_back();
            oldest.map(|it| forge.indices.remove(&it.link.index));
        }
    }

    /// Drops sessions that are too old to be used, and answers that nobody confirmed.
    pub(crate) fn expire(&mut self, now: Duration, forge: &mut Forge) {
        self.sessions.retain(|it| {
            let opens = it.opens(now);
            if !opens {
                forge.indices.remove(&it.link.index);
            }
            opens
        });
        self.answers.retain(|link| {
            let may_be_confirmed = link.may_be_confirmed(now);
            if !may_be_confirmed {
                forge.indices.remove(&link.index);
            }
            may_be_confirmed
        });
    }

    /// Waits no longer for answers.
    pub(crate) fn give_up(&mut self, forge: &mut Forge) {
        self.initiating = None;
        for initiation in self.initiations.drain(..) {
            forge.indices.remove(&initiation.index);
        }
    }

    /// Forgets everything, indices included. Call before dropping a generation.
    pub(crate) fn retire(self, forge: &mut Forge) {
        for link in self.links() {
            forge.indices.remove(&link.index);
        }
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
        self.links().map(|link| link.index).collect()
    }

    /// An index that names this generation.
    fn free_index(&mut self, forge: &mut Forge) -> u32 {
        for _ in 0..INDEX_VARIANTS {
            let index = self.psk.index_bits(&forge.public, self.variant) << 2 | tag(self.epoch);
            self.variant = (self.variant + 1) % INDEX_VARIANTS;
            if !forge.indices.contains_key(&index) {
                return index;
            }
        }
        // All variants collide with other peers' indices: any free one works, as for a stock peer.
        forge.any_index(self.epoch)
    }
}

impl Forge {
    /// A free index that shows its epoch and nothing else.
    fn any_index(&mut self, epoch: Epoch) -> u32 {
        loop {
            let index = self.rng.r#gen::<u32>() >> 10 << 2 | tag(epoch);
            if !self.indices.contains_key(&index) {
                return index;
            }
        }
    }

    fn link(
        &mut self,
        (id, key): (PeerId, WgPublicKey),
        index: u32,
        psk: &Psk,
        now: Duration,
    ) -> Link {
        self.indices.insert(index, id);
        let tunn = Tunn::new(
            self.secret.clone(),
            PublicKey::from(key.0),
            Some(*psk.expose()),
            None,
            index,
            Some(self.limiter.clone()),
        );
        Link {
            tunn: Box::new(tunn),
            index,
            begun: now,
            sent: None,
        }
    }
}

impl Link {
    /// Keeps this side's message of the handshake, which goes to `to`: as it is to be sent.
    pub(crate) fn send(
        &mut self,
        to: SocketAddr,
        message: &[u8],
        cookie: Option<&Cookie>,
    ) -> Vec<u8> {
        let mut message = message.to_vec();
        if let Some(cookie) = cookie {
            cookie::prove(cookie, &mut message);
        }
        self.sent = Some(Sent {
            to,
            message: message.clone(),
            is_repeated: false,
        });
        message
    }

    /// The cookie in a reply to that message.
    pub(crate) fn open_cookie(&self, peer: &WgPublicKey, reply: &[u8]) -> Option<Cookie> {
        cookie::open_reply(peer, reply, &self.sent.as_ref()?.message)
    }

    /// The message with the cookie, once, and where it goes: nobody has opened it yet.
    pub(crate) fn send_again(&mut self, cookie: &Cookie) -> Option<(SocketAddr, Vec<u8>)> {
        let sent = self.sent.as_mut().filter(|sent| !sent.is_repeated)?;
        sent.is_repeated = true;
        cookie::prove(cookie, &mut sent.message);
        Some((sent.to, sent.message.clone()))
    }

    /// Whether who initiated it may still send on it: what was to confirm it at once may be lost.
    fn may_be_confirmed(&self, now: Duration) -> bool {
        now.saturating_sub(self.begun) < REJECT_AFTER_TIME
    }
}

impl Session {
    /// Whether what is sent on it will arrive before it is of no use there.
    fn sends(&self, now: Duration) -> bool {
        now.saturating_sub(self.established) < SEND_FOR
    }

    fn opens(&self, now: Duration) -> bool {
        now.saturating_sub(self.established) < REJECT_AFTER_TIME
    }
}

/// Takes out the first of `links` that is `wanted`.
fn take(links: &mut VecDeque<Link>, wanted: impl Fn(&Link) -> bool) -> Option<Link> {
    let at = links.iter().position(wanted)?;
    links.remove(at)
}

/// The two bits of an index that name an epoch.
fn tag(epoch: Epoch) -> u32 {
    (epoch.0 & 3) as u32
}
