//! The single-use secret inside an enrolment token. The controller keeps only its hash.

use crate::secret::secret_bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const LABEL_TOKEN: &[u8] = b"meshd/v1 token";

secret_bytes!(
    /// 32 random bytes that admit one enrolment.
    TokenSecret
);

/// SHA-256(label ‖ secret): what the controller stores and looks up. Finding a secret for a known
/// hash takes 2^256 work, so comparing hashes needs no constant time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct TokenHash(pub [u8; 32]);

impl TokenSecret {
    /// The hash that stands for this secret.
    pub fn hash(&self) -> TokenHash {
        TokenHash(
            Sha256::new()
                .chain_update(LABEL_TOKEN)
                .chain_update(self.expose())
                .finalize()
                .into(),
        )
    }
}
