//! The flows that this host has opened to one peer. Their number is bounded for each peer and for the node: where
//! there is no room, the flow goes that was idle for the longest time of the eight that a new one could replace.

use crate::parse::{Address, ICMP, ICMPV6, Packet, Part, TCP, UDP, Upper};
use std::hash::Hasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The ends of a flow and its protocol. ICMP has its identifier in place of both ports; a protocol whose ports are
/// not known has zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    own: Address,
    other: Address,
    own_port: u16,
    other_port: u16,
    protocol: u8,
}

/// The room for flows of all peers of a node.
#[derive(Debug)]
pub struct Room {
    left: AtomicUsize,
    /// Nobody who does not know it can choose flows that replace each other.
    seed: u64,
}

/// The flows to one peer. The places are sets of eight, and each flow has its set.
#[derive(Debug)]
pub(crate) struct Flows {
    places: Vec<Option<Entry>>,
    room: Arc<Room>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    flow: Flow,
    /// Whether this host has said that it ends.
    is_closing: bool,
    /// When this host sent on it last.
    sent: Duration,
}

impl Flow {
    /// The flow of a packet that this host sends, if answers to it are to pass.
    pub(crate) fn opened_by(packet: &Packet<'_>) -> Option<Self> {
        let (Part::Whole(upper) | Part::First(upper, _)) = packet.part else {
            return None;
        };
        if let Upper::Echo {
            is_request: false, ..
        } = upper
        {
            return None;
        }
        Self::of(upper, packet.source, packet.destination, false)
    }

    /// The flow that a packet from a peer would belong to.
    pub(crate) fn answered_by(packet: &Packet<'_>, upper: Upper<'_>) -> Option<Self> {
        if let Upper::Echo {
            is_request: true, ..
        } = upper
        {
            return None;
        }
        Self::of(upper, packet.destination, packet.source, true)
    }

    fn of(upper: Upper<'_>, own: Address, other: Address, is_inbound: bool) -> Option<Self> {
        let (from, to, protocol) = match upper {
            Upper::Tcp { from, to, .. } => (from, to, TCP),
            Upper::Udp { from, to } => (from, to, UDP),
            Upper::Echo { id, .. } => (id, id, ICMP),
            Upper::Other(protocol) => (0, 0, protocol),
            Upper::IcmpError(_) | Upper::Icmp => return None,
        };
        let (own_port, other_port) = if is_inbound { (to, from) } else { (from, to) };
        Some(Self {
            own,
            other,
            own_port,
            other_port,
            protocol,
        })
    }

    /// A packet that this host would send on it, as far as rules look at one.
    pub(crate) fn sent(&self) -> Upper<'static> {
        let (from, to) = (self.own_port, self.other_port);
        match self.protocol {
            TCP => Upper::Tcp { from, to, flags: 0 },
            UDP => Upper::Udp { from, to },
            ICMP | ICMPV6 => Upper::Echo {
                id: from,
                is_request: true,
            },
            other => Upper::Other(other),
        }
    }

    /// How long it is in force after the last packet of this host.
    pub(crate) fn idle(&self) -> Duration {
        match self.protocol {
            TCP => TCP_IDLE,
            UDP => UDP_IDLE,
            ICMP | ICMPV6 => ECHO_IDLE,
            _ => OTHER_IDLE,
        }
    }

    fn hash(&self, seed: u64) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(seed);
        hasher.write(&self.own);
        hasher.write(&self.other);
        let ports = u64::from(self.own_port) << 24 | u64::from(self.other_port) << 8;
        hasher.write_u64(ports | u64::from(self.protocol));
        hasher.finish()
    }
}

impl Entry {
    fn is_over(&self, now: Duration) -> bool {
        let idle = match self.is_closing {
            true => TCP_CLOSING,
            false => self.flow.idle(),
        };
        now.saturating_sub(self.sent) >= idle
    }
}

impl Room {
    /// Room for [`MAX_FLOWS`] beside the first 32 that each peer has. `seed`: anything that peers do
    /// not know.
    pub fn new(seed: u64) -> Self {
        Self {
            left: AtomicUsize::new(MAX_FLOWS),
            seed,
        }
    }

    fn take(&self, places: usize) -> bool {
        let less = |left: usize| left.checked_sub(places);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Places that are still free.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

impl Flows {
    pub(crate) fn new(room: Arc<Room>) -> Self {
        let places = vec![None; FIRST];
        Self { places, room }
    }

    /// This host sends on a flow. `flags`: those of TCP.
    pub(crate) fn sent(&mut self, flow: Flow, flags: u8, now: Duration) {
        let ends = flags & (FIN | RST) != 0;
        let begins = flags & SYN != 0;
        loop {
            let set = self.set_of(&flow);
            let known = set.iter_mut().flatten().find(|entry| entry.flow == flow);
            if let Some(entry) = known {
                entry.is_closing = ends || entry.is_closing && !begins;
                entry.sent = now;
                return;
            }
            let is_free = |place: &&mut Option<Entry>| place.is_none_or(|entry| entry.is_over(now));
            let free = set.iter_mut().find(is_free);
            let entry = Entry {
                flow,
                is_closing: ends,
                sent: now,
            };
            if let Some(place) = free {
                *place = Some(entry);
                return;
            }
            if self.grow(now) {
                continue;
            }
            // Flows that are ending go before those that are merely quiet.
            let age =
                |place: &&mut Option<Entry>| place.map(|entry| (!entry.is_closing, entry.sent));
            if let Some(place) = self.set_of(&flow).iter_mut().min_by_key(age) {
                *place = Some(entry);
            }
            return;
        }
    }

    /// Forgets the flows of which `keeps` does not say otherwise.
    pub(crate) fn retain(&mut self, keeps: impl Fn(&Flow) -> bool) {
        for place in &mut self.places {
            if place.is_some_and(|entry| !keeps(&entry.flow)) {
                *place = None;
            }
        }
    }

    /// Whether this host has opened a flow, and used it lately.
    pub(crate) fn has(&self, flow: &Flow, now: Duration) -> bool {
        let at = self.start_of(flow);
        let set = self.places.get(at..at + WAYS).unwrap_or_default();
        let mut entries = set.iter().flatten();
        entries.any(|entry| entry.flow == *flow && !entry.is_over(now))
    }

    /// Flows that are not over.
    #[cfg(test)]
    pub(crate) fn live(&self, now: Duration) -> usize {
        let entries = self.places.iter().flatten();
        entries.filter(|entry| !entry.is_over(now)).count()
    }

    fn start_of(&self, flow: &Flow) -> usize {
        let sets = self.places.len() / WAYS;
        // The number of sets is a power of two, far below 2^32.
        let set = flow.hash(self.room.seed) as usize & (sets.max(1) - 1);
        set * WAYS
    }

    fn set_of(&mut self, flow: &Flow) -> &mut [Option<Entry>] {
        let at = self.start_of(flow);
        self.places.get_mut(at..at + WAYS).unwrap_or_default()
    }

    /// Twice the places, where both limits allow it.
    fn grow(&mut self, now: Duration) -> bool {
        let len = self.places.len();
        if len * 2 > MAX_FLOWS_PER_PEER || !self.room.take(len) {
            return false;
        }
        let before = std::mem::replace(&mut self.places, vec![None; len * 2]);
        for entry in before.into_iter().flatten().filter(|it| !it.is_over(now)) {
            // The eight of a set come into two sets of eight: all find a place.
            let set = self.set_of(&entry.flow);
            if let Some(place) = set.iter_mut().find(|place| place.is_none()) {
                *place = Some(entry);
            }
        }
        true
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        let taken = self.places.len().saturating_sub(FIRST);
        self.room.left.fetch_add(taken, Ordering::Relaxed);
    }
}

/// Most flows that are remembered of one peer, 48 bytes each.
pub const MAX_FLOWS_PER_PEER: usize = 16_384;
/// Most flows that are remembered of all peers, without the first 32 of each: 12 MiB.
pub const MAX_FLOWS: usize = 262_144;
/// The places that each peer has to which this host has sent anything: 1.5 KiB.
const FIRST: usize = 32;
/// The places that a flow may have.
const WAYS: usize = 8;

/// RFC 5382, section 5: 2 hours 4 minutes, and 4 minutes once it ends.
pub(crate) const TCP_IDLE: Duration = Duration::from_secs(7_440);
const TCP_CLOSING: Duration = Duration::from_secs(240);
/// RFC 4787, section 4.3.
const UDP_IDLE: Duration = Duration::from_secs(300);
/// RFC 5508, section 3.2.
const ECHO_IDLE: Duration = Duration::from_secs(60);
const OTHER_IDLE: Duration = Duration::from_secs(600);

/// RFC 9293, section 3.1.
const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;
