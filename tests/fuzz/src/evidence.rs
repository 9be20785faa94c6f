//! Evidence: only the node's and the evaluator's is believed, and a believed run keeps the rules,
//! has the digest that its envelope announces, and reads back after it is attested again.

use crate::fixed::{EVALUATOR, NODE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::MeshId;
use wire::evidence::{
    Attested, Benchmark, Envelope, EnvelopeSignature, EvidenceError, PAYLOAD_TYPE, Signer,
    payload_digest,
};

/// The mesh that evidence is for.
pub const MESH: MeshId = MeshId([1; 16]);

/// `data` is an envelope as it travels.
pub fn envelope(data: &[u8]) {
    let node = NODE.public();
    let digest = payload_digest(data);
    if let Ok(attested) = Attested::verify(data, &node, MESH, &[EVALUATOR.public()]) {
        assert_eq!(digest, Some(attested.digest()));
        holds(&attested);
    }
    if let Ok(envelope) = serde_json::from_slice::<Envelope>(data) {
        let bytes = serde_json::to_vec(&envelope).expect("an envelope always encodes");
        assert_eq!(payload_digest(&bytes), digest);
    }
}

/// `data` is a statement that the node signed, whatever it is; if it is believed, the evaluator's
/// word for it must be too. (Signing is what limits the rate here: only one per refused input.)
pub fn statement(data: &[u8]) {
    let (node, evaluator) = (NODE.public(), EVALUATOR.public());
    let pae = pae(data);
    let sealed = enclose(data, &NODE.sign_encoded(&pae).0);
    let Ok(self_made) = Attested::verify(&sealed, &node, MESH, &[]) else {
        return;
    };
    assert_eq!(self_made.signer(), Signer::Node(node));
    holds(&self_made);

    let sealed = enclose(data, &EVALUATOR.sign_encoded(&pae).0);
    assert!(Attested::verify(&sealed, &node, MESH, &[]).is_err());
    let vouched = Attested::verify(&sealed, &node, MESH, &[evaluator]).expect("the same statement");
    assert_eq!(vouched.signer(), Signer::Evaluator(evaluator));
    assert_eq!(vouched.digest(), self_made.digest());
}

/// An envelope around bytes that [`Benchmark::attest_self`] might refuse.
pub fn enclose(payload: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    let envelope = Envelope {
        payload_type: PAYLOAD_TYPE.into(),
        payload: STANDARD.encode(payload),
        signatures: vec![EnvelopeSignature {
            keyid: String::new(),
            sig: STANDARD.encode(signature),
        }],
    };
    serde_json::to_vec(&envelope).expect("an envelope always encodes")
}

/// DSSE pre-authentication encoding, written from the specification and not from the product.
pub fn pae(payload: &[u8]) -> Vec<u8> {
    let (type_len, len) = (PAYLOAD_TYPE.len(), payload.len());
    let mut pae = format!("DSSEv1 {type_len} {PAYLOAD_TYPE} {len} ").into_bytes();
    pae.extend_from_slice(payload);
    pae
}

fn holds(attested: &Attested) {
    assert_eq!(*attested.node(), NODE.public());
    let run: &Benchmark = attested.benchmark();
    assert_eq!(run.check(), Ok(()));
    assert!(run.overall.is_none_or(|it| (0.0..=1.0).contains(&it)));
    assert!(run.metrics.values().all(|it| it.is_finite()));
    let envelope = match run.clone().attest_self("node", &NODE) {
        Err(EvidenceError::TooLarge) => return,
        envelope => envelope.expect("a believed run can be attested"),
    };
    let again = Attested::verify(&envelope, &NODE.public(), MESH, &[]).expect("and is believed");
    assert_eq!(again.benchmark(), run);
}
