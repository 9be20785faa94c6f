//! The controller under test: a real `meshd` in a process of its own, with a state directory that outlives kills.
//! Its processor time and memory are read from `/proc`.

use anyhow::{Context as _, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::{DirBuilder, File, OpenOptions};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tests::harness::now;
use tests::harness::programs::program;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::sleep;
use wire::Token;
use wire::admin::{EpochChange, TokenCreated};

/// A controller; killed when it is dropped.
pub(crate) struct Controller {
    child: Option<Child>,
    folder: TempDir,
    /// Where it serves nodes; the same after each start.
    pub(crate) address: SocketAddr,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) now: u64,
    /// The most that was resident since the process began.
    pub(crate) peak: u64,
}

impl Controller {
    /// Founds a mesh and starts its controller. The settings are the product's, except that an epoch is so long.
    pub(crate) async fn found(epoch_seconds: u64) -> anyhow::Result<Self> {
        // Beside the programs and not in /tmp, which may be no disk at all.
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(parent)?;
        let folder = tempfile::tempdir_in(parent)?;
        let free = UdpSocket::bind("127.0.0.1:0")?;
        let address = free.local_addr()?;
        drop(free);
        let mut controller = Self {
            child: None,
            folder,
            address,
        };
        DirBuilder::new().mode(0o700).create(controller.state())?;
        let settings = format!(
            "role = \"controller\"\nstate_dir = {:?}\nsocket = {:?}\nlisten = \"{address}\"\n\
             epoch_seconds = {epoch_seconds}\nlog_level = \"warn\"\n",
            controller.state(),
            controller.socket(),
        );
        std::fs::write(controller.config(), settings)?;
        controller.start().await?;
        Ok(controller)
    }

    /// Starts it over the state that it has; returns when it answers operators.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        let deadline = now() + START;
        loop {
            if UnixStream::connect(self.socket()).await.is_ok() {
                return Ok(());
            }
            let child = self.child.as_mut().context("it was started")?;
            if let Some(status) = child.try_wait()? {
                bail!("meshd ended with {status}: {}", self.said());
            }
            ensure!(now() < deadline, "meshd does not serve: {}", self.said());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts it and does not wait.
    fn spawn(&mut self) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(self.socket());
        let mut options = OpenOptions::new();
        let output = options.create(true).append(true).open(self.log())?;
        let output: File = output;
        let child = Command::new(program("meshd"))
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("meshd does not start")?;
        self.child = Some(child);
        Ok(())
    }

    /// Ends it with SIGKILL, as a machine that loses its power does.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// The end of all that it has said.
    pub(crate) fn said(&self) -> String {
        let said = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The processor time that its process has used, of user and kernel, to 10 ms.
    pub(crate) fn used(&self) -> Duration {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The second field is the name in brackets; the times are the 12th and 13th after it, in hundredths of a
        // second.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks = fields
            .skip(11)
            .take(2)
            .filter_map(|it| it.parse::<u64>().ok());
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.unwrap_or_default() << 10
        };
        Memory {
            now: field("VmRSS:"),
            peak: field("VmHWM:"),
        }
    }

    /// A token with which so many nodes may enrol.
    pub(crate) async fn token(&self, uses: usize) -> anyhow::Result<Token> {
        let body = format!("{{\"uses\": {uses}, \"ttl_seconds\": 86400}}");
        let created: TokenCreated = self.post("/v1/tokens", &body).await?;
        Ok(created.token.parse()?)
    }

    /// Publishes an epoch that begins at once.
    pub(crate) async fn rotate(&self) -> anyhow::Result<EpochChange> {
        self.post("/v1/epoch/rotate", "{\"now\": true}").await
    }

    /// Evicts nodes by one order.
    pub(crate) async fn evict(&self, names: &[&str]) -> anyhow::Result<EpochChange> {
        let body = serde_json::json!({ "nodes": names });
        self.post("/v1/evictions", &body.to_string()).await
    }

    /// Removes a node for good.
    pub(crate) async fn remove(&self, name: &str) -> anyhow::Result<EpochChange> {
        self.post(&format!("/v1/nodes/{name}/remove"), "{}").await
    }

    /// Number and members of the epoch in force.
    pub(crate) async fn epoch(&self) -> anyhow::Result<(u64, u64)> {
        let status: Value = ask(&self.socket(), "GET", "/v1/status", "").await?;
        let epoch = status.get("epoch").context("a status has an epoch")?;
        let field = |name: &str| epoch.get(name).and_then(Value::as_u64).unwrap_or_default();
        Ok((field("id"), field("members")))
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &str) -> anyhow::Result<T> {
        ask(&self.socket(), "POST", path, body).await
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("controller.toml")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("meshd.log")
    }
}

/// One request to the admin socket.
async fn ask<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
) -> anyhow::Result<T> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: meshd\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer has a head")?;
    ensure!(
        head.starts_with("HTTP/1.1 2"),
        "{method} {path}: {}: {body}",
        head.lines().next().unwrap_or_default()
    );
    let head = head.to_ascii_lowercase();
    ensure!(!head.contains("transfer-encoding"), "an answer in chunks");
    Ok(serde_json::from_str(body)?)
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It ends with the benchmark, whatever became of it.
        let _ = self.kill();
    }
}

const START: Duration = Duration::from_secs(60);
