//! A look at a node's files without a start: reads, and changes nothing.

use crate::OpenError;
use crate::persist::{OwnKeys, StateDir};
use keys::{NodeId, WgPublicKey};
use std::path::Path;

/// The words of a node's files of its enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is enrolled.
    Enrolled,
    /// It was in a mesh, and its enrolment is gone.
    Lost,
    /// It was never in a mesh.
    New,
}

/// Reads the state directory of a node with these keys, as a start would.
///
/// # Errors
/// [`OpenError::State`], for the first file that a start would refuse.
pub fn examine(state_dir: &Path, node: NodeId, wg: WgPublicKey) -> Result<Standing, OpenError> {
    let state = StateDir::new(state_dir.to_owned());
    let enrolment = state.enrolment(OwnKeys { node, wg })?;
    let memory = state.memory()?;
    state.seen_runs()?;
    Ok(match (enrolment, memory) {
        (Some(_), _) => Standing::Enrolled,
        (None, Some(_)) => Standing::Lost,
        (None, None) => Standing::New,
    })
}
