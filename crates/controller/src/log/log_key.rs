//! The file of the log's key, while another key takes its place: the new one is on the disk before it signs, and
//! gets the name of the old one once it has.

use keys::{LogId, LogSecret};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The key that was about to take the place of the log's; `None`: there is none to be read.
pub(super) fn read_next(log: &Path) -> Option<LogSecret> {
    let line = zeroize::Zeroizing::new(std::fs::read_to_string(next(log)).ok()?);
    LogSecret::from_base64(line.trim()).ok()
}

/// Writes the new key beside the old one's file, 0600.
pub(super) fn write_next(log: &Path, new: &LogSecret) -> io::Result<()> {
    let path = next(log);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(new.expose_base64().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    sync_folder(&path)
}

/// The log is signed by `key`: the new key gets its name, if that is it, and goes away, if it is not.
pub(super) fn settle(log: &Path, key: LogId) -> io::Result<()> {
    let path = next(log);
    if !path.exists() {
        return Ok(());
    }
    if read_next(log).is_some_and(|next| next.public() == key) {
        std::fs::rename(&path, log.with_file_name(NAME))?;
    } else {
        std::fs::remove_file(&path)?;
    }
    sync_folder(&path)
}

fn next(log: &Path) -> PathBuf {
    log.with_file_name(NEXT)
}

fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

const NAME: &str = "log.key";
const NEXT: &str = "log.key.new";

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::OsRng;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_new_key_gets_its_name_once_it_has_signed_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("controller.db");
        let (old, new) = (
            LogSecret::generate(&mut OsRng),
            LogSecret::generate(&mut OsRng),
        );
        let file = dir.path().join(NAME);
        std::fs::write(&file, old.expose_base64().as_bytes()).unwrap();
        for (signer, expected) in [(&old, &old), (&new, &new)] {
            write_next(&log, &new).unwrap();
            let mode = next(&log).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            settle(&log, signer.public()).unwrap();
            assert!(read_next(&log).is_none());
            let line = std::fs::read_to_string(&file).unwrap();
            let kept = LogSecret::from_base64(line.trim()).unwrap();
            assert_eq!(kept.public(), expected.public());
        }
        settle(&log, old.public()).unwrap();
    }
}
