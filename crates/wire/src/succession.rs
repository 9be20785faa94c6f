//! The word of a mesh's authority for the key that takes its place. Nodes that have the old key follow a chain of
//! such words to the key of today, and forget those before.

use crate::signed::{Signable, Signed};
use keys::{AuthorityId, MeshId};
use serde::{Deserialize, Serialize};

/// The longest chain that is kept and sent: a node that was away for more changes than that has to enrol again.
pub const MAX_SUCCESSIONS: usize = 16;

/// Another key signs for the mesh, by the word of the one before, which signs this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// The mesh.
    pub mesh: MeshId,
    /// The key that signs from now on.
    pub new: AuthorityId,
}

impl Signable for Succession {
    const LABEL: &'static [u8] = b"meshd/v1 authority succession";

    fn check(&self) -> Result<(), &'static str> {
        if self.new.is_sound() {
            Ok(())
        } else {
            Err("the new authority is a weak key")
        }
    }
}

/// The authorities that somebody trusts who trusted `trusted` and is shown a chain, oldest first. A link whose
/// signer is not trusted is passed over: it is of a time before, or of somebody else. `mesh`: the one that is meant,
/// where that is known yet.
pub fn follow(
    chain: &[Signed<Succession>],
    mesh: Option<MeshId>,
    trusted: &[AuthorityId],
) -> Vec<AuthorityId> {
    let mut trusted = trusted.to_vec();
    for link in chain.iter().take(MAX_SUCCESSIONS) {
        let Ok(succession) = link.verify(&trusted) else {
            continue;
        };
        if mesh.is_none_or(|mesh| mesh == succession.mesh) {
            // The old key may be why there is a new one: from here on its word is worth nothing.
            trusted.retain(|key| *key != link.signer() && *key != succession.new);
            trusted.push(succession.new);
        }
    }
    trusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::AuthoritySecret;
    use rand_core::OsRng;

    const MESH: MeshId = MeshId([1; 16]);

    fn key() -> AuthoritySecret {
        AuthoritySecret::generate(&mut OsRng)
    }

    fn link(old: &AuthoritySecret, new: &AuthoritySecret) -> Signed<Succession> {
        let succession = Succession {
            mesh: MESH,
            new: new.public(),
        };
        Signed::sign(&succession, old).unwrap()
    }

    #[test]
    fn whoever_knows_any_key_of_a_chain_ends_with_the_last_and_trusts_no_other() {
        let keys = [key(), key(), key()];
        let chain = [link(&keys[0], &keys[1]), link(&keys[1], &keys[2])];
        for known in &keys {
            let trusted = follow(&chain, Some(MESH), &[known.public()]);
            assert_eq!(trusted, [keys[2].public()]);
        }
        // The old key has no say any more.
        let thief = key();
        let stolen = link(&keys[0], &thief);
        let trusted = follow(&[stolen], Some(MESH), &[keys[2].public()]);
        assert_eq!(trusted, [keys[2].public()]);
    }

    #[test]
    fn a_strangers_word_and_one_for_another_mesh_change_nothing() {
        let (own, other) = (key(), key());
        let trusted = [own.public()];
        assert_eq!(
            follow(&[link(&other, &other)], Some(MESH), &trusted),
            trusted
        );
        let chain = [link(&own, &other)];
        assert_eq!(follow(&chain, Some(MeshId([2; 16])), &trusted), trusted);
    }
}
