//! Where a peer is: where it was heard last, and where it is said to be. And over all peers, at which
//! endpoints one is expected: the admission of handshakes asks for that before it knows any key.

use crate::limits::MAX_ENDPOINTS;
use crate::outer::Route;
use crate::path::Path;
use std::collections::HashMap;
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
pub(crate) struct Endpoints(Mutex<HashMap<Path, usize>>);

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

    /// Where to try with the `attempt`-th initiation: the endpoint that works or worked, and every third
    /// time another that is known. The address here may have lost its way to the peer while it is still
    /// this host's, so that every second initiation to the endpoint leaves it to the system.
    pub(crate) fn target_of(&self, attempt: u32) -> Option<Route> {
        let at = (attempt / 3) as usize % self.candidates.len().max(1);
        let other = self.candidates.get(at).copied().map(Route::from);
        match self.route() {
            Some(route) if attempt.is_multiple_of(3) => Some(route),
            Some(route) if attempt % 3 == 1 => Some(route.path.into()),
            route => other.or(route),
        }
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

    /// The same, if they go to `endpoint`.
    pub(crate) fn leave_route(&mut self, endpoint: Path) {
        if self.endpoint == Some(endpoint) {
            self.here = None;
        }
    }

    /// Packets go to `endpoint` from here on, from whichever address the system chooses.
    fn move_to(&mut self, endpoint: Option<Path>, endpoints: &Endpoints) {
        self.here = None;
        let before = std::mem::replace(&mut self.endpoint, endpoint);
        endpoint.into_iter().for_each(|after| endpoints.add(after));
        before
            .into_iter()
            .for_each(|before| endpoints.remove(before));
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
        self.counts().contains_key(&endpoint)
    }

    fn add(&self, endpoint: Path) {
        *self.counts().entry(endpoint).or_default() += 1;
    }

    fn remove(&self, endpoint: Path) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(&endpoint) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&endpoint);
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Path, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> HashMap<Path, usize> {
        self.counts().clone()
    }
}
