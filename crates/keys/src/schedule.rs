//! The key schedule: how a pair's preshared key comes out of an epoch's secret.
//!
//! ```text
//! salt             = mesh ‖ segment ‖ epoch                                     (28 bytes, big-endian)
//! commitment       = SHA-256("meshd/v1 commitment" ‖ S)
//! N_i  node key    = HKDF-SHA256(salt, ikm: S,                     info: "meshd/v1 node" ‖ NodeId_i)
//! P_ij pair PSK    = HKDF-SHA256(salt, ikm: N_lo ‖ N_hi ‖ DH(i,j), info: "meshd/v1 pair" ‖ wg_lo ‖ wg_hi)
//! index tag        = HKDF-SHA256(salt: none, ikm: P_ij,            info: "meshd/v1 index" ‖ wg_owner ‖ attempt)
//! ```
//!
//! `S` is the epoch secret; lo and hi order the two nodes by the bytes of their WireGuard public
//! keys; `DH(i,j)` is X25519 of the two static keys. A PSK therefore needs both the epoch secret,
//! which only members have, and one of the pair's private keys, which the controller and the other
//! members do not have. HKDF is RFC 5869. Test vectors are below and in `docs/PROTOCOL.md`.

use crate::public::{NodeId, WgPublicKey};
use crate::scope::Scope;
use crate::secret::{secret_bytes, to_base64};
use crate::wireguard::SharedSecret;
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use zeroize::Zeroizing;

const LABEL_COMMITMENT: &[u8] = b"meshd/v1 commitment";
const LABEL_NODE: &[u8] = b"meshd/v1 node";
const LABEL_PAIR: &[u8] = b"meshd/v1 pair";
const LABEL_INDEX: &[u8] = b"meshd/v1 index";

secret_bytes!(
    /// `S`: 32 random bytes per (segment, epoch), known to the controller and to members.
    EpochSecret
);
secret_bytes!(
    /// `N_i`: one node's share of an epoch's key schedule; any member can derive any other's.
    NodeKey
);
secret_bytes!(
    /// `P_ij`: the WireGuard preshared key of one pair in one epoch; only that pair can derive it.
    Psk
);

/// SHA-256(label ‖ S), published in the signed update so that a wrong secret is noticed before it
/// is used, and so that logs can name a secret without telling it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Commitment(pub [u8; 32]);

impl EpochSecret {
    /// The commitment to this secret.
    pub fn commitment(&self) -> Commitment {
        Commitment(
            Sha256::new()
                .chain_update(LABEL_COMMITMENT)
                .chain_update(self.expose())
                .finalize()
                .into(),
        )
    }

    /// Derives `N_i` for `node`.
    pub fn node_key(&self, scope: Scope, node: &NodeId) -> NodeKey {
        let info: [&[u8]; 2] = [LABEL_NODE, &node.0];
        NodeKey::from_bytes(expand(&scope.salt(), self.expose(), &info))
    }
}

/// One side of a pair as the schedule sees it: its node key and its WireGuard public key.
pub struct Side<'a> {
    /// `N` of this side.
    pub node_key: &'a NodeKey,
    /// WireGuard public key of this side.
    pub wg: &'a WgPublicKey,
}

impl Psk {
    /// Derives `P_ij`. Symmetric: the order of the two sides does not matter.
    pub fn derive(scope: Scope, a: &Side<'_>, b: &Side<'_>, shared: &SharedSecret) -> Self {
        let (lo, hi) = if a.wg <= b.wg { (a, b) } else { (b, a) };
        let mut ikm = Zeroizing::new([0; 96]);
        ikm[..32].copy_from_slice(lo.node_key.expose());
        ikm[32..64].copy_from_slice(hi.node_key.expose());
        ikm[64..].copy_from_slice(shared.expose());
        let info: [&[u8]; 3] = [LABEL_PAIR, &lo.wg.0, &hi.wg.0];
        Self::from_bytes(expand(&scope.salt(), ikm.as_slice(), &info))
    }

    /// The upper 22 bits of the `attempt`-th 24-bit index that `owner` uses with this PSK.
    ///
    /// A receiver that knows the PSK recognises the index and therefore knows which epoch an
    /// initiation means; a recording from another epoch matches with probability 2^-22.
    pub fn index_bits(&self, owner: &WgPublicKey, attempt: u8) -> u32 {
        let bytes = expand(&[], self.expose(), &[LABEL_INDEX, &owner.0, &[attempt]]);
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) >> 10
    }

    /// The form that `wg(8)` reads: base64. For the operator's explicit export only.
    pub fn expose_base64(&self) -> Zeroizing<String> {
        to_base64(self.expose())
    }
}

impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        crate::public::write_hex(f, &self.0)
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn expand(salt: &[u8], ikm: &[u8], info: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    Hkdf::<Sha256>::new(Some(salt), ikm)
        .expand_multi_info(info, &mut out)
        .expect("32 bytes are within HKDF's limit of 255 blocks");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::{Epoch, MeshId, SegmentId};
    use crate::wireguard::WgSecret;
    use base64::Engine as _;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn wg(byte: u8) -> WgSecret {
        WgSecret::from_base64(&base64::engine::general_purpose::STANDARD.encode([byte; 32]))
            .unwrap()
    }

    fn scope(epoch: Epoch) -> Scope {
        Scope {
            mesh: MeshId([0x11; 16]),
            segment: SegmentId(0),
            epoch,
        }
    }

    /// The inputs of the vectors in docs/PROTOCOL.md.
    fn pair() -> (Psk, Psk, WgPublicKey) {
        let scope = scope(Epoch(7));
        let secret = EpochSecret::from_bytes([0x22; 32]);
        let (wg_a, wg_b) = (wg(0x33), wg(0x44));
        let key = |id| secret.node_key(scope, &NodeId([id; 32]));
        let (key_a, key_b) = (key(0x55), key(0x66));
        let side_a = Side {
            node_key: &key_a,
            wg: &wg_a.public(),
        };
        let side_b = Side {
            node_key: &key_b,
            wg: &wg_b.public(),
        };
        let ab = Psk::derive(
            scope,
            &side_a,
            &side_b,
            &wg_a.shared_with(&wg_b.public()).unwrap(),
        );
        let ba = Psk::derive(
            scope,
            &side_b,
            &side_a,
            &wg_b.shared_with(&wg_a.public()).unwrap(),
        );
        (ab, ba, wg_a.public())
    }

    #[test]
    fn both_sides_derive_the_same_psk() {
        let (ab, ba, _) = pair();
        assert_eq!(ab.expose(), ba.expose());
    }

    #[test]
    fn the_committed_test_vectors_hold() {
        let secret = EpochSecret::from_bytes([0x22; 32]);
        let node_key = secret.node_key(scope(Epoch(7)), &NodeId([0x55; 32]));
        let (psk, _, owner) = pair();
        assert_eq!(hex(&secret.commitment().0), VECTOR_COMMITMENT);
        assert_eq!(hex(node_key.expose()), VECTOR_NODE_KEY);
        assert_eq!(hex(psk.expose()), VECTOR_PSK);
        assert_eq!(psk.index_bits(&owner, 0), VECTOR_INDEX);
    }

    #[test]
    fn every_input_changes_the_psk() {
        let base = pair().0;
        let scope = scope(Epoch(8));
        let secret = EpochSecret::from_bytes([0x22; 32]);
        let (wg_a, wg_b) = (wg(0x33), wg(0x44));
        let key_a = secret.node_key(scope, &NodeId([0x55; 32]));
        let key_b = secret.node_key(scope, &NodeId([0x66; 32]));
        let other = Psk::derive(
            scope,
            &Side {
                node_key: &key_a,
                wg: &wg_a.public(),
            },
            &Side {
                node_key: &key_b,
                wg: &wg_b.public(),
            },
            &wg_a.shared_with(&wg_b.public()).unwrap(),
        );
        assert_ne!(base.expose(), other.expose());
    }

    #[test]
    fn secrets_never_print() {
        assert_eq!(
            format!("{:?}", EpochSecret::from_bytes([1; 32])),
            "EpochSecret(..)"
        );
        assert_eq!(format!("{:?}", Psk::from_bytes([1; 32])), "Psk(..)");
    }

    const VECTOR_COMMITMENT: &str =
        "53144a34560f2e51f59806f86fa919673f3973d27353672e868da7a37c634a48";
    const VECTOR_NODE_KEY: &str =
        "de02d70afc36e90ab28c35df3da56f3ee2c474a35a59745169d629251bd36529";
    const VECTOR_PSK: &str = "c5fc98f57803dd17857ff1715849d9a01010399b77dfe5735e2f7ff6c2350e4f";
    const VECTOR_INDEX: u32 = 0x3d0324;
}
