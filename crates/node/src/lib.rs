//! The enforcement point: enrols, keeps the control channel, applies verified epochs to the data
//! plane, submits evidence, probes peers and reports what it observes.
//!
//! The file is long because the settings of a node and its reasons to end are declared beside its start.
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
mod attention;
mod data;
mod emitter;
mod enrolling;
pub mod examine;
mod export;
mod guard;
mod heard;
mod io;
mod keepalive;
pub mod metrics;
mod naming;
mod networks;
mod opening;
mod persist;
mod probe;
mod segment;
mod session;
mod shell;
mod standing;
mod start;
mod status;
mod uapi;
mod underlay;

pub use emitter::{BenchmarkUser, Emitter, Reading, UserError};
pub use examine::{Examined, Standing, examine};
pub use harness::{Format, Labels};
pub use io::firewall::FirewallMode;
pub use io::interface::InterfaceError;
pub use io::offload::OffloadSwitches;
pub use io::rights;
pub use io::tun::{Backend, TunError};
pub use keepalive::{Keepalive, KeepaliveError};
pub use names::{Suffix, SuffixError};
pub use naming::NamesConfig;
pub use persist::PersistError;
pub use underlay::{MAX_MTU, MIN_MTU, Mtu, MtuError};

use enrolling::Progress;
use io::offload::Offloads;
use keys::{NodeSecret, WgSecret};
use opening::{Made, Workshop, interface_name};
use persist::{EnrolledSegment, Enrolment, Memory, OwnKeys, StateDir, key_file};
use quic::Dialer;
use service::Service;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use wire::message::Refusal;
use wire::{Ask, HostPort, NodeName, Prefix, SegmentName, Token};

/// A node's settings.
#[derive(Debug)]
pub struct Config {
    /// Where the node keeps what it remembers; exists, and is this node's alone.
    pub state_dir: PathBuf,
    /// Enrols with this if the node is not enrolled yet.
    pub join: Option<Token>,
    /// The name to ask for.
    pub name: Option<NodeName>,
    /// The segments to ask for; empty: the one that the token says.
    pub segments: Vec<SegmentName>,
    /// Controller addresses instead of those of the token.
    pub controllers: Vec<HostPort>,
    /// UDP port of the WireGuard socket; 0: any.
    pub listen_port: u16,
    /// Addresses to announce to peers instead of the one that the controller sees.
    pub advertise: Vec<SocketAddr>,
    /// Directory of the WireGuard sockets of its interfaces, INTERFACE.sock each. `None`: there are none.
    pub wireguard_dir: Option<PathBuf>,
    /// Name of the TUN interface of the segment that the node enrols in first; that of another one is called after
    /// this and the segment.
    pub interface: String,
    /// Whether mesh addresses are kept to the tunnel by firewall rules.
    pub firewall: FirewallMode,
    /// MTU of the TUN interface.
    pub mtu: Mtu,
    /// How long a peer may hear nothing.
    pub keepalive: Keepalive,
    /// Networks behind this node, which it carries packets for where an operator approves; they keep
    /// [`wire::prefix::check_list`].
    pub advertise_routes: Vec<Prefix>,
    /// Whether packets go to networks behind peers.
    pub accept_routes: bool,
    /// Names of nodes on this machine.
    pub names: NamesConfig,
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
    /// The key of a segment.
    #[error("no key for segment {segment}: {why}")]
    Key {
        /// The segment.
        segment: SegmentName,
        /// The reason, with the way out.
        why: String,
    },
    /// The benchmark's user.
    #[error(transparent)]
    User(#[from] UserError),
    /// A socket of the control channel.
    #[error(transparent)]
    Dialer(#[from] quic::BindError),
}

/// Why a controller did not enrol a node.
#[derive(Debug)]
pub struct Refused {
    /// The controller's reason.
    pub reason: Refusal,
    /// The segments that the node asked for by name.
    pub asked: Vec<SegmentName>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason == Refusal::Segment && !self.asked.is_empty() {
            let asked: Vec<_> = self.asked.iter().map(ToString::to_string).collect();
            write!(f, "it asked for {}, and ", asked.join(", "))?;
        }
        self.reason.fmt(f)
    }
}

/// Why a node ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The controller refused the enrolment.
    #[error("the controller refuses to enrol this node: {0}")]
    Enrolment(Refused),
    /// The result of the enrolment cannot be kept.
    #[error(transparent)]
    State(#[from] PersistError),
    /// The interface cannot be set up.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// No interface for a segment.
    #[error(transparent)]
    Tun(TunError),
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

/// Finds the WireGuard key in a file of the state directory by its name, or makes one there; or says why it cannot.
#[derive(Clone)]
pub struct KeyStore(pub Arc<FindKey>);

/// See [`KeyStore`].
pub type FindKey = dyn Fn(&str) -> Result<WgSecret, String> + Send + Sync;

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyStore")
    }
}

/// Binds a Unix socket, non-blocking, which only this daemon's user and root may open, or says why it cannot.
#[derive(Clone)]
pub struct UnixSockets(pub Arc<BindSocket>);

/// See [`UnixSockets`].
pub type BindSocket =
    dyn Fn(&Path) -> Result<(SocketFile, std::os::unix::net::UnixListener), String> + Send + Sync;

/// The file of a socket; it goes when this is dropped.
pub type SocketFile = Box<dyn Send + Sync>;

/// A node that has everything that it needs to run.
pub struct Node {
    config: Config,
    identity: NodeSecret,
    /// The key in the segment that the node enrols in first.
    wg: WgSecret,
    /// Those in others, by name.
    further: BTreeMap<SegmentName, WgSecret>,
    keys: KeyStore,
    unix: UnixSockets,
    state: StateDir,
    enrolment: Option<Enrolment>,
    memory: Memory,
    /// One for each data thread.
    sockets: Vec<std::net::UdpSocket>,
    /// The interfaces: of a node that is enrolled one for each of its segments, in their order; of another one the
    /// first.
    made: Vec<Made>,
    workshop: Workshop,
    /// Taken when it is served.
    admin: Option<std::os::unix::net::UnixListener>,
    metrics: Option<exposition::Listener>,
    naming: naming::Bound,
}

/// Shows that tasks run, where there is no loop yet.
async fn turn(service: &Service) -> Infallible {
    loop {
        service.turned();
        tokio::time::sleep(io::clock::LONGEST_WAIT).await;
    }
}

/// The socket of the WireGuard port.
#[derive(Debug)]
pub struct WireGuardSocket(std::net::UdpSocket);

/// The way of questions to the node, and where they come out.
type Asking = mpsc::Sender<admin::Request>;
type Asked = mpsc::Receiver<admin::Request>;

impl Node {
    /// Takes the WireGuard port; 0: any that is free.
    ///
    /// # Errors
    /// [`OpenError::Port`]; somebody else's port may become free.
    pub fn bind(port: u16) -> Result<WireGuardSocket, OpenError> {
        let bound = io::udp::bind(port).map(WireGuardSocket);
        bound.map_err(|source| OpenError::Port { port, source })
    }

    /// Claims interfaces and state. `admin` is the bound admin socket, non-blocking, and `udp` that of
    /// WireGuard, from [`Self::bind`]. `wg` is the key in the segment that the node enrols in first, and `keys` has
    /// those in others; `unix` binds the WireGuard sockets. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`], each with the cause and the way out; nothing is left behind.
    pub fn open(
        config: Config,
        identity: NodeSecret,
        wg: WgSecret,
        keys: KeyStore,
        unix: UnixSockets,
        admin: std::os::unix::net::UnixListener,
        udp: WireGuardSocket,
    ) -> Result<Self, OpenError> {
        let state = StateDir::new(config.state_dir.clone());
        let own = OwnKeys {
            node: identity.public(),
            wg: wg.public(),
        };
        if let Some(user) = config.emitter.other_user() {
            user.check(&config.state_dir)?;
        }
        let enrolment = state.enrolment(own)?;
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
        let further = further(&state, &keys, &config.segments, enrolment.as_ref())?;
        let metrics = config.metrics_listen;
        let metrics = metrics.map(|at| exposition::Listener::open(at, config.clients));
        let naming = naming::Bound::bind(config.names.clone());
        let offloads = Arc::new(Offloads::new(config.offloads));
        let mut workshop = Workshop {
            backend: config.tun_backend,
            offloads: Arc::clone(&offloads),
            queues: config.data_threads,
        };
        let interfaces = match &enrolment {
            Some(enrolment) => interfaces(&config.interface, &enrolment.segments),
            None => vec![config.interface.clone()],
        };
        let mut made: Vec<Made> = Vec::with_capacity(interfaces.len());
        for name in &interfaces {
            made.push(workshop.make(name)?);
            // A back end may have fewer queues: each thread has one of each interface.
            workshop.queues = made.first().map_or(workshop.queues, |it| it.queues.len());
        }
        if let Err(error) = io::udp::probe(&offloads) {
            tracing::debug!(%error, "batches of datagrams could not be tried");
        }
        let port = config.listen_port;
        let sockets = io::udp::share(udp.0, workshop.queues);
        let sockets = sockets.map_err(|source| OpenError::Port { port, source })?;
        Ok(Self {
            config,
            identity,
            wg,
            further,
            keys,
            unix,
            state,
            enrolment,
            memory: remembered.unwrap_or_default(),
            sockets,
            made,
            workshop,
            admin: Some(admin),
            metrics,
            naming,
        })
    }

    /// Runs until `shutdown` resolves. The service manager hears of each turn of the shell's loop, which waits for no
    /// disk; while the node enrols and starts, it hears that tasks run.
    ///
    /// # Errors
    /// [`ServeError`], when going on makes no sense.
    pub async fn serve(
        mut self,
        shutdown: impl Future<Output = ()>,
        service: Service,
    ) -> Result<(), ServeError> {
        tokio::pin!(shutdown);
        let (asking, mut asked) = self.serve_clients()?;
        let enrolment = match self.enrolment.take() {
            Some(enrolment) => enrolment,
            None => {
                service.standing("enrolling".into());
                let (told, progress) = watch::channel(Progress::default());
                let node = self.identity.public();
                let enrolment = tokio::select! {
                    enrolled = self.enrol(&told) => enrolled?,
                    never = enrolling::answer(node, &mut asked, &progress) => match never {},
                    never = turn(&service) => match never {},
                    () = &mut shutdown => return Ok(()),
                };
                self.ask_by_name(&enrolment);
                enrolment
            }
        };
        let started = tokio::select! {
            started = start::start(self, enrolment, (asking, asked), service.clone()) => started?,
            never = turn(&service) => match never {},
            () = &mut shutdown => return Ok(()),
        };
        let (mut shell, inputs) = started;
        let emitter = std::mem::take(&mut shell.emitter);
        let ended = shell.run(inputs, shutdown).await;
        emitter.stop();
        ended
    }

    /// Serves clients and scrapers from now on; their questions come here, by a way that others have too.
    fn serve_clients(&mut self) -> Result<(Asking, Asked), ServeError> {
        let (out, requests) = mpsc::channel(start::QUEUE);
        let gone = || ServeError::Admin(std::io::ErrorKind::NotConnected.into());
        let socket = self.admin.take().ok_or_else(gone)?;
        let socket = tokio::net::UnixListener::from_std(socket).map_err(ServeError::Admin)?;
        let clients = self.config.clients;
        start::serve_clients(socket, self.metrics.take(), clients, out.clone());
        Ok((out, requests))
    }

    fn listen_port(&self) -> u16 {
        let first = self.sockets.first();
        first
            .and_then(|udp| udp.local_addr().ok())
            .map_or(self.config.listen_port, |address| address.port())
    }

    async fn enrol(&self, told: &watch::Sender<Progress>) -> Result<Enrolment, ServeError> {
        let Some(token) = &self.config.join else {
            return Err(ServeError::Enrolment(Refused {
                reason: Refusal::NotEnrolled,
                asked: Vec::new(),
            }));
        };
        let dialer = Dialer::bind(&self.identity, token.controller)?;
        let asks = self.asks();
        let node = self.identity.public();
        let known = (self.config.name.as_ref(), self.config.interface.as_str());
        // An operator's word goes before the token's, as it does later.
        let addresses = match &self.config.controllers[..] {
            [] => token.controllers.clone(),
            given => given.iter().map(ToString::to_string).collect(),
        };
        let ticket = (token, &addresses[..]);
        let enrolled = session::enrol(&dialer, ticket, known, (node, &asks), told).await;
        dialer.close("enrolled").await;
        let asked = asks.iter().filter_map(|ask| ask.name.clone());
        let asked: Vec<_> = asked.collect();
        let refused = |reason| {
            ServeError::Enrolment(Refused {
                reason,
                asked: asked.clone(),
            })
        };
        let (places, authorities) = enrolled.map_err(refused)?;
        let Some(first) = places.first() else {
            return Err(refused(Refusal::Segment));
        };
        let home = asks.first().and_then(|ask| ask.name.as_ref());
        let segment = |place: &wire::Place| {
            let further = home.is_some_and(|home| *home != place.segment_name);
            let wg = match self.further.get(&place.segment_name) {
                Some(wg) if further => wg.public(),
                _ => self.wg.public(),
            };
            EnrolledSegment::new(place, wg, further)
        };
        let enrolment = Enrolment {
            name: first.name.clone(),
            controllers: token.controllers.clone(),
            controller: token.controller,
            authorities,
            mesh: first.mesh,
            node,
            segments: places.iter().map(segment).collect(),
        };
        // First the memory, so that an enrolled node without one has lost it.
        self.state.save_memory(&self.memory)?;
        self.state.save_enrolment_aside(enrolment.clone()).await?;
        for it in &enrolment.segments {
            tracing::info!(name = %enrolment.name, segment = %it.name, v4 = %it.v4.0, v6 = %it.v6.0, "enrolled");
        }
        Ok(enrolment)
    }

    /// A node that was enrolled in others than the segment that it asked for first asks for that one again, with a key
    /// as for every other: it is in the place of the first no more.
    fn ask_by_name(&mut self, enrolment: &Enrolment) {
        let Some(first) = self.config.segments.first() else {
            return;
        };
        if enrolment
            .segments
            .iter()
            .all(|it| it.by_name && it.name != *first)
        {
            match self.keys.0(&key_file(first)) {
                Ok(key) => drop(self.further.insert(first.clone(), key)),
                Err(error) => {
                    tracing::error!(segment = %first, %error, "no key for a segment that this node asks for")
                }
            }
        }
    }

    /// The segments to enrol in: the first with this node's own key.
    fn asks(&self) -> Vec<Ask> {
        let own = self.wg.public();
        let Some((first, others)) = self.config.segments.split_first() else {
            return vec![Ask::unnamed(own)];
        };
        let first = Ask {
            name: Some(first.clone()),
            wg: own,
        };
        let others = others.iter().filter_map(|name| {
            Some(Ask {
                name: Some(name.clone()),
                wg: self.further.get(name)?.public(),
            })
        });
        std::iter::once(first).chain(others).collect()
    }
}

/// The keys in the segments that a node did not enrol in first, or would not.
fn further(
    state: &StateDir,
    keys: &KeyStore,
    wanted: &[SegmentName],
    enrolment: Option<&Enrolment>,
) -> Result<BTreeMap<SegmentName, WgSecret>, OpenError> {
    let mut further = BTreeMap::new();
    let find = |segment: &SegmentName| {
        keys.0(&key_file(segment)).map_err(|why| OpenError::Key {
            segment: segment.clone(),
            why,
        })
    };
    if let Some(enrolment) = enrolment {
        for it in enrolment.segments.iter().filter(|it| it.by_name) {
            let file = it.key_file();
            // A new key in the place of one that is lost would be another one.
            let key = state.has(&file).then(|| find(&it.name)).transpose()?;
            let key = key.filter(|key| key.public() == it.wg);
            let key = key.ok_or_else(|| state.other_key(&file, enrolment))?;
            further.insert(it.name.clone(), key);
        }
    }
    let is_first = |name: &SegmentName| match enrolment {
        Some(enrolment) => {
            let mut enrolled = enrolment.segments.iter();
            enrolled.any(|it| !it.by_name && it.name == *name)
        }
        None => wanted.first() == Some(name),
    };
    for name in wanted.iter().filter(|name| !is_first(name)) {
        if !further.contains_key(name) {
            further.insert(name.clone(), find(name)?);
        }
    }
    Ok(further)
}

/// The names of the interfaces of segments.
fn interfaces(configured: &str, segments: &[EnrolledSegment]) -> Vec<String> {
    let name = |it: &EnrolledSegment| {
        if it.by_name {
            interface_name(configured, &it.name, it.segment)
        } else {
            configured.to_owned()
        }
    };
    segments.iter().map(name).collect()
}
