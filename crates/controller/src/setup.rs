//! The engine's settings, the faults that keep it from starting, and the beginning of a mesh.

use crate::clock::Now;
use crate::event::Event;
use crate::fleet::Fleet;
use crate::log::{Log, LogError};
use crate::network::{Network, NetworkError};
use crate::segment::Unpublished;
use keys::{AuthoritySecret, ControllerId, MeshId};
use policy::{Policy, PolicyError};
use rand_core::{OsRng, RngCore as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// All that the engine must be told once.
#[derive(Debug)]
pub struct Setup {
    /// The policy.
    pub policy: Policy,
    /// The mesh's IPv4 range.
    pub mesh_v4: (Ipv4Addr, u8),
    /// The mesh's IPv6 range; `None`: from the mesh's id.
    pub mesh_v6: Option<(Ipv6Addr, u8)>,
    /// Where nodes reach the controller, for tokens.
    pub advertise: Vec<String>,
    /// The key that nodes pin, for tokens.
    pub controller: ControllerId,
    /// Signs updates.
    pub authority: AuthoritySecret,
    /// Which boot of the machine this is.
    pub boot_id: String,
    /// What a token buys.
    pub enrolment: EnrolmentMode,
    /// The name of the log of a mesh that begins is `NAME/MESH`; this is the first part.
    pub log_name: String,
    /// How long evidence is kept in the log; zero: for ever.
    pub keep_evidence: Duration,
}

/// What a token buys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EnrolmentMode {
    /// A place.
    #[default]
    Token,
    /// To wait for an operator's approval.
    Approve,
}

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy does not hold together.
    #[error("the policy cannot be used: {0}")]
    Policy(#[from] PolicyError),
    /// The address ranges do not.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The log does not open or take the first events.
    #[error("the event log cannot be used: {0}")]
    Log(#[from] LogError),
    /// The first epoch cannot be published.
    #[error("the first epoch cannot be published: {0}")]
    Publish(#[from] Unpublished),
}

/// The name of a mesh's log, which its checkpoints and its key have: it tells the logs of two meshes apart for
/// whoever keeps checkpoints of both.
pub(crate) fn origin(log_name: &str, mesh: MeshId) -> String {
    let hex: String = mesh.0.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{log_name}/{hex}")
}

/// Draws the identity of a new mesh, and makes it durable.
pub(crate) fn found(
    setup: &Setup,
    log: &mut Log,
    fleet: &mut Fleet,
    now: Now,
) -> Result<MeshId, StartError> {
    let mut mesh = MeshId([0; 16]);
    OsRng.fill_bytes(&mut mesh.0);
    // Refuse a bad range before it is durable.
    Network::new(setup.mesh_v4, setup.mesh_v6, mesh)?;
    let authority = setup.authority.public();
    let event = Event::MeshCreated { mesh, authority };
    let events = std::slice::from_ref(&event);
    log.found(&origin(&setup.log_name, mesh));
    log.append(now.wall, None, events, &[])?;
    fleet.apply(now.wall, None, &event);
    Ok(mesh)
}
