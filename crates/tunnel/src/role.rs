//! Which side of a pair begins a rotation. Both sides must come to opposite answers without a word, for
//! as long as they know each other: the lower key leads.

use crate::limits::RESPONDER_PAUSE;
use keys::WgPublicKey;
use std::time::Duration;

/// This side's part in the rotations of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Initiates for a new epoch.
    Leads,
    /// Answers, and initiates only if the other side has not.
    Follows,
}

impl Role {
    /// The part of the side with the key `own`.
    pub(crate) fn of(own: &WgPublicKey, peer: &WgPublicKey) -> Self {
        if own < peer {
            Self::Leads
        } else {
            Self::Follows
        }
    }

    /// Whether this side shakes hands ahead of an epoch.
    pub(crate) fn leads(self) -> bool {
        self == Self::Leads
    }

    /// Whether, of two initiations that cross, this side's waits.
    pub(crate) fn yields(self) -> bool {
        self == Self::Follows
    }

    /// How long this side waits after an activation for the other to initiate.
    pub(crate) fn pause(self) -> Duration {
        match self {
            Self::Leads => Duration::ZERO,
            Self::Follows => RESPONDER_PAUSE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_sides_exactly_one_leads_and_the_other_gives_it_time() {
        let (low, high) = (WgPublicKey([1; 32]), WgPublicKey([2; 32]));
        let roles = [Role::of(&low, &high), Role::of(&high, &low)];
        assert_eq!(roles, [Role::Leads, Role::Follows]);
        assert_eq!(roles.map(Role::leads), [true, false]);
        assert_eq!(roles.map(Role::yields), [false, true]);
        assert_eq!(roles.map(Role::pause), [Duration::ZERO, RESPONDER_PAUSE]);
    }
}
