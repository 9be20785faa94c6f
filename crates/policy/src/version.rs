//! Which versions of a suite count: one version, or a range of dotted numbers. Refuses orders of versions that
//! are words: nobody agrees on them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// The versions of a suite that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// As it was written, which is how it is shown and stored.
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// This one, compared as text.
    One,
    /// All bounds hold.
    Range(Vec<(Bound, Vec<u64>)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    AtLeast,
    Above,
    AtMost,
    Below,
}

/// A text is no range of versions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no version: write one as the harness does, or bounds of dotted numbers as in \">=2, <4\""
)]
pub struct NoVersions(String);

impl Versions {
    /// Whether this version counts. One that is not dotted numbers is in no range.
    pub fn has(&self, version: &str) -> bool {
        match &self.kind {
            Kind::One => self.text == version,
            Kind::Range(bounds) => numbers(version).is_some_and(|version| {
                bounds.iter().all(|(bound, than)| match bound {
                    Bound::AtLeast => version >= *than,
                    Bound::Above => version > *than,
                    Bound::AtMost => version <= *than,
                    Bound::Below => version < *than,
                })
            }),
        }
    }
}

impl Versions {
    /// Whether no version at all lies in the range. Between two versions there is always another one, and none is below 0.
    pub fn is_empty(&self) -> bool {
        let Kind::Range(bounds) = &self.kind else {
            return false;
        };
        let nothing: &[u64] = &[];
        let least = bounds.iter().filter_map(|(bound, than)| match bound {
            Bound::AtLeast => Some((than.as_slice(), false)),
            Bound::Above => Some((than.as_slice(), true)),
            Bound::AtMost | Bound::Below => None,
        });
        let most = bounds.iter().filter_map(|(bound, than)| match bound {
            Bound::AtMost => Some((than.as_slice(), false)),
            Bound::Below => Some((than.as_slice(), true)),
            Bound::AtLeast | Bound::Above => None,
        });
        let least: Vec<_> = least.chain([(nothing, false)]).collect();
        most.into_iter().any(|(most, is_below)| {
            let mut least = least.iter();
            least
                .any(|(least, is_above)| *least > most || *least == most && (is_below || *is_above))
        })
    }
}

impl FromStr for Versions {
    type Err = NoVersions;

    fn from_str(text: &str) -> Result<Self, NoVersions> {
        let none = || NoVersions(text.chars().take(SHOWN).collect());
        let kind = if text.starts_with(['<', '>', '=']) {
            let bounds: Option<Vec<_>> = text.split(',').map(|part| bound(part.trim())).collect();
            let bounds = bounds.filter(|bounds| bounds.len() <= MOST_BOUNDS);
            Kind::Range(bounds.ok_or_else(none)?)
        } else if text.is_empty() || text.chars().any(char::is_control) {
            return Err(none());
        } else {
            Kind::One
        };
        Ok(Self {
            text: text.to_owned(),
            kind,
        })
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Versions {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Versions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn bound(text: &str) -> Option<(Bound, Vec<u64>)> {
    let words = [
        (">=", Bound::AtLeast),
        ("<=", Bound::AtMost),
        (">", Bound::Above),
        ("<", Bound::Below),
    ];
    let (rest, bound) = words
        .iter()
        .find_map(|(word, bound)| Some((text.strip_prefix(word)?, *bound)))?;
    Some((bound, numbers(rest.trim())?))
}

/// Dotted numbers, without the zeros at their end: `2` is `2.0`.
fn numbers(text: &str) -> Option<Vec<u64>> {
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| is_digits(part).then(|| part.parse().ok())?;
    let numbers: Option<Vec<u64>> = text.split('.').map(number).collect();
    let mut numbers = numbers?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(numbers)
}

const MOST_BOUNDS: usize = 4;
/// Longest text that an error shows, in characters.
const SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn has(versions: &str, version: &str) -> bool {
        versions.parse::<Versions>().unwrap().has(version)
    }

    #[test]
    fn a_range_is_of_dotted_numbers_and_everything_else_is_one_version() {
        for inside in ["2", "2.0", "2.1", "3.99.1", "10"] {
            assert_eq!(has(">=2, <4", inside), inside != "10", "{inside}");
        }
        for outside in ["1.9", "4", "4.0", "2-b", "", "latest", "v2"] {
            assert!(!has(">=2, <4", outside), "{outside}");
        }
        assert!(has(">1.9", "1.10") && !has(">1.9", "1.9.0") && has("<=1.9", "1.9.0"));
        assert!(has("2-b", "2-b") && !has("2-b", "2") && !has("1", "1.0"));
    }

    #[test]
    fn a_range_in_which_no_version_lies_is_known() {
        let is_empty = |text: &str| text.parse::<Versions>().unwrap().is_empty();
        for nothing in [
            ">=4, <2",
            ">2, <2",
            ">=2, <2",
            ">2, <=2.0",
            "<0",
            ">=1, <3, >3.1",
            "<1, >=1.0",
        ] {
            assert!(is_empty(nothing), "{nothing}");
        }
        for some in [
            ">=2, <4",
            ">=2, <=2",
            ">2",
            "<=0",
            "<0.1",
            ">2, <2.0.1",
            "4",
            "latest",
        ] {
            assert!(!is_empty(some), "{some}");
        }
    }

    #[test]
    fn a_text_that_is_no_version_says_so() {
        for text in ["", ">=", ">=a", "=2", ">=2,", ">=2 <3", "a\nb"] {
            let error = text.parse::<Versions>().unwrap_err().to_string();
            assert!(error.contains("is no version"), "{text}: {error}");
        }
    }
}
