//! Places for connections: so many at a time. When all are taken, the connection that has been idle longest
//! gives its place up, so that clients who say nothing keep nobody out. While all are busy, others wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The places of one server.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    seats: Mutex<Seats>,
    /// A place has become free, or a busy one idle.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Seats {
    /// By the time since when they are as they are: the lowest number has been so longest.
    taken: BTreeMap<u64, Seat>,
    next: u64,
}

#[derive(Debug)]
struct Seat {
    state: State,
    leave: Arc<Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle {
        since: Instant,
    },
    Busy,
    /// Asked to leave, or given up.
    Leaving,
}

/// A connection's place; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    number: Mutex<u64>,
    leave: Arc<Notify>,
}

/// While it is there, the connection is busy.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Place>);

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        let shared = Arc::new(Shared {
            limit: limit.max(1),
            seats: Mutex::default(),
            changed: Notify::new(),
        });
        Self { shared }
    }

    /// A place for a connection that is idle as yet; waits until there is one. Not for two tasks at a time.
    pub(crate) async fn take(&self) -> Arc<Place> {
        loop {
            let now = Instant::now();
            let again = match self.shared.take_or_ask(now) {
                Ok(place) => return Arc::new(place),
                Err(again) => again,
            };
            // A permit is kept for a change that comes between the look and the wait.
            let changed = self.shared.changed.notified();
            match again {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }
}

impl Shared {
    /// A place if one is free. Otherwise the connection that has been idle longest is asked for its own, unless
    /// one is leaving already; if it has only just begun, this is when to ask again.
    fn take_or_ask(self: &Arc<Self>, now: Instant) -> Result<Place, Option<Instant>> {
        let mut seats = self.seats();
        if seats.taken.len() < self.limit {
            let leave = Arc::new(Notify::new());
            let number = seats.sit(Seat {
                state: State::Idle { since: now },
                leave: Arc::clone(&leave),
            });
            return Ok(Place {
                shared: Arc::clone(self),
                number: Mutex::new(number),
                leave,
            });
        }
        let mut states = seats.taken.values().map(|seat| seat.state);
        if states.any(|state| state == State::Leaving) {
            return Err(None);
        }
        let idle = seats.taken.values_mut().find_map(|seat| match seat.state {
            State::Idle { since } => Some((seat, since + SETTLED)),
            State::Busy | State::Leaving => None,
        });
        match idle {
            Some((seat, settled)) if settled <= now => {
                seat.state = State::Leaving;
                seat.leave.notify_one();
                Err(None)
            }
            idle => Err(idle.map(|(_, settled)| settled)),
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn sit(&mut self, seat: Seat) -> u64 {
        let number = self.next;
        self.next += 1;
        self.taken.insert(number, seat);
        number
    }
}

impl Place {
    /// Resolves when another connection needs the place, or this one has given up.
    pub(crate) async fn wanted(&self) {
        loop {
            self.leave.notified().await;
            // One that has been asked something meanwhile stays: another is asked to leave.
            let number = *self.number();
            let seats = self.shared.seats();
            let seat = seats.taken.get(&number);
            if seat.is_none_or(|seat| seat.state == State::Leaving) {
                return;
            }
        }
    }

    /// From now on the connection is busy.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.change(State::Busy);
        Busy(Arc::clone(self))
    }

    fn change(&self, state: State) {
        let mut number = self.number();
        let mut seats = self.shared.seats();
        if let Some(seat) = seats.taken.remove(&number) {
            *number = seats.sit(Seat { state, ..seat });
        }
        drop(seats);
        self.shared.changed.notify_one();
    }

    fn number(&self) -> MutexGuard<'_, u64> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Busy {
    /// The connection is to end.
    pub(crate) fn give_up(&self) {
        self.0.change(State::Leaving);
        self.0.leave.notify_one();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let since = Instant::now();
        self.0.change(State::Idle { since });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = *self.number();
        self.shared.seats().taken.remove(&number);
        self.shared.changed.notify_one();
    }
}

/// A connection that has just come, or has just been answered, is not idle yet: its request is on the way, and
/// its answer too.
const SETTLED: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{sleep, timeout};

    async fn is_asked(place: &Arc<Place>) -> bool {
        timeout(Duration::ZERO, place.wanted()).await.is_ok()
    }

    /// Waits for a place without time, and for one that comes with it.
    async fn take(places: &Places) -> Option<Arc<Place>> {
        timeout(2 * SETTLED, places.take()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_been_idle_longest_gives_way_and_a_busy_one_never() {
        let places = Places::new(3);
        let one = take(&places).await.unwrap();
        let two = take(&places).await.unwrap();
        let three = take(&places).await.unwrap();
        let busy = one.begin();
        sleep(SETTLED).await;
        // It has just been heard of.
        drop(two.begin());
        assert!(take(&places).await.is_none());
        assert!(is_asked(&three).await && !is_asked(&one).await && !is_asked(&two).await);
        drop(three);
        let four = take(&places).await.unwrap();
        sleep(SETTLED).await;
        assert!(take(&places).await.is_none());
        // It was asked, and is busy before it has heard of that.
        let again = two.begin();
        assert!(!is_asked(&two).await);
        assert!(take(&places).await.is_none());
        assert!(is_asked(&four).await);
        let also = four.begin();
        assert!(take(&places).await.is_none(), "all are busy");
        drop(busy);
        assert!(take(&places).await.is_none() && is_asked(&one).await);
        again.give_up();
        assert!(is_asked(&two).await);
        drop(also);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_only_just_come_is_given_the_time_to_ask() {
        let places = Places::new(1);
        let one = take(&places).await.unwrap();
        assert!(timeout(SETTLED / 2, places.take()).await.is_err());
        let _busy = one.begin();
        assert!(take(&places).await.is_none());
        assert!(!is_asked(&one).await);
    }
}
