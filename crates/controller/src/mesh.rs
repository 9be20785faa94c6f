//! All that stays as it is while a controller runs: the mesh's identity and address ranges, where nodes find
//! the controller, and the key that signs for the mesh. Signs what it is given; refuses to decide anything.

use crate::fleet::Node;
use crate::log::Log;
use crate::network::Network;
use keys::{AuthorityId, AuthoritySecret, ControllerId, MeshId, Scope, SegmentId};
use std::time::Duration;
use wire::signed::VerifyError;
use wire::update::MAX_REASON_LEN;
use wire::{Digest, Excluded, Mark, Member, NodeName, Place, Rules, SegmentName, Signed};

/// Whether a token is enough for a place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EnrolmentMode {
    /// A place.
    #[default]
    Token,
    /// To wait for an operator's approval.
    Approve,
}

/// The mesh, as every part of the engine may see it.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) id: MeshId,
    pub(crate) network: Network,
    /// Signs updates, marks, places and the log's end.
    pub(crate) authority: AuthoritySecret,
    /// The key that nodes pin, for tokens.
    pub(crate) controller: ControllerId,
    /// Where nodes reach the controller, for tokens.
    pub(crate) advertise: Vec<String>,
    /// Whether a token is enough.
    pub(crate) enrolment: EnrolmentMode,
    /// Which boot of the machine this is.
    pub(crate) boot_id: String,
    /// How long evidence is kept in the log; zero: for ever.
    pub(crate) keep_evidence: Duration,
}

impl Mesh {
    /// Whose signatures count.
    pub(crate) fn trusted(&self) -> [AuthorityId; 1] {
        [self.authority.public()]
    }

    /// Where a node belongs, in a segment of this mesh.
    pub(crate) fn place(
        &self,
        segment: SegmentId,
        name: &NodeName,
        node: &Node,
    ) -> Option<Signed<Place>> {
        let place = Place {
            node: node.id,
            mesh: self.id,
            segment,
            segment_name: SegmentName::default(),
            name: name.clone(),
            v4: self.network.v4(node.host),
            v6: self.network.v6(node.host),
        };
        let signed = Signed::sign(&place, &self.authority);
        signed
            .inspect_err(|error| tracing::error!(node = %name, %error, "its place breaks a rule"))
            .ok()
    }

    /// The mark that nodes keep of an update, to prove later which log it was published on.
    pub(crate) fn mark(
        &self,
        scope: Scope,
        update: Digest,
        log: &Log,
    ) -> Result<Signed<Mark>, VerifyError> {
        let mark = Mark {
            mesh: scope.mesh,
            segment: scope.segment,
            epoch: scope.epoch,
            update,
            log: log.end(),
            log_key: log.store().key(),
        };
        Signed::sign(&mark, &self.authority)
    }

    pub(crate) fn member(&self, name: &NodeName, node: &Node, rules: &Rules) -> Member {
        Member {
            node: node.id,
            name: name.clone(),
            wg: node.wg,
            v4: self.network.v4(node.host).0,
            v6: self.network.v6(node.host).0,
            groups: rules.groups_of(&node.groups),
        }
    }

    pub(crate) fn exclusion(&self, name: &NodeName, node: &Node, reason: &str) -> Excluded {
        Excluded {
            node: node.id,
            name: name.clone(),
            v4: self.network.v4(node.host).0,
            v6: self.network.v6(node.host).0,
            reason: shortened(reason).to_owned(),
        }
    }
}

/// A reason, cut to what an update has room for.
fn shortened(reason: &str) -> &str {
    let end = reason.floor_char_boundary(MAX_REASON_LEN);
    reason.get(..end).unwrap_or_default()
}
