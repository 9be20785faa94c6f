//! The size of a packet that each path carries. A link in the middle may be narrower than both ends, and
//! what routers say of it is filtered on the way or forged: so the node tries for itself, in the manner of
//! RFC 8899. With each round of probes, every peer is sent an echo of the size that its path is held to
//! carry, in a datagram that nobody may fragment. Where it stays out while a small one is answered, rounds
//! of all sizes follow at once, and find what passes.
//!
//! ```text
//!        full size passes
//! tried ─────────────────▶ known ──────────┐
//!   │ out                   │ ▲            │ out; or narrow, and ten minutes are over
//!   ▼                       │ │ a size     ▼
//! searched ◀────────────────┴─┴─────── searched
//!   │ ▲
//!   ▼ │ something passes
//! silent: small echoes are answered, and no larger one
//! ```
//!
//! Each path is for itself: a peer that keeps echoes back narrows the way to itself, and no other. Decides
//! nothing but what a path carries: sends nothing, sets nothing.
//!
//! The file is long because the search and its tests, one for each kind of path, belong together.

use keys::NodeId;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use wire::NodeName;

/// The paths to peers, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Paths(HashMap<NodeId, Way>);

/// A path, where it leads outside, and what the log said of it last: the limit, if it was narrow.
#[derive(Debug)]
struct Way {
    endpoint: IpAddr,
    path: Path,
    told: Option<u32>,
}

/// The path to one peer, and what packets to it are held to. Sizes are those of packets inside the tunnel,
/// in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathLimit {
    /// Where the path leads, outside.
    pub endpoint: IpAddr,
    /// The peer's address in the mesh.
    pub v4: Ipv4Addr,
    /// The same.
    pub v6: Ipv6Addr,
    /// The largest packet that an echo has shown to pass; `None` while none has.
    pub proven: Option<u32>,
    /// Whether larger ones were shown not to.
    pub is_narrow: bool,
    /// The largest packet that should be sent.
    pub limit: u32,
}

/// One path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// The next round tries full size.
    Tried { before: Option<u32> },
    /// Packets of this size pass; full ones had `full` when that was found, by a search that ended then.
    Known {
        carries: u32,
        full: u32,
        searched: Option<Duration>,
    },
    /// The next round tries all sizes; until that is over, the path is held to carry what it did before.
    Searched {
        before: Option<u32>,
        best: Option<u32>,
        rounds: u32,
        /// Rounds in which everything up to `best` was answered: those that say something of larger sizes.
        clean: u32,
    },
    /// Nothing but small echoes is answered.
    Silent { since: Duration },
}

/// The sizes to try with the next round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) sizes: Vec<u32>,
    /// Which round of a search this is, from 1; 0: none.
    pub(crate) search: u32,
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
    pub(crate) fn sizes(&mut self, peer: NodeId, endpoint: IpAddr, full: u32) -> Sizes {
        let new = Path::Tried { before: None };
        let way = self.0.entry(peer).or_insert(Way {
            endpoint,
            path: new,
            told: None,
        });
        if way.endpoint != endpoint {
            // Another way, of which nothing is known.
            (way.endpoint, way.path) = (endpoint, new);
        }
        if let Path::Known {
            carries,
            full: then,
            ..
        } = way.path
            && carries >= then
            && full > then
        {
            // Full packets have become larger.
            way.path = Path::Tried {
                before: Some(carries).filter(|_| full > COMMON),
            };
        }
        way.path.sizes(full)
    }

    /// Takes the result of a round, and says in the log what it means; whether packets to the peer are
    /// held to another size from now on. `full` is the size of full packets.
    pub(crate) fn handle_round(
        &mut self,
        peer: NodeId,
        name: &NodeName,
        heard: &Heard<'_>,
        full: u32,
        now: Duration,
    ) -> bool {
        let Some(way) = self.0.get_mut(&peer) else {
            return false;
        };
        let before = way.path;
        let path = before.after(heard, now);
        way.path = path;
        let (was, is) = (before.limit(full), path.limit(full));
        let path_mtu = path.proven().map(|packet| packet + overhead(way.endpoint));
        if path.is_narrow() && way.told != Some(is) {
            way.told = Some(is);
            tracing::info!(peer = %name, path_mtu, mtu = is, "the path to a peer is narrow: packets to it are held to what passes");
        } else if path.is_wide() && way.told.take().is_some() {
            tracing::info!(peer = %name, path_mtu, mtu = is, "the path to a peer carries full packets again");
        }
        was != is || before.proven() != path.proven()
    }

    /// The path to a peer at these addresses inside the mesh; `None` while nobody tries it.
    pub(crate) fn limit(
        &self,
        peer: &NodeId,
        (v4, v6): (Ipv4Addr, Ipv6Addr),
        full: u32,
    ) -> Option<PathLimit> {
        let Way { endpoint, path, .. } = self.0.get(peer)?;
        Some(PathLimit {
            endpoint: *endpoint,
            v4,
            v6,
            proven: path.proven().map(|packet| packet.min(full)),
            is_narrow: path.is_narrow(),
            limit: path.limit(full),
        })
    }

    /// Forgets who is no peer any more.
    pub(crate) fn retain(&mut self, is_peer: impl Fn(&NodeId) -> bool) {
        self.0.retain(|peer, _| is_peer(peer));
    }
}

impl Path {
    fn sizes(self, full: u32) -> Sizes {
        let (sizes, search) = match self {
            Self::Tried { .. } => (vec![full], 0),
            Self::Known { carries, .. } => (vec![carries.min(full)], 0),
            Self::Searched { rounds, .. } => {
                let smaller = SIZES.into_iter().filter(|size| *size < full);
                (smaller.chain([full]).collect(), rounds + 1)
            }
            Self::Silent { .. } => (vec![LEAST], 0),
        };
        Sizes { sizes, search }
    }

    fn proven(self) -> Option<u32> {
        match self {
            Self::Known { carries, .. } => Some(carries),
            Self::Tried { before } | Self::Searched { before, .. } => before,
            Self::Silent { .. } => None,
        }
    }

    fn is_narrow(self) -> bool {
        match self {
            Self::Known { carries, full, .. } => carries < full,
            Self::Silent { .. } => true,
            Self::Tried { .. } | Self::Searched { .. } => false,
        }
    }

    fn is_wide(self) -> bool {
        matches!(self, Self::Known { .. }) && !self.is_narrow()
    }

    /// The largest packet that should be sent, where full ones have `full`.
    fn limit(self, full: u32) -> u32 {
        match self {
            Self::Known { carries, .. } => whole(carries, full),
            Self::Tried { before: Some(size) }
            | Self::Searched {
                before: Some(size), ..
            } => whole(size, full),
            // More than nearly every path carries is believed when it was seen.
            Self::Tried { before: None } if full > COMMON => PRESUMED,
            Self::Tried { before: None } => full,
            Self::Searched {
                before: None, best, ..
            } => whole(best.unwrap_or(BASE).max(BASE), full),
            Self::Silent { .. } => BASE.min(full),
        }
    }

    fn after(self, heard: &Heard<'_>, now: Duration) -> Self {
        let asked = heard.large.iter().map(|(size, _)| *size).max();
        let passed = heard.large.iter().filter(|(_, answered)| *answered);
        let passed = passed.map(|(size, _)| *size).max();
        let Some(asked) = asked.filter(|_| heard.small) else {
            return self;
        };
        let search = |before| Self::Searched {
            before,
            best: None,
            rounds: 0,
            clean: 0,
        };
        match self {
            Self::Tried { .. } if passed == Some(asked) => Self::Known {
                carries: asked,
                full: asked,
                searched: None,
            },
            Self::Tried { before } => search(before),
            Self::Known {
                carries,
                full,
                searched,
            } => {
                let is_past = |time| searched.is_none_or(|at| now.saturating_sub(at) >= time);
                let is_out = passed != Some(asked) && is_past(PAUSE);
                let may_be_wider = carries < full && is_past(RAISE);
                if is_out || may_be_wider {
                    search(Some(carries))
                } else {
                    self
                }
            }
            Self::Searched {
                before,
                best: found,
                rounds,
                clean,
            } => {
                let best = found.max(passed);
                if best == Some(asked) {
                    return Self::Known {
                        carries: asked,
                        full: asked,
                        searched: Some(now),
                    };
                }
                // On a path that loses packets of any size, a large one that stays out says nothing: only
                // a round counts in which all that should pass did.
                let is_clean = heard
                    .large
                    .iter()
                    .all(|(size, answered)| *answered || Some(*size) > best);
                let clean = u32::from(is_clean) + if best == found { clean } else { 0 };
                let rounds = rounds + 1;
                if clean < CLEAN && rounds < MOST {
                    return Self::Searched {
                        before,
                        best,
                        rounds,
                        clean,
                    };
                }
                match best {
                    Some(carries) => Self::Known {
                        carries,
                        full: asked,
                        searched: Some(now),
                    },
                    None => Self::Silent { since: now },
                }
            }
            Self::Silent { since } if passed.is_some() && now.saturating_sub(since) >= PAUSE => {
                search(None)
            }
            Self::Silent { .. } => self,
        }
    }
}

/// A size that is proven, as a limit: WireGuard pads what is not full to a multiple of 16.
fn whole(size: u32, full: u32) -> u32 {
    if size >= full { full } else { size - size % 16 }
}

/// Bytes that a packet inside the tunnel gets on its way to `endpoint`.
pub fn overhead(endpoint: IpAddr) -> u32 {
    if endpoint.to_canonical().is_ipv4() {
        OVERHEAD_V4
    } else {
        OVERHEAD_V6
    }
}

/// Over IPv4: 20 + 8 + 16 + 16.
pub const OVERHEAD_V4: u32 = 60;
/// Over IPv6: 40 + 8 + 16 + 16.
pub const OVERHEAD_V6: u32 = 80;
/// The size that is taken where nothing larger is proven (RFC 8899, section 5.1.2: BASE_PLPMTU), and the
/// least that IPv6 inside the tunnel needs (RFC 8200, section 5).
const BASE: u32 = 1280;
/// A full packet over a link of 1500 bytes.
const COMMON: u32 = 1500 - OVERHEAD_V4;
/// Fits a link of 1500 bytes on either family, padded.
const PRESUMED: u32 = 1408;
/// How often a size has to stay out before the path is taken for too narrow (RFC 8899, section 5.1.2:
/// MAX_PROBES).
const CLEAN: u32 = 3;
/// Rounds of a search at most: with half of all echoes lost, a size that passes stays out so often once in
/// 65,000 searches.
const MOST: u32 = 16;
/// How long after a search the next may begin: one is some tens of packets. Within a minute, together with
/// a usual round of probes and the search itself.
const PAUSE: Duration = Duration::from_secs(20);
/// How long a narrow path is taken for narrow (RFC 8899, section 5.1.1: PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);
/// The smallest size that is tried.
const LEAST: u32 = 512;
/// Sizes that are tried: multiples of 16, which WireGuard does not pad. 1200 with its 80 bytes is the least
/// that every IPv6 path carries (RFC 8200, section 5).
const SIZES: [u32; 25] = [
    LEAST, 768, 1008, 1104, 1200, 1216, 1280, 1296, 1312, 1328, 1344, 1360, 1376, 1392, 1408, 1424,
    1440, 2000, 3008, 4000, 8000, 8912, 8928, 16_000, 32_000,
];

#[cfg(test)]
mod tests {
    use super::*;
    use keys::NodeSecret;

    /// A peer behind a path that carries so much, and loses what `loses` says.
    struct Bench {
        paths: Paths,
        peer: NodeId,
        now: Duration,
        /// Rounds so far, and the seed of what is lost.
        rounds: u32,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                paths: Paths::default(),
                peer: NodeSecret::generate(&mut rand_core::OsRng).public(),
                now: Duration::ZERO,
                rounds: 0,
            }
        }

        /// A round of probes as the node makes them: searches go on at once. What packets are held to.
        fn probe(&mut self, full: u32, answers: &mut dyn FnMut(u32) -> bool) -> u32 {
            self.now += EVERY;
            for _ in 0..=MOST {
                let asked = self.paths.sizes(self.peer, endpoint(), full);
                self.rounds += 1;
                let small = answers(40);
                let each = asked.sizes.into_iter();
                let large: Vec<_> = each.map(|size| (size, answers(size))).collect();
                let heard = Heard {
                    small,
                    large: &large,
                };
                let name = "node-b".parse().unwrap();
                self.now += Duration::from_secs(1);
                let now = self.now;
                self.paths.handle_round(self.peer, &name, &heard, full, now);
                if self.paths.sizes(self.peer, endpoint(), full).search == 0 {
                    break;
                }
            }
            self.limit(full).limit
        }

        /// The same with a path that carries so much.
        fn over(&mut self, full: u32, carries: u32) -> u32 {
            self.probe(full, &mut |size| size <= carries)
        }

        fn limit(&self, full: u32) -> PathLimit {
            let inside = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
            self.paths.limit(&self.peer, inside, full).unwrap()
        }
    }

    fn endpoint() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    #[test]
    fn jumbo_frames_are_used_when_they_are_proven_and_not_before() {
        let mut bench = Bench::new();
        bench.paths.sizes(bench.peer, endpoint(), 8940);
        assert_eq!(bench.limit(8940).limit, PRESUMED);
        assert_eq!(bench.over(8940, 1440), 1440, "1500 in the middle");
        assert_eq!(bench.limit(8940).proven, Some(1440));
        let mut wide = Bench::new();
        assert_eq!(wide.over(8940, 8940), 8940);
        assert!(!wide.limit(8940).is_narrow);
        // A usual link is believed at once, so that nothing is narrowed while nothing is wrong.
        let mut usual = Bench::new();
        usual.paths.sizes(usual.peer, endpoint(), 1440);
        assert_eq!(usual.limit(1440).limit, 1440);
    }

    #[test]
    fn a_path_that_narrows_is_followed_within_a_minute_and_back_after_ten() {
        let mut bench = Bench::new();
        assert_eq!(bench.over(1440, 1440), 1440);
        let began = bench.now;
        while bench.over(1440, 1340) == 1440 {}
        assert!(bench.now - began < Duration::from_secs(60));
        assert_eq!(
            bench.limit(1440).limit,
            1328,
            "the largest size that passes"
        );
        let began = bench.now;
        while bench.over(1440, 1440) != 1440 {
            assert!(bench.now - began < Duration::from_secs(660));
        }
        assert!(bench.now - began > Duration::from_secs(500));
    }

    #[test]
    fn a_path_that_carries_less_than_ipv6_needs_inside_is_held_to_that() {
        let mut bench = Bench::new();
        assert_eq!(bench.over(1440, 1140), 1104);
        assert_eq!(bench.limit(1440).proven, Some(1104));
        assert!(bench.limit(1440).is_narrow);
    }

    #[test]
    fn a_path_that_loses_every_second_echo_is_no_narrower_for_that() {
        for seed in 1..=20u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut lossy = |_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random >> 63 == 0
            };
            let mut bench = Bench::new();
            for _ in 0..30 {
                assert_eq!(bench.probe(1440, &mut lossy), 1440, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_peer_that_answers_small_echoes_only_is_left_the_least_and_asked_rarely() {
        let mut bench = Bench::new();
        let mut firewalled = |size| size < 100;
        assert_eq!(bench.probe(1440, &mut firewalled), BASE);
        assert_eq!(bench.limit(1440).proven, None);
        let before = bench.rounds;
        for _ in 0..100 {
            assert_eq!(bench.probe(1440, &mut firewalled), BASE);
        }
        assert_eq!(bench.rounds - before, 100, "no search goes on for ever");
        // It lets them in.
        while bench.over(1440, 1440) != 1440 {}
    }

    #[test]
    fn a_peer_that_takes_every_other_search_for_a_fool_is_asked_no_oftener_than_agreed() {
        let mut bench = Bench::new();
        let mut answered = 0u32;
        for _ in 0..100 {
            bench.probe(1440, &mut |size| {
                answered += 1;
                size < 100 || (!answered.is_multiple_of(14) && size <= 1280)
            });
        }
        let searches = 100 * (EVERY.as_secs() as u32 + MOST) / PAUSE.as_secs() as u32;
        assert!(bench.rounds < 100 + searches * MOST, "{}", bench.rounds);
    }

    #[test]
    fn a_peer_that_is_silent_says_nothing_of_its_path() {
        let mut bench = Bench::new();
        assert_eq!(bench.over(1440, 1408), 1408);
        for _ in 0..20 {
            assert_eq!(bench.probe(1440, &mut |_| false), 1408);
        }
    }

    #[test]
    fn another_way_and_another_interface_are_tried_anew() {
        let mut bench = Bench::new();
        assert_eq!(bench.over(1420, 1420), 1420);
        // The interface has become wider: the path is held to what is proven until more is.
        bench.paths.sizes(bench.peer, endpoint(), 8940);
        assert_eq!(bench.limit(8940).limit, 1408);
        assert_eq!(bench.over(8940, 8940), 8940);
        let elsewhere = "2001:db8::2".parse().unwrap();
        let asked = bench.paths.sizes(bench.peer, elsewhere, 8940);
        assert_eq!((asked.sizes, asked.search), (vec![8940], 0));
        assert_eq!(bench.limit(8940).proven, None);
    }

    /// Between two rounds of probes, as it is if nobody says otherwise.
    const EVERY: Duration = Duration::from_secs(10);
}
