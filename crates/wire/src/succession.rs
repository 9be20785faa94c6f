//! The word of a mesh's authority for the key that takes its place. Nodes that have the old key follow a chain of
//! such words to the key of today, and forget those before.

use crate::signed::{Signable, Signed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::{AuthorityId, EvaluatorId, EvaluatorSecret, MeshId, Signature};
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

/// The word of an evaluator's key for the one that takes its place, as JSON for files and the admin socket. The
/// signature is over both keys under [`EVALUATOR_LABEL`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluatorSuccession {
    /// The key that vouched before, `evaluator:…`.
    pub old: String,
    /// The key that vouches from now on.
    pub new: String,
    /// The old key's Ed25519 signature, base64.
    pub signature: String,
}

/// Why a statement is no word of an evaluator's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSuccession {
    /// One of the keys is none.
    #[error("`{0}` is no sound key of an evaluator: expected `evaluator:` and 64 hex digits")]
    Key(&'static str),
    /// Both keys are the same.
    #[error("`old` and `new` are the same key")]
    Same,
    /// The signature is not the old key's.
    #[error("`signature` is not one of the old key over this statement")]
    Signature,
}

impl EvaluatorSuccession {
    /// The word of `old` for `new`.
    pub fn sign(old: &EvaluatorSecret, new: EvaluatorId) -> Self {
        let signature = old.sign(EVALUATOR_LABEL, &new.0);
        Self {
            old: old.public().to_string(),
            new: new.to_string(),
            signature: STANDARD.encode(signature.0),
        }
    }

    /// The old key and the new one, if the old one says so.
    ///
    /// # Errors
    /// [`NoSuccession`].
    pub fn verify(&self) -> Result<(EvaluatorId, EvaluatorId), NoSuccession> {
        let key = |text: &str, field| {
            let key = text.parse::<EvaluatorId>().ok();
            let sound = key.filter(EvaluatorId::is_sound);
            sound.ok_or(NoSuccession::Key(field))
        };
        let (old, new) = (key(&self.old, "old")?, key(&self.new, "new")?);
        if old == new {
            return Err(NoSuccession::Same);
        }
        let bytes = STANDARD.decode(&self.signature).unwrap_or_default();
        let signature: [u8; 64] = bytes.try_into().map_err(|_| NoSuccession::Signature)?;
        if old.verifies(EVALUATOR_LABEL, &new.0, &Signature(signature)) {
            Ok((old, new))
        } else {
            Err(NoSuccession::Signature)
        }
    }
}

/// Separates an evaluator's word for its successor from evidence.
pub const EVALUATOR_LABEL: &[u8] = b"meshd/v1 evaluator succession";

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

    #[test]
    fn an_evaluators_word_names_both_keys_and_every_part_of_it_counts() {
        let (old, new) = (
            EvaluatorSecret::generate(&mut OsRng),
            EvaluatorSecret::generate(&mut OsRng),
        );
        let word = EvaluatorSuccession::sign(&old, new.public());
        assert_eq!(word.verify(), Ok((old.public(), new.public())));
        let (key, signature) = (NoSuccession::Key("new"), NoSuccession::Signature);
        let third = EvaluatorSecret::generate(&mut OsRng).public().to_string();
        for (wrong, why) in [
            (
                EvaluatorSuccession {
                    new: "x".into(),
                    ..word.clone()
                },
                key,
            ),
            (
                EvaluatorSuccession {
                    new: third.clone(),
                    ..word.clone()
                },
                signature,
            ),
            (
                EvaluatorSuccession {
                    old: third,
                    ..word.clone()
                },
                signature,
            ),
            (
                EvaluatorSuccession {
                    old: word.new.clone(),
                    ..word.clone()
                },
                NoSuccession::Same,
            ),
            (
                EvaluatorSuccession {
                    signature: String::new(),
                    ..word.clone()
                },
                signature,
            ),
        ] {
            assert_eq!(wrong.verify(), Err(why), "{wrong:?}");
        }
    }
}
