//! A run's way from the benchmark to the controller's answer: held until there is an update to answer
//! to, signed, sent, sent again after a connection was lost or a refusal that may pass, accepted or refused.
//! Judges no score.

use jiff::Timestamp;
use keys::{MeshId, NodeSecret};
use std::time::Duration;
use wire::evidence::{Benchmark, payload_digest, peek};
use wire::message::{Again, RefusedEvidence};
use wire::{Digest, NodeName, ToController};

/// A finished run, on its way to the controller.
#[derive(Debug, Clone, PartialEq)]
pub enum Emission {
    /// To be signed by this node.
    Run(Box<Benchmark>),
    /// Signed already, by an evaluator.
    Envelope(Vec<u8>),
}

/// The newest evidence.
#[derive(Debug)]
pub struct Evidence {
    /// The score of the whole, if the harness gave one.
    pub overall: Option<f64>,
    /// The suite.
    pub suite: String,
    /// Its version.
    pub suite_version: String,
    /// When it was handed in.
    pub sent_at: Timestamp,
    /// The result so far.
    pub result: EvidenceResult,
    /// The run that this node signs itself; `None`: an evaluator did.
    run: Option<Box<Benchmark>>,
    envelope: Vec<u8>,
    digest: [u8; 32],
    /// The update that the envelope answers to, if this node signed it.
    challenge: Option<Digest>,
    /// How often it was refused for now.
    put_off: u32,
}

/// The result of handing evidence in, so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidenceResult {
    /// It waits for the control channel, or for room on it.
    Unsent,
    /// The controller has not answered.
    Pending,
    /// The controller took it.
    Accepted,
    /// It did not, for this reason, and will not.
    Refused(String),
    /// It did not, for a reason that may pass.
    PutOff {
        /// The reason.
        reason: String,
        /// When it is sent again, on the boot-time clock.
        until: Duration,
    },
}

/// In whose name, and for which mesh, runs are signed.
pub(crate) struct Signer<'a> {
    pub(crate) identity: &'a NodeSecret,
    pub(crate) name: &'a NodeName,
    pub(crate) mesh: MeshId,
}

/// Evidence to be handed in, and evidence that was.
#[derive(Debug, Default)]
pub(crate) struct Submissions {
    newest: Option<Evidence>,
    /// A run that waits for the first update: without one there is nothing that it could answer to.
    held: Option<Box<Benchmark>>,
    /// The digest of the newest update: evidence answers to it.
    challenge: Option<Digest>,
}

impl Submissions {
    pub(crate) fn newest(&self) -> Option<&Evidence> {
        self.newest.as_ref()
    }

    /// Takes a run; whether it can be handed in.
    pub(crate) fn handle_emission(
        &mut self,
        emission: Emission,
        signer: &Signer<'_>,
        now: Timestamp,
    ) -> bool {
        let (envelope, run) = match emission {
            Emission::Run(run) if self.challenge.is_none() => {
                self.held = Some(run);
                return false;
            }
            Emission::Run(run) => match signer.attest(&run, self.challenge) {
                Some(envelope) => (envelope, Some(run)),
                None => return false,
            },
            Emission::Envelope(envelope) => (envelope, None),
        };
        let Some((said, digest)) = peek(&envelope).zip(payload_digest(&envelope)) else {
            tracing::warn!("evidence not sent: the envelope holds no benchmark statement");
            return false;
        };
        let Benchmark {
            overall,
            suite,
            suite_version,
            ..
        } = said;
        self.newest = Some(Evidence {
            overall,
            suite,
            suite_version,
            sent_at: now,
            result: EvidenceResult::Unsent,
            challenge: run.as_ref().and(self.challenge),
            run,
            envelope,
            digest,
            put_off: 0,
        });
        true
    }

    /// Evidence answers to this update from now on; a run that was held for one.
    pub(crate) fn handle_challenge(&mut self, update: Digest) -> Option<Box<Benchmark>> {
        self.challenge = Some(update);
        self.held.take()
    }

    /// When evidence that was refused for now is due again.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        match self.newest.as_ref()?.result {
            EvidenceResult::PutOff { until, .. } => Some(until),
            EvidenceResult::Unsent
            | EvidenceResult::Pending
            | EvidenceResult::Accepted
            | EvidenceResult::Refused(_) => None,
        }
    }

    /// The evidence that waits, as it is to be sent.
    pub(crate) fn send(&mut self, signer: &Signer<'_>, now: Duration) -> Option<ToController> {
        let due = self.poll_timeout();
        let evidence = self.newest.as_mut()?;
        if evidence.result != EvidenceResult::Unsent && due.is_none_or(|due| due > now) {
            return None;
        }
        // Evidence that waited for its controller may answer to an update that is long forgotten there, and
        // would be refused as a recording: it is signed anew.
        let anew = evidence.run.as_ref();
        let anew = anew.and_then(|run| signer.attest(run, self.challenge));
        if let Some(anew) = anew.and_then(|e| Some((payload_digest(&e)?, e))) {
            (evidence.digest, evidence.envelope) = anew;
            evidence.challenge = self.challenge;
        }
        evidence.result = EvidenceResult::Pending;
        Some(ToController::Evidence {
            envelope: evidence.envelope.clone(),
        })
    }

    /// Evidence that was sent and not answered did not arrive, as far as anybody knows.
    pub(crate) fn handle_lost(&mut self) {
        let pending = self.newest.as_mut();
        let pending = pending.filter(|it| it.result == EvidenceResult::Pending);
        if let Some(evidence) = pending {
            evidence.result = EvidenceResult::Unsent;
        }
    }

    /// Takes the controller's answer; whether it is about the newest evidence.
    pub(crate) fn handle_answer(
        &mut self,
        digest: [u8; 32],
        refused: Option<RefusedEvidence>,
        now: Duration,
    ) -> bool {
        let newest = self.newest.as_mut();
        let Some(evidence) = newest.filter(|it| it.digest == digest) else {
            return false;
        };
        let Some(RefusedEvidence { reason, again }) = refused else {
            evidence.result = EvidenceResult::Accepted;
            return true;
        };
        let pause = match again {
            Again::Never => None,
            Again::Later => Some(evidence.pause()),
            // An evaluator's word cannot be signed anew here.
            Again::Anew if evidence.run.is_none() => None,
            Again::Anew if evidence.challenge != self.challenge => Some(Duration::ZERO),
            Again::Anew => Some(evidence.pause()),
        };
        evidence.result = match pause {
            None => {
                tracing::warn!(%reason, "evidence refused");
                EvidenceResult::Refused(reason)
            }
            Some(pause) => {
                if evidence.put_off == 0 {
                    tracing::warn!(%reason, "evidence refused for now: it is sent again");
                }
                evidence.put_off = evidence.put_off.saturating_add(1);
                let until = now + pause;
                EvidenceResult::PutOff { reason, until }
            }
        };
        true
    }
}

impl Evidence {
    /// How long it waits before it is sent again: twice as long each time, and not as long as that of other
    /// nodes, which were refused at the same moment for the same reason.
    fn pause(&self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.put_off.min(8));
        let [spread, ..] = self.digest;
        doubled.min(LONGEST_PAUSE) * (192 + u32::from(spread) / 2) / 256
    }
}

impl Signer<'_> {
    /// The run as this node's evidence, answering to an update.
    fn attest(&self, run: &Benchmark, challenge: Option<Digest>) -> Option<Vec<u8>> {
        let bound = run.clone().bound_to(self.mesh, challenge);
        let envelope = bound.attest_self(self.name.as_str(), self.identity);
        envelope
            .inspect_err(|error| tracing::warn!(%error, "evidence not sent"))
            .ok()
    }
}

/// Refusals for now take seconds to pass, as an allowance does, or an operator, as a full disk does.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::OsRng;
    use wire::fixtures::{self, MESH};

    struct Bench {
        identity: NodeSecret,
        name: NodeName,
        submissions: Submissions,
        now: Duration,
    }

    impl Bench {
        fn new() -> Self {
            let mut bench = Self {
                identity: NodeSecret::generate(&mut OsRng),
                name: fixtures::member(2).name,
                submissions: Submissions::default(),
                now: Duration::from_secs(1_000),
            };
            bench.submissions.handle_challenge(Digest([1; 32]));
            bench
        }

        fn emit(&mut self, emission: Emission) {
            let (identity, name, mesh) = (&self.identity, &self.name, MESH);
            let signer = Signer {
                identity,
                name,
                mesh,
            };
            let now = Timestamp::from_second(1_700_000_000).unwrap();
            assert!(self.submissions.handle_emission(emission, &signer, now));
        }

        fn run(&mut self) {
            let now = Timestamp::from_second(1_700_000_000).unwrap();
            self.emit(Emission::Run(Box::new(fixtures::run(0.9, now))));
        }

        /// The evidence that is sent, if any is: its digest and its challenge.
        fn sent(&mut self) -> Option<([u8; 32], Option<Digest>)> {
            let (identity, name, mesh) = (&self.identity, &self.name, MESH);
            let signer = Signer {
                identity,
                name,
                mesh,
            };
            match self.submissions.send(&signer, self.now)? {
                ToController::Evidence { envelope } => {
                    let digest = payload_digest(&envelope)?;
                    Some((digest, peek(&envelope)?.challenge))
                }
                _ => panic!("evidence alone"),
            }
        }

        fn refused(&mut self, digest: [u8; 32], again: Again) {
            let reason = "for a reason".to_owned();
            let refused = Some(RefusedEvidence { reason, again });
            assert!(self.submissions.handle_answer(digest, refused, self.now));
        }

        fn result(&self) -> &EvidenceResult {
            &self.submissions.newest().unwrap().result
        }
    }

    #[test]
    fn evidence_that_is_refused_for_now_is_sent_again_later_and_later() {
        let mut bench = Bench::new();
        bench.run();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let (digest, _) = bench.sent().expect("it is due");
            bench.refused(digest, Again::Later);
            assert!(bench.sent().is_none(), "not at once");
            let due = bench.submissions.poll_timeout().unwrap();
            pauses.push((due - bench.now).as_secs_f64());
            bench.now = due;
        }
        assert!((1.5..=2.5).contains(&pauses[0]), "{pauses:?}");
        let bounded = pauses.iter().all(|pause| *pause <= 75.0);
        assert!(bounded && pauses[11] >= 45.0, "{pauses:?}");
        let (digest, _) = bench.sent().unwrap();
        assert!(bench.submissions.handle_answer(digest, None, bench.now));
        assert_eq!(*bench.result(), EvidenceResult::Accepted);
        assert_eq!(bench.submissions.poll_timeout(), None);
    }

    #[test]
    fn a_refusal_that_is_final_or_newer_evidence_ends_it() {
        let mut bench = Bench::new();
        bench.run();
        let (digest, _) = bench.sent().unwrap();
        bench.refused(digest, Again::Later);
        bench.run();
        let (digest, _) = bench.sent().expect("newer evidence waits for nothing");
        bench.refused(digest, Again::Never);
        assert!(matches!(bench.result(), EvidenceResult::Refused(_)));
        bench.now += Duration::from_secs(3_600);
        assert_eq!(bench.sent(), None);
    }

    #[test]
    fn a_challenge_that_the_controller_does_not_know_is_answered_with_another() {
        let mut bench = Bench::new();
        bench.run();
        let (digest, challenge) = bench.sent().unwrap();
        assert_eq!(challenge, Some(Digest([1; 32])));
        bench.submissions.handle_challenge(Digest([2; 32]));
        bench.refused(digest, Again::Anew);
        let (digest, challenge) = bench.sent().expect("at once");
        assert_eq!(challenge, Some(Digest([2; 32])));
        bench.refused(digest, Again::Anew);
        assert_eq!(bench.sent(), None, "nothing has changed");
        bench.now = bench.submissions.poll_timeout().unwrap();
        assert!(bench.sent().is_some());
        // The word of an evaluator is nothing that a node could sign.
        let run = fixtures::run(0.9, Timestamp::from_second(1_700_000_000).unwrap());
        let run = run.bound_to(MESH, Some(Digest([3; 32])));
        let envelope = run.attest_self(bench.name.as_str(), &bench.identity);
        bench.emit(Emission::Envelope(envelope.unwrap()));
        let (digest, _) = bench.sent().unwrap();
        bench.refused(digest, Again::Anew);
        assert!(matches!(bench.result(), EvidenceResult::Refused(_)));
    }
}
