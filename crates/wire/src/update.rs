//! The epoch update: who is a member from when, for how long, and who is not and why.

use crate::log::LogEnd;
use crate::name::NodeName;
use crate::prefix::{self, MAX_ROUTES, Prefix};
use crate::rules::{Groups, Rules};
use crate::signed::{Digest, Signable};
use keys::{Commitment, Epoch, LogId, MeshId, NodeId, Scope, SegmentId, WgPublicKey};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Most nodes in a roster, and most in the list of the excluded.
pub const MAX_ROSTER: usize = 16_384;
/// Longest reason of an exclusion, in bytes.
pub const MAX_REASON_LEN: usize = 200;
/// The reason of a node that an update does not name. As the policy has it.
pub const UNHEARD: &str = "no benchmark";
/// Longest duration in an update: 400 days. Keeps sums of durations far from overflow.
pub const MAX_DURATION_MS: u64 = 400 * 24 * 3600 * 1000;

/// A membership decision for one segment and one epoch. Durations count from the moment of signing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochUpdate {
    /// The mesh.
    pub mesh: MeshId,
    /// The segment.
    pub segment: SegmentId,
    /// The epoch that this update begins.
    pub epoch: Epoch,
    /// Digest of the update before this one; zeros for the first.
    pub previous: Digest,
    /// The members, in strictly increasing order of [`NodeId`].
    pub roster: Vec<Member>,
    /// Which members connect, and what they may send to each other.
    pub rules: Rules,
    /// Enrolled nodes that are not members, in strictly increasing order of [`NodeId`]. Where many are new and were not
    /// heard of yet, they are left out.
    pub excluded: Vec<Excluded>,
    /// Commitment to the epoch secret.
    pub commitment: Commitment,
    /// Milliseconds until the epoch begins.
    pub activate_in_ms: u64,
    /// Milliseconds from the epoch's beginning to its scheduled end.
    pub epoch_ms: u64,
    /// Milliseconds from the epoch's beginning after which a node without a newer update must act
    /// on [`Self::on_lease_end`].
    pub lease_ms: u64,
    /// Milliseconds for which the previous epoch's sessions are still accepted.
    pub grace_ms: u64,
    /// A node's action when the lease ends.
    pub on_lease_end: LeaseEnd,
    /// SHA-256 of the policy under which this was decided.
    pub policy: Digest,
}

/// A member of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node's identity.
    pub node: NodeId,
    /// The node's name.
    pub name: NodeName,
    /// The node's WireGuard key.
    pub wg: WgPublicKey,
    /// The node's IPv4 address inside the mesh.
    pub v4: Ipv4Addr,
    /// The node's IPv6 address inside the mesh.
    pub v6: Ipv6Addr,
    /// The groups that it is in, of those that the rules name.
    pub groups: Groups,
    /// The networks behind it, in increasing order: it may speak for their addresses, and is sent what is for them.
    /// At most [`MAX_NODE_ROUTES`](crate::prefix::MAX_NODE_ROUTES).
    pub routes: Vec<Prefix>,
}

/// An enrolled node that is not a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// The node's identity.
    pub node: NodeId,
    /// The node's name.
    pub name: NodeName,
    /// The address that it would have inside the mesh.
    pub v4: Ipv4Addr,
    /// The address that it would have inside the mesh.
    pub v6: Ipv6Addr,
    /// Why it is excluded, in words; at most [`MAX_REASON_LEN`] bytes.
    pub reason: String,
}

/// A node's action when the lease of its last update ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseEnd {
    /// Drop all peers until a newer update arrives.
    Close,
    /// Go on with the last epoch, and say so.
    Open,
}

impl EpochUpdate {
    /// Where it is valid.
    pub fn scope(&self) -> Scope {
        Scope {
            mesh: self.mesh,
            segment: self.segment,
            epoch: self.epoch,
        }
    }

    /// The same with an empty roster and nobody excluded.
    pub(crate) fn bare(&self) -> Self {
        let mut bare = self.clone();
        bare.roster = Vec::new();
        bare.excluded = Vec::new();
        bare
    }

    /// The member with this identity.
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        let at = self.roster.binary_search_by_key(&node, |m| &m.node).ok()?;
        self.roster.get(at)
    }

    /// The groups of a member; none of one that is none.
    pub fn groups_of(&self, node: &NodeId) -> Groups {
        self.member(node)
            .map_or_else(Groups::default, |it| it.groups)
    }

    /// The exclusion of this identity.
    pub fn exclusion(&self, node: &NodeId) -> Option<&Excluded> {
        let at = self
            .excluded
            .binary_search_by_key(&node, |e| &e.node)
            .ok()?;
        self.excluded.get(at)
    }

    /// Why a node is no member, in words; `None`: it is one. One that is not named has shown nothing yet.
    pub fn denial(&self, node: &NodeId) -> Option<&str> {
        let reason = self.exclusion(node).map(|it| it.reason.as_str());
        reason.or_else(|| self.member(node).is_none().then_some(UNHEARD))
    }

    /// Whether two nodes are members that have a tunnel to each other.
    pub fn connects(&self, one: &NodeId, other: &NodeId) -> bool {
        match (self.member(one), self.member(other)) {
            (Some(one), Some(other)) => self.rules.connect(one.groups, other.groups),
            (Some(_) | None, _) => false,
        }
    }

    /// No address is behind two members, and no member's own is behind anybody.
    fn check_routes(&self) -> Result<(), &'static str> {
        let routers = self.roster.iter().filter(|it| !it.routes.is_empty());
        let mut all: Vec<Prefix> = Vec::new();
        for member in routers {
            prefix::check_list(&member.routes)?;
            all.extend(&member.routes);
        }
        if all.is_empty() {
            return Ok(());
        }
        if all.len() > MAX_ROUTES {
            return Err("too many routes");
        }
        all.sort_unstable();
        prefix::check_apart(&all)?;
        // They are apart: the one that begins last before an address is the only one that can hold it.
        let is_behind = |address: IpAddr| {
            let after = all.partition_point(|it| it.address() <= address);
            let before = after.checked_sub(1).and_then(|at| all.get(at));
            before.is_some_and(|it| it.contains(address))
        };
        let is_taken = |it: &Member| is_behind(it.v4.into()) || is_behind(it.v6.into());
        match self.roster.iter().any(is_taken) {
            true => Err("a route to a member's own address"),
            false => Ok(()),
        }
    }

    /// The networks behind a member; none of one that is none.
    pub fn routes_of(&self, node: &NodeId) -> &[Prefix] {
        self.member(node).map_or(&[], |it| &it.routes)
    }

    /// Time from signing to activation.
    pub fn activate_in(&self) -> Duration {
        Duration::from_millis(self.activate_in_ms)
    }

    /// Time from activation to the end of the lease.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// Time from activation to the scheduled end of the epoch.
    pub fn length(&self) -> Duration {
        Duration::from_millis(self.epoch_ms)
    }

    /// Time from activation for which the epoch before stays acceptable.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}

impl Signable for EpochUpdate {
    const LABEL: &'static [u8] = b"meshd/v1 epoch update";

    fn check(&self) -> Result<(), &'static str> {
        self.rules.check()?;
        self.check_routes()?;
        let named = u32::try_from(self.rules.groups.len()).unwrap_or(u32::MAX);
        let ordered = |ids: &mut dyn Iterator<Item = &NodeId>| ids.is_sorted_by(|a, b| a < b);
        let durations = [
            self.activate_in_ms,
            self.epoch_ms,
            self.lease_ms,
            self.grace_ms,
        ];
        let rules = [
            (self.epoch > Epoch(0), "epoch zero does not exist"),
            (self.roster.len() <= MAX_ROSTER, "too many members"),
            (self.excluded.len() <= MAX_ROSTER, "too many excluded nodes"),
            (
                durations.iter().all(|ms| *ms <= MAX_DURATION_MS),
                "a duration is too long",
            ),
            (
                self.roster
                    .iter()
                    .all(|m| m.groups.0.checked_shr(named).unwrap_or(0) == 0),
                "a member of a group without a name",
            ),
            (self.epoch_ms > 0, "an epoch of no length"),
            (self.lease_ms > 0, "a lease of no length"),
            (
                ordered(&mut self.roster.iter().map(|m| &m.node)),
                "roster out of order",
            ),
            (
                ordered(&mut self.excluded.iter().map(|e| &e.node)),
                "exclusions out of order",
            ),
            (
                self.roster
                    .iter()
                    .all(|m| self.exclusion(&m.node).is_none()),
                "a member is excluded too",
            ),
            (
                all_differ(self.roster.iter().map(|m| m.wg)),
                "two members share a WireGuard key",
            ),
            (
                all_differ(self.roster.iter().map(|m| &m.name)),
                "two members share a name",
            ),
            (
                all_differ(self.roster.iter().map(|m| m.v4)),
                "two members share an IPv4 address",
            ),
            (
                all_differ(self.roster.iter().map(|m| m.v6)),
                "two members share an IPv6 address",
            ),
            (
                self.excluded
                    .iter()
                    .all(|e| e.reason.len() <= MAX_REASON_LEN),
                "a reason is too long",
            ),
        ];
        rules
            .iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, rule)| Err(*rule))
    }
}

/// That an update was published: what a node shows of its memory, and the authority can tell from a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The mesh.
    pub mesh: MeshId,
    /// The segment.
    pub segment: SegmentId,
    /// The update's epoch.
    pub epoch: Epoch,
    /// The update's digest.
    pub update: Digest,
    /// The end of the controller's log when this was signed.
    pub log: LogEnd,
    /// The key that signs the log's checkpoints.
    pub log_key: LogId,
}

impl Mark {
    /// Where it is valid.
    pub fn scope(&self) -> Scope {
        Scope {
            mesh: self.mesh,
            segment: self.segment,
            epoch: self.epoch,
        }
    }
}

impl Signable for Mark {
    const LABEL: &'static [u8] = b"meshd/v1 epoch mark";

    fn check(&self) -> Result<(), &'static str> {
        if self.epoch > Epoch(0) {
            Ok(())
        } else {
            Err("epoch zero does not exist")
        }
    }
}

fn all_differ<T: Eq + Hash>(mut values: impl Iterator<Item = T>) -> bool {
    let mut seen = HashSet::new();
    values.all(|value| seen.insert(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, member};
    use crate::signed::{Signed, VerifyError};
    use keys::AuthoritySecret;
    use rand_core::OsRng;

    fn update() -> EpochUpdate {
        EpochUpdate {
            excluded: vec![fixtures::excluded(3)],
            ..fixtures::update(3, vec![member(1), member(2)])
        }
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn networks_that_are_apart_are_behind_members() {
        let mut update = update();
        update.roster[0].routes = vec![prefix("10.1.0.0/16"), prefix("fd01::/48")];
        update.roster[1].routes = vec![prefix("10.2.0.0/16"), prefix("192.168.7.0/24")];
        assert_eq!(update.check(), Ok(()));
        let of = |n: u8| update.routes_of(&NodeId([n; 32])).len();
        assert_eq!((of(1), of(2), of(3)), (2, 2, 0));
        // As many as there may be, and one more.
        let routers = |many: usize| {
            let mut roster: Vec<Member> = (1..=255).map(member).collect();
            let mut left = 0..many;
            for it in &mut roster {
                let some = left.by_ref().take(crate::prefix::MAX_NODE_ROUTES);
                let some = some.map(|n| prefix(&format!("11.{}.{}.0/24", n / 256, n % 256)));
                it.routes = some.collect();
            }
            fixtures::update(3, roster)
        };
        assert_eq!(routers(255 * 16).check(), Ok(()));
        let mut many = routers(255 * 16);
        let more = (0..2).map(|n| Member {
            node: NodeId([n, 1].repeat(16).try_into().unwrap()),
            name: format!("more-{n}").parse().unwrap(),
            wg: WgPublicKey([n, 1].repeat(16).try_into().unwrap()),
            v4: [10, 0, 1, n].into(),
            v6: Ipv6Addr::from((0xfd00 << 112) + 0x1_0000 + u128::from(n)),
            routes: (0..16)
                .map(|it| prefix(&format!("12.{n}.{it}.0/24")))
                .collect(),
            ..member(1)
        });
        many.roster.extend(more);
        many.roster.sort_by_key(|it| it.node);
        assert_eq!(many.check(), Err("too many routes"));
    }

    #[test]
    fn only_a_trusted_authority_is_believed() {
        let (authority, other) = (
            AuthoritySecret::generate(&mut OsRng),
            AuthoritySecret::generate(&mut OsRng),
        );
        let signed = Signed::sign(&update(), &authority).unwrap();
        assert_eq!(*signed.verify(&[authority.public()]).unwrap(), update());
        assert_eq!(
            signed.verify(&[other.public()]).unwrap_err(),
            VerifyError::UnknownSigner(authority.public())
        );
    }

    #[test]
    fn one_changed_bit_anywhere_is_noticed() {
        let authority = AuthoritySecret::generate(&mut OsRng);
        let bytes = postcard::to_stdvec(&Signed::sign(&update(), &authority).unwrap()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            if let Ok(signed) = postcard::from_bytes::<Signed<EpochUpdate>>(&changed) {
                assert!(signed.verify(&[authority.public()]).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn rules_that_the_encoding_cannot_say_are_checked() {
        let authority = AuthoritySecret::generate(&mut OsRng);
        type Breakage = (fn(&mut EpochUpdate), &'static str);
        let breakages: [Breakage; 12] = [
            (|u| u.roster.reverse(), "roster out of order"),
            (
                |u| u.roster[1].wg = u.roster[0].wg,
                "two members share a WireGuard key",
            ),
            (
                |u| u.roster[1].v4 = u.roster[0].v4,
                "two members share an IPv4 address",
            ),
            (
                |u| u.excluded[0].node = u.roster[0].node,
                "a member is excluded too",
            ),
            (|u| u.lease_ms = u64::MAX, "a duration is too long"),
            (|u| u.epoch = Epoch(0), "epoch zero does not exist"),
            (
                |u| u.roster[0].groups = Groups(1),
                "a member of a group without a name",
            ),
            (
                |u| u.rules.hubs = Groups(1),
                "a rule for a group without a name",
            ),
            (
                |u| u.roster[0].routes = vec![prefix("10.2.0.0/16"), prefix("10.1.0.0/16")],
                "routes out of order",
            ),
            (
                |u| {
                    u.roster[0].routes = vec![prefix("10.1.0.0/16")];
                    u.roster[1].routes = vec![prefix("10.1.7.0/24")];
                },
                "two routes overlap",
            ),
            (
                |u| u.roster[0].routes = vec![prefix("10.0.0.0/24")],
                "a route to a member's own address",
            ),
            (
                |u| u.roster[0].routes = vec![prefix("fd00::2/128")],
                "a route to a member's own address",
            ),
        ];
        for (breakage, rule) in breakages {
            let mut broken = update();
            breakage(&mut broken);
            assert_eq!(
                Signed::sign(&broken, &authority).unwrap_err(),
                VerifyError::Invalid(rule)
            );
        }
    }
}
