//! The processes of a benchmark: it starts in a process group of its own, and all that comes of it is ended
//! with its run. Touches no other process of this machine, and none that was there before the first run.

use super::BenchmarkUser;
use crate::io::clock;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, kill_process, kill_process_group, set_child_subreaper,
    waitpid,
};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// Starts benchmarks, one at a time, and ends what is left of them.
#[derive(Debug)]
pub(super) struct Children {
    /// When the first benchmark began, in the clock ticks of /proc: older processes are none of ours.
    since: Option<u64>,
    /// The user of benchmarks, if it is another than the daemon's.
    user: Option<u32>,
}

/// A benchmark that runs.
#[derive(Debug)]
pub(super) struct Leader {
    child: Child,
    ended: Option<ExitStatus>,
}

/// One process, as /proc shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    id: i32,
    parent: i32,
    group: i32,
    started: u64,
}

impl Children {
    /// From now on, processes that lose their parent and came of a benchmark become children of this process,
    /// wherever they have gone: otherwise they would be nobody's, and could not be told from others.
    pub(super) fn adopt(user: Option<&BenchmarkUser>) -> Self {
        if let Err(error) = set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::warn!(%error, "processes that leave a benchmark's group cannot be ended with it");
        }
        let user = user.filter(|user| !user.is_own());
        Self {
            since: None,
            user: user.map(BenchmarkUser::id),
        }
    }

    /// Starts a benchmark as the leader of a new group. It sets a mark in its environment.
    pub(super) fn start(&mut self, command: &mut Command) -> io::Result<Leader> {
        for name in service::VARIABLES {
            // The service manager's socket is this daemon's.
            command.env_remove(name);
        }
        let child = command.env(MARK.0, MARK.1).process_group(0).spawn()?;
        let leader = Leader { child, ended: None };
        if self.since.is_none() {
            let started = Process::read(leader.id()).map(|process| process.started);
            self.since = started;
        }
        Ok(leader)
    }

    /// Ends a benchmark and all that came of it, and leaves no zombie. Gives up after a second: a process that
    /// waits for a dead disk does not die, and the end of the next run finds it again.
    pub(super) fn end(&self, mut leader: Leader) {
        let (begun, mut pause) = (clock::boot(), Duration::from_millis(1));
        // At once, before any of them can start another.
        if let Some(group) = Pid::from_raw(leader.id()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        loop {
            let is_over = !matches!(leader.ended(), Ok(None));
            let strays = self.strays(leader.id());
            for stray in strays.iter().filter_map(|id| Pid::from_raw(*id)) {
                let _ = kill_process(stray, Signal::KILL);
                // Of a process that is no child of ours this is an error; it becomes one as its parent dies.
                if stray.as_raw_nonzero().get() != leader.id() {
                    let _ = waitpid(Some(stray), WaitOptions::NOHANG);
                }
            }
            if is_over && strays.is_empty() {
                return;
            }
            if clock::boot().saturating_sub(begun) > PATIENCE {
                let left = strays.len().max(1);
                return tracing::warn!(left, "processes of the benchmark do not end when killed");
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The processes that came of benchmarks: children of ours in other groups than our own, and what came of
    /// those. Programs that the daemon runs for itself are in its own group.
    fn strays(&self, leader: i32) -> BTreeSet<i32> {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        // A /proc of another namespace has other numbers.
        let is_ours =
            std::fs::read_link("/proc/self").is_ok_and(|it| it.as_os_str() == &*own.to_string());
        let Some(since) = self.since.filter(|_| is_ours) else {
            return BTreeSet::new();
        };
        let group = getpgrp().as_raw_nonzero().get();
        let all = Process::all();
        let is_root = |it: &Process| {
            let could_be = it.parent == own && it.group != group && it.started >= since;
            // The first process of a container inherits every orphan there, of whatever it came.
            let is_known = || is_marked(it.id) || self.is_of_user(it.id);
            could_be && (own != 1 || it.group == leader || is_known())
        };
        let mut found: BTreeSet<i32> = all
            .iter()
            .filter(|it| is_root(it))
            .map(|it| it.id)
            .collect();
        loop {
            let before = found.len();
            let more = all.iter().filter(|it| found.contains(&it.parent));
            let more: Vec<i32> = more.map(|it| it.id).collect();
            found.extend(more);
            if found.len() == before {
                return found;
            }
        }
    }
}

impl Children {
    /// Whether a process is of the benchmark's user, whose environment the daemon cannot read.
    fn is_of_user(&self, id: i32) -> bool {
        let owner = std::fs::metadata(format!("/proc/{id}")).map(|meta| meta.uid());
        self.user
            .is_some_and(|user| owner.is_ok_and(|it| it == user))
    }
}

impl Leader {
    /// Its standard output.
    pub(super) fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// A descriptor that is readable when it has ended; kernels before 5.3 have none.
    pub(super) fn descriptor(&self) -> Result<std::os::fd::OwnedFd, Errno> {
        let flags = rustix::process::PidfdFlags::empty();
        rustix::process::pidfd_open(Pid::from_child(&self.child), flags)
    }

    fn id(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_nonzero().get()
    }
}

impl Process {
    fn all() -> Vec<Self> {
        let folder = std::fs::read_dir("/proc").into_iter().flatten();
        let names = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        names.filter_map(Self::read).collect()
    }

    fn read(id: i32) -> Option<Self> {
        Self::parse(
            id,
            &std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?,
        )
    }

    /// Reads proc_pid_stat(5). The name of the program may hold anything, brackets and spaces too.
    fn parse(id: i32, stat: &str) -> Option<Self> {
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
        let _state = fields.next()?;
        Some(Self {
            id,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            started: fields.nth(16)?.parse().ok()?,
        })
    }
}

/// Whether a process has inherited the mark of a benchmark.
fn is_marked(id: i32) -> bool {
    let mark = format!("{}={}", MARK.0, MARK.1);
    let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
    environment
        .split(|byte| *byte == 0)
        .any(|it| it == mark.as_bytes())
}

/// In the environment of every benchmark.
const MARK: (&str, &str) = ("BENCHMARK_OF", "meshd");
const PATIENCE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_program_is_called() {
        let rest = "S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1000 20";
        let expected = Process {
            id: 42,
            parent: 7,
            group: 8,
            started: 4711,
        };
        for name in ["sh", "a b", ") R 1 1 (", "", "((("] {
            let stat = format!("42 ({name}) {rest}");
            assert_eq!(Process::parse(42, &stat), Some(expected), "{name}");
        }
        assert_eq!(Process::parse(42, "42 (sh) S 7"), None);
        let own = i32::try_from(std::process::id()).unwrap();
        let read = Process::read(own).unwrap();
        assert_eq!(read.group, getpgrp().as_raw_nonzero().get());
        assert!(Process::all().contains(&read));
    }
}
