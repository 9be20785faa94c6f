//! Pings through the mesh: one at a time, or a steady stream whose losses are counted.

use super::namespace::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// Whether one echo request is answered within a second.
#[must_use]
pub fn once(from: &Namespace, to: IpAddr) -> bool {
    let mut command = from.command("ping");
    command.args(["-n", "-q", "-c", "1", "-W", "1", &to.to_string()]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.expect("the tests need `ping`").success()
}

/// A ping that goes on until it is stopped.
#[derive(Debug)]
pub struct Pinger {
    child: Child,
    path: PathBuf,
}

/// The fate of a [`Pinger`]'s requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Losses {
    /// Requests that were sent; the last one is not counted, as its answer may have been under way.
    pub sent: usize,
    /// Requests that were not answered.
    pub lost: usize,
    /// Answers beyond the first one to a request.
    pub again: usize,
}

impl Pinger {
    /// Five pings a second.
    ///
    /// # Panics
    /// When `ping` cannot be started.
    pub fn start(from: &Namespace, to: IpAddr, folder: &Path) -> Self {
        Self::start_with(from, to, folder, "0.2", 56)
    }

    /// A ping every so many seconds, with so many bytes.
    ///
    /// # Panics
    /// When `ping` cannot be started.
    pub fn start_with(
        from: &Namespace,
        to: IpAddr,
        folder: &Path,
        every: &str,
        bytes: usize,
    ) -> Self {
        let path = folder.join(format!("{}-to-{to}.ping", from.name()));
        let bytes = bytes.to_string();
        let file = File::create(&path).expect("the folder can be written");
        let mut command = from.command("ping");
        // The hour is for a test binary that is killed.
        let to = to.to_string();
        command.args(["-n", "-i", every, "-s", &bytes, "-w", "3600", &to]);
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null());
        Self {
            child: child.spawn().expect("the tests need `ping`"),
            path,
        }
    }

    /// Answers so far.
    #[must_use]
    pub fn answered(&self) -> usize {
        answers(&self.text()).len()
    }

    /// Stops it and counts.
    ///
    /// # Panics
    /// When ping's words are not understood.
    #[must_use]
    pub fn stop(mut self) -> Losses {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let _ = self.child.wait();
        let text = self.text();
        let transmitted = text
            .lines()
            .find_map(|line| line.split_once(" packets transmitted")?.0.parse().ok());
        let transmitted: usize = transmitted.unwrap_or_else(|| panic!("ping said: {text}"));
        let sent = transmitted.saturating_sub(1);
        let answers = answers(&text);
        let lost = (1..=sent).filter(|seq| !answers.contains(seq)).count();
        let again = text.lines().filter(|line| line.contains("(DUP!)")).count();
        Losses { sent, lost, again }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap_or_default()
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sequence numbers of the answers.
fn answers(text: &str) -> BTreeSet<usize> {
    let lines = text.lines().filter(|line| line.contains(" time="));
    lines
        .filter_map(|line| {
            let rest = line.split_once("icmp_seq=")?.1;
            rest.split_once(' ')?.0.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_from_an_error() {
        let text = "64 bytes from 10.76.0.2: icmp_seq=1 ttl=64 time=0.7 ms\n\
                    From 10.76.0.1 icmp_seq=2 Destination Host Unreachable\n\
                    64 bytes from 10.76.0.2: icmp_seq=3 ttl=64 time=0.6 ms (DUP!)\n";
        assert_eq!(answers(text), BTreeSet::from([1, 3]));
    }
}
