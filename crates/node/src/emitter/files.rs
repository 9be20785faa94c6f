//! Reads results from a file, or from the newest files of a folder, whenever they change: the harness writes, the
//! node looks. Only regular files: nothing that a read could wait for.
//!
//! A change is known by the file's size, times and number, and by its content where those could hide one: a
//! file whose time is only a moment old may change again within the same tick of the clock. A file that is
//! touched is no change, because its content is the same run.

use super::reading::Result as Read;
use super::{Desk, EmitError, Reading, folder};
use crate::io::clock;
use agent::Emission;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// Where results are looked for.
#[derive(Debug)]
pub(super) enum Place {
    File(PathBuf),
    Folder(PathBuf),
}

/// Looks again and again, until the node stops.
pub(super) fn run(place: &Place, reading: &Reading, desk: &Desk) {
    let mut watch = Watch::default();
    loop {
        let Looked { emissions, trouble } = watch.look(place, reading);
        let is_news = !emissions.is_empty();
        let count = emissions.len();
        if is_news && !desk.emit(emissions) {
            return;
        }
        match trouble {
            Trouble::None if is_news => desk.health.succeeded(count),
            Trouble::None => desk.health.is_well(),
            Trouble::Unsettled => {}
            Trouble::Failed(error) => desk.health.failed(&error, false),
        }
        if desk.stops_within(LOOK_EVERY) {
            return;
        }
    }
}

/// The outcome of a look.
#[derive(Debug)]
struct Looked {
    /// The results that are news.
    emissions: Vec<Emission>,
    trouble: Trouble,
}

#[derive(Debug)]
enum Trouble {
    None,
    /// Something is being written, as far as can be seen.
    Unsettled,
    Failed(Rc<EmitError>),
}

/// The files that were looked at.
#[derive(Debug, Default)]
struct Watch {
    files: BTreeMap<PathBuf, Seen>,
}

/// A file as it was seen last.
#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    /// Whether it may have changed since without another stamp.
    is_young: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It holds results, which were handed over.
    Good {
        content: Vec<u8>,
        suites: Vec<String>,
    },
    /// It holds none. Seen once, it may be half of one.
    Bad {
        error: Rc<EmitError>,
        is_settled: bool,
    },
}

/// By which a change of a file is seen without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    len: u64,
    modified: SystemTime,
    changed: (i64, i64),
}

impl Watch {
    fn look(&mut self, place: &Place, reading: &Reading) -> Looked {
        let paths = match place {
            Place::File(path) => vec![path.clone()],
            Place::Folder(path) => match folder::newest(path, reading.format) {
                Ok(paths) => paths,
                Err(error) => return Looked::failed(error),
            },
        };
        let wanted: BTreeSet<&PathBuf> = paths.iter().collect();
        self.files.retain(|path, _| wanted.contains(path));
        let (mut emissions, mut covered) = (Vec::new(), BTreeSet::new());
        let (mut trouble, mut is_unsettled) = (None, false);
        for path in &paths {
            match self.look_at(path, reading) {
                // A newer file has replaced what this one says of the same suite.
                Ok(Some(read)) => {
                    let both = read.suites.into_iter().zip(read.emissions);
                    let fresh = both.filter(|(suite, _)| covered.insert(suite.clone()));
                    let fresh: Vec<Emission> = fresh.map(|(_, emission)| emission).collect();
                    emissions.extend(fresh.into_iter().rev());
                }
                Ok(None) => match self.files.get(path).map(|seen| &seen.state) {
                    Some(State::Good { suites, .. }) => covered.extend(suites.iter().cloned()),
                    Some(State::Bad { .. }) | None => is_unsettled = true,
                },
                // In a folder a file that is not whole is one that is being written, however long that takes.
                Err(error) if error.may_be_half() && matches!(place, Place::Folder(_)) => {}
                // The newest file says how the benchmark does: older failures are history.
                Err(error) if covered.is_empty() && trouble.is_none() => trouble = Some(error),
                Err(_) => {}
            }
        }
        // The newest last, as it is the newest evidence.
        emissions.reverse();
        let trouble = match (trouble, place) {
            (Some(error), _) => Trouble::Failed(error),
            (None, _) if is_unsettled && covered.is_empty() => Trouble::Unsettled,
            (None, Place::Folder(path)) if covered.is_empty() => {
                let error = EmitError::NoFile {
                    path: path.clone(),
                    wanted: folder::wanted(reading.format),
                };
                Trouble::Failed(Rc::new(error))
            }
            (None, _) => Trouble::None,
        };
        Looked { emissions, trouble }
    }

    /// The results of a file, if they are news; `None`: they are not, or the file is being written.
    fn look_at(&mut self, path: &Path, reading: &Reading) -> Result<Option<Read>, Rc<EmitError>> {
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
            return Err(EmitError::NotAFile { path, kind }.into());
        }
        let stamp = Stamp::of(&before).map_err(failed)?;
        let seen = self.files.get(path).filter(|seen| seen.stamp == stamp);
        let is_known = seen.is_some_and(|seen| match &seen.state {
            State::Good { .. } => !seen.is_young,
            State::Bad { error, is_settled } => *is_settled && !seen.is_young && !error.may_pass(),
        });
        if is_known {
            return self.known(path);
        }
        let read = self.read(path, file, stamp, reading)?;
        let Some(read) = read else { return Ok(None) };
        let is_young = stamp.is_young();
        let before = self.files.remove(path);
        match read {
            Ok(read) => {
                let had = before.is_some_and(|seen| {
                    matches!(&seen.state, State::Good { content, .. } if *content == read.content)
                });
                let state = State::Good {
                    content: read.content.clone(),
                    suites: read.suites.clone(),
                };
                self.keep(path, stamp, is_young, state);
                Ok((!had).then_some(read))
            }
            Err(fault) => {
                let of = path.to_owned();
                let error = Rc::new(EmitError::File { path: of, fault });
                // The same for a second: nobody writes it any more.
                let is_settled = before.is_some_and(|seen| {
                    seen.stamp == stamp && matches!(seen.state, State::Bad { .. })
                });
                self.keep(path, stamp, is_young, State::Bad { error, is_settled });
                if is_settled {
                    self.known(path)
                } else {
                    Ok(None)
                }
            }
        }
    }

    /// Reads a file; `None` if it changes meanwhile.
    fn read(
        &self,
        path: &Path,
        mut file: File,
        stamp: Stamp,
        reading: &Reading,
    ) -> Result<Option<Result<Read, harness::Fault>>, EmitError> {
        let failed = |source| EmitError::Io {
            what: format!("cannot read {}", path.display()),
            source,
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let modified = stamp.modified.try_into();
        let modified = modified.map_err(|error| failed(std::io::Error::other(error)))?;
        let read = reading.file(&name, &mut file, modified);
        let after = file.metadata().and_then(|meta| Stamp::of(&meta));
        Ok((after.map_err(failed)? == stamp).then_some(read))
    }

    fn keep(&mut self, path: &Path, stamp: Stamp, is_young: bool, state: State) {
        let seen = Seen {
            stamp,
            is_young,
            state,
        };
        self.files.insert(path.to_owned(), seen);
    }

    /// The outcome of the last look at a file that has not changed since.
    fn known(&self, path: &Path) -> Result<Option<Read>, Rc<EmitError>> {
        match self.files.get(path).map(|seen| &seen.state) {
            Some(State::Bad { error, .. }) => Err(Rc::clone(error)),
            Some(State::Good { .. }) | None => Ok(None),
        }
    }
}

impl Looked {
    fn failed(error: EmitError) -> Self {
        Self {
            emissions: Vec::new(),
            trouble: Trouble::Failed(Rc::new(error)),
        }
    }
}

impl Stamp {
    fn of(meta: &Metadata) -> std::io::Result<Self> {
        Ok(Self {
            file: (meta.dev(), meta.ino()),
            len: meta.len(),
            modified: meta.modified()?,
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Whether it is so young that the next change may have the same stamp, or of a clock that is ahead.
    fn is_young(&self) -> bool {
        let changed = jiff::Timestamp::from_second(self.changed.0).unwrap_or_default();
        let age = Duration::try_from(clock::wall().duration_since(changed)).ok();
        age.is_none_or(|age| age < YOUNG)
    }
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
/// Clocks of file systems go in steps, of two seconds at most.
const YOUNG: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
