//! Which handshake messages are worth an X25519: MAC1 always, MAC2 while there are too many
//! (whitepaper, section 5.3), and a bound per source even for those that proved their address.

use crate::core::Transmit;
use crate::drops::DropReason;
use crate::limits::MIN_BUFFER;
use crate::tunnel::reason;
use boringtun::noise::TunnResult;
use boringtun::noise::rate_limiter::RateLimiter;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use x25519_dalek::PublicKey;

pub(crate) struct Admission {
    limiter: RateLimiter,
    per_second: u64,
    /// When the counts below began; `None`: nothing has come since they were cleared.
    since: Option<Duration>,
    judged: u64,
    sources: HashMap<IpAddr, u64>,
}

impl Admission {
    pub(crate) fn new(public: &PublicKey, per_second: u64) -> Self {
        Self {
            limiter: RateLimiter::new(public, per_second),
            per_second,
            since: None,
            judged: 0,
            sources: HashMap::new(),
        }
    }

    /// Judges a handshake message by its MACs. A cookie for the sender goes to `out`.
    pub(crate) fn check(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Duration,
    ) -> Result<(), (DropReason, Option<Transmit>)> {
        self.since.get_or_insert(now);
        let mut cookie = [0; MIN_BUFFER];
        match self
            .limiter
            .verify_packet(Some(from.ip()), datagram, &mut cookie)
        {
            Ok(_) => Ok(()),
            Err(TunnResult::WriteToNetwork(reply)) => {
                let reply = Transmit {
                    to: from,
                    payload: reply.to_vec(),
                    peer: None,
                };
                Err((DropReason::UnderLoad, Some(reply)))
            }
            Err(TunnResult::Err(error)) => Err((reason(&error), None)),
            Err(_) => Err((DropReason::Malformed, None)),
        }
    }

    /// Takes one of the initiations that may be opened this second, from this source and in all.
    pub(crate) fn take_initiation(&mut self, from: SocketAddr) -> Result<(), DropReason> {
        // An address in a table that is full shares the allowance of all such addresses.
        let full = self.sources.len() >= MAX_SOURCES;
        let mut source = network(from.ip());
        if full && !self.sources.contains_key(&source) {
            source = IpAddr::from([0; 4]);
        }
        let used = self.sources.entry(source).or_default();
        let share = (self.per_second / SOURCES_AT_FULL_RATE).max(1);
        if *used >= share || self.judged >= self.per_second.saturating_mul(2) {
            return Err(DropReason::UnderLoad);
        }
        *used += 1;
        self.judged += 1;
        Ok(())
    }

    /// When the counts are due to start anew.
    pub(crate) fn reset_at(&self) -> Option<Duration> {
        self.since.map(|since| since + PERIOD)
    }

    pub(crate) fn reset(&mut self, now: Duration) {
        if self.reset_at().is_some_and(|at| at <= now) {
            self.limiter.reset_count();
            self.since = None;
            self.judged = 0;
            self.sources.clear();
        }
    }
}

/// What one sender can choose freely within: an IPv4 address, an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) >> 64 << 64).to_be_bytes()),
    }
}

const PERIOD: Duration = Duration::from_secs(1);
/// How many sources it takes to use up the rate: one alone gets a tenth.
const SOURCES_AT_FULL_RATE: u64 = 10;
/// Sources that are told apart within a second.
const MAX_SOURCES: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(per_second: u64) -> Admission {
        Admission::new(&PublicKey::from([1; 32]), per_second)
    }

    fn source(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 1))
    }

    #[test]
    fn one_flooder_leaves_the_others_their_share() {
        let mut admission = admission(100);
        admission.since = Some(Duration::ZERO);
        let passed = (0..10_000)
            .filter(|_| admission.take_initiation(source(1)).is_ok())
            .count();
        assert_eq!(passed, 10);
        assert!(admission.take_initiation(source(2)).is_ok());
        admission.reset(Duration::from_secs(1));
        assert!(
            admission.take_initiation(source(1)).is_ok(),
            "the next second is a new one"
        );
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let mut admission = admission(u64::MAX);
        for address in 0..100_000u32 {
            let _ = admission.take_initiation(SocketAddr::from((address.to_be_bytes(), 1)));
        }
        assert!(admission.sources.len() <= MAX_SOURCES + 1);
    }
}
