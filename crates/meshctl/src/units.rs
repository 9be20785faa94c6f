//! Times, sizes and scores in words. There is no clock here: what is "now" is the time at which the
//! daemon made its answer, so that a skewed clock on this side shows nothing false.

use crate::table::DASH;
use jiff::Timestamp;

/// Seconds from `now` to `then`, both RFC 3339; negative if `then` has passed.
pub(crate) fn seconds_until(now: &str, then: &str) -> Option<f64> {
    let (now, then): (Timestamp, Timestamp) = (now.parse().ok()?, then.parse().ok()?);
    Some(then.duration_since(now).as_secs_f64())
}

/// How long ago `then` was, or a dash. A time ahead of the daemon's clock is no age at all, and not to be
/// taken for a young one.
pub(crate) fn age(now: &str, then: &str) -> String {
    match seconds_until(now, then) {
        None => DASH.into(),
        Some(ahead) if ahead >= 1.0 => format!("{} ahead", span(ahead)),
        Some(ahead) => span(-ahead),
    }
}

/// How long ago `then` was, in words; or that it lies ahead of the daemon's clock.
pub(crate) fn ago(now: &str, then: &str) -> String {
    match seconds_until(now, then) {
        None => DASH.into(),
        Some(ahead) if ahead >= 1.0 => format!("{} ahead", span(ahead)),
        Some(ahead) => format!("{} ago", span(-ahead)),
    }
}

/// `in 42 s` or `8 s ago`.
pub(crate) fn relative(seconds: f64) -> String {
    if seconds < 0.0 {
        format!("{} ago", span(-seconds))
    } else {
        format!("in {}", span(seconds))
    }
}

/// A duration in its two largest units.
pub(crate) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match () {
        () if days > 0 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", whole % 60),
        () => format!("{whole} s"),
    }
}

/// A number of bytes in the largest unit of 1024 that leaves a digit before the point.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

/// `1 node` or `3 nodes`.
pub(crate) fn count(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}

/// A round trip.
pub(crate) fn milliseconds(value: f64) -> String {
    format!("{value:.1} ms")
}

/// A score, cut and not rounded: 0.6999 must not look like a threshold of 0.70.
pub(crate) fn score(value: f64) -> String {
    // The margin is for scores such as 0.57 whose nearest double lies below.
    format!("{:.3}", (value * 1000.0 + 1e-6).floor() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_use_two_units() {
        let cases = [
            (0.4, "0 s"),
            (42.0, "42 s"),
            (62.0, "1 min 2 s"),
            (3_720.0, "1 h 2 min"),
            (90_000.0, "1 d 1 h"),
        ];
        for (seconds, words) in cases {
            assert_eq!(span(seconds), words);
        }
        assert_eq!(relative(42.0), "in 42 s");
        assert_eq!(relative(-8.0), "8 s ago");
    }

    #[test]
    fn ages_are_taken_from_the_daemons_clock() {
        assert_eq!(age("2031-01-01T00:01:00Z", "2031-01-01T00:00:48Z"), "12 s");
        assert_eq!(age("2031-01-01T00:01:00Z", "soon"), "-");
        assert_eq!(
            age("2031-01-01T00:00:00Z", "2031-01-01T01:02:00Z"),
            "1 h 2 min ahead"
        );
        assert_eq!(age("2031-01-01T00:00:00Z", "2031-01-01T00:00:00.4Z"), "0 s");
    }

    #[test]
    fn a_score_below_the_threshold_does_not_look_like_it() {
        assert_eq!(score(0.699_99), "0.699");
        assert_eq!(score(0.7), "0.700");
        assert_eq!(score(0.57), "0.570");
    }

    #[test]
    fn sizes_keep_one_digit_after_the_point() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
