//! One rule: from which groups, to which groups, and which protocol and ports it opens.

use std::ops::RangeInclusive;

/// Groups of nodes, as bits: bit N is the group of index N.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Groups(pub u64);

/// The protocol that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Every one.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP over IPv4 and ICMPv6 over IPv6.
    Icmp,
}

/// One allowance: nothing is forbidden by a rule, only by there being none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The protocol.
    pub protocol: Protocol,
    /// Destination ports of TCP or UDP; empty: all. Without a meaning for other protocols.
    pub ports: Vec<RangeInclusive<u16>>,
    /// The senders: members of any of these groups; none: everybody.
    pub from: Groups,
    /// The receivers, likewise.
    pub to: Groups,
}

impl Groups {
    /// Whether a node in these groups is meant where `named` are named; none of them means everybody.
    pub(crate) fn is_meant(self, named: Self) -> bool {
        named.0 == 0 || named.0 & self.0 != 0
    }
}
