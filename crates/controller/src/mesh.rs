//! All that stays as it is while a controller runs: the mesh's identity, where nodes find the controller, and the key that signs for the mesh. Signs what it is given; refuses to decide anything.

use crate::log::Log;
use keys::{AuthorityId, AuthoritySecret, ControllerId, MeshId, Scope};
use std::time::Duration;
use wire::signed::VerifyError;
use wire::{Digest, Mark, Signed};

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
}
