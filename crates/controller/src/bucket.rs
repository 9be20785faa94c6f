//! A token bucket: a rate with room for a burst.

use std::time::Duration;

/// The bucket. Starts full.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    per_second: u32,
    burst: u32,
    level: f64,
    at: Option<Duration>,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second,
            burst,
            level: f64::from(burst),
            at: None,
        }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        self.at = Some(now);
        let gained = since.as_secs_f64() * f64::from(self.per_second);
        self.level = (self.level + gained).min(f64::from(self.burst));
        let has = self.level >= 1.0;
        if has {
            self.level -= 1.0;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_only_the_rate() {
        let mut bucket = Bucket::new(2, 3);
        let taken = |bucket: &mut Bucket, ms| {
            let now = Duration::from_millis(ms);
            (0..10).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, 500), 1);
        assert_eq!(taken(&mut bucket, 100_000), 3);
    }
}
