//! Checkpoints (C2SP tlog-checkpoint): size and root of a log at one time, as the text of a signed note.
//!
//! ```text
//! ORIGIN                  the log's name, and the name of its key
//! SIZE                    entries, in decimal
//! BASE64(root)
//! EXTENSION               any number of lines, none here
//! ```

use crate::hash::Hash;
use crate::note::{Note, NoteError, Verifier};
use keys::LogSecret;
use std::fmt;

/// A log at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root of its tree.
    pub root: Hash,
    /// Further lines, which other logs may have.
    pub extensions: Vec<String>,
}

/// Why a checkpoint is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a note, or not signed by the log.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is no checkpoint.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
    /// Of another log.
    #[error("the checkpoint is of the log {has}, not of {wanted}")]
    Origin {
        /// The log that it is of.
        has: String,
        /// The log that was asked for.
        wanted: String,
    },
}

impl Checkpoint {
    /// Signs it as the log.
    ///
    /// # Errors
    /// [`NoteError`] for an origin that cannot be the name of a key, and for an extension that is not one line.
    pub fn sign(&self, secret: &LogSecret) -> Result<Note, NoteError> {
        let text = self.to_string();
        // An extension with a line's end in it would be read as other extensions.
        if Self::parse(&text).as_ref() != Ok(self) {
            return Err(NoteError::Malformed(
                "a line of the checkpoint that is empty, or not one line",
            ));
        }
        Note::sign(&text, &self.origin, secret)
    }

    /// Reads the text of a note.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        use CheckpointError::Malformed;
        let text = text.strip_suffix('\n').ok_or(Malformed("no end of line"))?;
        let mut lines = text.split('\n');
        let origin = lines.next().filter(|line| !line.is_empty());
        let origin = origin.ok_or(Malformed("no origin"))?.to_owned();
        let size = lines.next().and_then(decimal);
        let size = size.ok_or(Malformed("the size is not a decimal number"))?;
        let root = lines.next().and_then(Hash::from_base64);
        let root = root.ok_or(Malformed("the root is not 32 bytes in base64"))?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(Malformed("an empty line"));
        }
        Ok(Self {
            origin,
            size,
            root,
            extensions,
        })
    }

    /// Believes a note if `log` signed it and it is of the log with that name.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn verify(note: &Note, log: &Verifier) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(note.verify(log)?)?;
        if checkpoint.origin == log.name() {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Origin {
                has: checkpoint.origin,
                wanted: log.name().to_owned(),
            })
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, self.root)?;
        let mut extensions = self.extensions.iter();
        extensions.try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A number in its one decimal form.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::OsRng;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: "meshd/mesh:07".into(),
            size: 20_852_163,
            root: Hash::of_entry(b"root"),
            extensions: Vec::new(),
        }
    }

    #[test]
    fn a_checkpoint_is_believed_from_its_own_log_alone() {
        let secret = LogSecret::generate(&mut OsRng);
        let log = Verifier::new("meshd/mesh:07", secret.public()).unwrap();
        let note = checkpoint().sign(&secret).unwrap();
        assert_eq!(Checkpoint::verify(&note, &log), Ok(checkpoint()));
        let mut foreign = checkpoint();
        foreign.origin = "meshd/mesh:08".into();
        let note = Note::sign(&foreign.to_string(), "meshd/mesh:07", &secret).unwrap();
        let error = Checkpoint::verify(&note, &log).unwrap_err();
        assert!(matches!(error, CheckpointError::Origin { .. }), "{error}");
        let by_another = checkpoint().sign(&LogSecret::generate(&mut OsRng)).unwrap();
        assert!(Checkpoint::verify(&by_another, &log).is_err());
    }

    #[test]
    fn a_checkpoint_that_would_be_read_otherwise_is_not_signed() {
        let secret = LogSecret::generate(&mut OsRng);
        for extension in ["", "two\nlines", "a line and its end\n"] {
            let mut other = checkpoint();
            other.extensions = vec![extension.into()];
            assert!(other.sign(&secret).is_err(), "{extension:?}");
        }
        for origin in ["", "a\n1", "a b"] {
            let mut other = checkpoint();
            other.origin = origin.into();
            assert!(other.sign(&secret).is_err(), "{origin:?}");
        }
        let mut extended = checkpoint();
        extended.extensions = vec!["one line".into()];
        assert!(extended.sign(&secret).is_ok());
    }

    #[test]
    fn only_the_one_form_is_a_checkpoint() {
        let root = checkpoint().root;
        let good = checkpoint().to_string();
        assert_eq!(Checkpoint::parse(&good), Ok(checkpoint()));
        let extended = Checkpoint::parse(&format!("{good}more\n")).unwrap();
        assert_eq!(extended.extensions, ["more"]);
        for bad in [
            format!("\n1\n{root}\n"),
            format!("o\n01\n{root}\n"),
            format!("o\n+1\n{root}\n"),
            format!("o\n-1\n{root}\n"),
            format!("o\n18446744073709551616\n{root}\n"),
            format!("o\n1\n{root}"),
            format!("o\n1\n{root}\n\n"),
            "o\n1\nAAAA\n".to_owned(),
            "o\n1\n".to_owned(),
            String::new(),
        ] {
            assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
        }
    }
}
