//! Reads a result from a file whenever the file changes: the harness writes, the node looks. Only a regular
//! file: nothing that a read could wait for.

use super::{Desk, Emission, EmitError, Health, MAX_RESULT, parse};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Looks again and again, until the node stops.
pub(super) fn run(path: &Path, desk: &Desk) {
    let (mut health, mut watch) = (Health::new(), Watch::default());
    loop {
        match watch.look(path) {
            Ok(Look::New(emission)) => {
                health.succeeded();
                if !desk.emit(emission) {
                    return;
                }
            }
            Ok(Look::Same) => health.succeeded(),
            Ok(Look::Unsettled) => {}
            Err(error) => health.failed(&error),
        }
        if desk.stops_within(LOOK_EVERY) {
            return;
        }
    }
}

/// One look at a file.
#[derive(Debug)]
enum Look {
    /// A result that is news.
    New(Emission),
    /// The result that was there before.
    Same,
    /// It is being written, as far as can be seen.
    Unsettled,
}

/// A file's last content.
#[derive(Debug, Default)]
struct Watch {
    seen: Option<Seen>,
}

/// The content by which a change is known, with the time at which it was written: a harness that comes to the
/// same result again has run again, and the time of a file is too coarse to show every change.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    written: SystemTime,
    bytes: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was handed over.
    Good,
    /// It is no result; seen once, so that it may be half of one.
    Doubtful,
}

impl Watch {
    fn look(&mut self, path: &Path) -> Result<Look, EmitError> {
        let Some((written, bytes)) = read(path)? else {
            return Ok(Look::Unsettled);
        };
        let before = self.seen.as_ref();
        let before = before.filter(|seen| seen.written == written && seen.bytes == bytes);
        if before.is_some_and(|seen| seen.state == State::Good) {
            return Ok(Look::Same);
        }
        let is_settled = before.is_some();
        let result = parse(&bytes);
        let state = if result.is_ok() {
            State::Good
        } else {
            State::Doubtful
        };
        self.seen = Some(Seen {
            written,
            bytes,
            state,
        });
        match result {
            Ok(emission) => Ok(Look::New(emission)),
            Err(error) if is_settled => Err(error),
            Err(_) => Ok(Look::Unsettled),
        }
    }
}

/// The file's content, and when it was written; `None` if it changes meanwhile.
fn read(path: &Path) -> Result<Option<(SystemTime, Vec<u8>)>, EmitError> {
    let failed = |source| EmitError::Io {
        what: format!("cannot read {}", path.display()),
        source,
    };
    let mut options = std::fs::OpenOptions::new();
    // The opening of a pipe would otherwise wait for a writer.
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(failed)?;
    let before = file.metadata().map_err(failed)?;
    if !before.is_file() {
        let (path, kind) = (path.to_owned(), kind(before.file_type()));
        return Err(EmitError::NotAFile { path, kind });
    }
    let mut bytes = Vec::new();
    let mut limited = (&file).take(MAX_RESULT as u64 + 1);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    let after = file.metadata().map_err(failed)?;
    let written = before.modified().map_err(failed)?;
    let is_still = after.modified().is_ok_and(|it| it == written) && after.len() == before.len();
    Ok(is_still.then_some((written, bytes)))
}

fn kind(kind: std::fs::FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};

    fn result(overall: &str) -> String {
        format!(r#"{{"harness":"h","suite":"s","suiteVersion":"1","overall":{overall}}}"#)
    }

    /// Replaces the file in one step, with a time of our choice.
    fn replace(path: &Path, content: &[u8], written: SystemTime) {
        let new = path.with_extension("new");
        std::fs::write(&new, content).unwrap();
        let file = File::options().write(true).open(&new).unwrap();
        file.set_times(FileTimes::new().set_modified(written))
            .unwrap();
        std::fs::rename(&new, path).unwrap();
    }

    fn looked(watch: &mut Watch, path: &Path) -> String {
        match watch.look(path) {
            Ok(Look::New(Emission::Run(run))) => run.overall.unwrap().to_string(),
            Ok(Look::New(Emission::Envelope(_))) => "an envelope".to_owned(),
            Ok(Look::Same) => "same".to_owned(),
            Ok(Look::Unsettled) => "unsettled".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_file_is_read_once_per_change_whatever_its_time_and_size_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.json");
        let (mut watch, then) = (Watch::default(), SystemTime::UNIX_EPOCH);
        let gone = looked(&mut watch, &path);
        assert!(gone.contains("No such file"), "{gone}");
        replace(&path, result("0.5").as_bytes(), then);
        assert_eq!(looked(&mut watch, &path), "0.5");
        assert_eq!(looked(&mut watch, &path), "same");
        replace(&path, result("0.7").as_bytes(), then);
        assert_eq!(looked(&mut watch, &path), "0.7");
        replace(&path, result("0.7").as_bytes(), then);
        assert_eq!(looked(&mut watch, &path), "same", "restored from a copy");
        replace(
            &path,
            result("0.7").as_bytes(),
            then + Duration::from_secs(1),
        );
        assert_eq!(looked(&mut watch, &path), "0.7", "the harness ran again");
        std::fs::remove_file(&path).unwrap();
        assert!(looked(&mut watch, &path).contains("No such file"));
        replace(
            &path,
            result("0.7").as_bytes(),
            then + Duration::from_secs(1),
        );
        assert_eq!(looked(&mut watch, &path), "same");
    }

    #[test]
    fn a_file_that_is_being_written_is_no_failure_until_it_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.json");
        let (mut watch, then) = (Watch::default(), SystemTime::UNIX_EPOCH);
        let whole = result("0.5");
        replace(&path, b"", then);
        assert_eq!(looked(&mut watch, &path), "unsettled");
        replace(&path, &whole.as_bytes()[..30], then);
        assert_eq!(looked(&mut watch, &path), "unsettled");
        let stays = looked(&mut watch, &path);
        assert!(stays.contains("neither a benchmark result"), "{stays}");
        replace(&path, whole.as_bytes(), then);
        assert_eq!(looked(&mut watch, &path), "0.5");
        replace(&path, &vec![b' '; MAX_RESULT + 1], then);
        looked(&mut watch, &path);
        assert!(looked(&mut watch, &path).contains("bytes"));
    }

    #[test]
    fn only_a_regular_file_is_opened_for_a_result() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let cases = [
            (pipe.as_path(), "a named pipe, not a regular file"),
            (dir.path(), "a directory, not a regular file"),
            (Path::new("/dev/zero"), "a device, not a regular file"),
        ];
        for (path, expected) in cases {
            let error = looked(&mut Watch::default(), path);
            assert!(error.contains(expected), "{error}");
        }
    }
}
