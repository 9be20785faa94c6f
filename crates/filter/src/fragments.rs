//! Datagrams whose first fragment has passed: their later fragments, which name no port, pass too. The memory is a
//! ring: the oldest goes.

use crate::parse::{Address, Identification};
use std::time::Duration;

/// The name of a datagram that came in fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) id: Identification,
}

#[derive(Debug)]
pub(crate) struct Fragments {
    passed: [Option<(Datagram, Duration)>; MAX_DATAGRAMS],
    next: usize,
}

impl Default for Fragments {
    fn default() -> Self {
        Self {
            passed: [None; MAX_DATAGRAMS],
            next: 0,
        }
    }
}

impl Fragments {
    pub(crate) fn pass(&mut self, datagram: Datagram, now: Duration) {
        if let Some(place) = self.passed.get_mut(self.next) {
            *place = Some((datagram, now));
        }
        self.next = (self.next + 1) % MAX_DATAGRAMS;
    }

    pub(crate) fn has_passed(&self, datagram: &Datagram, now: Duration) -> bool {
        let mut passed = self.passed.iter().flatten();
        passed.any(|(it, at)| it == datagram && now.saturating_sub(*at) < REASSEMBLY)
    }
}

/// Datagrams of one peer that may be in pieces at one time.
const MAX_DATAGRAMS: usize = 32;
/// No receiver waits for longer for the rest (Linux; RFC 8200, section 4.5 has twice as much).
const REASSEMBLY: Duration = Duration::from_secs(30);
