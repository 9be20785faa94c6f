//! When the other side of a connection was last heard. Counts what was authenticated, and nothing that anybody
//! could have sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A connection's sign of life.
#[derive(Debug, Clone)]
pub struct Pulse {
    inner: quinn::Connection,
    last: Arc<Mutex<Heard>>,
}

/// The last sign: how much had been heard then, and when that was.
#[derive(Debug)]
struct Heard {
    frames: u64,
    at: Instant,
}

impl Pulse {
    pub(crate) fn of(inner: quinn::Connection) -> Self {
        let heard = Heard {
            frames: frames(&inner),
            at: Instant::now(),
        };
        Self {
            inner,
            last: Arc::new(Mutex::new(heard)),
        }
    }

    /// For how long nothing has been heard, to a second.
    pub fn silence(&self) -> Duration {
        let frames = frames(&self.inner);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.frames != frames {
            *last = Heard {
                frames,
                at: Instant::now(),
            };
        }
        last.at.elapsed()
    }

    /// Whether the other side is gone, by the silence of now and of the look before. A process that stood still did not
    /// look, and hears first what has come meanwhile.
    pub fn is_lost(before: Duration, silence: Duration) -> bool {
        silence >= LOST_AFTER && before >= LOST_AFTER - 2 * LOOK_EVERY
    }

    /// Resolves when nothing was heard for [`LOST_AFTER`].
    pub(crate) async fn lost(&self) -> Duration {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = Duration::ZERO;
        loop {
            looks.tick().await;
            let silence = self.silence();
            if Self::is_lost(before, silence) {
                return silence;
            }
            before = silence;
        }
    }
}

/// Frames that were received: those that keep a connection, and those that carry messages.
fn frames(connection: &quinn::Connection) -> u64 {
    let received = connection.stats().frame_rx;
    [received.acks, received.ping, received.stream]
        .into_iter()
        .fold(0, u64::wrapping_add)
}

/// The node says something at least this often, and hears that it was heard.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// From then on a connection is silent: two keep-alives were lost, or what answers them.
pub const SILENT_AFTER: Duration = Duration::from_secs(7);
/// From then on it is lost. Another one is made within a round trip, and the lease lasts longer than that.
pub const LOST_AFTER: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);
