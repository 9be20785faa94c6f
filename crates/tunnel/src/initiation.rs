//! Opens a handshake initiation before any `Tunn` sees it, for its sender and its timestamp.
//!
//! boringtun remembers the greatest timestamp per `Tunn`; a fresh generation would accept recorded
//! initiations again. The memory therefore lives with the peer, and the message is opened here
//! first: Noise IKpsk2, the initiator's first message (whitepaper, section 5.4.2). No PSK is mixed
//! into that message, so the same opening serves every generation.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use blake2::{Blake2s256, Digest as _};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hmac::{Mac as _, SimpleHmac};
use keys::{SharedSecret, WgPublicKey, WgSecret};
use std::time::Duration;
use zeroize::Zeroizing;

/// A TAI64N label, 12 bytes, compared as bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp([u8; 12]);

impl Timestamp {
    /// The label of a moment since 1970, as implementations make it that know of 37 leap seconds.
    pub(crate) fn at(unix: Duration) -> Self {
        let mut label = [0; 12];
        let seconds = (TAI64_EPOCH + LEAP_SECONDS).saturating_add(unix.as_secs());
        label[..8].copy_from_slice(&seconds.to_be_bytes());
        label[8..].copy_from_slice(&unix.subsec_nanos().to_be_bytes());
        Self(label)
    }

    /// The moment since 1970 of a label that was made likewise.
    #[cfg(test)]
    pub(crate) fn unix(self) -> Duration {
        let seconds = self.0.first_chunk().map(|field| u64::from_be_bytes(*field));
        let nanos = self.0.last_chunk().map(|field| u32::from_be_bytes(*field));
        let seconds = seconds.unwrap_or_default() - TAI64_EPOCH - LEAP_SECONDS;
        Duration::new(seconds, nanos.unwrap_or_default())
    }

    pub(crate) fn later_by(self, seconds: u64) -> Self {
        let mut label = self;
        if let Some(field) = label.0.first_chunk_mut() {
            *field = u64::from_be_bytes(*field)
                .saturating_add(seconds)
                .to_be_bytes();
        }
        label
    }

    #[cfg(test)]
    pub(crate) fn later_by_nanos(self, nanos: u32) -> Self {
        let mut label = self;
        if let Some(field) = label.0.last_chunk_mut() {
            *field = (u32::from_be_bytes(*field) + nanos).to_be_bytes();
        }
        label
    }
}

/// An initiation whose sender is known and not yet believed: anybody can make one for any key.
pub(crate) struct Claimed {
    pub(crate) sender: WgPublicKey,
    chaining_key: Zeroizing<[u8; 32]>,
    hash: [u8; 32],
    encrypted_timestamp: [u8; 28],
}

/// The part of our own key that enters every opening.
///
/// The X25519 of an opening is what anybody can make this side compute who knows its public key, and
/// the one of a rotation that comes on top of boringtun's eight. Hence the library that rustls uses
/// too: it takes about half of what boringtun's does.
pub(crate) struct Opener {
    secret: PrivateKey,
    /// HASH(HASH(HASH(construction) ‖ identifier) ‖ our public key)
    initial_hash: [u8; 32],
    initial_key: [u8; 32],
}

impl Opener {
    pub(crate) fn new(secret: &WgSecret) -> Self {
        let initial_key = hash(&[CONSTRUCTION]);
        let public = secret.public();
        let initial_hash = hash(&[&hash(&[&initial_key, IDENTIFIER]), &public.0]);
        Self {
            secret: PrivateKey::from_private_key(&X25519, secret.expose())
                .expect("any 32 bytes are a private key (RFC 7748, section 5)"),
            initial_hash,
            initial_key,
        }
    }

    /// Decrypts the sender's static key. One X25519.
    pub(crate) fn claim(&self, datagram: &[u8]) -> Option<Claimed> {
        let ephemeral: [u8; 32] = *datagram.get(8..)?.first_chunk()?;
        let encrypted_static: [u8; 48] = *datagram.get(40..)?.first_chunk()?;
        let encrypted_timestamp: [u8; 28] = *datagram.get(88..)?.first_chunk()?;

        let hash_e = hash(&[&self.initial_hash, &ephemeral]);
        let (chaining_key, _) = kdf(&self.initial_key, &ephemeral);
        // An ephemeral key of low order is refused.
        let theirs = UnparsedPublicKey::new(&X25519, ephemeral);
        let (chaining_key, key) = agreement::agree(&self.secret, theirs, (), |shared| {
            let shared: &[u8; 32] = shared.first_chunk().ok_or(())?;
            Ok(kdf(&chaining_key, shared))
        })
        .ok()?;
        let opened = open(&key, &encrypted_static, &hash_e)?;
        Some(Claimed {
            sender: WgPublicKey(opened.as_slice().try_into().ok()?),
            chaining_key,
            hash: hash(&[&hash_e, &encrypted_static]),
            encrypted_timestamp,
        })
    }
}

impl Claimed {
    /// Decrypts the timestamp, which proves that the sender holds the static key. `shared` is the
    /// static-static secret of the pair.
    pub(crate) fn timestamp(&self, shared: &SharedSecret) -> Option<Timestamp> {
        let (_, key) = kdf(&self.chaining_key, shared.expose());
        let opened = open(&key, &self.encrypted_timestamp, &self.hash)?;
        Some(Timestamp(opened.as_slice().try_into().ok()?))
    }
}

/// KDF2 of the whitepaper (section 5.4): HKDF with HMAC-BLAKE2s.
fn kdf(key: &[u8; 32], input: &[u8]) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>) {
    let prk = hmac(key, &[input]);
    let first = hmac(&prk, &[&[1]]);
    let second = hmac(&prk, &[first.as_slice(), &[2]]);
    (first, second)
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut mac = <SimpleHmac<Blake2s256> as hmac::Mac>::new_from_slice(key)
        .expect("HMAC takes any key length");
    parts.iter().for_each(|part| mac.update(part));
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn open(key: &[u8; 32], ciphertext: &[u8], aad: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let cipher = ChaCha20Poly1305::new(Key::from_slice(key));
    let payload = Payload {
        msg: ciphertext,
        aad,
    };
    cipher
        .decrypt(&Nonce::default(), payload)
        .ok()
        .map(Zeroizing::new)
}

/// An initiation with any index and timestamp.
#[cfg(test)]
pub(crate) fn sealed(
    from: &WgSecret,
    to: &WgPublicKey,
    index: u32,
    timestamp: Timestamp,
) -> Vec<u8> {
    let seal = |key: &[u8; 32], msg: &[u8], aad: &[u8]| {
        ChaCha20Poly1305::new(Key::from_slice(key))
            .encrypt(&Nonce::default(), Payload { msg, aad })
            .expect("it fits")
    };
    let ephemeral = WgSecret::generate(&mut rand_core::OsRng);
    let initial_key = hash(&[CONSTRUCTION]);
    let hash_e = hash(&[&hash(&[&initial_key, IDENTIFIER]), &to.0]);
    let hash_e = hash(&[&hash_e, &ephemeral.public().0]);
    let (chaining_key, _) = kdf(&initial_key, &ephemeral.public().0);
    let shared = ephemeral.shared_with(to).expect("a good key");
    let (chaining_key, key) = kdf(&chaining_key, shared.expose());
    let encrypted_static = seal(&key, &from.public().0, &hash_e);
    let hash_s = hash(&[&hash_e, &encrypted_static]);
    let shared = from.shared_with(to).expect("a good key");
    let (_, key) = kdf(&chaining_key, shared.expose());
    let encrypted_timestamp = seal(&key, &timestamp.0, &hash_s);
    let mut message = [
        [1, 0, 0, 0].as_slice(),
        &index.to_le_bytes(),
        &ephemeral.public().0,
        &encrypted_static,
        &encrypted_timestamp,
        &[0; 32],
    ]
    .concat();
    crate::cookie::address(to, &mut message);
    message
}

/// The label of 1970 (TAI64).
const TAI64_EPOCH: u64 = 1 << 62;
/// TAI less UTC since 2017.
const LEAP_SECONDS: u64 = 37;
const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

#[cfg(test)]
mod tests {
    use super::*;
    use boringtun::noise::{Tunn, TunnResult};
    use rand_core::OsRng;
    use x25519_dalek::{PublicKey, StaticSecret};

    fn initiation(from: &WgSecret, to: &WgPublicKey) -> Vec<u8> {
        let secret = StaticSecret::from(*from.expose());
        let mut tunn = Tunn::new(secret, PublicKey::from(to.0), Some([9; 32]), None, 1, None);
        let mut buffer = [0; 148];
        match tunn.format_handshake_initiation(&mut buffer, true) {
            TunnResult::WriteToNetwork(message) => message.to_vec(),
            _ => unreachable!(),
        }
    }

    #[test]
    fn what_boringtun_seals_is_opened() {
        let (a, b) = (
            WgSecret::generate(&mut OsRng),
            WgSecret::generate(&mut OsRng),
        );
        let opener = Opener::new(&b);
        let shared = b.shared_with(&a.public()).unwrap();
        let first = opener.claim(&initiation(&a, &b.public())).unwrap();
        let second = opener.claim(&initiation(&a, &b.public())).unwrap();
        assert_eq!(first.sender, a.public());
        assert!(first.timestamp(&shared).unwrap() < second.timestamp(&shared).unwrap());
    }

    #[test]
    fn a_message_for_another_or_with_a_changed_bit_is_not() {
        let (a, b, c) = (
            WgSecret::generate(&mut OsRng),
            WgSecret::generate(&mut OsRng),
            WgSecret::generate(&mut OsRng),
        );
        let message = initiation(&a, &b.public());
        assert!(Opener::new(&c).claim(&message).is_none());
        let opener = Opener::new(&b);
        let shared = b.shared_with(&a.public()).unwrap();
        for at in 8..116 {
            let mut changed = message.clone();
            changed[at] ^= 1;
            let stamp = opener
                .claim(&changed)
                .and_then(|claimed| claimed.timestamp(&shared));
            assert!(stamp.is_none(), "byte {at}");
        }
    }
}
