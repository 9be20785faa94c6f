//! The domain that a mesh's names end in.

use std::fmt;
use std::str::FromStr;

/// A domain: labels of lower-case letters, digits and dashes, without a dot at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suffix(String);

/// The text is no [`Suffix`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuffixError {
    /// It is no domain.
    #[error(
        "not a domain of 1 to {MAX} bytes: labels of a-z, 0-9 and '-', with dots between them, as in mesh.internal"
    )]
    NoDomain,
    /// Programs take it for an address.
    #[error("it ends in a number, as an address does: choose a domain, as mesh.internal")]
    Address,
    /// Names in it have another meaning for everybody (RFC 6761, RFC 3172, RFC 6762, RFC 7686).
    #[error(
        "names in `{0}` mean something else to every machine: choose a domain, as mesh.internal"
    )]
    Special(&'static str),
}

impl Suffix {
    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the whole of a top-level domain of others: every name in it would be asked of the mesh alone. Those
    /// that are nobody's on the Internet are not (RFC 2606, RFC 6762 appendix G, ICANN's reserved words).
    pub fn is_all_of_a_public_one(&self) -> bool {
        !self.0.contains('.') && !NOBODYS.contains(&self.as_str())
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
        if text.len() > MAX || !text.split('.').all(is_label) {
            return Err(SuffixError::NoDomain);
        }
        let last = text.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
            return Err(SuffixError::Address);
        }
        // RFC 8375 sets home.arpa apart for networks such as this one.
        let is_home = text == "home.arpa" || text.ends_with(".home.arpa");
        let special = SPECIAL.iter().find(|it| **it == last && !is_home);
        special.map_or_else(
            || Ok(Self(text.to_owned())),
            |it| Err(SuffixError::Special(it)),
        )
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const SPECIAL: [&str; 6] = ["arpa", "localhost", "local", "invalid", "onion", "alt"];
const NOBODYS: [&str; 9] = [
    "corp", "example", "home", "internal", "intranet", "lan", "mail", "private", "test",
];
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
            assert_eq!(bad.parse::<Suffix>(), Err(SuffixError::NoDomain), "{bad}");
        }
        assert_eq!(Suffix::default().as_str().parse(), Ok(Suffix::default()));
    }

    #[test]
    fn a_suffix_is_nothing_that_has_a_meaning_already() {
        let parse = |text: &str| text.parse::<Suffix>();
        for address in ["10.76.0.1", "1", "mesh.10", "0x7f", "a.0x7f000001"] {
            assert_eq!(parse(address), Err(SuffixError::Address), "{address}");
        }
        for special in [
            "in-addr.arpa",
            "76.10.in-addr.arpa",
            "arpa",
            "localhost",
            "mesh.local",
            "a.onion",
        ] {
            assert!(
                matches!(parse(special), Err(SuffixError::Special(_))),
                "{special}"
            );
        }
        for good in [
            "home.arpa",
            "mesh.home.arpa",
            "local.example",
            "10.mesh",
            "3com",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (text, is_public) in [
            ("com", true),
            ("de", true),
            ("lan", false),
            ("mesh.com", false),
        ] {
            assert_eq!(
                parse(text).unwrap().is_all_of_a_public_one(),
                is_public,
                "{text}"
            );
        }
    }
}
