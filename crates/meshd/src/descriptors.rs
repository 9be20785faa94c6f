//! Open files: how many the daemon may have, and how many of them clients may take. What it needs itself is
//! never theirs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limits of a daemon on descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// All that the process may have open (`RLIMIT_NOFILE`).
    pub limit: u64,
    /// Clients that are served at a time, on the admin socket and for metrics each.
    pub clients: usize,
    /// Whether the limit is lower than the daemon needs.
    pub is_short: bool,
}

impl Descriptors {
    /// Raises the limit as far as it does any good and the system lets it, and divides it up for a daemon with
    /// so many data threads.
    #[must_use]
    pub fn claim(data_threads: usize) -> Self {
        let before = getrlimit(Resource::Nofile);
        let has = before.current.unwrap_or(u64::MAX);
        let may_have = before.maximum.unwrap_or(u64::MAX).min(ENOUGH);
        let raised = Rlimit {
            current: Some(may_have),
            maximum: before.maximum,
        };
        // No further: benchmark commands inherit it, and some close every descriptor that they might have.
        let limit = if has < may_have && setrlimit(Resource::Nofile, raised).is_ok() {
            may_have
        } else {
            has
        };
        Self::of(limit, data_threads)
    }

    fn of(limit: u64, data_threads: usize) -> Self {
        let needed = OWN + OF_A_DATA_THREAD * data_threads as u64;
        let left = usize::try_from(limit.saturating_sub(needed)).unwrap_or(usize::MAX);
        // A connection that waits to be served has a descriptor too.
        let clients = (left / 2).saturating_sub(1);
        Self {
            limit,
            clients: clients.clamp(1, MAX_CLIENTS),
            is_short: clients < 1,
        }
    }
}

/// As most systems grant without being asked; a daemon needs far less.
const ENOUGH: u64 = 1024;
/// A role has fewer open beside its data threads and clients: measured, and some more.
const OWN: u64 = 48;
/// TUN queue, UDP socket, and the three of a runtime.
const OF_A_DATA_THREAD: u64 = 5;
/// Clients of each kind that are served at a time, where there are descriptors for as many.
pub const MAX_CLIENTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_is_left_and_the_daemon_keeps_what_it_needs() {
        let clients = |limit, threads| Descriptors::of(limit, threads).clients;
        assert_eq!(clients(1024, 16), MAX_CLIENTS);
        for (limit, threads) in [(48, 0), (48, 1), (64, 1), (256, 16), (1024, 64)] {
            let got = Descriptors::of(limit, threads);
            let all = OWN + OF_A_DATA_THREAD * threads as u64 + 2 * (got.clients as u64 + 1);
            assert!(got.is_short || all <= limit, "{got:?}");
            assert!(got.clients >= 1, "{got:?}");
        }
        assert!(Descriptors::of(20, 1).is_short);
    }
}
