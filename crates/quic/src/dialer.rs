//! The node's side: connects to one pinned key, from a socket that outlives connections.

use crate::connection::{Connection, ConnectionError};
use crate::listener::{BindError, transport, udp_socket};
use crate::pulse::KEEP_ALIVE;
use crate::tls::{SPOKEN, Versions, client_config};
use keys::{ControllerId, NodeSecret};
use quinn::{ClientConfig, Endpoint, EndpointConfig, TokioRuntime, VarInt};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Connects to a controller.
#[derive(Debug)]
pub struct Dialer {
    endpoint: Endpoint,
    config: ClientConfig,
}

impl Dialer {
    /// Binds a socket of any port, dual-stack where the machine has IPv6. Proves `secret` and
    /// accepts only `controller`. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When no UDP socket can be had.
    pub fn bind(secret: &NodeSecret, controller: ControllerId) -> Result<Self, BindError> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        Self::bind_to(any, secret, controller)
    }

    /// The same as a build that speaks these versions.
    #[cfg(test)]
    pub(crate) fn bind_of(
        secret: &NodeSecret,
        controller: ControllerId,
        versions: Versions,
    ) -> Result<Self, BindError> {
        let config = dialling(secret, controller, versions);
        Ok(Self {
            config,
            ..Self::bind(secret, controller)?
        })
    }

    /// The same with a socket at `address`, for a program that speaks for several machines.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_to(
        address: SocketAddr,
        secret: &NodeSecret,
        controller: ControllerId,
    ) -> Result<Self, BindError> {
        let refused = |source| BindError { address, source };
        let socket = udp_socket(address).map_err(refused)?;
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            None,
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(refused)?;
        let config = dialling(secret, controller, SPOKEN);
        Ok(Self { endpoint, config })
    }

    /// Another key on the same socket.
    #[must_use]
    pub fn beside(&self, secret: &NodeSecret, controller: ControllerId) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            config: dialling(secret, controller, SPOKEN),
        }
    }

    /// Connects to `address`. A connection is not yet a welcome: the controller judges the key
    /// after the handshake, in its first frame.
    ///
    /// # Errors
    /// When nothing answers within five seconds, or what answers is not the pinned controller.
    pub async fn connect(&self, address: SocketAddr) -> Result<Connection, ConnectionError> {
        let (config, address) = (self.config.clone(), self.mapped(address));
        let connecting = self.endpoint.connect_with(config, address, SERVER_NAME)?;
        let connection = timeout(CONNECT_TIME, connecting).await;
        Connection::new(connection.map_err(|_| ConnectionError::Timeout(CONNECT_TIME))??)
    }

    /// Tells the other side before the socket goes away.
    pub async fn close(&self, reason: &str) {
        self.endpoint.close(0u32.into(), reason.as_bytes());
        let _ = timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }

    /// An IPv4 address as a dual-stack socket takes it.
    fn mapped(&self, address: SocketAddr) -> SocketAddr {
        match (self.endpoint.local_addr(), address) {
            (Ok(SocketAddr::V6(_)), SocketAddr::V4(v4)) => {
                SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()))
            }
            (_, address) => address,
        }
    }
}

fn dialling(secret: &NodeSecret, controller: ControllerId, versions: Versions) -> ClientConfig {
    let mut transport = transport();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(WINDOW));
    let mut config = ClientConfig::new(Arc::new(client_config(secret, controller, versions)));
    config.transport_config(Arc::new(transport));
    config
}

/// Bytes that may be under way to a node. The controller keeps a record of each packet until it is acknowledged, for all
/// nodes at the same time. A round trip of 200 ms leaves 320 kB/s, a roster of 10,000 in three seconds.
const WINDOW: u32 = 64 << 10;
/// rustls wants a name; it is not sent (no SNI) and not checked (the key is pinned).
const SERVER_NAME: &str = "controller.meshd.invalid";
const CONNECT_TIME: Duration = Duration::from_secs(5);
