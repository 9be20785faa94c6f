//! The engine's settings, the faults that keep it from starting, and the beginning of a mesh.

use crate::clock::Now;
use crate::event::Event;
use crate::fleet::Fleet;
use crate::log::{Log, LogError};
use crate::mesh::EnrolmentMode;
use crate::network::{Network, NetworkError};
use crate::segment::{Settings, Unpublished};
use keys::{AuthoritySecret, ControllerId, MeshId, SegmentId};
use policy::{Policy, PolicyError};
use rand_core::{OsRng, RngCore as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use wire::SegmentName;
use wire::segment::MAX_SEGMENTS;

/// A segment, as the configuration has it.
#[derive(Debug, Clone)]
pub struct SegmentSetup {
    /// Its name.
    pub name: SegmentName,
    /// Its policy.
    pub policy: Policy,
    /// Its IPv4 range.
    pub mesh_v4: (Ipv4Addr, u8),
    /// Its IPv6 range; `None`: from the mesh's id and the segment's number.
    pub mesh_v6: Option<(Ipv6Addr, u8)>,
}

impl SegmentSetup {
    /// The one segment of a mesh whose configuration names none.
    pub fn only(
        policy: Policy,
        mesh_v4: (Ipv4Addr, u8),
        mesh_v6: Option<(Ipv6Addr, u8)>,
    ) -> Vec<Self> {
        let name = SegmentName::default();
        vec![Self {
            name,
            policy,
            mesh_v4,
            mesh_v6,
        }]
    }
}

/// Holds the segments of a configuration against each other. `mesh` is the mesh's identity, or any.
///
/// # Errors
/// [`StartError`], for the first rule that is broken.
pub(crate) fn check_segments(
    segments: &[SegmentSetup],
    mesh: MeshId,
    number: impl Fn(&SegmentName) -> SegmentId,
) -> Result<Vec<Settings>, StartError> {
    if segments.is_empty() || segments.len() > MAX_SEGMENTS {
        return Err(StartError::Segments(segments.len()));
    }
    let mut checked: Vec<Settings> = Vec::new();
    for segment in segments {
        let name = segment.name.clone();
        segment.policy.validate()?;
        let id = number(&name);
        let network = Network::new(segment.mesh_v4, segment.mesh_v6, (mesh, id))?;
        if checked.iter().any(|other| other.name == name) {
            return Err(StartError::Twice(name));
        }
        let over = checked.iter().find(|it| it.network.overlaps(&network));
        if let Some(other) = over {
            return Err(StartError::Overlap(other.name.clone(), name));
        }
        checked.push(Settings {
            id,
            name,
            policy: segment.policy.clone(),
            network,
        });
    }
    Ok(checked)
}

/// Numbers for segments that have none yet, in the order of the configuration: each another one, so that ranges which
/// follow from them are apart.
pub(crate) fn in_order(segments: &[SegmentSetup]) -> impl Fn(&SegmentName) -> SegmentId {
    |name| {
        let at = segments.iter().position(|it| it.name == *name);
        SegmentId(u32::try_from(at.unwrap_or_default()).unwrap_or_default())
    }
}

/// All that the engine must be told once.
#[derive(Debug)]
pub struct Setup {
    /// The segments; 1 to [`MAX_SEGMENTS`].
    pub segments: Vec<SegmentSetup>,
    /// Where nodes reach the controller, for tokens.
    pub advertise: Vec<String>,
    /// The key that nodes pin, for tokens.
    pub controller: ControllerId,
    /// Signs updates.
    pub authority: AuthoritySecret,
    /// Which boot of the machine this is.
    pub boot_id: String,
    /// Whether a token is enough.
    pub enrolment: EnrolmentMode,
    /// The name of the log of a mesh that begins is `NAME/MESH`; this is the first part.
    pub log_name: String,
    /// How long evidence is kept in the log; zero: for ever.
    pub keep_evidence: Duration,
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
    /// None, or too many.
    #[error("a mesh has 1 to {MAX_SEGMENTS} segments, not {0}")]
    Segments(usize),
    /// A name that stands for two.
    #[error("the segment {0} is there twice: give one of them another name")]
    Twice(SegmentName),
    /// One packet could belong to both.
    #[error(
        "the address ranges of the segments {0} and {1} overlap: give one of them another range"
    )]
    Overlap(SegmentName, SegmentName),
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
    check_segments(&setup.segments, mesh, in_order(&setup.segments))?;
    let authority = setup.authority.public();
    let event = Event::MeshCreated { mesh, authority };
    let events = std::slice::from_ref(&event);
    log.found(&origin(&setup.log_name, mesh));
    log.append(now.wall, None, events, &[])?;
    fleet.apply(now.wall, None, &event);
    Ok(mesh)
}
