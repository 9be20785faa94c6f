//! A run's way from the benchmark to the controller's answer: held until there is an update to answer
//! to, signed, sent, sent again after a connection was lost or a refusal that may pass, accepted or refused.
//! Suites do not get in each other's way: of each the newest run is kept, and one is on its way at a time.
//! Judges no score.
//!
//! The file is long because a third of it and more is its tests.

use crate::seen::{SeenRun, SeenRuns};
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
    /// The same from a file, which may come again with another time: its nonce says which run it is.
    Filed(Box<Benchmark>),
    /// Signed already, by an evaluator.
    Envelope(Vec<u8>),
}

/// The newest evidence of one suite.
#[derive(Debug)]
pub struct Evidence {
    /// The program that ran the suite.
    harness: String,
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
    /// One piece for each suite, by when it was handed in: the last is the newest.
    pieces: Vec<Evidence>,
    /// Runs that wait for the first update: without one there is nothing that they could answer to.
    held: Vec<Benchmark>,
    /// The digest of the newest update: evidence answers to it.
    challenge: Option<Digest>,
    /// The runs that came from files.
    seen: SeenRuns,
}

impl Submissions {
    /// No evidence, and the runs that were seen before the start.
    pub(crate) fn new(seen: Vec<SeenRun>) -> Self {
        Self {
            seen: SeenRuns::new(seen),
            ..Self::default()
        }
    }

    pub(crate) fn newest(&self) -> Option<&Evidence> {
        self.pieces.last()
    }

    /// The runs that have come from files, if there is another one since the last call.
    pub(crate) fn poll_seen(&mut self) -> Option<Vec<SeenRun>> {
        self.seen.poll()
    }

    /// Takes a run; whether it can be handed in.
    pub(crate) fn handle_emission(
        &mut self,
        emission: Emission,
        signer: &Signer<'_>,
        now: Timestamp,
    ) -> bool {
        let (envelope, run) = match emission {
            Emission::Envelope(envelope) => (envelope, None),
            Emission::Run(run) => match self.signed(run, signer) {
                Some((envelope, run)) => (envelope, Some(run)),
                None => return false,
            },
            Emission::Filed(mut run) => {
                self.seen.handle_run(&mut run);
                let is_here = |it: &Evidence| it.run.as_ref().is_some_and(|had| had == &run);
                if self.pieces.iter().any(is_here) {
                    return false;
                }
                match self.signed(run, signer) {
                    Some((envelope, run)) => (envelope, Some(run)),
                    None => return false,
                }
            }
        };
        let Some((said, digest)) = peek(&envelope).zip(payload_digest(&envelope)) else {
            tracing::warn!("evidence not sent: the envelope holds no benchmark statement");
            return false;
        };
        let is_other = |it: &Evidence| (&it.harness, &it.suite) != (&said.harness, &said.suite);
        self.pieces.retain(is_other);
        if self.pieces.len() >= MAX_SUITES {
            self.pieces.remove(0);
        }
        self.pieces.push(Evidence {
            harness: said.harness,
            overall: said.overall,
            suite: said.suite,
            suite_version: said.suite_version,
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

    /// A run as evidence; `None`: it waits for the first update, or breaks a rule.
    fn signed(
        &mut self,
        run: Box<Benchmark>,
        signer: &Signer<'_>,
    ) -> Option<(Vec<u8>, Box<Benchmark>)> {
        if self.challenge.is_some() {
            let envelope = signer.attest(&run, self.challenge)?;
            return Some((envelope, run));
        }
        self.held
            .retain(|it| (&it.harness, &it.suite) != (&run.harness, &run.suite));
        if self.held.len() < MAX_SUITES {
            self.held.push(*run);
        }
        None
    }

    /// Evidence answers to this update from now on; the runs that were held for one.
    pub(crate) fn handle_challenge(&mut self, update: Digest) -> Vec<Benchmark> {
        self.challenge = Some(update);
        std::mem::take(&mut self.held)
    }

    /// When evidence that was refused for now is due again.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        if self.is_one_on_its_way() {
            return None;
        }
        self.pieces.iter().filter_map(Evidence::put_off_until).min()
    }

    /// The evidence that waits, as it is to be sent: one piece, and the next when that was answered.
    pub(crate) fn send(&mut self, signer: &Signer<'_>, now: Duration) -> Option<ToController> {
        if self.is_one_on_its_way() {
            return None;
        }
        let is_due = |it: &&mut Evidence| {
            let until = it.put_off_until();
            it.result == EvidenceResult::Unsent || until.is_some_and(|until| until <= now)
        };
        let evidence = self.pieces.iter_mut().find(is_due)?;
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

    fn is_one_on_its_way(&self) -> bool {
        let mut pieces = self.pieces.iter();
        pieces.any(|it| it.result == EvidenceResult::Pending)
    }

    /// Evidence that was sent and not answered did not arrive, as far as anybody knows.
    pub(crate) fn handle_lost(&mut self) {
        let pieces = self.pieces.iter_mut();
        for evidence in pieces.filter(|it| it.result == EvidenceResult::Pending) {
            evidence.result = EvidenceResult::Unsent;
        }
    }

    /// Takes the controller's answer; whether it is about evidence that is still the newest of its suite.
    pub(crate) fn handle_answer(
        &mut self,
        digest: [u8; 32],
        refused: Option<RefusedEvidence>,
        now: Duration,
    ) -> bool {
        let mut pieces = self.pieces.iter_mut();
        let Some(evidence) = pieces.find(|it| it.digest == digest) else {
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
                tracing::warn!(%reason, suite = evidence.suite, "evidence refused");
                EvidenceResult::Refused(reason)
            }
            Some(pause) => {
                if evidence.put_off == 0 {
                    tracing::warn!(%reason, suite = evidence.suite, "evidence refused for now: it is sent again");
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
    fn put_off_until(&self) -> Option<Duration> {
        match self.result {
            EvidenceResult::PutOff { until, .. } => Some(until),
            EvidenceResult::Unsent
            | EvidenceResult::Pending
            | EvidenceResult::Accepted
            | EvidenceResult::Refused(_) => None,
        }
    }

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
/// Most suites of which the newest evidence is kept: as many as one file may have.
const MAX_SUITES: usize = 64;

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

    fn of_suite(suite: &str, finished: i64) -> Benchmark {
        let finished = Timestamp::from_second(finished).unwrap();
        let mut run = fixtures::run(0.9, finished);
        run.suite = suite.to_owned();
        run.nonce = format!("{:032x}", u64::try_from(suite.len()).unwrap());
        run
    }

    fn suite_sent(bench: &mut Bench) -> Option<(String, [u8; 32])> {
        let (digest, _) = bench.sent()?;
        let mut pieces = bench.submissions.pieces.iter();
        let sent = pieces.find(|it| it.digest == digest).unwrap();
        Some((sent.suite.clone(), digest))
    }

    #[test]
    fn suites_wait_for_each_other_and_not_instead_of_each_other() {
        let mut bench = Bench::new();
        for suite in ["a", "bb", "ccc", "a"] {
            bench.emit(Emission::Run(Box::new(of_suite(suite, 1_000))));
        }
        let (suite, digest) = suite_sent(&mut bench).unwrap();
        assert_eq!(
            (suite.as_str(), bench.sent()),
            ("bb", None),
            "one at a time"
        );
        bench.refused(digest, Again::Later);
        let (suite, digest) = suite_sent(&mut bench).unwrap();
        assert_eq!(suite, "ccc", "a refusal for now holds up no other suite");
        assert!(bench.submissions.handle_answer(digest, None, bench.now));
        let (suite, digest) = suite_sent(&mut bench).unwrap();
        assert_eq!(suite, "a", "once, with its newer run");
        bench.submissions.handle_lost();
        let (_, again) = suite_sent(&mut bench).unwrap();
        assert_eq!(again, digest, "sent again after the connection was lost");
        assert!(bench.submissions.handle_answer(digest, None, bench.now));
        assert_eq!(bench.sent(), None);
        bench.now = bench.submissions.poll_timeout().unwrap();
        assert_eq!(suite_sent(&mut bench).unwrap().0, "bb");
    }

    #[test]
    fn runs_of_several_suites_are_held_for_the_first_update() {
        let mut bench = Bench::new();
        bench.submissions.challenge = None;
        let (identity, name, mesh) = (&bench.identity, &bench.name, MESH);
        let signer = Signer {
            identity,
            name,
            mesh,
        };
        for suite in ["a", "bb", "a"] {
            let run = Emission::Run(Box::new(of_suite(suite, 1_000)));
            let now = Timestamp::from_second(1_000).unwrap();
            assert!(!bench.submissions.handle_emission(run, &signer, now));
        }
        let held = bench.submissions.handle_challenge(Digest([1; 32]));
        let suites: Vec<&str> = held.iter().map(|run| run.suite.as_str()).collect();
        assert_eq!(suites, ["bb", "a"]);
    }

    #[test]
    fn a_run_from_a_file_keeps_the_time_at_which_it_was_seen_first() {
        let mut bench = Bench::new();
        let filed = |finished| Emission::Filed(Box::new(of_suite("a", finished)));
        bench.emit(filed(1_000));
        let remembered = bench.submissions.poll_seen().unwrap();
        assert_eq!(bench.submissions.poll_seen(), None, "nothing new");
        let (identity, name, mesh) = (&bench.identity, &bench.name, MESH);
        let signer = Signer {
            identity,
            name,
            mesh,
        };
        let now = Timestamp::from_second(5_000).unwrap();
        let touched = bench
            .submissions
            .handle_emission(filed(5_000), &signer, now);
        assert!(!touched, "the file was touched: the run is the same");

        let mut after = Bench::new();
        after.submissions = Submissions::new(remembered);
        after.submissions.handle_challenge(Digest([1; 32]));
        after.emit(filed(5_000));
        let run = after.submissions.newest().unwrap().run.clone().unwrap();
        assert_eq!(run.finished_at.as_second(), 1_000, "after a restart too");
        assert!(run.started_at <= run.finished_at);
        assert_eq!(after.submissions.poll_seen(), None);
    }
}
