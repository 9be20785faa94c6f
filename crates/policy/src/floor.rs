//! The sanity floor: a broken harness must not dissolve a mesh. Removals beyond a share of the
//! roster wait, all of them, for an operator's word; evictions are such a word and never wait.

use crate::settings::Policy;
use std::collections::BTreeSet;

/// The removals that wait for an operator's word, and stay members until then.
///
/// `roster` is the number of members before the update; `failing` those that the policy would
/// remove, without those that an operator evicted. All of them wait, or none: picking some would be
/// a second policy that nobody wrote.
pub fn held<T: Ord>(
    policy: &Policy,
    roster: usize,
    failing: BTreeSet<T>,
    confirmed: bool,
) -> BTreeSet<T> {
    let beyond_share = failing.len() as f64 > policy.floor_share * roster as f64;
    if !confirmed && beyond_share && failing.len() >= policy.floor_nodes {
        failing
    } else {
        BTreeSet::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(roster: usize, failing: usize, confirmed: bool) -> usize {
        held(
            &Policy::default(),
            roster,
            (0..failing).collect(),
            confirmed,
        )
        .len()
    }

    #[test]
    fn more_than_half_and_at_least_three_wait() {
        assert_eq!(count(5, 3, false), 3);
        assert_eq!(count(6, 3, false), 0, "half is not more than half");
        assert_eq!(count(3, 2, false), 0, "two are fewer than three");
        assert_eq!(count(3, 3, false), 3);
    }

    #[test]
    fn an_operators_word_lets_them_go() {
        assert_eq!(count(5, 5, true), 0);
    }

    proptest! {
        #[test]
        fn all_wait_or_none(roster in 0usize..50, failing in 0usize..50, confirmed: bool) {
            let failing = failing.min(roster);
            let waiting = count(roster, failing, confirmed);
            prop_assert!(waiting == 0 || waiting == failing);
            prop_assert!(waiting == 0 || !confirmed);
            prop_assert!(waiting > 0 || confirmed || failing < 3 || failing * 2 <= roster);
        }
    }
}
