//! Secret files: made once with mode 0600, never overwritten, read with a warning if others can too.

use crate::answer::Answer;
use crate::failure::Failure;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

/// A new file for a secret, 0600; removed when it is dropped without one.
#[derive(Debug)]
pub(crate) struct SecretFile<'p> {
    path: &'p Path,
    file: File,
    filled: bool,
}

impl<'p> SecretFile<'p> {
    /// Creates the file, so that nobody makes a secret that cannot be kept. Never overwrites one.
    pub(crate) fn create(path: &'p Path) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let file = options
            .open(path)
            .map_err(|error| not_created(path, &error))?;
        Ok(Self {
            path,
            file,
            filled: false,
        })
    }

    /// Writes the secret.
    pub(crate) fn fill(mut self, secret: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(secret);
        let written = written.and_then(|()| self.file.sync_all());
        written.map_err(|error| not_created(self.path, &error))?;
        self.filled = true;
        Ok(())
    }
}

impl Drop for SecretFile<'_> {
    fn drop(&mut self) {
        if !self.filled {
            // Half a secret is of no use, and its name would block the next attempt.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

/// Writes `text` to a new file that only its owner can read.
pub(crate) fn create_secret(path: &Path, text: &str) -> Result<(), Failure> {
    SecretFile::create(path)?.fill(text.as_bytes())
}

/// Reads a secret file.
pub(crate) fn read_secret(path: &Path, answer: &Answer) -> Result<Zeroizing<String>, Failure> {
    let file = File::open(path).map_err(|error| not_read(path, &error))?;
    let mode = file
        .metadata()
        .map_err(|error| not_read(path, &error))?
        .mode();
    if mode & 0o077 != 0 {
        let shown = path.display();
        answer.remark(&format!(
            "warning: others than its owner may use {shown}; `chmod 600 {shown}` stops that"
        ));
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_SECRET_LEN));
    file.take(MAX_SECRET_LEN as u64)
        .read_to_string(&mut text)
        .map_err(|error| not_read(path, &error))?;
    Ok(text)
}

/// Reads at most `limit` bytes of a file, or of stdin for `-`.
pub(crate) fn read_limited(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let reader: Box<dyn io::Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| not_read(path, &error))?)
    };
    let mut bytes = Vec::new();
    reader
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| not_read(path, &error))?;
    if bytes.len() > limit {
        let error = io::Error::other(format!("over {limit} bytes"));
        return Err(not_read(path, &error));
    }
    Ok(bytes)
}

fn not_created(path: &Path, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::AlreadyExists => "choose another name; a secret is never overwritten",
        _ => "check the folder and its permissions",
    };
    Failure::broken(format!("cannot create {}: {error}", path.display()), hint)
}

fn not_read(path: &Path, error: &io::Error) -> Failure {
    Failure::broken(
        format!("cannot read {}: {error}", path.display()),
        "check the path and its permissions",
    )
}

/// A key file holds 44 characters; the buffer never grows, so no copy of it stays behind.
const MAX_SECRET_LEN: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_written_once_for_its_owner_alone_and_an_empty_file_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        drop(SecretFile::create(&path).unwrap());
        assert!(!path.exists(), "no secret was made");
        create_secret(&path, "first").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(SecretFile::create(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
    }
}
