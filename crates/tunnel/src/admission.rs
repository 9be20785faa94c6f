//! Which handshake messages are worth an X25519.
//!
//! MAC1 is no hurdle: it takes the public key alone, which every node that ever was a member knows.
//! Three things about a source can be told before any key is asked, and each has an allowance that the
//! others cannot use up: whether a current peer is expected at exactly this address and port, whether
//! a cookie has proven that the sender is there, and which network it is in. Beyond its allowance an
//! initiation is answered with a cookie; one that returns the cookie is dropped only if what shares its
//! proof has had too much.
//!
//! ```text
//!                       │ no cookie                     │ cookie returned (address and port are true)
//!  a peer's endpoint    │ of each endpoint, in all      │ of each endpoint, in all
//!  elsewhere            │ of each network, in all       │ of each endpoint and network, in all
//!  beyond               │ cookie reply                  │ dropped
//! ```
//!
//! A sender in a peer's name therefore costs that peer a round trip, and one under addresses of its own
//! costs no peer anything. A peer's endpoint always has its cookie reply. Elsewhere the
//! replies themselves are bounded: to addresses of the node's own link at which nobody is, some hundreds
//! a second fill the system's table of neighbours, and then it finds its peers no more.

use crate::cookie::Cookies;
use crate::drops::DropReason;
use crate::limits::*;
use crate::path::Path;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

/// Why a handshake message goes no further, and the cookie reply to answer with.
pub(crate) type Refusal = (DropReason, Option<Vec<u8>>);

pub(crate) struct Admission {
    /// When the second began that the pools count.
    since: Duration,
    peers: Pool<Path>,
    proven_peers: Pool<Path>,
    strangers: Pool<IpAddr>,
    proven_strangers: Pool<Path>,
    /// Networks of proven strangers.
    proven_networks: Pool<IpAddr>,
    /// Networks of strangers that were asked for a cookie.
    replies: Pool<IpAddr>,
}

/// How many handshakes may pass within a second: in all, and of each source.
struct Pool<K> {
    total: u32,
    share: u32,
    passed: u32,
    /// Has an entry only for what has passed: never more than `total`.
    of: HashMap<K, u32>,
}

impl Admission {
    pub(crate) fn new(per_second: u64) -> Self {
        let all = u32::try_from(per_second).map_or(MOST_PER_SECOND, |all| all.min(MOST_PER_SECOND));
        let strangers = (all / STRANGERS_PART).max(1);
        let proven_strangers = (all / PROVEN_STRANGERS_PART).max(1);
        let of_network = |total: u32| (total / NETWORKS_AT_FULL_RATE).max(1);
        Self {
            since: Duration::ZERO,
            peers: Pool::new(all, INITIATIONS_PER_ENDPOINT),
            proven_peers: Pool::new(all.saturating_mul(2), PROVEN_PER_ENDPOINT),
            strangers: Pool::new(strangers, of_network(strangers)),
            proven_strangers: Pool::new(proven_strangers, PROVEN_PER_ENDPOINT),
            proven_networks: Pool::new(proven_strangers, of_network(proven_strangers)),
            replies: Pool::new(STRANGERS_REPLIES, REPLIES_PER_LINK),
        }
    }

    /// Judges an initiation that is addressed to the key of `cookies`; `is_peer`: a current peer is expected at
    /// exactly this address and port.
    pub(crate) fn initiation(
        &mut self,
        cookies: &mut Cookies,
        from: Path,
        datagram: &[u8],
        is_peer: bool,
        now: Duration,
    ) -> Result<(), Refusal> {
        self.renew(now);
        if cookies.is_proven(from, datagram, now) {
            return self.take_proven(from, is_peer);
        }
        let passes = if is_peer {
            self.peers.take(from)
        } else {
            self.strangers.take(from.network())
        };
        if passes {
            Ok(())
        } else {
            Err(self.ask_for_cookie(cookies, from, datagram, is_peer, now))
        }
    }

    /// Judges a response to an initiation of ours that is under way; `is_within`: this peer may still
    /// send one without a cookie.
    pub(crate) fn response(
        &mut self,
        cookies: &mut Cookies,
        from: Path,
        datagram: &[u8],
        (is_peer, is_within): (bool, bool),
        now: Duration,
    ) -> Result<(), Refusal> {
        // First, and before anything is counted: a message for another key must not use up what senders
        // to this one share.
        if !cookies.is_addressed(datagram) {
            return Err((DropReason::BadMac, None));
        }
        if is_within {
            return Ok(());
        }
        self.renew(now);
        if cookies.is_proven(from, datagram, now) {
            self.take_proven(from, is_peer)
        } else {
            Err(self.ask_for_cookie(cookies, from, datagram, is_peer, now))
        }
    }

    fn take_proven(&mut self, from: Path, is_peer: bool) -> Result<(), Refusal> {
        let passes = if is_peer {
            self.proven_peers.take(from)
        } else {
            // Neither counts what the other refuses: one network would else use up what all have.
            let network = from.network();
            let fits = self.proven_strangers.has(&from) && self.proven_networks.has(&network);
            fits && self.proven_strangers.take(from) && self.proven_networks.take(network)
        };
        if passes {
            Ok(())
        } else {
            Err((DropReason::UnderLoad, None))
        }
    }

    fn ask_for_cookie(
        &mut self,
        cookies: &mut Cookies,
        from: Path,
        datagram: &[u8],
        is_peer: bool,
        now: Duration,
    ) -> Refusal {
        // A peer always gets its cookie: without one, a flood in its name would keep it out for good.
        // Strangers may go without, since replies to places where nobody is harm the node's own link.
        if !is_peer && !self.replies.take(from.link()) {
            return (DropReason::UnderLoad, None);
        }
        (DropReason::UnderLoad, cookies.reply(from, datagram, now))
    }

    /// Begins the next second.
    fn renew(&mut self, now: Duration) {
        if now.saturating_sub(self.since) < PERIOD {
            return;
        }
        self.since = now;
        self.peers.clear();
        self.proven_peers.clear();
        self.strangers.clear();
        self.proven_strangers.clear();
        self.proven_networks.clear();
        self.replies.clear();
    }
}

impl<K: Eq + Hash> Pool<K> {
    fn new(total: u32, share: u32) -> Self {
        Self {
            total,
            share,
            passed: 0,
            of: HashMap::new(),
        }
    }

    /// Whether one more may pass.
    fn has(&self, source: &K) -> bool {
        let passed = self.of.get(source).copied().unwrap_or(0);
        self.passed < self.total && passed < self.share
    }

    fn take(&mut self, source: K) -> bool {
        let has = self.has(&source);
        if has {
            *self.of.entry(source).or_default() += 1;
            self.passed += 1;
        }
        has
    }

    fn clear(&mut self) {
        self.passed = 0;
        self.of.clear();
    }
}

const PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cookie;
    use boringtun::noise::{Tunn, TunnResult};
    use keys::WgSecret;
    use rand_core::OsRng;
    use x25519_dalek::{PublicKey, StaticSecret};

    /// How many handshakes one side admits in a second, and a message that somebody made for it.
    struct Gate {
        admission: Admission,
        cookies: Cookies,
        own: WgSecret,
        initiation: Vec<u8>,
        now: Duration,
    }

    impl Gate {
        fn new(per_second: u64) -> Self {
            let own = WgSecret::generate(&mut OsRng);
            let theirs = StaticSecret::random_from_rng(OsRng);
            let mut tunn = Tunn::new(theirs, PublicKey::from(own.public().0), None, None, 1, None);
            let mut buffer = [0; 148];
            let TunnResult::WriteToNetwork(initiation) =
                tunn.format_handshake_initiation(&mut buffer, true)
            else {
                panic!("an initiation");
            };
            Self {
                admission: Admission::new(per_second),
                cookies: Cookies::new(&own, 1),
                initiation: initiation.to_vec(),
                own,
                now: Duration::from_secs(1_000),
            }
        }

        /// Sends it as it is; the cookie that it is answered with, if it is not admitted.
        fn plain(&mut self, from: Path, is_peer: bool) -> Result<(), Option<cookie::Cookie>> {
            let message = self.initiation.clone();
            self.admission
                .initiation(&mut self.cookies, from, &message, is_peer, self.now)
                .map_err(|(reason, reply)| {
                    assert_eq!(reason, DropReason::UnderLoad);
                    assert!(reply.is_some() || !is_peer, "a peer always has an answer");
                    let reply = reply?;
                    let cookie = cookie::open_reply(&self.own.public(), &reply, &message);
                    Some(cookie.expect("it is for this message"))
                })
        }

        /// Sends it with the cookie of `owner`.
        fn proven(&mut self, from: Path, owner: Path, is_peer: bool) -> bool {
            let reply = self
                .admission
                .ask_for_cookie(&mut self.cookies, owner, &self.initiation, true, self.now)
                .1
                .expect("an answer");
            let cookie = cookie::open_reply(&self.own.public(), &reply, &self.initiation).unwrap();
            let mut message = self.initiation.clone();
            cookie::prove(&cookie, &mut message);
            self.admission
                .initiation(&mut self.cookies, from, &message, is_peer, self.now)
                .is_ok()
        }
    }

    fn v6(subnet: u16, host: u64, port: u16) -> Path {
        let ip = (0x2001_0db8 << 96 | u128::from(subnet) << 64 | u128::from(host)).to_be_bytes();
        Path::Udp((ip, port).into())
    }

    fn v4(number: u32) -> Path {
        Path::Udp((number.to_be_bytes(), 51_820).into())
    }

    #[test]
    fn nobody_takes_from_what_another_endpoint_of_a_peer_has() {
        let mut gate = Gate::new(1_000);
        let (peer, other) = (v6(1, 1, 51_820), v6(1, 2, 51_820));
        for host in 0..3_000 {
            let _ = gate.plain(v6(1, 1_000 + host, 1), false);
            let _ = gate.plain(v4(host as u32), false);
        }
        // From its address and another port; from another peer's endpoint.
        for port in 1..1_000 {
            let _ = gate.plain(v6(1, 1, port), false);
            let _ = gate.plain(other, true);
        }
        for _ in 0..INITIATIONS_PER_ENDPOINT {
            assert!(gate.plain(peer, true).is_ok());
        }
        assert!(gate.plain(peer, true).is_err());
        gate.now += PERIOD;
        assert!(
            gate.plain(peer, true).is_ok(),
            "the next second is a new one"
        );
    }

    #[test]
    fn a_peer_in_whose_name_others_send_is_admitted_with_its_cookie() {
        let mut gate = Gate::new(1_000);
        // In the name of more peers than all of them may have opened without one.
        let endpoints: Vec<_> = (0..200).map(|host| v6(1, host, 51_820)).collect();
        for _ in 0..20 {
            for endpoint in &endpoints {
                let _ = gate.plain(*endpoint, true);
            }
        }
        for endpoint in &endpoints {
            assert!(gate.plain(*endpoint, true).is_err());
            assert!(gate.proven(*endpoint, *endpoint, true));
        }
        // Another's cookie is none.
        while gate.plain(v6(1, 0, 1), false).is_ok() {}
        assert!(!gate.proven(endpoints[0], endpoints[1], true));
        assert!(!gate.proven(v6(1, 0, 51_821), endpoints[0], false));
    }

    #[test]
    fn who_proves_many_addresses_of_one_network_leaves_peers_and_other_networks_theirs() {
        let mut gate = Gate::new(1_000);
        let admitted = (0..2_000)
            .map(|host| v6(1, host / 20, (host % 20) as u16 + 1))
            .filter(|from| gate.proven(*from, *from, false))
            .count();
        assert_eq!(admitted, 50, "a tenth of what strangers have");
        let peer = v6(1, 1, 51_820);
        assert!(gate.proven(peer, peer, true));
        let stranger = v6(2, 1, 1);
        assert!(gate.proven(stranger, stranger, false));
        assert!(gate.plain(stranger, false).is_ok());
    }

    #[test]
    fn a_proven_address_is_dropped_only_beyond_its_own_allowance() {
        let mut gate = Gate::new(1_000);
        let (peer, stranger) = (v4(1), v4(2));
        for (from, is_peer) in [(peer, true), (stranger, false)] {
            let admitted = (0..100).filter(|_| gate.proven(from, from, is_peer));
            assert_eq!(admitted.count(), PROVEN_PER_ENDPOINT as usize);
        }
    }

    #[test]
    fn all_together_open_no_more_than_is_said_and_what_is_remembered_is_bounded() {
        let mut gate = Gate::new(1_000);
        let mut admitted = 0;
        for number in 0..5_000 {
            let (peer, stranger) = (v4(number), v4(1 << 24 | number));
            admitted += u32::from(gate.plain(peer, true).is_ok());
            admitted += u32::from(gate.plain(stranger, false).is_ok());
            if number < 2_100 {
                admitted += u32::from(gate.proven(peer, peer, true));
                admitted += u32::from(gate.proven(stranger, stranger, false));
            }
        }
        assert_eq!(admitted, 1_000 + 2_000 + 250 + 500);
        let Admission {
            peers,
            proven_peers,
            strangers,
            proven_strangers,
            proven_networks,
            replies,
            ..
        } = &gate.admission;
        let of_endpoints = [peers, proven_peers, proven_strangers].map(|pool| pool.of.len());
        let of_networks = [strangers, proven_networks, replies].map(|pool| pool.of.len());
        assert_eq!(of_endpoints, [1_000, 2_000, 500]);
        let most = [250, 500, STRANGERS_REPLIES as usize];
        assert!(of_networks.iter().zip(most).all(|(it, most)| *it <= most));
        assert!(Admission::new(u64::MAX).peers.total <= MOST_PER_SECOND);
    }

    #[test]
    fn no_link_is_sent_more_cookies_than_neighbours_can_be_looked_for() {
        let mut gate = Gate::new(1_000);
        let count = |gate: &mut Gate, name: &dyn Fn(u64) -> Path| {
            let refused = (0..2_000).filter_map(|n| gate.plain(name(n), false).err());
            refused.flatten().count()
        };
        let of_link = |n| v6(1, n, 1);
        assert_eq!(count(&mut gate, &of_link), REPLIES_PER_LINK as usize);
        let of_link_v4 = |n: u64| v4(0xC000_0200 | (n % 256) as u32);
        assert_eq!(count(&mut gate, &of_link_v4), REPLIES_PER_LINK as usize);
        let anywhere = |n: u64| v4((n as u32) << 8);
        let all = STRANGERS_REPLIES as usize;
        assert_eq!(
            count(&mut gate, &anywhere),
            all - 2 * REPLIES_PER_LINK as usize
        );
        // A peer's endpoint is no address at which nobody is.
        assert!((0..20).any(|_| matches!(gate.plain(v6(1, 1, 1), true), Err(Some(_)))));
    }

    #[test]
    fn without_mac1_there_is_no_answer() {
        let mut gate = Gate::new(1);
        gate.initiation[120] ^= 1;
        for _ in 0..10 {
            let message = gate.initiation.clone();
            let (admission, cookies) = (&mut gate.admission, &mut gate.cookies);
            let judged = admission.response(cookies, v4(1), &message, (true, false), gate.now);
            assert!(matches!(judged, Err((DropReason::BadMac, None))));
        }
    }
}
