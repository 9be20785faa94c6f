//! How many messages of each kind an enrolled key may send, whatever the number of its connections.

use allowance::Bucket;
use std::time::Duration;

/// The allowances that one enrolled key has left.
#[derive(Debug)]
pub(super) struct Allowance {
    buckets: [Bucket; Kind::ALL.len()],
    barred_until: Duration,
}

/// The kinds of message that an enrolled key has allowances of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Connections, each with its Hello.
    Connection,
    Evidence,
    Ack,
    Report,
    Endpoints,
    Present,
    /// The node asks for something again, or in another form.
    Again,
    /// It asks for a segment.
    Join,
    /// It offers networks behind it in one.
    Offer,
    /// It says what is wrong with it.
    Condition,
    /// It says how good its tunnels are, with each report.
    Tunnels,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Connection,
        Self::Evidence,
        Self::Ack,
        Self::Report,
        Self::Endpoints,
        Self::Present,
        Self::Again,
        Self::Join,
        Self::Offer,
        Self::Condition,
        Self::Tunnels,
    ];

    /// How many of them in ten seconds for ever, and how many at once. Each is several times what a node
    /// says in its busiest moment: a report per probe of a second, evidence once a second; and two
    /// acknowledgements per epoch, of which an operator who evicts a thousand nodes makes a thousand. What a node says
    /// of each of its segments it may say as often as there are segments.
    fn allowance(self, segments: u32) -> (u32, u32) {
        let (in_ten_seconds, at_once) = self.in_one();
        let times = if self.is_of_a_segment() { segments } else { 1 };
        (
            in_ten_seconds.saturating_mul(times),
            at_once.saturating_mul(times),
        )
    }

    fn is_of_a_segment(self) -> bool {
        match self {
            Self::Ack | Self::Report | Self::Tunnels | Self::Again | Self::Join | Self::Offer => {
                true
            }
            Self::Connection
            | Self::Evidence
            | Self::Endpoints
            | Self::Present
            | Self::Condition => false,
        }
    }

    fn in_one(self) -> (u32, u32) {
        match self {
            Self::Connection => (5, 20),
            Self::Evidence => (200, 60),
            Self::Ack => (1_000, 2_000),
            Self::Report | Self::Tunnels => (20, 20),
            Self::Endpoints => (10, 20),
            // As often as the connections allow that somebody asks.
            Self::Present => (10, 40),
            // Each may be answered with a whole roster.
            Self::Again => (2, 10),
            // With every connection, and again where the controller was busy.
            Self::Join => (6, 24),
            // Once in a session. Each may be an event.
            Self::Offer => (5, 20),
            // Once in a session, and when it changes; a benchmark may fail and succeed in turn, once a second.
            Self::Condition => (20, 20),
        }
    }

    /// The kind that a frame of this type counts as. Enrol and Hello come once per connection.
    pub(super) fn of(frame_type: u8) -> Option<Self> {
        match frame_type {
            3 => Some(Self::Evidence),
            4 => Some(Self::Ack),
            5 => Some(Self::Report),
            6 => Some(Self::Endpoints),
            7 => Some(Self::Present),
            8 | 9 => Some(Self::Again),
            10 => Some(Self::Join),
            11 => Some(Self::Offer),
            12 => Some(Self::Condition),
            13 => Some(Self::Tunnels),
            _ => None,
        }
    }
}

impl Allowance {
    pub(super) fn new(segments: u32) -> Self {
        Self {
            buckets: Kind::ALL.map(|kind| {
                let (in_ten_seconds, at_once) = kind.allowance(segments);
                Bucket::per_ten_seconds(in_ten_seconds, at_once)
            }),
            barred_until: Duration::ZERO,
        }
    }

    /// Takes one of this kind, if the key is not barred and has one left.
    pub(super) fn take(&mut self, kind: Kind, now: Duration) -> bool {
        self.barred_until <= now && self.buckets[kind as usize].take(now)
    }

    pub(super) fn bar(&mut self, now: Duration) {
        self.barred_until = now + BAR_TIME;
    }
}

/// How long a key that has used up its allowance is barred: longer would turn a node that was restarted in
/// a loop stale, shorter would not be felt.
pub(super) const BAR_TIME: Duration = Duration::from_secs(30);
