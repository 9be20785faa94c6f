//! Verified evidence: nothing of a payload is parsed before a signature over it verifies.

use super::envelope::{Envelope, EnvelopeSignature, pae};
use super::{
    Benchmark, EvidenceError, MAX_ENVELOPE_LEN, MAX_SIGNATURES, PAYLOAD_TYPE, PREDICATE_TYPE,
    STATEMENT_TYPE, Statement,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::{EvaluatorId, MeshId, NodeId, Signature};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

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
            [subject] if subject.is(node) => {}
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
    let run = peek_statement(envelope)?.predicate;
    run.check().ok()?;
    Some(run)
}

/// The statement in an envelope, without believing it or its rules: for whoever brings it on its way.
pub fn peek_statement(envelope: &[u8]) -> Option<Statement> {
    let envelope: Envelope = serde_json::from_slice(envelope).ok()?;
    let payload = STANDARD.decode(envelope.payload).ok()?;
    serde_json::from_slice(&payload).ok()
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
