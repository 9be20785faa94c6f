//! A token bucket: a rate with room for a burst. Reads no clock.

use std::time::Duration;

/// The bucket. It starts full.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_second: f64,
    burst: u32,
    level: f64,
    at: Option<Duration>,
}

impl Bucket {
    /// Refills with `per_second` tokens a second, up to `burst`.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self::per_ten_seconds(per_second.saturating_mul(10), burst)
    }

    /// For rates below one a second.
    pub fn per_ten_seconds(tokens: u32, burst: u32) -> Self {
        Self {
            per_second: f64::from(tokens) / 10.0,
            burst,
            level: f64::from(burst),
            at: None,
        }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        self.take_many(1, now)
    }

    /// Takes `tokens`, or none where there are fewer.
    pub fn take_many(&mut self, tokens: u32, now: Duration) -> bool {
        self.refill(now);
        let has = self.level >= f64::from(tokens);
        if has {
            self.level -= f64::from(tokens);
        }
        has
    }

    /// Whether there are `tokens`.
    pub fn has(&mut self, tokens: u32, now: Duration) -> bool {
        self.refill(now);
        self.level >= f64::from(tokens)
    }

    /// Whether nothing of it is taken.
    pub fn is_full(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.level >= f64::from(self.burst)
    }

    fn refill(&mut self, now: Duration) {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        self.at = Some(now);
        let gained = since.as_secs_f64() * self.per_second;
        self.level = (self.level + gained).min(f64::from(self.burst));
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
