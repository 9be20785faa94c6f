//! Signals, heard by a thread of its own from before the first slow step on: whatever blocks elsewhere, this
//! process ends in time when it is told to.
//!
//! | Signal | Does |
//! |---|---|
//! | TERM, INT, QUIT | stop |
//! | HUP | take the settings over that can be, see [`reload`](crate::reload) |
//! | USR1, USR2 and all others that could end a process and say nothing to this one | nothing |
//!
//! They are caught rather than ignored, because a program that is started here inherits what is ignored.

use crate::socket::Socket;
use crate::stderr::StandardError;
use std::io;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The words that the process has been told so far.
#[derive(Debug, Clone)]
pub struct Told {
    stop: watch::Receiver<bool>,
}

impl Told {
    /// Resolves once the process has been told to stop.
    pub async fn to_stop(mut self) {
        // The thread that tells lives as long as the process.
        if self.stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending().await
        }
    }
}

/// The file that must not outlive the process, as soon as there is one; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Leftover(Arc<Mutex<Option<Socket>>>);

impl Leftover {
    /// From now on there is one.
    pub fn keep(&self, socket: Socket) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    }

    /// Removes it, if it is there still.
    pub fn remove(&self) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Only now: others need not wait for the file system.
        drop(taken);
    }
}

/// Hears signals from when this returns. `reload` gets a word for a HUP, of which one may wait. `before` is
/// the first act of the thread.
///
/// After the word to stop the process has [`LAST_RESORT`] to end by itself. Then `leftover` is removed, the
/// operator is told, and the process ends with [`FORCED`].
///
/// # Errors
/// When there is no thread to be had, or no signal.
pub fn hear(
    reload: SyncSender<()>,
    leftover: Leftover,
    stderr: StandardError,
    before: impl FnOnce() + Send + 'static,
) -> io::Result<Told> {
    let (ready, heard) = channel();
    let (stop, told) = watch::channel(false);
    let thread = std::thread::Builder::new().name("meshd-signals".into());
    thread.spawn(move || {
        before();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let listened = runtime.and_then(|it| it.block_on(listen(&ready, &stop, &reload)));
        match listened {
            Ok(()) => end(&leftover, &stderr),
            // A failure comes before it was ready.
            Err(error) => drop(ready.send(Err(error))),
        }
    })?;
    let gone = |_| Err(io::Error::other("the thread that hears signals has ended"));
    heard.recv().unwrap_or_else(gone)?;
    Ok(Told { stop: told })
}

/// Returns when the process should long have ended.
async fn listen(
    ready: &Sender<io::Result<()>>,
    stop: &watch::Sender<bool>,
    reload: &SyncSender<()>,
) -> io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hup = signal(SignalKind::hangup())?;
    for number in UNHEARD.into_iter().chain(REALTIME) {
        // Caught from now on for good. One that this system has not cannot be sent either.
        let _ = signal(SignalKind::from_raw(number));
    }
    // Nobody waits any more only when the process has ended.
    let _ = ready.send(Ok(()));
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = quit.recv() => break,
            // One that waits already is enough.
            _ = hup.recv() => drop(reload.try_send(())),
        }
    }
    stop.send_replace(true);
    tokio::time::sleep(LAST_RESORT).await;
    Ok(())
}

/// The last resort. The state on disk is made for an end at any moment, the interface goes with its
/// descriptor, and a firewall table keeps mesh addresses closed until the next start.
fn end(leftover: &Leftover, stderr: &StandardError) -> ! {
    let (leftover, (done, removed)) = (leftover.clone(), sync_channel::<()>(0));
    // On a thread, because the file system may be what did not let go.
    let removal = std::thread::Builder::new().spawn(move || {
        leftover.remove();
        drop(done);
    });
    if removal.is_ok() {
        let _ = removed.recv_timeout(LAST_WORDS);
    }
    stderr.say(format_args!(
        "meshd: told to stop, but something does not let go (a slow disk?): ended after {} s",
        LAST_RESORT.as_secs_f32()
    ));
    stderr.flush(LAST_WORDS);
    std::process::exit(FORCED.into())
}

/// How long the process may take to end by itself.
pub const LAST_RESORT: Duration = Duration::from_millis(1700);
/// Exit code of a process that had to be ended.
pub const FORCED: u8 = 4;
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Of signal(7), those that end a process unless caught and are no fault of its own: USR1, USR2, ALRM, STKFLT,
/// XFSZ (a file has grown to its limit: the write fails), VTALRM, PROF, IO, PWR. The standard library ignores
/// PIPE.
const UNHEARD: [i32; 9] = [10, 12, 14, 16, 25, 26, 27, 29, 30];
/// Those that are left after the C library has taken its own.
const REALTIME: std::ops::RangeInclusive<i32> = 34..=64;
