//! The inputs that every run starts from: one well-formed example of each thing, made by the
//! product's own encoders. `cargo run --example seeds` writes them; a test compares.
//!
//! The file is long because it is a list.

use crate::fixed::{AUTHORITY, EVALUATOR, NODE};
use crate::{
    engines, evidence, frames, gates, ledgers, names, offloads, results, tokens, tunnels, updates,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keys::{
    AuthorityId, ControllerId, Epoch, EpochSecret, MeshId, NodeId, SegmentId, TokenSecret,
    WgPublicKey,
};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use wire::evidence::{Benchmark, Envelope};
use wire::frame::{self, Frame};
use wire::instance::{Duplicate, Seen};
use wire::log::{LogEnd, LogNews, LogRestored};
use wire::message::{
    Again, Enrol, Hello, InterfaceReport, NodeFault, NodeFaultKind, PeerReport, Phase, Refusal,
    RefusedEvidence, TunnelReport, Update,
};
use wire::signed::Digest;
use wire::{
    EpochUpdate, Excluded, Mark, Place, Signed, Succession, ToController, ToNode, Token, Way,
    fixtures,
};

/// A fuzz target with its seeds.
pub struct Target {
    /// Name of the target, of its folder under `seeds/` and of its binary.
    pub name: &'static str,
    /// The function that the target runs.
    pub run: fn(&[u8]),
    /// File name and content.
    pub seeds: Vec<(String, Vec<u8>)>,
}

/// Every target.
pub fn all() -> Vec<Target> {
    let target = |name, run, seeds: Vec<Vec<u8>>| Target {
        name,
        run,
        seeds: (0..).map(|n: u32| format!("{n:02}")).zip(seeds).collect(),
    };
    let signed = Signed::sign(&update(), &AUTHORITY).expect("the update keeps the rules");
    let (by_node, by_evaluator) = (
        run().attest_self("node-1", &NODE),
        run().attest_as("node-1", &NODE.public(), &EVALUATOR),
    );
    let evidence = [by_node, by_evaluator].map(|e| e.expect("the run keeps the rules"));
    let token = token().expose().as_bytes().to_vec();
    vec![
        target(
            "to_controller",
            frames::to_controller,
            framed(to_controller()),
        ),
        target("to_node", frames::to_node, framed(to_node())),
        target("update_envelope", updates::envelope, vec![encoded(&signed)]),
        target("update_payload", updates::payload, vec![encoded(&update())]),
        target(
            "evidence_statement",
            evidence::statement,
            vec![statement(&evidence[0])],
        ),
        target("evidence_envelope", evidence::envelope, evidence.to_vec()),
        target("token_body", tokens::body, vec![token_body(&token)]),
        target("token_text", tokens::text, vec![token]),
        target("ledger_inclusion", ledgers::inclusion, statements()),
        target("ledger_consistency", ledgers::consistency, statements()),
        target("ledger_note", ledgers::note, notes()),
        target("ledger_checkpoint", ledgers::checkpoint, checkpoints()),
        target("names_question", names::question, names::questions()),
        target("names_hosts_file", names::hosts_file, names::hosts_files()),
        target("result_own", results::own, vec![own_result()]),
        target(
            "result_inspect",
            results::inspect,
            fixtures_of(&[
                "inspect/one-sample.eval",
                "inspect/refusal-deflate.eval",
                "inspect/limit.eval",
            ]),
        ),
        target(
            "inspect_header",
            results::inspect_header,
            vec![HEADER.to_vec()],
        ),
        target(
            "result_lm_eval",
            results::lm_eval,
            fixtures_of(&[
                "lm-eval/results.json",
                "lm-eval/results-limit.json",
                "lm-eval/results-group.json",
            ]),
        ),
        target(
            "result_junit",
            results::junit,
            [
                fixtures_of(&["junit/pytest.xml", "junit/node.xml", "junit/nextest.xml"]),
                vec![b"0\n".to_vec()],
            ]
            .concat(),
        ),
        target("offload_split", offloads::split, super_packets()),
        target("offload_coalesce", offloads::coalesce, instructions()),
        target("gate_packets", gates::packets, conversations()),
        target("engine_sequence", engines::sequence, lives()),
        target("tunnel_datagram", tunnels::datagram, datagrams()),
        target("tunnel_inner", tunnels::inner, inner_packets(2, 1)),
        target("tunnel_inside", tunnels::inside, from_inside()),
        target("tunnel_outbound", tunnels::outbound, inner_packets(2, 2)),
    ]
}

/// Honest proofs, and proofs with a change of each kind.
fn statements() -> Vec<Vec<u8>> {
    let honest = |whole: u16, part: u16| [whole.to_be_bytes(), part.to_be_bytes()].concat();
    let changed = |changes: &[u8]| [&honest(256, 77), changes].concat();
    let mut seeds = vec![
        honest(0, 0),
        honest(6, 3),
        honest(255, 254),
        honest(299, 150),
    ];
    for kind in [0, 1, 5, 6, 7, 8] {
        seeds.push(changed(&[kind, 18]));
    }
    seeds.push(changed(&[&[2, 0], &78u64.to_be_bytes()[..]].concat()));
    seeds.push(changed(&[&[3, 0], &u64::MAX.to_be_bytes()[..]].concat()));
    seeds.push(changed(&[&[4, 3], &[7; 32][..]].concat()));
    seeds
}

fn notes() -> Vec<Vec<u8>> {
    let note = ledgers::seed().to_string();
    // The example of Go's golang.org/x/mod/sumdb/note, and its key.
    let other = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let key = ledgers::VERIFIER.to_string();
    [note.as_str(), other, key.as_str()]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

fn checkpoints() -> Vec<Vec<u8>> {
    let plain = ledgers::signed();
    let mut extended = plain.clone();
    extended.extensions = vec!["one line".into(), "another".into()];
    [plain, extended]
        .map(|it| it.to_string().into_bytes())
        .to_vec()
}

/// Files that real harnesses wrote.
fn fixtures_of(names: &[&str]) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/harness/fixtures");
    let read = |name: &&str| std::fs::read(format!("{folder}/{name}")).expect("it is committed");
    names.iter().map(read).collect()
}

fn own_result() -> Vec<u8> {
    br#"{"harness":"h","harnessVersion":"1","suite":"s","suiteVersion":"2","model":"m","metrics":{"accuracy":0.75},
"lowerIsBetter":["loss"],"overall":0.5,"samplesTotal":4,"samplesCompleted":4,"startedAt":"2026-01-02T03:04:05Z",
"finishedAt":"2026-01-02T03:04:15.25Z","nonce":"0123456789abcdef0123456789abcdef","logDigest":"sha256:00"}"#
    .to_vec()
}

/// All that is looked at in the header of a log of Inspect, and a little more.
const HEADER: &[u8] = br#"{"version":2,"status":"success","eval":{"task":"refusal","task_version":0,"model":"mockllm/model",
"created":"2026-11-26T02:00:00+00:00","dataset":{"samples":4},"config":{"epochs":1},"packages":{"inspect_ai":"0.3.285"}},
"results":{"total_samples":4,"completed_samples":4,"scores":[{"name":"match","scorer":"match","metrics":{
"accuracy":{"name":"accuracy","value":0.75},"stderr":{"name":"stderr","value":0.25}}}]},
"stats":{"started_at":"2026-11-26T02:00:00+00:00","completed_at":"2026-11-26T02:00:01+00:00"},"plan":{"steps":[]}}"#;

/// Each message as a stream has it, then as type byte and payload, then all of them in one stream.
fn framed<M: Frame>(messages: Vec<M>) -> Vec<Vec<u8>> {
    let frames: Vec<Vec<u8>> = messages
        .iter()
        .map(|m| frame::encode(m).expect("a seed is within its limit"))
        .collect();
    let payloads = frames
        .iter()
        .map(|f| [&f[1..2], &f[frame::HEADER_LEN..]].concat());
    let mut seeds = frames.clone();
    seeds.extend(payloads);
    seeds.push(frames.concat());
    seeds
}

/// Two nodes that enrol, prove themselves and become members; one of them is evicted and readmitted; both
/// come again; a stranger; a clock that is set back.
fn lives() -> Vec<Vec<u8>> {
    let enrolled = |node: u8| {
        vec![
            [2, node, 0, 0],
            [0, node, node, 0],
            [3, node, node * 2, 0],
            [0, node, node, 0],
            [1, node, 1, 0],
            [4, node, 230, 0],
        ]
    };
    let joined = [enrolled(0), enrolled(1), vec![[14, 0, 100, 0]]].concat();
    let evicted = vec![
        [12, 1, 0, 0],
        [4, 1, 240, 0],
        [14, 0, 255, 0],
        [12, 1, 1, 0],
        [14, 0, 50, 0],
    ];
    let again = vec![
        [9, 0, 0, 0],
        [0, 0, 7, 0],
        [1, 0, 0, 0],
        [13, 0, 1, 0],
        [1, 1, 2, 0],
    ];
    let stranger = vec![
        [0, 3, 9, 0],
        [1, 3, 0, 0],
        [0, 3, 9, 0],
        [6, 3, 1, 1],
        [10, 3, 1, 0],
    ];
    let back = vec![
        [15, 0, 60, 0],
        [4, 0, 250, 0],
        [14, 0, 255, 0],
        [15, 0, 60, 1],
        [13, 0, 3, 0],
    ];
    let flat = |lives: &[Vec<[u8; 4]>]| lives.concat().concat();
    vec![
        flat(std::slice::from_ref(&joined)),
        flat(&[joined.clone(), evicted]),
        flat(&[joined.clone(), again]),
        flat(&[stranger]),
        flat(&[joined, back]),
    ]
}

/// The four kinds of WireGuard message, by type and length.
fn datagrams() -> Vec<Vec<u8>> {
    let of = |kind: u8, len: usize| [&[kind, 0, 0, 0][..], &vec![0x5A; len - 4]].concat();
    vec![of(1, 148), of(2, 92), of(3, 64), of(4, 32), of(4, 1452)]
}

/// Sealed packets, initiations and strangers' messages from all forms of an address inside the mesh, and
/// from one outside.
fn from_inside() -> Vec<Vec<u8>> {
    let packets = inner_packets(2, 1);
    (0..6)
        .flat_map(|form| (0..3).map(move |kind| [kind, form]))
        .map(|head| [&head[..], &[0x42; 18], &packets[0]].concat())
        .collect()
}

/// Between two hosts of the fuzzed mesh, in both families.
fn inner_packets(from: u8, to: u8) -> Vec<Vec<u8>> {
    let mut v4 = vec![0; 28];
    v4[0] = 0x45;
    v4[3] = 28;
    v4[12..16].copy_from_slice(&[10, 76, 0, from]);
    v4[16..20].copy_from_slice(&[10, 76, 0, to]);
    let mut v6 = vec![0; 48];
    v6[0] = 0x60;
    v6[5] = 8;
    for (at, host) in [(8, from), (24, to)] {
        v6[at] = 0xfd;
        v6[at + 15] = host;
    }
    vec![v4, v6]
}

/// A question and its answer by each family, an error about the question, and a datagram in fragments.
fn conversations() -> Vec<Vec<u8>> {
    let said = |flags: u8, packet: &[u8]| {
        let len = u16::try_from(packet.len()).expect("a short packet");
        [&[flags][..], &len.to_be_bytes(), packet].concat()
    };
    let udp = |mut packet: Vec<u8>, protocol: usize, ports: [u16; 2]| {
        packet[protocol] = 17;
        let header = packet.len() - 8;
        packet[header..header + 2].copy_from_slice(&ports[0].to_be_bytes());
        packet[header + 2..header + 4].copy_from_slice(&ports[1].to_be_bytes());
        packet
    };
    let families = inner_packets(1, 2).into_iter().zip(inner_packets(2, 1));
    let kinds = [(9, 1, [3, 4]), (6, 58, [2, 0])];
    let conversations = families
        .zip(kinds)
        .map(|((out, back), (protocol, icmp, kind))| {
            let question = udp(out, protocol, [4_000, 80]);
            let answer = udp(back.clone(), protocol, [80, 4_000]);
            let mut error = back;
            error[protocol] = icmp;
            let header = error.len() - 8;
            error[header..header + 2].copy_from_slice(&kind);
            error.extend(&question);
            // The length field of either family is at another place, and counts other bytes.
            if icmp == 1 {
                error[3] = error.len() as u8;
            } else {
                error[5] = (error.len() - 40) as u8;
            }
            [
                said(0, &answer),
                said(1, &question),
                said(2, &answer),
                said(0, &error),
            ]
            .concat()
        });
    let mut seeds: Vec<_> = conversations.collect();
    let [first, _] = &inner_packets(2, 1)[..] else {
        return seeds;
    };
    let mut first = udp(first.clone(), 9, [9, 53]);
    first[6] = 0x20;
    let mut later = first.clone();
    (later[6], later[7]) = (0, 1);
    seeds.push([said(0, &later), said(0, &first), said(0, &later)].concat());
    seeds
}

/// A super-packet of each transport and family; a packet whose checksum is to be completed.
fn super_packets() -> Vec<Vec<u8>> {
    let kinds = [(true, false), (true, true), (false, false), (false, true)];
    let made = kinds.map(|(is_tcp, is_v6)| {
        let (header, packet) = offload::martian(is_tcp, is_v6).expect("there is one of each kind");
        [&header.encode()[..], &packet].concat()
    });
    let mut partial = made[2].clone();
    partial[1] = 0;
    made.into_iter().chain([partial]).collect()
}

/// A run of each flow that can be merged; then runs with what ends them: CWR at first, a shorter
/// packet, PSH, a hole, a wrong byte.
fn instructions() -> Vec<Vec<u8>> {
    let run = |flow: u8| (0..5).flat_map(move |_| [flow, 100, 0x10, 0]);
    let mut seeds: Vec<Vec<u8>> = (0..4).map(|flow| run(flow).collect()).collect();
    seeds.push(run(14).chain([2, 40, 0x18, 0]).collect());
    let ended = [
        [2, 100, 0x90, 0],
        [2, 100, 0x10, 0],
        [0, 50, 0, 0],
        [2, 60, 0x18, 0],
        [2, 100, 0x10, 1],
        [0, 20, 0, 0],
        [0, 20, 0, 3],
    ];
    seeds.push(ended.concat());
    seeds
}

fn to_controller() -> Vec<ToController> {
    vec![
        ToController::Enrol(Enrol {
            token: TokenSecret::from_bytes([5; 32]),
            name: Some(name(1)),
            segments: vec![wire::Ask::unnamed(WgPublicKey([6; 32]))],
            addresses: Vec::new(),
        }),
        ToController::Hello(Hello {
            software: "0.1.0".into(),
            listen_port: 51820,
            advertised: addresses(),
            addresses: vec![addresses()[0].ip()],
            newest: vec![mark()],
            holds: Vec::new(),
            told: Vec::new(),
            log: Some(END),
            unix_ms: 1_700_000_000_000,
            instance: fixtures::instance(1, 1),
        }),
        ToController::Evidence {
            envelope: b"{}".to_vec(),
        },
        ToController::Ack {
            segment: keys::SegmentId::FIRST,
            epoch: Epoch(3),
            phase: Phase::Installed,
        },
        ToController::Report {
            segment: keys::SegmentId::FIRST,
            peers: vec![PeerReport {
                node: NodeId([2; 32]),
                session_epoch: Some(Epoch(3)),
                rtt_v4_us: Some(400),
                rtt_v6_us: None,
                way_v4: Way::Tunnel,
                way_v6: Way::Link("eth1".into()),
            }],
            interface: InterfaceReport {
                unusable: false,
                faults: vec!["is down".into()],
            },
        },
        ToController::Tunnels {
            segment: keys::SegmentId::FIRST,
            peers: vec![TunnelReport {
                node: NodeId([2; 32]),
                handshake_age: Some(17),
                echoes: 64,
                lost: 1,
            }],
            unix_ms: 1_700_000_000_000,
        },
        ToController::Endpoints {
            listen_port: 51820,
            advertised: addresses(),
            addresses: vec![addresses()[0].ip()],
        },
        ToController::Present,
        ToController::Kept { log: END },
        ToController::Join {
            ask: wire::Ask {
                name: Some(segment()),
                wg: WgPublicKey([6; 32]),
            },
        },
        ToController::Advertise {
            segment: SegmentId::FIRST,
            prefixes: routes(),
        },
        ToController::Condition {
            faults: vec![NodeFault::new(NodeFaultKind::Benchmark, "hangs")],
        },
    ]
}

fn routes() -> Vec<wire::Prefix> {
    let texts = ["10.1.0.0/16", "fd01::/48"];
    texts.map(|it| it.parse().expect("a prefix")).to_vec()
}

fn seen(run: u8) -> Seen {
    let address = SocketAddr::from(([192, 0, 2, run], 7));
    Seen::at(address, &fixtures::instance(run, run))
}

fn to_node() -> Vec<ToNode> {
    let signed = Signed::sign(&update(), &AUTHORITY).expect("the update keeps the rules");
    let member = Update {
        signed: signed.clone(),
        secret: Some(EpochSecret::from_bytes([7; 32])),
        age_ms: 12,
        mark: mark(),
        log: log(),
    };
    let outsider = Update {
        signed,
        secret: None,
        age_ms: 0,
        mark: mark(),
        log: log(),
    };
    vec![
        ToNode::Enrolled(vec![place()]),
        ToNode::Welcome {
            places: vec![place()],
            unix_ms: 1_700_000_000_000,
            observed: addresses()[0],
        },
        ToNode::Update(member),
        ToNode::Update(outsider),
        ToNode::Endpoints {
            entries: wire::endpoints::Entries::new(&[(NodeId([2; 32]), addresses())]),
            mark: Some(wire::endpoints::PlacesMark {
                segment: keys::SegmentId::FIRST,
                table: 7,
                seq: 300,
            }),
        },
        ToNode::Seen {
            observed: addresses()[0],
        },
        ToNode::EvidenceResult {
            digest: [8; 32],
            refused: Some(RefusedEvidence {
                reason: "too old".into(),
                again: Again::Later,
            }),
        },
        ToNode::Refused {
            reason: Refusal::BadToken,
        },
        ToNode::Ways {
            segment: SegmentId::FIRST,
            node: NodeId([2; 32]),
            ways: [Way::Link("eth1".into()), Way::Nowhere],
        },
        ToNode::Waiting { name: name(1) },
        ToNode::Authorities {
            successions: vec![succession()],
        },
        ToNode::RollCall,
        ToNode::Duplicate(Duplicate {
            first: seen(1),
            other: seen(2),
        }),
        ToNode::Placed(place()),
        ToNode::NotPlaced {
            name: segment(),
            reason: wire::segment::Unplaced::NotAllowed,
        },
        ToNode::Invited { name: segment() },
        ToNode::Left {
            segment: SegmentId(1),
        },
    ]
}

fn segment() -> wire::SegmentName {
    "training".parse().expect("a name")
}

fn update() -> EpochUpdate {
    EpochUpdate {
        excluded: vec![Excluded {
            reason: "score 0.41 below 0.70".into(),
            ..fixtures::excluded(3)
        }],
        ..fixtures::update(3, vec![fixtures::member(1), router()])
    }
}

fn router() -> wire::Member {
    wire::Member {
        routes: routes(),
        ..fixtures::member(2)
    }
}

const END: LogEnd = LogEnd {
    events: 17,
    root: Digest([3; 32]),
};

fn log() -> LogNews {
    let restored = LogRestored {
        mesh: MeshId([1; 16]),
        copy: END,
        unix_ms: 1_700_000_000_000,
    };
    LogNews {
        checkpoint: "meshd/01\n17\nAwMD\n\n— meshd/01 BAQEBAQ=\n".into(),
        from: 12,
        proof: vec![[5; 32], [6; 32]],
        restored: Signed::sign(&restored, &AUTHORITY).ok().map(Box::new),
    }
}

fn mark() -> Signed<Mark> {
    let mark = Mark {
        mesh: MeshId([1; 16]),
        segment: SegmentId::FIRST,
        epoch: Epoch(3),
        update: Digest([2; 32]),
        log: END,
        log_key: keys::LogId([4; 32]),
    };
    Signed::sign(&mark, &AUTHORITY).expect("the mark keeps the rules")
}

fn succession() -> Signed<Succession> {
    let succession = Succession {
        mesh: MeshId([1; 16]),
        new: AUTHORITY.public(),
    };
    Signed::sign(&succession, &AUTHORITY).expect("the key is sound")
}

fn place() -> Signed<Place> {
    let place = Place {
        node: NodeId([1; 32]),
        mesh: MeshId([1; 16]),
        segment: SegmentId::FIRST,
        segment_name: wire::SegmentName::default(),
        name: name(1),
        v4: (Ipv4Addr::new(10, 0, 0, 1), 24),
        v6: (Ipv6Addr::from(0xfd00 << 112 | 1), 64),
    };
    Signed::sign(&place, &AUTHORITY).expect("the place keeps the rules")
}

fn run() -> Benchmark {
    let finished = "2026-01-02T03:04:15.25Z".parse().expect("a time");
    Benchmark {
        metrics: BTreeMap::from([("refusal".into(), 0.9)]),
        samples_total: 10,
        samples_completed: 10,
        started_at: "2026-01-02T03:04:05Z".parse().expect("a time"),
        log_digest: Some("sha256:00".into()),
        mesh: Some(evidence::MESH),
        challenge: Some(Digest([2; 32])),
        // 16 digits: a reader that rounds a score otherwise than its writer is found out here.
        ..fixtures::run(0.9583275921953511, finished)
    }
}

fn statement(envelope: &[u8]) -> Vec<u8> {
    let envelope: Envelope = serde_json::from_slice(envelope).expect("an envelope");
    STANDARD.decode(envelope.payload).expect("base64")
}

fn token() -> Token {
    Token {
        controllers: vec!["192.0.2.1:7443".into(), "[2001:db8::1]:7443".into()],
        controller: ControllerId([1; 32]),
        authorities: vec![AuthorityId([2; 32])],
        secret: TokenSecret::from_bytes([3; 32]),
        expires_unix: 1_700_000_000,
    }
}

fn token_body(text: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(text).expect("a token is text");
    let body = text.split('.').nth(1).expect("prefix, body, checksum");
    URL_SAFE_NO_PAD.decode(body).expect("base64url")
}

fn name(byte: u8) -> wire::NodeName {
    format!("node-{byte}").parse().expect("a name")
}

fn addresses() -> Vec<SocketAddr> {
    let parse = |text: &str| text.parse().expect("an address");
    vec![parse("192.0.2.7:51820"), parse("[2001:db8::7]:51820")]
}

fn encoded<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("a seed always encodes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_property_holds_for_every_seed() {
        for target in all() {
            for (_, seed) in &target.seeds {
                (target.run)(seed);
            }
        }
    }

    #[test]
    fn the_lives_of_the_engines_seeds_are_what_they_are_said_to_be() {
        let members: Vec<usize> = lives().iter().map(|life| engines::members(life)).collect();
        // The last one ends with its clock set right again, after a rotation that judged by both.
        assert_eq!(members[..4], [2, 2, 2, 0], "{members:?}");
    }

    #[test]
    fn the_committed_seeds_are_the_ones_that_this_code_makes() {
        for target in all() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("seeds")
                .join(target.name);
            let committed = std::fs::read_dir(&folder).map(Iterator::count);
            assert_eq!(committed.ok(), Some(target.seeds.len()), "{}", target.name);
            for (file, seed) in &target.seeds {
                let path = folder.join(file);
                let read = std::fs::read(&path).unwrap_or_default();
                assert!(read == *seed, "{}: run the example `seeds`", path.display());
            }
        }
    }

    #[test]
    fn what_is_signed_or_sealed_here_is_what_the_product_reads() {
        let trusted = [AUTHORITY.public()];
        assert!(
            updates::sign_anything(&encoded(&update()))
                .verify(&trusted)
                .is_ok()
        );
        let text = token().expose();
        assert_eq!(tokens::seal(&token_body(text.as_bytes())), *text);
        let statement = statement(&run().attest_self("n", &NODE).expect("a run"));
        let sealed =
            evidence::enclose(&statement, &NODE.sign_encoded(&evidence::pae(&statement)).0);
        let attested =
            wire::evidence::Attested::verify(&sealed, &NODE.public(), evidence::MESH, &[]);
        assert_eq!(attested.expect("believed").benchmark(), &run());
    }
}
