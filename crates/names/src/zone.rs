//! The names and addresses that resolve now. Built whole from the hosts that there are, and never changed: the node
//! puts another in its place.

use crate::suffix::Suffix;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{NodeName, SegmentName};

/// A node that resolves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: NodeName,
    /// The segment that it is in there; `None`: the one of a mesh without others.
    pub segment: Option<SegmentName>,
    /// Whether its name stands before the suffix alone, too: in the segment that the asking node enrolled in first.
    pub is_home: bool,
    /// Its address inside the mesh.
    pub v4: Ipv4Addr,
    /// The same for IPv6.
    pub v6: Ipv6Addr,
}

/// A line of a hosts file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The address.
    pub address: IpAddr,
    /// Its names, the canonical one first.
    pub names: Vec<String>,
}

/// The names that end in one suffix, and the addresses of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    suffix: Suffix,
    /// By the labels before the suffix, with dots between them.
    hosts: BTreeMap<String, (Ipv4Addr, Ipv6Addr)>,
    /// Names that have none but names below them: those of segments.
    inner: BTreeSet<String>,
    /// The name in full of each address, without the dot at the end.
    addresses: BTreeMap<IpAddr, String>,
    /// The ranges of the mesh: a base and the length of its prefix.
    ranges: Vec<(IpAddr, u8)>,
}

/// The content of a zone at a name; `labels` is the length of its apex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found<'z> {
    /// The name is in no zone of this node.
    Elsewhere,
    /// The apex of a zone.
    Apex { labels: usize },
    /// A node.
    Host {
        labels: usize,
        v4: Ipv4Addr,
        v6: Ipv6Addr,
    },
    /// An address, as its reverse name.
    Address { labels: usize, name: &'z str },
    /// There are only names below it.
    Inner { labels: usize },
    /// There is no such name.
    Nothing { labels: usize },
}

impl Zone {
    /// The zone of these hosts. `ranges` are those of the mesh: base address and prefix length of each.
    pub fn new(suffix: Suffix, hosts: &[Host], ranges: Vec<(IpAddr, u8)>) -> Self {
        let mut zone = Self {
            suffix,
            ranges,
            ..Self::default()
        };
        for host in hosts {
            let names = relative(host);
            for name in &names {
                if let Some((_, segment)) = name.split_once('.') {
                    zone.inner.insert(segment.to_owned());
                }
                zone.hosts.insert(name.clone(), (host.v4, host.v6));
            }
            if let Some(first) = names.first() {
                let full = zone.full(first);
                for address in [IpAddr::V4(host.v4), host.v6.into()] {
                    zone.addresses.insert(address, full.clone());
                }
            }
        }
        zone
    }

    /// The domain that the names end in.
    pub fn suffix(&self) -> &Suffix {
        &self.suffix
    }

    /// How many nodes resolve, each counted once for every segment.
    pub fn len(&self) -> usize {
        self.addresses.len() / 2
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The zones of reverse names (RFC 1035, section 3.5; RFC 3596, section 2.5) that hold the mesh's addresses,
    /// without dots at the end; none of a range that would need more than 16.
    pub fn reverse_zones(&self) -> Vec<String> {
        let ranges = self.ranges.iter();
        ranges
            .flat_map(|(base, prefix)| reverse(*base, *prefix))
            .collect()
    }

    /// The same as the lines of a hosts file, in the order of their names. A node of the home segment is there by its
    /// bare name, too.
    pub fn lines(&self) -> Vec<Line> {
        let mut names: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for (name, (v4, v6)) in &self.hosts {
            for address in [IpAddr::V4(*v4), (*v6).into()] {
                let names = names.entry(address).or_default();
                let full = self.full(name);
                let canonical = self.addresses.get(&address) == Some(&full);
                if canonical {
                    names.insert(0, full);
                } else {
                    names.push(full);
                }
                if !name.contains('.') {
                    names.push(name.clone());
                }
            }
        }
        let line = |(address, names)| Line { address, names };
        let mut lines: Vec<Line> = names.into_iter().map(line).collect();
        lines.sort_by(|a, b| (&a.names, a.address).cmp(&(&b.names, b.address)));
        lines
    }

    /// The content at a name: its labels in lower case, without the root's, the leftmost first.
    pub(crate) fn find(&self, name: &[Vec<u8>]) -> Found<'_> {
        if let Some(found) = self.find_address(name) {
            return found;
        }
        let own: Vec<&[u8]> = self.suffix.labels().map(str::as_bytes).collect();
        let labels = own.len();
        let Some(before) = name.len().checked_sub(labels) else {
            return Found::Elsewhere;
        };
        let (before, end) = name.split_at(before);
        if end.iter().ne(own.iter()) {
            return Found::Elsewhere;
        }
        if before.is_empty() {
            return Found::Apex { labels };
        }
        // A dot within a label is none between two.
        let is_plain = before.iter().all(|label| !label.contains(&b'.'));
        let text = String::from_utf8(before.join(&b'.'));
        let Some(text) = text.ok().filter(|_| is_plain) else {
            return Found::Nothing { labels };
        };
        match self.hosts.get(&text) {
            Some(&(v4, v6)) => Found::Host { labels, v4, v6 },
            None if self.inner.contains(&text) => Found::Inner { labels },
            None => Found::Nothing { labels },
        }
    }

    /// The same for a name below `in-addr.arpa` or `ip6.arpa`; `None` for any other.
    fn find_address(&self, name: &[Vec<u8>]) -> Option<Found<'_>> {
        let digits_len = name.len().checked_sub(2)?;
        let (before, end) = name.split_at(digits_len);
        let family = match end {
            [kind, arpa] if arpa == b"arpa" && kind == b"in-addr" => Family::V4,
            [kind, arpa] if arpa == b"arpa" && kind == b"ip6" => Family::V6,
            _ => return None,
        };
        // The most significant digit is the last.
        let digits: Option<Vec<u8>> = before.iter().rev().map(|it| family.digit(it)).collect();
        let Some(digits) = digits else {
            return Some(Found::Elsewhere);
        };
        let ranges = self.ranges.iter();
        let mut apex = ranges.filter(|(base, _)| Family::of(*base) == family);
        let apex = apex.find_map(|(base, prefix)| {
            let apex_len = usize::from(prefix.div_ceil(family.bits()));
            let start = family.address(digits.get(..apex_len)?);
            is_within(start, *base, *prefix).then_some(apex_len)
        });
        let Some(apex_len) = apex else {
            return Some(Found::Elsewhere);
        };
        let labels = apex_len + 2;
        if digits.len() > family.digits() {
            return Some(Found::Nothing { labels });
        }
        if digits.len() == family.digits() {
            let name = self.addresses.get(&family.address(&digits));
            return Some(match name {
                Some(name) => Found::Address { labels, name },
                None => Found::Nothing { labels },
            });
        }
        if digits.len() == apex_len {
            return Some(Found::Apex { labels });
        }
        let start = family.address(&digits);
        let length = family.bits() * u8::try_from(digits.len()).unwrap_or(u8::MAX);
        let has_some = self.addresses.range(start..).next();
        let has_some = has_some.is_some_and(|(it, _)| is_within(*it, start, length));
        Some(if has_some {
            Found::Inner { labels }
        } else {
            Found::Nothing { labels }
        })
    }

    fn full(&self, relative: &str) -> String {
        format!("{relative}.{}", self.suffix)
    }
}

/// The names of a host before the suffix, the canonical one first.
fn relative(host: &Host) -> Vec<String> {
    let short = host.is_home.then(|| host.name.to_string());
    let segment = host.segment.as_ref();
    let long = segment.map(|segment| format!("{}.{segment}", host.name));
    short.into_iter().chain(long).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// Of one digit: an octet in decimal, or four bits in hexadecimal.
    fn bits(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 4,
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 32,
        }
    }

    /// A digit in its one spelling.
    fn digit(self, label: &[u8]) -> Option<u8> {
        let text = std::str::from_utf8(label).ok()?;
        match self {
            Self::V4 => text.parse().ok().filter(|it: &u8| it.to_string() == text),
            Self::V6 => {
                let value = u8::from_str_radix(text, 16).ok()?;
                (format!("{value:x}") == text && value < 16).then_some(value)
            }
        }
    }

    /// The lowest address that begins with these digits.
    fn address(self, digits: &[u8]) -> IpAddr {
        let digit = |at: usize| digits.get(at).copied().unwrap_or(0);
        match self {
            Self::V4 => Ipv4Addr::from([digit(0), digit(1), digit(2), digit(3)]).into(),
            Self::V6 => {
                let all = (0..32).fold(0, |all: u128, at| all << 4 | u128::from(digit(at)));
                Ipv6Addr::from_bits(all).into()
            }
        }
    }
}

fn is_within(address: IpAddr, base: IpAddr, prefix: u8) -> bool {
    wire::Prefix::around(base, prefix).contains(address)
}

/// The reverse zones of one range.
fn reverse(base: IpAddr, prefix: u8) -> Vec<String> {
    let family = Family::of(base);
    let whole = prefix.div_ceil(family.bits());
    let spare = whole * family.bits() - prefix;
    if spare > MAX_SPARE {
        return Vec::new();
    }
    let base = wire::Prefix::around(base, prefix).address();
    let digits: Vec<u8> = match base {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6
            .octets()
            .iter()
            .flat_map(|it| [it >> 4, it & 15])
            .collect(),
    };
    let digits = digits.into_iter().take(usize::from(whole));
    let digits: Vec<u8> = digits.collect();
    let Some((last, before)) = digits.split_last() else {
        return Vec::new();
    };
    let zone = |last: u8| {
        let digits = std::iter::once(last).chain(before.iter().rev().copied());
        let digits = digits.map(|digit| match family {
            Family::V4 => digit.to_string(),
            Family::V6 => format!("{digit:x}"),
        });
        let end = match family {
            Family::V4 => "in-addr.arpa",
            Family::V6 => "ip6.arpa",
        };
        digits.chain([end.to_owned()]).collect::<Vec<_>>().join(".")
    };
    (0..1 << spare).map(|more| zone(last + more)).collect()
}

/// Bits by which a range may be wider than the next digit: 16 zones.
const MAX_SPARE: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, segment: Option<&str>, is_home: bool, last: u8) -> Host {
        Host {
            name: name.parse().unwrap(),
            segment: segment.map(|it| it.parse().unwrap()),
            is_home,
            v4: Ipv4Addr::new(10, 76, 0, last),
            v6: format!("fd00::{last:x}").parse().unwrap(),
        }
    }

    fn zone() -> Zone {
        let hosts = [
            host("node-a", Some("training"), true, 1),
            host("node-b", Some("training"), true, 2),
            host("node-b", Some("inference"), false, 0x42),
        ];
        let ranges = vec![
            ("10.76.0.0".parse().unwrap(), 15),
            ("fd00::".parse().unwrap(), 64),
        ];
        Zone::new(Suffix::default(), &hosts, ranges)
    }

    fn labels(name: &str) -> Vec<Vec<u8>> {
        name.split('.').map(|it| it.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_name_stands_for_a_node_of_the_home_segment_and_with_a_segment_for_any() {
        let zone = zone();
        let found = |name: &str| match zone.find(&labels(name)) {
            Found::Host { labels: 2, v4, .. } => v4.octets()[3].to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(found("node-a.mesh.internal"), "1");
        assert_eq!(found("node-b.mesh.internal"), "2");
        assert_eq!(found("node-b.training.mesh.internal"), "2");
        assert_eq!(found("node-b.inference.mesh.internal"), "66");
        let nothing = "Nothing { labels: 2 }";
        assert_eq!(found("node-a.inference.mesh.internal"), nothing);
        assert_eq!(found("node-c.mesh.internal"), nothing);
        assert_eq!(found("x.node-a.mesh.internal"), nothing);
        assert_eq!(found("inference.mesh.internal"), "Inner { labels: 2 }");
        assert_eq!(found("mesh.internal"), "Apex { labels: 2 }");
        for other in [
            "internal",
            "mesh.example",
            "example.org",
            "arpa",
            "ip6.arpa",
        ] {
            assert_eq!(found(other), "Elsewhere", "{other}");
        }
        let mut dotted = labels("x.mesh.internal");
        dotted[0] = b"node-b.inference".to_vec();
        assert_eq!(zone.find(&dotted), Found::Nothing { labels: 2 });
        assert_eq!(zone.len(), 3);
    }

    #[test]
    fn an_address_of_the_mesh_has_the_name_of_its_node_and_no_other_is_ours() {
        let zone = zone();
        let found = |name: &str| match zone.find(&labels(name)) {
            Found::Address { name, .. } => name.to_owned(),
            other => format!("{other:?}"),
        };
        assert_eq!(found("2.0.76.10.in-addr.arpa"), "node-b.mesh.internal");
        let inference = "node-b.inference.mesh.internal";
        assert_eq!(found("66.0.76.10.in-addr.arpa"), inference);
        let v6 = |last: &str| format!("{last}.{}d.f.ip6.arpa", "0.".repeat(28));
        assert_eq!(found(&v6("2.0")), "node-b.mesh.internal");
        assert_eq!(found(&v6("2.4")), inference);
        assert_eq!(found(&v6("3.0")), "Nothing { labels: 18 }");
        assert_eq!(found("9.9.77.10.in-addr.arpa"), "Nothing { labels: 4 }");
        assert_eq!(found("77.10.in-addr.arpa"), "Apex { labels: 4 }");
        assert_eq!(found("0.76.10.in-addr.arpa"), "Inner { labels: 4 }");
        assert_eq!(found("1.76.10.in-addr.arpa"), "Nothing { labels: 4 }");
        assert_eq!(found("1.2.0.76.10.in-addr.arpa"), "Nothing { labels: 4 }");
        let elsewhere = [
            "10.in-addr.arpa",
            "2.0.78.10.in-addr.arpa",
            "02.0.76.10.in-addr.arpa",
            "in-addr.arpa",
            "1.d.f.ip6.arpa",
            "x.0.76.10.in-addr.arpa",
        ];
        for other in elsewhere {
            assert_eq!(found(other), "Elsewhere", "{other}");
        }
    }

    #[test]
    fn reverse_zones_hold_the_ranges_and_are_none_where_they_would_be_many() {
        let zones = |base: &str, prefix| reverse(base.parse().unwrap(), prefix);
        assert_eq!(
            zones("10.76.0.0", 15),
            ["76.10.in-addr.arpa", "77.10.in-addr.arpa"]
        );
        assert_eq!(zones("10.0.0.0", 8), ["10.in-addr.arpa"]);
        assert_eq!(zones("10.1.2.16", 30).len(), 4);
        assert_eq!(zones("fd00::", 8), ["d.f.ip6.arpa"]);
        assert_eq!(
            zones("fdab::", 15),
            ["a.a.d.f.ip6.arpa", "b.a.d.f.ip6.arpa"]
        );
        assert_eq!(zones("10.128.0.0", 9), [""; 0]);
    }

    #[test]
    fn lines_of_a_hosts_file_have_every_name_and_the_canonical_one_first() {
        let lines = zone().lines();
        let lines: Vec<String> = lines
            .iter()
            .map(|it| format!("{} {}", it.address, it.names.join(" ")))
            .collect();
        assert_eq!(
            lines,
            [
                "10.76.0.1 node-a.mesh.internal node-a node-a.training.mesh.internal",
                "fd00::1 node-a.mesh.internal node-a node-a.training.mesh.internal",
                "10.76.0.66 node-b.inference.mesh.internal",
                "fd00::42 node-b.inference.mesh.internal",
                "10.76.0.2 node-b.mesh.internal node-b node-b.training.mesh.internal",
                "fd00::2 node-b.mesh.internal node-b node-b.training.mesh.internal",
            ]
        );
    }
}
