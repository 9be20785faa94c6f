//! Whether the benchmark works, for those that ask: the status, the metrics, the log.

use super::EmitError;
use crate::io::clock;
use jiff::Timestamp;
use tokio::sync::watch;

/// How the benchmark does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Results that were handed over, since the start.
    pub(crate) succeeded: u64,
    /// Runs, or changes of a file, that gave none.
    pub(crate) failed: u64,
    /// Why there is none now.
    pub(crate) failing: Option<Failing>,
}

/// A benchmark that gives no results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failing {
    /// Why not, as it was the last time.
    pub(crate) cause: String,
    /// When it began to fail: the first failure since the last success.
    pub(crate) since: Timestamp,
}

/// The emitter's end: tells the health, and logs a change of it once, not every failure.
#[derive(Debug)]
pub(super) struct Reporter(watch::Sender<Health>);

impl Reporter {
    pub(super) fn new() -> (Self, watch::Receiver<Health>) {
        let (out, health) = watch::channel(Health::default());
        (Self(out), health)
    }

    /// There is no result, for this reason; `is_new`: there was another attempt.
    pub(super) fn failed(&self, error: &EmitError, is_new: bool) {
        let cause = error.to_string();
        self.0.send_if_modified(|health| {
            let before = health.failing.take();
            let is_same = before.as_ref().is_some_and(|it| it.cause == cause);
            if is_same {
                tracing::debug!(%error, "the benchmark failed again");
            } else {
                tracing::warn!(%error, "no evidence: the benchmark failed");
            }
            health.failed += u64::from(is_new || !is_same);
            let since = before.map_or_else(clock::wall, |it| it.since);
            health.failing = Some(Failing { cause, since });
            true
        });
    }

    /// A run takes too long; it has not failed yet.
    pub(super) fn late(&self, error: &EmitError) {
        self.0.send_if_modified(|health| {
            let is_news = health.failing.is_none();
            if is_news {
                tracing::warn!(%error, "no evidence yet: the benchmark takes long");
                let (cause, since) = (error.to_string(), clock::wall());
                health.failing = Some(Failing { cause, since });
            }
            is_news
        });
    }

    /// So many results were handed over.
    pub(super) fn succeeded(&self, results: usize) {
        self.0.send_if_modified(|health| {
            if health.failing.take().is_some() {
                tracing::info!("the benchmark works again");
            }
            health.succeeded += u64::try_from(results).unwrap_or(u64::MAX);
            true
        });
    }

    /// The last result is still there.
    pub(super) fn is_well(&self) {
        let is_well = self.0.borrow().failing.is_none();
        if !is_well {
            self.succeeded(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_failure_has_its_cause_and_the_time_of_the_first_and_ends_with_a_success() {
        let (reporter, health) = Reporter::new();
        let hung = |seconds| EmitError::Timeout(Duration::from_secs(seconds));
        reporter.failed(&hung(1), true);
        let first = health.borrow().failing.clone().unwrap();
        assert!(first.cause.contains("1s and was killed"), "{first:?}");
        reporter.failed(&hung(1), true);
        reporter.failed(&hung(2), false);
        let other = health.borrow().failing.clone().unwrap();
        assert!(other.cause.contains("2s"), "{other:?}");
        assert_eq!(other.since, first.since);
        reporter.failed(&hung(2), false);
        assert_eq!(health.borrow().failed, 3, "a second look is no run");
        reporter.is_well();
        assert_eq!(health.borrow().failing, None);
        reporter.succeeded(2);
        assert_eq!(health.borrow().succeeded, 2);
    }
}
