//! The DSSE envelope, and how a run gets into one: as the node's own word or as an evaluator's.

use super::{
    Benchmark, EvidenceError, MAX_ENVELOPE_LEN, PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE,
    Statement, Subject,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::{EvaluatorSecret, NodeId, NodeSecret, Signature};
use serde::{Deserialize, Serialize};

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

impl Benchmark {
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
            subject: vec![Subject::of(name, node)],
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

/// DSSE pre-authentication encoding, `DSSEv1 SP len(type) SP type SP len(body) SP body`.
pub(super) fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut pae = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    pae.extend_from_slice(payload);
    pae
}
