//! The faults of an event log, each with its way out.

use keys::{AuthorityId, LogId};
use ledger::proof::ProofError;
use rusqlite::ErrorCode;

/// Why the log cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No space.
    #[error("the disk is full: free some space")]
    Full,
    /// Over a quota, or a disk that fails.
    #[error("the disk does not take what is written: it is over its quota, or failing")]
    NotTaken,
    /// No right to write.
    #[error(
        "it cannot be written: check its owner, its mode and whether its file system is mounted read-only"
    )]
    ReadOnly,
    /// Another process has it.
    #[error("another controller uses it: stop that one, or give this one another state directory")]
    InUse,
    /// There was a mesh, and the log does not hold it.
    #[error(
        "the mesh is not in it ({0}), while its keys are there: restore it from the backup, or start once \
         with --new-mesh, which sets aside what there is and founds a new mesh, in which every node has to \
         enrol again"
    )]
    Lost(&'static str),
    /// Not a database, or one that is torn.
    #[error(
        "the file is damaged ({0}): restore it from a copy; its events cannot be told from forgeries. Without \
         a copy, start once with --new-mesh, which sets it aside and founds a new mesh"
    )]
    Damaged(String),
    /// An event does not fit the tree.
    #[error(
        "event {seq} does not fit the log ({what}): the log was changed or cut after it was \
         written; restore it from a copy. Without one, start once with --new-mesh, which sets it aside and \
         founds a new mesh"
    )]
    Entry {
        /// The event.
        seq: u64,
        /// The part that does not fit.
        what: &'static str,
    },
    /// The checkpoint is not that of the events.
    #[error(
        "its signed checkpoint is not that of its events ({0}): the log was changed or cut after it was written; \
         restore it from a copy. Without one, start once with --new-mesh, which sets it aside and founds a \
         new mesh"
    )]
    Checkpoint(String),
    /// The checkpoint is signed by a key that is not this controller's.
    #[error(
        "its checkpoint is not signed by {0}, the key in log.key: restore that key together with the log. \
         Without it, start once with --new-mesh, which sets the log aside and founds a new mesh"
    )]
    Signer(LogId),
    /// The mesh is of an authority that is not this controller's.
    #[error(
        "its mesh is signed for by {0}, which is not the key in authority.key: restore that key, or, to go on \
         with a new one on purpose, name the old one in `adopt_log`; all nodes have to enrol again then, as they \
         have to in a new mesh, which --new-mesh founds"
    )]
    Authority(AuthorityId),
    /// Events have left the disk, and the snapshot that stands for them is not to be believed.
    #[error(
        "the snapshot that stands for events which are no longer kept is {0}: restore the log from a copy. \
         Without one, start once with --new-mesh, which sets it aside and founds a new mesh"
    )]
    Snapshot(&'static str),
    /// An event of a newer version.
    #[error(
        "event {0} is of a kind that this version does not know: start the version that wrote it"
    )]
    Newer(u64),
    /// A schema of another version.
    #[error("it has the schema of another version: start the version that wrote it")]
    Schema,
    /// A number that no event or checkpoint has.
    #[error("{0}")]
    Number(String),
    /// A proof that does not hold.
    #[error("a proof made of it does not hold ({0}): the log is damaged; restore it from a copy")]
    Proof(#[from] ProofError),
    /// Anything else that the database says.
    #[error("{0}")]
    Database(rusqlite::Error),
    /// Anything else that the system says.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl LogError {
    /// Whether the mesh in the log is lost, rather than out of reach for now.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Lost(_)
            | Self::Damaged(_)
            | Self::Entry { .. }
            | Self::Checkpoint(_)
            | Self::Signer(_)
            | Self::Authority(_)
            | Self::Snapshot(_) => true,
            Self::Full
            | Self::NotTaken
            | Self::ReadOnly
            | Self::InUse
            | Self::Newer(_)
            | Self::Schema
            | Self::Number(_)
            | Self::Proof(_)
            | Self::Database(_)
            | Self::Io(_) => false,
        }
    }
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        let extended = error.sqlite_error().map(|error| error.extended_code);
        if extended == Some(rusqlite::ffi::SQLITE_IOERR_WRITE) {
            return Self::NotTaken;
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::ReadOnly
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Database(error),
        }
    }
}
