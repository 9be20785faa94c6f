//! A run's way from the benchmark to the controller's answer: held until there is an update to answer
//! to, signed, sent, sent again after a connection was lost, accepted or refused. Judges no score.

use jiff::Timestamp;
use keys::{MeshId, NodeSecret};
use wire::evidence::{Benchmark, payload_digest, peek};
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
    /// The overall score.
    pub overall: f64,
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
    /// It did not, for this reason.
    Refused(String),
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
            run,
            envelope,
            digest,
        });
        true
    }

    /// Evidence answers to this update from now on; a run that was held for one.
    pub(crate) fn handle_challenge(&mut self, update: Digest) -> Option<Box<Benchmark>> {
        self.challenge = Some(update);
        self.held.take()
    }

    /// The evidence that waits, as it is to be sent.
    pub(crate) fn send(&mut self, signer: &Signer<'_>) -> Option<ToController> {
        let evidence = self.newest.as_mut()?;
        if evidence.result != EvidenceResult::Unsent {
            return None;
        }
        // Evidence that waited for its controller may answer to an update that is long forgotten there, and
        // would be refused as a recording: it is signed anew.
        let anew = evidence.run.as_ref();
        let anew = anew.and_then(|run| signer.attest(run, self.challenge));
        if let Some(anew) = anew.and_then(|e| Some((payload_digest(&e)?, e))) {
            (evidence.digest, evidence.envelope) = anew;
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
    pub(crate) fn handle_answer(&mut self, digest: [u8; 32], refused: Option<String>) -> bool {
        let newest = self.newest.as_mut();
        let Some(evidence) = newest.filter(|it| it.digest == digest) else {
            return false;
        };
        evidence.result = match refused {
            None => EvidenceResult::Accepted,
            Some(reason) => {
                tracing::warn!(%reason, "evidence refused");
                EvidenceResult::Refused(reason)
            }
        };
        true
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
