//! Where nodes can be reached, as the controller tells it: encoded once for all who are told the same, and numbered,
//! so that a node which was away is told only what it has missed.

use bytes::Bytes;
use keys::{NodeId, SegmentId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Nodes and their endpoints, best first, encoded. A copy shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries(Bytes);

/// Up to where a node has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacesMark {
    /// The segment.
    pub segment: SegmentId,
    /// The table, which is another one where the controller has lost its own.
    pub table: u64,
    /// The newest change in it.
    pub seq: u64,
}

/// The bytes are no list of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed list of endpoints")]
pub struct Malformed;

impl Entries {
    /// Encodes a list. A node is to have at most [`MAX_ENDPOINTS`](crate::message::MAX_ENDPOINTS) endpoints.
    pub fn new(entries: &[(NodeId, Vec<SocketAddr>)]) -> Self {
        // Addresses can always be encoded.
        Self(postcard::to_stdvec(entries).unwrap_or_default().into())
    }

    /// The list.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(&self) -> Result<Vec<(NodeId, Vec<SocketAddr>)>, Malformed> {
        match postcard::take_from_bytes(&self.0) {
            Ok((entries, [])) => Ok(entries),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_reads_back() {
        let at = |text: &str| text.parse().unwrap();
        let list = vec![
            (
                NodeId([1; 32]),
                vec![at("192.0.2.1:7"), at("[2001:db8::1]:7")],
            ),
            (NodeId([2; 32]), Vec::new()),
        ];
        assert_eq!(Entries::new(&list).decode().unwrap(), list);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entries(bytes.into()).decode();
        }
    }
}
