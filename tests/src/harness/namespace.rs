//! Network namespaces: one underlay with a bridge, one namespace per host. A namespace is deleted
//! when its handle is dropped, and takes its links with it.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// The namespaces of one mesh.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    underlay: Namespace,
    hosts: Vec<(String, Namespace)>,
}

impl Network {
    /// An underlay without hosts, under a name that nobody else has.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{n}-", std::process::id());
        let underlay = Namespace::new(format!("{prefix}underlay"));
        let bridge = "link add br0 type bridge forward_delay 0 mcast_snooping 0";
        underlay.ip(bridge);
        underlay.ip("link set br0 up");
        Self {
            prefix,
            underlay,
            hosts: Vec::new(),
        }
    }

    /// Gives `host` a namespace with an eth0 whose other end is in the bridge.
    pub fn attach(&mut self, host: &str, v4: &str, v6: &str) {
        let namespace = Namespace::new(format!("{}{host}", self.prefix));
        let port = port(host);
        ip(&format!(
            "link add name eth0 netns {} type veth peer name {port} netns {}",
            namespace.name, self.underlay.name
        ));
        self.underlay.ip(&format!("link set {port} master br0 up"));
        namespace.ip(&format!("addr add {v4}/15 dev eth0"));
        namespace.ip(&format!("addr add {v6}/64 dev eth0 nodad"));
        namespace.ip("link set eth0 up");
        self.hosts.push((host.to_owned(), namespace));
    }

    /// The namespace of `host`.
    ///
    /// # Panics
    /// When there is no such host.
    #[must_use]
    pub fn host(&self, host: &str) -> &Namespace {
        let found = self.hosts.iter().find(|(name, _)| name == host);
        &found.unwrap_or_else(|| panic!("no host {host}")).1
    }

    /// The namespace of the bridge.
    #[must_use]
    pub fn underlay(&self) -> &Namespace {
        &self.underlay
    }

    /// Cuts `host` off from the underlay, or connects it again. The host itself does not notice: its
    /// eth0 stays up, as behind a switch that fails.
    pub fn set_link(&self, host: &str, up: bool) {
        let master = if up { "master br0" } else { "nomaster" };
        self.underlay
            .ip(&format!("link set {} {master}", port(host)));
    }

    /// Gives both ends of the link of `host` another MTU. The bridge drops what is too large for a
    /// port, as a switch does, and answers nothing.
    pub fn set_mtu(&self, host: &str, mtu: u32) {
        self.host(host).ip(&format!("link set eth0 mtu {mtu}"));
        self.set_port_mtu(host, mtu);
    }

    /// Gives the far end of the link of `host` another MTU: the host itself does not notice.
    pub fn set_port_mtu(&self, host: &str, mtu: u32) {
        let port = port(host);
        self.underlay.ip(&format!("link set {port} mtu {mtu}"));
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// One namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    fn new(name: String) -> Self {
        // The first `ip netns` of a machine sets up the folder; two at once would race.
        static FIRST: Mutex<()> = Mutex::new(());
        let guard = FIRST.lock();
        ip(&format!("netns add {name}"));
        drop(guard);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Its name, for `ip -n` and `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip -n NAME …`.
    pub fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Runs `work` in a thread of its own inside, so that its sockets are there.
    ///
    /// # Panics
    /// When the namespace cannot be entered.
    pub fn enter<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let path = Path::new("/run/netns").join(&self.name);
        let file = std::fs::File::open(path).expect("the namespace has a name");
        std::thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), kind).expect("root may enter a namespace");
            work()
        })
    }

    /// A command that runs inside; its process is `program` itself.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// Whether a namespace can be made here.
#[must_use]
pub fn is_possible() -> bool {
    let name = format!("{PREFIX}{}-probe", std::process::id());
    let made = run(&format!("netns add {name}")).is_some_and(|output| output.status.success());
    drop(Namespace { name });
    made
}

/// Deletes what test binaries left that were killed. A namespace in which something still runs
/// lives on without its name.
pub fn sweep() {
    for entry in std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('-'));
        if owner.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            drop(Namespace { name });
        }
    }
}

/// Name of a host's port in the bridge; an interface's name has at most 15 bytes.
fn port(host: &str) -> String {
    format!("p-{}", host.strip_prefix("node-").unwrap_or(host))
}

fn ip(arguments: &str) -> String {
    let output = run(arguments).expect("the tests need `ip` (iproute2)");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(arguments: &str) -> Option<Output> {
    let arguments = arguments.split_whitespace();
    Command::new("ip").args(arguments).output().ok()
}

const PREFIX: &str = "meshtest-";
