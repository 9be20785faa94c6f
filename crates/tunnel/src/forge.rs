//! Makes handshakes: their `Tunn`s with this side's key, their indices, and the chance in their timing.
//! Holds this side's secret key; knows no peer and no epoch.

use crate::allowed_ips::PeerId;
use crate::indices::{Index, TunnelIndices};
use crate::limits::{INDEX_VARIANTS, RETRY_FIRST, RETRY_MAX, RETRY_MAX_IN_USE};
use crate::link::Link;
use boringtun::noise::Tunn;
use boringtun::noise::rate_limiter::RateLimiter;
use keys::{Epoch, Psk, SharedSecret, WgPublicKey, WgSecret};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::sync::Arc;
use std::time::Duration;
use x25519_dalek::{PublicKey, StaticSecret};

pub(crate) struct Forge {
    wg: WgSecret,
    /// `wg` as boringtun takes it.
    secret: StaticSecret,
    public: WgPublicKey,
    /// Never under load: the tunnel's own limiter has judged every message before.
    limiter: Arc<RateLimiter>,
    indices: TunnelIndices,
    rng: SmallRng,
}

impl Forge {
    pub(crate) fn new(wg: WgSecret, indices: TunnelIndices, seed: u64) -> Self {
        let secret = StaticSecret::from(*wg.expose());
        let limiter = RateLimiter::new(&PublicKey::from(&secret), u64::MAX);
        Self {
            public: wg.public(),
            wg,
            secret,
            limiter: Arc::new(limiter),
            indices,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// This side's key.
    pub(crate) fn public(&self) -> WgPublicKey {
        self.public
    }

    /// The static-static secret with a peer; `None` if its key is of low order.
    pub(crate) fn shared_with(&self, key: &WgPublicKey) -> Option<SharedSecret> {
        self.wg.shared_with(key)
    }

    /// A handshake to initiate: its index names the generation. `variant` is the next one to use.
    pub(crate) fn initiator(
        &mut self,
        peer: (PeerId, WgPublicKey),
        (epoch, psk): (Epoch, &Psk),
        variant: &mut u8,
        now: Duration,
    ) -> Link {
        for _ in 0..INDEX_VARIANTS {
            let named = naming_index(psk, &self.public, *variant, epoch);
            *variant = (*variant + 1) % INDEX_VARIANTS;
            if let Some(index) = self.indices.claim(named, peer.0) {
                return self.link(peer.1, index, psk, now);
            }
        }
        // All variants collide with other peers' indices: any free one works, as for a stock peer.
        self.responder(peer, (epoch, psk), now)
    }

    /// A handshake to answer with: its index shows the epoch and nothing else.
    pub(crate) fn responder(
        &mut self,
        peer: (PeerId, WgPublicKey),
        (epoch, psk): (Epoch, &Psk),
        now: Duration,
    ) -> Link {
        // The initiator knows which generation it has meant, so that nothing is gained by naming it; and
        // an index that is fixed is one more by which an observer knows the pair again.
        let index = loop {
            let any = self.rng.r#gen::<u32>() >> 10 << 2 | tag(epoch);
            if let Some(index) = self.indices.claim(any, peer.0) {
                break index;
            }
        };
        self.link(peer.1, index, psk, now)
    }

    /// How long to wait for an answer to the `attempt`-th initiation: doubling, with a fifth of
    /// jitter; never long while an older generation still carries packets that are about to stop.
    pub(crate) fn backoff(&mut self, attempt: u32, in_use: bool) -> Duration {
        let most = if in_use { RETRY_MAX_IN_USE } else { RETRY_MAX };
        let base = RETRY_FIRST.saturating_mul(1 << attempt.min(6)).min(most);
        base.mul_f64(self.rng.gen_range(0.8..1.2))
    }

    /// Any time within `spread`.
    pub(crate) fn jitter(&mut self, spread: Duration) -> Duration {
        spread.mul_f64(self.rng.r#gen::<f64>())
    }

    fn link(&self, key: WgPublicKey, index: Index, psk: &Psk, now: Duration) -> Link {
        let tunn = Tunn::new(
            self.secret.clone(),
            PublicKey::from(key.0),
            Some(*psk.expose()),
            None,
            index.value(),
            Some(Arc::clone(&self.limiter)),
        );
        Link::new(tunn, index, now)
    }
}

/// Whether an index (24 bits) is one that `owner` gives its initiations under this PSK and epoch.
pub(crate) fn names(index: u32, (epoch, psk): (Epoch, &Psk), owner: &WgPublicKey) -> bool {
    // Most indices fail here, before a PSK is hashed eight times.
    index & 3 == tag(epoch)
        && (0..INDEX_VARIANTS).any(|variant| naming_index(psk, owner, variant, epoch) == index)
}

/// 22 bits that the PSK determines, then the epoch modulo 4.
fn naming_index(psk: &Psk, owner: &WgPublicKey, variant: u8, epoch: Epoch) -> u32 {
    psk.index_bits(owner, variant) << 2 | tag(epoch)
}

/// The two bits of an index that name an epoch.
fn tag(epoch: Epoch) -> u32 {
    (epoch.0 & 3) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TunnelId;
    use crate::indices::IndexTable;
    use rand_core::OsRng;

    #[test]
    fn an_initiation_names_its_generation_as_long_as_one_of_its_indices_is_free() {
        let table = IndexTable::default();
        let indices = table.of(TunnelId::FIRST);
        let own = WgSecret::generate(&mut OsRng);
        let peer = (1, WgSecret::generate(&mut OsRng).public());
        let (epoch, psk) = (Epoch(6), Psk::from_bytes([9; 32]));
        let mut forge = Forge::new(own, indices.clone(), 1);
        let is_named =
            |link: &Link, forge: &Forge| names(link.index.value(), (epoch, &psk), &forge.public());
        let (mut variant, mut links) = (5, Vec::new());
        for _ in 0..INDEX_VARIANTS {
            let link = forge.initiator(peer, (epoch, &psk), &mut variant, Duration::ZERO);
            assert!(is_named(&link, &forge));
            links.push(link);
        }
        let beyond = forge.initiator(peer, (epoch, &psk), &mut variant, Duration::ZERO);
        assert!(!is_named(&beyond, &forge));
        assert_eq!(beyond.index.value() & 3, tag(epoch));
        assert_eq!(table.all().len(), usize::from(INDEX_VARIANTS) + 1);
        // One that is dropped is the next to be used again.
        links.remove(3);
        let again = forge.initiator(peer, (epoch, &psk), &mut variant, Duration::ZERO);
        assert!(is_named(&again, &forge));
        assert!(!names(
            again.index.value(),
            (Epoch(7), &psk),
            &forge.public()
        ));
    }
}
