//! Captures of an interface, by Wireshark's `dumpcap`, read by its `tshark`: what it makes of
//! a packet shares no code with the product.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tests::harness::{Mesh, poll, poll_every};

/// A capture that runs until it is stopped or dropped.
pub(crate) struct Capture {
    child: Child,
    path: PathBuf,
    log: PathBuf,
}

/// A capture that has ended.
pub(crate) struct Captured(PathBuf);

/// The verdicts on the checksums of one kind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Checked {
    pub(crate) right: usize,
    pub(crate) wrong: usize,
    pub(crate) unknown: usize,
}

impl Capture {
    /// Captures what passes `filter` on an interface of `host`; returns when it is about to.
    pub(crate) fn start(mesh: &Mesh, host: &str, interface: &str, filter: &str) -> Self {
        let path = mesh.folder().join(format!("{host}-{interface}.pcapng"));
        let log = path.with_extension("log");
        let _ = std::fs::remove_file(&path);
        let file = std::fs::File::create(&log).expect("the folder can be written");
        let mut command = mesh.command(host, "dumpcap");
        // The hour is for a test binary that is killed; the buffer, of 256 MiB, for a slow disk.
        command.args(["-q", "-a", "duration:3600", "-B", "256", "-i", interface]);
        command.args(["-f", filter, "-w"]).arg(&path);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = child.stderr(file).spawn();
        let capture = Self {
            child: child.expect("the tests need `ip` (iproute2)"),
            path,
            log,
        };
        let started = poll(PATIENCE, || capture.said().contains("File: "));
        assert!(started, "dumpcap (tshark) is needed: {}", capture.said());
        capture
    }

    /// Ends it, once everything that passed is in the file: while the kernel has more for dumpcap, it
    /// is not at rest.
    pub(crate) fn stop(mut self) -> Captured {
        let (mut size, mut at_rest) = (0, 0);
        let taken = poll_every(LOOK, PATIENCE, || {
            let before = std::mem::replace(&mut size, self.size());
            at_rest = if self.sleeps() && size == before {
                at_rest + 1
            } else {
                0
            };
            at_rest > LOOKS
        });
        assert!(taken, "dumpcap never comes to rest");
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "dumpcap: {}", self.said());
        let said = self.said();
        let dropped = said.lines().find(|line| line.contains("dropped on"));
        assert!(
            dropped.is_some_and(|line| line.contains("/0 (")),
            "packets that were not captured: {said}"
        );
        Captured(self.path.clone())
    }

    /// Bytes of the file so far; dumpcap writes twice a second.
    fn size(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |it| it.len())
    }

    /// Whether dumpcap waits for packets.
    fn sleeps(&self) -> bool {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('S'))
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Captured {
    /// Bytes of each frame.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        let frames = self.fields(&["frame.len"]);
        let lengths = frames.iter().map(|frame| frame[0].parse());
        lengths
            .map(|len| len.expect("a length is a number"))
            .collect()
    }

    /// The verdicts of tshark on every checksum there is.
    pub(crate) fn checksums(&self) -> BTreeMap<&'static str, Checked> {
        let mut kinds: BTreeMap<&str, Checked> = BTreeMap::new();
        let names = ["ip", "tcp", "udp"].map(|protocol| format!("{protocol}.checksum.status"));
        for frame in self.fields(&names) {
            let is_v4 = !frame[0].is_empty();
            let of = |v4, v6| if is_v4 { v4 } else { v6 };
            for (kind, status) in [
                ("IPv4 header", &frame[0]),
                (of("TCP over IPv4", "TCP over IPv6"), &frame[1]),
                (of("UDP over IPv4", "UDP over IPv6"), &frame[2]),
            ] {
                let kind = kinds.entry(kind);
                match status.as_str() {
                    "" => continue,
                    "1" | "Good" => kind.or_default().right += 1,
                    "0" | "Bad" => kind.or_default().wrong += 1,
                    _ => kind.or_default().unknown += 1,
                }
            }
        }
        kinds
    }

    /// Fields of every frame, by the names that tshark has for them.
    pub(crate) fn fields(&self, names: &[impl AsRef<str>]) -> Vec<Vec<String>> {
        let mut command = Command::new("tshark");
        command.arg("-n").arg("-r").arg(&self.0);
        for protocol in ["ip", "tcp", "udp"] {
            command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
        }
        command.args(["-o", "tcp.desegment_tcp_streams:FALSE", "-T", "fields"]);
        for name in names {
            command.args(["-e", name.as_ref()]);
        }
        let output = command.output().expect("the tests need `tshark`");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tshark: {said}");
        let text = String::from_utf8_lossy(&output.stdout);
        let fields = |line: &str| line.split('\t').map(str::to_owned).collect();
        text.lines().map(fields).collect()
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// At rest for that long: twice what dumpcap takes to write.
const LOOKS: usize = 20;
