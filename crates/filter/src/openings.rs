//! The rules as they concern one peer: which rule, if any, lets in a packet of a protocol to a port.

use crate::flows::Room;
use crate::parse::Upper;
use crate::rule::{Protocol, Rule};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The packets that a peer may send to this node.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// Everything: the segment has no rules.
    #[default]
    All,
    /// The packets that the rules let in, and answers.
    Only(Arc<Openings>),
}

/// The ways that are open between this node and peers of the same groups.
#[derive(Debug)]
pub struct Openings {
    /// From the peer to here.
    inward: Ways,
    /// From here to the peer, who holds what comes against the same rules.
    outward: Ways,
    passed: Arc<[AtomicU64]>,
    room: Arc<Room>,
}

/// The ways that are open in one direction. Each is named by the index of the first rule that opens it.
#[derive(Debug)]
pub(crate) struct Ways {
    any: Option<u16>,
    icmp: Option<u16>,
    tcp: Ports,
    udp: Ports,
}

/// Ranges of ports that do not overlap, in order: first port, last port, rule.
#[derive(Debug, Default)]
struct Ports(Vec<(u16, u16, u16)>);

impl Ways {
    /// Of rules with their indices, in their order.
    pub(crate) fn new<'r>(rules: impl Iterator<Item = (&'r Rule, u16)>) -> Self {
        let (mut any, mut icmp) = (None, None);
        let (mut tcp, mut udp) = (BTreeMap::new(), BTreeMap::new());
        for (rule, index) in rules {
            match rule.protocol {
                Protocol::Any => any = any.or(Some(index)),
                Protocol::Icmp => icmp = icmp.or(Some(index)),
                Protocol::Tcp => open(&mut tcp, &rule.ports, index),
                Protocol::Udp => open(&mut udp, &rule.ports, index),
            }
        }
        Self {
            any,
            icmp,
            tcp: Ports::new(tcp),
            udp: Ports::new(udp),
        }
    }

    /// The first rule that opens the way for a packet; `None`: none does.
    fn rule(&self, upper: &Upper<'_>) -> Option<u16> {
        let own = match upper {
            Upper::Tcp { to, .. } => self.tcp.rule(*to),
            Upper::Udp { to, .. } => self.udp.rule(*to),
            Upper::Echo { .. } | Upper::IcmpError(_) | Upper::Icmp => self.icmp,
            Upper::Other(_) => None,
        };
        [own, self.any].into_iter().flatten().min()
    }
}

impl Openings {
    pub(crate) fn new(
        (inward, outward): (Ways, Ways),
        passed: Arc<[AtomicU64]>,
        room: Arc<Room>,
    ) -> Self {
        Self {
            inward,
            outward,
            passed,
            room,
        }
    }

    /// The room that flows take their places from.
    pub(crate) fn room(&self) -> Arc<Room> {
        Arc::clone(&self.room)
    }

    /// Whether everything is open: ports need not be known.
    pub(crate) fn any(&self) -> Option<u16> {
        self.inward.any
    }

    /// The first rule that lets a packet of the peer in; `None`: none does.
    pub(crate) fn rule(&self, upper: &Upper<'_>) -> Option<u16> {
        self.inward.rule(upper)
    }

    /// Whether a packet that answers `sent` would pass by a rule.
    pub(crate) fn lets_in_answers(&self, sent: &Upper<'_>) -> bool {
        let Ways {
            any,
            icmp,
            tcp,
            udp,
        } = &self.inward;
        match *sent {
            Upper::Tcp { from, .. } => tcp.rule(from).is_some() || any.is_some(),
            Upper::Udp { from, .. } => udp.rule(from).is_some() || any.is_some(),
            // An echo reply answers a request, which always passes.
            Upper::Echo { is_request, .. } => !is_request || icmp.or(*any).is_some(),
            Upper::IcmpError(_) | Upper::Icmp | Upper::Other(_) => any.is_some(),
        }
    }

    /// Whether this node may open a flow to the peer with a packet. One that the peer would let in as an answer alone
    /// belongs to a flow of the peer's, and goes on for no longer than a rule lets that one in here.
    pub(crate) fn lets_out(&self, sent: &Upper<'_>) -> bool {
        let is_echo = matches!(
            sent,
            Upper::Echo {
                is_request: true,
                ..
            }
        );
        is_echo || self.outward.rule(sent).is_some()
    }

    /// A rule has let a packet in.
    pub(crate) fn count(&self, rule: u16) {
        if let Some(count) = self.passed.get(usize::from(rule)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Ports {
    fn new(ranges: BTreeMap<u16, (u16, u16)>) -> Self {
        let ranges = ranges.into_iter();
        Self(
            ranges
                .map(|(first, (last, rule))| (first, last, rule))
                .collect(),
        )
    }

    fn rule(&self, port: u16) -> Option<u16> {
        let behind = self.0.partition_point(|(first, ..)| *first <= port);
        let (_, last, rule) = self.0.get(behind.checked_sub(1)?)?;
        (port <= *last).then_some(*rule)
    }
}

/// Opens ranges of ports for a rule, as far as no rule before it has opened them. `ranges`: last port and rule, by
/// the first port.
fn open(ranges: &mut BTreeMap<u16, (u16, u16)>, ports: &[RangeInclusive<u16>], rule: u16) {
    const ALL: &[RangeInclusive<u16>] = &[0..=u16::MAX];
    for range in if ports.is_empty() { ALL } else { ports } {
        let (mut at, end) = (u32::from(*range.start()), u32::from(*range.end()));
        while at <= end {
            // Both fit: they are at most `end`, which is a port.
            let port = u16::try_from(at).unwrap_or(u16::MAX);
            let covering = ranges.range(..=port).next_back();
            if let Some((_, (last, _))) = covering.filter(|(_, (last, _))| *last >= port) {
                at = u32::from(*last) + 1;
                continue;
            }
            let next = ranges.range(port..).next();
            let gap = next.map_or(end, |(first, _)| end.min(u32::from(*first) - 1));
            let last = u16::try_from(gap).unwrap_or(u16::MAX);
            ranges.insert(port, (last, rule));
            at = gap + 1;
        }
    }
}
