//! Where a key is valid: in a mesh, in a segment of it, in an epoch of that segment. Refuses to hold keys.

use crate::public::{KeyParseError, parse_hex};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A mesh: 16 random bytes that its controller drew once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MeshId(pub [u8; 16]);

/// A segment of a mesh: its own roster, secret and policy. Every mesh has [`Self::FIRST`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct SegmentId(pub u32);

/// An epoch's number within its segment. Never goes back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// One epoch of one segment of one mesh: everything that is derived or signed is valid in one scope
/// and in no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// The mesh.
    pub mesh: MeshId,
    /// Its segment.
    pub segment: SegmentId,
    /// The epoch of that segment.
    pub epoch: Epoch,
}

impl Scope {
    /// The HKDF salt of everything derived in this scope: mesh ‖ segment ‖ epoch, 28 bytes, big-endian.
    pub(crate) fn salt(&self) -> [u8; 28] {
        let mut salt = [0; 28];
        salt[..16].copy_from_slice(&self.mesh.0);
        salt[16..20].copy_from_slice(&self.segment.0.to_be_bytes());
        salt[20..].copy_from_slice(&self.epoch.0.to_be_bytes());
        salt
    }
}

impl SegmentId {
    /// The segment that every mesh begins with.
    pub const FIRST: Self = Self(0);
}

impl Epoch {
    /// The epoch after this one; saturates, which at one epoch per second takes 5 × 10^11 years.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl MeshId {
    /// The prefix of the printed form.
    pub const PREFIX: &'static str = "mesh:";
}

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        crate::public::write_hex(f, &self.0)
    }
}

impl FromStr for MeshId {
    type Err = KeyParseError;
    fn from_str(text: &str) -> Result<Self, KeyParseError> {
        let hex = text.strip_prefix(Self::PREFIX);
        let hex = hex.ok_or(KeyParseError::Prefix(Self::PREFIX))?;
        parse_hex(hex).map(Self).ok_or(KeyParseError::MeshId)
    }
}

impl fmt::Debug for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
