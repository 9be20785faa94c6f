//! Frames of the control channel: a whole frame decodes, encodes and decodes to the same; a cut
//! one is incomplete, not wrong; a header never announces more than its type's limit.

use wire::frame::{self, Frame, HEADER_LEN};
use wire::{ToController, ToNode};

/// Bytes on a stream from a node.
pub fn to_controller(data: &[u8]) {
    stream::<ToController>(data);
    payload::<ToController>(data);
}

/// Bytes on a stream from a controller.
pub fn to_node(data: &[u8]) {
    stream::<ToNode>(data);
    payload::<ToNode>(data);
}

/// `data` is a stream, header and all: decoded frame by frame, as a reader does.
fn stream<M: Frame>(mut data: &[u8]) {
    while let Ok(Some((message, rest))) = frame::decode::<M>(data) {
        let len = data.len() - rest.len();
        assert_eq!(&data[len..], rest, "the rest is what follows the frame");
        let limit = M::limit(message.frame_type()).expect("a decoded frame's type exists");
        assert!(len <= HEADER_LEN + limit, "a frame over its limit was read");
        let cut = frame::decode::<M>(&data[..len - 1]);
        assert!(matches!(cut, Ok(None)), "a cut frame is incomplete");
        reads_back(&message);
        data = rest;
    }
}

/// `data` is a type byte and a payload; the header is made to fit, so that mutations of the payload
/// are not lost to a length that no longer agrees.
fn payload<M: Frame>(data: &[u8]) {
    let Some((frame_type, payload)) = data.split_first() else {
        return;
    };
    let frame_type = frame_type % 18;
    let mut bytes = vec![M::since(frame_type), frame_type, 0, 0];
    let len = u32::try_from(payload.len()).expect("an input is smaller than 4 GiB");
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(payload);
    if let Ok(decoded) = frame::decode::<M>(&bytes) {
        let (message, rest) = decoded.expect("the frame is complete");
        assert!(rest.is_empty());
        reads_back(&message);
    }
}

/// Encoding is canonical: encoded once and read back, a message encodes to the same bytes.
fn reads_back<M: Frame>(message: &M) {
    let bytes = frame::encode(message).expect("what fits in one frame fits again");
    let (again, rest) = frame::decode::<M>(&bytes)
        .expect("our own frame is well formed")
        .expect("and complete");
    assert!(rest.is_empty());
    assert_eq!(frame::encode(&again).as_deref(), Ok(bytes.as_slice()));
}
