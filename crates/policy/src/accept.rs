//! Whether a piece of verified evidence may enter a node's record. Order in time makes replays
//! worthless: only evidence of a later run than the newest accepted one counts.

use crate::settings::{Policy, RequiredSigner};
use jiff::Timestamp;
use std::time::Duration;
use wire::evidence::Attested;

/// What was accepted from a node before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// When the run of its newest accepted evidence finished.
    pub last_finished: Option<Timestamp>,
    /// Whether the nonce has been used.
    pub nonce_used: bool,
}

/// Why evidence that verifies is not accepted all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// Its signer does not count.
    #[error("signed by the node, but the policy counts only evaluators")]
    NodeSigner,
    /// Its signer does not count.
    #[error("signed by an evaluator, but the policy counts only the node's own word")]
    EvaluatorSigner,
    /// It claims to come from the future.
    #[error(
        "finished {ahead_seconds} s in the future by the controller's clock, {allowed_seconds} s \
         are allowed: check the node's clock"
    )]
    Future {
        /// How far ahead it lies.
        ahead_seconds: u64,
        /// How far ahead it may lie.
        allowed_seconds: u64,
    },
    /// An older or equally old run than the newest accepted.
    #[error("not newer than the evidence accepted before (finished {0})")]
    NotNewer(Timestamp),
    /// A nonce a second time.
    #[error("its nonce has been used before")]
    NonceUsed,
}

/// Whether `evidence` may replace what is known about its node.
///
/// # Errors
/// [`Unacceptable`], with what the node's operator can do about it.
pub fn accept(
    policy: &Policy,
    history: &History,
    evidence: &Attested,
    now: Timestamp,
) -> Result<(), Unacceptable> {
    if !policy.counts(&evidence.signer()) {
        return Err(match policy.required_signer {
            RequiredSigner::Own => Unacceptable::EvaluatorSigner,
            RequiredSigner::Any | RequiredSigner::Evaluator => Unacceptable::NodeSigner,
        });
    }
    let finished = evidence.benchmark().finished_at;
    let allowed_seconds = policy.max_future_skew;
    let ahead = Duration::try_from(finished.duration_since(now)).unwrap_or(Duration::ZERO);
    if ahead > Duration::from_secs(allowed_seconds) {
        let ahead_seconds = ahead.as_secs();
        return Err(Unacceptable::Future {
            ahead_seconds,
            allowed_seconds,
        });
    }
    match history.last_finished {
        Some(last) if finished <= last => Err(Unacceptable::NotNewer(last)),
        _ if history.nonce_used => Err(Unacceptable::NonceUsed),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::{EvaluatorSecret, NodeSecret};
    use rand_core::OsRng;
    use std::collections::BTreeMap;
    use wire::evidence::Benchmark;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn run(finished: i64) -> Benchmark {
        Benchmark {
            harness: "mock".into(),
            suite: "safety".into(),
            suite_version: "1".into(),
            metrics: BTreeMap::new(),
            overall: 0.9,
            samples_total: 1,
            samples_completed: 1,
            started_at: at(finished),
            finished_at: at(finished),
            nonce: "00112233445566778899aabbccddeeff".into(),
            log_digest: None,
        }
    }

    fn own(finished: i64) -> Attested {
        let node = NodeSecret::generate(&mut OsRng);
        let envelope = run(finished).attest_self("a", &node).unwrap();
        Attested::verify(&envelope, &node.public(), &[]).unwrap()
    }

    const FRESH: History = History {
        last_finished: None,
        nonce_used: false,
    };

    #[test]
    fn evidence_from_the_future_is_refused_beyond_the_skew() {
        let policy = Policy::default();
        assert_eq!(accept(&policy, &FRESH, &own(1_030), at(1_000)), Ok(()));
        let error = accept(&policy, &FRESH, &own(1_031), at(1_000)).unwrap_err();
        assert!(error.to_string().contains("31 s in the future"), "{error}");
    }

    #[test]
    fn only_a_later_run_with_a_new_nonce_counts() {
        let policy = Policy::default();
        let seen = History {
            last_finished: Some(at(1_000)),
            nonce_used: false,
        };
        let again = accept(&policy, &seen, &own(1_000), at(1_000));
        assert_eq!(again, Err(Unacceptable::NotNewer(at(1_000))));
        assert_eq!(accept(&policy, &seen, &own(1_001), at(1_001)), Ok(()));
        let used = History {
            nonce_used: true,
            ..seen
        };
        assert_eq!(
            accept(&policy, &used, &own(1_001), at(1_001)),
            Err(Unacceptable::NonceUsed)
        );
    }

    #[test]
    fn the_required_signer_is_required() {
        let node = NodeSecret::generate(&mut OsRng).public();
        let evaluator = EvaluatorSecret::generate(&mut OsRng);
        let envelope = run(1_000).attest_as("a", &node, &evaluator).unwrap();
        let vouched = Attested::verify(&envelope, &node, &[evaluator.public()]).unwrap();
        let mut policy = Policy {
            required_signer: RequiredSigner::Evaluator,
            evaluators: vec![evaluator.public()],
            ..Policy::default()
        };
        let judge = |policy: &Policy, e: &Attested| accept(policy, &FRESH, e, at(1_000));
        assert_eq!(judge(&policy, &vouched), Ok(()));
        let refused = judge(&policy, &own(1_000));
        assert_eq!(refused, Err(Unacceptable::NodeSigner));
        policy.required_signer = RequiredSigner::Own;
        let refused = judge(&policy, &vouched);
        assert_eq!(refused, Err(Unacceptable::EvaluatorSigner));
    }
}
