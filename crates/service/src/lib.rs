//! The service manager, as a daemon sees it: it is told when the daemon serves, what it does, and that it still
//! turns, by the protocol of sd_notify(3). Without a manager nothing is told to anybody. Never waits, and never
//! fails: a word that the manager does not take is said again with the next turn.
//!
//! The beat shows that the role's loop turns. A loop that waits for a disk does not turn, and is left alone all
//! the same: a new process would wait for the same disk, and would have lost the connections of the old one. Such a
//! loop is told from one that is stuck by the processor time that its thread has used ([`Loop`]).

mod time_of_thread;

use rustix::time::{ClockId, clock_gettime};
use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use time_of_thread::TimeOfThread;

/// The way to the service manager; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Service(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    manager: Option<Manager>,
    turns: AtomicU64,
    thread: Mutex<Option<TimeOfThread>>,
    told: Mutex<Told>,
    has_failed: AtomicBool,
}

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    at: SocketAddr,
    /// The manager restarts a daemon that it has not heard for so long.
    watchdog: Option<Duration>,
}

/// The words, and whether the manager has taken them.
#[derive(Debug, Default)]
struct Told {
    state: &'static str,
    standing: String,
    is_pending: bool,
    /// Turns and processor time at the last beat.
    turns: u64,
    time: Option<Duration>,
}

/// How the thread of the role's loop is judged when the loop has not turned since the last beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// Nothing in it may wait for a disk: it is stuck.
    NeverWaits,
    /// It may wait for a disk: it is stuck only if its thread has computed for half of the time.
    MayWait,
}

impl Service {
    /// The manager that the environment names: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`. One that cannot be
    /// told anything is named once in the log, and is none.
    #[must_use]
    pub fn of_environment(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let Some(at) = get("NOTIFY_SOCKET").filter(|at| !at.is_empty()) else {
            return Self::default();
        };
        let number = |name: &str| get(name)?.to_str()?.parse::<u64>().ok();
        let is_other = |pid| pid != u64::from(std::process::id());
        let is_for_another = number("WATCHDOG_PID").is_some_and(is_other);
        let watchdog = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && !is_for_another);
        let opened = address(&at).and_then(|at| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(Manager {
                socket,
                at,
                watchdog: watchdog.map(Duration::from_micros),
            })
        });
        match opened {
            Ok(manager) => Self(Arc::new(Inner {
                manager: Some(manager),
                ..Inner::default()
            })),
            Err(error) => {
                tracing::warn!(%error, "the service manager's socket (NOTIFY_SOCKET) cannot be used");
                Self::default()
            }
        }
    }

    /// The daemon serves.
    pub fn ready(&self) {
        self.tell(READY);
    }

    /// The daemon reads its settings again, until [`Self::reloaded`]. Before it serves, that is no news.
    pub fn reloading(&self) {
        if self.told().state != READY {
            return;
        }
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let micros = seconds * 1_000_000 + u64::try_from(now.tv_nsec / 1000).unwrap_or_default();
        // Of a moment: it is not said again.
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
    }

    /// The daemon has read its settings again.
    pub fn reloaded(&self) {
        let mut told = self.told();
        told.is_pending |= !told.state.is_empty();
        self.say_pending(&mut told);
    }

    /// The daemon was told to stop.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    /// The work that it does now, in one line; told if it is another than before.
    pub fn standing(&self, line: String) {
        if self.0.manager.is_none() {
            return;
        }
        let mut told = self.told();
        if told.standing != line {
            told.standing = line;
            told.is_pending = true;
        }
        self.say_pending(&mut told);
    }

    /// The role's loop has turned. To be called by the thread of the loop.
    pub fn turned(&self) {
        let Some(manager) = &self.0.manager else {
            return;
        };
        let before = self.0.turns.fetch_add(1, Ordering::Relaxed);
        if manager.watchdog.is_some() && before == 0 {
            *lock(&self.0.thread) = TimeOfThread::of_this_one();
        }
    }

    /// How often [`Self::beat`] is to be called; `None`: nobody waits for a beat.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        let watchdog = self.0.manager.as_ref()?.watchdog?;
        Some(watchdog / 2)
    }

    /// Tells the manager that the daemon lives, unless the role's loop is stuck. Whether it did.
    pub fn beat(&self, of: Loop) -> bool {
        let turns = self.0.turns.load(Ordering::Relaxed);
        let time = lock(&self.0.thread).as_ref().and_then(TimeOfThread::read);
        let pause = self.pause().unwrap_or_default();
        let mut told = self.told();
        let has_turned = turns != told.turns;
        let computed = time
            .zip(told.time)
            .map(|(now, then)| now.saturating_sub(then));
        let waits = of == Loop::MayWait && computed.is_some_and(|it| it < pause / 2);
        told.turns = turns;
        told.time = time;
        self.say_pending(&mut told);
        drop(told);
        let lives = has_turned || waits;
        if lives {
            self.send("WATCHDOG=1\n");
        }
        lives
    }

    fn tell(&self, state: &'static str) {
        if self.0.manager.is_some() {
            let mut told = self.told();
            told.state = state;
            told.is_pending = true;
            self.say_pending(&mut told);
        }
    }

    /// State and standing together: the order in which they are read does not matter then.
    fn say_pending(&self, told: &mut Told) {
        if told.is_pending {
            let line = told.standing.replace('\n', " ");
            let standing = if line.is_empty() {
                line
            } else {
                format!("STATUS={line}\n")
            };
            told.is_pending = !self.send(&format!("{}{standing}", told.state));
        }
    }

    /// Whether the manager has taken it.
    fn send(&self, words: &str) -> bool {
        let Some(manager) = self.0.manager.as_ref().filter(|_| !words.is_empty()) else {
            return true;
        };
        match manager.socket.send_to_addr(words.as_bytes(), &manager.at) {
            Ok(_) => true,
            Err(error) => {
                if !self.0.has_failed.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) does not take what it is told; trying on");
                }
                false
            }
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.0.told)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path, or a name in the abstract namespace with `@` in place of its zero byte.
fn address(at: &OsStr) -> std::io::Result<SocketAddr> {
    match at.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(at),
    }
}

/// Whether standard error is the journal, which notes the time of each line itself: `JOURNAL_STREAM` is
/// `DEVICE:INODE` of it, and is inherited by programs that write elsewhere.
#[must_use]
pub fn is_journal(journal_stream: Option<&OsStr>) -> bool {
    let named = journal_stream.and_then(OsStr::to_str);
    let own = rustix::fs::fstat(rustix::stdio::stderr());
    named
        .zip(own.ok())
        .is_some_and(|(named, own)| named == format!("{}:{}", own.st_dev, own.st_ino))
}

/// The variables of this protocol, which no child of the daemon is to have.
pub const VARIABLES: [&str; 4] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "JOURNAL_STREAM",
];

const READY: &str = "READY=1\n";

#[cfg(test)]
mod tests;
