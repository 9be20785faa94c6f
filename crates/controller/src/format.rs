//! How times and decisions are written, for the log, the status and the operator. Reads no clock.

use jiff::Timestamp;
use policy::Membership;
use wire::admin;

/// RFC 3339, to the millisecond.
pub(crate) fn utc(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// Seconds since 1970 as RFC 3339; empty for a time that no calendar has.
pub(crate) fn utc_unix(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| String::new(), |at| at.to_string())
}

/// As it is shown.
pub(crate) fn shown(membership: Membership) -> admin::Membership {
    match membership {
        Membership::Allowed => admin::Membership::Allowed,
        Membership::Denied => admin::Membership::Denied,
    }
}

/// The word for logs.
pub(crate) fn word(membership: Membership) -> &'static str {
    match membership {
        Membership::Allowed => "ALLOWED",
        Membership::Denied => "DENIED",
    }
}
