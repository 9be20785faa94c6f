//! At whose word something was done, as the log keeps it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum By {
    /// An operator at the admin socket, by the user that the kernel names.
    Uid(u32),
    /// A signal to the process.
    Signal,
}

/// A text is no author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an author: `uid:` with a number, or `signal`")]
pub struct NoAuthor;

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Signal => f.write_str("signal"),
        }
    }
}

impl FromStr for By {
    type Err = NoAuthor;

    fn from_str(text: &str) -> Result<Self, NoAuthor> {
        if text == "signal" {
            return Ok(Self::Signal);
        }
        let uid = text.strip_prefix("uid:").and_then(|uid| uid.parse().ok());
        // The one form that is printed, and no other: `uid:+7` is nobody.
        let by = uid.map(Self::Uid).filter(|by| by.to_string() == text);
        by.ok_or(NoAuthor)
    }
}

impl TryFrom<String> for By {
    type Error = NoAuthor;

    fn try_from(text: String) -> Result<Self, NoAuthor> {
        text.parse()
    }
}

impl From<By> for String {
    fn from(by: By) -> Self {
        by.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_reads_back_and_nothing_else_is_one() {
        for by in [By::Uid(0), By::Uid(u32::MAX), By::Signal] {
            assert_eq!(by.to_string().parse(), Ok(by));
        }
        for text in [
            "",
            "uid:",
            "uid:-1",
            "uid:+7",
            "uid:07",
            "uid:4294967296",
            "root",
        ] {
            assert_eq!(text.parse::<By>(), Err(NoAuthor), "{text}");
        }
    }
}
