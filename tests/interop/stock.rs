//! One run of a WireGuard program that knows nothing of meshd.

use crate::START;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tests::harness::{self, Mesh, poll};

/// A running program with its interface.
pub(crate) struct Stock {
    child: Child,
    started: Instant,
    interface: String,
    namespace: String,
    host: String,
    program: String,
    arguments: Vec<String>,
}

impl Stock {
    /// Starts `program` in the namespace of `host` and waits for its interface and its socket.
    pub(crate) fn start(mesh: &Mesh, host: &str, program: &str, arguments: &[&str]) -> Self {
        // The socket's path has no namespace in it: the name has to be nobody else's.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let interface = format!("st{}x{n}", std::process::id() % 1_000_000);
        let log = mesh.folder().join(format!("{interface}.log"));
        let log = File::create(log).expect("the folder can be written");
        let also = log.try_clone().expect("a file can be shared");
        let mut command = mesh.command(host, program);
        command.args(arguments).arg(&interface);
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(also)
            .spawn();
        let mut stock = Self {
            child: child.expect("the tests need `ip` (iproute2)"),
            started: harness::now(),
            interface,
            namespace: mesh.namespace(host).name().to_owned(),
            host: host.to_owned(),
            program: program.to_owned(),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
        };
        let up = poll(START, || {
            stock.wg(&["show", &stock.interface]).is_some() || stock.ended()
        });
        assert!(
            up && !stock.ended(),
            "{program} does not start, {:?}: {}",
            stock.child.try_wait(),
            stock.log(mesh)
        );
        stock
    }

    /// Ends it and starts it anew, without any configuration.
    pub(crate) fn restart(mut self, mesh: &Mesh) -> Self {
        self.end();
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        Self::start(mesh, &self.host, &self.program, &arguments)
    }

    /// Applies a wg-quick configuration the way that wg-quick does, towards the addresses `peer`.
    pub(crate) fn configure(&self, config: &str, peer: &[IpAddr]) {
        let quick = |line: &&str| line.starts_with("Address") || line.starts_with("MTU");
        let stripped: String =
            config
                .lines()
                .filter(|line| !quick(line))
                .fold(String::new(), |mut text, line| {
                    text.push_str(line);
                    text.push('\n');
                    text
                });
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(stripped.as_bytes())
            .expect("it can be written");
        let path = file.path().display().to_string();
        assert!(
            self.wg(&["setconf", &self.interface, &path]).is_some(),
            "wg setconf fails"
        );
        let value = |key: &str| {
            let line = config.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.trim().strip_prefix('='))
                .expect("the export has it")
                .trim()
        };
        let device = &self.interface;
        for address in value("Address").split(',') {
            let at_once = if address.contains(':') { " nodad" } else { "" };
            self.ip(&format!(
                "addr add {} dev {device}{at_once}",
                address.trim()
            ));
        }
        self.ip(&format!("link set {device} mtu {} up", value("MTU")));
        for address in peer {
            self.ip(&format!("route add {address} dev {device}"));
        }
    }

    /// Time since it was started.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// `wg` inside the namespace; nothing if it fails.
    fn wg(&self, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "wg"])
            .args(arguments);
        let output = command.output().expect("the tests need `ip` (iproute2)");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    fn ip(&self, arguments: &str) {
        let mut command = Command::new("ip");
        command
            .args(["-n", &self.namespace])
            .args(arguments.split(' '));
        let output = command.output().expect("the tests need `ip` (iproute2)");
        assert!(output.status.success(), "ip {arguments}: {output:?}");
    }

    fn log(&self, mesh: &Mesh) -> String {
        let path = mesh.folder().join(format!("{}.log", self.interface));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// SIGTERM, so that it removes its socket and its interface.
    fn end(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if !poll(START, || self.ended()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for folder in ["/var/run/wireguard", "/run/wireguard"] {
            let _ =
                std::fs::remove_file(Path::new(folder).join(format!("{}.sock", self.interface)));
        }
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.end();
    }
}

/// Fails with the way to get it if `program` is not there.
pub(crate) fn require(program: &str) {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    });
    assert!(
        found,
        "{program} is missing: `tests/tools {program}` installs it or says how"
    );
}
