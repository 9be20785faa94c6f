//! Signatures of the authority: [`Signed<T>`] travels, [`Verified<T>`] is what verification leaves.

use bytes::Bytes;
use keys::{AuthorityId, AuthoritySecret, Signature};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

/// SHA-256 of a signed payload: the update's name in chains and logs.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

/// A text that is no printed digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `sha256:` and 64 digits in lower-case hex")]
pub struct DigestParseError;

/// A value that an authority signs.
pub trait Signable: Serialize + DeserializeOwned {
    /// Separates this type's signatures from all others'.
    const LABEL: &'static [u8];

    /// Checks what the encoding cannot say; runs after the signature has been verified.
    ///
    /// # Errors
    /// Names the first rule that does not hold.
    fn check(&self) -> Result<(), &'static str>;
}

/// Encoded `T` with an authority's signature over `LABEL ‖ length ‖ SHA-256 of the payload`. Not yet believed.
///
/// The signature is over the digest, so that the same large payload need not be read once more for each signature.
/// A copy shares the payload.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    payload: Bytes,
    signer: AuthorityId,
    #[serde(with = "serde_bytes")]
    signature: [u8; 64],
    #[serde(skip)]
    of: PhantomData<fn() -> T>,
}

/// Proof that a trusted authority signed this value and that it is well formed. A copy shares the value.
#[derive(Debug)]
pub struct Verified<T> {
    value: Arc<T>,
    digest: Digest,
}

/// Why a signed value is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VerifyError {
    /// The key that signed is not one that is trusted here.
    #[error("signed by {0}, which is not trusted here")]
    UnknownSigner(AuthorityId),
    /// The signature does not fit the payload.
    #[error("the signature does not verify")]
    BadSignature,
    /// The payload is not a value of the type.
    #[error("malformed payload")]
    Malformed,
    /// The value breaks a rule of its type.
    #[error("{0}")]
    Invalid(&'static str),
}

impl<T: Signable> Signed<T> {
    /// Encodes and signs `value`.
    ///
    /// # Errors
    /// [`VerifyError::Invalid`] when the value breaks a rule of its type: nothing is signed that a
    /// receiver would have to refuse.
    pub fn sign(value: &T, authority: &AuthoritySecret) -> Result<Self, VerifyError> {
        value.check().map_err(VerifyError::Invalid)?;
        let payload = postcard::to_stdvec(value).map_err(|_| VerifyError::Malformed)?;
        let signature = authority.sign(T::LABEL, &digest_of(&payload).0).0;
        Ok(Self {
            payload: payload.into(),
            signer: authority.public(),
            signature,
            of: PhantomData,
        })
    }

    /// Believes the value if one of `trusted` signed it.
    ///
    /// # Errors
    /// [`VerifyError`]; the order of the checks is signer, signature, encoding, rules.
    pub fn verify(&self, trusted: &[AuthorityId]) -> Result<Verified<T>, VerifyError> {
        let digest = self.digest();
        self.vouch(trusted, &digest)?;
        let Ok((value, [])) = postcard::take_from_bytes::<T>(&self.payload) else {
            return Err(VerifyError::Malformed);
        };
        value.check().map_err(VerifyError::Invalid)?;
        Ok(Verified {
            value: Arc::new(value),
            digest,
        })
    }

    /// Checks signer and signature alone, where the payload's digest is known: enough where the same bytes have been
    /// verified before.
    ///
    /// # Errors
    /// The first two of [`Self::verify`].
    pub fn vouch(&self, trusted: &[AuthorityId], digest: &Digest) -> Result<(), VerifyError> {
        if !trusted.contains(&self.signer) {
            return Err(VerifyError::UnknownSigner(self.signer));
        }
        let signature = Signature(self.signature);
        if self.signer.verifies(T::LABEL, &digest.0, &signature) {
            Ok(())
        } else {
            Err(VerifyError::BadSignature)
        }
    }

    /// Takes out the payload, and leaves it empty.
    pub(crate) fn take_payload(&mut self) -> Bytes {
        std::mem::take(&mut self.payload)
    }

    /// The same with this payload.
    pub(crate) fn with_payload(self, payload: Vec<u8>) -> Self {
        Self {
            payload: payload.into(),
            ..self
        }
    }

    /// The value by nobody's word: for the one who has signed it, and for a line in a log.
    pub fn peek(&self) -> Option<T>
    where
        T: DeserializeOwned,
    {
        postcard::from_bytes(&self.payload).ok()
    }

    /// Bytes of the payload.
    pub fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// The key that signed, by its own word until the value is verified.
    pub fn signer(&self) -> AuthorityId {
        self.signer
    }

    /// SHA-256 of the payload.
    pub fn digest(&self) -> Digest {
        digest_of(&self.payload)
    }
}

fn digest_of(payload: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(payload).into())
}

impl<T> Clone for Verified<T> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            digest: self.digest,
        }
    }
}

impl<T> Verified<T> {
    /// SHA-256 of the payload that was verified.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} bytes by {})", self.payload.len(), self.signer)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        keys::write_hex(f, &self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestParseError;
    fn from_str(text: &str) -> Result<Self, DigestParseError> {
        let hex = text.strip_prefix("sha256:").ok_or(DigestParseError)?;
        let lower = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
        if hex.len() != 64 || !hex.as_bytes().iter().all(lower) {
            return Err(DigestParseError);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| DigestParseError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| DigestParseError)?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
