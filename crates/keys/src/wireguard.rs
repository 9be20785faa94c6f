//! X25519 (RFC 7748) secrets of the WireGuard handshake.

use crate::public::WgPublicKey;
use crate::secret::{SecretParseError, parse_base64, secret_bytes, to_base64};
use rand_core::{CryptoRng, RngCore};
use std::fmt;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A node's WireGuard static private key.
pub struct WgSecret(StaticSecret);

secret_bytes!(
    /// X25519 of two static keys: the same 32 bytes on both sides of a pair, unknown to anybody else.
    SharedSecret
);

impl WgSecret {
    /// Draws a new secret from `rng`.
    pub fn generate(rng: &mut (impl RngCore + CryptoRng)) -> Self {
        Self(StaticSecret::random_from_rng(rng))
    }

    /// Reads the base64 line of a key file, the format of `wg genkey`.
    ///
    /// # Errors
    /// When `text` is not base64 of 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, SecretParseError> {
        Ok(Self(StaticSecret::from(*Zeroizing::new(parse_base64(
            text,
        )?))))
    }

    /// The base64 line of a key file, the format of `wg genkey`.
    pub fn expose_base64(&self) -> Zeroizing<String> {
        to_base64(self.0.as_bytes())
    }

    /// The 32 secret bytes; every use of this is a place to review.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public half.
    pub fn public(&self) -> WgPublicKey {
        WgPublicKey(PublicKey::from(&self.0).to_bytes())
    }

    /// A second copy, for a second owner; each wipes its own.
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// The pair's static-static secret: symmetric in the two sides.
    ///
    /// `None` for a public key of low order, with which every secret would give the same value.
    pub fn shared_with(&self, peer: &WgPublicKey) -> Option<SharedSecret> {
        let shared = self.0.diffie_hellman(&PublicKey::from(peer.0));
        shared
            .was_contributory()
            .then(|| SharedSecret::from_bytes(shared.to_bytes()))
    }
}

impl fmt::Debug for WgSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WgSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::OsRng;

    #[test]
    fn both_sides_of_a_pair_share_one_secret() {
        let (a, b) = (
            WgSecret::generate(&mut OsRng),
            WgSecret::generate(&mut OsRng),
        );
        let ab = a.shared_with(&b.public()).unwrap();
        let ba = b.shared_with(&a.public()).unwrap();
        assert_eq!(ab.expose(), ba.expose());
    }

    #[test]
    fn a_low_order_public_key_is_refused() {
        let secret = WgSecret::generate(&mut OsRng);
        assert!(secret.shared_with(&WgPublicKey([0; 32])).is_none());
    }

    #[test]
    fn keys_of_low_order_and_second_encodings_are_not_sound() {
        let sound = WgSecret::generate(&mut OsRng).public();
        assert!(sound.is_sound());
        let mut high = sound;
        high.0[31] |= 0x80;
        let (mut one, mut beyond) = ([0; 32], [0xff; 32]);
        one[0] = 1;
        (beyond[0], beyond[31]) = (0xf6, 0x7f);
        for key in [high.0, [0; 32], one, beyond] {
            assert!(!WgPublicKey(key).is_sound(), "{key:?}");
        }
    }
}
