//! Evidence: a DSSE envelope around an in-toto Statement v1 with meshd's benchmark predicate.
//!
//! DSSE: <https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>. The signature is over
//! the pre-authentication encoding (PAE) of payload type and payload; the payload is parsed only
//! after it verifies, and the parsed bytes are the verified ones. `keyid` is a hint and is ignored.
//! In-toto Statement v1: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>.
//!
//! A third of the file is its tests.

use crate::signed::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use keys::{EvaluatorId, EvaluatorSecret, MeshId, NodeId, NodeSecret, Signature};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Longest envelope that is read, in bytes.
pub const MAX_ENVELOPE_LEN: usize = 64 << 10;
/// Most signatures that are tried.
pub const MAX_SIGNATURES: usize = 4;
/// Most metrics in a predicate.
pub const MAX_METRICS: usize = 256;
/// Longest text field of a predicate, in bytes.
pub const MAX_TEXT_LEN: usize = 128;

/// DSSE payload type of an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// In-toto statement type.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// meshd's benchmark predicate.
pub const PREDICATE_TYPE: &str = "urn:meshd:attestation:benchmark:v1";

/// A DSSE envelope.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    /// [`PAYLOAD_TYPE`].
    pub payload_type: String,
    /// The statement, base64.
    pub payload: String,
    /// One or more signatures over the PAE.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an [`Envelope`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// Unauthenticated hint which key signed.
    #[serde(default)]
    pub keyid: String,
    /// Ed25519 signature, base64.
    pub sig: String,
}

/// An in-toto statement about one node. Unknown fields are refused, not passed over: what is accepted is
/// kept as it was signed, and nobody shall keep there what no rule looks at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The node that was measured; exactly one.
    pub subject: Vec<Subject>,
    /// [`PREDICATE_TYPE`].
    pub predicate_type: String,
    /// The measurements.
    pub predicate: Benchmark,
}

/// Whom a statement is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The node's name; informative.
    pub name: String,
    /// `sha256`: hex of SHA-256 of the 32 bytes of the node's public identity key.
    pub digest: BTreeMap<String, String>,
}

/// The benchmark predicate: one finished run of one suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Benchmark {
    /// The program that ran the suite.
    pub harness: String,
    /// The suite.
    pub suite: String,
    /// The suite's version.
    pub suite_version: String,
    /// Score per metric, each from 0 to 1.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// The run's score, from 0 to 1.
    pub overall: f64,
    /// How many samples the suite has.
    pub samples_total: u64,
    /// How many of them were completed; less than all is a partial run and is refused.
    pub samples_completed: u64,
    /// When the run started (RFC 3339).
    pub started_at: Timestamp,
    /// When the run finished (RFC 3339): the time that counts for the evidence's age.
    pub finished_at: Timestamp,
    /// 16 to 64 hex digits, never used twice by one node.
    pub nonce: String,
    /// `sha256:…` of the harness's raw log, if it keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_digest: Option<String>,
    /// The mesh that it is for, as printed. A result as a harness writes it has none yet; evidence without
    /// one counts nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "printed")]
    pub mesh: Option<MeshId>,
    /// The digest of an epoch update, as printed: the statement was signed after that update was. Without
    /// one, evidence could have been signed in advance.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "printed")]
    pub challenge: Option<Digest>,
}

/// A party that vouches for evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signer {
    /// The node itself.
    Node(NodeId),
    /// An evaluator.
    Evaluator(EvaluatorId),
}

/// Proof that `signer` signed this well-formed evidence about `node`.
#[derive(Debug, Clone)]
pub struct Attested {
    benchmark: Benchmark,
    node: NodeId,
    signer: Signer,
    digest: [u8; 32],
}

/// Why evidence is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EvidenceError {
    /// Over [`MAX_ENVELOPE_LEN`].
    #[error("the envelope is over {MAX_ENVELOPE_LEN} bytes")]
    TooLarge,
    /// Not a DSSE envelope, or not of an in-toto statement.
    #[error("not a DSSE envelope of an in-toto statement")]
    Envelope,
    /// No signature in it is by the node or by a known evaluator.
    #[error("no signature by the node or by a known evaluator")]
    Signature,
    /// The payload is not a statement with the benchmark predicate.
    #[error("not a benchmark statement of a known version, or one with a field that is not known")]
    Statement,
    /// The statement is about another node.
    #[error("the statement is about another node")]
    Subject,
    /// The statement is for another mesh, or for none.
    #[error("the statement does not name this mesh")]
    Mesh,
    /// A field breaks a rule.
    #[error("{0}")]
    Field(&'static str),
}

impl Benchmark {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// Names the first rule that does not hold.
    pub fn check(&self) -> Result<(), EvidenceError> {
        let unit = |score: f64| (0.0..=1.0).contains(&score);
        let text =
            |t: &str| !t.is_empty() && t.len() <= MAX_TEXT_LEN && !t.chars().any(char::is_control);
        let nonce = &self.nonce;
        let rules = [
            (
                [&self.harness, &self.suite, &self.suite_version]
                    .iter()
                    .all(|t| text(t)),
                "harness, suite and version must be 1 to 128 bytes of text",
            ),
            (self.metrics.len() <= MAX_METRICS, "too many metrics"),
            (
                self.metrics.keys().all(|name| text(name)),
                "a metric's name must be 1 to 128 bytes of text",
            ),
            (
                self.metrics.values().all(|score| unit(*score)),
                "a metric is not between 0 and 1",
            ),
            (
                unit(self.overall),
                "the overall score is not between 0 and 1",
            ),
            (self.samples_total > 0, "a run without samples"),
            (
                self.samples_completed == self.samples_total,
                "a partial run",
            ),
            (
                self.started_at <= self.finished_at,
                "finished before it started",
            ),
            (
                (16..=64).contains(&nonce.len()) && nonce.bytes().all(|b| b.is_ascii_hexdigit()),
                "the nonce is not 16 to 64 hex digits",
            ),
            (
                self.log_digest.as_ref().is_none_or(|d| text(d)),
                "the log digest must be 1 to 128 bytes of text",
            ),
        ];
        rules
            .iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, rule)| Err(EvidenceError::Field(rule)))
    }

    /// The run for one mesh, after `challenge` was published.
    #[must_use]
    pub fn bound_to(mut self, mesh: MeshId, challenge: Option<Digest>) -> Self {
        (self.mesh, self.challenge) = (Some(mesh), challenge);
        self
    }

    /// Wraps the run in a statement about `node` and signs it as that node.
    ///
    /// # Errors
    /// When the run breaks a rule of [`Self::check`].
    pub fn attest_self(self, name: &str, node: &NodeSecret) -> Result<Vec<u8>, EvidenceError> {
        self.attest(name, &node.public(), &node.public().to_string(), |pae| {
            node.sign_encoded(pae)
        })
    }

    /// Wraps the run in a statement about `node` and signs it as an evaluator.
    ///
    /// # Errors
    /// When the run breaks a rule of [`Self::check`].
    pub fn attest_as(
        self,
        name: &str,
        node: &NodeId,
        evaluator: &EvaluatorSecret,
    ) -> Result<Vec<u8>, EvidenceError> {
        self.attest(name, node, &evaluator.public().to_string(), |pae| {
            evaluator.sign_encoded(pae)
        })
    }

    fn attest(
        self,
        name: &str,
        node: &NodeId,
        keyid: &str,
        sign: impl Fn(&[u8]) -> Signature,
    ) -> Result<Vec<u8>, EvidenceError> {
        self.check()?;
        let statement = Statement {
            statement_type: STATEMENT_TYPE.into(),
            subject: vec![Subject {
                name: name.into(),
                digest: subject_digest(node),
            }],
            predicate_type: PREDICATE_TYPE.into(),
            predicate: self,
        };
        let payload = serde_json::to_vec(&statement).map_err(|_| EvidenceError::Statement)?;
        let sig = STANDARD.encode(sign(&pae(PAYLOAD_TYPE, &payload)).0);
        let envelope = Envelope {
            payload_type: PAYLOAD_TYPE.into(),
            payload: STANDARD.encode(&payload),
            signatures: vec![EnvelopeSignature {
                keyid: keyid.into(),
                sig,
            }],
        };
        let bytes = serde_json::to_vec(&envelope).map_err(|_| EvidenceError::Envelope)?;
        if bytes.len() > MAX_ENVELOPE_LEN {
            Err(EvidenceError::TooLarge)
        } else {
            Ok(bytes)
        }
    }
}

impl Attested {
    /// Believes an envelope about `node` for `mesh` if the node or one of `evaluators` signed it.
    ///
    /// # Errors
    /// [`EvidenceError`]; nothing of the payload is parsed before its signature verifies.
    pub fn verify(
        envelope: &[u8],
        node: &NodeId,
        mesh: MeshId,
        evaluators: &[EvaluatorId],
    ) -> Result<Self, EvidenceError> {
        if envelope.len() > MAX_ENVELOPE_LEN {
            return Err(EvidenceError::TooLarge);
        }
        let envelope: Envelope =
            serde_json::from_slice(envelope).map_err(|_| EvidenceError::Envelope)?;
        if envelope.payload_type != PAYLOAD_TYPE || envelope.signatures.len() > MAX_SIGNATURES {
            return Err(EvidenceError::Envelope);
        }
        let payload = STANDARD
            .decode(&envelope.payload)
            .map_err(|_| EvidenceError::Envelope)?;
        let pae = pae(&envelope.payload_type, &payload);
        let signer = envelope
            .signatures
            .iter()
            .find_map(|s| signer_of(s, &pae, node, evaluators));
        let signer = signer.ok_or(EvidenceError::Signature)?;

        let statement: Statement =
            serde_json::from_slice(&payload).map_err(|_| EvidenceError::Statement)?;
        if statement.statement_type != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE
        {
            return Err(EvidenceError::Statement);
        }
        match statement.subject.as_slice() {
            [subject] if subject.digest == subject_digest(node) => {}
            _ => return Err(EvidenceError::Subject),
        }
        if statement.predicate.mesh != Some(mesh) {
            return Err(EvidenceError::Mesh);
        }
        statement.predicate.check()?;
        let digest = Sha256::digest(&payload).into();
        Ok(Self {
            benchmark: statement.predicate,
            node: *node,
            signer,
            digest,
        })
    }

    /// The measurements.
    pub fn benchmark(&self) -> &Benchmark {
        &self.benchmark
    }

    /// The node that it is about.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The party that vouches for it.
    pub fn signer(&self) -> Signer {
        self.signer
    }

    /// SHA-256 of the payload.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// SHA-256 of an envelope's payload without believing it: to match a result to what was sent.
pub fn payload_digest(envelope: &[u8]) -> Option<[u8; 32]> {
    let envelope: Envelope = serde_json::from_slice(envelope).ok()?;
    Some(Sha256::digest(STANDARD.decode(envelope.payload).ok()?).into())
}

/// The content of an envelope, without believing it: for the sender, to show what it sends.
pub fn peek(envelope: &[u8]) -> Option<Benchmark> {
    let envelope: Envelope = serde_json::from_slice(envelope).ok()?;
    let payload = STANDARD.decode(envelope.payload).ok()?;
    let statement: Statement = serde_json::from_slice(&payload).ok()?;
    statement.predicate.check().ok()?;
    Some(statement.predicate)
}

fn signer_of(
    signature: &EnvelopeSignature,
    pae: &[u8],
    node: &NodeId,
    evaluators: &[EvaluatorId],
) -> Option<Signer> {
    let bytes: [u8; 64] = STANDARD.decode(&signature.sig).ok()?.try_into().ok()?;
    let signature = Signature(bytes);
    if node.verifies_encoded(pae, &signature) {
        return Some(Signer::Node(*node));
    }
    evaluators
        .iter()
        .find(|e| e.verifies_encoded(pae, &signature))
        .map(|e| Signer::Evaluator(*e))
}

/// DSSE pre-authentication encoding, `DSSEv1 SP len(type) SP type SP len(body) SP body`.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut pae = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    pae.extend_from_slice(payload);
    pae
}

fn subject_digest(node: &NodeId) -> BTreeMap<String, String> {
    let hex = Sha256::digest(node.0)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    BTreeMap::from([("sha256".to_owned(), hex)])
}

/// A value that prints and parses, as text; its absence as no field.
mod printed {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(super) fn serialize<S: Serializer>(
        value: &Option<impl Display>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        let text = String::deserialize(from)?;
        text.parse().map(Some).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use proptest::prelude::*;
    use rand_core::OsRng;

    const MESH: MeshId = MeshId([5; 16]);

    fn run() -> Benchmark {
        Benchmark {
            metrics: BTreeMap::from([("refusal".into(), 0.9)]),
            samples_total: 10,
            samples_completed: 10,
            started_at: Timestamp::from_second(1_000).unwrap(),
            mesh: Some(MESH),
            challenge: Some(Digest([7; 32])),
            ..fixtures::run(0.9, Timestamp::from_second(1_010).unwrap())
        }
    }

    #[test]
    fn a_nodes_own_evidence_is_attested_to_it_alone() {
        let (node, other) = (
            NodeSecret::generate(&mut OsRng),
            NodeSecret::generate(&mut OsRng),
        );
        let envelope = run().attest_self("node-a", &node).unwrap();
        let attested = Attested::verify(&envelope, &node.public(), MESH, &[]).unwrap();
        assert_eq!(attested.benchmark(), &run());
        assert_eq!(attested.signer(), Signer::Node(node.public()));
        assert_eq!(
            Attested::verify(&envelope, &other.public(), MESH, &[]).unwrap_err(),
            EvidenceError::Signature
        );
    }

    #[test]
    fn an_evaluator_counts_only_where_it_is_named_and_only_for_its_subject() {
        let node = NodeSecret::generate(&mut OsRng).public();
        let other = NodeSecret::generate(&mut OsRng).public();
        let evaluator = EvaluatorSecret::generate(&mut OsRng);
        let envelope = run().attest_as("node-a", &node, &evaluator).unwrap();
        let known = [evaluator.public()];
        assert_eq!(
            Attested::verify(&envelope, &node, MESH, &known)
                .unwrap()
                .signer(),
            Signer::Evaluator(evaluator.public())
        );
        assert_eq!(
            Attested::verify(&envelope, &node, MESH, &[]).unwrap_err(),
            EvidenceError::Signature
        );
        assert_eq!(
            Attested::verify(&envelope, &other, MESH, &known).unwrap_err(),
            EvidenceError::Subject
        );
    }

    #[test]
    fn evidence_for_one_mesh_or_for_none_does_not_count_in_another() {
        let node = NodeSecret::generate(&mut OsRng);
        let of = |run: Benchmark| run.attest_self("n", &node).unwrap();
        let verify = |envelope: &[u8], mesh| {
            Attested::verify(envelope, &node.public(), mesh, &[]).map(|attested| attested.digest())
        };
        let bound = of(run());
        assert!(verify(&bound, MESH).is_ok());
        assert_eq!(verify(&bound, MeshId([6; 16])), Err(EvidenceError::Mesh));
        let unbound = of(Benchmark {
            mesh: None,
            ..run()
        });
        assert_eq!(verify(&unbound, MESH), Err(EvidenceError::Mesh));
    }

    #[test]
    fn what_no_rule_looks_at_is_refused_at_every_level() {
        let node = NodeSecret::generate(&mut OsRng);
        let envelope = run().attest_self("n", &node).unwrap();
        let envelope: serde_json::Value = serde_json::from_slice(&envelope).unwrap();
        let statement: serde_json::Value = {
            let payload = STANDARD.decode(envelope["payload"].as_str().unwrap());
            serde_json::from_slice(&payload.unwrap()).unwrap()
        };
        let signed = |statement: &serde_json::Value| {
            let payload = serde_json::to_vec(statement).unwrap();
            let sig = STANDARD.encode(node.sign_encoded(&pae(PAYLOAD_TYPE, &payload)).0);
            serde_json::json!({
                "payloadType": PAYLOAD_TYPE,
                "payload": STANDARD.encode(&payload),
                "signatures": [{ "sig": sig }],
            })
        };
        let verify = |envelope: &serde_json::Value| {
            let bytes = serde_json::to_vec(envelope).unwrap();
            Attested::verify(&bytes, &node.public(), MESH, &[]).map(|_| ())
        };
        assert_eq!(verify(&signed(&statement)), Ok(()));
        for at in ["", "/subject/0", "/predicate"] {
            let mut padded = statement.clone();
            padded.pointer_mut(at).unwrap()["pad"] = "x".repeat(1_000).into();
            assert_eq!(verify(&signed(&padded)), Err(EvidenceError::Statement));
        }
        for at in ["", "/signatures/0"] {
            let mut padded = signed(&statement);
            padded.pointer_mut(at).unwrap()["pad"] = "x".into();
            assert_eq!(verify(&padded), Err(EvidenceError::Envelope));
        }
    }

    #[test]
    fn runs_that_prove_nothing_are_refused() {
        let node = NodeSecret::generate(&mut OsRng);
        type Breakage = (fn(&mut Benchmark), &'static str);
        let breakages: [Breakage; 5] = [
            (
                |r| r.overall = f64::NAN,
                "the overall score is not between 0 and 1",
            ),
            (
                |r| r.overall = 1.01,
                "the overall score is not between 0 and 1",
            ),
            (|r| r.samples_completed = 9, "a partial run"),
            (
                |r| r.finished_at = Timestamp::from_second(999).unwrap(),
                "finished before it started",
            ),
            (
                |r| r.nonce = "xyz".into(),
                "the nonce is not 16 to 64 hex digits",
            ),
        ];
        for (breakage, rule) in breakages {
            let mut broken = run();
            breakage(&mut broken);
            assert_eq!(
                broken.attest_self("n", &node).unwrap_err(),
                EvidenceError::Field(rule)
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_evidence_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(Attested::verify(&bytes, &NodeId([1; 32]), MESH, &[]).is_err());
        }

        #[test]
        fn a_changed_payload_is_noticed(at in 0usize..400, bit in 0u8..8) {
            let node = NodeSecret::generate(&mut OsRng);
            let mut envelope: Envelope = serde_json::from_slice(&run().attest_self("n", &node).unwrap()).unwrap();
            let mut payload = STANDARD.decode(&envelope.payload).unwrap();
            let at = at % payload.len();
            payload[at] ^= 1 << bit;
            envelope.payload = STANDARD.encode(&payload);
            let bytes = serde_json::to_vec(&envelope).unwrap();
            prop_assert!(Attested::verify(&bytes, &node.public(), MESH, &[]).is_err());
        }
    }
}
