//! Standard error, written by one thread alone: whoever speaks puts a line into a bounded queue and goes on,
//! whatever becomes of it. Loses lines rather than hold anybody up, and says how many as soon as lines are
//! taken again.
//!
//! A pipe that nobody reads blocks its writer for ever, one without a reader and a full disk refuse it. None of
//! that may reach a thread that carries packets or epochs, so nothing else in this process writes to standard
//! error: not the log, not a panic, not an error at the start.
//!
//! `tracing-appender` has such a queue, but bounds no bytes, forgets lines that could not be written, and says
//! nothing of those that it lost.

use crate::settings::LogFormat;
use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use wire::visible;

/// The way to standard error; clones share it.
#[derive(Debug, Clone)]
pub struct StandardError {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write.
    filled: Condvar,
    /// Everything has been written, or given up.
    emptied: Condvar,
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Of all lines in it.
    bytes: usize,
    /// Whether the thread holds an entry that it has not done with.
    is_writing: bool,
    format: LogFormat,
    /// Text has no time: its reader notes it.
    is_journal: bool,
}

#[derive(Debug)]
enum Entry {
    /// With its line feed.
    Line(Vec<u8>),
    /// So many lines would have been here.
    Lost(u64),
}

impl StandardError {
    /// Starts the thread that writes; `before` is its first act.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(before: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Self::to(rustix::stdio::stderr(), before)
    }

    /// The same, to another place.
    fn to(to: impl Sink, before: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            to,
            lost: 0,
            is_torn: false,
        };
        let thread = std::thread::Builder::new().name("meshd-log".into());
        thread.spawn(move || {
            before();
            writer.run();
        })?;
        Ok(Self { shared })
    }

    /// Has a line written, which ends with a line feed. At once, and never an error: a line that does not fit
    /// is lost, and counted.
    pub fn put(&self, line: Vec<u8>) {
        let mut queue = self.shared.queue();
        let fits = queue.entries.len() < MAX_LINES && queue.bytes + line.len() <= MAX_BYTES;
        if fits {
            queue.bytes += line.len();
            queue.entries.push_back(Entry::Line(line));
        } else {
            self.shared.lose(1);
            // Said where they would have been: the order of what is read is the order of what happened.
            match queue.entries.back_mut() {
                Some(Entry::Lost(count)) => *count += 1,
                Some(Entry::Line(_)) | None => queue.entries.push_back(Entry::Lost(1)),
            }
        }
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// Has a word to the operator written, as it is: for what is said before there is a log, and after.
    pub fn say(&self, words: impl Display) {
        self.put(format!("{words}\n").into_bytes());
    }

    /// Has panics written as lines of the log. The standard library would write them itself, and wait.
    pub fn take_panics(&self) {
        let to = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let words = format!("a thread panicked, which is a defect: {panic}");
            let format = to.shared.queue().looks();
            to.put(line(format, "ERROR", &words, None));
        }));
    }

    /// From now on lines of this module's own look like this; for the journal, without a time in text.
    pub fn set_format(&self, format: LogFormat, is_journal: bool) {
        let mut queue = self.shared.queue();
        queue.format = format;
        queue.is_journal = is_journal;
    }

    /// Waits until everything is written, but no longer than `limit`. Whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.entries.is_empty();
        let queue = self.shared.queue();
        let emptied = &self.shared.emptied;
        let waited = emptied.wait_timeout_while(queue, limit, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The count of lines that were lost, as it goes on.
    #[must_use]
    pub fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.lost)
    }
}

impl Queue {
    fn looks(&self) -> (LogFormat, bool) {
        (self.format, self.is_journal)
    }
}

impl Shared {
    /// Held for no longer than it takes to move a line.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }
}

/// A place to write to, as `write(2)` is.
trait Sink: Send + 'static {
    /// Takes some of it.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// Not through the standard library's handle: a thread that hangs in a write would hold its lock.
impl Sink for rustix::fd::BorrowedFd<'static> {
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(*self, bytes)?)
    }
}

/// The thread's own state.
struct Writer<S> {
    shared: Arc<Shared>,
    to: S,
    /// Lines that nobody has been told of.
    lost: u64,
    /// Whether the last thing that was taken is the beginning of a line.
    is_torn: bool,
}

impl<S: Sink> Writer<S> {
    /// Goes on until the process ends.
    fn run(&mut self) {
        loop {
            match self.next() {
                Some(Entry::Line(line)) => {
                    if !(self.say_lost() && self.write(&line)) {
                        self.shared.lose(1);
                        self.lost += 1;
                    }
                }
                Some(Entry::Lost(count)) => {
                    self.lost += count;
                    self.say_lost();
                }
                None => {
                    self.say_lost();
                }
            }
            self.shared.queue().is_writing = false;
            self.shared.emptied.notify_all();
        }
    }

    /// The next entry; `None` when there is none for a while, and something to be said all the same.
    fn next(&self) -> Option<Entry> {
        let is_empty = |queue: &mut Queue| queue.entries.is_empty();
        let (queue, filled) = (self.shared.queue(), &self.shared.filled);
        let mut queue = if self.lost == 0 {
            filled
                .wait_while(queue, is_empty)
                .unwrap_or_else(PoisonError::into_inner)
        } else {
            let waited = filled.wait_timeout_while(queue, RETRY, is_empty);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        let entry = queue.entries.pop_front();
        if let Some(Entry::Line(line)) = &entry {
            queue.bytes -= line.len();
        }
        queue.is_writing = entry.is_some();
        entry
    }

    /// Says how many lines were lost, if any were. Whether nothing is left to be said.
    fn say_lost(&mut self) -> bool {
        if self.lost == 0 {
            return true;
        }
        let format = self.shared.queue().looks();
        let notice = line(format, "WARN", LOST, Some(("lines", self.lost)));
        let said = self.write(&notice);
        if said {
            self.lost = 0;
        }
        said
    }

    /// Writes a line. Whether all of it was taken.
    fn write(&mut self, line: &[u8]) -> bool {
        if self.is_torn && !self.write_all(b"\n") {
            return false;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, mut rest: &[u8]) -> bool {
        while !rest.is_empty() {
            match self.to.take(rest) {
                Ok(0) => return false,
                Ok(taken) => {
                    rest = rest.get(taken..).unwrap_or_default();
                    self.is_torn = !rest.is_empty();
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    // Somebody made the pipe non-blocking.
                    ErrorKind::WouldBlock => std::thread::sleep(LOOK),
                    _ => return false,
                },
            }
        }
        true
    }
}

/// A line in the looks of the log, where the log itself cannot be used.
fn line(
    (format, is_journal): (LogFormat, bool),
    level: &str,
    message: &str,
    field: Option<(&str, u64)>,
) -> Vec<u8> {
    let mut time = String::new();
    // A clock that cannot be shown leaves a gap.
    let _ = SystemTime.format_time(&mut format::Writer::new(&mut time));
    let line = match format {
        LogFormat::Text => {
            let field = field.map_or_else(String::new, |(name, value)| format!(" {name}={value}"));
            let time = if is_journal {
                String::new()
            } else {
                time + " "
            };
            format!("{time}{level:>5} {}{field}\n", visible::line(message))
        }
        LogFormat::Json => {
            let mut object = serde_json::json!({
                "timestamp": time, "level": level, "message": message,
            });
            if let Some((name, value)) = field {
                object[name] = value.into();
            }
            format!("{}\n", visible::json(&object.to_string()))
        }
    };
    line.into_bytes()
}

/// The queue holds no more lines than this, …
const MAX_LINES: usize = 8192;
/// … and no more bytes.
const MAX_BYTES: usize = 2 << 20;
/// While nothing is written and lines were lost, it is tried this often whether that can be said.
const RETRY: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);
const LOST: &str = "log lines were lost: standard error did not take them";

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, Receiver, Sender};

    /// Asks the test what becomes of each write.
    struct Asking {
        asked: Sender<Vec<u8>>,
        answers: Receiver<io::Result<usize>>,
    }

    impl Sink for Asking {
        fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.asked.send(bytes.to_vec());
            // A test that is over leaves the thread where it is, as a stalled pipe does.
            self.answers.recv().unwrap_or_else(|_| {
                loop {
                    std::thread::park();
                }
            })
        }
    }

    struct Pipe {
        to: StandardError,
        writes: Receiver<Vec<u8>>,
        answers: Sender<io::Result<usize>>,
    }

    fn pipe() -> Pipe {
        let (asked, writes) = mpsc::channel();
        let (answers, given) = mpsc::channel();
        let sink = Asking {
            asked,
            answers: given,
        };
        let to = StandardError::to(sink, || {}).unwrap();
        Pipe {
            to,
            writes,
            answers,
        }
    }

    impl Pipe {
        /// The bytes that are being written.
        fn write(&self) -> String {
            let bytes = self.writes.recv_timeout(Duration::from_secs(60)).unwrap();
            String::from_utf8(bytes).unwrap()
        }

        fn take(&self) -> String {
            let line = self.write();
            self.answers.send(Ok(line.len())).unwrap();
            line
        }

        fn refuse(&self, kind: ErrorKind) -> String {
            let line = self.write();
            self.answers.send(Err(kind.into())).unwrap();
            line
        }
    }

    #[test]
    fn a_reader_that_stalls_holds_nobody_up_and_is_told_how_many_lines_it_missed() {
        let pipe = pipe();
        pipe.to.say("first");
        assert_eq!(pipe.write(), "first\n");
        // It hangs in that write.
        for number in 0..MAX_LINES + 10 {
            pipe.to.say(number);
        }
        assert!(!pipe.to.flush(Duration::from_millis(10)));
        assert_eq!(pipe.to.lost().load(Ordering::Relaxed), 10);
        pipe.answers.send(Ok(6)).unwrap();
        for number in 0..MAX_LINES {
            assert_eq!(pipe.take(), format!("{number}\n"));
        }
        let notice = pipe.take();
        assert!(
            notice.ends_with(
                " WARN log lines were lost: standard error did not take them lines=10\n"
            ),
            "{notice}"
        );
        pipe.to.say("last");
        assert_eq!(pipe.take(), "last\n");
        assert!(pipe.to.flush(Duration::from_secs(60)));
    }

    #[test]
    fn lines_are_bounded_in_bytes_too() {
        let pipe = pipe();
        pipe.to.say("first");
        pipe.write();
        let long = "x".repeat(MAX_BYTES / 4);
        for _ in 0..4 {
            pipe.to.say(&long);
        }
        // The fourth does not fit, but a short one does: it comes behind the word that one is missing.
        pipe.to.say("short");
        pipe.answers.send(Ok(6)).unwrap();
        for _ in 0..3 {
            assert_eq!(pipe.take().len(), long.len() + 1);
        }
        assert!(pipe.take().contains("lines=1\n"));
        assert_eq!(pipe.take(), "short\n");
    }

    #[test]
    fn lines_that_are_refused_are_counted_and_said_as_soon_as_one_is_taken() {
        let pipe = pipe();
        pipe.to.set_format(LogFormat::Json, false);
        pipe.to.say("one");
        assert_eq!(pipe.refuse(ErrorKind::StorageFull), "one\n");
        pipe.to.say("two");
        let notice = pipe.refuse(ErrorKind::StorageFull);
        assert!(notice.contains(r#""lines":1"#), "{notice}");
        // Nobody speaks any more, and it is said all the same.
        let notice: serde_json::Value = serde_json::from_str(&pipe.take()).unwrap();
        assert_eq!(notice["lines"], 2);
        assert_eq!(notice["level"], "WARN");
        assert_eq!(notice["message"], LOST);
        assert_eq!(pipe.to.lost().load(Ordering::Relaxed), 2);
        pipe.to.say("three");
        assert_eq!(pipe.take(), "three\n");
    }

    #[test]
    fn a_line_that_was_cut_ends_before_the_next_begins() {
        let pipe = pipe();
        pipe.to.say("cut");
        pipe.write();
        pipe.answers.send(Ok(1)).unwrap();
        assert_eq!(pipe.refuse(ErrorKind::StorageFull), "ut\n");
        assert_eq!(pipe.take(), "\n");
        assert!(pipe.take().contains("lines=1"));
        pipe.to.say("next");
        assert_eq!(pipe.refuse(ErrorKind::Interrupted), "next\n");
        assert_eq!(pipe.refuse(ErrorKind::WouldBlock), "next\n");
        assert_eq!(pipe.take(), "next\n");
    }
}
