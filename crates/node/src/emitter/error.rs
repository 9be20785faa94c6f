//! Why there is no result.

use harness::Fault;
use std::path::PathBuf;
use std::time::Duration;

/// Why a result could not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum EmitError {
    /// The program, the file or the folder could not be used.
    #[error("{what}: {source}")]
    Io {
        /// The action that failed.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The program failed.
    #[error("the benchmark command ended with {0}")]
    Failed(std::process::ExitStatus),
    /// The program hung.
    #[error("the benchmark command took longer than {0:?} and was killed")]
    Timeout(Duration),
    /// The program has run for longer than its interval, and goes on.
    #[error("the benchmark command has run for over {0:?}, its interval, and gives no result yet")]
    Late(Duration),
    /// The output is too large.
    #[error("the benchmark command printed over {0} bytes")]
    TooLarge(usize),
    /// The path leads to something else.
    #[error("{} is {kind}, not a regular file; a program's output is for the emitter `command`", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// The kind of thing that is there.
        kind: &'static str,
    },
    /// There is no file that could be a result.
    #[error("{} has no finished result yet; looked for {wanted}", .path.display())]
    NoFile {
        /// The folder.
        path: PathBuf,
        /// The files that were looked for.
        wanted: &'static str,
    },
    /// There are too many to look through.
    #[error("{} has over {most} entries: move old results away", .path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// So many are looked through.
        most: usize,
    },
    /// The program's output is no result that can be used.
    #[error("the output of the benchmark command: {0}")]
    Output(#[source] Fault),
    /// The file's content is no result that can be used.
    #[error("{}: {fault}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        fault: Fault,
    },
}

impl EmitError {
    /// Whether it may be a part of a result that is still being written.
    pub(super) fn may_be_half(&self) -> bool {
        match self {
            Self::Output(fault) | Self::File { fault, .. } => fault.may_be_half(),
            Self::Io { .. }
            | Self::Failed(_)
            | Self::Timeout(_)
            | Self::Late(_)
            | Self::TooLarge(_)
            | Self::NotAFile { .. }
            | Self::NoFile { .. }
            | Self::TooMany { .. } => false,
        }
    }

    /// Whether the same file may be taken at another time.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::File { fault, .. } => fault.may_pass(),
            _ => true,
        }
    }
}
