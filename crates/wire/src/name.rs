//! Names of nodes and of segments: one DNS label each, so that a name can become a host name, a file name or a
//! metric label without quoting. One encoding per name: lower case only.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest name, in bytes (RFC 1035, section 2.3.4).
pub const MAX_NAME_LEN: usize = 63;

/// A node's name: 1 to 63 of `a`–`z`, `0`–`9` and `-`, with no `-` at either end.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// The text is not a node name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a node name is 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")]
pub struct NameError;

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NodeName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        if is_label(&text) {
            Ok(Self(text))
        } else {
            Err(NameError)
        }
    }
}

impl FromStr for NodeName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::try_from(text.to_owned())
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A segment's name: 1 to 63 of `a`–`z`, `0`–`9` and `-`, with no `-` at either end.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SegmentName(String);

/// The text is not a segment's name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a segment name is 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")]
pub struct SegmentNameError;

impl SegmentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as people have to be told it; `None`: it is that of a mesh without other segments.
    pub fn told(&self) -> Option<&str> {
        Some(self.as_str()).filter(|name| *name != DEFAULT)
    }
}

const DEFAULT: &str = "default";

impl Default for SegmentName {
    /// The name of the one segment of a mesh whose configuration names none.
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl TryFrom<String> for SegmentName {
    type Error = SegmentNameError;
    fn try_from(text: String) -> Result<Self, SegmentNameError> {
        if is_label(&text) {
            Ok(Self(text))
        } else {
            Err(SegmentNameError)
        }
    }
}

impl FromStr for SegmentName {
    type Err = SegmentNameError;
    fn from_str(text: &str) -> Result<Self, SegmentNameError> {
        Self::try_from(text.to_owned())
    }
}

impl From<SegmentName> for String {
    fn from(name: SegmentName) -> Self {
        name.0
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_NAME_LEN).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "node-a", "9", &"x".repeat(63)] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
            assert!(good.parse::<SegmentName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a b",
            "é",
            "../x",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
            assert!(bad.parse::<SegmentName>().is_err(), "{bad}");
        }
    }
}
