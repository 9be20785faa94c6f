//! Addresses that the daemon cannot do without: one that is taken, or that this machine has not yet, is waited
//! for a while. Tells what may pass from what will not.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Has `bind` tried until it succeeds, fails for good, or [`PATIENCE`] is over. Says once that it waits.
///
/// # Errors
/// The last error of `bind`.
pub async fn wait<T, E: Error>(bind: impl Fn() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + PATIENCE;
    let mut is_told = false;
    loop {
        let error = match bind() {
            Ok(bound) => return Ok(bound),
            Err(error) => error,
        };
        if !may_pass(causes(&error)) || Instant::now() >= deadline {
            return Err(error);
        }
        if !std::mem::replace(&mut is_told, true) {
            let seconds = PATIENCE.as_secs();
            tracing::warn!(%error, seconds, "waiting for an address");
        }
        sleep(PAUSE).await;
    }
}

/// Whether an error with these causes is about an address that is taken, not there yet, or still examined for
/// duplicates, or about a full disk: that may be over at the next start.
pub fn may_pass<'e>(mut causes: impl Iterator<Item = &'e (dyn Error + 'static)>) -> bool {
    causes.any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| {
            matches!(
                cause.kind(),
                ErrorKind::AddrInUse
                    | ErrorKind::AddrNotAvailable
                    | ErrorKind::StorageFull
                    | ErrorKind::QuotaExceeded
            ) || cause.raw_os_error() == Some(NO_SUCH_LINK)
        })
    })
}

fn causes<'e>(error: &'e dyn Error) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

/// A port that another program lets go of, an address that the network's setup brings.
pub const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);
/// ENODEV: the link of an address with a zone.
const NO_SUCH_LINK: i32 = 19;

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen: {source}")]
    struct Refused {
        source: io::Error,
    }

    fn refused(kind: ErrorKind) -> Refused {
        Refused {
            source: kind.into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_waited_for_a_while_and_nothing_else_is() {
        let began = Instant::now();
        let tries = Cell::new(0);
        let later = |good: u32, kind| {
            let tries = &tries;
            tries.set(0);
            move || {
                tries.set(tries.get() + 1);
                (tries.get() >= good)
                    .then_some(())
                    .ok_or_else(|| refused(kind))
            }
        };
        assert!(wait(later(20, ErrorKind::AddrInUse)).await.is_ok());
        assert!(wait(later(20, ErrorKind::AddrNotAvailable)).await.is_ok());
        assert!(began.elapsed() < PATIENCE);
        let began = Instant::now();
        let never = wait(later(2, ErrorKind::PermissionDenied)).await;
        assert!(never.is_err() && began.elapsed().is_zero());
        let never = wait(later(u32::MAX, ErrorKind::AddrInUse)).await;
        assert!(began.elapsed() >= PATIENCE && began.elapsed() < 2 * PATIENCE);
        assert!(may_pass(causes(&never.unwrap_err())));
    }
}
