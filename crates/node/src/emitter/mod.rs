//! Where a node's evidence comes from: a thread or a task that hands over one [`Emission`] after another.
//! Programs and files have a thread of their own, which may wait for a disk: nothing waits for it.
//!
//! | File | Holds |
//! |---|---|
//! | [`command`], [`children`], [`user`] | a program that is run, all that comes of it, and the user that it runs as |
//! | [`files`], [`folder`] | a file, or the newest ones of a folder |
//! | [`reading`] | what was printed or written, to runs |
//! | [`health`] | whether the benchmark works |
//! | [`mock`] | drawn scores |

mod children;
mod command;
mod error;
mod files;
mod folder;
mod health;
mod mock;
mod reading;
mod user;

pub(crate) use health::Health;
pub use reading::Reading;
pub use user::{BenchmarkUser, UserError};

use crate::io::clock;
use crate::io::rights::{self, Keep};
use agent::Emission;
use error::EmitError;
use health::Reporter;
use rand::Rng as _;
use rustix::event::{PollFd, PollFlags};
use std::io::{PipeReader, PipeWriter};
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Which emitter runs, and how.
#[derive(Debug, Clone, PartialEq)]
pub enum Emitter {
    /// None: an evaluator elsewhere vouches, or nobody.
    None,
    /// Draws scores around a mean; for labs and demonstrations.
    Mock {
        /// Mean of the overall score, 0 to 1.
        mean: f64,
        /// Greatest distance from the mean.
        jitter: f64,
    },
    /// Runs a program and reads a result from its standard output, or from its exit code.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// After this long the program is killed, with all that it started.
        timeout: Duration,
        /// The user that it runs as; `None`: the daemon's.
        user: Option<BenchmarkUser>,
        /// The form of its result.
        reading: Reading,
    },
    /// Reads a file whenever it changes.
    File {
        /// The file.
        path: PathBuf,
        /// Its form.
        reading: Reading,
    },
    /// Reads the newest finished file of each suite in a folder.
    Directory {
        /// The folder.
        path: PathBuf,
        /// The files' form.
        reading: Reading,
    },
}

impl Emitter {
    /// The user that a benchmark runs as, if that is not the daemon's.
    pub fn other_user(&self) -> Option<&BenchmarkUser> {
        match self {
            Self::Command { user, .. } => user.as_ref().filter(|user| !user.is_own()),
            Self::None | Self::Mock { .. } | Self::File { .. } | Self::Directory { .. } => None,
        }
    }

    /// The rights that it needs beside those of the node.
    #[must_use]
    pub fn rights(&self) -> Keep {
        match self.other_user() {
            Some(_) => Keep::BENCHMARK,
            None => Keep::NOTHING,
        }
    }
}

/// An emitter that runs.
#[derive(Debug, Default)]
pub(crate) struct Running(Option<Thread>);

#[derive(Debug)]
struct Thread {
    /// Dropped to end the thread.
    stop: PipeWriter,
    /// Its other end is dropped as the thread ends.
    ended: std::sync::mpsc::Receiver<()>,
}

impl Running {
    /// Ends the emitter and every process that came of it. Waits for a thread that waits for a disk no longer
    /// than [`STOP_TIME`].
    pub(crate) fn stop(self) {
        let Some(Thread { stop, ended }) = self.0 else {
            return;
        };
        drop(stop);
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(STOP_TIME) {
            tracing::warn!("the benchmark or its disk does not answer: it is left behind");
        }
    }
}

/// An emitter's thread's end of what it shares with the shell.
struct Desk {
    out: mpsc::Sender<Emission>,
    health: Reporter,
    /// Readable when the node stops.
    stop: PipeReader,
}

impl Desk {
    /// Hands emissions over; whether they are wanted.
    fn emit(&self, emissions: Vec<Emission>) -> bool {
        let mut emissions = emissions.into_iter();
        emissions.all(|emission| self.out.blocking_send(emission).is_ok())
    }

    /// Waits for so long; whether the node stops meanwhile.
    fn stops_within(&self, time: Duration) -> bool {
        let end = clock::boot().saturating_add(time);
        loop {
            let left = end.saturating_sub(clock::boot());
            let mut stop = [PollFd::new(&self.stop, PollFlags::IN)];
            let waited = command::wait_for(&mut stop, left);
            if waited.is_err() || !stop[0].revents().is_empty() {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }
}

/// The shell's ends of an emitter.
pub(crate) struct Emitting {
    /// To be stopped when the node is.
    pub(crate) running: Running,
    pub(crate) emissions: mpsc::Receiver<Emission>,
    pub(crate) health: watch::Receiver<Health>,
    /// Changes the mean of a mock; `None`: there is none.
    pub(crate) mock_mean: Option<watch::Sender<Option<f64>>>,
}

/// Runs `emitter` until the receiver is gone or it is stopped.
///
/// # Errors
/// When the system has no thread or pipe left.
pub(crate) fn start(emitter: Emitter, every: Duration) -> std::io::Result<Emitting> {
    let (out, emissions) = mpsc::channel(QUEUE);
    let (reporter, health) = Reporter::new();
    let (mock_mean, mean) = watch::channel(None);
    let mut has_mock = false;
    let keep = emitter.rights();
    let running = match emitter {
        Emitter::None => {
            tokio::spawn(async move { out.closed().await });
            Running::default()
        }
        Emitter::Mock {
            mean: initial,
            jitter,
        } => {
            has_mock = true;
            tokio::spawn(mock::run(initial, jitter, every, mean, out));
            Running::default()
        }
        Emitter::Command {
            argv,
            timeout,
            user,
            reading,
        } => {
            let program = command::Program {
                argv,
                every,
                limit: timeout,
                user,
                reading,
            };
            on_a_thread(keep, (out, reporter), move |desk| program.run(desk))?
        }
        Emitter::File { path, reading } => on_a_thread(keep, (out, reporter), move |desk| {
            files::run(&files::Place::File(path), &reading, desk);
        })?,
        Emitter::Directory { path, reading } => on_a_thread(keep, (out, reporter), move |desk| {
            files::run(&files::Place::Folder(path), &reading, desk);
        })?,
    };
    Ok(Emitting {
        running,
        emissions,
        health,
        mock_mean: has_mock.then_some(mock_mean),
    })
}

fn on_a_thread(
    keep: Keep,
    (out, health): (mpsc::Sender<Emission>, Reporter),
    work: impl FnOnce(&Desk) + Send + 'static,
) -> std::io::Result<Running> {
    let (stop_seen, stop) = std::io::pipe()?;
    let (ending, ended) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("meshd-emitter".to_owned());
    thread.spawn(move || {
        // A benchmark inherits what this thread has.
        rights::reduce(keep);
        work(&Desk {
            out,
            health,
            stop: stop_seen,
        });
        drop(ending);
    })?;
    Ok(Running(Some(Thread { stop, ended })))
}

/// 32 hex digits that no run of this node has had.
fn nonce() -> String {
    format!("{:032x}", rand_core::OsRng.r#gen::<u128>())
}

/// How long a stop waits for a thread that may be waiting for a disk.
const STOP_TIME: Duration = Duration::from_millis(1_300);
/// Emissions that wait for the shell.
const QUEUE: usize = 64;
