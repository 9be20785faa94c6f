//! One peer's WireGuard state under one epoch's PSK.
//!
//! ```text
//!            initiation sent or answered           confirmed: response opened, or first data received
//!   (none) ───────────────────────────────▶ fresh ─────────────────────────────────────────────────▶ live
//!                                                                              the live one before becomes old
//! ```
//!
//! Each of the three is a `Tunn` of its own with an index of its own, so that failed or replayed
//! handshakes can never push a live session out of boringtun's ring of eight. An index is 24 bits: 22
//! that the PSK determines, then the epoch modulo 4. The other side therefore knows from an
//! initiation's sender index which generation it means, and a stock WireGuard peer need not care.

use crate::allowed_ips::PeerId;
use crate::initiation::Timestamp;
use crate::limits::{INDEX_VARIANTS, MAX_ANSWERS, REJECT_AFTER_TIME, RESPONDER_PAUSE};
use boringtun::noise::Tunn;
use boringtun::noise::rate_limiter::RateLimiter;
use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use rand::Rng as _;
use rand::rngs::SmallRng;
use std::collections::HashMap;
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
    psk: Psk,
    /// Newest timestamp of an initiation that named this generation.
    pub(crate) newest: Timestamp,
    /// Set while this side wants a handshake.
    pub(crate) initiating: Option<Initiating>,
    variant: u8,
    fresh: Option<Fresh>,
    live: Option<Live>,
    old: Option<Live>,
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

/// A `Tunn` and its index.
pub(crate) struct Link {
    pub(crate) tunn: Box<Tunn>,
    pub(crate) index: u32,
}

struct Fresh {
    link: Link,
    answers: u8,
}

struct Live {
    link: Link,
    established: Duration,
    initiator: bool,
}

impl Generation {
    pub(crate) fn new(epoch: Epoch, psk: Psk) -> Self {
        Self {
            epoch,
            psk,
            newest: Timestamp::default(),
            initiating: None,
            variant: 0,
            fresh: None,
            live: None,
            old: None,
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

    /// The session to send on, unless it is too old.
    pub(crate) fn sender(&mut self, now: Duration) -> Option<&mut Tunn> {
        let live = self.live.as_mut().filter(|live| live.is_usable(now))?;
        Some(&mut live.link.tunn)
    }

    pub(crate) fn is_live(&self, now: Duration) -> bool {
        self.live.as_ref().is_some_and(|live| live.is_usable(now))
    }

    /// Age of the live session and whether this side made it.
    pub(crate) fn live_age(&self, now: Duration) -> Option<(Duration, bool)> {
        self.live
            .as_ref()
            .map(|live| (now.saturating_sub(live.established), live.initiator))
    }

    /// The handshake state with this 24-bit index, for a response or a cookie reply.
    pub(crate) fn fresh_at(&mut self, index: u32) -> Option<&mut Tunn> {
        let fresh = self
            .fresh
            .as_mut()
            .filter(|fresh| fresh.link.index == index)?;
        Some(&mut fresh.link.tunn)
    }

    /// Whether data for this 24-bit index would confirm a handshake.
    pub(crate) fn is_unconfirmed(&self, index: u32) -> bool {
        self.fresh
            .as_ref()
            .is_some_and(|fresh| fresh.link.index == index)
    }

    /// The state that opens data for this 24-bit index, and whether it is yet unconfirmed.
    pub(crate) fn opener_at(&mut self, index: u32, now: Duration) -> Option<(&mut Tunn, bool)> {
        let Self {
            fresh, live, old, ..
        } = self;
        if let Some(session) = [live, old]
            .into_iter()
            .flatten()
            .find(|live| live.link.index == index)
        {
            return session
                .is_usable(now)
                .then_some((&mut session.link.tunn, false));
        }
        let fresh = fresh.as_mut().filter(|fresh| fresh.link.index == index)?;
        Some((&mut fresh.link.tunn, true))
    }

    /// Whether nobody has shaken hands on it, nor tried to.
    pub(crate) fn is_blank(&self) -> bool {
        self.links().next().is_none()
    }

    pub(crate) fn has_session(&self) -> bool {
        self.live.is_some()
    }

    pub(crate) fn owns(&self, index: u32) -> bool {
        self.links().any(|link| link.index == index)
    }

    /// The `Tunn` to initiate with, made if there is none.
    pub(crate) fn initiator(
        &mut self,
        peer: (PeerId, WgPublicKey),
        forge: &mut Forge,
    ) -> &mut Tunn {
        let fresh = self.fresh.take().unwrap_or_else(|| Fresh {
            link: self.forge(peer, forge),
            answers: 0,
        });
        &mut self.fresh.insert(fresh).link.tunn
    }

    /// The `Tunn` to answer an initiation with. Replaced before its ring of sessions is full of
    /// unconfirmed ones.
    pub(crate) fn responder(
        &mut self,
        peer: (PeerId, WgPublicKey),
        forge: &mut Forge,
    ) -> &mut Tunn {
        if self
            .fresh
            .as_ref()
            .is_some_and(|fresh| fresh.answers >= MAX_ANSWERS)
        {
            self.drop_fresh(forge);
        }
        let mut fresh = self.fresh.take().unwrap_or_else(|| Fresh {
            link: self.forge(peer, forge),
            answers: 0,
        });
        fresh.answers += 1;
        &mut self.fresh.insert(fresh).link.tunn
    }

    /// The fresh session is confirmed: it is the live one from here on.
    pub(crate) fn promote(&mut self, initiator: bool, now: Duration, forge: &mut Forge) {
        let Some(fresh) = self.fresh.take() else {
            return;
        };
        let live = Live {
            link: fresh.link,
            established: now,
            initiator,
        };
        if let Some(older) = std::mem::replace(&mut self.old, self.live.replace(live)) {
            forge.indices.remove(&older.link.index);
        }
        self.initiating = None;
    }

    /// Drops sessions that are too old to be used.
    pub(crate) fn expire(&mut self, now: Duration, forge: &mut Forge) {
        for slot in [&mut self.live, &mut self.old] {
            if let Some(dead) = slot.take_if(|live| !live.is_usable(now)) {
                forge.indices.remove(&dead.link.index);
            }
        }
    }

    pub(crate) fn drop_fresh(&mut self, forge: &mut Forge) {
        if let Some(fresh) = self.fresh.take() {
            forge.indices.remove(&fresh.link.index);
        }
    }

    /// Forgets everything, indices included. Call before dropping a generation.
    pub(crate) fn retire(self, forge: &mut Forge) {
        for link in self.links() {
            forge.indices.remove(&link.index);
        }
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        let sessions = [&self.live, &self.old]
            .into_iter()
            .flatten()
            .map(|live| &live.link);
        sessions.chain(self.fresh.iter().map(|fresh| &fresh.link))
    }

    fn forge(&mut self, (id, key): (PeerId, WgPublicKey), forge: &mut Forge) -> Link {
        let index = self.free_index(forge);
        forge.indices.insert(index, id);
        let tunn = Tunn::new(
            forge.secret.clone(),
            PublicKey::from(key.0),
            Some(*self.psk.expose()),
            None,
            index,
            Some(forge.limiter.clone()),
        );
        Link {
            tunn: Box::new(tunn),
            index,
        }
    }

    fn free_index(&mut self, forge: &mut Forge) -> u32 {
        for _ in 0..INDEX_VARIANTS {
            let index = self.psk.index_bits(&forge.public, self.variant) << 2 | tag(self.epoch);
            self.variant = (self.variant + 1) % INDEX_VARIANTS;
            if !forge.indices.contains_key(&index) {
                return index;
            }
        }
        // All variants collide with other peers' indices: any free one works, as for a stock peer.
        loop {
            let index = forge.rng.r#gen::<u32>() >> 8;
            if !forge.indices.contains_key(&index) {
                return index;
            }
        }
    }
}

impl Live {
    fn is_usable(&self, now: Duration) -> bool {
        now.saturating_sub(self.established) < REJECT_AFTER_TIME
    }
}

/// The two bits of an index that name an epoch.
fn tag(epoch: Epoch) -> u32 {
    (epoch.0 & 3) as u32
}
