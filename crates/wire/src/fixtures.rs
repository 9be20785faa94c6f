//! An update, a run and a process that keep the rules, for tests to begin from. Every field that a test does not
//! speak of is set here and nowhere else. Not part of the product: the feature `fixtures` is for tests.

use crate::evidence::Benchmark;
use crate::message::{ToNode, Update};
use crate::rules::{Groups, Rules};
use crate::update::{EpochUpdate, Excluded, LeaseEnd, Member};
use crate::{Digest, Instance, NodeName};
use jiff::Timestamp;
use keys::{AuthorityId, Commitment, Epoch, MeshId, NodeId, SegmentId, WgPublicKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The mesh of everything here.
pub const MESH: MeshId = MeshId([1; 16]);

/// `node-N`, whose keys are N in every byte, at 10.0.0.N and fd00::N.
pub fn member(number: u8) -> Member {
    Member {
        node: NodeId([number; 32]),
        name: name(number),
        wg: WgPublicKey([number; 32]),
        v4: Ipv4Addr::new(10, 0, 0, number),
        v6: Ipv6Addr::from(0xfd00 << 112 | u128::from(number)),
        groups: Groups::default(),
        routes: Vec::new(),
    }
}

/// The same node, left out.
pub fn excluded(number: u8) -> Excluded {
    let Member {
        node, name, v4, v6, ..
    } = member(number);
    Excluded {
        node,
        name,
        v4,
        v6,
        reason: "score below threshold".into(),
    }
}

/// The update of an epoch with these members: it begins in 5 s, ends 60 s after that, and its lease of
/// five minutes closes.
pub fn update(epoch: u64, mut roster: Vec<Member>) -> EpochUpdate {
    roster.sort_by_key(|member| member.node);
    EpochUpdate {
        mesh: MESH,
        segment: SegmentId::FIRST,
        epoch: Epoch(epoch),
        previous: match epoch {
            1 => Digest::default(),
            _ => Digest([2; 32]),
        },
        roster,
        rules: Rules::default(),
        excluded: Vec::new(),
        commitment: Commitment([4; 32]),
        activate_in_ms: 5_000,
        epoch_ms: 60_000,
        lease_ms: 300_000,
        grace_ms: 2_000,
        on_lease_end: LeaseEnd::Close,
        policy: Digest::default(),
    }
}

/// A run of one sample that has just finished, for no mesh yet.
pub fn run(overall: f64, finished: Timestamp) -> Benchmark {
    Benchmark {
        harness: "mock".into(),
        suite: "safety".into(),
        suite_version: "1".into(),
        harness_version: None,
        model: None,
        metrics: BTreeMap::new(),
        lower_is_better: BTreeSet::new(),
        overall: Some(overall),
        samples_total: 1,
        samples_completed: 1,
        started_at: finished,
        finished_at: finished,
        nonce: "00112233445566778899aabbccddeeff".into(),
        log_digest: None,
        mesh: None,
        challenge: None,
    }
}

/// A process; those of one home follow each other.
pub fn instance(home: u8, run: u8) -> Instance {
    let lock = Some((1, home.into()));
    Instance::new(MeshId([1; 16]), "boot", lock, [run; 16])
}

fn name(number: u8) -> NodeName {
    let name = format!("node-{number}");
    name.parse().expect("letters, a hyphen and digits")
}

/// The updates that were seen, as a node's memory of them: makes whole ones of those that come as changes.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<Digest, EpochUpdate>);

impl Seen {
    /// The update with this digest.
    pub fn get(&self, digest: &Digest) -> Option<&EpochUpdate> {
        self.0.get(digest)
    }

    /// The same message, with the update in it whole.
    ///
    /// # Panics
    /// When it is no update that one of `trusted` signed, or what it builds on was not seen.
    pub fn whole(&mut self, message: ToNode, trusted: &[AuthorityId]) -> ToNode {
        let update: Update = match message {
            ToNode::Update(update) => update,
            ToNode::Changes(changed) => {
                let whole = changed.changes.apply(|digest| self.0.get(digest));
                changed.with(whole.expect("what it builds on was seen"))
            }
            other => return other,
        };
        let verified = update.signed.verify(trusted);
        let verified = verified.expect("it is signed");
        self.0.insert(verified.digest(), (*verified).clone());
        ToNode::Update(update)
    }
}
