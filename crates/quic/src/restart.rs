//! Lets a restarted controller tell its nodes at once that their connections are gone.
//!
//! A stateless reset (RFC 9000, section 10.3) proves itself with a token that both sides had before
//! the restart. The key of those tokens is therefore derived from the controller's secret instead of
//! drawn anew, and connection IDs carry no mark of the process that made them. A node hears of a
//! crashed controller with its next keep-alive, not after the idle timeout.

use hmac::{Hmac, Mac as _};
use keys::ControllerSecret;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use rand_core::{OsRng, RngCore as _};
use sha2::Sha256;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

pub(crate) fn endpoint_config(secret: &ControllerSecret) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(secret.expose_derived(LABEL))));
    config.cid_generator(|| Box::new(RandomIds));
    config.min_reset_interval(BETWEEN_RESETS);
    config
}

struct ResetKey(Zeroizing<[u8; 32]>);

impl ResetKey {
    fn mac(&self, data: &[u8]) -> Hmac<Sha256> {
        let mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(self.0.as_slice());
        mac.expect("HMAC takes any key length").chain_update(data)
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(&self.mac(data).finalize().into_bytes());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        self.mac(data)
            .verify_slice(signature)
            .map_err(|_| CryptoError)
    }
}

struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_LEN];
        OsRng.fill_bytes(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

const LABEL: &[u8] = b"meshd/v1 stateless reset";
const ID_LEN: usize = 8;
/// The least time between two resets. A fleet of ten thousand asks within a keep-alive after a restart; quinn's own
/// 20 ms would tell 50 nodes a second, and leave all others to their patience of ten seconds. A reset costs one
/// HMAC, and is shorter than what it answers.
const BETWEEN_RESETS: Duration = Duration::from_micros(50);
