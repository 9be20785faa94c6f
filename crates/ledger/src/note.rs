//! Signed notes (C2SP signed-note): a text, an empty line, and a line for each signature.
//!
//! ```text
//! TEXT                                  one or more lines
//!
//! — NAME BASE64(key id ‖ signature)     one or more lines
//! ```
//!
//! A key has a name and an id of four bytes, which tell a reader which key to try; neither is believed. A note
//! with two readings is refused: what one reader believes, another must not read otherwise.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::{LogId, LogSecret, Signature};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// Longest note that is read, in bytes.
pub const MAX_NOTE_LEN: usize = 64 << 10;
/// Most signatures that are read.
pub const MAX_SIGNATURES: usize = 100;
/// The signature algorithm of plain notes: Ed25519 over the text.
pub const ALGORITHM_NOTE: u8 = 0x01;

/// A public key with its name, as notes know it: a *verifier key*, printed as `NAME+ID+KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    key: LogId,
}

/// A note that has been read, and not believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Line>,
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub id: [u8; 4],
    /// The signature as its algorithm writes it.
    pub signature: Vec<u8>,
}

/// Why a note is not read, or not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Over a limit of this reader.
    #[error("the note is over {MAX_NOTE_LEN} bytes, or has over {MAX_SIGNATURES} signatures")]
    TooLarge,
    /// Not a note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// No signature by the key.
    #[error("no signature by {0}")]
    Unsigned(String),
    /// A signature with the key's name and id that does not verify.
    #[error("the signature of {0} does not verify")]
    Signature(String),
    /// A name that a key cannot have.
    #[error("`{0}` is no name for a key: it must not be empty nor have a blank or a plus")]
    Name(String),
    /// A printed key that is none.
    #[error("not a verifier key of the form NAME+ID+KEY for an Ed25519 key")]
    Key,
}

impl Verifier {
    /// A key with its name.
    ///
    /// # Errors
    /// [`NoteError::Name`].
    pub fn new(name: &str, key: LogId) -> Result<Self, NoteError> {
        if is_name(name) {
            let name = name.to_owned();
            Ok(Self { name, key })
        } else {
            Err(NoteError::Name(name.to_owned()))
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key.
    pub fn key(&self) -> LogId {
        self.key
    }

    /// The key's id for an algorithm: the first four bytes of SHA-256(name ‖ 0x0A ‖ algorithm ‖ key).
    pub fn id(&self, algorithm: u8) -> [u8; 4] {
        let hash = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', algorithm])
            .chain_update(self.key.0)
            .finalize();
        let [a, b, c, d, ..]: [u8; 32] = hash.into();
        [a, b, c, d]
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id(ALGORITHM_NOTE));
        let key = [&[ALGORITHM_NOTE], self.key.0.as_slice()].concat();
        write!(f, "{}+{id:08x}+{}", self.name, STANDARD.encode(key))
    }
}

impl FromStr for Verifier {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        // The key's base64 may have a plus, the name may not.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let bytes = STANDARD.decode(key).map_err(|_| NoteError::Key)?;
        let [ALGORITHM_NOTE, key @ ..] = bytes.as_slice() else {
            return Err(NoteError::Key);
        };
        let key = LogId(key.try_into().map_err(|_| NoteError::Key)?);
        let verifier = Self::new(name, key)?;
        // The id, and the one way in which each part is written.
        if key.is_sound() && verifier.to_string() == text {
            Ok(verifier)
        } else {
            Err(NoteError::Key)
        }
    }
}

impl Note {
    /// Signs a text as the key with this name.
    ///
    /// # Errors
    /// [`NoteError`] for a text that cannot be a note's or is too long for one, and for a name that cannot be
    /// a key's.
    pub fn sign(text: &str, name: &str, secret: &LogSecret) -> Result<Self, NoteError> {
        check_text(text)?;
        let mut note = Self {
            text: text.to_owned(),
            signatures: Vec::new(),
        };
        note.add(name, secret)?;
        if note.to_string().len() > MAX_NOTE_LEN {
            return Err(NoteError::TooLarge);
        }
        Ok(note)
    }

    /// Adds the signature of another key.
    ///
    /// # Errors
    /// [`NoteError::Name`].
    pub fn add(&mut self, name: &str, secret: &LogSecret) -> Result<(), NoteError> {
        let verifier = Verifier::new(name, secret.public())?;
        let signature = secret.sign_encoded(self.text.as_bytes()).0;
        self.push(Line {
            name: name.to_owned(),
            id: verifier.id(ALGORITHM_NOTE),
            signature: signature.to_vec(),
        });
        Ok(())
    }

    /// Adds a signature line as it is.
    pub fn push(&mut self, line: Line) {
        self.signatures.push(line);
    }

    /// Reads a note. Believes nothing.
    ///
    /// # Errors
    /// [`NoteError::TooLarge`] and [`NoteError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE_LEN {
            return Err(NoteError::TooLarge);
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| NoteError::Malformed("not UTF-8"))?;
        // The last empty line: the text may have others.
        let at = whole.rfind("\n\n");
        let at = at.ok_or(NoteError::Malformed("no empty line before the signatures"))?;
        let (text, lines) = (whole.get(..=at), whole.get(at + 2..));
        let (text, lines) = (text.unwrap_or_default(), lines.unwrap_or_default());
        check_text(text)?;
        let Some(lines) = lines.strip_suffix('\n') else {
            return Err(NoteError::Malformed(
                "no signature line, or one without an end",
            ));
        };
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == MAX_SIGNATURES {
                return Err(NoteError::TooLarge);
            }
            signatures.push(Line::parse(line)?);
        }
        Ok(Self {
            text: text.to_owned(),
            signatures,
        })
    }

    /// The text, whoever signed it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, whatever they are worth.
    pub fn signatures(&self) -> &[Line] {
        &self.signatures
    }

    /// The text, if this key signed it. Signatures of other keys are passed over.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] and [`NoteError::Signature`].
    pub fn verify(&self, verifier: &Verifier) -> Result<&str, NoteError> {
        let signature = self.signature_of(verifier, ALGORITHM_NOTE)?;
        let signature: Option<[u8; 64]> = signature.try_into().ok();
        let verifies = signature.is_some_and(|bytes| {
            let text = self.text.as_bytes();
            verifier.key.verifies_encoded(text, &Signature(bytes))
        });
        if verifies {
            Ok(&self.text)
        } else {
            Err(NoteError::Signature(verifier.name.clone()))
        }
    }

    /// The bytes of the signature by a key with an algorithm.
    pub(crate) fn signature_of(
        &self,
        verifier: &Verifier,
        algorithm: u8,
    ) -> Result<&[u8], NoteError> {
        let id = verifier.id(algorithm);
        let is_its = |line: &&Line| line.name == verifier.name && line.id == id;
        let mut lines = self.signatures.iter().filter(is_its);
        match (lines.next(), lines.next()) {
            (Some(line), None) => Ok(&line.signature),
            (None, _) => Err(NoteError::Unsigned(verifier.name.clone())),
            (Some(_), Some(_)) => Err(NoteError::Malformed("two signatures by one key")),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Line {
    fn parse(line: &str) -> Result<Self, NoteError> {
        let malformed = NoteError::Malformed("a signature line that is not `— NAME BASE64`");
        let rest = line.strip_prefix("— ").ok_or(malformed.clone())?;
        let (name, encoded) = rest.split_once(' ').ok_or(malformed.clone())?;
        let bytes = STANDARD.decode(encoded).map_err(|_| malformed.clone())?;
        match bytes.split_first_chunk::<4>() {
            Some((id, signature)) if is_name(name) && !signature.is_empty() => Ok(Self {
                name: name.to_owned(),
                id: *id,
                signature: signature.to_vec(),
            }),
            _ => Err(malformed),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.id.as_slice(), &self.signature].concat();
        write!(f, "— {} {}", self.name, STANDARD.encode(bytes))
    }
}

/// Whether a key may have this name.
fn is_name(name: &str) -> bool {
    let is_wrong = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    !name.is_empty() && !name.chars().any(is_wrong)
}

/// A text ends with its line, and has no other control characters than the ends of lines.
fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        Err(NoteError::Malformed(
            "the text does not end with a line's end",
        ))
    } else if text.chars().any(|c| c < ' ' && c != '\n') {
        Err(NoteError::Malformed("a control character in the text"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_core::OsRng;

    /// The example of Go's golang.org/x/mod/sumdb/note: its key, text and signature.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_of_another_implementation_verifies() {
        let verifier: Verifier = KEY.parse().unwrap();
        assert_eq!(verifier.to_string(), KEY);
        let note = Note::parse(NOTE.as_bytes()).unwrap();
        assert!(note.verify(&verifier).unwrap().starts_with("If you"));
        assert_eq!(note.to_string(), NOTE);
    }

    #[test]
    fn only_the_key_with_its_name_counts() {
        let (secret, other) = (
            LogSecret::generate(&mut OsRng),
            LogSecret::generate(&mut OsRng),
        );
        let mut note = Note::sign("text\n", "log/1", &secret).unwrap();
        note.add("log/2", &other).unwrap();
        let note = Note::parse(note.to_string().as_bytes()).unwrap();
        let verify = |name: &str, key| note.verify(&Verifier::new(name, key).unwrap()).is_ok();
        assert!(verify("log/1", secret.public()) && verify("log/2", other.public()));
        assert!(!verify("log/2", secret.public()) && !verify("log/1", other.public()));
        let mut twice = note.clone();
        twice.add("log/1", &secret).unwrap();
        let verifier = Verifier::new("log/1", secret.public()).unwrap();
        assert!(twice.verify(&verifier).is_err());
    }

    #[test]
    fn a_text_or_a_name_with_two_readings_is_refused() {
        let secret = LogSecret::generate(&mut OsRng);
        for text in ["", "no end", "a\tb\n", "a\r\n"] {
            assert!(Note::sign(text, "log", &secret).is_err(), "{text:?}");
        }
        for name in ["", "a b", "a+b", "a\u{a0}b"] {
            assert!(Note::sign("text\n", name, &secret).is_err(), "{name:?}");
        }
        let long = format!("{}\n", "a".repeat(MAX_NOTE_LEN - 8));
        assert_eq!(Note::sign(&long, "log", &secret), Err(NoteError::TooLarge));
        for note in [
            "text\n",
            "text\n\n",
            "text\n\n— log\n",
            "text\n\n— log AAAA",
            "text\n\n— log AAAAAA\n",
            "text\n\n- log AAAAAAA=\n",
            "text\n\n— log AAAAAAA=\n\n",
        ] {
            assert!(Note::parse(note.as_bytes()).is_err(), "{note:?}");
        }
    }

    proptest! {
        #[test]
        fn one_changed_byte_anywhere_is_noticed(at: usize, to: u8) {
            let verifier: Verifier = KEY.parse().unwrap();
            let mut bytes = NOTE.as_bytes().to_vec();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            let verified = Note::parse(&bytes).is_ok_and(|note| note.verify(&verifier).is_ok());
            prop_assert!(!verified);
        }

        #[test]
        fn what_is_read_is_written_as_it_was(bytes: Vec<u8>) {
            if let Ok(note) = Note::parse(&bytes) {
                prop_assert_eq!(note.to_string().into_bytes(), bytes);
            }
        }
    }
}
