//! Meshes of any size, their daemons' admin sockets and logs, and what the machine has to be told.

use crate::stamps::Wall;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tests::harness::{Builder, CONTROLLER, Mesh, now, poll};
use wire::admin::{Control, ControllerStatus, Membership, NodeDaemonStatus, Status};

/// A mesh with the product's defaults where the harness has faster ones, all of whose pairs have a
/// session.
pub(crate) fn start(nodes: usize, settings: impl FnOnce(Builder) -> Builder) -> Mesh {
    start_with(nodes, settings, |_| ()).0
}

/// The same, with something that is there before the first daemon.
pub(crate) fn start_with<T>(
    nodes: usize,
    settings: impl FnOnce(Builder) -> Builder,
    before: impl FnOnce(&mut Mesh) -> T,
) -> (Mesh, T) {
    let builder = Mesh::builder()
        .nodes(nodes)
        .controller_setting("log_format", "\"json\"")
        .every_node_setting("log_format", "\"json\"")
        .every_node_setting("emit_seconds", 30)
        .every_node_setting("probe_seconds", 10);
    let mut mesh = settings(builder).prepare();
    let there = before(&mut mesh);
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    settled(&mut mesh);
    (mesh, there)
}

/// Waits until everybody is a member and has a session with everybody.
fn settled(mesh: &mut Mesh) {
    let nodes = mesh.nodes();
    let mut left = nodes.clone();
    let began = now();
    let complete = poll(START, || {
        left.retain(|node| !is_settled(mesh, node, nodes.len()));
        left.is_empty()
    });
    assert!(
        complete,
        "not settled within {} s: {left:?}",
        START.as_secs()
    );
    println!(
        "{} nodes in a mesh after {:.0} s",
        nodes.len(),
        began.elapsed().as_secs_f64()
    );
}

fn is_settled(mesh: &Mesh, node: &str, nodes: usize) -> bool {
    let Ok(status) = node_status(mesh, node) else {
        return false;
    };
    let with_session = status
        .peers
        .values()
        .filter(|peer| peer.session_epoch.is_some());
    status.membership == Some(Membership::Allowed)
        && status.control == Control::Connected
        && with_session.count() + 1 == nodes
}

/// An open connection to an admin socket: whoever is in a hurry connects before.
pub(crate) struct Request(UnixStream, Vec<u8>);

impl Request {
    pub(crate) fn new(
        mesh: &Mesh,
        host: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<Self> {
        let stream = UnixStream::connect(mesh.socket(host))?;
        stream.set_read_timeout(Some(ANSWER))?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: meshd\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(Self(stream, request.into_bytes()))
    }

    /// Sends it and reads the answer.
    pub(crate) fn send<T: DeserializeOwned>(mut self) -> io::Result<T> {
        self.0.write_all(&self.1)?;
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let first = head.lines().next().unwrap_or_default();
        if !first.contains(" 200 ") {
            return Err(io::Error::other(format!("{first}: {body}")));
        }
        serde_json::from_str(body).map_err(io::Error::other)
    }
}

pub(crate) fn post<T: DeserializeOwned>(mesh: &Mesh, path: &str, body: &str) -> io::Result<T> {
    Request::new(mesh, CONTROLLER, "POST", path, body)?.send()
}

pub(crate) fn node_status(mesh: &Mesh, node: &str) -> io::Result<NodeDaemonStatus> {
    match Request::new(mesh, node, "GET", "/v1/status", "")?.send()? {
        Status::Node(status) => Ok(*status),
        Status::Controller(_) => Err(io::Error::other("a controller answers")),
    }
}

pub(crate) fn controller_status(mesh: &Mesh) -> io::Result<ControllerStatus> {
    match Request::new(mesh, CONTROLLER, "GET", "/v1/status", "")?.send()? {
        Status::Controller(status) => Ok(*status),
        Status::Node(_) => Err(io::Error::other("a node answers")),
    }
}

/// When `host` logged `message`, by the epoch that the line is about.
pub(crate) fn logged(mesh: &Mesh, host: &str, message: &str) -> BTreeMap<u64, Wall> {
    let log = mesh.log(host);
    let lines = log.lines().filter(|line| line.contains(message));
    let times = lines.filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let epoch = &line["epoch"];
        // As a number, or as text that is one.
        let epoch = epoch.as_u64().or_else(|| epoch.as_str()?.parse().ok())?;
        let at: jiff::Timestamp = line["timestamp"].as_str()?.parse().ok()?;
        let is_it = line["message"].as_str()? == message;
        is_it.then(|| {
            (
                epoch,
                Wall::try_from(at.as_nanosecond()).unwrap_or(Wall::MAX),
            )
        })
    });
    times.collect()
}

/// The controller logs this when an epoch is durable, just before it is pushed.
pub(crate) const DURABLE: &str = "epoch rotation";
/// A node logs this just after it has told its data plane that the epoch is in force.
pub(crate) const IN_FORCE: &str = "APPLIED epoch psk ****";

/// A setting of this machine, raised until this is dropped.
pub(crate) struct Raised(Option<(PathBuf, String)>);

impl Raised {
    fn new(path: &str, least: u64) -> Self {
        let path = Path::new("/proc/sys").join(path);
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        let found = found.trim().to_owned();
        if found.parse::<u64>().is_ok_and(|found| found >= least) {
            return Self(None);
        }
        match std::fs::write(&path, least.to_string()) {
            Ok(()) => Self(Some((path, found))),
            Err(error) => {
                eprintln!(
                    "{} stays {found}, less than {least}: {error}",
                    path.display()
                );
                Self(None)
            }
        }
    }

    /// Neighbour tables count the entries of all namespaces together; a full mesh needs many.
    pub(crate) fn neighbours(nodes: usize) -> Vec<Self> {
        let entries = 4 * u64::try_from(nodes * nodes).unwrap_or(u64::MAX) + 1_024;
        let names = ["gc_thresh3", "gc_thresh2", "gc_thresh1"];
        let paths = ["ipv4", "ipv6"]
            .map(|family| names.map(|name| format!("net/{family}/neigh/default/{name}")));
        paths
            .as_flattened()
            .iter()
            .map(|path| Self::new(path, entries))
            .collect()
    }

    /// Socket buffers for bursts of UDP.
    pub(crate) fn buffers() -> Vec<Self> {
        ["net/core/rmem_max", "net/core/wmem_max"]
            .map(|path| Self::new(path, 4 << 20))
            .into()
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some((path, found)) = self.0.take() {
            let _ = std::fs::write(path, found);
        }
    }
}

/// Where and when something was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) processors: usize,
    pub(crate) processor: String,
    pub(crate) kernel: String,
    pub(crate) commit: String,
    pub(crate) load_at_start: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let machine = Self {
            date: said("date", &["-u", "+%Y-%m-%d %H:%M"]),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            processor: model.map_or_else(
                || std::env::consts::ARCH.to_owned(),
                |(_, name)| name.to_owned(),
            ),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit: said(
                "git",
                &[
                    "-C",
                    env!("CARGO_MANIFEST_DIR"),
                    "describe",
                    "--always",
                    "--dirty",
                ],
            ),
            load_at_start: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
        };
        if machine
            .load_at_start
            .parse::<f64>()
            .is_ok_and(|load| load > 0.5)
        {
            eprintln!(
                "this machine does other things as well: load {}",
                machine.load_at_start
            );
        }
        machine
    }

    /// One line for a report.
    pub(crate) fn words(&self) -> String {
        format!(
            "{} UTC · {}, {} processors · Linux {} · commit {} · load at the start {}",
            self.date,
            self.processor,
            self.processors,
            self.kernel,
            self.commit,
            self.load_at_start
        )
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// A setting of a measurement, from the environment.
pub(crate) fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} makes no sense")),
        Err(_) => default,
    }
}

/// Settings that are lists: words with spaces between.
pub(crate) fn settings<T: std::str::FromStr>(name: &str, default: &str) -> Vec<T> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let word = |word: &str| {
        word.parse()
            .unwrap_or_else(|_| panic!("{name}={text} makes no sense"))
    };
    text.split_whitespace().map(word).collect()
}

/// Processor time of a process so far, user and system, in seconds.
pub(crate) fn processor_time(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may have spaces; it ends with the last bracket.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / TICKS
}

/// Resident memory of a process, in kB.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok())
        .unwrap_or(0)
}

/// USER_HZ, which is 100 wherever Linux has a stable interface.
const TICKS: f64 = 100.0;
const ANSWER: Duration = Duration::from_secs(20);
const START: Duration = Duration::from_secs(180);
