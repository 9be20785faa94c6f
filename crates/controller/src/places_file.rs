//! The file in which the places of members are kept for the next start, so that a fleet that comes back to where it was
//! is told nothing. Nothing depends on it: without it, or with an old one, nodes are told once more.

use crate::clock::Now;
use crate::engine::Engine;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// The file, kept up with the engine.
#[derive(Debug)]
pub(crate) struct PlacesFile {
    path: PathBuf,
    /// The newest change in it.
    written: u64,
    not_before: Duration,
    failed: bool,
}

impl PlacesFile {
    /// Reads the file at `path`, if there is one, into the engine.
    pub(crate) fn open(path: PathBuf, engine: &mut Engine) -> Self {
        let mut kept = Vec::new();
        // Opening a FIFO would wait for somebody who writes to it.
        let file = match path.metadata() {
            Ok(meta) if !meta.is_file() => Err(std::io::Error::other("it is no regular file")),
            Ok(_) => File::open(&path).map(|file| file.take(MAX_LEN)),
            Err(error) => Err(error),
        };
        match file.and_then(|mut file| file.read_to_end(&mut kept)) {
            Ok(_) => engine.resume_places(&kept),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the places of nodes cannot be read: they say them anew");
            }
        }
        Self {
            path,
            written: engine.keep_places().0,
            not_before: Duration::ZERO,
            failed: false,
        }
    }

    /// Writes it anew where something has changed, and not too often.
    pub(crate) fn keep(&mut self, engine: &Engine, now: Now) {
        if now.boot >= self.not_before && engine.keep_places().0 != self.written {
            self.not_before = now.boot + PAUSE;
            self.write(engine);
        }
    }

    /// Writes it anew.
    pub(crate) fn write(&mut self, engine: &Engine) {
        let (seq, encode) = engine.keep_places();
        let result = self.replace(&encode());
        if let Err(error) = &result
            && !self.failed
        {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the places of nodes cannot be kept: after a start they are told anew");
        }
        self.failed = result.is_err();
        self.written = seq;
    }

    /// A reader finds the old content or the new one; which of them after a loss of power does not matter.
    fn replace(&self, content: &[u8]) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&new)?.write_all(content)?;
        std::fs::rename(&new, &self.path)
    }
}

/// How often it is written at most.
const PAUSE: Duration = Duration::from_secs(5);
/// The most that is read of it, in bytes: places of 100,000 nodes with four addresses each.
const MAX_LEN: u64 = 16 << 20;
