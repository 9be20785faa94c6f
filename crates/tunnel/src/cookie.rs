//! The MACs of handshake messages and the cookie reply, both sides of it (whitepaper, sections 5.4.4
//! and 5.4.7).
//!
//! boringtun's limiter binds a cookie to an address without its port, counts on a clock of its own and
//! keeps what it was given with one handshake. Here a cookie is bound to the port as well, and one that
//! was given serves all handshakes with a peer as long as it is good.

use crate::path::Path;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use blake2::digest::consts::{U16, U24};
use blake2::digest::{FixedOutput as _, Update as _};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use keys::{WgPublicKey, WgSecret};
use std::time::Duration;
use zeroize::Zeroizing;

/// The proof to one responder that this side receives what goes to its address.
pub(crate) type Cookie = [u8; 16];

/// The side that is sent handshake messages.
pub(crate) struct Cookies {
    mac1_key: [u8; 32],
    sealing_key: [u8; 32],
    /// Of this start alone; every two minutes have a secret of their own that is derived from it.
    secret: Zeroizing<[u8; 32]>,
    replies: u64,
}

impl Cookies {
    pub(crate) fn new(own: &WgSecret, seed: u64) -> Self {
        let label_and_seed = [SECRET_LABEL, &seed.to_be_bytes()].concat();
        Self {
            mac1_key: labelled(LABEL_MAC1, &own.public()),
            sealing_key: labelled(LABEL_COOKIE, &own.public()),
            secret: Zeroizing::new(hash(&[own.expose(), &label_and_seed])),
            replies: 0,
        }
    }

    /// Whether a handshake message was made for this side's key, which is no secret: MAC1.
    pub(crate) fn is_addressed(&self, message: &[u8]) -> bool {
        Parts::of(message).is_some_and(|it| is_same(&mac(&self.mac1_key, &[it.signed]), it.mac1))
    }

    /// Whether its sender has been sent a cookie at this address and port, within the last two minutes
    /// or those before: MAC2.
    pub(crate) fn is_proven(&self, from: Path, message: &[u8], now: Duration) -> bool {
        let period = period(now);
        Parts::of(message)
            .filter(|it| *it.mac2 != [0; 16])
            .is_some_and(|it| {
                [Some(period), period.checked_sub(1)]
                    .into_iter()
                    .flatten()
                    .map(|period| mac(&self.cookie(from, period), &[it.signed, it.mac1]))
                    .any(|expected| is_same(&expected, it.mac2))
            })
    }

    /// The cookie reply to a handshake message.
    pub(crate) fn reply(&mut self, from: Path, message: &[u8], now: Duration) -> Option<Vec<u8>> {
        let parts = Parts::of(message)?;
        self.replies += 1;
        let nonce = Blake2sMac::<U24>::new_from_slice(self.secret.as_slice())
            .ok()?
            .chain(NONCE_LABEL)
            .chain(self.replies.to_be_bytes())
            .finalize_fixed();
        let payload = Payload {
            msg: &self.cookie(from, period(now)),
            aad: parts.mac1,
        };
        let cipher = XChaCha20Poly1305::new(Key::from_slice(&self.sealing_key));
        let sealed = cipher.encrypt(XNonce::from_slice(&nonce), payload).ok()?;
        Some([&COOKIE_REPLY, parts.sender, nonce.as_slice(), &sealed].concat())
    }

    fn cookie(&self, path: Path, period: u64) -> Cookie {
        let secret = mac(&*self.secret, &[&period.to_be_bytes()]);
        mac(&secret, &[&path.proven_bytes()])
    }
}

/// The cookie that `peer` sent in answer to the handshake message `sent`.
pub(crate) fn open_reply(peer: &WgPublicKey, reply: &[u8], sent: &[u8]) -> Option<Cookie> {
    let (header, sealed) = (reply.get(..8)?, reply.get(32..64)?);
    let parts = Parts::of(sent)?;
    if header.get(4..) != Some(parts.sender) {
        return None;
    }
    let key = labelled(LABEL_COOKIE, peer);
    let payload = Payload {
        msg: sealed,
        aad: parts.mac1,
    };
    XChaCha20Poly1305::new(Key::from_slice(&key))
        .decrypt(XNonce::from_slice(reply.get(8..32)?), payload)
        .ok()?
        .try_into()
        .ok()
}

/// Writes MAC1 for `owner` into a handshake message, and no MAC2: as anybody can.
#[cfg(test)]
pub(crate) fn address(owner: &WgPublicKey, message: &mut [u8]) {
    let (rest, mac2) = message.split_last_chunk_mut::<16>().expect("32 bytes");
    let (signed, mac1) = rest.split_last_chunk_mut::<16>().expect("16 bytes");
    *mac1 = mac(&labelled(LABEL_MAC1, owner), &[signed]);
    *mac2 = [0; 16];
}

/// Writes MAC2 into a handshake message.
pub(crate) fn prove(cookie: &Cookie, message: &mut [u8]) {
    if let Some((signed, mac2)) = message.split_last_chunk_mut::<16>() {
        *mac2 = mac(cookie, &[signed]);
    }
}

/// A handshake message, taken apart.
struct Parts<'m> {
    /// The sender's index.
    sender: &'m [u8],
    /// The bytes that MAC1 is over.
    signed: &'m [u8],
    mac1: &'m [u8; 16],
    mac2: &'m [u8; 16],
}

impl<'m> Parts<'m> {
    fn of(message: &'m [u8]) -> Option<Self> {
        let (rest, mac2) = message.split_last_chunk()?;
        let (signed, mac1) = rest.split_last_chunk()?;
        Some(Self {
            sender: signed.get(4..8)?,
            signed,
            mac1,
            mac2,
        })
    }
}

fn period(now: Duration) -> u64 {
    now.as_secs() / COOKIE_SECRET_TIME.as_secs()
}

/// Keyed BLAKE2s with 16 bytes of output (whitepaper, section 5.4). Keys have 16 or 32 bytes.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Blake2sMac::<U16>::new_from_slice(key).expect("BLAKE2s takes up to 32 bytes");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize_fixed().into()
}

fn is_same(one: &[u8; 16], other: &[u8; 16]) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

fn labelled(label: &[u8], key: &WgPublicKey) -> [u8; 32] {
    hash(&[label, &key.0])
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    parts
        .iter()
        .for_each(|part| Digest::update(&mut hash, part));
    hash.finalize().into()
}

/// Type 3 and three reserved bytes.
const COOKIE_REPLY: [u8; 4] = [3, 0, 0, 0];
const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";
const SECRET_LABEL: &[u8] = b"meshd/v1 cookie";
const NONCE_LABEL: &[u8] = b"nonce";
/// How long a secret makes cookies (whitepaper, section 5.4.7).
const COOKIE_SECRET_TIME: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;
    use boringtun::noise::rate_limiter::RateLimiter;
    use boringtun::noise::{Tunn, TunnResult};
    use rand_core::OsRng;
    use std::net::IpAddr;
    use std::sync::Arc;
    use x25519_dalek::{PublicKey, StaticSecret};

    fn from(port: u16) -> Path {
        Path::Udp(([192, 0, 2, 1], port).into())
    }

    fn tunn(own: &WgSecret, peer: &WgPublicKey) -> Tunn {
        let secret = StaticSecret::from(*own.expose());
        Tunn::new(secret, PublicKey::from(peer.0), None, None, 7, None)
    }

    fn initiation(tunn: &mut Tunn) -> Vec<u8> {
        match tunn.format_handshake_initiation(&mut [0; 148], true) {
            TunnResult::WriteToNetwork(message) => message.to_vec(),
            _ => unreachable!(),
        }
    }

    #[test]
    fn what_boringtun_makes_of_our_cookie_proves_its_address_and_port() {
        let (a, b) = (
            WgSecret::generate(&mut OsRng),
            WgSecret::generate(&mut OsRng),
        );
        let mut cookies = Cookies::new(&b, 1);
        let (mut tunn, now) = (tunn(&a, &b.public()), Duration::from_secs(500));
        let first = initiation(&mut tunn);
        assert!(cookies.is_addressed(&first) && !cookies.is_proven(from(1), &first, now));
        let reply = cookies.reply(from(1), &first, now).unwrap();
        assert!(matches!(
            tunn.decapsulate(None, &reply, &mut [0; 148]),
            TunnResult::Done
        ));
        let second = initiation(&mut tunn);
        assert!(cookies.is_addressed(&second) && cookies.is_proven(from(1), &second, now));
        assert!(!cookies.is_proven(from(2), &second, now), "another port");
        let elsewhere = Path::Udp(([192, 0, 2, 2], 1).into());
        assert!(
            !cookies.is_proven(elsewhere, &second, now),
            "another address"
        );
        for (later, holds) in [(120, true), (240, false), (3_600, false)] {
            let later = now + Duration::from_secs(later);
            assert_eq!(cookies.is_proven(from(1), &second, later), holds);
        }
        assert!(
            !Cookies::new(&b, 2).is_proven(from(1), &second, now),
            "another start"
        );
    }

    #[test]
    fn what_boringtun_seals_into_a_cookie_reply_is_opened_and_proves_the_address_to_it() {
        let (a, b) = (
            WgSecret::generate(&mut OsRng),
            WgSecret::generate(&mut OsRng),
        );
        let limiter = Arc::new(RateLimiter::new(&PublicKey::from(b.public().0), 0));
        let mut message = initiation(&mut tunn(&a, &b.public()));
        let address: Option<IpAddr> = Some(from(1).ip());
        let mut buffer = [0; 148];
        let Err(TunnResult::WriteToNetwork(reply)) =
            limiter.verify_packet(address, &message, &mut buffer)
        else {
            panic!("it is under load");
        };
        let cookie = open_reply(&b.public(), reply, &message).unwrap();
        prove(&cookie, &mut message);
        let verified = limiter
            .verify_packet(address, &message, &mut [0; 148])
            .is_ok();
        assert!(verified);
    }

    #[test]
    fn a_reply_to_another_message_or_with_a_changed_bit_is_not_opened() {
        let (a, b) = (
            WgSecret::generate(&mut OsRng),
            WgSecret::generate(&mut OsRng),
        );
        let mut cookies = Cookies::new(&b, 1);
        let message = initiation(&mut tunn(&a, &b.public()));
        let reply = cookies.reply(from(1), &message, Duration::ZERO).unwrap();
        assert!(open_reply(&b.public(), &reply, &message).is_some());
        let other = initiation(&mut tunn(&a, &b.public()));
        assert!(open_reply(&b.public(), &reply, &other).is_none());
        assert!(open_reply(&a.public(), &reply, &message).is_none());
        for at in 4..reply.len() {
            let mut changed = reply.clone();
            changed[at] ^= 1;
            assert!(
                open_reply(&b.public(), &changed, &message).is_none(),
                "byte {at}"
            );
        }
        for short in 0..reply.len() {
            assert!(open_reply(&b.public(), &reply[..short], &message).is_none());
        }
    }

    #[test]
    fn no_two_replies_have_the_same_nonce() {
        let b = WgSecret::generate(&mut OsRng);
        let mut cookies = Cookies::new(&b, 1);
        let replies: std::collections::HashSet<Vec<u8>> = (0..1_000)
            .map(|_| cookies.reply(from(1), &[0; 148], Duration::ZERO).unwrap())
            .map(|reply| reply[8..32].to_vec())
            .collect();
        assert_eq!(replies.len(), 1_000);
    }
}
