//! Why a packet was not carried. A dropped packet is no error: it is counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a packet was not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Neither IP inside nor WireGuard outside.
    Malformed,
    /// No peer has the destination among its allowed IPs.
    NoRoute,
    /// Nobody knows where the peer is.
    NoEndpoint,
    /// No live session, and the queue for one is full or was given up.
    NoSession,
    /// The initiation's index names no generation of ours, and a stock peer's allowance is used up.
    NoGeneration,
    /// The datagram comes from an address inside the mesh: through a tunnel.
    EndpointInsideMesh,
    /// The inner source address is not among the peer's allowed IPs.
    SourceNotAllowed,
    /// The inner destination is no address of this node inside the mesh.
    DestinationNotAllowed,
    /// The receiver index is not ours, or no longer.
    UnknownIndex,
    /// The initiation is by a key that is no peer.
    UnknownPeer,
    /// MAC1 does not fit: not meant for us.
    BadMac,
    /// The handshake message does not open: wrong PSK, or forged.
    BadHandshake,
    /// The data does not open: forged or damaged.
    BadAead,
    /// The counter or the timestamp was seen before.
    Replayed,
    /// Over what the buffers hold.
    TooLarge,
    /// Too many handshakes per second; a cookie was asked for.
    UnderLoad,
    /// The lease of the epoch in force is over, and its segment fails closed.
    LeaseOver,
    /// No rule of the segment allows it, and it answers nothing that this host has sent.
    NoRule,
    /// A later fragment whose first fragment the rules did not let in.
    StrayFragment,
    /// An ICMP error about nothing that this host has sent.
    StrayIcmpError,
    /// The segment has rules, and the packet cannot be read so far that they could be asked.
    Unreadable,
}

impl DropReason {
    /// All reasons, in the order of [`Drops::iter`].
    pub const ALL: [Self; 21] = [
        Self::Malformed,
        Self::NoRoute,
        Self::NoEndpoint,
        Self::NoSession,
        Self::NoGeneration,
        Self::EndpointInsideMesh,
        Self::SourceNotAllowed,
        Self::DestinationNotAllowed,
        Self::UnknownIndex,
        Self::UnknownPeer,
        Self::BadMac,
        Self::BadHandshake,
        Self::BadAead,
        Self::Replayed,
        Self::TooLarge,
        Self::UnderLoad,
        Self::LeaseOver,
        Self::NoRule,
        Self::StrayFragment,
        Self::StrayIcmpError,
        Self::Unreadable,
    ];

    /// Whether it says of a packet from this host that nobody can be reached at its destination, and that
    /// waiting would not help.
    pub(crate) fn is_unreachable(self) -> bool {
        match self {
            Self::NoRoute | Self::NoEndpoint | Self::LeaseOver => true,
            Self::Malformed
            | Self::NoSession
            | Self::NoGeneration
            | Self::EndpointInsideMesh
            | Self::SourceNotAllowed
            | Self::DestinationNotAllowed
            | Self::UnknownIndex
            | Self::UnknownPeer
            | Self::BadMac
            | Self::BadHandshake
            | Self::BadAead
            | Self::Replayed
            | Self::TooLarge
            | Self::UnderLoad
            | Self::NoRule
            | Self::StrayFragment
            | Self::StrayIcmpError
            | Self::Unreadable => false,
        }
    }

    /// The reason as status and metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoRoute => "no_route",
            Self::NoEndpoint => "no_endpoint",
            Self::NoSession => "no_session",
            Self::NoGeneration => "no_generation",
            Self::EndpointInsideMesh => "endpoint_inside_mesh",
            Self::SourceNotAllowed => "source_not_allowed",
            Self::DestinationNotAllowed => "destination_not_allowed",
            Self::UnknownIndex => "unknown_index",
            Self::UnknownPeer => "unknown_peer",
            Self::BadMac => "bad_mac",
            Self::BadHandshake => "bad_handshake",
            Self::BadAead => "bad_aead",
            Self::Replayed => "replayed",
            Self::TooLarge => "too_large",
            Self::UnderLoad => "under_load",
            Self::LeaseOver => "lease_over",
            Self::NoRule => "no_rule",
            Self::StrayFragment => "stray_fragment",
            Self::StrayIcmpError => "stray_icmp_error",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Dropped packets by reason, since start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    /// Packets dropped for `reason`.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// Adds what was dropped elsewhere.
    pub fn add(&mut self, others: &Self) {
        for (count, other) in self.0.iter_mut().zip(others.0) {
            *count += other;
        }
    }

    /// Every reason with its count, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .iter()
            .map(|reason| (*reason, self.get(*reason)))
    }
}

/// The counters behind [`Drops`]: any thread counts.
#[derive(Default)]
pub(crate) struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl DropCounters {
    pub(crate) fn add(&self, reason: DropReason, packets: u64) {
        if let Some(count) = self.0.get(reason as usize) {
            count.fetch_add(packets, Ordering::Relaxed);
        }
    }

    pub(crate) fn add_all(&self, drops: &Drops) {
        drops
            .iter()
            .for_each(|(reason, packets)| self.add(reason, packets));
    }

    pub(crate) fn read(&self) -> Drops {
        Drops(std::array::from_fn(|reason| {
            let count = self.0.get(reason);
            count.map_or(0, |count| count.load(Ordering::Relaxed))
        }))
    }
}
