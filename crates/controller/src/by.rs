//! At whose word something was done, as the log keeps it.

use std::fmt;

/// Whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An operator at the admin socket, by the user that the kernel names.
    Uid(u32),
    /// A signal to the process.
    Signal,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Signal => f.write_str("signal"),
        }
    }
}
