//! The state directory of a mesh whose nodes are all enrolled and have evidence on record, written through the log's
//! own interface: a controller enrols ten nodes a second at most.

use anyhow::Context as _;
use controller::event::{Accepted, Event, KeyIn, Probation};
use controller::fleet::{FIRST_HOST, Fleet};
use controller::log::{Log, Opened, path_in};
use jiff::{SignedDuration, Timestamp};
use keys::{
    AuthoritySecret, ControllerId, ControllerSecret, LogSecret, MeshId, NodeSecret, SegmentId,
    TokenHash, WgSecret,
};
use rand_core::{OsRng, RngCore as _};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use wire::evidence::{Benchmark, Signer, payload_digest};
use wire::{Digest, NodeName};

/// A mesh.
pub(crate) struct Mesh {
    pub(crate) id: MeshId,
    pub(crate) controller: ControllerId,
    pub(crate) nodes: Vec<Node>,
    authority: AuthoritySecret,
    log: LogSecret,
    folder: TempDir,
}

/// An enrolled node.
pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) secret: NodeSecret,
}

impl Mesh {
    /// Founds a mesh with so many nodes, and evidence of each that finished at `at`. Returns its log, open.
    pub(crate) fn found(nodes: usize, at: Timestamp) -> anyhow::Result<(Self, Opened)> {
        // Beside the programs and not in /tmp, which may be no disk at all.
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(parent)?;
        let folder = tempfile::tempdir_in(parent)?;
        let connection = ControllerSecret::generate(&mut OsRng);
        let mut id = MeshId([0; 16]);
        OsRng.fill_bytes(&mut id.0);
        let mut mesh = Self {
            id,
            controller: connection.public(),
            nodes: Vec::new(),
            authority: AuthoritySecret::generate(&mut OsRng),
            log: LogSecret::generate(&mut OsRng),
            folder,
        };
        let state = mesh.state();
        DirBuilder::new().mode(0o700).create(&state)?;
        write_key(&state, "connection.key", &connection.expose_base64())?;
        write_key(&state, "authority.key", &mesh.authority.expose_base64())?;
        write_key(&state, "log.key", &mesh.log.expose_base64())?;
        let mut opened = Log::open(&path_in(&state), mesh.log_key()?, &[])?;
        opened.log.found(&format!("meshd/{}", hex(&id.0)));
        let mut events = vec![Event::MeshCreated {
            mesh: id,
            authority: mesh.authority.public(),
        }];
        for number in 0..nodes {
            let (node, enrolment) = enrol(number, at)?;
            events.extend(enrolment);
            let envelope = mesh.evidence(&node, number as u64, None, at)?;
            events.push(accepted(&node, number as u64, envelope, at));
            mesh.nodes.push(node);
        }
        append(&mut opened.log, &mut opened.fleet, at, &events)?;
        Ok((mesh, opened))
    }

    /// Opens the log again.
    pub(crate) fn resume(&self) -> anyhow::Result<Opened> {
        let path = path_in(&self.state());
        Ok(Log::resume(
            &path,
            self.log_key()?,
            &[self.authority.public()],
        )?)
    }

    /// The controller's state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The directory that holds it, and is gone with the mesh.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A node's signed evidence of a run that finished at `finished`.
    pub(crate) fn evidence(
        &self,
        node: &Node,
        number: u64,
        challenge: Option<Digest>,
        finished: Timestamp,
    ) -> anyhow::Result<Vec<u8>> {
        let run = run(number, finished).bound_to(self.id, challenge);
        Ok(run.attest_self(node.name.as_str(), &node.secret)?)
    }

    fn log_key(&self) -> anyhow::Result<LogSecret> {
        Ok(LogSecret::from_base64(&self.log.expose_base64())?)
    }
}

/// Appends the events, some hundreds at a time, and folds them.
pub(crate) fn append(
    log: &mut Log,
    fleet: &mut Fleet,
    at: Timestamp,
    events: &[Event],
) -> anyhow::Result<()> {
    for events in events.chunks(512) {
        log.append(at, None, events, &[])?;
        events.iter().for_each(|event| fleet.apply(at, None, event));
    }
    Ok(())
}

/// Evidence as the controller puts it on record.
pub(crate) fn accepted(
    node: &Node,
    number: u64,
    envelope: Vec<u8>,
    finished_at: Timestamp,
) -> Event {
    let run = run(number, finished_at);
    Event::EvidenceAccepted(Box::new(Accepted {
        name: node.name.clone(),
        digest: Digest(payload_digest(&envelope).unwrap_or_default()),
        overall: run.overall,
        metrics: run.metrics,
        lower_is_better: run.lower_is_better,
        samples: run.samples_total,
        harness: run.harness,
        suite: run.suite,
        suite_version: run.suite_version,
        finished_at: run.finished_at,
        signer: Signer::Node(node.secret.public()),
        nonce: run.nonce,
        envelope: String::from_utf8_lossy(&envelope).into_owned(),
        boot_ms: 1,
    }))
}

/// Run `number`, of the size that runs of real harnesses have.
fn run(number: u64, finished: Timestamp) -> Benchmark {
    let score = 0.8 + (number % 1_000) as f64 / 10_000.0;
    let metrics = [
        ("refusals/accuracy", score),
        ("refusals/stderr", 0.012),
        ("tool_use/accuracy", score - 0.03),
    ];
    Benchmark {
        harness: "inspect".into(),
        suite: "agent-safety".into(),
        suite_version: "3".into(),
        harness_version: Some("0.3.285".into()),
        model: Some("vendor/model-2026-10".into()),
        metrics: BTreeMap::from(metrics.map(|(name, value)| (name.to_owned(), value))),
        lower_is_better: std::collections::BTreeSet::new(),
        overall: Some(score),
        samples_total: 250,
        samples_completed: 250,
        started_at: finished
            .checked_sub(SignedDuration::from_secs(20))
            .unwrap_or(finished),
        finished_at: finished,
        nonce: format!("{number:032x}"),
        log_digest: Some(Digest([7; 32]).to_string()),
        mesh: None,
        challenge: None,
    }
}

fn enrol(number: usize, at: Timestamp) -> anyhow::Result<(Node, [Event; 2])> {
    let node = Node {
        name: format!("node-{number}").parse().context("a node's name")?,
        secret: NodeSecret::generate(&mut OsRng),
    };
    let token = format!("{number:08x}");
    let created = Event::TokenCreated {
        id: token.clone(),
        hash: TokenHash([number as u8; 32]),
        name: None,
        expires_unix: at.as_second().unsigned_abs() + 3_600,
        uses: 1,
        segments: vec![SegmentId::FIRST],
        boot_ms: 1,
    };
    let enrolled = Event::NodeEnrolled {
        name: node.name.clone(),
        node: node.secret.public(),
        keys: vec![KeyIn {
            segment: SegmentId::FIRST,
            wg: WgSecret::generate(&mut OsRng).public(),
        }],
        host: FIRST_HOST + u32::try_from(number)?,
        token,
        probation: vec![Probation {
            segment: SegmentId::FIRST,
            epochs: 0,
        }],
    };
    Ok((node, [created, enrolled]))
}

fn write_key(state: &Path, name: &str, line: &str) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(state.join(name))?;
    Ok(writeln!(file, "{line}")?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
