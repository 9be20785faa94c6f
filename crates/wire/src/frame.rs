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

use crate::PROTOCOL_VERSION;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes in a frame header.
pub const HEADER_LEN: usize = 8;

/// A message that travels in frames: its payload is the postcard form of itself.
pub trait Frame: Serialize + DeserializeOwned {
    /// The type byte of this value.
    fn frame_type(&self) -> u8;
    /// The most payload bytes that a frame of `frame_type` may carry; `None` for a type that does
    /// not exist in this direction.
    fn limit(frame_type: u8) -> Option<usize>;
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The peer speaks another version.
    #[error("protocol version {0} instead of {PROTOCOL_VERSION}")]
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
    if version != PROTOCOL_VERSION {
        return Err(FrameError::Version(version));
    }
    let limit = M::limit(frame_type).ok_or(FrameError::Type(frame_type))?;
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
    let limit = M::limit(frame_type).ok_or(FrameError::Type(frame_type))?;
    let len = payload.len();
    let too_large = FrameError::TooLarge {
        frame_type,
        len,
        limit,
    };
    if len > limit {
        return Err(too_large);
    }
    let mut bytes = Vec::with_capacity(HEADER_LEN + len);
    bytes.extend_from_slice(&[PROTOCOL_VERSION, frame_type, 0, 0]);
    bytes.extend_from_slice(&u32::try_from(len).map_err(|_| too_large)?.to_be_bytes());
    bytes.extend_from_slice(&payload);
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
