//! Ed25519 secrets (RFC 8032), one type per role. Refuses to sign without a domain label.

use crate::public::{AuthorityId, ControllerId, EvaluatorId, LogId, NodeId, is_canonical};
use crate::secret::{SecretParseError, parse_base64, to_base64};
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use rand_core::{CryptoRng, RngCore};
use sha2::{Digest as _, Sha256};
use std::fmt;
use zeroize::Zeroizing;

/// An Ed25519 signature, 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature(pub [u8; 64]);

macro_rules! signing_secret {
    ($(#[$doc:meta])* $name:ident, $public:ident) => {
        $(#[$doc])*
        pub struct $name(SigningKey);

        impl $name {
            /// Draws a new secret from `rng`.
            pub fn generate(rng: &mut (impl RngCore + CryptoRng)) -> Self {
                Self(SigningKey::generate(rng))
            }

            /// Reads the base64 line of a key file.
            ///
            /// # Errors
            /// When `text` is not base64 of 32 bytes.
            pub fn from_base64(text: &str) -> Result<Self, SecretParseError> {
                let seed = Zeroizing::new(parse_base64(text)?);
                Ok(Self(SigningKey::from_bytes(&seed)))
            }

            /// The base64 line of a key file: the 32-byte seed of RFC 8032, section 5.1.5.
            pub fn expose_base64(&self) -> Zeroizing<String> {
                to_base64(self.0.as_bytes())
            }

            /// The secret as PKCS#8 (RFC 8410), for a TLS library.
            pub fn expose_pkcs8(&self) -> Zeroizing<Vec<u8>> {
                let der = self.0.to_pkcs8_der().expect("an Ed25519 key always encodes");
                Zeroizing::new(der.as_bytes().to_vec())
            }

            /// 32 bytes that only the holder of this secret can derive: SHA-256(label ‖ seed).
            pub fn expose_derived(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
                let hash = Sha256::new().chain_update(label).chain_update(self.0.as_bytes());
                Zeroizing::new(hash.finalize().into())
            }

            /// The public half.
            pub fn public(&self) -> $public {
                $public(self.0.verifying_key().to_bytes())
            }

            /// Signs `label ‖ len(message) as u64 BE ‖ message`; `label` separates the domains.
            pub fn sign(&self, label: &[u8], message: &[u8]) -> Signature {
                Signature(self.0.sign(&labelled(label, message)).to_bytes())
            }

            /// Signs bytes that carry their own domain separation, such as a DSSE PAE.
            pub fn sign_encoded(&self, encoded: &[u8]) -> Signature {
                Signature(self.0.sign(encoded).to_bytes())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        impl $public {
            /// Whether a signature by this key proves anything: a canonically encoded point of no small
            /// order. With a weak key, one signature fits many messages (RFC 8032, section 8.9).
            pub fn is_sound(&self) -> bool {
                is_canonical(&self.0)
                    && VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
            }

            /// Whether `signature` is this key's over `label` and `message`. Strict: refuses weak
            /// keys and non-canonical encodings.
            pub fn verifies(&self, label: &[u8], message: &[u8], signature: &Signature) -> bool {
                self.verifies_encoded(&labelled(label, message), signature)
            }

            /// As [`Self::verifies`], over bytes that carry their own domain separation.
            pub fn verifies_encoded(&self, encoded: &[u8], signature: &Signature) -> bool {
                let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
                VerifyingKey::from_bytes(&self.0)
                    .is_ok_and(|key| key.verify_strict(encoded, &signature).is_ok())
            }
        }
    };
}

signing_secret!(
    /// A node's identity: authenticates its QUIC connection and signs its own evidence.
    NodeSecret, NodeId);
signing_secret!(
    /// Authenticates the controller's QUIC endpoint.
    ControllerSecret, ControllerId);
signing_secret!(
    /// Signs epoch updates, places and marks.
    AuthoritySecret, AuthorityId);
signing_secret!(
    /// Signs evidence on behalf of nodes that it evaluated.
    EvaluatorSecret, EvaluatorId);
signing_secret!(
    /// Signs the checkpoints of the event log. Apart from the authority's key, so that an account of the log
    /// can be kept elsewhere without the power to make members.
    LogSecret, LogId);

fn labelled(label: &[u8], message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(label.len() + 8 + message.len());
    bytes.extend_from_slice(label);
    bytes.extend_from_slice(&(message.len() as u64).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::OsRng;

    #[test]
    fn a_signature_holds_only_for_its_key_label_and_message() {
        let secret = NodeSecret::generate(&mut OsRng);
        let signature = secret.sign(b"label", b"message");
        let public = secret.public();
        assert!(public.verifies(b"label", b"message", &signature));
        assert!(!public.verifies(b"labem", b"message", &signature));
        assert!(!public.verifies(b"label", b"messagf", &signature));
        assert!(
            !NodeSecret::generate(&mut OsRng)
                .public()
                .verifies(b"label", b"message", &signature)
        );
    }

    #[test]
    fn weak_keys_and_second_encodings_are_not_sound() {
        assert!(NodeSecret::generate(&mut OsRng).public().is_sound());
        // The neutral element, the point of order two, and one of order four (RFC 8032, section 5.1).
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut second = [0xff; 32];
        (second[0], second[31]) = (0xec, 0x7f);
        for weak in [neutral, second, [0; 32]] {
            assert!(!NodeId(weak).is_sound(), "{weak:?}");
        }
        // 2^255 - 19 + 3 encodes the same y as 3, which is a point.
        let (mut three, mut beyond) = ([0; 32], [0xff; 32]);
        three[0] = 3;
        (beyond[0], beyond[31]) = (0xf0, 0x7f);
        assert!(NodeId(three).is_sound());
        assert!(
            VerifyingKey::from_bytes(&beyond).is_ok(),
            "a library takes it"
        );
        assert!(!NodeId(beyond).is_sound());
    }

    #[test]
    fn a_secret_reads_back_from_its_file_line_and_never_prints() {
        let secret = NodeSecret::generate(&mut OsRng);
        let line = secret.expose_base64();
        assert_eq!(
            NodeSecret::from_base64(&line).unwrap().public(),
            secret.public()
        );
        assert_eq!(format!("{secret:?}"), "NodeSecret(..)");
        assert_eq!(
            NodeSecret::from_base64("AAAA").unwrap_err(),
            SecretParseError::Length(3)
        );
    }
}
