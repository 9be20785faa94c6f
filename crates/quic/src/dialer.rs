//! The node's side: connects to one pinned key, from a socket that outlives connections.

use crate::connection::{Connection, ConnectionError};
use crate::listener::{BindError, transport, udp_socket};
use crate::pulse::KEEP_ALIVE;
use crate::tls::client_config;
use keys::{ControllerId, NodeSecret};
use quinn::{ClientConfig, Endpoint, EndpointConfig, TokioRuntime};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Connects to a controller.
#[derive(Debug)]
pub struct Dialer {
    endpoint: Endpoint,
}

impl Dialer {
    /// Binds a socket of any port, dual-stack where the machine has IPv6. Proves `secret` and
    /// accepts only `controller`. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When no UDP socket can be had.
    pub fn bind(secret: &NodeSecret, controller: ControllerId) -> Result<Self, BindError> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let refused = |source| BindError {
            address: any,
            source,
        };
        let socket = udp_socket(any).map_err(refused)?;
        let mut endpoint = Endpoint::new(
            EndpointConfig::default(),
            None,
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(refused)?;
        let mut transport = transport();
        transport.keep_alive_interval(Some(KEEP_ALIVE));
        let mut config = ClientConfig::new(Arc::new(client_config(secret, controller)));
        config.transport_config(Arc::new(transport));
        endpoint.set_default_client_config(config);
        Ok(Self { endpoint })
    }

    /// Connects to `address`. A connection is not yet a welcome: the controller judges the key
    /// after the handshake, in its first frame.
    ///
    /// # Errors
    /// When nothing answers within five seconds, or what answers is not the pinned controller.
    pub async fn connect(&self, address: SocketAddr) -> Result<Connection, ConnectionError> {
        let connecting = self.endpoint.connect(self.mapped(address), SERVER_NAME)?;
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

/// rustls wants a name; it is not sent (no SNI) and not checked (the key is pinned).
const SERVER_NAME: &str = "controller.meshd.invalid";
const CONNECT_TIME: Duration = Duration::from_secs(5);
