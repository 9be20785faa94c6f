//! A block of names in a hosts file that is somebody else's. The file is replaced as a whole, with its mode and owner;
//! where that cannot be (a file that is mounted into a container, a directory that is not writable), it is written in
//! place, and put back as it was if that fails half-way.

use names::{BlockError, with_block};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

/// Why the block is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostsError {
    /// The file has markers that make no block.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// It is no hosts file.
    #[error("it is no file of at most {MAX_LEN} bytes: choose another one")]
    NoFile,
    /// The system refused.
    #[error(
        "{0}: let this daemon's user write the file (under the shipped unit with ReadWritePaths= too), or leave the setting out and use `meshctl hosts`"
    )]
    Io(#[from] io::Error),
}

/// Puts `lines` into the block of `tag`; without lines, the block goes. Touches nothing if that is so already.
pub(crate) fn write(path: &Path, tag: &str, lines: &str) -> Result<(), HostsError> {
    // A link stays one.
    let path = path.canonicalize()?;
    let meta = path.metadata()?;
    if !meta.is_file() || meta.len() > MAX_LEN {
        return Err(HostsError::NoFile);
    }
    let before = std::fs::read(&path)?;
    let after = with_block(&before, tag, lines)?;
    if before == after {
        return Ok(());
    }
    match replace(&path, &meta, &after) {
        Ok(()) => Ok(()),
        Err(error) if is_refused(&error) => Ok(overwrite(&path, &before, &after)?),
        Err(error) => Err(error.into()),
    }
}

/// In one step: whoever reads sees the old file or the new one.
fn replace(path: &Path, meta: &Metadata, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut made = tempfile::Builder::new()
        .prefix(".hosts")
        .tempfile_in(folder)?;
    let own = made.as_file().metadata()?;
    if (own.uid(), own.gid()) != (meta.uid(), meta.gid()) {
        std::os::unix::fs::fchown(made.as_file(), Some(meta.uid()), Some(meta.gid()))?;
    }
    made.write_all(bytes)?;
    made.as_file().set_permissions(meta.permissions())?;
    made.as_file().sync_all()?;
    made.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Whether another way may work: neither a full disk nor a broken one.
fn is_refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::ResourceBusy
            | ErrorKind::CrossesDevices
            | ErrorKind::ReadOnlyFilesystem
    )
}

fn overwrite(path: &Path, before: &[u8], after: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let put = |file: &File, bytes: &[u8]| {
        file.write_all_at(bytes, 0)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()
    };
    put(&file, after).inspect_err(|_| {
        // The old content has its room already.
        if let Err(error) = put(&file, before) {
            tracing::error!(%error, "a hosts file could not be put back as it was");
        }
    })
}

/// In bytes.
const MAX_LEN: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_block_comes_and_goes_with_the_files_mode_and_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real"), folder.path().join("hosts"));
        std::fs::write(&file, "127.0.0.1 localhost\n").unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(&file, mode).unwrap();
        symlink(&file, &link).unwrap();
        write(&link, "m0", "10.76.0.2\tnode-b\n").unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("\n10.76.0.2\tnode-b\n"), "{text}");
        let meta = link.symlink_metadata().unwrap();
        assert!(meta.is_symlink());
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
        let inode = file.metadata().unwrap().ino();
        write(&link, "m0", "10.76.0.2\tnode-b\n").unwrap();
        assert_eq!(file.metadata().unwrap().ino(), inode, "it was so already");
        write(&link, "m0", "").unwrap();
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            "127.0.0.1 localhost\n"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn in_place_the_file_stays_the_same_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hosts");
        std::fs::write(&file, "a long line that goes\n").unwrap();
        let inode = file.metadata().unwrap().ino();
        overwrite(&file, b"a long line that goes\n", b"short\n").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "short\n");
        assert_eq!(file.metadata().unwrap().ino(), inode);
    }

    #[test]
    fn what_is_no_hosts_file_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let said = |path: &Path| write(path, "m0", "x\n").unwrap_err().to_string();
        assert!(said(folder.path()).contains("no file of at most"));
        let missing = folder.path().join("none");
        assert!(said(&missing).contains("meshctl hosts"));
        assert!(!missing.exists());
        let full = said(Path::new("/dev/full"));
        assert!(full.contains("no file"), "{full}");
    }
}
