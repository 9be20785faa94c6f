//! A real controller, in a process of its own.

use crate::mesh::Mesh;
use anyhow::{Context as _, bail};
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tests::harness::poll;
use tests::harness::programs::program;

/// A running controller; killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Daemon {
    /// Starts one over the state of `mesh`.
    ///
    /// The settings are the product's, but for two. An epoch is longer than the measurement: with each, every node is
    /// sent the roster, and that has a benchmark of its own. Evidence counts as long, because it is signed before the
    /// clock runs.
    pub(crate) fn start(mesh: &Mesh, revoke: &str) -> anyhow::Result<Self> {
        let free = UdpSocket::bind("127.0.0.1:0")?;
        let address = free.local_addr()?;
        drop(free);
        let (socket, log) = (mesh.folder().join("sock"), mesh.folder().join("meshd.log"));
        let settings = format!(
            "role = \"controller\"\nstate_dir = {:?}\nsocket = {socket:?}\nlisten = \"{address}\"\n\
             epoch_seconds = 7200\nlease_seconds = 7200\nmax_benchmark_age = 7200\nrevoke = \"{revoke}\"\n\
             log_level = \"warn\"\n",
            mesh.state()
        );
        let config = mesh.folder().join("controller.toml");
        std::fs::write(&config, settings)?;
        let output = File::create(&log)?;
        let child = Command::new(program("meshd"))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("meshd does not start")?;
        let mut daemon = Self {
            child,
            log,
            address,
        };
        let is_up = poll(START, || {
            UnixStream::connect(&socket).is_ok() || daemon.has_ended()
        });
        if !is_up || daemon.has_ended() {
            bail!("meshd does not serve: {}", daemon.said());
        }
        Ok(daemon)
    }

    /// Everything that it has said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The processor time that it has used.
    pub(crate) fn used(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default();
        // The second field is the name in brackets; the times of user and kernel are the 12th and 13th after it, in
        // hundredths of a second.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks = fields
            .skip(11)
            .take(2)
            .filter_map(|it| it.parse::<u64>().ok());
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Stops it as an operator would.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        if !poll(START, || self.has_ended()) {
            bail!("meshd does not stop");
        }
        Ok(())
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.has_ended() {
            // It ends with the benchmark, whatever became of it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

const START: Duration = Duration::from_secs(60);
