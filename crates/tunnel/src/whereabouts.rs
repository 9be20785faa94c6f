//! Where a peer is: where it was heard last, and where it is said to be. And over all peers, at which
//! endpoints one is expected: the admission of handshakes asks for that before it knows any key.

use crate::limits::{MAX_ENDPOINTS, PATIENT_ATTEMPTS};
use crate::outer::Route;
use crate::path::Path;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where one peer is. Every change goes through [`Endpoints`] as well.
#[derive(Default)]
pub(crate) struct Whereabouts {
    endpoint: Option<Path>,
    /// The address of this host at which the peer was heard from there.
    here: Option<IpAddr>,
    /// Best first.
    candidates: Vec<Path>,
}

/// Where peers are expected, each place with how many peers are there.
#[derive(Default)]
pub(crate) struct Endpoints(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    paths: HashMap<Path, usize>,
    /// The addresses that packets go to.
    hosts: HashMap<IpAddr, usize>,
}

impl Whereabouts {
    /// Where packets go; `None` before the peer was heard or chosen a place for.
    pub(crate) fn endpoint(&self) -> Option<Path> {
        self.endpoint
    }

    /// The same, and from which address of this host.
    pub(crate) fn route(&self) -> Option<Route> {
        let (path, here) = (self.endpoint?, self.here);
        Some(Route { path, here })
    }

    /// Where the first packet would go.
    pub(crate) fn target(&self) -> Option<Route> {
        let first = self.candidates.first().copied();
        self.route().or(first.map(Route::from))
    }

    /// Where to try with the `attempt`-th initiation: the endpoint that works or worked, and from the fourth on
    /// every second time another that is known, one after the other. Not earlier: the answers of two places
    /// would arrive one after the other, and a pair that is well would move back and forth. The address here may
    /// have lost its way to the peer while it is still this host's, so that every second initiation to the
    /// endpoint leaves it to the system.
    pub(crate) fn target_of(&self, attempt: u32) -> Option<Route> {
        let Some(route) = self.route() else {
            let at = attempt as usize % self.candidates.len().max(1);
            return self.candidates.get(at).copied().map(Route::from);
        };
        let others: Vec<Path> = self.others().collect();
        let turn = attempt.checked_sub(PATIENT_ATTEMPTS);
        let turn = turn.filter(|turn| turn.is_multiple_of(2) && !others.is_empty());
        if let Some(turn) = turn {
            let other = others.get((turn / 2) as usize % others.len());
            return other.copied().map(Route::from);
        }
        let to_endpoint = match attempt.checked_sub(PATIENT_ATTEMPTS) {
            Some(since) if !others.is_empty() => since / 2,
            _ => attempt,
        };
        if to_endpoint.is_multiple_of(2) {
            Some(route)
        } else {
            Some(route.path.into())
        }
    }

    /// Whether the peer may be somewhere else than where packets go.
    pub(crate) fn has_others(&self) -> bool {
        self.others().next().is_some()
    }

    fn others(&self) -> impl Iterator<Item = Path> + '_ {
        let elsewhere = |path: &Path| Some(*path) != self.endpoint;
        self.candidates.iter().copied().filter(elsewhere)
    }

    /// It was heard by this route, on which packets go from here on. Whether that is another place: an
    /// address of this host is none.
    pub(crate) fn hear(&mut self, from: Route, endpoints: &Endpoints) -> bool {
        let is_elsewhere = self.endpoint != Some(from.path);
        if is_elsewhere {
            self.move_to(Some(from.path), endpoints);
        }
        self.here = from.here;
        is_elsewhere
    }

    /// The system chooses from which address packets leave, if that was so far `here`.
    pub(crate) fn leave_address(&mut self, here: IpAddr) {
        self.here.take_if(|it| *it == here);
    }

    /// The same, if they go to one of `endpoints`.
    pub(crate) fn leave_routes(&mut self, endpoints: &HashSet<Path>) {
        if self.endpoint.is_some_and(|it| endpoints.contains(&it)) {
            self.here = None;
        }
    }

    /// Packets go to `endpoint` from here on, from whichever address the system chooses.
    fn move_to(&mut self, endpoint: Option<Path>, endpoints: &Endpoints) {
        self.here = None;
        let before = std::mem::replace(&mut self.endpoint, endpoint);
        endpoint.into_iter().for_each(|after| {
            endpoints.add(after);
            endpoints.add_host(after);
        });
        before.into_iter().for_each(|before| {
            endpoints.remove(before);
            endpoints.remove_host(before);
        });
    }

    /// The peer is said to be at `candidates`, best first. A place where it was heard stays preferred,
    /// unless it is not among them and `has_session` is false: nobody may be there any more.
    pub(crate) fn say(&mut self, candidates: Vec<Path>, has_session: bool, endpoints: &Endpoints) {
        self.replace_candidates(candidates, endpoints);
        let is_named = |endpoint| self.candidates.contains(&endpoint);
        if !has_session && !self.endpoint.is_some_and(is_named) {
            self.move_to(self.candidates.first().copied(), endpoints);
        }
    }

    /// It is nowhere any more.
    pub(crate) fn leave(&mut self, endpoints: &Endpoints) {
        self.move_to(None, endpoints);
        self.replace_candidates(Vec::new(), endpoints);
    }

    fn replace_candidates(&mut self, mut candidates: Vec<Path>, endpoints: &Endpoints) {
        // A member may announce as many places as it likes, and each has an allowance of its own at the
        // admission of handshakes: unbounded, one member could have others kept out.
        candidates.truncate(MAX_ENDPOINTS);
        // Said again with every epoch, of every peer.
        if candidates == self.candidates {
            return;
        }
        candidates.shrink_to_fit();
        candidates.iter().for_each(|after| endpoints.add(*after));
        let before = std::mem::replace(&mut self.candidates, candidates);
        before
            .into_iter()
            .for_each(|before| endpoints.remove(before));
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = Path> + '_ {
        self.endpoint.iter().chain(&self.candidates).copied()
    }
}

impl Endpoints {
    pub(crate) fn contains(&self, endpoint: Path) -> bool {
        self.counts().paths.contains_key(&endpoint)
    }

    /// Whether packets to any go to this address.
    pub(crate) fn has_host(&self, address: IpAddr) -> bool {
        self.counts().hosts.contains_key(&address.to_canonical())
    }

    fn add(&self, endpoint: Path) {
        *self.counts().paths.entry(endpoint).or_default() += 1;
    }

    fn remove(&self, endpoint: Path) {
        take_one(&mut self.counts().paths, &endpoint);
    }

    fn add_host(&self, endpoint: Path) {
        let host = endpoint.ip().to_canonical();
        *self.counts().hosts.entry(host).or_default() += 1;
    }

    fn remove_host(&self, endpoint: Path) {
        take_one(&mut self.counts().hosts, &endpoint.ip().to_canonical());
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> HashMap<Path, usize> {
        self.counts().paths.clone()
    }
}

fn take_one<T: Eq + Hash>(counts: &mut HashMap<T, usize>, of: &T) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(host: u8) -> Path {
        Path::Udp(([192, 0, 2, host], 51_820).into())
    }

    #[test]
    fn an_endpoint_that_is_silent_is_tried_first_and_then_in_turn_with_all_others() {
        let (endpoints, here) = (Endpoints::default(), Some([198, 51, 100, 1].into()));
        let mut whereabouts = Whereabouts::default();
        whereabouts.say(vec![path(1), path(2), path(3)], false, &endpoints);
        whereabouts.hear(
            Route {
                path: path(1),
                here,
            },
            &endpoints,
        );
        let tried: Vec<_> = (0..8).filter_map(|it| whereabouts.target_of(it)).collect();
        let places: Vec<Path> = tried.iter().map(|route| route.path).collect();
        assert_eq!(places, [1, 1, 1, 2, 1, 3, 1, 2].map(path));
        let leaves: Vec<bool> = tried.iter().map(|route| route.here.is_some()).collect();
        assert_eq!(
            leaves,
            [true, false, true, false, true, false, false, false]
        );
        // Alone, it is tried from both of this host's addresses.
        whereabouts.say(vec![path(1)], true, &endpoints);
        assert!(!whereabouts.has_others());
        let tried = (0..4).filter_map(|it| whereabouts.target_of(it));
        let leaves: Vec<bool> = tried.map(|route| route.here.is_some()).collect();
        assert_eq!(leaves, [true, false, true, false]);
    }
}
