//! The questions that the page may ask its role. There is no order among them, so that nothing a browser sends can
//! become one.

use wire::admin::{ApiError, EventList, Explanation};
use wire::{NodeName, SegmentName};

/// A role that answers questions about itself.
pub trait Source: Clone + Send + Sync + 'static {
    /// Why a node is where it is, in a segment or in the first that it is in.
    fn explain(
        &self,
        name: NodeName,
        segment: Option<SegmentName>,
    ) -> impl Future<Output = Result<Explanation, Refusal>> + Send;

    /// The events behind `after`, at most `limit` of them.
    fn events(
        &self,
        after: u64,
        limit: u64,
    ) -> impl Future<Output = Result<EventList, Refusal>> + Send;
}

/// A refusal, as a browser gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// The words, and the way out.
    pub error: ApiError,
}

impl Refusal {
    /// A refusal with a way out.
    pub(crate) fn new(status: u16, error: impl Into<String>, hint: impl Into<String>) -> Self {
        let error = ApiError {
            error: error.into(),
            hint: Some(hint.into()),
        };
        Self { status, error }
    }
}
