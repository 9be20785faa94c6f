//! The controller's side. Spends no signature on an unproven source address once handshakes pile up,
//! and bounds how many can be half open.

use crate::connection::{Connection, ConnectionError, canonical};
use crate::restart;
use crate::socket;
use crate::tls::{SPOKEN, Versions, server_config};
use keys::ControllerSecret;
use quinn::{Endpoint, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A bound QUIC endpoint that accepts connections.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
}

/// An address that is bound and not served yet.
#[derive(Debug)]
pub struct Bound {
    address: SocketAddr,
    socket: std::net::UdpSocket,
}

impl Bound {
    /// Binds `address`. `[::]` serves IPv4 too.
    ///
    /// # Errors
    /// When the address is taken or not of this machine.
    pub fn to(address: SocketAddr) -> Result<Self, BindError> {
        let bound = udp_socket(address);
        let socket = bound.map_err(|source| BindError { address, source })?;
        Ok(Self { address, socket })
    }
}

/// An attempt to connect whose source address has been seen, and nothing more.
#[derive(Debug)]
pub struct Incoming {
    inner: quinn::Incoming,
}

/// Why the endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (UDP): {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The system's answer.
    pub source: std::io::Error,
}

impl Listener {
    /// Binds `address` and proves `secret` to whoever connects. `[::]` serves IPv4 too. Must run
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is taken or not of this machine.
    pub fn bind(address: SocketAddr, secret: &ControllerSecret) -> Result<Self, BindError> {
        Self::on(Bound::to(address)?, secret)
    }

    /// The same on an address that was bound before.
    ///
    /// # Errors
    /// When the socket is not taken.
    pub fn on(bound: Bound, secret: &ControllerSecret) -> Result<Self, BindError> {
        Self::on_of(bound, secret, SPOKEN)
    }

    /// The same as a build that speaks these versions.
    pub(crate) fn on_of(
        bound: Bound,
        secret: &ControllerSecret,
        versions: Versions,
    ) -> Result<Self, BindError> {
        let Bound { address, socket } = bound;
        let refused = |source| BindError { address, source };
        let mut config = ServerConfig::with_crypto(Arc::new(server_config(secret, versions)));
        config.transport_config(Arc::new(transport()));
        config.max_incoming(MAX_HALF_OPEN);
        let socket = socket::short(socket).map_err(refused)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            restart::endpoint_config(secret),
            Some(config),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(refused)?;
        Ok(Self { endpoint })
    }

    /// The address in use.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next attempt to connect; `None` after [`Self::close`]. While many connections are open, a
    /// source address must first prove itself by answering a Retry (RFC 9000, section 8.1.2).
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = Incoming {
                inner: self.endpoint.accept().await?,
            };
            if self.open_connections() <= CROWDED {
                return Some(incoming);
            }
            if let Some(incoming) = incoming.prove_address() {
                return Some(incoming);
            }
        }
    }

    /// Connections that hold memory: half open, live, and those that are being closed.
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// Ends all connections and accepts no more; returns when the other sides have been told.
    pub async fn close(&self, reason: &str) {
        self.endpoint.close(VarInt::from_u32(0), reason.as_bytes());
        let _ = timeout(CLOSE_TIME, self.endpoint.wait_idle()).await;
    }
}

impl Incoming {
    /// Where the attempt comes from.
    pub fn remote(&self) -> SocketAddr {
        canonical(self.inner.remote_address())
    }

    /// The attempt, if its source address has proved that it hears us. Otherwise it is asked to, and
    /// comes again as another attempt: a forged address never does.
    pub fn prove_address(self) -> Option<Self> {
        if self.inner.remote_address_validated() || !self.inner.may_retry() {
            return Some(self);
        }
        // A failed Retry is a lost datagram: the client's own retransmission asks again.
        let _ = self.inner.retry();
        None
    }

    /// Leaves the attempt unanswered: an honest client tries again by itself, and a flood costs nothing.
    pub fn ignore(self) {
        self.inner.ignore();
    }

    /// Finishes the handshake: the other side proves its key.
    ///
    /// # Errors
    /// When it does not, or takes longer than ten seconds.
    pub async fn handshake(self) -> Result<Connection, ConnectionError> {
        let connecting = self.inner.accept()?;
        let connection = timeout(HANDSHAKE_TIME, connecting).await;
        Connection::new(connection.map_err(|_| ConnectionError::Timeout(HANDSHAKE_TIME))??)
    }
}

/// Windows, timeouts and stream counts of both sides. Measured with 10,000 idle connections: 38 kB
/// resident each.
pub(crate) fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(256 << 10))
        .receive_window(VarInt::from_u32(1 << 20))
        .send_window(1 << 20)
        .mtu_discovery_config(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))));
    transport
}

/// A UDP socket with buffers large enough for a push to thousands of nodes; dual-stack on `[::]`, and
/// IPv4 alone there on a machine without IPv6.
pub(crate) fn udp_socket(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let any_v6 = address.ip() == Ipv6Addr::UNSPECIFIED;
    match bound_socket(address) {
        Err(error) if any_v6 && error.raw_os_error() == Some(EAFNOSUPPORT) => {
            bound_socket((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    }
}

fn bound_socket(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Beyond the system's limit the system clamps silently; what is granted is enough to start.
    socket.set_recv_buffer_size(UDP_BUFFER)?;
    socket.set_send_buffer_size(UDP_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// `errno(3)` of Linux: no IPv6 in this kernel.
const EAFNOSUPPORT: i32 = 97;
/// Handshakes that may be half open; more are refused.
const MAX_HALF_OPEN: usize = 1024;
/// Open connections above which a source address must prove itself first.
const CROWDED: usize = 64;
/// Of QUIC itself, above [`crate::pulse::LOST_AFTER`], which is the measure.
const IDLE_MS: u32 = 15_000;
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
const CLOSE_TIME: Duration = Duration::from_millis(400);
const UDP_BUFFER: usize = 4 << 20;
