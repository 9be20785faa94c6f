//! IPv6 paths that are narrower in the middle than at this end. Routers do not fragment IPv6, and what
//! they say of it cannot be told from a forgery: so the node tries for itself, in the manner of
//! RFC 8899. Each round of probes has an echo of full size to every peer that is reached by IPv6. Where
//! those stay out and small ones are answered, a round of all sizes finds what passes.
//!
//! ```text
//!         full size out in two rounds                 something is answered
//!  wide ──────────────────────────────▶ searched ────────────────────────────▶ narrow
//!   ▲                                      ▲ │ nothing, or all                   │
//!   └──────────────────────────────────────┼─┘        ten minutes, or out again  │
//!                                          └────────────────────────────────────┘
//! ```
//!
//! Decides nothing but what a path carries: sends nothing, sets nothing.

use keys::NodeId;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use wire::NodeName;

/// The paths to peers that are reached by IPv6, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Paths(HashMap<NodeId, (IpAddr, Path)>);

/// One path. Sizes are those of packets inside the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// Full packets pass, as far as is known.
    Wide {
        /// Rounds in a row in which only small echoes were answered.
        silent: u32,
    },
    /// The next round tries all sizes; until then the path carries what it carried before.
    Searched { before: Option<u32> },
    /// No more than `carries` passes.
    Narrow {
        carries: u32,
        silent: u32,
        since: Duration,
    },
}

/// The findings of a round of echoes to one peer.
pub(crate) struct Heard<'a> {
    /// Whether a small echo was answered: without that, large ones say nothing.
    pub(crate) small: bool,
    /// Large ones that were sent, and whether each was answered.
    pub(crate) large: &'a [(u32, bool)],
}

impl Paths {
    /// The sizes to try with the next round towards a peer at `endpoint`, full packets being `full`.
    pub(crate) fn sizes(&mut self, peer: NodeId, endpoint: IpAddr, full: u32) -> Vec<u32> {
        let new = (endpoint, Path::Wide { silent: 0 });
        let (known, path) = self.0.entry(peer).or_insert(new);
        if *known != endpoint {
            // Another way, of which nothing is known.
            (*known, *path) = new;
        }
        match path {
            Path::Wide { .. } | Path::Narrow { .. } => vec![full],
            Path::Searched { .. } => {
                let smaller = SIZES.into_iter().filter(|size| *size < full);
                smaller.chain([full]).collect()
            }
        }
    }

    /// Takes the result of a round, and says in the log what it means; whether a path carries more or less
    /// than was known from now on.
    pub(crate) fn handle_round(
        &mut self,
        peer: NodeId,
        name: &NodeName,
        heard: &Heard<'_>,
        now: Duration,
    ) -> bool {
        match self.measure(peer, heard, now) {
            None => return false,
            Some(Some(packet)) => tracing::info!(
                peer = %name,
                underlay_mtu = packet + OVERHEAD_V6,
                "the way to a peer is narrower than its first link"
            ),
            Some(None) => tracing::debug!(peer = %name, "the way to a peer is measured again"),
        }
        true
    }

    /// The same in numbers: what the path is said to carry from now on, if that is news.
    fn measure(&mut self, peer: NodeId, heard: &Heard<'_>, now: Duration) -> Option<Option<u32>> {
        let (_, path) = self.0.get_mut(&peer)?;
        let before = path.carries();
        *path = path.after(heard, now);
        let after = path.carries();
        (after != before).then_some(after)
    }

    /// Paths that carry less than full packets: where they lead, and what passes.
    pub(crate) fn narrow(&self) -> impl Iterator<Item = (IpAddr, u32)> + '_ {
        let each = self.0.values();
        each.filter_map(|(endpoint, path)| Some((*endpoint, path.carries()?)))
    }

    /// Forgets who is no peer any more.
    pub(crate) fn retain(&mut self, is_peer: impl Fn(&NodeId) -> bool) {
        self.0.retain(|peer, _| is_peer(peer));
    }
}

impl Path {
    fn carries(self) -> Option<u32> {
        match self {
            Self::Wide { .. } => None,
            Self::Searched { before } => before,
            Self::Narrow { carries, .. } => Some(carries),
        }
    }

    fn after(self, heard: &Heard<'_>, now: Duration) -> Self {
        let full = heard.large.iter().map(|(size, _)| *size).max();
        let passed = heard.large.iter().filter(|(_, answered)| *answered);
        let passed = passed.map(|(size, _)| *size).max();
        if !heard.small || full.is_none() {
            return self;
        }
        match self {
            Self::Wide { .. } if passed == full => Self::Wide { silent: 0 },
            Self::Wide { silent } if silent + 1 < PATIENCE => Self::Wide { silent: silent + 1 },
            Self::Wide { .. } => Self::Searched { before: None },
            Self::Searched { .. } => match passed {
                Some(carries) if passed != full => Self::Narrow {
                    carries,
                    silent: 0,
                    since: now,
                },
                Some(_) => Self::Wide { silent: 0 },
                // Less than IPv6 promises: it is no matter of sizes.
                None => self,
            },
            // Wider again, perhaps: for the search, full packets are tried.
            Self::Narrow { since, .. } if now.saturating_sub(since) >= RAISE => {
                Self::Searched { before: None }
            }
            Self::Narrow {
                carries,
                silent,
                since,
            } if passed == full || is_least(carries) || silent + 1 < PATIENCE => Self::Narrow {
                carries,
                silent: if passed == full { 0 } else { silent + 1 },
                since,
            },
            Self::Narrow { carries, .. } => Self::Searched {
                before: Some(carries),
            },
        }
    }
}

/// Whether there is nothing smaller to find. Of such a path a search would find nothing true: what is
/// too large for it passes in fragments.
fn is_least(carries: u32) -> bool {
    SIZES.first().is_some_and(|least| carries <= *least)
}

/// Bytes that a packet inside the tunnel gets on its way over IPv6: 40 + 8 + 16 + 16.
pub const OVERHEAD_V6: u32 = 80;
/// Rounds in a row: one echo may be lost for other reasons.
const PATIENCE: u32 = 2;
/// How long a narrow path is taken for narrow (RFC 8899, section 5.1.1: PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);
/// Sizes that are tried: multiples of 16, which WireGuard does not pad. With its 80 bytes the first is
/// the least that every IPv6 path carries (RFC 8200, section 5).
const SIZES: [u32; 18] = [
    1200, 1280, 1296, 1312, 1328, 1344, 1360, 1376, 1392, 1408, 1424, 2000, 3008, 4000, 8000, 8912,
    16_000, 32_000,
];

#[cfg(test)]
mod tests {
    use super::*;
    use keys::NodeSecret;

    const SECOND: Duration = Duration::from_secs(1);

    /// A peer behind a path that carries so much.
    struct Bench {
        paths: Paths,
        peer: NodeId,
        now: Duration,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                paths: Paths::default(),
                peer: NodeSecret::generate(&mut rand_core::OsRng).public(),
                now: Duration::ZERO,
            }
        }

        fn round(&mut self, full: u32, carries: u32, small: bool) -> Option<Option<u32>> {
            let endpoint = "2001:db8::1".parse().unwrap();
            let sizes = self.paths.sizes(self.peer, endpoint, full);
            let large: Vec<_> = sizes
                .into_iter()
                .map(|size| (size, small && size <= carries))
                .collect();
            self.now += SECOND;
            let large = &large;
            self.paths
                .measure(self.peer, &Heard { small, large }, self.now)
        }
    }

    #[test]
    fn a_narrow_path_is_found_in_three_rounds_and_stays_so() {
        let mut bench = Bench::new();
        assert_eq!(bench.round(1420, 1200, true), None);
        assert_eq!(bench.round(1420, 1200, true), None);
        assert_eq!(bench.round(1420, 1200, true), Some(Some(1200)));
        let limits: Vec<_> = bench.paths.narrow().map(|(_, carries)| carries).collect();
        assert_eq!(limits, [1200]);
        for _ in 0..20 {
            // Full packets are cut, and pass.
            assert_eq!(bench.round(1280, 1280, true), None);
        }
        // Fragments are lost, and then everything passes in fragments: the path is no wider for that.
        for carries in [0, 0, 0, 1280, 1420] {
            assert_eq!(bench.round(1280, carries, true), None);
        }
        assert_eq!(bench.paths.narrow().next().unwrap().1, 1200);
    }

    #[test]
    fn a_peer_that_is_silent_says_nothing_of_its_path() {
        let mut bench = Bench::new();
        for _ in 0..20 {
            assert_eq!(bench.round(1420, 0, false), None);
        }
        // Nor does one that answers small echoes only: IPv6 carries 1280.
        for _ in 0..20 {
            assert_eq!(bench.round(1420, 100, true), None);
        }
    }

    #[test]
    fn a_path_that_becomes_narrower_still_is_searched_with_what_it_carried_in_force() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.round(1420, 1408, true);
        }
        assert_eq!(bench.paths.narrow().next().unwrap().1, 1408);
        assert_eq!(bench.round(1408, 1300, true), None);
        assert_eq!(bench.round(1408, 1300, true), None);
        assert_eq!(bench.round(1408, 1300, true), Some(Some(1296)));
    }

    #[test]
    fn larger_packets_are_tried_again_after_ten_minutes_and_on_another_way() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.round(1420, 1200, true);
        }
        bench.now += RAISE;
        assert_eq!(bench.round(1280, 1420, true), Some(None));
        assert_eq!(bench.round(1420, 1420, true), None);
        assert_eq!(bench.paths.narrow().count(), 0);
        for _ in 0..3 {
            bench.round(1420, 1200, true);
        }
        let elsewhere = "2001:db8::2".parse().unwrap();
        assert_eq!(bench.paths.sizes(bench.peer, elsewhere, 1280), [1280]);
        assert_eq!(bench.paths.narrow().count(), 0);
    }

    #[test]
    fn one_echo_that_is_lost_narrows_nothing() {
        let mut bench = Bench::new();
        for round in 0..100 {
            let carries = if round % 2 == 0 { 100 } else { 1420 };
            assert_eq!(bench.round(1420, carries, true), None);
        }
    }
}
