//! Evidence is believed of its signer, for its subject and mesh, and as it was signed.

use super::envelope::pae;
use super::*;
use crate::fixtures;
use crate::signed::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use keys::{EvaluatorSecret, MeshId, NodeId, NodeSecret};
use proptest::prelude::*;
use rand_core::OsRng;
use std::collections::BTreeMap;

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
fn runs_that_prove_nothing_are_refused_by_field_and_value() {
    let node = NodeSecret::generate(&mut OsRng);
    type Breakage = (fn(&mut Benchmark), &'static str);
    let breakages: [Breakage; 12] = [
        (
            |r| r.overall = Some(f64::NAN),
            "`overall` is NaN: not between 0 and 1",
        ),
        (
            |r| r.overall = Some(1.01),
            "`overall` is 1.01: not between 0 and 1",
        ),
        (
            |r| (r.overall, r.metrics) = (None, BTreeMap::new()),
            "`metrics` is empty: nothing measured, because `overall` is missing too",
        ),
        (
            |r| r.metrics = BTreeMap::from([("acc,none".into(), f64::INFINITY)]),
            "`metrics.acc,none` is inf: not a finite number",
        ),
        (
            |r| r.metrics = BTreeMap::from([("a\nb".into(), 0.5)]),
            "`metrics` is \"a\\nb\": not 1 to 128 bytes of text without control characters",
        ),
        (
            |r| r.lower_is_better = ["loss".into()].into(),
            "`lowerIsBetter` is \"loss\": not a name in `metrics`",
        ),
        (
            |r| r.suite = String::new(),
            "`suite` is \"\": not 1 to 128 bytes of text without control characters",
        ),
        (
            |r| r.model = Some("x".repeat(129)),
            "`model` is \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"…: not 1 to 128 bytes of text without \
             control characters",
        ),
        (
            |r| r.samples_total = 0,
            "`samplesTotal` is 0: a run without samples",
        ),
        (
            |r| r.samples_completed = 9,
            "`samplesCompleted` is 9: a partial run, because it differs from `samplesTotal`",
        ),
        (
            |r| r.finished_at = Timestamp::from_second(999).unwrap(),
            "`finishedAt` is 1970-01-01T00:16:39Z: before `startedAt`",
        ),
        (
            |r| r.nonce = "xyz".into(),
            "`nonce` is \"xyz\": not 16 to 64 hex digits",
        ),
    ];
    for (breakage, message) in breakages {
        let mut broken = run();
        breakage(&mut broken);
        let error = broken.attest_self("n", &node).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_run_of_a_harness_has_metrics_of_any_size_and_no_score_of_the_whole() {
    let node = NodeSecret::generate(&mut OsRng);
    let metrics = [("perplexity,none", 31.7), ("logit", -4.5e-7)];
    let harness = Benchmark {
        overall: None,
        metrics: metrics.map(|(name, value)| (name.into(), value)).into(),
        lower_is_better: ["perplexity,none".into()].into(),
        harness_version: Some("0.4.13".into()),
        model: Some("dummy".into()),
        ..run()
    };
    let envelope = harness.clone().attest_self("n", &node).unwrap();
    let attested = Attested::verify(&envelope, &node.public(), MESH, &[]).unwrap();
    assert_eq!(attested.benchmark(), &harness);
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
