//! Whether a piece of verified evidence may enter a node's record. Order in time makes replays
//! worthless: only evidence of a later run than the newest accepted one of the same suite, harness and signer
//! counts.

use crate::finding::{counts, misses};
use crate::require::{Requirement, Signers};
use crate::scope::{Evaluator, Subject};
use crate::settings::Policy;
use jiff::Timestamp;
use keys::EvaluatorId;
use std::time::Duration;
use wire::evidence::{Attested, Signer};

/// A node's past, against which its new evidence is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// When the run of its newest accepted evidence of the same suite, harness and signer finished, of those
    /// whose time has come.
    pub last_finished: Option<Timestamp>,
    /// Whether the nonce has been used.
    pub nonce_used: bool,
    /// Whether the challenge is an epoch's that was published lately; `None`: it answers to none.
    pub challenge_known: Option<bool>,
}

/// Why evidence that verifies is not accepted all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// Its signer does not count.
    #[error("signed by the node, but the policy counts only evaluators")]
    NodeSigner,
    /// Its signer does not count.
    #[error("signed by an evaluator, but the policy counts only the node's own word")]
    EvaluatorSigner,
    /// Not of the harness, suite or version that the policy names.
    #[error("of another {0} than the one that the policy names")]
    Pinned(&'static str),
    /// The evaluator's scope does not have it.
    #[error("evaluator {} may not vouch for suite {suite} with {harness} about this node", .evaluator.short())]
    OutOfScope {
        /// The evaluator.
        evaluator: EvaluatorId,
        /// The run's suite.
        suite: String,
        /// The run's harness.
        harness: String,
    },
    /// A node keeps evidence of so many suites, harnesses and signers at most.
    #[error(
        "of one more suite or harness than the {0} that are kept of a node: use the same names again"
    )]
    TooManySuites(usize),
    /// The node's own evidence answers to no epoch: it could have been signed in advance.
    #[error("signed by the node without the challenge of an epoch")]
    NoChallenge,
    /// Its challenge is of no epoch that this controller published lately.
    #[error("its challenge is of no epoch that was published lately: sign it anew")]
    UnknownChallenge,
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
    subject: Subject<'_>,
    now: Timestamp,
) -> Result<(), Unacceptable> {
    let run = evidence.benchmark();
    // Of several requirements, the refusal that came furthest names the fault that is nearest to be mended.
    let refusals = policy
        .requirements()
        .iter()
        .try_fold(None, |nearest, requirement| {
            match takes(policy, requirement, evidence, subject) {
                Ok(()) => Err(()),
                Err((depth, refusal)) => match nearest {
                    Some((other, _)) if other >= depth => Ok(nearest),
                    _ => Ok(Some((depth, refusal))),
                },
            }
        });
    if let Ok(Some((_, refusal))) = refusals {
        return Err(refusal);
    }
    match (history.challenge_known, evidence.signer()) {
        // An evaluator's run may begin long before it is handed in, on a machine without a mesh.
        (Some(true), _) | (None, Signer::Evaluator(_)) => {}
        (None, Signer::Node(_)) => return Err(Unacceptable::NoChallenge),
        (Some(false), _) => return Err(Unacceptable::UnknownChallenge),
    }
    let finished = run.finished_at;
    let allowed_seconds = policy.max_future_skew;
    let ahead = Duration::try_from(finished.duration_since(now)).unwrap_or(Duration::ZERO);
    if ahead > Duration::from_secs(allowed_seconds) {
        let ahead_seconds = ahead.as_secs();
        return Err(Unacceptable::Future {
            ahead_seconds,
            allowed_seconds,
        });
    }
    // A run whose end is yet to come is by a clock that was ahead. Were it the measure, it would keep out every
    // run since the clock was corrected; its nonce keeps it from coming again.
    match history.last_finished.filter(|last| *last <= now) {
        Some(last) if finished <= last => Err(Unacceptable::NotNewer(last)),
        _ if history.nonce_used => Err(Unacceptable::NonceUsed),
        _ => Ok(()),
    }
}

/// Whether a requirement takes a run, or how far it came and why it was refused.
fn takes(
    policy: &Policy,
    requirement: &Requirement,
    evidence: &Attested,
    subject: Subject<'_>,
) -> Result<(), (u8, Unacceptable)> {
    let (run, signer) = (evidence.benchmark(), evidence.signer());
    if let Some(what) = misses(requirement, &run.harness, &run.suite, &run.suite_version) {
        return Err((0, Unacceptable::Pinned(what)));
    }
    if !counts(policy, requirement.signers, &signer) {
        let refusal = match requirement.signers {
            Signers::Own => Unacceptable::EvaluatorSigner,
            Signers::Any | Signers::Evaluator | Signers::Several(_) => Unacceptable::NodeSigner,
        };
        return Err((1, refusal));
    }
    let Signer::Evaluator(evaluator) = signer else {
        return Ok(());
    };
    let may =
        |it: &Evaluator| it.key == evaluator && it.may_vouch(&run.harness, &run.suite, subject);
    if policy.evaluators.contains(&evaluator) || policy.evaluator.iter().any(may) {
        return Ok(());
    }
    let (suite, harness) = (run.suite.clone(), run.harness.clone());
    Err((
        2,
        Unacceptable::OutOfScope {
            evaluator,
            suite,
            harness,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::RequiredSigner;
    use keys::{EvaluatorSecret, MeshId, NodeSecret};
    use rand_core::OsRng;
    use std::collections::BTreeSet;
    use wire::evidence::Benchmark;
    use wire::fixtures;

    fn accept_it(
        policy: &Policy,
        history: &History,
        evidence: &Attested,
        now: Timestamp,
    ) -> Result<(), Unacceptable> {
        let (name, groups) = ("a".parse().unwrap(), BTreeSet::new());
        let subject = Subject {
            name: &name,
            groups: &groups,
        };
        accept(policy, history, evidence, subject, now)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn run(finished: i64) -> Benchmark {
        Benchmark {
            mesh: Some(MESH),
            ..fixtures::run(0.9, at(finished))
        }
    }

    fn own(finished: i64) -> Attested {
        let node = NodeSecret::generate(&mut OsRng);
        let envelope = run(finished).attest_self("a", &node).unwrap();
        Attested::verify(&envelope, &node.public(), MESH, &[]).unwrap()
    }

    const FRESH: History = History {
        last_finished: None,
        nonce_used: false,
        challenge_known: Some(true),
    };

    const MESH: MeshId = MeshId([5; 16]);

    #[test]
    fn evidence_from_the_future_is_refused_beyond_the_skew() {
        let policy = Policy::default();
        assert_eq!(accept_it(&policy, &FRESH, &own(1_030), at(1_000)), Ok(()));
        let error = accept_it(&policy, &FRESH, &own(1_031), at(1_000)).unwrap_err();
        assert!(error.to_string().contains("31 s in the future"), "{error}");
    }

    #[test]
    fn only_a_later_run_with_a_new_nonce_counts() {
        let policy = Policy::default();
        let seen = History {
            last_finished: Some(at(1_000)),
            ..FRESH
        };
        let again = accept_it(&policy, &seen, &own(1_000), at(1_000));
        assert_eq!(again, Err(Unacceptable::NotNewer(at(1_000))));
        assert_eq!(accept_it(&policy, &seen, &own(1_001), at(1_001)), Ok(()));
        let used = History {
            nonce_used: true,
            ..seen
        };
        assert_eq!(
            accept_it(&policy, &used, &own(1_001), at(1_001)),
            Err(Unacceptable::NonceUsed)
        );
    }

    #[test]
    fn the_required_signer_is_required() {
        let node = NodeSecret::generate(&mut OsRng).public();
        let evaluator = EvaluatorSecret::generate(&mut OsRng);
        let envelope = run(1_000).attest_as("a", &node, &evaluator).unwrap();
        let vouched = Attested::verify(&envelope, &node, MESH, &[evaluator.public()]).unwrap();
        let mut policy = Policy {
            required_signer: RequiredSigner::Evaluator,
            evaluators: vec![evaluator.public()],
            ..Policy::default()
        };
        let judge = |policy: &Policy, e: &Attested| accept_it(policy, &FRESH, e, at(1_000));
        assert_eq!(judge(&policy, &vouched), Ok(()));
        let refused = judge(&policy, &own(1_000));
        assert_eq!(refused, Err(Unacceptable::NodeSigner));
        policy.required_signer = RequiredSigner::Own;
        let refused = judge(&policy, &vouched);
        assert_eq!(refused, Err(Unacceptable::EvaluatorSigner));
    }

    #[test]
    fn a_run_from_the_future_of_a_clock_that_was_corrected_does_not_keep_honest_ones_out() {
        let policy = Policy::default();
        let history = History {
            last_finished: Some(at(90_000)),
            ..FRESH
        };
        assert_eq!(accept_it(&policy, &history, &own(1_000), at(1_000)), Ok(()));
        // Within the skew as well, which may be an hour.
        let within = History {
            last_finished: Some(at(1_030)),
            ..FRESH
        };
        assert_eq!(accept_it(&policy, &within, &own(1_000), at(1_000)), Ok(()));
        let refused = accept_it(&policy, &within, &own(1_030), at(1_030));
        assert_eq!(refused, Err(Unacceptable::NotNewer(at(1_030))));
        let used = History {
            nonce_used: true,
            ..within
        };
        let refused = accept_it(&policy, &used, &own(1_030), at(1_000));
        assert_eq!(refused, Err(Unacceptable::NonceUsed));
    }

    #[test]
    fn a_node_must_answer_to_an_epoch_and_an_evaluator_only_to_a_true_one() {
        let node = NodeSecret::generate(&mut OsRng).public();
        let evaluator = EvaluatorSecret::generate(&mut OsRng);
        let envelope = run(1_000).attest_as("a", &node, &evaluator).unwrap();
        let vouched = Attested::verify(&envelope, &node, MESH, &[evaluator.public()]).unwrap();
        let policy = Policy {
            evaluators: vec![evaluator.public()],
            ..Policy::default()
        };
        let judge = |evidence: &Attested, challenge_known| {
            let history = History {
                challenge_known,
                ..FRESH
            };
            accept_it(&policy, &history, evidence, at(1_000))
        };
        assert_eq!(judge(&own(1_000), None), Err(Unacceptable::NoChallenge));
        assert_eq!(judge(&vouched, None), Ok(()));
        for evidence in [&own(1_000), &vouched] {
            let unknown = judge(evidence, Some(false));
            assert_eq!(unknown, Err(Unacceptable::UnknownChallenge));
            assert_eq!(judge(evidence, Some(true)), Ok(()));
        }
    }

    #[test]
    fn only_what_the_policy_pins_counts() {
        let pinned = |harness: &str, suite: &str, version: &str| Policy {
            harness: Some(harness.into()),
            suite: Some(suite.into()),
            suite_version: Some(version.parse().unwrap()),
            ..Policy::default()
        };
        let judge = |policy: Policy| accept_it(&policy, &FRESH, &own(1_000), at(1_000));
        assert_eq!(judge(pinned("mock", "safety", "1")), Ok(()));
        let other = [
            (pinned("other", "safety", "1"), "harness"),
            (pinned("mock", "other", "1"), "suite"),
            (pinned("mock", "safety", "2"), "suite version"),
        ];
        for (policy, what) in other {
            assert_eq!(judge(policy), Err(Unacceptable::Pinned(what)));
        }
    }

    #[test]
    fn an_evaluator_is_held_to_its_scope_and_the_nearest_requirement_says_why() {
        let node = NodeSecret::generate(&mut OsRng).public();
        let evaluator = EvaluatorSecret::generate(&mut OsRng);
        let key = evaluator.public();
        let envelope = run(1_000).attest_as("a", &node, &evaluator).unwrap();
        let vouched = Attested::verify(&envelope, &node, MESH, &[key]).unwrap();
        let judge = |text: &str| {
            let text = text.replace("KEY", &key.to_string());
            let policy = Policy::from_toml(&text).unwrap();
            accept_it(&policy, &FRESH, &vouched, at(1_000))
        };
        let scoped = |suites: &str| {
            judge(&format!(
                "[[require]]\nname = \"x\"\nsuite = \"other\"\n[[require]]\nname = \"y\"\nsigners = \"evaluator\"\n\
                 [[evaluator]]\nkey = \"KEY\"\nsuites = [\"{suites}\"]"
            ))
        };
        assert_eq!(scoped("safe*"), Ok(()));
        let refused = scoped("unsafe*").unwrap_err();
        assert!(
            matches!(refused, Unacceptable::OutOfScope { .. }),
            "{refused}"
        );
        assert!(
            refused
                .to_string()
                .contains("may not vouch for suite safety with mock")
        );
        let own = judge("required_signer = \"self\"\nevaluators = [\"KEY\"]");
        assert_eq!(own, Err(Unacceptable::EvaluatorSigner));
    }
}
