//! Cosignatures (C2SP tlog-cosignature, `cosignature/v1`): the word of a witness that it saw a checkpoint at a
//! time, and saw none before that contradicts it. It goes into the checkpoint's note as one more line.
//!
//! ```text
//! signed     "cosignature/v1\n" ‖ "time " ‖ seconds ‖ "\n" ‖ the checkpoint's text
//! line       — NAME BASE64(key id ‖ seconds, 8 bytes ‖ Ed25519 signature)
//! ```

use crate::note::{Line, Note, NoteError, Verifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::{LogId, NodeSecret, Signature};

/// The algorithm in the id of a cosigner's key.
pub const ALGORITHM_COSIGNATURE: u8 = 0x04;

/// A witness that is a node: it cosigns with its identity key.
///
/// # Errors
/// [`NoteError::Name`] for a name that a key cannot have.
pub fn cosign(
    note: &Note,
    name: &str,
    unix_seconds: u64,
    node: &NodeSecret,
) -> Result<Line, NoteError> {
    let verifier = Verifier::new(name, LogId(node.public().0))?;
    let signature = node.sign_encoded(&message(note, unix_seconds)).0;
    Ok(Line {
        name: name.to_owned(),
        id: verifier.id(ALGORITHM_COSIGNATURE),
        signature: [unix_seconds.to_be_bytes().as_slice(), &signature].concat(),
    })
}

/// A witness's key with its name, as verifiers of cosignatures take it: `NAME+ID+KEY`.
pub fn printed(witness: &Verifier) -> String {
    let id = u32::from_be_bytes(witness.id(ALGORITHM_COSIGNATURE));
    let key = [&[ALGORITHM_COSIGNATURE], witness.key().0.as_slice()].concat();
    format!("{}+{id:08x}+{}", witness.name(), STANDARD.encode(key))
}

/// When the witness saw the checkpoint, in seconds since 1970, if it cosigned it.
///
/// # Errors
/// [`NoteError::Unsigned`] and [`NoteError::Signature`].
pub fn verify(note: &Note, witness: &Verifier) -> Result<u64, NoteError> {
    let bytes = note.signature_of(witness, ALGORITHM_COSIGNATURE)?;
    let wrong = || NoteError::Signature(witness.name().to_owned());
    let (time, signature) = bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
    let signature: [u8; 64] = signature.try_into().map_err(|_| wrong())?;
    let time = u64::from_be_bytes(*time);
    let message = message(note, time);
    let key = witness.key();
    if key.verifies_encoded(&message, &Signature(signature)) {
        Ok(time)
    } else {
        Err(wrong())
    }
}

fn message(note: &Note, unix_seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {unix_seconds}\n{}", note.text()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::LogSecret;
    use rand_core::OsRng;

    #[test]
    fn a_cosignature_holds_for_its_note_time_and_witness() {
        let log = LogSecret::generate(&mut OsRng);
        let node = NodeSecret::generate(&mut OsRng);
        let mut note = Note::sign("o\n1\n", "o", &log).unwrap();
        let witness = Verifier::new("node-a", LogId(node.public().0)).unwrap();
        assert!(verify(&note, &witness).is_err());
        let line = cosign(&note, "node-a", 1_700_000_000, &node).unwrap();
        note.push(line.clone());
        let read = Note::parse(note.to_string().as_bytes()).unwrap();
        assert_eq!(verify(&read, &witness), Ok(1_700_000_000));
        // It is no plain signature, and one of those is no cosignature.
        assert!(read.verify(&witness).is_err());
        let mut later = Note::sign("o\n1\n", "o", &log).unwrap();
        let mut changed = line.clone();
        changed.signature[7] ^= 1;
        later.push(changed);
        assert!(verify(&later, &witness).is_err(), "another time");
        let mut other = Note::sign("o\n2\n", "o", &log).unwrap();
        other.push(line);
        assert!(verify(&other, &witness).is_err(), "another note");
    }
}
