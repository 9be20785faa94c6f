//! Which files a role must find together, and the way out where one is missing: a daemon that made anew
//! what was lost would be another one in silence. A file of the past is set aside, never deleted.
//!
//! | Role | Finds | Does |
//! |---|---|---|
//! | controller | nothing | founds a mesh; the file `founding` says that it is at it, until there is one |
//! | | its keys and a log that they signed | goes on; `--new-mesh` is ignored with a line |
//! | | anything else | refuses; with `--new-mesh` sets what there is aside, and founds a mesh |
//! | node | an enrolment without the keys that were enrolled | refuses |

use crate::state_dir::{StateDir, StateDirError};
use controller::clock::Now;
use controller::{Log, LogError};
use keys::{AuthorityId, AuthoritySecret, ControllerSecret, LogSecret, NodeSecret, WgSecret};
use rand_core::OsRng;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Why a role does not begin with the files that it finds.
#[derive(Debug, thiserror::Error)]
pub enum FoundingError {
    /// A mesh lacks some of its files.
    #[error(
        "the state of a mesh in {directory} is not whole: {missing}, while {present}. Restore it from the \
         backup, all files together; or start once with --new-mesh, which sets aside what is left and founds \
         a new mesh, in which every node has to enrol again"
    )]
    Mesh {
        /// The state directory.
        directory: PathBuf,
        /// The files that are missing, in words.
        missing: String,
        /// The files that are there, in words.
        present: String,
    },
    /// An enrolled node lacks a key.
    #[error(
        "{key} is missing, but {enrolment} says that this node is enrolled with it: restore the key from a \
         backup; or make a token with `meshctl token create --name NAME` at the controller, move {enrolment} \
         away and start once with that token: name and addresses stay"
    )]
    Key {
        /// The key's file.
        key: PathBuf,
        /// The enrolment's.
        enrolment: PathBuf,
    },
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The event log, while it is looked at for `--new-mesh`.
    #[error(
        "the event log {path} cannot be used: {source}; that is no loss of the mesh, so that --new-mesh does \
         not replace it"
    )]
    Log {
        /// Its file.
        path: PathBuf,
        /// The fault.
        source: LogError,
    },
}

/// A controller's keys, and whether there may be no mesh yet.
#[derive(Debug)]
pub struct Founding {
    /// The keys.
    pub keys: controller::Keys,
    /// There is no mesh yet: the first start was not finished, or `--new-mesh` was given.
    pub founding: bool,
}

/// The keys of the controller whose state this is, or of one that begins here.
///
/// # Errors
/// [`FoundingError`], with the ways out. Nothing has changed then.
pub fn controller(
    state: &StateDir,
    new_mesh: bool,
    adopt_log: Option<AuthorityId>,
) -> Result<Founding, FoundingError> {
    let is_there = |name: &&&str| state.file(name).symlink_metadata().is_ok();
    let marker = state.file(FOUNDING);
    if !MESH.iter().any(|name| is_there(&name)) {
        mark(&marker)?;
    }
    // A first start that was cut short, or that lacked a port, has left keys and no mesh.
    let mut founding = is_there(&&FOUNDING);
    if !founding {
        let loss = loss(state, adopt_log.is_some());
        let is_lost = match &loss {
            Some(_) => true,
            None if new_mesh => is_lost(state, adopt_log)?,
            None => false,
        };
        match loss {
            _ if new_mesh && is_lost => {
                set_aside(state)?;
                mark(&marker)?;
                founding = true;
            }
            Some(loss) => return Err(loss),
            None if new_mesh => tracing::warn!(
                "--new-mesh is ignored: there is a mesh here, and it is whole; remove the flag, or it \
                 founds another mesh should this one be lost"
            ),
            None => {}
        }
    }
    let keys = controller::Keys {
        connection: connection(state)?,
        authority: authority(state)?,
        log: log(state)?,
    };
    Ok(Founding { keys, founding })
}

/// There is a mesh now: from here on each of its files has to be there.
///
/// # Errors
/// When the mark cannot be removed.
pub fn founded(state: &StateDir) -> Result<(), FoundingError> {
    let marker = state.file(FOUNDING);
    match std::fs::remove_file(&marker) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(refused("remove", &marker)(error).into())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The keys of the node whose state this is, or of one that begins here.
///
/// # Errors
/// [`FoundingError`], with the ways out.
pub fn node(state: &StateDir) -> Result<(NodeSecret, WgSecret), FoundingError> {
    let enrolment = state.file(ENROLMENT);
    if enrolment.exists() {
        let keys = [IDENTITY, WIREGUARD].map(|name| state.file(name));
        if let Some(key) = keys.into_iter().find(|key| !key.exists()) {
            return Err(FoundingError::Key { key, enrolment });
        }
    }
    let identity = state.key(
        (IDENTITY, RESTORE_NODE),
        NodeSecret::from_base64,
        NodeSecret::expose_base64,
        || NodeSecret::generate(&mut OsRng),
    )?;
    Ok((identity, wireguard(state, WIREGUARD)?))
}

/// The keys of the controller whose state this is; `None`: a mesh is still to be founded here. Changes nothing.
///
/// # Errors
/// All faults for which [`controller()`] would refuse the state.
pub fn look_at_controller(
    path: &Path,
    adopts: bool,
) -> Result<Option<controller::Keys>, Vec<FoundingError>> {
    let state = StateDir::look(path);
    let is_there = |name: &str| state.file(name).symlink_metadata().is_ok();
    if is_there(FOUNDING) || !MESH.iter().any(|name| is_there(name)) {
        return Ok(None);
    }
    let mut faults: Vec<FoundingError> = loss(&state, adopts).into_iter().collect();
    let mut keep = |fault: StateDirError| faults.push(fault.into());
    let connection = state.existing_key((CONNECTION, RESTORE_MESH), ControllerSecret::from_base64);
    let connection = connection.map_err(&mut keep).ok().flatten();
    let authority = state.existing_key((AUTHORITY, RESTORE_MESH), AuthoritySecret::from_base64);
    let authority = authority.map_err(&mut keep).ok().flatten();
    let log = state.existing_key((LOG, RESTORE_MESH), LogSecret::from_base64);
    let log = log.map_err(&mut keep).ok().flatten();
    match (connection, authority, log) {
        (Some(connection), Some(authority), Some(log)) if faults.is_empty() => {
            Ok(Some(controller::Keys {
                connection,
                authority,
                log,
            }))
        }
        // A new authority's key is made at the start.
        _ if faults.is_empty() => Ok(None),
        _ => Err(faults),
    }
}

/// The keys of the node whose state this is; `None`: the first start makes them. Changes nothing.
///
/// # Errors
/// The fault for which [`node()`] would refuse the state.
pub fn look_at_node(path: &Path) -> Result<Option<(NodeSecret, WgSecret)>, FoundingError> {
    let state = StateDir::look(path);
    let identity = state.existing_key((IDENTITY, RESTORE_NODE), NodeSecret::from_base64)?;
    let wireguard = state.existing_key((WIREGUARD, RESTORE_NODE), WgSecret::from_base64)?;
    let enrolment = state.file(ENROLMENT);
    match (identity, wireguard) {
        (Some(identity), Some(wireguard)) => Ok(Some((identity, wireguard))),
        (identity, _) if enrolment.exists() => {
            let missing = if identity.is_none() {
                IDENTITY
            } else {
                WIREGUARD
            };
            let key = state.file(missing);
            Err(FoundingError::Key { key, enrolment })
        }
        _ => Ok(None),
    }
}

/// The keys of further segments as [`wireguard`] finds them, but one that it would make is not written.
pub fn look_at_wireguard(path: &Path) -> node::KeyStore {
    let path = path.to_owned();
    node::KeyStore(std::sync::Arc::new(move |name: &str| {
        let state = StateDir::look(&path);
        let found = state.existing_key((name, RESTORE_NODE), WgSecret::from_base64);
        let key = found.map_err(|error| error.to_string())?;
        Ok(key.unwrap_or_else(|| WgSecret::generate(&mut OsRng)))
    }))
}

/// The files of a controller's mesh: a start needs them together.
pub fn mesh_files() -> impl Iterator<Item = &'static str> {
    MESH.into_iter()
}

/// The WireGuard key in a file of this name, which is made if there is none.
///
/// # Errors
/// When the file is not a key, or cannot be written.
pub fn wireguard(state: &StateDir, name: &str) -> Result<WgSecret, StateDirError> {
    state.key(
        (name, RESTORE_NODE),
        WgSecret::from_base64,
        WgSecret::expose_base64,
        || WgSecret::generate(&mut OsRng),
    )
}

fn connection(state: &StateDir) -> Result<ControllerSecret, StateDirError> {
    state.key(
        (CONNECTION, RESTORE_MESH),
        ControllerSecret::from_base64,
        ControllerSecret::expose_base64,
        || ControllerSecret::generate(&mut OsRng),
    )
}

fn authority(state: &StateDir) -> Result<AuthoritySecret, StateDirError> {
    state.key(
        (AUTHORITY, RESTORE_MESH),
        AuthoritySecret::from_base64,
        AuthoritySecret::expose_base64,
        || AuthoritySecret::generate(&mut OsRng),
    )
}

fn log(state: &StateDir) -> Result<LogSecret, StateDirError> {
    state.key(
        (LOG, RESTORE_MESH),
        LogSecret::from_base64,
        LogSecret::expose_base64,
        || LogSecret::generate(&mut OsRng),
    )
}

/// The files of a mesh that are missing or empty.
fn loss(state: &StateDir, adopts: bool) -> Option<FoundingError> {
    let words = |name: &&str| match state.file(name).symlink_metadata() {
        Err(_) => Some(format!("{name} is missing")),
        Ok(meta) if meta.len() == 0 => Some(format!("{name} is empty")),
        Ok(_) => None,
    };
    // A new authority's key is made where the old one is named on purpose.
    let needed = [CONNECTION, AUTHORITY, LOG, DATABASE]
        .into_iter()
        .filter(|name| !(adopts && *name == AUTHORITY && !state.file(name).exists()));
    let missing: Vec<String> = needed.filter_map(|name| words(&name)).collect();
    let left = MESH.into_iter().filter(|name| words(name).is_none());
    let left: Vec<&str> = left.collect();
    let present = match left.as_slice() {
        [] => "nothing else is left".to_owned(),
        [one] => format!("{one} is there"),
        more => format!("{} are there", more.join(" and ")),
    };
    (!missing.is_empty()).then(|| FoundingError::Mesh {
        directory: state.path().to_owned(),
        missing: missing.join(" and "),
        present,
    })
}

/// Whether the files are all there and yet make no mesh.
fn is_lost(state: &StateDir, adopt_log: Option<AuthorityId>) -> Result<bool, FoundingError> {
    let keys = connection(state).and_then(|_| Ok((authority(state)?, log(state)?)));
    let (authority, log) = match keys {
        Ok(keys) => keys,
        Err(StateDirError::Key { .. }) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    // A change of the authority that was cut short: the mesh is of the next key already, and not lost.
    let next = std::fs::read_to_string(state.file(NEXT_AUTHORITY)).map(Zeroizing::new);
    let next = next
        .ok()
        .and_then(|line| AuthoritySecret::from_base64(line.trim()).ok());
    let trusted = adopt_log.into_iter().chain([authority.public()]);
    let trusted = trusted.chain(next.map(|next| next.public()));
    let trusted: Vec<AuthorityId> = trusted.collect();
    let path = state.file(DATABASE);
    match Log::resume(&path, log, &trusted) {
        Ok(_) => Ok(false),
        Err(error) if error.is_loss() => Ok(true),
        Err(source) => Err(FoundingError::Log { path, source }),
    }
}

/// Moves all files of the mesh into a directory of their own beside them.
fn set_aside(state: &StateDir) -> Result<(), FoundingError> {
    let seconds = Now::read().wall.as_second();
    let aside = state.file(&format!("old-mesh-{seconds}"));
    DirBuilder::new()
        .mode(0o700)
        .create(&aside)
        .map_err(refused("create", &aside))?;
    for name in MESH {
        let from = state.file(name);
        match std::fs::rename(&from, aside.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(refused("set aside", &from)(error).into());
            }
            Ok(()) | Err(_) => {}
        }
    }
    for folder in [aside.as_path(), state.path()] {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(refused("sync", folder))?;
    }
    tracing::warn!(
        old = %aside.display(),
        "a new mesh is founded, as --new-mesh says: what was left of the old one is set aside; every node has to enrol again"
    );
    Ok(())
}

/// Says that a mesh is being founded here. It is written before the first key, which would else look like the
/// rest of a mesh.
fn mark(marker: &Path) -> Result<(), FoundingError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let synced = options.open(marker).and_then(|file| file.sync_all());
    Ok(synced.map_err(refused("write", marker))?)
}

fn refused(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    let path = path.to_owned();
    move |source| StateDirError::Io { what, path, source }
}

const CONNECTION: &str = "connection.key";
const AUTHORITY: &str = "authority.key";
const NEXT_AUTHORITY: &str = "authority.key.new";
const LOG: &str = "log.key";
const DATABASE: &str = "controller.db";
/// Any of them says that there was a mesh.
const MESH: [&str; 9] = [
    CONNECTION,
    AUTHORITY,
    LOG,
    DATABASE,
    "controller.db-wal",
    "controller.db-shm",
    "controller.db-journal",
    "log.key.new",
    NEXT_AUTHORITY,
];
const FOUNDING: &str = "founding";
const IDENTITY: &str = "identity.key";
const WIREGUARD: &str = "wireguard.key";
const ENROLMENT: &str = "enrolment.json";
const RESTORE_MESH: &str = "restore it from the backup; or start once with --new-mesh, which sets aside \
     what there is and founds a new mesh, in which every node has to enrol again";
const RESTORE_NODE: &str = "restore it from a backup; or empty the state directory, and enrol again with \
     `meshctl token create --name NAME`: name and addresses stay";

#[cfg(test)]
mod tests;
