//! A connection with a proven key on the other side, and its one bidirectional stream of frames.

use crate::pulse::Pulse;
use crate::tls::{key_of_spki, version_of};
use crate::wiped::Wiped;
use quinn::crypto::rustls::HandshakeData;
use quinn::{TransportErrorCode, VarInt};
use rustls::pki_types::CertificateDer;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use wire::admin::OTHER_CONTROLLER;
use wire::frame::{self, Frame, FrameError, HEADER_LEN, Header, Pieces};
use wire::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION};

/// A live connection.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: quinn::Connection,
    peer: [u8; 32],
    version: u8,
    pulse: Pulse,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The attempt could not even start.
    #[error("cannot connect: {0}")]
    Connect(#[from] quinn::ConnectError),
    /// The handshake failed, or the connection ended.
    #[error(transparent)]
    Lost(quinn::ConnectionError),
    /// The other side proved no Ed25519 key.
    #[error("the other side did not prove an Ed25519 key")]
    NoKey,
    /// The two have no version of the control protocol in common.
    #[error(
        "the other side speaks no version of the control protocol that this build speaks ({OLDEST_PROTOCOL_VERSION} \
         to {PROTOCOL_VERSION}): upgrade the older of the two by one release at a time"
    )]
    NoVersion,
    /// The other side holds another key than the pinned one.
    #[error("{OTHER_CONTROLLER}: its key is not the one that this node was given")]
    OtherKey,
    /// Nothing was heard for too long.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(std::time::Duration),
    /// The handshake took too long.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
}

/// Why a frame was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The message does not fit its frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream is gone.
    #[error(transparent)]
    Stream(#[from] quinn::WriteError),
}

/// Why no frame was received.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// The bytes are not a frame of the expected kind.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream is gone.
    #[error(transparent)]
    Stream(#[from] quinn::ReadError),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Cut,
}

/// The sending half of the stream.
#[derive(Debug)]
pub struct Sender<M> {
    inner: quinn::SendStream,
    version: u8,
    of: PhantomData<fn(M)>,
}

/// The receiving half of the stream.
#[derive(Debug)]
pub struct Receiver<M> {
    inner: quinn::RecvStream,
    version: u8,
    of: PhantomData<fn() -> M>,
}

impl Connection {
    pub(crate) fn new(inner: quinn::Connection) -> Result<Self, ConnectionError> {
        let identity = inner.peer_identity().ok_or(ConnectionError::NoKey)?;
        let chain = identity
            .downcast::<Vec<CertificateDer<'static>>>()
            .map_err(|_| ConnectionError::NoKey)?;
        let peer = chain
            .first()
            .and_then(|spki| key_of_spki(spki))
            .ok_or(ConnectionError::NoKey)?;
        let data = inner.handshake_data();
        let data = data.and_then(|it| it.downcast::<HandshakeData>().ok());
        let version = data
            .and_then(|it| version_of(&it.protocol?))
            .ok_or(ConnectionError::NoVersion)?;
        let pulse = Pulse::of(inner.clone());
        Ok(Self {
            inner,
            peer,
            version,
            pulse,
        })
    }

    /// The version of the control protocol that both sides speak.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The Ed25519 key that the other side proved to hold.
    pub fn peer(&self) -> [u8; 32] {
        self.peer
    }

    /// Where the other side is seen; follows its migration. IPv4 is never shown as IPv6-mapped.
    pub fn remote(&self) -> SocketAddr {
        canonical(self.inner.remote_address())
    }

    /// Opens the connection's stream; the node's side.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn open_stream<S: Frame, R: Frame>(
        &self,
    ) -> Result<(Sender<S>, Receiver<R>), ConnectionError> {
        Ok(halves(self.inner.open_bi().await?, self.version))
    }

    /// Takes the stream that the other side opened; the controller's side. It appears with its
    /// first bytes.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn accept_stream<S: Frame, R: Frame>(
        &self,
    ) -> Result<(Sender<S>, Receiver<R>), ConnectionError> {
        Ok(halves(self.inner.accept_bi().await?, self.version))
    }

    /// Ends the connection at once; `reason` is for the other side's log.
    pub fn close(&self, reason: &str) {
        self.inner.close(VarInt::from_u32(0), reason.as_bytes());
    }

    /// Resolves when the connection has ended, with the reason, or nothing was heard on it for
    /// [`LOST_AFTER`](crate::pulse::LOST_AFTER): QUIC's own idle timeout begins anew with what is sent, and takes
    /// up to twice its time. Polled for as long as there is a connection, it keeps its [`Pulse`] up to date.
    pub async fn closed(&self) -> ConnectionError {
        tokio::select! {
            ended = self.inner.closed() => ended.into(),
            silence = self.pulse.lost() => ConnectionError::Silent(silence),
        }
    }

    /// Resolves when the connection has ended. Whoever waits for this alone looks at the [`Pulse`] each second, and
    /// closes a connection that is [lost](Pulse::is_lost): with ten thousand of them a timer each takes longer.
    pub async fn ended(&self) -> ConnectionError {
        self.inner.closed().await.into()
    }

    /// When the other side was last heard, while [`Self::closed`] is polled.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// For how long nothing has been heard, to a second: [`Pulse::silence`] without a pulse of one's own.
    pub fn silence(&self) -> std::time::Duration {
        self.pulse.silence()
    }

    /// Bytes of UDP payload that were received on it, those of QUIC's own frames included.
    pub fn received(&self) -> u64 {
        self.inner.stats().udp_rx.bytes
    }

    /// Smoothed round trip.
    pub fn rtt(&self) -> std::time::Duration {
        self.inner.rtt()
    }
}

impl<M: Frame> Sender<M> {
    /// Whether the other side knows messages of this type: it may be of a version that did not have them.
    pub fn is_known(&self, message: &M) -> bool {
        M::since(message.frame_type()) <= self.version
    }

    /// Sends one frame; returns when it is in the stream's window.
    ///
    /// # Errors
    /// When the message does not fit its frame, or the stream is gone.
    pub async fn send(&mut self, message: &M) -> Result<(), SendError> {
        let bytes = zeroize::Zeroizing::new(frame::encode(message)?);
        self.send_encoded(&bytes).await
    }

    /// The same; a large part that the message shares with others is not copied.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_shared(&mut self, message: M) -> Result<(), SendError> {
        let Pieces { head, shared, tail } = frame::encode_pieces(message)?;
        self.inner.write_all(&head).await?;
        if !shared.is_empty() {
            self.inner.write_all_chunks(&mut [shared]).await?;
            self.inner.write_all(&tail).await?;
        }
        Ok(())
    }

    /// Sends what is encoded already.
    ///
    /// # Errors
    /// When the stream is gone.
    pub async fn send_encoded(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        Ok(self.inner.write_all(bytes).await?)
    }

    /// Says that no further frame follows and waits until the other side has everything.
    ///
    /// The wait ends when the connection does; bound it where that may be never.
    pub async fn finish(mut self) {
        if self.inner.finish().is_ok() {
            let _ = self.inner.stopped().await;
        }
    }
}

impl<M: Frame> Receiver<M> {
    /// Receives one frame; `None` when the other side has finished.
    ///
    /// Not safe to cancel between frames' bytes: poll it from one task of its own.
    ///
    /// # Errors
    /// When the bytes are not a frame, or the stream is gone.
    pub async fn recv(&mut self) -> Result<Option<M>, RecvError> {
        match self.header().await? {
            Some(header) => Ok(Some(self.payload(header).await?)),
            None => Ok(None),
        }
    }

    /// The first half of [`Self::recv`]: what comes next and how long it is, before a byte of it is kept.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub async fn header(&mut self) -> Result<Option<Header>, RecvError> {
        let mut header = [0; HEADER_LEN];
        match self.inner.read_exact(&mut header).await {
            Ok(()) => {
                let header = frame::decode_header::<M>(header)?;
                if M::since(header.frame_type) > self.version {
                    return Err(FrameError::Type(header.frame_type).into());
                }
                Ok(Some(header))
            }
            Err(quinn::ReadExactError::FinishedEarly(0)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The second half of [`Self::recv`].
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub async fn payload(&mut self, header: Header) -> Result<M, RecvError> {
        // Grows as bytes arrive, so that an announced length alone reserves nothing.
        let mut payload = Wiped::with_room_for(header.len.min(CHUNK));
        while payload.len() < header.len {
            let want = (header.len - payload.len()).min(CHUNK);
            let chunk = self
                .inner
                .read_chunk(want, true)
                .await?
                .ok_or(RecvError::Cut)?;
            payload.extend(&chunk.bytes, header.len);
        }
        Ok(frame::decode_payload(header, &payload)?)
    }
}

impl From<quinn::ConnectionError> for ConnectionError {
    fn from(error: quinn::ConnectionError) -> Self {
        let code = match &error {
            quinn::ConnectionError::TransportError(error) => Some(error.code),
            quinn::ConnectionError::ConnectionClosed(close) => Some(close.error_code),
            _ => None,
        };
        // This side's own refusal of a key, and not another side's of ours.
        let is_refused_here = matches!(error, quinn::ConnectionError::TransportError(_));
        if code == Some(TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL)) {
            Self::NoVersion
        } else if is_refused_here && code == Some(TransportErrorCode::crypto(ACCESS_DENIED)) {
            Self::OtherKey
        } else {
            Self::Lost(error)
        }
    }
}

impl From<quinn::ReadExactError> for RecvError {
    fn from(error: quinn::ReadExactError) -> Self {
        match error {
            quinn::ReadExactError::FinishedEarly(_) => Self::Cut,
            quinn::ReadExactError::ReadError(error) => Self::Stream(error),
        }
    }
}

pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => v6
            .to_ipv4_mapped()
            .map_or(address, |v4| SocketAddr::new(v4.into(), address.port())),
        IpAddr::V4(_) => address,
    }
}

fn halves<S, R>(
    (send, receive): (quinn::SendStream, quinn::RecvStream),
    version: u8,
) -> (Sender<S>, Receiver<R>) {
    (
        Sender {
            inner: send,
            version,
            of: PhantomData,
        },
        Receiver {
            inner: receive,
            version,
            of: PhantomData,
        },
    )
}

/// The TLS alert of a side that knows none of the names offered (RFC 7301, section 3.2).
const NO_APPLICATION_PROTOCOL: u8 = 120;
/// The TLS alert `access_denied` (RFC 8446), by which a side refuses a certificate that its own check does not take.
const ACCESS_DENIED: u8 = 49;
/// Most bytes of a payload that are reserved ahead of their arrival.
const CHUNK: usize = 16 << 10;
