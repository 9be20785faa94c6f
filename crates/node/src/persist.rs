//! What a node remembers across restarts, in its state directory: where it is enrolled, and the
//! newest epoch that it accepted. Files are 0600 and replaced whole.

use crate::io::rights::{self, Keep};
use epoch::member::HighWater;
use keys::{AuthorityId, ControllerId, Epoch, MeshId, SegmentId};
use serde::{Deserialize, Serialize};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use wire::message::Place;
use wire::{Digest, NodeName, Token};

/// What enrolment left behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Enrolment {
    pub(crate) name: NodeName,
    pub(crate) controllers: Vec<String>,
    pub(crate) controller: ControllerId,
    pub(crate) authorities: Vec<AuthorityId>,
    pub(crate) mesh: MeshId,
    pub(crate) segment: SegmentId,
    pub(crate) v4: (Ipv4Addr, u8),
    pub(crate) v6: (Ipv6Addr, u8),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Newest {
    epoch: Epoch,
    digest: Digest,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error(
        "{path} is damaged ({source}): restore it, or remove the state directory and enrol again"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        source: serde_json::Error,
    },
}

/// The node's files.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn enrolment(&self) -> Result<Option<Enrolment>, PersistError> {
        read(&self.0.join(ENROLMENT))
    }

    pub(crate) fn save_enrolment(&self, enrolment: &Enrolment) -> Result<(), PersistError> {
        write(&self.0, ENROLMENT, enrolment)
    }

    pub(crate) fn high_water(&self) -> Result<HighWater, PersistError> {
        let newest: Option<Newest> = read(&self.0.join(EPOCH))?;
        Ok(newest.map_or_else(HighWater::default, |n| HighWater {
            epoch: n.epoch,
            digest: n.digest,
        }))
    }

    pub(crate) fn save_high_water(&self, high: HighWater) -> Result<(), PersistError> {
        write(
            &self.0,
            EPOCH,
            &Newest {
                epoch: high.epoch,
                digest: high.digest,
            },
        )
    }

    /// Forgets an epoch of a mesh that this node has left.
    pub(crate) fn forget_epoch(&self) -> Result<(), PersistError> {
        self.save_high_water(HighWater::default())
    }
}

/// Writes the newest epoch on a thread of its own, because a disk that is slow must hold up no epoch.
/// Of several that wait only the last is written. What waits is written before this is gone.
pub(crate) struct Keeper {
    wanted: Option<mpsc::Sender<Wanted>>,
    thread: Option<JoinHandle<()>>,
}

enum Wanted {
    Newest(HighWater),
    /// Answered when everything before it is written.
    Pause(mpsc::Sender<()>),
}

impl Keeper {
    pub(crate) fn start(state: StateDir) -> io::Result<Self> {
        let (wanted, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new().name("meshd-state".into());
        let thread = thread.spawn(move || {
            rights::reduce(Keep::FILES);
            keep(&state, &inbox);
        })?;
        Ok(Self {
            wanted: Some(wanted),
            thread: Some(thread),
        })
    }

    /// Has `high` written soon. A failure is logged: it matters only after a restart.
    pub(crate) fn keep(&self, high: HighWater) {
        self.send(Wanted::Newest(high));
    }

    /// Waits until nothing is left to write.
    pub(crate) fn settle(&self) {
        let (done, wait) = mpsc::channel();
        self.send(Wanted::Pause(done));
        // An error means that the thread is gone, and writes nothing any more.
        let _ = wait.recv();
    }

    fn send(&self, wanted: Wanted) {
        if let Some(sender) = &self.wanted {
            // The thread ends only with the sender.
            let _ = sender.send(wanted);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

fn keep(state: &StateDir, inbox: &mpsc::Receiver<Wanted>) {
    while let Ok(first) = inbox.recv() {
        let (mut newest, mut waiting) = (None, Vec::new());
        for wanted in std::iter::once(first).chain(inbox.try_iter()) {
            match wanted {
                Wanted::Newest(high) => newest = Some(high),
                Wanted::Pause(done) => waiting.push(done),
            }
        }
        if let Some(Err(error)) = newest.map(|high| state.save_high_water(high)) {
            tracing::error!(%error, "the newest epoch is not remembered across a restart");
        }
        // Dropped, and so answered.
        drop(waiting);
    }
}

impl Enrolment {
    pub(crate) fn new(token: &Token, place: &Place) -> Self {
        Self {
            name: place.name.clone(),
            controllers: token.controllers.clone(),
            controller: token.controller,
            authorities: token.authorities.clone(),
            mesh: place.mesh,
            segment: place.segment,
            v4: place.v4,
            v6: place.v6,
        }
    }

    /// The same controller, another place.
    pub(crate) fn moved_to(&self, place: &Place) -> Self {
        Self {
            name: place.name.clone(),
            mesh: place.mesh,
            segment: place.segment,
            v4: place.v4,
            v6: place.v6,
            ..self.clone()
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            mesh: self.mesh,
            segment: self.segment,
            name: self.name.clone(),
            v4: self.v4,
            v6: self.v6,
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, PersistError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| PersistError::Damaged {
                    path: path.to_owned(),
                    source,
                })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PersistError::Io {
            what: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes a temporary file, syncs it and renames it over the old one.
fn write(dir: &Path, name: &str, value: &impl Serialize) -> Result<(), PersistError> {
    let path = dir.join(name);
    let refused = |source| PersistError::Io {
        what: "write",
        path: path.clone(),
        source,
    };
    let text = serde_json::to_vec_pretty(value).map_err(|error| refused(error.into()))?;
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(refused)?;
    file.write_all(&text)
        .and_then(|()| file.as_file().sync_all())
        .map_err(refused)?;
    file.persist(&path).map_err(|error| refused(error.error))?;
    Ok(())
}

const ENROLMENT: &str = "enrolment.json";
const EPOCH: &str = "epoch.json";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_newest_epoch_survives_and_a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().to_owned());
        assert_eq!(state.high_water().unwrap(), HighWater::default());
        let high = HighWater {
            epoch: Epoch(7),
            digest: Digest([3; 32]),
        };
        state.save_high_water(high).unwrap();
        assert_eq!(state.high_water().unwrap(), high);
        let path = dir.path().join(EPOCH);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        std::fs::write(&path, "{").unwrap();
        assert!(
            state
                .high_water()
                .unwrap_err()
                .to_string()
                .contains("epoch.json is damaged")
        );
    }

    #[test]
    fn what_was_given_to_keep_last_is_on_disk_once_it_settles_and_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().to_owned());
        let high = |epoch| HighWater {
            epoch: Epoch(epoch),
            digest: Digest([3; 32]),
        };
        let keeper = Keeper::start(state.clone()).unwrap();
        (1..50).for_each(|epoch| keeper.keep(high(epoch)));
        keeper.settle();
        assert_eq!(state.high_water().unwrap(), high(49));
        keeper.keep(high(50));
        drop(keeper);
        assert_eq!(state.high_water().unwrap(), high(50));
    }
}
