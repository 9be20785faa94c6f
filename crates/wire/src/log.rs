//! The controller's event log as nodes hear of it: with every update comes the log's newest checkpoint, and the
//! proof that it extends the one that the node has kept.

use crate::signed::{Digest, Signable, Signed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::MeshId;
use serde::{Deserialize, Serialize};

/// Longest checkpoint that a node reads, in bytes.
pub const MAX_CHECKPOINT_LEN: usize = 4 << 10;

/// A log's end, as a node remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// Events in the log.
    pub events: u64,
    /// The root of the tree over them (RFC 6962, section 2.1).
    pub root: Digest,
}

impl LogEnd {
    /// The root as checkpoints print it.
    pub fn root_base64(&self) -> String {
        STANDARD.encode(self.root.0)
    }
}

/// News of the log, with an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogNews {
    /// The newest checkpoint, as a signed note (C2SP tlog-checkpoint); at most [`MAX_CHECKPOINT_LEN`] bytes.
    pub checkpoint: String,
    /// How many events the log had that [`Self::proof`] begins from.
    pub from: u64,
    /// The consistency proof from there to the checkpoint (RFC 6962, section 2.1.2), at most 64 hashes.
    pub proof: Vec<[u8; 32]>,
    /// The authority's word that the log was restored from a copy: to a node that has kept a checkpoint which
    /// that copy does not have.
    pub restored: Option<Box<Signed<LogRestored>>>,
}

/// An operator has restored the log from a copy: what came after it in the log that nodes have seen is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRestored {
    /// The mesh.
    pub mesh: MeshId,
    /// The end of the copy: the log goes on from there.
    pub copy: LogEnd,
    /// When, in milliseconds since 1970 by the controller's clock.
    pub unix_ms: u64,
}

impl Signable for LogRestored {
    const LABEL: &'static [u8] = b"meshd/v1 log restored";

    fn check(&self) -> Result<(), &'static str> {
        if self.copy.events > 0 {
            Ok(())
        } else {
            Err("a copy without events")
        }
    }
}
