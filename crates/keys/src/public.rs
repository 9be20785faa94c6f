//! Public keys, one type per role, each printed and parsed with its role's prefix so that a key
//! pasted into the wrong place is refused instead of believed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use x25519_dalek::{PublicKey, StaticSecret};

/// Why a printed public key could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyParseError {
    /// The prefix names another role, or is missing.
    #[error("expected a key that starts with `{0}`")]
    Prefix(&'static str),
    /// The text behind the prefix is not an encoding of 32 bytes.
    #[error("not 32 bytes in {0}")]
    Encoding(&'static str),
    /// The text behind a mesh's prefix is not hex of 16 bytes.
    #[error("not 32 digits in lower-case hex")]
    MeshId,
}

macro_rules! ed25519_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        ///
        /// 32 bytes: an Ed25519 public key (RFC 8032). Printed as lower-case hex behind its prefix.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The prefix of the printed form.
            pub const PREFIX: &'static str = $prefix;

            /// The first 8 hex digits, for tables and logs; not unique by construction.
            pub fn short(&self) -> String {
                self.0.iter().take(4).map(|b| format!("{b:02x}")).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Self::PREFIX)?;
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = KeyParseError;
            fn from_str(text: &str) -> Result<Self, KeyParseError> {
                let hex = text.strip_prefix(Self::PREFIX).ok_or(KeyParseError::Prefix(Self::PREFIX))?;
                parse_hex(hex).map(Self).ok_or(KeyParseError::Encoding("hex"))
            }
        }
    };
}

ed25519_id!(
    /// A node's identity: the public half of its identity key, for QUIC and for evidence.
    NodeId, "node:");
ed25519_id!(
    /// The controller's connection key, which nodes pin for QUIC.
    ControllerId, "controller:");
ed25519_id!(
    /// The key that signs epoch updates.
    AuthorityId, "authority:");
ed25519_id!(
    /// A key whose evidence a policy may accept beside a node's own.
    EvaluatorId, "evaluator:");
ed25519_id!(
    /// The key that signs the checkpoints of an event log.
    LogId, "log:");

/// A WireGuard static public key: 32 bytes, X25519 (RFC 7748). Printed in base64 behind `wg:`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WgPublicKey(pub [u8; 32]);

impl WgPublicKey {
    /// The prefix of the printed form.
    pub const PREFIX: &'static str = "wg:";

    /// Whether a tunnel with this key is possible, and no other bytes stand for it: canonically encoded,
    /// and of no low order, with which every secret would give the same value (RFC 7748, section 6.1).
    pub fn is_sound(&self) -> bool {
        let any_secret = StaticSecret::from([0x42; 32]);
        let shared = any_secret.diffie_hellman(&PublicKey::from(self.0));
        let top_bit_is_clear = self.0.last().is_some_and(|byte| byte & 0x80 == 0);
        top_bit_is_clear && is_canonical(&self.0) && shared.was_contributory()
    }

    /// The form that `wg(8)` reads and writes: bare base64, 44 characters.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }
}

impl fmt::Display for WgPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.to_base64())
    }
}

impl fmt::Debug for WgPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for WgPublicKey {
    type Err = KeyParseError;
    fn from_str(text: &str) -> Result<Self, KeyParseError> {
        let base64 = text
            .strip_prefix(Self::PREFIX)
            .ok_or(KeyParseError::Prefix(Self::PREFIX))?;
        let bytes = STANDARD
            .decode(base64)
            .map_err(|_| KeyParseError::Encoding("base64"))?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| KeyParseError::Encoding("base64"))
    }
}

/// Whether 32 bytes, little-endian and without their top bit, are below 2^255 - 19: the one encoding
/// of a field element that there should be (RFC 7748, section 5; RFC 8032, section 5.1.3).
pub(crate) fn is_canonical(bytes: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = bytes;
    *first < 0xed || middle.iter().any(|byte| *byte != 0xff) || last & 0x7f != 0x7f
}

/// Writes bytes as lower-case hexadecimal digits. A status of 10,000 nodes has millions of them, so that they are not
/// formatted one by one.
///
/// # Errors
/// The formatter's.
pub fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let digit = |nibble: u8| {
        char::from(if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        })
    };
    let digits = |byte: &u8| [digit(byte >> 4), digit(byte & 15)];
    let text: String = bytes.iter().flat_map(digits).collect();
    f.write_str(&text)
}

pub(crate) fn parse_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    // One encoding per key: upper case would be a second one.
    let lower = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if hex.len() != 2 * N || !hex.as_bytes().iter().all(lower) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_printed_key_reads_back(bytes: [u8; 32]) {
            let node = NodeId(bytes);
            let wg = WgPublicKey(bytes);
            prop_assert_eq!(node.to_string().parse(), Ok(node));
            prop_assert_eq!(wg.to_string().parse(), Ok(wg));
        }

        #[test]
        fn any_text_is_a_key_or_an_error(text: String) {
            let _ = text.parse::<NodeId>();
            let _ = text.parse::<WgPublicKey>();
        }
    }

    #[test]
    fn a_key_of_another_role_is_refused() {
        let authority = AuthorityId([7; 32]).to_string();
        assert_eq!(
            authority.parse::<NodeId>(),
            Err(KeyParseError::Prefix("node:"))
        );
    }

    #[test]
    fn a_second_encoding_of_one_identity_is_refused() {
        let upper = format!("node:{}", "AB".repeat(32));
        assert_eq!(upper.parse::<NodeId>(), Err(KeyParseError::Encoding("hex")));
    }
}
