//! Everything that can fail at the start fails here, before anybody is served, and names the cause
//! and the way out.

use crate::clock::{self, Now};
use crate::engine::Engine;
use crate::inputs::Question;
use crate::log::{self, Log, LogError, Opened, next_key};
use crate::mesh::EnrolmentMode;
use crate::setup::{SegmentSetup, Setup, StartError, check_segments, in_order};
use crate::status_file;
use keys::{AuthorityId, AuthoritySecret, ControllerSecret, LogSecret, MeshId};
use quic::{Bound, Listener};
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use wire::HostPort;
use wire::host_port::Host;
use wire::token::MAX_ADDRESSES;

/// The settings of a controller.
#[derive(Debug, Clone)]
pub struct Config {
    /// UDP address of the QUIC endpoint.
    pub listen: SocketAddr,
    /// Where nodes reach it, `host:port`, for tokens. Empty: [`Self::listen`], if that is an address.
    pub advertise: Vec<HostPort>,
    /// Holds the event log; 0700.
    pub state_dir: PathBuf,
    /// There may be no mesh yet: without one, one is founded. Otherwise its log has to be there.
    pub founding: bool,
    /// `status.json`; world-readable.
    pub status_file: PathBuf,
    /// The segments, each with its policy and its ranges.
    pub segments: Vec<SegmentSetup>,
    /// Whether a token is enough.
    pub enrolment: EnrolmentMode,
    /// The first part of the name that the log of a new mesh gets in its checkpoints.
    pub log_name: String,
    /// How long evidence is kept in the log; zero: for ever.
    pub keep_evidence: Duration,
    /// The authority that signed for the mesh until now, where it was replaced on purpose.
    pub adopt_log: Option<AuthorityId>,
    /// TCP address that serves metrics, to whoever reaches it. `None`: only the admin socket does.
    pub metrics_listen: Option<SocketAddr>,
    /// The web page. `None`: there is none.
    pub page: Option<::page::Config>,
    /// Clients that are served at a time, on the admin socket, for metrics and of the page each.
    pub clients: usize,
}

impl Config {
    /// Holds the settings against all rules that need nothing but them.
    ///
    /// # Errors
    /// [`OpenError`], for the first that is broken.
    pub fn check(&self) -> Result<(), OpenError> {
        if self.advertise.len() > MAX_ADDRESSES {
            return Err(OpenError::Advertise(self.advertise.len()));
        }
        let number = in_order(&self.segments);
        let checked = check_segments(&self.segments, MeshId([0; 16]), number)?;
        let advertised = self.advertise.iter().filter_map(|at| match &at.host {
            Host::Address(address) => Some(*address),
            Host::Zoned(..) | Host::Name(_) => None,
        });
        let used: Vec<IpAddr> = advertised.chain([self.listen.ip()]).collect();
        for (segment, checked) in self.segments.iter().zip(&checked) {
            // Without a setting the range of IPv6 is drawn at random, and lies over nobody's address.
            let is_set = |at: &IpAddr| at.to_canonical().is_ipv4() || segment.mesh_v6.is_some();
            let network = &checked.network;
            let mut over = used.iter().filter(|at| network.contains(**at));
            if let Some(address) = over.find(|at| is_set(at)) {
                return Err(StartError::from(network.over(*address)).into());
            }
        }
        Ok(())
    }
}

/// The IPv4 range of the segment `default`, unless its configuration has another.
pub const DEFAULT_MESH_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 76, 0, 0), 15);

/// The keys of a controller.
#[derive(Debug)]
pub struct Keys {
    /// Nodes pin it.
    pub connection: ControllerSecret,
    /// Signs for the mesh.
    pub authority: AuthoritySecret,
    /// Signs the checkpoints of the event log.
    pub log: LogSecret,
}

/// A controller that can serve. Without `Debug`: a question may hold a secret.
pub struct Controller {
    pub(crate) engine: Engine,
    pub(crate) questions: mpsc::Sender<Question>,
    pub(crate) asked: mpsc::Receiver<Question>,
    pub(crate) listener: Listener,
    pub(crate) admin: UnixListener,
    pub(crate) metrics: Option<exposition::Listener>,
    pub(crate) page: Option<::page::Listener>,
    pub(crate) clients: usize,
    pub(crate) status_file: PathBuf,
    /// The places of members, kept for the next start.
    pub(crate) places: PathBuf,
}

/// Why a controller cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state directory.
    #[error("the state directory {path} cannot be used: {what}")]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// The fault, and the way out.
        what: String,
    },
    /// The event log.
    #[error("the event log {path} cannot be used: {source}")]
    Log {
        /// Its file.
        path: PathBuf,
        /// The fault, and the way out.
        source: LogError,
    },
    /// The UDP port.
    #[error("{source}: {hint}")]
    Listen {
        /// The system's words.
        source: quic::BindError,
        /// The way out.
        hint: &'static str,
    },
    /// The status file.
    #[error(
        "the status file {path} cannot be written: {source}; create its directory and make it \
         writable (under the shipped unit with ReadWritePaths= too), or set another path"
    )]
    StatusFile {
        /// Its path.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A token could not hold so many addresses.
    #[error("`advertise` has {0} addresses, but a token holds at most {MAX_ADDRESSES}")]
    Advertise(usize),
    /// Policy, address ranges or the first epoch.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl OpenError {
    /// Whether it is over once there is room on the disk.
    #[must_use]
    pub fn is_of_a_full_disk(&self) -> bool {
        let log = match self {
            Self::Log { source, .. } | Self::Start(StartError::Log(source)) => source,
            Self::StateDir { .. }
            | Self::Listen { .. }
            | Self::StatusFile { .. }
            | Self::Advertise(_)
            | Self::Start(_) => return false,
        };
        matches!(log, LogError::Full | LogError::NotTaken)
    }
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").finish_non_exhaustive()
    }
}

impl Controller {
    /// Takes the address of the QUIC endpoint.
    ///
    /// # Errors
    /// [`OpenError::Listen`]; an address that is another's, or not there yet, may be had later.
    pub fn bind(listen: SocketAddr) -> Result<Bound, OpenError> {
        Bound::to(listen).map_err(listen_error)
    }

    /// Does everything else that can fail. `admin` is the bound admin socket, non-blocking, and `bound` the
    /// address of the QUIC endpoint, from [`Self::bind`]. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`], which names the cause and the way out. Nothing is left bound.
    pub fn open(
        config: Config,
        keys: Keys,
        admin: UnixListener,
        bound: Bound,
    ) -> Result<Self, OpenError> {
        let controller = keys.connection;
        config.check()?;
        check_state_dir(&config.state_dir)?;
        let (opened, authority) = open_log(&config, keys.log, keys.authority)?;
        let Opened { log, fleet, epochs } = opened;
        let listener = Listener::on(bound, &controller).map_err(listen_error)?;
        let metrics = config.metrics_listen;
        let metrics = metrics.map(|at| exposition::Listener::open(at, config.clients));
        let page = config.page.clone();
        let page = page.map(|page| ::page::Listener::open(page, config.clients));
        let advertise = advertise(&config, &listener);
        let (clients, path) = (config.clients, config.status_file.clone());
        let places = config.state_dir.join("places");
        let setup = setup(config, (controller.public(), authority), advertise);
        let now = Now::read();
        let engine = Engine::start(setup, log, fleet, epochs, now)?;
        if let Err(source) = status_file::write(&path, &engine.status(now)) {
            return Err(OpenError::StatusFile { path, source });
        }
        let (questions, asked) = mpsc::channel(QUESTIONS);
        Ok(Self {
            engine,
            questions,
            asked,
            listener,
            admin,
            metrics,
            page,
            clients,
            status_file: path,
            places,
        })
    }

    /// The address that the QUIC endpoint got.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Does all that a start does with the event log in `config.state_dir`, which has to be a copy: an engine starts on it,
/// and ends at once. No address is taken, and no other file is written.
///
/// # Errors
/// [`OpenError`], with which a start would end.
pub fn rehearse(config: Config, keys: Keys) -> Result<(), OpenError> {
    config.check()?;
    let (opened, authority) = open_log(&config, keys.log, keys.authority)?;
    let Opened { log, fleet, epochs } = opened;
    let advertise = config.advertise.iter().map(HostPort::to_string).collect();
    let setup = setup(config, (keys.connection.public(), authority), advertise);
    Engine::start(setup, log, fleet, epochs, Now::read())?;
    Ok(())
}

/// The event log, and the authority's key that is in force by it.
fn open_log(
    config: &Config,
    key: LogSecret,
    authority: AuthoritySecret,
) -> Result<(Opened, AuthoritySecret), OpenError> {
    let path = log::path_in(&config.state_dir);
    // A change of the authority that was cut short has left the next key: the log says whether it is in force.
    let next = next_key::read_next::<AuthoritySecret>(&path);
    let next_id = next.as_ref().map(AuthoritySecret::public);
    let trusted: Vec<AuthorityId> = [Some(authority.public()), next_id, config.adopt_log]
        .into_iter()
        .flatten()
        .collect();
    let opened = if config.founding {
        Log::open(&path, key, &trusted)
    } else {
        Log::resume(&path, key, &trusted)
    };
    let opened = opened.map_err(|source| OpenError::Log { path, source })?;
    let in_force = opened.fleet.authority();
    let next = next.filter(|next| in_force == Some(next.public()));
    let authority = next.unwrap_or(authority);
    opened.log.settle_authority(authority.public());
    if config.adopt_log.is_some() && in_force == Some(authority.public()) {
        tracing::warn!(
            "`adopt_log` has served its purpose: remove it, it still trusts the old key"
        );
    }
    Ok((opened, authority))
}

fn setup(
    config: Config,
    (controller, authority): (keys::ControllerId, AuthoritySecret),
    advertise: Vec<String>,
) -> Setup {
    Setup {
        advertise,
        segments: config.segments,
        controller,
        authority,
        enrolment: config.enrolment,
        boot_id: clock::boot_id(),
        log_name: config.log_name,
        keep_evidence: config.keep_evidence,
    }
}

fn advertise(config: &Config, listener: &Listener) -> Vec<String> {
    if !config.advertise.is_empty() {
        return config.advertise.iter().map(HostPort::to_string).collect();
    }
    let bound = listener.local_addr().unwrap_or(config.listen);
    if bound.ip().is_unspecified() {
        Vec::new()
    } else {
        vec![bound.to_string()]
    }
}

fn check_state_dir(path: &Path) -> Result<(), OpenError> {
    let wrong = |what: String| OpenError::StateDir {
        path: path.to_owned(),
        what,
    };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
            created.map_err(|error| {
                wrong(format!("{error}; create it, or make its parent writable"))
            })?;
            return Ok(());
        }
        Err(error) => return Err(wrong(format!("{error}; make it readable"))),
    };
    if !metadata.is_dir() {
        return Err(wrong(
            "it is not a directory; remove the file, or set another path".into(),
        ));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        let what = format!("others may write to it (mode {mode:04o}); run `chmod 700` on it");
        return Err(wrong(what));
    }
    Ok(())
}

fn listen_error(source: quic::BindError) -> OpenError {
    let hint = match source.source.kind() {
        ErrorKind::AddrInUse => {
            "another program has this port: `ss -lunp` shows which; stop it, or set another port"
        }
        ErrorKind::AddrNotAvailable => "it is not an address of this machine: set one that is",
        ErrorKind::PermissionDenied => {
            "ports below 1024 take the capability CAP_NET_BIND_SERVICE: grant it, or set another port"
        }
        _ => "check the address in the configuration",
    };
    OpenError::Listen { source, hint }
}

/// Questions of operators that may wait.
const QUESTIONS: usize = 64;
