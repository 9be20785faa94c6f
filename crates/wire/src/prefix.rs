//! Prefixes of networks behind members: subnet routes. Refuses a prefix in more than one form, and one that could stand
//! for more than a network of somebody's own.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Most prefixes that a node advertises in a segment, and most that an update gives to one member.
pub const MAX_NODE_ROUTES: usize = 16;
/// Most prefixes that an update gives to all members.
pub const MAX_ROUTES: usize = 4_096;
/// The shortest IPv4 prefix. Two halves of the Internet would be an exit, which routes are not.
pub const SHORTEST_V4: u8 = 8;
/// The shortest IPv6 prefix.
pub const SHORTEST_V6: u8 = 16;

/// The addresses whose first bits are those of one of them; all bits behind are zero in it. In JSON it is text, as in
/// `10.1.0.0/16`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why something is no prefix that a member can have behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not of the form.
    #[error("a prefix is an address, a slash and a number of bits, as in 10.1.0.0/16")]
    Text,
    /// More bits than an address has.
    #[error("a prefix of {0} bits is longer than an address")]
    TooLong(u8),
    /// A bit behind the prefix is set.
    #[error("{given} has bits set behind the first {}: the prefix is {meant}", meant.length)]
    HostBits {
        /// The address that was given.
        given: IpAddr,
        /// The prefix that it is in.
        meant: Prefix,
    },
    /// Wider than a route may be.
    #[error(
        "{0} is too wide: an IPv4 prefix has at least {SHORTEST_V4} bits, an IPv6 prefix {SHORTEST_V6}"
    )]
    TooWide(Prefix),
    /// Holds addresses that no network of somebody's own has.
    #[error("{0} overlaps {1}, which no node can have behind it")]
    Special(Prefix, Prefix),
}

impl Prefix {
    /// The prefix of these bits.
    ///
    /// # Errors
    /// When it is not in its one form, or no route: [`PrefixError`].
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if length > longest {
            return Err(PrefixError::TooLong(length));
        }
        let prefix = Self::around(address, length);
        if prefix.address != address {
            return Err(PrefixError::HostBits {
                given: address,
                meant: prefix,
            });
        }
        let shortest = if address.is_ipv4() {
            SHORTEST_V4
        } else {
            SHORTEST_V6
        };
        if length < shortest {
            return Err(PrefixError::TooWide(prefix));
        }
        match SPECIAL.iter().find(|special| special.overlaps(&prefix)) {
            Some(special) => Err(PrefixError::Special(prefix, *special)),
            None => Ok(prefix),
        }
    }

    /// The range that an address is in, of whatever kind: for comparing routes with it.
    pub fn around(address: IpAddr, length: u8) -> Self {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = length.min(longest);
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Self { address, length }
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits all of them share.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Self::around(address, self.length).address == self.address
    }

    /// Whether any address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let shorter = self.length.min(other.length);
        self.address.is_ipv4() == other.address.is_ipv4()
            && Self::around(self.address, shorter) == Self::around(other.address, shorter)
    }
}

/// Whether prefixes of one node keep the rules of a list: not too many, in strictly increasing order, and no two of
/// them overlap.
///
/// # Errors
/// Names the first rule that does not hold.
pub fn check_list(prefixes: &[Prefix]) -> Result<(), &'static str> {
    if prefixes.len() > MAX_NODE_ROUTES {
        return Err("too many routes of one node");
    }
    if !prefixes.is_sorted_by(|a, b| a < b) {
        return Err("routes out of order");
    }
    check_apart(prefixes)
}

/// Whether prefixes, in increasing order, do not overlap.
pub(crate) fn check_apart(prefixes: &[Prefix]) -> Result<(), &'static str> {
    // A prefix that holds another comes before it, and what is between them is in it as well.
    let overlap = |pair: &[Prefix]| matches!(pair, [a, b] if a.overlaps(b));
    match prefixes.windows(2).any(overlap) {
        true => Err("two routes overlap"),
        false => Ok(()),
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = text.split_once('/').ok_or(PrefixError::Text)?;
        let address = address.parse().map_err(|_| PrefixError::Text)?;
        // One form: `+16` and `016` are numbers to the parser.
        let is_plain = length.bytes().all(|it| it.is_ascii_digit())
            && (length == "0" || !length.starts_with('0'));
        let length = length.parse().ok().filter(|_| is_plain);
        Self::new(address, length.ok_or(PrefixError::Text)?)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            return to.collect_str(self);
        }
        (self.address, self.length).serialize(to)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        if from.is_human_readable() {
            let text = String::deserialize(from)?;
            return text.parse().map_err(D::Error::custom);
        }
        let (address, length) = <(IpAddr, u8)>::deserialize(from)?;
        Self::new(address, length).map_err(D::Error::custom)
    }
}

const fn v4(a: u8, b: u8, length: u8) -> Prefix {
    Prefix {
        address: IpAddr::V4(std::net::Ipv4Addr::new(a, b, 0, 0)),
        length,
    }
}

const fn v6(first: u16, length: u8) -> Prefix {
    Prefix {
        address: IpAddr::V6(std::net::Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)),
        length,
    }
}

/// Addresses that are no network's own: this host, loopback, one link, multicast and reserved of IPv4; of IPv6 the
/// same, and those with an IPv4 address in them (RFC 6890, RFC 4291), which would be a second way to a mesh address.
const SPECIAL: [Prefix; 8] = [
    v4(0, 0, 8),
    v4(127, 0, 8),
    v4(169, 254, 16),
    v4(224, 0, 3),
    v6(0, 8),
    v6(0x2002, 16),
    v6(0xfe80, 10),
    v6(0xff00, 8),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_has_one_form_and_errors_name_the_cause() {
        for text in [
            "10.1.0.0/16",
            "192.168.7.0/24",
            "10.0.0.1/32",
            "fd01::/16",
            "2001:db8::/32",
        ] {
            assert_eq!(prefix(text).to_string(), text);
            let json = serde_json::to_string(&prefix(text)).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            let bytes = postcard::to_stdvec(&prefix(text)).unwrap();
            assert_eq!(postcard::from_bytes(&bytes), Ok(prefix(text)));
        }
        let errors = [
            ("10.1.0.0", "an address, a slash"),
            ("10.1.0.0/+16", "an address, a slash"),
            ("10.1.0.0/016", "an address, a slash"),
            ("10.1.0.0/33", "longer than an address"),
            (
                "10.1.0.5/16",
                "10.1.0.5 has bits set behind the first 16: the prefix is 10.1.0.0/16",
            ),
            ("0.0.0.0/0", "0.0.0.0/0 is too wide"),
            ("128.0.0.0/1", "too wide"),
            ("::/0", "too wide"),
            ("127.0.0.0/8", "no node can have behind it"),
            ("169.254.7.0/24", "169.254.7.0/24 overlaps 169.254.0.0/16"),
            ("224.0.0.0/8", "overlaps 224.0.0.0/3"),
            ("255.255.255.255/32", "overlaps 224.0.0.0/3"),
            ("fe80::/64", "overlaps fe80::/10"),
            ("::ffff:0:0/96", "overlaps ::/8"),
            ("64:ff9b::/96", "overlaps ::/8"),
            ("2002:a00::/24", "overlaps 2002::/16"),
        ];
        for (text, error) in errors {
            let said = text.parse::<Prefix>().unwrap_err().to_string();
            assert!(said.contains(error), "{text}: {said}");
        }
        let bytes = postcard::to_stdvec(&(IpAddr::from([10, 1, 0, 5]), 16_u8)).unwrap();
        assert!(postcard::from_bytes::<Prefix>(&bytes).is_err());
    }

    #[test]
    fn lists_are_bounded_ordered_and_apart() {
        let list = |texts: &[&str]| -> Vec<Prefix> { texts.iter().map(|it| prefix(it)).collect() };
        let apart = list(&["10.1.0.0/16", "10.2.0.0/16", "fd01::/32"]);
        assert_eq!(check_list(&apart), Ok(()));
        let turned = list(&["10.2.0.0/16", "10.1.0.0/16"]);
        assert_eq!(check_list(&turned), Err("routes out of order"));
        let twice = list(&["10.1.0.0/16", "10.1.0.0/16"]);
        assert_eq!(check_list(&twice), Err("routes out of order"));
        let within = list(&["10.0.0.0/8", "10.2.0.0/16"]);
        assert_eq!(check_list(&within), Err("two routes overlap"));
        let many: Vec<Prefix> = (0..17).map(|n| prefix(&format!("10.{n}.0.0/16"))).collect();
        assert_eq!(check_list(&many), Err("too many routes of one node"));
    }

    proptest! {
        #[test]
        fn prefixes_overlap_if_one_holds_the_first_of_the_other(
            a in any::<u32>(), b in any::<u32>(), x in 1u8..=32, y in 1u8..=32,
        ) {
            let (one, other) = (
                Prefix::around(IpAddr::V4(a.into()), x),
                Prefix::around(IpAddr::V4(b.into()), y),
            );
            let holds = one.contains(other.address()) || other.contains(one.address());
            prop_assert_eq!(one.overlaps(&other), holds);
            prop_assert_eq!(other.overlaps(&one), holds);
        }
    }
}
