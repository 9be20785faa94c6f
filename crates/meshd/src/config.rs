//! Settings to configurations: everything is parsed and held against its rules before any socket is
//! bound or any file is written.
//!
//! The file is long because each setting is checked here once.

use crate::addresses::{entries, for_peers, local};
use crate::descriptors::MAX_CLIENTS;
use crate::private::{NotPrivate, Owners};
use crate::settings::{Role, SegmentSettings, Settings};
use controller::{EnrolmentMode, SegmentSetup};
use keys::EvaluatorId;
use nix::unistd::{Gid, Group};
use node::{
    Backend, BenchmarkUser, Emitter, FirewallMode, Keepalive, Labels, Mtu, NamesConfig,
    OffloadSwitches, Reading, Suffix,
};
use policy::Policy;
use rustix::fs::OFlags;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use wire::prefix::{MAX_NODE_ROUTES, Prefix};
use wire::segment::MAX_SEGMENTS;
use wire::{HostPort, NodeName, SegmentName, Token};
use zeroize::Zeroizing;

/// Why settings make no configuration. Names the setting and the way out.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not a configuration.
    #[error("{path}, line {line}: {why}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The fault there.
        why: String,
    },
    /// Nobody said which role.
    #[error("which role? say --role controller or --role node")]
    NoRole,
    /// A setting of the other role.
    #[error("`{0}` is not a setting of this role: remove it")]
    Misplaced(&'static str),
    /// A value that does not fit.
    #[error("`{setting}`: {why}")]
    Value {
        /// The setting.
        setting: &'static str,
        /// The fault in it.
        why: String,
    },
    /// The controller's settings as a whole.
    #[error(transparent)]
    Controller(#[from] controller::OpenError),
}

/// A daemon's configuration.
#[derive(Debug)]
pub struct Config {
    /// Directory for keys and state.
    pub state_dir: PathBuf,
    /// Admin socket.
    pub socket: PathBuf,
    /// Group that may use it beside its owner.
    pub socket_group: Option<Gid>,
    /// The role's own configuration.
    pub role: RoleConfig,
}

/// The configuration of one role.
#[derive(Debug)]
pub enum RoleConfig {
    /// A controller.
    Controller(Box<controller::Config>),
    /// A node.
    Node(Box<node::Config>),
}

/// Reads a TOML file.
///
/// # Errors
/// When it cannot be read, or has a setting that does not exist.
pub fn read_file(path: PathBuf) -> Result<Settings, ConfigError> {
    let text = match text_in(&path, MAX_SETTINGS) {
        Ok(text) => text,
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|at| text.get(..at.start));
        ConfigError::Parse {
            path,
            line: before.unwrap_or_default().matches('\n').count() + 1,
            // Several lines would be none in a log.
            why: error
                .message()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        }
    })
}

/// The text in a file that settings name, of at most so many bytes. Never waits for a writer: a FIFO is refused.
///
/// # Errors
/// The system's, or the fault in the file.
pub(crate) fn text_in(path: &Path, limit: u64) -> std::io::Result<String> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    // A device ends at once, as /dev/null does, or is refused by its length.
    if !(kind.is_file() || kind.is_char_device()) {
        let kind = crate::private::name_of(kind);
        let why = format!("it is no regular file but a {kind}: write the text to a file");
        return Err(std::io::Error::other(why));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).map_or(true, |read| read > limit) {
        return Err(std::io::Error::other(format!("it is over {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8"))
}

/// Makes a configuration of settings.
///
/// # Errors
/// [`ConfigError`], for the first setting that does not fit.
pub fn resolve(settings: Settings) -> Result<Config, ConfigError> {
    let role = settings.role.ok_or(ConfigError::NoRole)?;
    if let Some(name) = settings.misplaced(role) {
        return Err(ConfigError::Misplaced(name));
    }
    paths(&settings)?;
    let (state, socket) = match role {
        Role::Controller => ("/var/lib/meshd/controller", "/run/meshd/controller.sock"),
        Role::Node => ("/var/lib/meshd/node", "/run/meshd/node.sock"),
    };
    let state_dir = settings.state_dir.clone().unwrap_or_else(|| state.into());
    let socket = settings.socket.clone().unwrap_or_else(|| socket.into());
    let socket_group = socket_group(settings.socket_group.as_deref())?;
    let role = match role {
        Role::Controller => RoleConfig::Controller(Box::new(controller(settings, &state_dir)?)),
        Role::Node => RoleConfig::Node(Box::new(node(settings, &state_dir)?)),
    };
    Ok(Config {
        state_dir,
        socket,
        socket_group,
        role,
    })
}

/// Refuses a path that no file can have.
fn paths(settings: &Settings) -> Result<(), ConfigError> {
    let segments = settings.segment.iter().flatten();
    let beside = [
        ("state_dir", &settings.state_dir),
        ("socket", &settings.socket),
        ("status_file", &settings.status_file),
        ("policy_file", &settings.policy_file),
        ("page_token_file", &settings.page_token_file),
        ("benchmark_file", &settings.benchmark_file),
        ("benchmark_directory", &settings.benchmark_directory),
    ];
    let of_segments = segments.map(|it| ("segment.policy_file", &it.policy_file));
    let texts = [
        ("hosts_file", &settings.hosts_file),
        ("wireguard_dir", &settings.wireguard_dir),
    ];
    let paths = beside.into_iter().chain(of_segments);
    let paths = paths.filter_map(|(name, path)| Some((name, path.as_ref()?.as_os_str())));
    let texts = texts
        .into_iter()
        .filter_map(|(name, text)| Some((name, std::ffi::OsStr::new(text.as_ref()?))));
    for (name, path) in paths.chain(texts) {
        if path.is_empty() {
            return Err(wrong(name, "empty: give a path, or leave the setting out"));
        }
        if path.as_encoded_bytes().contains(&0) {
            let why = "it holds a zero byte, which no path has: remove that";
            return Err(wrong(name, why));
        }
    }
    Ok(())
}

/// Refuses two sockets of one kind at an address.
fn apart(
    (one, at): (&'static str, Option<SocketAddr>),
    (other, there): (&'static str, Option<SocketAddr>),
) -> Result<(), ConfigError> {
    let (Some(at), Some(there)) = (at, there) else {
        return Ok(());
    };
    let (a, b) = (at.ip(), there.ip());
    // The address `::` takes those of IPv4 too.
    let covers = |any: IpAddr, it: IpAddr| any.is_unspecified() && (any.is_ipv6() || it.is_ipv4());
    let is_both = a.to_canonical() == b.to_canonical() || covers(a, b) || covers(b, a);
    if at.port() != 0 && at.port() == there.port() && is_both {
        let why = format!("{at} is taken by `{other}` ({there}): choose another port");
        return Err(wrong(one, why));
    }
    Ok(())
}

/// By name or number; a number needs no entry in the machine's list of groups.
fn socket_group(name: Option<&str>) -> Result<Option<Gid>, ConfigError> {
    let Some(name) = name else {
        return Ok(None);
    };
    if let Ok(number) = name.parse() {
        return Ok(Some(Gid::from_raw(number)));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group.gid)),
        Ok(None) => {
            let why =
                format!("this machine has no group `{name}`: `groupadd --system {name}` makes one");
            Err(wrong("socket_group", why))
        }
        Err(error) => {
            let why = format!(
                "this machine does not say which group `{name}` is: {error}; give its number"
            );
            Err(wrong("socket_group", why))
        }
    }
}

fn controller(
    settings: Settings,
    state_dir: &std::path::Path,
) -> Result<controller::Config, ConfigError> {
    let segments = segments_of(&settings)?;
    let listen = settings.listen.as_deref().unwrap_or("[::]:7443");
    let metrics_listen = metrics_listen(&settings)?;
    let page = page(&settings)?;
    let at_page = page.as_ref().map(|page| page.address);
    apart(("metrics_listen", metrics_listen), ("page", at_page))?;
    let advertise = host_ports("advertise", settings.advertise.as_deref())?;
    let config = controller::Config {
        listen: local(listen).map_err(|why| wrong("listen", why))?,
        advertise,
        state_dir: state_dir.to_owned(),
        // The state directory says otherwise.
        founding: false,
        status_file: settings
            .status_file
            .unwrap_or_else(|| state_dir.join("status.json")),
        segments,
        enrolment: choice(
            "enrolment",
            settings.enrolment.as_deref(),
            &[
                ("token", EnrolmentMode::Token),
                ("approve", EnrolmentMode::Approve),
            ],
        )?,
        log_name: log_name(settings.log_name)?,
        keep_evidence: keep_evidence(settings.keep_evidence_days)?,
        adopt_log: settings
            .adopt_log
            .as_deref()
            .map(|key| parse("adopt_log", key))
            .transpose()?,
        metrics_listen,
        page,
        clients: MAX_CLIENTS,
    };
    config.check()?;
    Ok(config)
}

/// The name is a part of a key's name in signed notes.
fn log_name(name: Option<String>) -> Result<String, ConfigError> {
    let name = name.unwrap_or_else(|| "meshd".to_owned());
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    if (1..=MAX_LOG_NAME).contains(&name.len()) && name.chars().all(fits) {
        Ok(name)
    } else {
        let why = format!(
            "`{name}` is not 1 to {MAX_LOG_NAME} letters, digits, dots, dashes and slashes"
        );
        Err(wrong("log_name", why))
    }
}

fn keep_evidence(days: Option<u64>) -> Result<Duration, ConfigError> {
    match days.unwrap_or(KEEP_EVIDENCE_DAYS) {
        days if days <= MAX_KEEP_DAYS => Ok(Duration::from_secs(days * 86_400)),
        days => {
            let why = format!("{days} is over {MAX_KEEP_DAYS} days; 0 keeps evidence for ever");
            Err(wrong("keep_evidence_days", why))
        }
    }
}

/// The segments in the settings: those that are listed, or else one with the settings beside.
///
/// # Errors
/// [`ConfigError`], for the first setting that does not fit, or with a file's fault.
pub fn segments_of(settings: &Settings) -> Result<Vec<SegmentSetup>, ConfigError> {
    let listed = settings.segment.as_deref().unwrap_or_default();
    if listed.is_empty() {
        let v4 = settings.mesh_v4.as_deref().unwrap_or("10.76.0.0/15");
        let ranges = (
            range_v4("mesh_v4", v4)?,
            range_v6(settings.mesh_v6.as_deref())?,
        );
        return Ok(SegmentSetup::only(policy_of(settings)?, ranges.0, ranges.1));
    }
    let beside = [
        ("mesh_v4", settings.mesh_v4.is_some()),
        ("mesh_v6", settings.mesh_v6.is_some()),
        ("policy_file", settings.policy_file.is_some()),
    ];
    let given = beside.iter().find(|(_, is_given)| *is_given);
    if let Some(name) = given.map(|it| it.0).or(policy_settings(settings)) {
        let why = "stands beside `segment`, where each has its own: move it there";
        return Err(wrong(name, why));
    }
    let segment = |it: &SegmentSettings| {
        let name = it.name.parse().map_err(|error| {
            let why = format!("`{}`: {error}", it.name);
            wrong("segment.name", why)
        })?;
        let policy = match &it.policy_file {
            Some(path) => policy_in(path, settings)?,
            None => Policy::default(),
        };
        Ok(SegmentSetup {
            name,
            policy,
            mesh_v4: range_v4("segment.mesh_v4", &it.mesh_v4)?,
            mesh_v6: range_v6(it.mesh_v6.as_deref())?,
        })
    };
    listed.iter().map(segment).collect()
}

fn range_v4(name: &'static str, text: &str) -> Result<(Ipv4Addr, u8), ConfigError> {
    match range(name, text)? {
        (IpAddr::V4(base), prefix) => Ok((base, prefix)),
        (IpAddr::V6(_), _) => Err(wrong(name, "not an IPv4 range")),
    }
}

fn range_v6(text: Option<&str>) -> Result<Option<(Ipv6Addr, u8)>, ConfigError> {
    match text.map(|text| range("mesh_v6", text)).transpose()? {
        Some((IpAddr::V6(base), prefix)) => Ok(Some((base, prefix))),
        Some((IpAddr::V4(_), _)) => Err(wrong("mesh_v6", "not an IPv6 range")),
        None => Ok(None),
    }
}

/// The policy in the settings, or in the file that they name.
///
/// # Errors
/// [`ConfigError`], for the first setting that does not fit, or with the file's fault.
pub fn policy_of(settings: &Settings) -> Result<Policy, ConfigError> {
    let policy = match &settings.policy_file {
        Some(path) => policy_in(path, settings)?,
        None => flat_policy(settings)?,
    };
    let checked = policy.validate().map_err(controller::StartError::from);
    checked.map_err(controller::OpenError::from)?;
    Ok(policy)
}

fn policy_in(path: &Path, settings: &Settings) -> Result<Policy, ConfigError> {
    if let Some(name) = policy_settings(settings) {
        let why = "stands beside `policy_file`, which holds the whole policy: move it there";
        return Err(wrong(name, why));
    }
    let shown = path.display();
    let wrong = |why: String| wrong("policy_file", why);
    let text = text_in(path, MAX_POLICY_FILE);
    let text = text.map_err(|error| wrong(format!("{shown}: {error}")))?;
    Policy::from_toml(&text).map_err(|error| wrong(format!("{shown}: {error}")))
}

/// The first setting that is a part of the policy and was given.
fn policy_settings(settings: &Settings) -> Option<&'static str> {
    let Settings {
        epoch_seconds,
        threshold,
        max_benchmark_age,
        metric_minimum,
        required_signer,
        evaluator,
        harness,
        suite,
        suite_version,
        probation_epochs,
        passes_to_return,
        failures_to_leave,
        revoke,
        lease_seconds,
        on_lease_end,
        floor_share,
        floor_nodes,
        ..
    } = settings;
    let given = [
        ("epoch_seconds", epoch_seconds.is_some()),
        ("threshold", threshold.is_some()),
        ("max_benchmark_age", max_benchmark_age.is_some()),
        ("metric_minimum", metric_minimum.is_some()),
        ("required_signer", required_signer.is_some()),
        ("evaluator", evaluator.is_some()),
        ("harness", harness.is_some()),
        ("suite", suite.is_some()),
        ("suite_version", suite_version.is_some()),
        ("probation_epochs", probation_epochs.is_some()),
        ("passes_to_return", passes_to_return.is_some()),
        ("failures_to_leave", failures_to_leave.is_some()),
        ("revoke", revoke.is_some()),
        ("lease_seconds", lease_seconds.is_some()),
        ("on_lease_end", on_lease_end.is_some()),
        ("floor_share", floor_share.is_some()),
        ("floor_nodes", floor_nodes.is_some()),
    ];
    given
        .iter()
        .find(|(_, given)| *given)
        .map(|(name, _)| *name)
}

/// The settings without those that make up the policy, and without the file that may hold it.
pub fn without_policy(settings: &Settings) -> Settings {
    let segment = settings.segment.as_ref().map(|all| {
        let without = |it: &SegmentSettings| SegmentSettings {
            policy_file: None,
            ..it.clone()
        };
        all.iter().map(without).collect()
    });
    Settings {
        segment,
        policy_file: None,
        epoch_seconds: None,
        threshold: None,
        max_benchmark_age: None,
        metric_minimum: None,
        required_signer: None,
        evaluator: None,
        harness: None,
        suite: None,
        suite_version: None,
        probation_epochs: None,
        passes_to_return: None,
        failures_to_leave: None,
        revoke: None,
        lease_seconds: None,
        on_lease_end: None,
        floor_share: None,
        floor_nodes: None,
        ..settings.clone()
    }
}

fn flat_policy(settings: &Settings) -> Result<Policy, ConfigError> {
    let defaults = Policy::default();
    let mut metric_minimum = BTreeMap::new();
    for entry in entries(settings.metric_minimum.as_deref()) {
        let (name, score) = entry
            .split_once('=')
            .ok_or_else(|| wrong("metric_minimum", format!("`{entry}` is not NAME=SCORE")))?;
        let score = parse("metric_minimum", score.trim())?;
        let name = name.trim();
        if metric_minimum.insert(name.to_owned(), score).is_some() {
            let why = format!("`{name}` stands there twice: leave one");
            return Err(wrong("metric_minimum", why));
        }
    }
    // In a policy file it is the word for the default.
    if settings.lease_seconds == Some(0) {
        let why = "0 is no time: leave the setting out for five epochs, or give seconds";
        return Err(wrong("lease_seconds", why));
    }
    let evaluators = entries(settings.evaluator.as_deref());
    let evaluators: Result<Vec<EvaluatorId>, _> =
        evaluators.map(|key| parse("evaluator", key)).collect();
    Ok(Policy {
        threshold: settings.threshold.unwrap_or(defaults.threshold),
        max_benchmark_age: settings
            .max_benchmark_age
            .unwrap_or(defaults.max_benchmark_age),
        metric_minimum,
        required_signer: word("required_signer", settings.required_signer.as_deref())?
            .unwrap_or(defaults.required_signer),
        evaluators: evaluators?,
        harness: settings.harness.clone(),
        suite: settings.suite.clone(),
        suite_version: settings
            .suite_version
            .as_deref()
            .map(|text| parse("suite_version", text))
            .transpose()?,
        require: Vec::new(),
        evaluator: Vec::new(),
        passes_to_return: settings
            .passes_to_return
            .unwrap_or(defaults.passes_to_return),
        failures_to_leave: settings
            .failures_to_leave
            .unwrap_or(defaults.failures_to_leave),
        probation_epochs: settings
            .probation_epochs
            .unwrap_or(defaults.probation_epochs),
        revoke: word("revoke", settings.revoke.as_deref())?.unwrap_or(defaults.revoke),
        floor_share: settings.floor_share.unwrap_or(defaults.floor_share),
        floor_nodes: settings.floor_nodes.unwrap_or(defaults.floor_nodes),
        epoch_seconds: settings.epoch_seconds.unwrap_or(defaults.epoch_seconds),
        lease_seconds: settings.lease_seconds.unwrap_or(defaults.lease_seconds),
        on_lease_end: word("on_lease_end", settings.on_lease_end.as_deref())?
            .unwrap_or(defaults.on_lease_end),
        max_future_skew: defaults.max_future_skew,
        // Rules of traffic are in a policy file alone.
        traffic: defaults.traffic,
        hub: defaults.hub,
        allow: defaults.allow,
    })
}

fn node(settings: Settings, state_dir: &std::path::Path) -> Result<node::Config, ConfigError> {
    let emitter = emitter(&settings)?;
    let metrics_listen = metrics_listen(&settings)?;
    let names = names(&settings)?;
    apart(
        ("metrics_listen", metrics_listen),
        ("dns_listen", names.listen),
    )?;
    let wireguard = settings.listen_port.unwrap_or(LISTEN_PORT);
    let wireguard = SocketAddr::from((Ipv6Addr::UNSPECIFIED, wireguard));
    apart(
        ("dns_listen", names.listen),
        ("listen_port", Some(wireguard)),
    )?;
    let controllers = host_ports("controller", settings.controller.as_deref())?;
    let advertise = entries(settings.advertise.as_deref())
        .map(|text| for_peers(text).map_err(|why| wrong("advertise", why)));
    let advertise = advertise.collect::<Result<Vec<SocketAddr>, _>>()?;
    if advertise.len() > wire::message::MAX_ENDPOINTS {
        let why = format!("at most {} addresses", wire::message::MAX_ENDPOINTS);
        return Err(wrong("advertise", why));
    }
    let interface = settings.interface.unwrap_or_else(|| "meshd0".into());
    if matches!(interface.as_str(), "all" | "default") {
        let why = format!(
            "`{interface}` is the kernel's word for every interface (net.ipv4.conf.{interface}): choose another name"
        );
        return Err(wrong("interface", why));
    }
    if !is_interface_name(&interface) {
        let why = format!("`{interface}` is no name for an interface: 1 to 15 letters and digits");
        return Err(wrong("interface", why));
    }
    let wireguard_dir = wireguard_dir(settings.wireguard_dir.as_deref())?;
    let segments = asked(settings.segments.as_deref())?;
    let advertise_routes = offered(settings.advertise_routes.as_deref())?;
    let emit_seconds = settings.emit_seconds.unwrap_or(30);
    if !(1..=MAX_SECONDS).contains(&emit_seconds) {
        let why = format!(
            "{emit_seconds} is not between 1 and {MAX_SECONDS}: give seconds between two runs"
        );
        return Err(wrong("emit_seconds", why));
    }
    let probe_seconds = settings.probe_seconds.unwrap_or(10);
    if probe_seconds > MAX_SECONDS {
        let why = format!(
            "{probe_seconds} is over {MAX_SECONDS}: give seconds between two probes, or 0 for none"
        );
        return Err(wrong("probe_seconds", why));
    }
    let data_threads = settings.data_threads.unwrap_or_else(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // The other half is for what sends and receives, and for the kernel.
        (cores / 2).clamp(1, DEFAULT_MAX_THREADS)
    });
    if !(1..=MAX_THREADS).contains(&data_threads) {
        let why = format!("{data_threads} is not between 1 and {MAX_THREADS}");
        return Err(wrong("data_threads", why));
    }
    // A token that was used is of no interest to a node that is enrolled, and may be gone.
    let enrolled = state_dir.join("enrolment.json").exists();
    let join = settings
        .join
        .filter(|_| !enrolled)
        .map(|join| token(&join))
        .transpose()?;
    Ok(node::Config {
        state_dir: state_dir.to_owned(),
        join,
        name: settings
            .name
            .map(|name| parse::<NodeName>("name", &name))
            .transpose()?,
        segments,
        controllers,
        listen_port: settings.listen_port.unwrap_or(LISTEN_PORT),
        advertise,
        wireguard_dir,
        interface,
        firewall: choice(
            "firewall",
            settings.firewall.as_deref(),
            &[
                ("auto", FirewallMode::Auto),
                ("keep", FirewallMode::Keep),
                ("off", FirewallMode::Off),
            ],
        )?,
        mtu: settings
            .mtu
            .map(|mtu| parse::<Mtu>("mtu", &mtu.0))
            .transpose()?
            .unwrap_or_default(),
        keepalive: settings
            .persistent_keepalive
            .map(|every| parse::<Keepalive>("persistent_keepalive", &every.0))
            .transpose()?
            .unwrap_or_default(),
        advertise_routes,
        accept_routes: settings.accept_routes.unwrap_or(false),
        names,
        tun_backend: choice(
            "tun_backend",
            settings.tun_backend.as_deref(),
            &[
                ("auto", Backend::Auto),
                ("offload", Backend::Offload),
                ("tun-tap", Backend::TunTap),
            ],
        )?,
        offloads: OffloadSwitches {
            tun_tcp: settings.tun_tcp_offload.unwrap_or(true),
            tun_udp: settings.tun_udp_offload.unwrap_or(true),
            udp_gso: settings.udp_gso.unwrap_or(true),
            udp_gro: settings.udp_gro.unwrap_or(true),
        },
        data_threads,
        emitter,
        emit_every: Duration::from_secs(emit_seconds),
        probe_every: (probe_seconds > 0).then(|| Duration::from_secs(probe_seconds)),
        metrics_listen,
        clients: MAX_CLIENTS,
    })
}

fn names(settings: &Settings) -> Result<NamesConfig, ConfigError> {
    let listen = match settings.dns_listen.as_deref() {
        Some("off") => None,
        given => {
            let address = local(given.unwrap_or(DNS_LISTEN));
            let address =
                address.map_err(|why| wrong("dns_listen", format!("{why}, nor `off`")))?;
            if !address.ip().is_loopback() {
                let why = format!(
                    "{address} is no loopback address: names are for this machine, choose one such as {DNS_LISTEN}"
                );
                return Err(wrong("dns_listen", why));
            }
            Some(address)
        }
    };
    let suffix = settings.dns_suffix.as_deref();
    let suffix = suffix.map(|text| parse::<Suffix>("dns_suffix", text));
    let hosts_file = match settings.hosts_file.as_deref() {
        None | Some("none") => None,
        Some(path) if path.starts_with('/') => Some(path.into()),
        Some(other) => {
            let why = format!("`{other}` is neither an absolute path nor `none`");
            return Err(wrong("hosts_file", why));
        }
    };
    let resolved = [("auto", true), ("off", false)];
    Ok(NamesConfig {
        listen,
        suffix: suffix.transpose()?.unwrap_or_default(),
        resolved: choice("dns_resolved", settings.dns_resolved.as_deref(), &resolved)?,
        hosts_file,
    })
}

/// The directory of WireGuard sockets; `None`: there are to be none.
fn wireguard_dir(given: Option<&str>) -> Result<Option<PathBuf>, ConfigError> {
    match given.unwrap_or("/var/run/wireguard") {
        "off" => Ok(None),
        path if path.starts_with('/') => Ok(Some(path.into())),
        other => {
            let why = format!("`{other}` is neither an absolute path nor `off`");
            Err(wrong("wireguard_dir", why))
        }
    }
}

/// The networks that a node offers.
fn offered(texts: Option<&[String]>) -> Result<Vec<Prefix>, ConfigError> {
    const NAME: &str = "advertise_routes";
    let mut prefixes = entries(texts)
        .map(|text| {
            let parsed = text.parse::<Prefix>();
            parsed.map_err(|why| wrong(NAME, format!("`{text}`: {why}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    prefixes.sort_unstable();
    if prefixes.len() > MAX_NODE_ROUTES {
        return Err(wrong(NAME, format!("at most {MAX_NODE_ROUTES}")));
    }
    let overlap = |pair: &&[Prefix]| matches!(pair, [a, b] if a.overlaps(b));
    if let Some([a, b]) = prefixes.windows(2).find(overlap) {
        return Err(wrong(NAME, format!("`{a}` and `{b}` overlap")));
    }
    Ok(prefixes)
}

/// The segments that a node asks for.
fn asked(names: Option<&[String]>) -> Result<Vec<SegmentName>, ConfigError> {
    let mut segments: Vec<SegmentName> = Vec::new();
    for name in entries(names) {
        let parsed = name
            .parse()
            .map_err(|why| wrong("segments", format!("`{name}`: {why}")))?;
        if segments.contains(&parsed) {
            return Err(wrong("segments", format!("`{name}` stands there twice")));
        }
        segments.push(parsed);
    }
    if segments.len() > MAX_SEGMENTS {
        return Err(wrong("segments", format!("at most {MAX_SEGMENTS}")));
    }
    Ok(segments)
}

fn emitter(settings: &Settings) -> Result<Emitter, ConfigError> {
    #[derive(Clone, Copy)]
    enum Kind {
        None,
        Mock,
        Command,
        File,
        Directory,
    }
    let kinds = [
        ("none", Kind::None),
        ("mock", Kind::Mock),
        ("command", Kind::Command),
        ("file", Kind::File),
        ("directory", Kind::Directory),
    ];
    let kind = choice("emitter", settings.emitter.as_deref(), &kinds)?;
    let unit = |setting, value: f64| {
        if (0.0..=1.0).contains(&value) {
            Ok(value)
        } else {
            Err(wrong(setting, format!("{value} is not between 0 and 1")))
        }
    };
    Ok(match kind {
        Kind::None => Emitter::None,
        Kind::Mock => Emitter::Mock {
            mean: unit("mock_mean", settings.mock_mean.unwrap_or(0.9))?,
            jitter: unit("mock_jitter", settings.mock_jitter.unwrap_or(0.03))?,
        },
        Kind::Command => {
            let argv = settings.benchmark_command.clone().unwrap_or_default();
            if argv.is_empty() {
                return Err(wrong(
                    "benchmark_command",
                    "not set, and `emitter` is \"command\": name the program and its arguments, or choose another emitter",
                ));
            }
            let limit = settings.benchmark_timeout_seconds.unwrap_or(300);
            if !(1..=MAX_SECONDS).contains(&limit) {
                let why = format!(
                    "{limit} is not between 1 and {MAX_SECONDS}: give the seconds that a run may take"
                );
                return Err(wrong("benchmark_timeout_seconds", why));
            }
            let user = settings.benchmark_user.as_deref();
            let user = user.map(BenchmarkUser::find).transpose();
            Emitter::Command {
                argv,
                timeout: Duration::from_secs(limit),
                user: user.map_err(|error| wrong("benchmark_user", error.to_string()))?,
                reading: reading(settings)?,
            }
        }
        Kind::File => {
            let path = settings.benchmark_file.clone();
            Emitter::File {
                path: path
                    .ok_or_else(|| wrong("benchmark_file", "not set, and `emitter` is \"file\": name the file, or choose another emitter"))?,
                reading: reading(settings)?,
            }
        }
        Kind::Directory => {
            let path = settings.benchmark_directory.clone();
            let missing = || {
                wrong(
                    "benchmark_directory",
                    "not set, and `emitter` is \"directory\": name the folder, or choose another emitter",
                )
            };
            Emitter::Directory {
                path: path.ok_or_else(missing)?,
                reading: reading(settings)?,
            }
        }
    })
}

/// The form of a benchmark's results.
fn reading(settings: &Settings) -> Result<Reading, ConfigError> {
    let format = settings.benchmark_format.as_deref();
    let format = format.map(|format| parse("benchmark_format", format));
    let text = |setting, value: &Option<String>| {
        let fits = |it: &String| {
            (1..=wire::evidence::MAX_TEXT_LEN).contains(&it.len())
                && !it.chars().any(char::is_control)
        };
        match value {
            Some(value) if !fits(value) => {
                let why = format!("{value:?} is not 1 to 128 bytes of text");
                Err(wrong(setting, why))
            }
            value => Ok(value.clone()),
        }
    };
    Ok(Reading {
        format: format.transpose()?.unwrap_or_default(),
        labels: Labels {
            suite: text("benchmark_suite", &settings.benchmark_suite)?,
            suite_version: text("benchmark_suite_version", &settings.benchmark_suite_version)?,
            only: settings.benchmark_only.clone().unwrap_or_default(),
        },
    })
}

/// A token from its string, from a file (`@PATH`) or from standard input (`-`).
fn token(join: &str) -> Result<Token, ConfigError> {
    let refused =
        |what: &str, error: std::io::Error| wrong("join", format!("cannot read {what}: {error}"));
    let limit = wire::token::MAX_TOKEN_LEN as u64 + 1;
    let mut text = Zeroizing::new(String::new());
    match join.strip_prefix('@') {
        Some(path) => {
            let file = private_file("join", path, "write the token to one, or give it by `-`")?;
            file.take(limit)
                .read_to_string(&mut text)
                .map_err(|error| refused(path, error))?;
        }
        None if join == "-" => {
            let input = std::io::stdin().lock();
            input
                .take(limit)
                .read_to_string(&mut text)
                .map_err(|error| refused("standard input", error))?;
        }
        None => text.push_str(join),
    }
    text.parse()
        .map_err(|error: wire::token::TokenError| wrong("join", error.to_string()))
}

/// A file with a secret: a regular one, which no other user can read.
fn private_file(
    setting: &'static str,
    path: &str,
    way_out: &str,
) -> Result<std::fs::File, ConfigError> {
    let refused = |error: std::io::Error| wrong(setting, format!("cannot read {path}: {error}"));
    // Opening a FIFO would wait for somebody who writes to it.
    let nonblocking = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(NONBLOCK)
        .open(path);
    let file = nonblocking.map_err(refused)?;
    // Of the open file: whatever is put in its place afterwards is not read. A link may lead to it, because
    // container platforms hand secrets out that way.
    let meta = file.metadata().map_err(refused)?;
    let owners = Owners::of_process();
    let held = owners.check_opened(Path::new(path), &meta);
    held.map_err(|error| {
        let way_out = match error {
            NotPrivate::Kind { .. } => way_out,
            NotPrivate::Open { .. } | NotPrivate::Foreign { .. } | NotPrivate::Unseen { .. } => {
                "if anybody else may have read it, create another token"
            }
        };
        wrong(setting, format!("{error}; {way_out}"))
    })?;
    Ok(file)
}

fn metrics_listen(settings: &Settings) -> Result<Option<SocketAddr>, ConfigError> {
    let given = settings.metrics_listen.as_deref();
    let address = given.map(|text| local(text).map_err(|why| wrong("metrics_listen", why)));
    address.transpose()
}

/// The web page: on a loopback address unless there is a token.
fn page(settings: &Settings) -> Result<Option<page::Config>, ConfigError> {
    const TOKEN: &str = "page_token_file";
    let given = settings.page.as_deref().unwrap_or(PAGE);
    if given == "off" {
        return match settings.page_token_file {
            Some(_) => Err(wrong(TOKEN, "there is no page that needs one: remove it")),
            None => Ok(None),
        };
    }
    let address = local(given).map_err(|why| wrong("page", format!("{why}, or `off`")))?;
    let token = settings.page_token_file.as_deref();
    let token = token.map(page_token).transpose()?;
    if token.is_none() && !address.ip().to_canonical().is_loopback() {
        let why = format!(
            "`{given}` is no loopback address, so that readers have to show a token: put one into a file of mode \
             0600, as with `(umask 077; head -c 32 /dev/urandom | base64 > FILE)`, and set `{TOKEN}`"
        );
        return Err(wrong("page", why));
    }
    Ok(Some(page::Config { address, token }))
}

/// The token of the page in its file.
///
/// # Errors
/// When it cannot be read, others may read it, or it is none.
pub fn page_token(path: &Path) -> Result<page::Token, ConfigError> {
    const NAME: &str = "page_token_file";
    let shown = path.display().to_string();
    let file = private_file(NAME, &shown, "write the token to one")?;
    let mut text = Zeroizing::new(String::new());
    // Two more than a token has: a line's end, and a byte that makes it too long.
    file.take(page::token::MAX_LEN as u64 + 2)
        .read_to_string(&mut text)
        .map_err(|error| wrong(NAME, format!("cannot read {shown}: {error}")))?;
    page::Token::read(&text).map_err(|why| wrong(NAME, format!("{shown}: {why}")))
}

fn range(setting: &'static str, text: &str) -> Result<(IpAddr, u8), ConfigError> {
    let parsed = text
        .split_once('/')
        .and_then(|(base, prefix)| Some((base.parse().ok()?, prefix.parse().ok()?)));
    parsed.ok_or_else(|| wrong(setting, format!("`{text}` is not ADDRESS/PREFIX")))
}

/// Whether Linux takes this name as it is: a `%` would be for it to replace.
fn is_interface_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"/:%".contains(&b);
    (1..16).contains(&name.len()) && name.bytes().all(is_plain) && !matches!(name, "." | "..")
}

fn host_ports(
    setting: &'static str,
    given: Option<&[String]>,
) -> Result<Vec<HostPort>, ConfigError> {
    entries(given).map(|text| parse(setting, text)).collect()
}

fn parse<T: FromStr<Err: std::fmt::Display>>(
    setting: &'static str,
    text: &str,
) -> Result<T, ConfigError> {
    text.parse()
        .map_err(|error| wrong(setting, format!("`{text}`: {error}")))
}

/// One of the words that a type of the policy has for its values.
fn word<T: DeserializeOwned>(
    setting: &'static str,
    text: Option<&str>,
) -> Result<Option<T>, ConfigError> {
    let parsed = text.map(|text| T::deserialize(text.into_deserializer()));
    let parsed: Result<Option<T>, serde::de::value::Error> = parsed.transpose();
    parsed.map_err(|error| wrong(setting, error.to_string()))
}

/// The value of the named choice; without a name the first.
fn choice<T: Copy>(
    setting: &'static str,
    text: Option<&str>,
    choices: &[(&str, T)],
) -> Result<T, ConfigError> {
    let found = match text {
        None => choices.first(),
        Some(text) => choices.iter().find(|(name, _)| *name == text),
    };
    let names = || {
        choices
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    found.map(|(_, value)| *value).ok_or_else(|| {
        let text = text.unwrap_or_default();
        wrong(setting, format!("`{text}` is not one of: {}", names()))
    })
}

fn wrong(setting: &'static str, why: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        setting,
        why: why.into(),
    }
}

/// The longest pause or run, in seconds: a year.
const MAX_SECONDS: u64 = 365 * 86_400;
/// The web page's address, where nobody says.
const PAGE: &str = "127.0.0.1:7480";
/// The port of WireGuard, where nobody says.
const LISTEN_PORT: u16 = 51_820;
/// No port that needs a right, on the one address that every machine has.
const DNS_LISTEN: &str = "127.0.0.1:5376";
/// Threads that carry packets, where nobody says.
const DEFAULT_MAX_THREADS: usize = 16;
const MAX_THREADS: usize = 64;
const MAX_LOG_NAME: usize = 64;
const KEEP_EVIDENCE_DAYS: u64 = 30;
const MAX_KEEP_DAYS: u64 = 36_500;
const NONBLOCK: i32 = OFlags::NONBLOCK.bits().cast_signed();

/// Longest settings file, in bytes.
pub(crate) const MAX_SETTINGS: u64 = 1 << 20;
/// Longest policy file, in bytes: the admin socket takes no more either.
const MAX_POLICY_FILE: u64 = 48 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn resolve_text(text: &str) -> Result<Config, ConfigError> {
        resolve(toml::from_str(text).unwrap())
    }

    #[test]
    fn lists_are_split_alike_and_each_entry_is_an_address() {
        let node = |controller: Vec<&str>, advertise: Vec<&str>| {
            let owned = |list: Vec<&str>| Some(list.into_iter().map(String::from).collect());
            let settings = Settings {
                role: Some(Role::Node),
                controller: owned(controller),
                advertise: owned(advertise),
                ..Settings::default()
            };
            let RoleConfig::Node(node) = resolve(settings).unwrap().role else {
                panic!("a node")
            };
            let controllers = node.controllers.iter().map(ToString::to_string);
            let advertise = node.advertise.iter().map(ToString::to_string);
            (
                controllers.collect::<Vec<_>>(),
                advertise.collect::<Vec<_>>(),
            )
        };
        let (controllers, advertise) = node(
            vec!["a:1,b:2", "[fe80::1%eth0]:7443"],
            vec!["192.0.2.1:1, [2001:db8::1]:2"],
        );
        assert_eq!(controllers, ["a:1", "b:2", "[fe80::1%eth0]:7443"]);
        assert_eq!(advertise, ["192.0.2.1:1", "[2001:db8::1]:2"]);
        // A variable that is set to nothing sets nothing.
        assert_eq!(node(vec![""], vec![""]), (vec![], vec![]));

        let two = "role = \"controller\"\nmetric_minimum = \"a=0.5, b=0.7\"";
        let RoleConfig::Controller(controller) = resolve_text(two).unwrap().role else {
            panic!("a controller")
        };
        assert_eq!(controller.segments[0].policy.metric_minimum.len(), 2);
    }

    #[test]
    fn the_defaults_are_a_configuration_of_each_role() {
        assert!(resolve_text("role = \"controller\"").is_ok());
        let RoleConfig::Node(node) = resolve_text("role = \"node\"").unwrap().role else {
            panic!("a node")
        };
        assert_eq!(
            (node.mtu, node.listen_port, node.emitter),
            (Mtu::Auto, 51820, Emitter::None)
        );
    }

    #[test]
    fn an_mtu_is_a_number_or_auto_with_and_without_quotes() {
        for (text, expected) in [
            ("mtu = 1400", Mtu::Fixed(1400)),
            ("mtu = \"1400\"", Mtu::Fixed(1400)),
            ("mtu = \"auto\"", Mtu::Auto),
        ] {
            let config = resolve_text(&format!("role = \"node\"\n{text}")).unwrap();
            let RoleConfig::Node(node) = config.role else {
                panic!("a node")
            };
            assert_eq!(node.mtu, expected, "{text}");
        }
        let error = toml::from_str::<Settings>("mtu = true").unwrap_err();
        assert!(error.to_string().contains("a number or a word"), "{error}");
    }

    #[test]
    fn a_path_is_neither_empty_nor_impossible_in_any_setting() {
        for (role, name) in [
            ("node", "state_dir"),
            ("node", "socket"),
            ("node", "hosts_file"),
            ("node", "wireguard_dir"),
            ("node", "benchmark_file"),
            ("node", "benchmark_directory"),
            ("controller", "status_file"),
            ("controller", "policy_file"),
            ("controller", "page_token_file"),
        ] {
            for (value, words) in [("", "empty"), ("/a\\u0000b", "zero byte")] {
                let text = format!("role = \"{role}\"\n{name} = \"{value}\"");
                let error = resolve_text(&text).unwrap_err().to_string();
                assert!(error.starts_with(&format!("`{name}`: ")), "{error}");
                assert!(error.contains(words), "{text}: {error}");
            }
        }
    }

    #[test]
    fn a_file_that_never_ends_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        crate::private::tests::make_fifo(&fifo);
        let policy = |path: &str| {
            let text = format!("role = \"controller\"\npolicy_file = \"{path}\"");
            resolve_text(&text).unwrap_err().to_string()
        };
        let error = policy(fifo.to_str().unwrap());
        assert!(error.contains("no regular file but a FIFO"), "{error}");
        assert!(policy("/dev/zero").contains("over"));
        let error = policy(dir.path().to_str().unwrap());
        assert!(error.contains("directory"), "{error}");
        let error = read_file(fifo).unwrap_err().to_string();
        assert!(error.contains("no regular file but a FIFO"), "{error}");
        assert_eq!(read_file("/dev/null".into()).unwrap(), Settings::default());
    }

    #[test]
    fn settings_that_cannot_both_hold_are_errors() {
        for (role, text, expected) in [
            (
                "node",
                "interface = \"all\"",
                "`interface`: `all` is the kernel's",
            ),
            (
                "node",
                "interface = \"default\"",
                "`interface`: `default` is",
            ),
            (
                "node",
                "metrics_listen = \"127.0.0.1:5376\"",
                "`metrics_listen`: 127.0.0.1:5376 is taken by `dns_listen`",
            ),
            (
                "node",
                "metrics_listen = \"0.0.0.0:5376\"",
                "is taken by `dns_listen`",
            ),
            (
                "node",
                "dns_listen = \"127.0.0.1:51820\"",
                "`dns_listen`: 127.0.0.1:51820 is taken by `listen_port`",
            ),
            (
                "controller",
                "metrics_listen = \"[::]:7480\"",
                "is taken by `page`",
            ),
            (
                "controller",
                "metric_minimum = [\"a=0.5\", \"a = 0.7\"]",
                "`metric_minimum`: `a` stands there twice",
            ),
            (
                "node",
                "emit_seconds = 9223372036854775807",
                "`emit_seconds`: 9223372036854775807 is not between 1 and 31536000",
            ),
            (
                "node",
                "probe_seconds = 9223372036854775807",
                "`probe_seconds`: 9223372036854775807 is over",
            ),
            (
                "node",
                "emitter = \"command\"\nbenchmark_command = [\"true\"]\nbenchmark_timeout_seconds = 31536001",
                "`benchmark_timeout_seconds`: 31536001 is not between",
            ),
            (
                "controller",
                "lease_seconds = 0",
                "`lease_seconds`: 0 is no time",
            ),
            (
                "controller",
                "suite_version = \">=4, <2\"",
                "no version lies in",
            ),
        ] {
            let error = resolve_text(&format!("role = \"{role}\"\n{text}")).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
        for good in [
            "role = \"node\"\nmetrics_listen = \"127.0.0.1:0\"\ndns_listen = \"127.0.0.1:0\"",
            "role = \"node\"\nmetrics_listen = \"127.0.0.2:5376\"",
            "role = \"node\"\nmetrics_listen = \"127.0.0.1:51820\"",
            "role = \"controller\"\nmetrics_listen = \"127.0.0.1:7443\"",
        ] {
            assert!(resolve_text(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_token_file_is_private_and_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
        let join = |path: &std::path::Path| token(&format!("@{}", path.display()));
        std::fs::write(&path, "no token").unwrap();
        for open in [0o640, 0o604, 0o666] {
            mode(open).unwrap();
            let error = join(&path).unwrap_err().to_string();
            let way_out = format!("(mode {open:04o}): make it private with `chmod 600 ");
            assert!(error.contains(&way_out), "{error}");
        }
        mode(0o600).unwrap();
        let error = join(&path).unwrap_err().to_string();
        assert!(error.contains("not a meshd token"), "it was read: {error}");
        // Nobody writes to it: a daemon that waited for that would wait for ever.
        let fifo = dir.path().join("fifo");
        crate::private::tests::make_fifo(&fifo);
        for other in [fifo.as_path(), dir.path(), "/dev/null".as_ref()] {
            let error = join(other).unwrap_err().to_string();
            assert!(error.contains("is not a regular file"), "{error}");
            assert!(error.contains("give it by `-`"), "{error}");
        }
    }

    #[test]
    fn each_error_names_its_setting() {
        for (text, expected) in [
            ("", "--role"),
            (
                "role = \"node\"\nthreshold = 0.5",
                "`threshold` is not a setting of this role",
            ),
            (
                "role = \"node\"\nmtu = 1279",
                "`mtu`: `1279`: not between 1280",
            ),
            (
                "role = \"node\"\nmtu = \"large\"",
                "`mtu`: `large`: neither auto nor a number",
            ),
            (
                "role = \"node\"\npersistent_keepalive = 0",
                "`persistent_keepalive`: `0`: neither auto, off, nor a number",
            ),
            (
                "role = \"node\"\nsocket_group = \"no-such-group\"",
                "`socket_group`: this machine has no group `no-such-group`",
            ),
            (
                "role = \"node\"\nemitter = \"magic\"",
                "`emitter`: `magic` is not one of: none, mock, command, file, directory",
            ),
            ("role = \"node\"\nemitter = \"file\"", "`benchmark_file`"),
            ("role = \"node\"\nname = \"Node A\"", "`name`"),
            (
                "role = \"node\"\njoin = \"@/no/such/file\"",
                "cannot read /no/such/file",
            ),
            ("role = \"node\"\njoin = \"hello\"", "not a meshd token"),
            ("role = \"controller\"\nlisten = \"here\"", "`listen`"),
            (
                "role = \"node\"\nmetrics_listen = \"9744\"",
                "`metrics_listen`",
            ),
            (
                "role = \"controller\"\nmetrics_listen = \"localhost:9743\"",
                "`metrics_listen`: `localhost:9743` is not IP:PORT",
            ),
            ("role = \"controller\"\nthreshold = 1.5", "threshold"),
            ("role = \"controller\"\nmesh_v4 = \"10.0.0.0\"", "`mesh_v4`"),
            ("role = \"controller\"\nepoch_seconds = 0", "epoch"),
            (
                "role = \"controller\"\nadvertise = [\"nowhere\"]",
                "`advertise`",
            ),
            (
                "role = \"controller\"\nadvertise = [\"http://x:1\"]",
                "leave out the scheme",
            ),
            (
                "role = \"controller\"\nadvertise = [\"a:1\", \"a:2,a:3,a:4\", \"a:5\", \"a:6\", \"a:7\", \"a:8\", \"a:9\"]",
                "at most 8",
            ),
            (
                "role = \"controller\"\nmesh_v4 = \"10.0.0.0/31\"",
                "prefix length",
            ),
            (
                "role = \"controller\"\nmesh_v4 = \"10.0.0.1/16\"",
                "host bits",
            ),
            (
                "role = \"controller\"\nlisten = \"[fe80::1%no-such-one]:1\"",
                "`listen`: `[fe80::1%no-such-one]:1`: this machine has no interface",
            ),
            (
                "role = \"node\"\ncontroller = [\"2001:db8::1:7443\"]",
                "in brackets",
            ),
            (
                "role = \"node\"\nadvertise = [\"192.0.2.1:0\"]",
                "from 1 to 65535",
            ),
            (
                "role = \"node\"\nadvertise = [\"[fe80::1%eth0]:51820\"]",
                "link-local",
            ),
            (
                "role = \"node\"\nadvertise_routes = [\"10.1.0.5/16\"]",
                "`advertise_routes`: `10.1.0.5/16`: 10.1.0.5 has bits set behind the first 16",
            ),
            (
                "role = \"node\"\nadvertise_routes = [\"10.1.7.0/24\", \"10.1.0.0/16\"]",
                "`advertise_routes`: `10.1.0.0/16` and `10.1.7.0/24` overlap",
            ),
            (
                "role = \"node\"\nadvertise_routes = [\"0.0.0.0/0\"]",
                "too wide",
            ),
            (
                "role = \"controller\"\naccept_routes = true",
                "`accept_routes`",
            ),
            (
                "role = \"node\"\ninterface = \"a-name-with-16-ch\"",
                "`interface`",
            ),
        ] {
            let error = resolve_text(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_policy_file_is_the_whole_policy_and_its_faults_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        let settings = |more: &str| -> Settings {
            let text = format!("role = \"controller\"\npolicy_file = {path:?}\n{more}");
            toml::from_str(&text).unwrap()
        };
        let fault = |more: &str| policy_of(&settings(more)).unwrap_err().to_string();
        assert!(fault("").contains("`policy_file`"), "{}", fault(""));
        std::fs::write(&path, "[[require]]\nname = \"x\"\nthreshold = 0.6").unwrap();
        let policy = policy_of(&settings("")).unwrap();
        assert_eq!(policy.requirements()[0].threshold, 0.6);
        let both = fault("threshold = 0.7");
        assert!(
            both.starts_with("`threshold`: stands beside `policy_file`"),
            "{both}"
        );
        std::fs::write(&path, "[[require]]\nname = \"x\"\nthreshold = 6").unwrap();
        let wrong = fault("");
        assert!(
            wrong.contains("requirement \"x\": `threshold` is 6"),
            "{wrong}"
        );
        let flat: Settings = toml::from_str("suite_version = \">=2\"").unwrap();
        assert!(
            policy_of(&flat).unwrap().requirements()[0]
                .suite_version
                .is_some()
        );
    }
}
