//! The common part of all 32-byte secrets. Refuses `Copy`, `Clone`, `Display`, `Serialize` and
//! `PartialEq`: a secret is moved, borrowed or wiped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

/// Why a secret could not be read. Never says what was read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecretParseError {
    /// The text is not base64.
    #[error("not base64")]
    Encoding,
    /// The text is base64, but not of 32 bytes.
    #[error("{0} bytes instead of 32")]
    Length(usize),
}

/// Declares a 32-byte secret: wiped on drop, `Debug` prints only its name.
macro_rules! secret_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(zeroize::ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Draws 32 bytes from `rng`.
            pub fn generate(rng: &mut (impl rand_core::RngCore + rand_core::CryptoRng)) -> Self {
                let mut bytes = [0; 32];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// Takes 32 bytes that came from a secret's file or frame.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 secret bytes; every use of this is a place to review.
            pub fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}
pub(crate) use secret_bytes;

/// Reads one base64 line of 32 bytes, as secret key files hold it.
pub(crate) fn parse_base64(text: &str) -> Result<[u8; 32], SecretParseError> {
    let bytes = Zeroizing::new(
        STANDARD
            .decode(text.trim())
            .map_err(|_| SecretParseError::Encoding)?,
    );
    let mut out = [0; 32];
    if bytes.len() != out.len() {
        return Err(SecretParseError::Length(bytes.len()));
    }
    out.copy_from_slice(&bytes);
    Ok(out)
}

/// Writes 32 bytes as one base64 line; the caller's string is wiped when it is dropped.
pub(crate) fn to_base64(bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut copy = *bytes;
    let text = Zeroizing::new(STANDARD.encode(copy));
    copy.zeroize();
    text
}
