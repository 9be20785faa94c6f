//! The domain that a mesh's names end in.

use std::fmt;
use std::str::FromStr;

/// A domain: labels of lower-case letters, digits and dashes, without a dot at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suffix(String);

/// The text is no [`Suffix`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a domain of 1 to {MAX} bytes: labels of a-z, 0-9 and '-', with dots between them, as in mesh.internal"
)]
pub struct SuffixError;

impl Suffix {
    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its labels, the leftmost first.
    pub(crate) fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }
}

impl Default for Suffix {
    /// Below `internal`, which is nobody's on the Internet (ICANN board resolution 2024.07.29.06).
    fn default() -> Self {
        Self("mesh.internal".to_owned())
    }
}

impl FromStr for Suffix {
    type Err = SuffixError;

    fn from_str(text: &str) -> Result<Self, SuffixError> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(is_plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= MAX && text.split('.').all(is_label) {
            Ok(Self(text.to_owned()))
        } else {
            Err(SuffixError)
        }
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// In bytes: a node's label and a segment's before it still fit into a name of 253 (RFC 1035, section 2.3.4).
const MAX: usize = 125;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_a_domain_to_which_names_can_be_added() {
        for good in ["mesh.internal", "lan", "a-1.b", &"a".repeat(63)] {
            assert_eq!(good.parse::<Suffix>().map(|it| it.0), Ok(good.to_owned()));
        }
        let long = ["abcdefgh"; 14].join(".") + ".x";
        assert_eq!(long.len(), 127);
        for bad in [
            "", ".", "mesh.", ".mesh", "a..b", "Mesh", "a_b", "-a", "a-", "é", &long,
        ] {
            assert_eq!(bad.parse::<Suffix>(), Err(SuffixError), "{bad}");
        }
        assert_eq!(Suffix::default().as_str().parse(), Ok(Suffix::default()));
    }
}
