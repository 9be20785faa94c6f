//! Frames of the control channel.
//!
//! ```text
//!  byte 0        1        2        3        4        5        6        7
//! ┌────────┬────────┬─────────────────┬───────────────────────────────────┐
//! │version │ type   │ reserved (zero) │ payload length, u32 big-endian    │
//! └────────┴────────┴─────────────────┴───────────────────────────────────┘
//! payload: postcard, exactly `length` bytes, nothing after the value
//! ```
//!
//! The limit on the length depends on the type and holds before a byte of payload is read, so that
//! a peer cannot make its reader reserve more than a message of that type may need.

use crate::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Bytes in a frame header.
pub const HEADER_LEN: usize = 8;

/// A message that travels in frames: its payload is the postcard form of itself.
pub trait Frame: Serialize + DeserializeOwned {
    /// The type byte of this value.
    fn frame_type(&self) -> u8;
    /// The most payload bytes that a frame of `frame_type` may carry; `None` for a type that does
    /// not exist in this direction.
    fn limit(frame_type: u8) -> Option<usize>;
    /// The version of the protocol that brought this type, or changed its form last: the first byte of its frames. The
    /// other side of a connection of an older version does not know it.
    /// It has nothing to do with the versions that this build speaks: most types keep 1 for ever.
    fn since(frame_type: u8) -> u8;
    /// Takes out the bytes of the first field, where that is large and shared with the messages of others, and
    /// leaves it empty.
    fn take_shared(&mut self) -> Option<Bytes> {
        None
    }
}

/// A frame in pieces, to be sent one after the other: the large one is not copied.
#[derive(Debug)]
pub struct Pieces {
    /// The header, and the payload as far as what is shared.
    pub head: Zeroizing<Vec<u8>>,
    /// As it is in the messages of others.
    pub shared: Bytes,
    /// The rest of the payload.
    pub tail: Zeroizing<Vec<u8>>,
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The frame is of another version than its type.
    #[error(
        "a frame of protocol version {0}, which its type does not have here; this build speaks \
         {OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}"
    )]
    Version(u8),
    /// The type does not exist in this direction.
    #[error("unknown frame type {0}")]
    Type(u8),
    /// The reserved bytes are not zero.
    #[error("reserved header bytes are set")]
    Reserved,
    /// The length is above the type's limit.
    #[error("frame of type {frame_type} with {len} bytes, over its limit of {limit}")]
    TooLarge {
        /// The frame's type byte.
        frame_type: u8,
        /// The announced payload length, in bytes.
        len: usize,
        /// The type's limit, in bytes.
        limit: usize,
    },
    /// The payload is not a value of the type, or has bytes after it.
    #[error("malformed payload of type {0}")]
    Payload(u8),
}

/// A frame's checked header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The type byte.
    pub frame_type: u8,
    /// Payload bytes that follow.
    pub len: usize,
}

/// Reads and checks a header for a message `M`.
///
/// # Errors
/// [`FrameError`] for a wrong version, type, reserved field or length.
pub fn decode_header<M: Frame>(bytes: [u8; HEADER_LEN]) -> Result<Header, FrameError> {
    let [version, frame_type, r0, r1, len @ ..] = bytes;
    let limit = M::limit(frame_type).ok_or(FrameError::Type(frame_type))?;
    if version != M::since(frame_type) {
        return Err(FrameError::Version(version));
    }
    if [r0, r1] != [0, 0] {
        return Err(FrameError::Reserved);
    }
    let len = u32::from_be_bytes(len) as usize;
    if len > limit {
        return Err(FrameError::TooLarge {
            frame_type,
            len,
            limit,
        });
    }
    Ok(Header { frame_type, len })
}

/// Reads a payload behind a checked header.
///
/// # Errors
/// [`FrameError::Payload`] when the bytes are not exactly one `M` of the header's type.
pub fn decode_payload<M: Frame>(header: Header, payload: &[u8]) -> Result<M, FrameError> {
    let malformed = FrameError::Payload(header.frame_type);
    match postcard::take_from_bytes::<M>(payload) {
        Ok((message, [])) if message.frame_type() == header.frame_type => Ok(message),
        _ => Err(malformed),
    }
}

/// Writes header and payload of `message`.
///
/// # Errors
/// [`FrameError::TooLarge`] when the message is over its type's limit: the sender finds out, not
/// the receiver.
pub fn encode<M: Frame>(message: &M) -> Result<Vec<u8>, FrameError> {
    let frame_type = message.frame_type();
    let payload = postcard::to_stdvec(message).map_err(|_| FrameError::Payload(frame_type))?;
    let mut bytes = header::<M>(frame_type, payload.len())?;
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// The same in pieces.
///
/// # Errors
/// As [`encode`].
pub fn encode_pieces<M: Frame>(mut message: M) -> Result<Pieces, FrameError> {
    let Some(shared) = message.take_shared() else {
        return Ok(Pieces {
            head: encode(&message)?.into(),
            shared: Bytes::new(),
            tail: Zeroizing::default(),
        });
    };
    let frame_type = message.frame_type();
    let malformed = || FrameError::Payload(frame_type);
    let payload = postcard::to_stdvec(&message).map_err(|_| malformed())?;
    let payload = Zeroizing::new(payload);
    // The variant's number, and the length of a first field that is empty.
    let [variant @ 0..0x80, 0, tail @ ..] = payload.as_slice() else {
        return Err(malformed());
    };
    let len = postcard::to_stdvec(&shared.len()).map_err(|_| malformed())?;
    let whole = 1 + len.len() + shared.len() + tail.len();
    let mut head = header::<M>(frame_type, whole)?;
    head.push(*variant);
    head.extend_from_slice(&len);
    Ok(Pieces {
        head: head.into(),
        shared,
        tail: tail.to_vec().into(),
    })
}

fn header<M: Frame>(frame_type: u8, len: usize) -> Result<Vec<u8>, FrameError> {
    let limit = M::limit(frame_type).ok_or(FrameError::Type(frame_type))?;
    let too_large = FrameError::TooLarge {
        frame_type,
        len,
        limit,
    };
    if len > limit {
        return Err(too_large);
    }
    let mut bytes = Vec::with_capacity(HEADER_LEN + len.min(4096));
    bytes.extend_from_slice(&[M::since(frame_type), frame_type, 0, 0]);
    bytes.extend_from_slice(&u32::try_from(len).map_err(|_| too_large)?.to_be_bytes());
    Ok(bytes)
}

/// Reads one whole frame from the front of `bytes`; what follows it is returned untouched.
/// `None` while the frame is incomplete.
///
/// # Errors
/// As [`decode_header`] and [`decode_payload`].
pub fn decode<M: Frame>(bytes: &[u8]) -> Result<Option<(M, &[u8])>, FrameError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let header = decode_header::<M>(*header)?;
    let Some((payload, rest)) = rest.split_at_checked(header.len) else {
        return Ok(None);
    };
    Ok(Some((decode_payload(header, payload)?, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::message::{ToNode, Update};
    use crate::{Mark, Signed};
    use keys::{AuthoritySecret, EpochSecret};
    use rand_core::OsRng;

    #[test]
    fn the_pieces_of_a_message_are_its_frame() {
        let authority = AuthoritySecret::generate(&mut OsRng);
        let message = |members: u8| {
            let update = fixtures::update(3, (1..=members).map(fixtures::member).collect());
            let mark = Mark {
                mesh: update.mesh,
                segment: update.segment,
                epoch: update.epoch,
                update: Default::default(),
                log: crate::log::LogEnd {
                    events: 1,
                    root: Default::default(),
                },
                log_key: keys::LogId([1; 32]),
            };
            ToNode::Update(Update {
                signed: Signed::sign(&update, &authority).unwrap(),
                secret: Some(EpochSecret::from_bytes([7; 32])),
                age_ms: 300,
                mark: Signed::sign(&mark, &authority).unwrap(),
                log: crate::log::LogNews {
                    checkpoint: "checkpoint".into(),
                    from: 0,
                    proof: Vec::new(),
                    restored: None,
                },
            })
        };
        // One, two and three bytes of length before what is shared.
        for members in [0, 1, 3, 200] {
            let whole = encode(&message(members)).unwrap();
            let Pieces { head, shared, tail } = encode_pieces(message(members)).unwrap();
            assert_eq!([&head[..], &shared, &tail].concat(), whole, "{members}");
        }
        let small = ToNode::RollCall;
        assert_eq!(
            *encode_pieces(ToNode::RollCall).unwrap().head,
            encode(&small).unwrap()
        );
    }
}
