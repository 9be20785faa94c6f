//! The enforcement point: enrols, keeps the control channel, applies verified epochs to the data
//! plane, submits evidence, probes peers and reports what it observes.
//!
//! ```text
//!  session ─┐                                          ┌─▶ outbox ─▶ controller
//!  emitter ─┤                                          │
//!  probe   ─┼─▶ Shell ─▶ agent::Agent ─▶ Effect ─▶ Shell ─▶ data threads
//!  admin   ─┤   select     the machine       carry out │
//!  links   ─┤                                          ├─▶ state directory
//!  guard   ─┤                                          └─▶ guard ─▶ interface
//!  timer   ─┘
//! ```
//!
//! The logic is the machine's, in the crate `agent`; here is all that awaits, opens and writes.
//! [`Node::open`] does everything that can fail for a reason outside; [`Node::serve`] runs.

mod admin;
mod announcement;
mod data;
mod emitter;
mod export;
mod guard;
mod heard;
mod io;
mod keepalive;
pub mod metrics;
mod networks;
mod persist;
mod probe;
mod segment;
mod session;
mod shell;
mod standing;
mod start;
mod status;
mod underlay;

pub use emitter::{BenchmarkUser, Emitter, Reading, UserError};
pub use harness::{Format, Labels};
pub use io::firewall::FirewallMode;
pub use io::interface::InterfaceError;
pub use io::offload::OffloadSwitches;
pub use io::rights;
pub use io::tun::{Backend, TunError};
pub use keepalive::{Keepalive, KeepaliveError};
pub use persist::PersistError;
pub use underlay::{MAX_MTU, MIN_MTU, Mtu, MtuError};

use io::firewall::Firewall;
use io::offload::Offloads;
use io::tun::{Maker, Tun};
use keys::{NodeSecret, WgSecret};
use persist::{EnrolledKeys, Enrolment, Memory, StateDir};
use quic::Dialer;
use shell::{Inputs, Shell};
use standing::{Fault, Wanted};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use underlay::Fit;
use wire::message::Refusal;
use wire::place::Place;
use wire::{HostPort, NodeName, Token};

/// A node's settings.
#[derive(Debug)]
pub struct Config {
    /// Where the node keeps what it remembers; exists, and is this node's alone.
    pub state_dir: PathBuf,
    /// Enrols with this if the node is not enrolled yet.
    pub join: Option<Token>,
    /// The name to ask for.
    pub name: Option<NodeName>,
    /// Controller addresses instead of those of the token.
    pub controllers: Vec<HostPort>,
    /// UDP port of the WireGuard socket; 0: any.
    pub listen_port: u16,
    /// Addresses to announce to peers instead of the one that the controller sees.
    pub advertise: Vec<SocketAddr>,
    /// Name of the TUN interface.
    pub interface: String,
    /// Whether mesh addresses are kept to the tunnel by firewall rules.
    pub firewall: FirewallMode,
    /// MTU of the TUN interface.
    pub mtu: Mtu,
    /// How long a peer may hear nothing.
    pub keepalive: Keepalive,
    /// TUN back end.
    pub tun_backend: Backend,
    /// Which offloads may be used.
    pub offloads: OffloadSwitches,
    /// Threads that carry packets, at least one; as many as the TUN back end has queues for.
    pub data_threads: usize,
    /// Where evidence comes from.
    pub emitter: Emitter,
    /// How often.
    pub emit_every: Duration,
    /// How often every peer is probed; `None`: never.
    pub probe_every: Option<Duration>,
    /// TCP address that serves metrics, to whoever reaches it. `None`: only the admin socket does.
    pub metrics_listen: Option<SocketAddr>,
    /// Clients that are served at a time, on the admin socket and for metrics each.
    pub clients: usize,
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not enrolled, and no token.
    #[error(
        "this node is not enrolled: create a token with `meshctl token create` at the controller and start the node once with --join @FILE"
    )]
    NotEnrolled,
    /// It was, and there is no token.
    #[error(
        "enrolment.json is missing, though this node was in a mesh before, as epochs.json says: restore it from \
         a backup, or start once with --join @FILE and a token from `meshctl token create --name NAME` at the \
         controller: name and addresses stay"
    )]
    EnrolmentLost,
    /// The token is over.
    #[error(
        "the token has expired by this machine's clock: create a new one with `meshctl token create`, or \
         set the clock if it is wrong"
    )]
    TokenExpired,
    /// The WireGuard port cannot be had.
    #[error("cannot listen on UDP port {port}: {source}; choose another with --listen-port")]
    Port {
        /// The port.
        port: u16,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] PersistError),
    /// The benchmark's user.
    #[error(transparent)]
    User(#[from] UserError),
    /// A socket of the control channel.
    #[error(transparent)]
    Dialer(#[from] quic::BindError),
}

/// Why a node ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The controller refused the enrolment.
    #[error("the controller refuses to enrol this node: {0}")]
    Enrolment(Refusal),
    /// The result of the enrolment cannot be kept.
    #[error(transparent)]
    State(#[from] PersistError),
    /// The interface cannot be set up.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Somebody deleted the interface.
    #[error("the interface is gone and cannot be made anew: {0}")]
    Lost(TunError),
    /// The data plane failed.
    #[error("the data plane failed: {0}")]
    Data(std::io::Error),
    /// The admin socket failed.
    #[error("the admin socket failed: {0}")]
    Admin(std::io::Error),
    /// A socket of the control channel.
    #[error(transparent)]
    Dialer(#[from] quic::BindError),
}

/// A node that has everything that it needs to run.
pub struct Node {
    config: Config,
    identity: NodeSecret,
    wg: WgSecret,
    state: StateDir,
    enrolment: Option<Enrolment>,
    memory: Memory,
    /// One of each for every data thread.
    queues: Vec<(Box<dyn Tun>, std::net::UdpSocket)>,
    offloads: Arc<Offloads>,
    /// Made the interface, and makes it anew.
    maker: Maker,
    admin: std::os::unix::net::UnixListener,
    metrics: Option<exposition::Listener>,
}

/// The socket of the WireGuard port.
#[derive(Debug)]
pub struct WireGuardSocket(std::net::UdpSocket);

impl Node {
    /// Takes the WireGuard port; 0: any that is free.
    ///
    /// # Errors
    /// [`OpenError::Port`]; somebody else's port may become free.
    pub fn bind(port: u16) -> Result<WireGuardSocket, OpenError> {
        let bound = io::udp::bind(port).map(WireGuardSocket);
        bound.map_err(|source| OpenError::Port { port, source })
    }

    /// Claims interface and state. `admin` is the bound admin socket, non-blocking, and `udp` that of
    /// WireGuard, from [`Self::bind`]. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`], each with the cause and the way out; nothing is left behind.
    pub fn open(
        config: Config,
        identity: NodeSecret,
        wg: WgSecret,
        admin: std::os::unix::net::UnixListener,
        udp: WireGuardSocket,
    ) -> Result<Self, OpenError> {
        let state = StateDir::new(config.state_dir.clone());
        let keys = EnrolledKeys {
            node: identity.public(),
            wg: wg.public(),
        };
        if let Some(user) = config.emitter.other_user() {
            user.check(&config.state_dir)?;
        }
        let enrolment = state.enrolment(keys)?;
        let remembered = state.memory()?;
        if enrolment.is_some() && remembered.is_none() {
            tracing::warn!(
                "epochs.json is missing: this node has lost its memory of the newest epoch, and cannot tell an old \
                 copy of its controller until it has heard the next one"
            );
        }
        match (&enrolment, &config.join) {
            (None, None) if remembered.is_some() => return Err(OpenError::EnrolmentLost),
            (None, None) => return Err(OpenError::NotEnrolled),
            (None, Some(token))
                if token.expires_unix.saturating_mul(1000) < io::clock::unix_ms() =>
            {
                return Err(OpenError::TokenExpired);
            }
            _ => {}
        }
        let metrics = config.metrics_listen;
        let metrics = metrics.map(|at| exposition::Listener::open(at, config.clients));
        let offloads = Arc::new(Offloads::new(config.offloads));
        let (name, backend) = (&config.interface, config.tun_backend);
        let mut maker = Maker::new(name, backend, Arc::clone(&offloads));
        let tuns = maker.make(config.data_threads)?;
        if let Err(error) = io::udp::probe(&offloads) {
            tracing::debug!(%error, "batches of datagrams could not be tried");
        }
        let port = config.listen_port;
        let sockets = io::udp::share(udp.0, tuns.len());
        let sockets = sockets.map_err(|source| OpenError::Port { port, source })?;
        Ok(Self {
            config,
            identity,
            wg,
            state,
            enrolment,
            memory: remembered.unwrap_or_default(),
            queues: tuns.into_iter().zip(sockets).collect(),
            offloads,
            maker,
            admin,
            metrics,
        })
    }

    /// Runs until `shutdown` resolves.
    ///
    /// # Errors
    /// [`ServeError`], when going on makes no sense.
    pub async fn serve(mut self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        tokio::pin!(shutdown);
        let enrolment = match self.enrolment.take() {
            Some(enrolment) => enrolment,
            None => tokio::select! {
                enrolled = self.enrol() => enrolled?,
                () = &mut shutdown => return Ok(()),
            },
        };
        let place = enrolment.place(self.identity.public());
        io::interface::refuse_collisions(&self.config.interface, &place).await?;
        // Before the addresses are there: at no time do they answer to anybody but the tunnel.
        let mut firewall = self.raise_firewall(&place)?;
        tokio::select! {
            () = firewall.installed() => {}
            () = &mut shutdown => {
                firewall.undo();
                return Ok(());
            }
        }
        let (mut shell, inputs) = match self.set_up(enrolment, &firewall).await {
            Ok(ready) => ready,
            Err(error) => {
                firewall.undo();
                return Err(error);
            }
        };
        let emitter = std::mem::take(&mut shell.emitter);
        let ended = shell.run(inputs, shutdown).await;
        emitter.stop();
        // A data plane that failed leaves the rules as they are: what was kept apart stays so.
        ended?;
        firewall.stop();
        Ok(())
    }

    fn raise_firewall(&self, place: &Place) -> Result<Firewall, ServeError> {
        let name = &self.config.interface;
        let gone = |_| ServeError::Interface(InterfaceError::Gone(name.clone()));
        let scope = io::firewall::Scope {
            interface: name.clone(),
            index: io::interface::index_of(name).map_err(gone)?,
            v4: place.v4,
            v6: place.v6,
            listen_port: self.listen_port(),
            beside: Vec::new(),
        };
        Firewall::start(self.config.firewall, scope).map_err(ServeError::Data)
    }

    async fn set_up(
        self,
        enrolment: Enrolment,
        firewall: &Firewall,
    ) -> Result<(Shell, Inputs), ServeError> {
        let wanted = self.wanted(&enrolment.place(self.identity.public()))?;
        let ((v4, v4_len), (v6, v6_len)) = (wanted.v4, wanted.v6);
        let mut missing = vec![Fault::Missing(v4.into(), v4_len)];
        // Without IPv6 the node runs by IPv4; the guard waits for it, and says so.
        if io::links::ipv6_off(&wanted).is_none() {
            missing.push(Fault::Missing(v6.into(), v6_len));
        }
        let refused = |source| InterfaceError::Refused {
            name: wanted.name.clone(),
            source,
        };
        let configured = io::links::restore(&wanted, &missing).await;
        configured.map_err(refused)?;
        start::start(self, enrolment, wanted, firewall)
    }

    /// The interface as it should be.
    fn wanted(&self, place: &Place) -> Result<Wanted, InterfaceError> {
        let name = &self.config.interface;
        let gone = |_| InterfaceError::Gone(name.clone());
        Ok(Wanted {
            name: name.clone(),
            index: io::interface::index_of(name).map_err(gone)?,
            v4: place.v4,
            v6: place.v6,
            mtu: Fit::unknown(self.config.mtu).mtu,
            queue_len: io::interface::QUEUE_LEN,
        })
    }

    fn listen_port(&self) -> u16 {
        let first = self.queues.first();
        first
            .and_then(|(_, udp)| udp.local_addr().ok())
            .map_or(self.config.listen_port, |address| address.port())
    }

    async fn enrol(&self) -> Result<Enrolment, ServeError> {
        let Some(token) = &self.config.join else {
            return Err(ServeError::Enrolment(Refusal::NotEnrolled));
        };
        let dialer = Dialer::bind(&self.identity, token.controller)?;
        let keys = (self.identity.public(), self.wg.public());
        let known = (self.config.name.as_ref(), self.config.interface.as_str());
        let enrolled = session::enrol(&dialer, token, known, keys).await;
        dialer.close("enrolled").await;
        let (place, authorities) = enrolled.map_err(ServeError::Enrolment)?;
        let (node, wg) = keys;
        let keys = EnrolledKeys { node, wg };
        let enrolment = Enrolment::new(token, authorities, &place, keys);
        // First the memory, so that an enrolled node without one has lost it.
        self.state.save_memory(&self.memory)?;
        self.state.save_enrolment_aside(enrolment.clone()).await?;
        tracing::info!(name = %enrolment.name, v4 = %enrolment.v4.0, v6 = %enrolment.v6.0, "enrolled");
        Ok(enrolment)
    }
}
