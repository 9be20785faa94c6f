//! The enforcement point: enrols, keeps the control channel, applies verified epochs to the data
//! plane, submits evidence, probes peers and reports what it observes.
//!
//! ```text
//!  session ─┐                                   ┌─▶ outbox ─▶ controller
//!  emitter ─┤                                   │
//!  probe   ─┼─▶ Agent: select → apply(Action) ──┼─▶ epoch::Member ─▶ Command ─▶ data thread (apply.rs)
//!  admin   ─┤                                   │
//!  links   ─┤                                   │
//!  timer   ─┘                                   └─▶ status, logs
//! ```
//!
//! [`Node::open`] does everything that can fail for a reason outside; [`Node::serve`] runs.

mod admin;
mod agent;
mod apply;
mod data;
mod emitter;
mod io;
mod lost_time;
pub mod metrics;
mod narrow;
mod observe;
mod persist;
mod probe;
mod session;
mod status;
mod underlay;

pub use emitter::Emitter;
pub use io::firewall::FirewallMode;
pub use io::interface::InterfaceError;
pub use io::offload::OffloadSwitches;
pub use io::rights;
pub use io::tun::{Backend, TunError};
pub use persist::PersistError;
pub use underlay::{MAX_MTU, MIN_MTU, Mtu, MtuError};

use agent::{Agent, ControlState, Inputs};
use data::DataPlane;
use epoch::member::{Identity, Member};
use io::firewall::{Firewall, FirewallWatch};
use io::offload::Offloads;
use io::rights::Keep;
use io::tun::Tun;
use io::udp::PathErrors;
use keys::{NodeSecret, WgSecret};
use lost_time::Clocks;
use metrics::Counts;
use narrow::Paths;
use persist::{Enrolment, Keeper, Memory, StateDir};
use quic::Dialer;
use rand::Rng as _;
use session::Introduction;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use underlay::Fit;
use wire::admin::InterfaceStatus;
use wire::message::Refusal;
use wire::place::Place;
use wire::{NodeName, Token};

/// A node's settings.
#[derive(Debug)]
pub struct Config {
    /// Where the node keeps what it remembers; exists, and is this node's alone.
    pub state_dir: PathBuf,
    /// Enrols with this if the node is not enrolled yet.
    pub join: Option<Token>,
    /// The name to ask for.
    pub name: Option<NodeName>,
    /// Controller addresses (`host:port`) instead of those of the token.
    pub controllers: Vec<String>,
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
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not enrolled, and no token.
    #[error(
        "this node is not enrolled: create a token with `meshctl token create` at the controller and start the node once with --join @FILE"
    )]
    NotEnrolled,
    /// The token is over.
    #[error("the token has expired: create a new one with `meshctl token create`")]
    TokenExpired,
    /// The WireGuard port cannot be had.
    #[error("cannot listen on UDP port {port}: {source}; choose another with --listen-port")]
    Port {
        /// The port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// The address for metrics.
    #[error(transparent)]
    Metrics(#[from] exposition::BindError),
    /// No TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] PersistError),
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
    /// What the enrolment brought cannot be kept.
    #[error(transparent)]
    State(#[from] PersistError),
    /// The interface cannot be set up.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
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
    admin: std::os::unix::net::UnixListener,
    metrics: Option<exposition::Listener>,
}

impl Node {
    /// Claims ports, interface and state. `admin` is the bound admin socket, non-blocking. Must run
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`], each with the cause and the way out; nothing is left behind.
    pub fn open(
        config: Config,
        identity: NodeSecret,
        wg: WgSecret,
        admin: std::os::unix::net::UnixListener,
    ) -> Result<Self, OpenError> {
        let state = StateDir::new(config.state_dir.clone());
        let enrolment = state.enrolment()?;
        let memory = state.memory()?;
        match (&enrolment, &config.join) {
            (None, None) => return Err(OpenError::NotEnrolled),
            (None, Some(token))
                if token.expires_unix.saturating_mul(1000) < io::clock::unix_ms() =>
            {
                return Err(OpenError::TokenExpired);
            }
            _ => {}
        }
        let port = config.listen_port;
        let metrics = config.metrics_listen.map(exposition::Listener::bind);
        let metrics = metrics.transpose()?;
        let offloads = Arc::new(Offloads::new(config.offloads));
        let tuns = io::tun::open(
            &config.interface,
            config.tun_backend,
            config.data_threads,
            &offloads,
        )?;
        if let Err(error) = io::udp::probe(&offloads) {
            tracing::debug!(%error, "batches of datagrams could not be tried");
        }
        let sockets =
            io::udp::bind(port, tuns.len()).map_err(|source| OpenError::Port { port, source })?;
        Ok(Self {
            config,
            identity,
            wg,
            state,
            enrolment,
            memory,
            queues: tuns.into_iter().zip(sockets).collect(),
            offloads,
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
        let firewall = self.raise_firewall(&place)?;
        let (agent, inputs) = match self.set_up(enrolment, firewall.watch()).await {
            Ok(ready) => ready,
            Err(error) => {
                firewall.undo();
                return Err(error);
            }
        };
        // A data plane that failed leaves the rules as they are: what was kept apart stays so.
        agent
            .run(inputs, shutdown)
            .await
            .map_err(ServeError::Data)?;
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
        };
        Firewall::start(self.config.firewall, scope).map_err(ServeError::Data)
    }

    async fn set_up(
        self,
        enrolment: Enrolment,
        firewall: FirewallWatch,
    ) -> Result<(Agent, Inputs), ServeError> {
        let mtu = Fit::unknown(self.config.mtu).mtu;
        io::interface::configure(
            &self.config.interface,
            &enrolment.place(self.identity.public()),
            mtu,
        )
        .await?;
        self.start(enrolment, firewall)
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
        let place = session::enrol(&dialer, token, self.config.name.as_ref(), keys).await;
        dialer.close("enrolled").await;
        let enrolment = Enrolment::new(token, &place.map_err(ServeError::Enrolment)?);
        self.state.save_enrolment(&enrolment)?;
        tracing::info!(name = %enrolment.name, v4 = %enrolment.v4.0, v6 = %enrolment.v6.0, "enrolled");
        Ok(enrolment)
    }

    /// Starts the tasks around the agent.
    fn start(
        self,
        enrolment: Enrolment,
        firewall: FirewallWatch,
    ) -> Result<(Agent, Inputs), ServeError> {
        let listen_port = self.listen_port();
        let Self {
            config,
            identity,
            wg,
            state,
            memory,
            queues,
            offloads,
            admin,
            metrics,
            ..
        } = self;
        let first = queues.first();
        let backend = first.map_or("none", |(tun, _)| tun.backend()).to_owned();
        let fit = Fit::unknown(config.mtu);
        let interface = InterfaceStatus {
            name: config.interface.clone(),
            mtu: fit.mtu,
            underlay_mtu: fit.underlay,
            fragments: fit.fragments,
            backend,
            listen_port,
            threads: queues.len(),
            offloads: Vec::new(),
            firewall: firewall.status(),
        };
        let identity_of = Identity {
            node: identity.public(),
            wg: wg.duplicate(),
            mesh: enrolment.mesh,
            segment: enrolment.segment,
        };
        let door = tunnel::FrontDoor::new(tunnel::Config {
            secret: wg.duplicate(),
            mtu: fit.mtu as usize,
            handshakes_per_second: HANDSHAKES_PER_SECOND,
            seed: rand_core::OsRng.r#gen(),
            inside: enrolment.inside(),
        });
        let sockets = queues.iter().map(|(_, udp)| udp);
        let path_errors = PathErrors::to(sockets).map_err(ServeError::Data)?;
        let data = DataPlane::start(door, queues, offloads).map_err(ServeError::Data)?;
        let dialer = Dialer::bind(&identity, enrolment.controller)?;

        let (session_events, session) = mpsc::channel(QUEUE);
        let (emission_out, emissions) = mpsc::channel(QUEUE);
        let (round_out, rounds) = mpsc::channel(QUEUE);
        let (requests_out, requests) = mpsc::channel(QUEUE);
        let (underlay_out, underlay) = mpsc::channel(1);
        let remembered = memory.of(enrolment.mesh);
        let mark = remembered.and_then(|newest| newest.mark.clone());
        let (announced, newest) = watch::channel(mark);
        let (targets, targets_seen) = watch::channel(Vec::new());
        let (mock_mean, mean) = watch::channel(None);

        let addresses = if config.controllers.is_empty() {
            enrolment.controllers.clone()
        } else {
            config.controllers
        };
        let introduction = Introduction {
            node: identity.public(),
            authorities: enrolment.authorities.clone(),
            listen_port,
            advertised: config.advertise,
            newest,
        };
        tokio::spawn(session::run(
            dialer,
            addresses,
            introduction,
            session_events,
        ));
        let has_mock = matches!(config.emitter, Emitter::Mock { .. });
        tokio::spawn(emitter::run(
            config.emitter,
            config.emit_every,
            mean,
            emission_out,
        ));
        let admin = tokio::net::UnixListener::from_std(admin).map_err(ServeError::Admin)?;
        if let Some(listener) = metrics {
            tokio::spawn(admin::serve_metrics(listener, requests_out.clone()));
        }
        tokio::spawn(admin::serve(admin, requests_out));
        if let Some(every) = config.probe_every {
            match io::icmp::Echo::open(&interface.name, rand_core::OsRng.r#gen()) {
                Ok(echo) => drop(tokio::spawn(probe::run(
                    echo,
                    targets_seen,
                    every,
                    round_out,
                ))),
                Err(error) => {
                    tracing::warn!(%error, "peers are not probed: raw ICMP needs CAP_NET_RAW");
                }
            }
        }
        tokio::spawn(io::mtu::watch(underlay_out));
        let high_water = memory.high_water(enrolment.mesh);
        let keeper =
            Keeper::start(state.clone(), memory, enrolment.mesh).map_err(ServeError::Data)?;
        // Every socket is open: what is left to do is the interface's MTU.
        rights::reduce(Keep::NETWORK.and(Keep::FILES));
        let agent = Agent {
            member: Member::new(identity_of, high_water),
            identity,
            wg,
            enrolment,
            keeper,
            state,
            data,
            control: ControlState::Down {
                address: None,
                error: None,
            },
            evidence: None,
            held: None,
            challenge: None,
            marks: BTreeMap::new(),
            pings: HashMap::new(),
            interface,
            firewall,
            mtu: config.mtu,
            fit,
            paths: Paths::default(),
            path_errors,
            believes_routers: false,
            underlay_changed: false,
            mock_mean,
            has_mock,
            announced,
            targets,
            places: HashMap::new(),
            counts: Counts::default(),
            clocks: Clocks::default(),
        };
        Ok((
            agent,
            Inputs {
                session,
                emissions,
                rounds,
                requests,
                underlay,
            },
        ))
    }
}

/// Initiations per second from the endpoints of peers above which they must prove their address. With
/// all that is opened besides (the table in `tunnel::admission`) it is 3,750 at most, 19 µs of X25519
/// each: under a tenth of a core for whoever holds no key of a member.
const HANDSHAKES_PER_SECOND: u64 = 1_000;
/// Messages that may wait between a task and the agent.
const QUEUE: usize = 64;
