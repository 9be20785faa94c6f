//! The file of a key of the controller's, while another key takes its place: the new one is on the disk before it
//! signs, and gets the name of the old one once it has.

use keys::{AuthorityId, AuthoritySecret, LogId, LogSecret};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// A key that another one can take the place of.
pub(crate) trait Replaceable: Sized {
    /// The public half.
    type Id: PartialEq;
    /// The name of its file.
    const NAME: &'static str;
    /// The name of the next key's file.
    const NEXT: &'static str;

    fn id(&self) -> Self::Id;
    fn parse(line: &str) -> Option<Self>;
    fn print(&self) -> Zeroizing<String>;
}

macro_rules! replaceable {
    ($secret:ty, $id:ty, $name:literal, $next:literal) => {
        impl Replaceable for $secret {
            type Id = $id;
            const NAME: &'static str = $name;
            const NEXT: &'static str = $next;

            fn id(&self) -> $id {
                self.public()
            }

            fn parse(line: &str) -> Option<Self> {
                Self::from_base64(line).ok()
            }

            fn print(&self) -> Zeroizing<String> {
                self.expose_base64()
            }
        }
    };
}
replaceable!(LogSecret, LogId, "log.key", "log.key.new");
replaceable!(
    AuthoritySecret,
    AuthorityId,
    "authority.key",
    "authority.key.new"
);

/// The key that was about to take the place of another, in the folder of the `log`; `None`: there is none to be read.
pub(crate) fn read_next<K: Replaceable>(log: &Path) -> Option<K> {
    let line = Zeroizing::new(std::fs::read_to_string(log.with_file_name(K::NEXT)).ok()?);
    K::parse(line.trim())
}

/// Writes the new key beside the old one's file, 0600.
pub(crate) fn write_next<K: Replaceable>(log: &Path, new: &K) -> io::Result<()> {
    let path = log.with_file_name(K::NEXT);
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
    file.write_all(new.print().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    sync_folder(&path)
}

/// By the log, `key` is the one that signs: the new key gets its name, if that is it, and goes away, if it is not.
pub(crate) fn settle<K: Replaceable>(log: &Path, key: &K::Id) -> io::Result<()> {
    let path = log.with_file_name(K::NEXT);
    if !path.exists() {
        return Ok(());
    }
    if read_next::<K>(log).is_some_and(|next| next.id() == *key) {
        std::fs::rename(&path, log.with_file_name(K::NAME))?;
    } else {
        std::fs::remove_file(&path)?;
    }
    sync_folder(&path)
}

fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

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
        let file = dir.path().join(LogSecret::NAME);
        std::fs::write(&file, old.expose_base64().as_bytes()).unwrap();
        for (signer, expected) in [(&old, &old), (&new, &new)] {
            write_next(&log, &new).unwrap();
            let mode = log
                .with_file_name(LogSecret::NEXT)
                .metadata()
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
            settle::<LogSecret>(&log, &signer.public()).unwrap();
            assert!(read_next::<LogSecret>(&log).is_none());
            let line = std::fs::read_to_string(&file).unwrap();
            let kept = LogSecret::from_base64(line.trim()).unwrap();
            assert_eq!(kept.public(), expected.public());
        }
        settle::<LogSecret>(&log, &old.public()).unwrap();
    }
}
