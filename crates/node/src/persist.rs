//! A node's memory across restarts, in its state directory: where it is enrolled, and of each segment the
//! newest epoch that it accepted. Files are 0600 and replaced whole.
//!
//! The file is long because it holds every file of a node's memory, and a quarter of it is tests.

use crate::io::rights::{self, Keep};
use agent::SeenRun;
use epoch::member::HighWater;
use jiff::Timestamp;
use keys::{AuthorityId, ControllerId, Epoch, MeshId, NodeId, SegmentId, WgPublicKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use wire::log::LogEnd;
use wire::{Digest, Mark, NodeName, Place, SegmentName, Signed};

/// The result of enrolment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Enrolment {
    pub(crate) name: NodeName,
    pub(crate) controllers: Vec<String>,
    pub(crate) controller: ControllerId,
    pub(crate) authorities: Vec<AuthorityId>,
    pub(crate) mesh: MeshId,
    /// The identity that was enrolled.
    pub(crate) node: NodeId,
    /// The segments that the node is in, each once.
    pub(crate) segments: Vec<EnrolledSegment>,
}

/// A segment that a node is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrolledSegment {
    pub(crate) segment: SegmentId,
    pub(crate) name: SegmentName,
    pub(crate) v4: (Ipv4Addr, u8),
    pub(crate) v6: (Ipv6Addr, u8),
    /// The node's key in it.
    pub(crate) wg: WgPublicKey,
    /// Whether key file and interface are named after the segment. The first one that a node enrols in has
    /// `wireguard.key`, and the interface of the settings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) by_name: bool,
}

/// The public halves of the keys that a node has in its state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnKeys {
    pub(crate) node: NodeId,
    pub(crate) wg: WgPublicKey,
}

/// The newest epoch that was in force here, and the authority's word for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Newest {
    pub(crate) epoch: Epoch,
    pub(crate) digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<Signed<Mark>>,
}

/// The memory of one mesh.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfMesh {
    /// The end of the controller's log by the newest checkpoint that was kept then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<LogEnd>,
    /// The newest epoch of each segment that the node was ever in, by number.
    segments: BTreeMap<u32, Newest>,
}

/// A run that has come from a file, by its nonce, with the time at which it was seen to have finished first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptRun {
    nonce: String,
    finished_at: Timestamp,
}

/// The memory of every mesh that this node was ever in, by the mesh as printed. It only grows: a node that is sent
/// into another mesh and back must not take what it had refused before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Memory(BTreeMap<String, OfMesh>);

impl Memory {
    /// The newest epoch of a segment that was in force here.
    pub(crate) fn of(&self, mesh: MeshId, segment: SegmentId) -> Option<&Newest> {
        self.0.get(&mesh.to_string())?.segments.get(&segment.0)
    }

    /// The mark that an update has to be newer than.
    pub(crate) fn high_water(&self, mesh: MeshId, segment: SegmentId) -> HighWater {
        self.of(mesh, segment)
            .map_or_else(HighWater::default, |n| HighWater {
                epoch: n.epoch,
                digest: n.digest,
            })
    }

    /// The end of a mesh's log.
    pub(crate) fn log(&self, mesh: MeshId) -> Option<LogEnd> {
        self.0.get(&mesh.to_string())?.log
    }

    /// The marks of all of its segments.
    pub(crate) fn marks(&self, mesh: MeshId) -> Vec<Signed<Mark>> {
        let known = self.0.get(&mesh.to_string());
        let newest = known.into_iter().flat_map(|it| it.segments.values());
        newest.filter_map(|it| it.mark.clone()).collect()
    }

    /// Takes the newest epoch of a segment, and the end of the log.
    pub(crate) fn keep(
        &mut self,
        mesh: MeshId,
        segment: SegmentId,
        newest: Newest,
        log: Option<LogEnd>,
    ) {
        let of_mesh = self.0.entry(mesh.to_string()).or_default();
        of_mesh.segments.insert(segment.0, newest);
        of_mesh.log = log.or(of_mesh.log);
    }
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The action that failed.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged ({source}): restore it; or {way_out}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        source: serde_json::Error,
        /// The way out without a copy.
        way_out: &'static str,
    },
    /// A key is not the one that was enrolled.
    #[error(
        "{key} is not the key that this node is enrolled with by {enrolment}: restore that key; or move \
         {enrolment} away and start once with a token from `meshctl token create --name {name}`: name and \
         addresses stay"
    )]
    OtherKey {
        /// The key's file.
        key: PathBuf,
        /// The enrolment's.
        enrolment: PathBuf,
        /// The node's name.
        name: NodeName,
    },
}

/// The node's files.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Device and inode of the file that this process holds locked; `None` if they are not shown.
    pub(crate) fn lock(&self) -> Option<(u64, u64)> {
        let meta = std::fs::metadata(self.0.join(LOCK)).ok()?;
        Some((meta.dev(), meta.ino()))
    }

    /// The enrolment, if there is one, of a node with these keys.
    pub(crate) fn enrolment(&self, keys: OwnKeys) -> Result<Option<Enrolment>, PersistError> {
        let path = self.0.join(ENROLMENT);
        let Some(enrolment) = read::<Enrolment>(&path, ENROL_AGAIN)? else {
            return Ok(None);
        };
        let first = enrolment.segments.iter().find(|it| !it.by_name);
        let other = match () {
            () if enrolment.node != keys.node => Some("identity.key"),
            () if first.is_some_and(|it| it.wg != keys.wg) => Some("wireguard.key"),
            () => None,
        };
        match other {
            None => Ok(Some(enrolment)),
            Some(key) => Err(self.other_key(key, &enrolment)),
        }
    }

    /// The refusal of a key that is not the one that was enrolled.
    pub(crate) fn other_key(&self, file: &str, enrolment: &Enrolment) -> PersistError {
        PersistError::OtherKey {
            key: self.0.join(file),
            enrolment: self.0.join(ENROLMENT),
            name: enrolment.name.clone(),
        }
    }

    /// Whether there is a file of this name.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.0.join(file).exists()
    }

    fn save_enrolment(&self, enrolment: &Enrolment) -> Result<(), PersistError> {
        write(&self.0, ENROLMENT, enrolment)
    }

    /// The same on a thread with the rights of the caller's: nobody else waits for the disk.
    pub(crate) async fn save_enrolment_aside(
        &self,
        enrolment: Enrolment,
    ) -> Result<(), PersistError> {
        let refused = |source| PersistError::Io {
            what: "write",
            path: self.0.join(ENROLMENT),
            source,
        };
        let (state, (done, saved)) = (self.clone(), oneshot::channel());
        let thread = std::thread::Builder::new().name("meshd-state".into());
        let save = move || {
            rights::reduce(Keep::FILES);
            // A node that was told to stop meanwhile does not wait.
            let _ = done.send(state.save_enrolment(&enrolment));
        };
        thread.spawn(save).map_err(refused)?;
        let gone = |_| {
            Err(refused(io::Error::other(
                "the thread that writes has ended",
            )))
        };
        saved.await.unwrap_or_else(gone)
    }

    /// `None` if there is no file: that of a node that was enrolled is lost.
    pub(crate) fn memory(&self) -> Result<Option<Memory>, PersistError> {
        read(&self.0.join(EPOCHS), FORGET)
    }

    pub(crate) fn save_memory(&self, memory: &Memory) -> Result<(), PersistError> {
        write(&self.0, EPOCHS, memory)
    }

    /// The runs that have come from files; none where there is no file.
    pub(crate) fn seen_runs(&self) -> Result<Vec<SeenRun>, PersistError> {
        let kept: Option<Vec<KeptRun>> = read(&self.0.join(RUNS), FORGET_RUNS)?;
        let runs = kept.unwrap_or_default().into_iter();
        Ok(runs
            .map(|run| SeenRun {
                nonce: run.nonce,
                finished_at: run.finished_at,
            })
            .collect())
    }

    fn save_seen_runs(&self, runs: Vec<SeenRun>) -> Result<(), PersistError> {
        let kept = runs.into_iter().map(|run| KeptRun {
            nonce: run.nonce,
            finished_at: run.finished_at,
        });
        write(&self.0, RUNS, &kept.collect::<Vec<_>>())
    }
}

/// Writes the newest epoch on a thread of its own, because a disk that is slow must hold up no epoch.
/// Only the last of several that wait is written. Writes the enrolment too, where it changes.
pub(crate) struct Keeper {
    wanted: mpsc::Sender<Wanted>,
    /// Why the last write failed, if it did.
    fault: watch::Receiver<Option<String>>,
    /// Hung up when the thread has ended.
    ended: mpsc::Receiver<()>,
}

enum Wanted {
    Newest(SegmentId, Newest, Option<LogEnd>),
    Runs(Vec<SeenRun>),
    Place(Box<Enrolment>),
    Enrolment(Box<Enrolment>),
}

impl Keeper {
    /// Keeps what was newest in `mesh`, beside what `memory` holds of others.
    pub(crate) fn start(state: StateDir, memory: Memory, mesh: MeshId) -> io::Result<Self> {
        let (wanted, inbox) = mpsc::channel();
        let (ending, ended) = mpsc::channel();
        let (told, fault) = watch::channel(None);
        let thread = std::thread::Builder::new().name("meshd-state".into());
        thread.spawn(move || {
            rights::reduce(Keep::FILES);
            keep(&state, memory, mesh, (&inbox, &told));
            drop(ending);
        })?;
        Ok(Self {
            wanted,
            fault,
            ended,
        })
    }

    /// Why the last write failed, if it did; says when that changes.
    pub(crate) fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.clone()
    }

    /// Has the newest epoch of a segment written soon, and the end of the log. A failure is logged: it matters only
    /// after a restart.
    pub(crate) fn keep(&self, segment: SegmentId, newest: Newest, log: Option<LogEnd>) {
        // The thread ends only with the sender.
        let _ = self.wanted.send(Wanted::Newest(segment, newest, log));
    }

    /// Has the runs that came from files written soon. A failure is logged: it matters only after a restart.
    pub(crate) fn keep_runs(&self, runs: Vec<SeenRun>) {
        let _ = self.wanted.send(Wanted::Runs(runs));
    }

    /// Has another place of this node written soon, and the operator told.
    pub(crate) fn keep_place(&self, enrolment: Enrolment) {
        let _ = self.wanted.send(Wanted::Place(Box::new(enrolment)));
    }

    /// Has the enrolment written soon, with what has changed in it.
    pub(crate) fn keep_enrolment(&self, enrolment: Enrolment) {
        let _ = self.wanted.send(Wanted::Enrolment(Box::new(enrolment)));
    }

    /// Waits until everything is written, but no longer than `limit`.
    pub(crate) fn stop(self, limit: Duration) {
        drop(self.wanted);
        if self.ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the disk does not take the newest epoch: it may be forgotten");
        }
    }
}

fn keep(
    state: &StateDir,
    mut memory: Memory,
    mesh: MeshId,
    (inbox, fault): (&mpsc::Receiver<Wanted>, &watch::Sender<Option<String>>),
) {
    // A value that was not written is tried again with the next.
    let (mut is_news, mut runs, mut enrolled) = (false, None, None);
    while let Ok(first) = inbox.recv() {
        for wanted in std::iter::once(first).chain(inbox.try_iter()) {
            match wanted {
                Wanted::Newest(segment, newest, log) => {
                    memory.keep(mesh, segment, newest, log);
                    is_news = true;
                }
                Wanted::Runs(it) => runs = Some(it),
                Wanted::Place(enrolment) => keep_place(state, &enrolment),
                Wanted::Enrolment(enrolment) => enrolled = Some(enrolment),
            }
        }
        let mut failed = None;
        if let Some(it) = enrolled.take()
            && let Err(error) = state.save_enrolment(&it)
        {
            tracing::error!(%error, "the enrolment as it is now is not remembered across a restart");
            (failed, enrolled) = (Some(error), Some(it));
        }
        if let Some(it) = runs.take()
            && let Err(error) = state.save_seen_runs(it.clone())
        {
            tracing::error!(%error, "the runs that came from files are not remembered across a restart");
            (failed, runs) = (Some(error), Some(it));
        }
        if is_news {
            match state.save_memory(&memory) {
                Ok(()) => is_news = false,
                Err(error) => {
                    tracing::error!(%error, "the newest epoch is not remembered across a restart");
                    failed = Some(error);
                }
            }
        }
        let failed = failed.map(|error| error.to_string());
        fault.send_if_modified(|before| {
            let is_news = *before != failed;
            *before = failed;
            is_news
        });
    }
}

fn keep_place(state: &StateDir, enrolment: &Enrolment) {
    match state.save_enrolment(enrolment) {
        Ok(()) => tracing::error!("the controller has another place for this node: restart it"),
        Err(error) => {
            tracing::error!(%error, "the controller has another place for this node: enrol it again");
        }
    }
}

impl Enrolment {
    /// The same, with another place where it was in that segment before.
    pub(crate) fn moved_to(&self, place: &Place) -> Self {
        let mut moved = Self {
            name: place.name.clone(),
            mesh: place.mesh,
            ..self.clone()
        };
        for it in &mut moved.segments {
            if it.segment == place.segment {
                (it.name, it.v4, it.v6) = (place.segment_name.clone(), place.v4, place.v6);
            }
        }
        moved
    }

    /// The node's place in one of its segments.
    pub(crate) fn place(&self, segment: &EnrolledSegment) -> Place {
        Place {
            node: self.node,
            mesh: self.mesh,
            segment: segment.segment,
            segment_name: segment.name.clone(),
            name: self.name.clone(),
            v4: segment.v4,
            v6: segment.v6,
        }
    }
}

impl EnrolledSegment {
    /// At this place, with this key.
    pub(crate) fn new(place: &Place, wg: WgPublicKey, by_name: bool) -> Self {
        Self {
            segment: place.segment,
            name: place.segment_name.clone(),
            v4: place.v4,
            v6: place.v6,
            wg,
            by_name,
        }
    }

    /// The file of the node's key in it.
    pub(crate) fn key_file(&self) -> String {
        if self.by_name {
            key_file(&self.name)
        } else {
            "wireguard.key".to_owned()
        }
    }
}

/// The file of a node's key in a segment that it did not enrol in first.
pub(crate) fn key_file(segment: &SegmentName) -> String {
    format!("wireguard-{segment}.key")
}

fn read<T: for<'de> Deserialize<'de>>(
    path: &Path,
    way_out: &'static str,
) -> Result<Option<T>, PersistError> {
    // Opening a FIFO would wait for somebody who writes to it.
    let is_file = path.metadata().map(|meta| meta.is_file());
    let bytes = match is_file {
        Ok(false) => Err(io::Error::other("it is no regular file")),
        Ok(true) | Err(_) => std::fs::read(path),
    };
    match bytes {
        Ok(bytes) => {
            serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| PersistError::Damaged {
                    path: path.to_owned(),
                    source,
                    way_out,
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

const LOCK: &str = "lock";
const ENROLMENT: &str = "enrolment.json";
const EPOCHS: &str = "epochs.json";
const RUNS: &str = "runs.json";
const ENROL_AGAIN: &str = "move it away and start once with a token from `meshctl token create --name NAME` at \
     the controller: name and addresses stay";
const FORGET: &str = "move it away: the node then starts without its memory of the newest epoch, and cannot tell \
     an old copy of its controller until it has heard the next one";

const FORGET_RUNS: &str = "move it away: a result file that does not say when its run finished then counts as \
     young as its file is";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const MESH: MeshId = MeshId([1; 16]);
    const PATIENCE: Duration = Duration::from_secs(60);

    fn newest(epoch: u64) -> Newest {
        Newest {
            epoch: Epoch(epoch),
            digest: Digest([3; 32]),
            mark: None,
        }
    }

    fn epoch_of(state: &StateDir, mesh: MeshId, segment: u32) -> u64 {
        let memory = state.memory().unwrap().unwrap_or_default();
        memory.high_water(mesh, SegmentId(segment)).epoch.0
    }

    #[test]
    fn the_newest_epoch_survives_and_a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().to_owned());
        assert_eq!(epoch_of(&state, MESH, 0), 0);
        let authority = keys::AuthoritySecret::generate(&mut rand_core::OsRng);
        let mark = Mark {
            mesh: MESH,
            segment: SegmentId::FIRST,
            epoch: Epoch(7),
            update: Digest([3; 32]),
            log: LogEnd {
                events: 9,
                root: Digest([4; 32]),
            },
            log_key: keys::LogId([5; 32]),
        };
        let signed = Signed::sign(&mark, &authority).unwrap();
        let mut memory = Memory::default();
        let newest = Newest {
            mark: Some(signed),
            ..newest(7)
        };
        memory.keep(MESH, SegmentId::FIRST, newest, Some(mark.log));
        state.save_memory(&memory).unwrap();
        let read = state.memory().unwrap().unwrap();
        assert_eq!(read.log(MESH), Some(mark.log));
        let newest = read.of(MESH, SegmentId::FIRST).unwrap();
        let proof = newest.mark.as_ref().unwrap().verify(&[authority.public()]);
        assert_eq!(*proof.unwrap(), mark, "the signature survives too");
        let path = dir.path().join(EPOCHS);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        for damage in ["", "{", "null", "[]"] {
            std::fs::write(&path, damage).unwrap();
            let error = state.memory().unwrap_err().to_string();
            assert!(error.contains("epochs.json is damaged"), "{error}");
            assert!(error.contains("move it away"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(state.memory().unwrap().is_none(), "lost is not empty");
    }

    fn own_keys() -> OwnKeys {
        let mut rng = rand_core::OsRng;
        OwnKeys {
            node: keys::NodeSecret::generate(&mut rng).public(),
            wg: keys::WgSecret::generate(&mut rng).public(),
        }
    }

    #[test]
    fn a_key_that_was_not_enrolled_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().to_owned());
        let keys = own_keys();
        assert!(state.enrolment(keys).unwrap().is_none());
        let segment = |number, wg, by_name| EnrolledSegment {
            segment: SegmentId(number),
            name: "training".parse().unwrap(),
            v4: ([10, 76, 0, 2].into(), 16),
            v6: ("fd00::2".parse().unwrap(), 64),
            wg,
            by_name,
        };
        let further = segment(1, own_keys().wg, true);
        assert_eq!(further.key_file(), "wireguard-training.key");
        let enrolment = Enrolment {
            name: "node-a".parse().unwrap(),
            controllers: Vec::new(),
            controller: ControllerId([1; 32]),
            authorities: Vec::new(),
            mesh: MESH,
            node: keys.node,
            segments: vec![further, segment(0, keys.wg, false)],
        };
        state.save_enrolment(&enrolment).unwrap();
        let read = state.enrolment(keys).unwrap().unwrap();
        assert_eq!(read.segments, enrolment.segments);
        let other = own_keys();
        let identity = OwnKeys {
            node: other.node,
            ..keys
        };
        let wireguard = OwnKeys {
            wg: other.wg,
            ..keys
        };
        for (keys, file) in [(identity, "identity.key"), (wireguard, "wireguard.key")] {
            let error = state.enrolment(keys).unwrap_err().to_string();
            let way_out = "meshctl token create --name node-a";
            assert!(error.contains(file) && error.contains(way_out), "{error}");
        }
        for damage in ["", "{}"] {
            std::fs::write(dir.path().join(ENROLMENT), damage).unwrap();
            let error = state.enrolment(keys).unwrap_err().to_string();
            assert!(error.contains("enrolment.json is damaged"), "{error}");
        }
    }

    #[test]
    fn what_was_given_to_keep_last_is_on_disk_when_it_ends_and_other_meshes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().to_owned());
        let keeper = Keeper::start(state.clone(), Memory::default(), MESH).unwrap();
        let log = |events| {
            Some(LogEnd {
                events,
                root: Digest([4; 32]),
            })
        };
        (1..50).for_each(|epoch| keeper.keep(SegmentId(0), newest(epoch), log(epoch)));
        keeper.keep(SegmentId(1), newest(7), log(60));
        keeper.stop(PATIENCE);
        let epochs = [0, 1].map(|segment| epoch_of(&state, MESH, segment));
        assert_eq!(epochs, [49, 7]);
        assert_eq!(state.memory().unwrap().unwrap().log(MESH), log(60));
        let other = MeshId([2; 16]);
        let keeper = Keeper::start(state.clone(), state.memory().unwrap().unwrap(), other).unwrap();
        keeper.keep(SegmentId(0), newest(3), None);
        keeper.stop(PATIENCE);
        assert_eq!(epoch_of(&state, MESH, 0), 49);
        assert_eq!(epoch_of(&state, other, 0), 3);
    }

    #[test]
    fn the_runs_that_came_from_files_survive_and_a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().to_owned());
        assert_eq!(state.seen_runs().unwrap(), []);
        let runs = vec![SeenRun {
            nonce: "0".repeat(32),
            finished_at: Timestamp::from_second(1_000).unwrap(),
        }];
        let keeper = Keeper::start(state.clone(), Memory::default(), MESH).unwrap();
        keeper.keep_runs(runs.clone());
        keeper.stop(PATIENCE);
        assert_eq!(state.seen_runs().unwrap(), runs);
        std::fs::write(dir.path().join(RUNS), "{").unwrap();
        let error = state.seen_runs().unwrap_err().to_string();
        assert!(error.contains("runs.json is damaged"), "{error}");
    }
}
