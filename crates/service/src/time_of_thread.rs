//! The processor time of a thread, as `/proc` has it.

use std::path::PathBuf;
use std::time::Duration;

/// The way to a thread's processor time.
#[derive(Debug)]
pub(crate) struct TimeOfThread(PathBuf);

impl TimeOfThread {
    /// That of the thread that asks; `None` without `/proc`.
    pub(crate) fn of_this_one() -> Option<Self> {
        let thread = rustix::thread::gettid().as_raw_nonzero();
        // Its own /proc would have another number in a namespace of processes.
        let own = std::fs::read_link("/proc/thread-self").ok()?;
        let is_same = own.file_name()?.to_str()? == thread.to_string();
        let path = PathBuf::from("/proc").join(own).join("schedstat");
        is_same.then_some(Self(path))
    }

    /// The time that it has used so far; `None` when the thread is gone.
    pub(crate) fn read(&self) -> Option<Duration> {
        // The first number counts nanoseconds on a processor.
        let text = std::fs::read_to_string(&self.0).ok()?;
        let first = text.split(' ').next()?.parse().ok()?;
        Some(Duration::from_nanos(first))
    }
}
