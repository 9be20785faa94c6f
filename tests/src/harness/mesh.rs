//! A mesh of daemons: start, stop, wait, ping. [`CONTROLLER`] and `node-a`, `node-b`, … are its hosts.
//! Questions and orders to them are in [`super::ask`].
//!
//! The file is long because a mesh has many handles.

use super::builder::Builder;
use super::daemon::Daemon;
use super::namespace::{Namespace, Network};
use super::ping::{self, Pinger};
use super::programs::program;
use super::{PATIENCE, poll};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use wire::admin::{Control, Membership};
use wire::name::NodeName;

/// The controller's host.
pub const CONTROLLER: &str = "controller";
/// The controller's UDP port.
pub const CONTROLLER_PORT: u16 = 7443;

/// A mesh. Its daemons end and its namespaces go when it is dropped.
#[derive(Debug)]
pub struct Mesh {
    // In the order in which they are dropped.
    daemons: BTreeMap<String, Daemon>,
    network: Network,
    folder: PathBuf,
    builder: Builder,
    _turn: Turn,
}

/// Life and death.
impl Mesh {
    /// Describes a mesh of three nodes.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) fn prepare(builder: Builder) -> Self {
        super::enter();
        let turn = Turn::take();
        program("meshd");
        let folder = tempfile::Builder::new().prefix("meshtest-").tempdir();
        let folder = folder.expect("there is a place for temporary files").keep();
        let mut mesh = Self {
            daemons: BTreeMap::new(),
            network: Network::new(),
            folder,
            builder,
            _turn: turn,
        };
        mesh.network
            .attach(CONTROLLER, "198.18.0.1", "fd00:6d65:7368::1");
        for (index, node) in mesh.nodes().iter().enumerate() {
            mesh.add_host(node, index);
        }
        for host in mesh.hosts() {
            let settings = mesh.settings(&host);
            std::fs::write(mesh.settings_file(&host), settings).expect("a setting can be written");
        }
        mesh
    }

    /// Another host in the underlay, with the addresses 198.18.1.(`index` + 1) and
    /// fd00:6d65:7368::1:(`index` + 1). The nodes have the lowest indices, from 0.
    pub fn add_host(&mut self, host: &str, index: usize) {
        let (v4, v6) = underlay(index);
        self.network.attach(host, &v4, &v6);
    }

    /// Starts the controller and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_controller(&mut self) {
        self.spawn(CONTROLLER, &[]);
        self.wait_until("the controller answers", |mesh| {
            assert!(mesh.is_running(CONTROLLER), "{}", mesh.tail(CONTROLLER));
            mesh.try_status().is_some()
        });
    }

    /// Starts a node; the first time with a new token, so the controller has to answer then. Does not
    /// wait for anything.
    pub fn start_node(&mut self, node: &str) {
        self.start_node_under(node, &[]);
    }

    /// The same, by a program that becomes the daemon, as `env` does.
    pub fn start_node_under(&mut self, node: &str, wrapper: &[&str]) {
        if self.state_dir(node).join("enrolment.json").exists() {
            self.spawn_under(node, wrapper, &[]);
        } else {
            let token = self.token_file(node);
            let join = format!("@{}", token.display());
            self.spawn_under(node, wrapper, &["--join", &join]);
        }
    }

    /// Starts a daemon with its settings and more arguments.
    pub fn spawn(&mut self, host: &str, more: &[&str]) {
        self.spawn_under(host, &[], more);
    }

    /// The same, by a program that becomes the daemon, as `env` does.
    pub fn spawn_under(&mut self, host: &str, wrapper: &[&str], more: &[&str]) {
        assert!(!self.is_running(host), "{host} runs already");
        let mut command = match wrapper.split_first() {
            None => self.command(host, program("meshd")),
            Some((first, rest)) => {
                let mut command = self.command(host, first);
                command.args(rest).arg(program("meshd"));
                command
            }
        };
        command.arg("--config").arg(self.settings_file(host));
        command.args(more);
        let daemon = Daemon::start(command, &self.log_file(host));
        self.daemons.insert(host.into(), daemon);
    }

    /// `meshd` with the settings of `host`, in its namespace, not started.
    #[must_use]
    pub fn daemon_command(&self, host: &str) -> Command {
        let mut command = self.command(host, program("meshd"));
        command.arg("--config").arg(self.settings_file(host));
        command
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self, host: &str) -> ExitStatus {
        self.take(host).stop()
    }

    /// `kill -9`.
    pub fn kill(&mut self, host: &str) {
        self.take(host).kill();
    }

    /// SIGSTOP.
    pub fn pause(&self, host: &str) {
        self.daemon(host).signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self, host: &str) {
        self.daemon(host).signal(Signal::CONT);
    }

    /// Whether the daemon of `host` runs.
    pub fn is_running(&mut self, host: &str) -> bool {
        let daemon = self.daemons.get_mut(host);
        daemon.is_some_and(|daemon| daemon.ended().is_none())
    }

    /// Process id of the daemon of `host`.
    #[must_use]
    pub fn pid(&self, host: &str) -> u32 {
        self.daemon(host).pid()
    }

    fn daemon(&self, host: &str) -> &Daemon {
        let daemon = self.daemons.get(host);
        daemon.unwrap_or_else(|| panic!("{host} was not started"))
    }

    fn take(&mut self, host: &str) -> Daemon {
        let daemon = self.daemons.remove(host);
        daemon.unwrap_or_else(|| panic!("{host} was not started"))
    }
}

/// The underlay.
impl Mesh {
    /// Names of the nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        node_names(self.builder.nodes)
    }

    /// The controller and the nodes.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts = self.nodes();
        hosts.push(CONTROLLER.into());
        hosts
    }

    /// The namespace of `host`.
    #[must_use]
    pub fn namespace(&self, host: &str) -> &Namespace {
        self.network.host(host)
    }

    /// The namespace that everybody's links lead to, with its bridge.
    #[must_use]
    pub fn underlay(&self) -> &Namespace {
        self.network.underlay()
    }

    /// A command inside the namespace of `host`.
    #[must_use]
    pub fn command(&self, host: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.namespace(host).command(program)
    }

    /// Runs `program` with arguments inside the namespace of `host`, to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn exec(&self, host: &str, argv: &[&str]) -> Output {
        let (program, arguments) = argv.split_first().expect("there is a program");
        let output = self.command(host, program).args(arguments).output();
        output.expect("the tests need `ip` (iproute2)")
    }

    /// Addresses of a node in the underlay.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn underlay_addresses(&self, node: &str) -> [String; 2] {
        let index = self.nodes().iter().position(|name| name == node);
        let (v4, v6) = underlay(index.unwrap_or_else(|| panic!("no node {node}")));
        [v4, v6]
    }

    /// Cuts `host` off from the underlay.
    pub fn link_down(&self, host: &str) {
        self.network.set_link(host, false);
    }

    /// Connects `host` to the underlay again.
    pub fn link_up(&self, host: &str) {
        self.network.set_link(host, true);
    }

    /// Addresses of a node in the underlay.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn underlay_of(&self, node: &str) -> [IpAddr; 2] {
        let index = self.nodes().iter().position(|name| name == node);
        let (v4, v6) = underlay(index.unwrap_or_else(|| panic!("no node {node}")));
        [v4, v6].map(|address| address.parse().expect("it is an address"))
    }

    /// From now on nothing of the controller comes to `node`, which does not hear of its eviction.
    pub fn deafen(&self, node: &str) {
        for address in self.underlay_of(node) {
            let controller = self.namespace(CONTROLLER);
            controller.ip(&format!("route add blackhole {address}"));
        }
    }

    /// `node` hears its controller again.
    pub fn undeafen(&self, node: &str) {
        for address in self.underlay_of(node) {
            let controller = self.namespace(CONTROLLER);
            controller.ip(&format!("route del blackhole {address}"));
        }
    }

    /// Gives every link of the controller and the nodes this MTU; 1500 unless told.
    pub fn set_underlay_mtu(&self, mtu: u32) {
        for host in self.hosts() {
            self.network.set_mtu(&host, mtu);
        }
    }

    /// Narrows the way from and to `host` where neither end sees it: what is larger vanishes.
    pub fn narrow_way(&self, host: &str, mtu: u32) {
        self.network.set_port_mtu(host, mtu);
    }
}

/// Waiting.
impl Mesh {
    /// Waits up to a minute.
    ///
    /// # Panics
    /// When it does not come true; with the last status and the ends of the logs.
    pub fn wait_until(&mut self, what: &str, condition: impl FnMut(&mut Self) -> bool) {
        self.wait_up_to(PATIENCE, what, condition);
    }

    /// Waits up to `patience`.
    ///
    /// # Panics
    /// When it does not come true; with the last status. The ends of the logs follow as the mesh is
    /// dropped.
    pub fn wait_up_to(
        &mut self,
        patience: Duration,
        what: &str,
        mut condition: impl FnMut(&mut Self) -> bool,
    ) {
        if !poll(patience, || condition(self)) {
            let said = self.meshctl(CONTROLLER, &["status"]);
            let mut words = String::from_utf8_lossy(&said.stdout).into_owned();
            for node in self.nodes() {
                let said = self.meshctl(&node, &["status"]);
                let text = String::from_utf8_lossy(&said.stdout).into_owned();
                let _ = write!(words, "\n--- {node}\n{text}");
            }
            panic!("not within {} s: {what}\n{words}", patience.as_secs());
        }
    }

    /// Waits until every node is a member and every pair pings on both families.
    pub fn wait_until_all_reach_all(&mut self) {
        let nodes = self.nodes();
        let members: Vec<&str> = nodes.iter().map(String::as_str).collect();
        self.wait_until_members(&members);
    }

    /// Waits until these nodes are members, hold the keys and reach each other on both families.
    pub fn wait_until_members(&mut self, members: &[&str]) {
        let what = format!("{} are members", members.join(", "));
        self.wait_until(&what, |mesh| {
            mesh.assert_running(members);
            mesh.try_status().is_some_and(|status| {
                members.iter().all(|node| {
                    status.nodes.get(&name(node)).is_some_and(|node| {
                        node.membership == Membership::Allowed && node.control == Control::Connected
                    })
                })
            })
        });
        let what = format!("{} reach each other", members.join(", "));
        self.wait_until(&what, |mesh| mesh.all_reach(members));
    }

    /// Waits until the controller has `membership` for `node` in force.
    pub fn wait_until_membership(&mut self, node: &str, membership: Membership) {
        let what = format!("{node} is {membership:?}");
        self.wait_until(&what, |mesh| mesh.node(node).membership == membership);
    }

    /// Waits for the epoch in force to be over, and `more` others; returns the one in force then.
    pub fn wait_epochs(&mut self, more: u64) -> u64 {
        let goal = self.epoch() + more;
        self.wait_until(&format!("epoch {goal}"), |mesh| mesh.epoch() >= goal);
        self.epoch()
    }

    fn assert_running(&mut self, hosts: &[&str]) {
        for host in hosts {
            assert!(self.is_running(host), "{host} ended: {}", self.tail(host));
        }
    }
}

/// Pings.
impl Mesh {
    /// Addresses of a node inside the mesh.
    #[must_use]
    pub fn addresses(&self, node: &str) -> [IpAddr; 2] {
        let status = self.node(node);
        [status.v4.into(), status.v6.into()]
    }

    /// Whether `to` answers `from` on IPv4.
    #[must_use]
    pub fn ping(&self, from: &str, to: &str) -> bool {
        ping::once(self.namespace(from), self.addresses(to)[0])
    }

    /// Whether these nodes all answer each other, on IPv4 and IPv6.
    #[must_use]
    pub fn all_reach(&self, nodes: &[&str]) -> bool {
        pairs(nodes, nodes).all(|(from, to)| {
            let addresses = self.addresses(to);
            addresses
                .iter()
                .all(|to| ping::once(self.namespace(from), *to))
        })
    }

    /// Whether nothing passes between `one` and `others`, on IPv4 and IPv6, either way.
    #[must_use]
    pub fn none_reach(&self, one: &str, others: &[&str]) -> bool {
        let one = [one];
        let mut both_ways = pairs(&one, others).chain(pairs(others, &one));
        both_ways.all(|(from, to)| {
            let addresses = self.addresses(to);
            !addresses
                .iter()
                .any(|to| ping::once(self.namespace(from), *to))
        })
    }

    /// Pings `to` from `from` five times a second on IPv4, from now on.
    #[must_use]
    pub fn keep_pinging(&self, from: &str, to: &str) -> Pinger {
        Pinger::start(self.namespace(from), self.addresses(to)[0], &self.folder)
    }

    /// Pings `to` from `from` twenty times a second on IPv4, with so many bytes.
    #[must_use]
    pub fn keep_pinging_fast(&self, from: &str, to: &str, bytes: usize) -> Pinger {
        let to = self.addresses(to)[0];
        Pinger::start_with(self.namespace(from), to, &self.folder, "0.05", bytes)
    }
}

/// Files.
impl Mesh {
    /// The folder of this mesh: settings, state, sockets, logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// State directory of `host`.
    #[must_use]
    pub fn state_dir(&self, host: &str) -> PathBuf {
        self.folder.join("state").join(host)
    }

    /// The segments that a node's token is for; none: it says nothing of segments.
    pub(super) fn segments_of(&self, node: &str) -> &[String] {
        self.builder.places.get(node).map_or(&[], Vec::as_slice)
    }

    /// Admin socket of `host`.
    #[must_use]
    pub fn socket(&self, host: &str) -> PathBuf {
        self.folder.join(format!("{host}.sock"))
    }

    /// The controller's status.json.
    #[must_use]
    pub fn status_file(&self) -> PathBuf {
        self.folder.join("status.json")
    }

    /// Settings of `host`, as TOML.
    #[must_use]
    pub fn settings_file(&self, host: &str) -> PathBuf {
        self.folder.join(format!("{host}.toml"))
    }

    /// Everything that the daemon of `host` has said.
    #[must_use]
    pub fn log(&self, host: &str) -> String {
        std::fs::read_to_string(self.log_file(host)).unwrap_or_default()
    }

    fn log_file(&self, host: &str) -> PathBuf {
        self.folder.join(format!("{host}.log"))
    }

    fn tail(&self, host: &str) -> String {
        let log = self.log(host);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// The controller's segments; writes their policies.
    fn segments(&self) -> String {
        let segments = self.builder.segments.iter().map(|(name, range, policy)| {
            let file = self.policy_file(name);
            std::fs::write(&file, policy).expect("the folder can be written");
            let file = file.display();
            format!("{{ name = '{name}', mesh_v4 = '{range}', policy_file = '{file}' }}")
        });
        let segments: Vec<String> = segments.collect();
        format!("[{}]", segments.join(", "))
    }

    /// The policy of a segment, as a file.
    #[must_use]
    pub fn policy_file(&self, segment: &str) -> PathBuf {
        self.folder.join(format!("{segment}.policy.toml"))
    }

    fn settings(&self, host: &str) -> String {
        let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
        let mut lines = BTreeMap::from([
            ("state_dir".to_owned(), quoted(self.state_dir(host))),
            ("socket".to_owned(), quoted(self.socket(host))),
        ]);
        let mut set = |name: &str, value: String| lines.insert(name.to_owned(), value);
        if host == CONTROLLER {
            set("role", "\"controller\"".into());
            set("status_file", quoted(self.status_file()));
            set(
                "advertise",
                "[\"198.18.0.1:7443\", \"[fd00:6d65:7368::1]:7443\"]".into(),
            );
            lines.extend(self.builder.controller.clone());
            if !self.builder.segments.is_empty() {
                lines.insert("segment".to_owned(), self.segments());
            }
        } else {
            set("role", "\"node\"".into());
            set("name", format!("\"{host}\""));
            lines.extend(self.builder.every_node.clone());
            lines.extend(self.builder.one_node.get(host).cloned().unwrap_or_default());
        }
        lines.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name} = {value}");
            text
        })
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut words = format!("the ends of the logs in {}:\n", self.folder.display());
            for host in self.hosts() {
                let _ = writeln!(words, "--- {host}\n{}", self.tail(&host));
            }
            speak(&words);
        }
        self.daemons.clear();
        if std::env::var_os("MESHTEST_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A node's name as the forms have it.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn name(node: &str) -> NodeName {
    node.parse().expect("the tests' names are names")
}

fn pairs<'a>(from: &'a [&str], to: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let all = from
        .iter()
        .flat_map(move |f| to.iter().map(move |t| (*f, *t)));
    all.filter(|(from, to)| from != to)
}

/// Names of the nodes of a mesh of so many.
#[must_use]
pub fn node_names(nodes: usize) -> Vec<String> {
    (0..nodes).map(node_name).collect()
}

/// node-a, node-b, … node-z, node-aa, node-ab, …
fn node_name(index: usize) -> String {
    let letter = |at: usize| char::from(b"abcdefghijklmnopqrstuvwxyz"[at % 26]);
    match index / 26 {
        0 => format!("node-{}", letter(index)),
        before => format!("node-{}{}", letter(before - 1), letter(index)),
    }
}

fn underlay(index: usize) -> (String, String) {
    let n = index + 1;
    (format!("198.18.1.{n}"), format!("fd00:6d65:7368::1:{n:x}"))
}

/// Into the test's captured output.
#[expect(clippy::print_stderr, reason = "a failed test says why")]
fn speak(words: &str) {
    eprintln!("{words}");
}

/// One of the meshes that may be there at the same time.
#[derive(Debug)]
struct Turn;

impl Turn {
    fn take() -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken >= AT_ONCE {
            taken = FREED.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();
/// More would distort what is measured in seconds.
const AT_ONCE: usize = 4;
/// Lines of a log that are shown.
const TAIL: usize = 25;
