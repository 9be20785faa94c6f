//! One peer's gate: packets that go out open it for answers, packets that come in have to pass.

use crate::flows::{ACK, Flow, Flows, SYN, TCP_IDLE};
use crate::fragments::{Datagram, Fragments};
use crate::openings::{Access, Openings};
use crate::parse::{Address, Packet, Part, Upper};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// The gate for the packets of one peer. Until anything is sent to it, it remembers nothing.
#[derive(Debug, Default)]
pub struct Gate {
    access: Access,
    /// Openings for the peer of rules that have been replaced.
    replaced: Vec<Replaced>,
    flows: Option<Flows>,
    fragments: Option<Box<Fragments>>,
}

/// Rules that are in force no more.
#[derive(Debug)]
struct Replaced {
    openings: Arc<Openings>,
    /// When this host first sent anything after it.
    since: Option<Duration>,
}

/// Whose the addresses of packets are, where networks are behind nodes.
pub trait Ends {
    /// Whether the peer may speak for an address: its own, or one of a network behind it.
    fn is_peers(&self, address: IpAddr) -> bool;

    /// Whether an address is this node's own, and not one of a host behind it.
    fn is_own(&self, address: IpAddr) -> bool;
}

/// Why a packet is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No rule allows it, and it answers nothing that this host has sent.
    NoRule,
    /// A later fragment of a datagram whose first fragment did not pass, or has yet to come.
    Fragment,
    /// An ICMP error about nothing that this host has sent.
    IcmpError,
    /// Not to be read, so that nobody can tell what it is.
    Unreadable,
}

impl Gate {
    /// A gate with this access and without a memory.
    pub fn new(access: Access) -> Self {
        Self {
            access,
            replaced: Vec::new(),
            flows: None,
            fragments: None,
        }
    }

    /// From now on this is what the peer may send. Flows that this host has opened stay, as far as the rules still let it
    /// open them.
    pub fn set(&mut self, access: Access) {
        match (&access, &self.access) {
            (Access::All, _) => *self = Self::default(),
            (Access::Only(now), Access::Only(before)) if Arc::ptr_eq(now, before) => {}
            (Access::Only(openings), before) => {
                if let Some(flows) = &mut self.flows {
                    flows.retain(|flow| openings.lets_out(&flow.sent()));
                }
                if let Access::Only(before) = before {
                    if self.replaced.len() >= MOST_REPLACED {
                        self.replaced.remove(0);
                    }
                    self.replaced.push(Replaced {
                        openings: Arc::clone(before),
                        since: None,
                    });
                }
                self.access = access;
            }
        }
    }

    /// Whether everything passes.
    #[inline]
    pub fn is_open(&self) -> bool {
        matches!(self.access, Access::All)
    }

    /// This host sends a packet to the peer: answers to it are let in.
    #[inline]
    pub fn sent(&mut self, packet: &[u8], now: Duration) {
        if let Access::Only(openings) = &self.access
            && let Some(sent) = Sent::read(packet)
            && openings.lets_out(&sent.upper)
        {
            let flows = self.flows.as_ref();
            let is_known = || flows.is_some_and(|flows| flows.has(&sent.flow, now));
            if !sent.begins() {
                // A peer that opens many flows, as the rules allow it to, makes this host send as many answers. Were
                // they entered, it would fill the table.
                if openings.lets_in_answers(&sent.upper) {
                    return;
                }
                // Nor does a flow that the peer has opened become this host's own when the rule for it is gone.
                if !self.replaced.is_empty()
                    && !is_known()
                    && Self::was_theirs(&mut self.replaced, &sent, now)
                {
                    return;
                }
            }
            let flows = self
                .flows
                .get_or_insert_with(|| Flows::new(openings.room()));
            flows.sent(sent.flow, sent.flags, now);
        }
    }

    /// Whether a rule that has been replaced let in what the other end of a flow sent.
    fn was_theirs(replaced: &mut Vec<Replaced>, sent: &Sent<'_>, now: Duration) -> bool {
        // No flow is in force for longer without a packet.
        replaced.retain(|it| {
            it.since
                .is_none_or(|since| now.saturating_sub(since) < TCP_IDLE)
        });
        for it in replaced.iter_mut() {
            it.since.get_or_insert(now);
        }
        let is_recent = |it: &&Replaced| {
            let idle = it.since.map(|since| now.saturating_sub(since));
            idle.is_some_and(|idle| idle < sent.flow.idle())
        };
        let mut recent = replaced.iter().filter(is_recent);
        recent.any(|it| it.openings.lets_in_answers(&sent.upper))
    }

    /// Lets a packet of the peer in, or says why not.
    ///
    /// # Errors
    /// The [`Refusal`]; nothing has changed then.
    #[inline]
    pub fn admit(&mut self, packet: &[u8], now: Duration) -> Result<(), Refusal> {
        self.admit_with(packet, None, now)
    }

    /// The same where networks are behind this node or the peer. An echo request to a host behind this node needs a
    /// rule: it measures no path of the mesh. An error may come from any address that is the peer's to speak for.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub fn admit_between(
        &mut self,
        packet: &[u8],
        ends: &dyn Ends,
        now: Duration,
    ) -> Result<(), Refusal> {
        self.admit_with(packet, Some(ends), now)
    }

    #[inline]
    fn admit_with(
        &mut self,
        packet: &[u8],
        ends: Option<&dyn Ends>,
        now: Duration,
    ) -> Result<(), Refusal> {
        match &self.access {
            Access::All => Ok(()),
            Access::Only(openings) => {
                let packet = Packet::read(packet).ok_or(Refusal::Unreadable)?;
                let known = Known {
                    openings,
                    flows: self.flows.as_ref(),
                    ends,
                };
                known.pass(&mut self.fragments, &packet, now)
            }
        }
    }
}

/// All that a packet is held against.
struct Known<'g> {
    openings: &'g Openings,
    flows: Option<&'g Flows>,
    ends: Option<&'g dyn Ends>,
}

/// A packet of this host that belongs to a flow.
struct Sent<'p> {
    upper: Upper<'p>,
    flow: Flow,
    /// Those of TCP.
    flags: u8,
}

impl<'p> Sent<'p> {
    fn read(packet: &'p [u8]) -> Option<Self> {
        let packet = Packet::read(packet)?;
        let (Part::Whole(upper) | Part::First(upper, _)) = packet.part else {
            return None;
        };
        let flags = match upper {
            Upper::Tcp { flags, .. } => flags,
            Upper::Udp { .. }
            | Upper::Echo { .. }
            | Upper::IcmpError(_)
            | Upper::Icmp
            | Upper::Other(_) => 0,
        };
        let flow = Flow::opened_by(&packet)?;
        Some(Self { upper, flow, flags })
    }

    /// Whether it asks for a TCP connection: nobody can make a host do that by sending to it.
    fn begins(&self) -> bool {
        matches!(self.upper, Upper::Tcp { .. }) && self.flags & (SYN | ACK) == SYN
    }
}

impl Known<'_> {
    fn pass(
        &self,
        fragments: &mut Option<Box<Fragments>>,
        packet: &Packet<'_>,
        now: Duration,
    ) -> Result<(), Refusal> {
        let datagram = |id| Datagram {
            source: packet.source,
            destination: packet.destination,
            id,
        };
        let (upper, first) = match packet.part {
            Part::Whole(upper) => (upper, None),
            Part::First(upper, id) => (upper, Some(id)),
            Part::Later(id) => {
                if let Some(rule) = self.openings.any() {
                    self.openings.count(rule);
                    return Ok(());
                }
                let passed = fragments.as_ref();
                let passed = passed.is_some_and(|it| it.has_passed(&datagram(id), now));
                return passed.then_some(()).ok_or(Refusal::Fragment);
            }
        };
        self.judge(packet, upper, now)?;
        // Its later fragments say nothing of ports, and follow it.
        if let Some(id) = first {
            fragments.get_or_insert_default().pass(datagram(id), now);
        }
        Ok(())
    }

    fn judge(&self, packet: &Packet<'_>, upper: Upper<'_>, now: Duration) -> Result<(), Refusal> {
        if let Some(rule) = self.openings.rule(&upper) {
            self.openings.count(rule);
            return Ok(());
        }
        let passes = match upper {
            Upper::Echo {
                is_request: true, ..
            } => self
                .ends
                .is_none_or(|ends| ends.is_own(address(packet.destination))),
            Upper::IcmpError(quote) => {
                let is_ours = self.is_about_ours(packet, quote, now);
                return is_ours.then_some(()).ok_or(Refusal::IcmpError);
            }
            Upper::Tcp { .. }
            | Upper::Udp { .. }
            | Upper::Echo { .. }
            | Upper::Icmp
            | Upper::Other(_) => {
                Flow::answered_by(packet, upper).is_some_and(|flow| self.has(&flow, now))
            }
        };
        passes.then_some(()).ok_or(Refusal::NoRule)
    }

    /// Whether an ICMP error is about a packet that this host may have sent: "too big" has to arrive, or its sender
    /// goes on with packets that do not.
    fn is_about_ours(&self, packet: &Packet<'_>, quote: &[u8], now: Duration) -> bool {
        let Some(quoted) = Packet::quoted(quote) else {
            return false;
        };
        let (Part::Whole(upper) | Part::First(upper, _)) = quoted.part else {
            return false;
        };
        if quoted.source != packet.destination {
            return false;
        }
        // Nobody remembers answers to what a rule lets in. Only the one that they went to, or the router before it,
        // may complain of them: any other peer could else slow down a connection between two that it sees nothing
        // of.
        let went_there = quoted.destination == packet.source
            || self
                .ends
                .is_some_and(|ends| ends.is_peers(address(quoted.destination)));
        let is_answer = went_there && self.openings.lets_in_answers(&upper);
        is_answer || Flow::opened_by(&quoted).is_some_and(|flow| self.has(&flow, now))
    }

    fn has(&self, flow: &Flow, now: Duration) -> bool {
        self.flows.is_some_and(|flows| flows.has(flow, now))
    }
}

/// Rules that are remembered after they have been replaced.
const MOST_REPLACED: usize = 8;

fn address(bytes: Address) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}
