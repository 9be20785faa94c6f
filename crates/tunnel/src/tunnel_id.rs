//! The number of a tunnel, by which the door, the index table and the data threads' devices mean the same one.

/// One tunnel of a door. Never given twice: a thread that still holds the device of a tunnel that was closed
/// reaches no other by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelId(u32);

impl TunnelId {
    /// The first that a door opens.
    pub const FIRST: Self = Self(0);

    /// The one after it; `None` when all were given.
    pub(crate) fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}
