//! The rules as text for `nft -f -`: one table of our own, replaced as a whole by one transaction.
//! Knows no other table.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use wire::Place;

/// The interface, addresses and port that the rules speak of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Name of the mesh's interface; the table is named after it.
    pub(crate) interface: String,
    /// Its index. Another interface that takes the name later is not the mesh's.
    pub(crate) index: u32,
    /// This node's mesh address and the prefix of the range.
    pub(crate) v4: (Ipv4Addr, u8),
    /// The same.
    pub(crate) v6: (Ipv6Addr, u8),
    /// UDP port of the WireGuard sockets.
    pub(crate) listen_port: u16,
    /// This node's other segments.
    pub(crate) beside: Vec<Beside>,
}

/// Another segment of this node. It is known by the name of its interface, which may be made anew with another index,
/// and by its ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beside {
    /// Name of its interface.
    pub(crate) interface: String,
    /// An address in it and the prefix of the range.
    pub(crate) v4: (Ipv4Addr, u8),
    /// The same.
    pub(crate) v6: (Ipv6Addr, u8),
}

impl Beside {
    /// A segment in which the node has this place, and this interface.
    pub(crate) fn new(interface: &str, place: &Place) -> Self {
        Self {
            interface: interface.to_owned(),
            v4: place.v4,
            v6: place.v6,
        }
    }
}

/// Name of the table for an interface. nft takes letters, digits, points and dashes in a name; every
/// other byte becomes `_` and two hexadecimal digits, so that no two interfaces share a table.
pub(super) fn table(interface: &str) -> String {
    let mut name = String::from("meshd-");
    for byte in interface.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => name.push(char::from(byte)),
            other => {
                let _ = write!(name, "_{other:02x}");
            }
        }
    }
    name
}

/// Everything, for as long as the node runs.
pub(super) fn all(scope: &Scope) -> String {
    replace(
        &scope.interface,
        &[
            incoming(scope),
            own_datagrams(scope),
            outgoing(scope),
            crossing(scope),
        ],
    )
}

/// The rules that stay after the end with `keep`: nothing for the mesh leaves in the clear.
pub(super) fn fail_closed(scope: &Scope) -> String {
    replace(&scope.interface, &[outgoing(scope), crossing(scope)])
}

/// Nothing.
pub(super) fn none(interface: &str) -> String {
    replace(interface, &[])
}

/// The table of an interface with other chains, in one transaction: `add` makes sure that there is one
/// to delete.
fn replace(interface: &str, chains: &[String]) -> String {
    let table = table(interface);
    let mut script = format!("add table inet {table}\ndelete table inet {table}\n");
    if !chains.is_empty() {
        let _ = writeln!(script, "table inet {table} {{\n{}}}", chains.concat());
    }
    script
}

/// Before connection tracking and address translation: a mesh address is reached by the tunnel and by
/// this machine itself, and nobody else speaks for one. No member says how narrow the way to another is; one may say
/// so of the way from this node to a network behind a member.
fn incoming(scope: &Scope) -> String {
    let Scope { index, .. } = scope;
    let ((v4, v4_len), (v6, v6_len)) = (scope.v4, scope.v6);
    let (first, last) = bounds_v4(v4, v4_len);
    let base = base_v6(v6, v6_len);
    let (of_v4, of_v6) = (mask_v4(v4_len), mask_v6(v6_len));
    let (in_v4, in_v6) = (u32::from(first), u128::from(base));
    let (own_v4, own_v6) = (u32::from(v4), u128::from(v6));
    format!(
        "  chain incoming {{\n    \
           type filter hook prerouting priority raw; policy accept;\n    \
           iif lo accept\n    \
           iif {index} icmp type destination-unreachable icmp code frag-needed \
             @th,{FROM_V4},32 != {own_v4:#x} drop\n    \
           iif {index} icmp type destination-unreachable icmp code frag-needed \
             @th,{AT_V4},32 & {of_v4:#x} == {in_v4:#x} drop\n    \
           iif {index} icmpv6 type packet-too-big @th,{FROM_V6},128 != {own_v6:#x} drop\n    \
           iif {index} icmpv6 type packet-too-big @th,{AT_V6},128 & {of_v6:#x} == {in_v6:#x} drop\n    \
           iif {index} accept\n    \
           ip daddr {{ {v4}, {first}, {last} }} drop\n    \
           ip saddr {first}/{v4_len} drop\n    \
           ip6 daddr {{ {v6}, {base} }} drop\n    \
           ip6 saddr {base}/{v6_len} drop\n    \
           icmp type {{ destination-unreachable, redirect, time-exceeded, parameter-problem }} \
             @th,{AT_V4},32 & {of_v4:#x} == {in_v4:#x} drop\n    \
           icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }} \
             @th,{AT_V6},128 & {of_v6:#x} == {in_v6:#x} drop\n  \
         }}\n",
    )
}

/// A datagram of ours that entered the tunnel would come out longer, and enter it again.
fn own_datagrams(scope: &Scope) -> String {
    let Scope {
        index, listen_port, ..
    } = scope;
    format!(
        "  chain own-datagrams {{\n    \
           type filter hook output priority filter + 10; policy accept;\n    \
           oif {index} udp sport {listen_port} drop\n  \
         }}\n"
    )
}

/// A packet for the mesh leaves by the tunnel or not at all, whatever routes say, and so does what has a
/// mesh address as its source. A packet of this machine itself is refused with an error. The second look
/// is after all translation: what a NAT of the operator's has given another address may go. A member's
/// packet leaves for a third machine only where such a NAT sends it, with the member's address as its
/// source: the tunnel itself delivers to this machine alone.
fn outgoing(scope: &Scope) -> String {
    let Scope { index, .. } = scope;
    let ((v4, v4_len), (v6, v6_len)) = (scope.v4, scope.v6);
    let (v4, v6) = (bounds_v4(v4, v4_len).0, base_v6(v6, v6_len));
    format!(
        "  chain outgoing {{\n    \
           type filter hook output priority filter + 11; policy accept;\n    \
           oif lo accept\n    \
           oif {index} accept\n    \
           ip daddr {v4}/{v4_len} reject with icmpx admin-prohibited\n    \
           ip6 daddr {v6}/{v6_len} reject with icmpx admin-prohibited\n  \
         }}\n  \
         chain leaving {{\n    \
           type filter hook postrouting priority srcnat + 200; policy accept;\n    \
           oif lo accept\n    \
           oif {index} accept\n    \
           ip daddr {v4}/{v4_len} drop\n    \
           ip6 daddr {v6}/{v6_len} drop\n    \
           iif {index} accept\n    \
           ip saddr {v4}/{v4_len} drop\n    \
           ip6 saddr {v6}/{v6_len} drop\n  \
         }}\n"
    )
}

/// Nothing goes from one segment to another by way of this machine, whatever routes, address translation and
/// other firewalls say: where it was sealed it has no business, and a translated source would hide that. What
/// carries an address of the one on the interface of the other is dropped by the rules above.
fn crossing(scope: &Scope) -> String {
    let Scope { index, beside, .. } = scope;
    if beside.is_empty() {
        return String::new();
    }
    let mut rules = String::new();
    for Beside { interface, v4, v6 } in beside {
        let ((v4, v4_len), (v6, v6_len)) = (*v4, *v6);
        let (v4, v6) = (bounds_v4(v4, v4_len).0, base_v6(v6, v6_len));
        let _ = write!(
            rules,
            "    iif {index} oifname \"{interface}\" drop\n    \
                 iifname \"{interface}\" oif {index} drop\n    \
                 iif {index} ip daddr {v4}/{v4_len} drop\n    \
                 oif {index} ip saddr {v4}/{v4_len} drop\n    \
                 iif {index} ip6 daddr {v6}/{v6_len} drop\n    \
                 oif {index} ip6 saddr {v6}/{v6_len} drop\n"
        );
    }
    format!(
        "  chain crossing {{\n    \
           type filter hook forward priority filter + 10; policy accept;\n\
         {rules}  }}\n"
    )
}

fn mask_v4(len: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(len.min(32)))
        .unwrap_or(0)
}

fn mask_v6(len: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(len.min(128)))
        .unwrap_or(0)
}

/// The first address of a range and the last, which is its broadcast address.
fn bounds_v4(address: Ipv4Addr, len: u8) -> (Ipv4Addr, Ipv4Addr) {
    let (bits, mask) = (u32::from(address), mask_v4(len));
    ((bits & mask).into(), (bits | !mask).into())
}

/// The first address of a range, which is its anycast address of routers (RFC 4291, section 2.6.1).
fn base_v6(address: Ipv6Addr, len: u8) -> Ipv6Addr {
    (u128::from(address) & mask_v6(len)).into()
}

/// Where an ICMP error holds the destination that it is about, in bits: RFC 792, RFC 791.
const AT_V4: u32 = (8 + 16) * 8;
/// The same: RFC 4443, RFC 8200.
const AT_V6: u32 = (8 + 24) * 8;
/// Where it holds the source of that packet.
const FROM_V4: u32 = AT_V4 - 4 * 8;
/// The same.
const FROM_V6: u32 = AT_V6 - 16 * 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(interface: &str) -> Scope {
        Scope {
            interface: interface.into(),
            index: 7,
            v4: ("10.76.1.2".parse().unwrap(), 16),
            v6: ("fd00:1::2".parse().unwrap(), 64),
            listen_port: 51820,
            beside: Vec::new(),
        }
    }

    #[test]
    fn no_two_interfaces_share_a_table_and_every_name_is_one_that_nft_takes() {
        let names = ["meshd0", "meshd_0", "meshd_5f0", "m.0-a", "mésh*", "m\"; }"];
        let tables: std::collections::BTreeSet<String> =
            names.iter().map(|name| table(name)).collect();
        assert_eq!(tables.len(), names.len());
        for name in &tables {
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            assert!(name.chars().all(plain), "{name}");
        }
        assert_eq!(table("meshd0"), "meshd-meshd0");
    }

    #[test]
    fn the_rules_name_the_range_and_nothing_but_their_own_table() {
        let text = all(&scope("meshd0"));
        for part in [
            "ip daddr { 10.76.1.2, 10.76.0.0, 10.76.255.255 } drop",
            "ip saddr 10.76.0.0/16 drop",
            "ip6 daddr { fd00:1::2, fd00:1:: } drop",
            "ip6 daddr fd00:1::/64 reject",
            "oif 7 udp sport 51820 drop",
            "@th,192,32 & 0xffff0000 == 0xa4c0000 drop",
            "iif 7 icmp type destination-unreachable icmp code frag-needed @th,160,32 != 0xa4c0102 drop",
            "iif 7 icmpv6 type packet-too-big @th,128,128 != 0xfd000001000000000000000000000002 drop",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let kept = fail_closed(&scope("meshd0"));
        assert!(!kept.contains("prerouting") && kept.contains("ip saddr 10.76.0.0/16 drop"));
        for script in [text, kept, none("meshd0")] {
            let tables = script.lines().filter(|line| line.contains("table "));
            assert!(
                tables
                    .into_iter()
                    .all(|line| line.contains("inet meshd-meshd0"))
            );
        }
    }

    #[test]
    fn a_pair_of_segments_is_kept_apart_both_ways_even_after_the_end() {
        let alone = scope("mesh0");
        assert!(
            !all(&alone).contains("crossing"),
            "there is nothing to cross to"
        );
        let beside = |interface: &str, third| Beside {
            interface: interface.into(),
            v4: ([10, third, 3, 4].into(), 16),
            v6: (Ipv6Addr::new(0xFD00, third.into(), 0, 0, 0, 0, 0, 9), 64),
        };
        let beside = vec![beside("mesh-a", 80), beside("mesh-b", 81)];
        let scope = Scope { beside, ..alone };
        for script in [all(&scope), fail_closed(&scope)] {
            for rule in [
                "iif 7 oifname \"mesh-a\" drop",
                "iifname \"mesh-b\" oif 7 drop",
                "iif 7 ip daddr 10.80.0.0/16 drop",
                "oif 7 ip saddr 10.81.0.0/16 drop",
                "iif 7 ip6 daddr fd00:50::/64 drop",
                "oif 7 ip6 saddr fd00:51::/64 drop",
            ] {
                assert!(script.contains(rule), "{rule}: {script}");
            }
        }
    }

    #[test]
    fn a_range_may_be_as_wide_or_narrow_as_there_is() {
        assert_eq!((mask_v4(0), mask_v4(32)), (0, u32::MAX));
        assert_eq!((mask_v6(0), mask_v6(128)), (0, u128::MAX));
        let (first, last) = bounds_v4("10.76.1.2".parse().unwrap(), 30);
        assert_eq!((first.octets()[3], last.octets()[3]), (0, 3));
    }
}
