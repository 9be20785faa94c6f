//! A look at a node's files without a start: reads, and changes nothing.

use crate::persist::{EnrolledSegment, OwnKeys, StateDir};
use crate::{Config, KeyStore, OpenError, further, interfaces};
use keys::{NodeId, WgPublicKey};
use std::net::IpAddr;
use wire::Prefix;

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

/// A node, as its files have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// Whether it is enrolled.
    pub standing: Standing,
    /// The segments that it is enrolled in, in the order in which a start opens them.
    pub segments: Vec<Segment>,
}

/// A segment that a node is enrolled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The interface that it has here.
    pub interface: String,
    /// Its ranges, of IPv4 and IPv6.
    pub ranges: [Prefix; 2],
}

/// Reads the state directory of a node with these keys, as a start would. `keys` has those of further segments, and must
/// write none.
///
/// # Errors
/// [`OpenError`], for the first file that a start would refuse.
pub fn examine(
    config: &Config,
    (node, wg): (NodeId, WgPublicKey),
    keys: &KeyStore,
) -> Result<Examined, OpenError> {
    let state = StateDir::new(config.state_dir.clone());
    let enrolment = state.enrolment(OwnKeys { node, wg })?;
    let memory = state.memory()?;
    state.seen_runs()?;
    further(&state, keys, &config.segments, enrolment.as_ref())?;
    let standing = match (&enrolment, memory) {
        (Some(_), _) => Standing::Enrolled,
        (None, Some(_)) => Standing::Lost,
        (None, None) => Standing::New,
    };
    let enrolled = enrolment.map(|it| it.segments).unwrap_or_default();
    let names = interfaces(&config.interface, &enrolled);
    let segments = names.into_iter().zip(&enrolled);
    let segments = segments.map(|(interface, it)| Segment {
        interface,
        ranges: ranges(it),
    });
    Ok(Examined {
        standing,
        segments: segments.collect(),
    })
}

fn ranges(of: &EnrolledSegment) -> [Prefix; 2] {
    [
        Prefix::around(IpAddr::V4(of.v4.0), of.v4.1),
        Prefix::around(IpAddr::V6(of.v6.0), of.v6.1),
    ]
}
