//! The event log against Go's `golang.org/x/mod/sumdb`: a program in `verify/` that has nothing of meshd in it
//! believes what a controller's log says of itself, and nothing that was changed afterwards.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::{LogId, LogSecret, NodeSecret};
use ledger::cosignature::{cosign, printed};
use ledger::note::Verifier;
use ledger::proof::{self, Nodes};
use ledger::tile::{Place, Tile};
use ledger::{Checkpoint, Hash, Tree};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tests::harness::{CONTROLLER, Mesh};
use wire::admin::{LogConsistency, LogProof, LogStatus};

const ORIGIN: &str = "meshd/interop";

/// The log's key in these tests, and another one.
const KEY: [u8; 32] = [7; 32];
const OTHER: [u8; 32] = [8; 32];

#[test]
fn gos_verifier_believes_a_log_that_is_made_here() {
    for (old, new, seq) in [
        (1, 1, 1),
        (1, 2, 2),
        (2, 3, 1),
        (255, 256, 256),
        (256, 257, 257),
        (300, 1000, 256),
        (768, 70_000, 65_537),
    ] {
        let log = Log::of(new, "");
        let dir = log.shown(old, seq);
        let said = verdict(dir.path());
        let wanted = format!(
            "{new} entries have the root that {ORIGIN} signed; entry {seq} is one of them; {new} entries \
             extend {old}; node-a has seen it"
        );
        assert_eq!(said.as_deref().map(str::trim), Ok(wanted.as_str()));
    }
}

#[test]
fn gos_verifier_says_what_was_changed() {
    let forked = Log::of(300, "forked").shown(200, 7);
    let shorter = Log::of(299, "").shown(200, 7);
    let fork = |name: &str| fs::read_to_string(forked.path().join(name)).expect("it was written");
    let short = |name: &str| fs::read_to_string(shorter.path().join(name)).expect("it was written");
    let log = Log::of(300, "");
    type Change<'a> = (&'a str, &'a dyn Fn(&str) -> String, &'a str);
    let changes: [Change<'_>; 18] = [
        (
            "vkey",
            &|_| verifier(OTHER).to_string(),
            "no verifiable signatures",
        ),
        ("vkey", &|it| it.replace(ORIGIN, "meshd/other"), "vkey"),
        (
            "checkpoint",
            &|it| it.replace("\n300\n", "\n299\n"),
            "invalid signature",
        ),
        (
            "checkpoint",
            &|it| it.replace(ORIGIN, "meshd/other"),
            "no verifiable signatures",
        ),
        (
            "checkpoint",
            &|_| fork("checkpoint"),
            "entries: their root is",
        ),
        (
            "entries",
            &|it| it.replace("entry 17 ", "entry 71 "),
            "entries: their root is",
        ),
        (
            "entries",
            &|it| it.replacen('\n', " \n", 1),
            "entries: their root is",
        ),
        ("entries", &|_| fork("entries"), "entries: their root is"),
        (
            "entries",
            &|_| short("entries"),
            "entries: 299, where the checkpoint has 300",
        ),
        (
            "entries",
            &|it| it.replace("{\"seq\":9,", "{\"seq\":8,"),
            "line 9: it is entry 8",
        ),
        (
            "proof.json",
            &|it| edit::<LogProof>(it, |it| it.proof[3] = it.leaf.clone()),
            "proof.json",
        ),
        (
            "proof.json",
            &|it| edit::<LogProof>(it, |it| drop(it.proof.pop())),
            "proof.json",
        ),
        (
            "proof.json",
            &|it| edit::<LogProof>(it, |it| it.seq += 1),
            "not that of exported entry 8",
        ),
        (
            "proof.json",
            &|_| fork("proof.json"),
            "not that of exported entry 7",
        ),
        (
            "consistency.json",
            &|it| edit::<LogConsistency>(it, |it| it.proof.swap(0, 1)),
            "consistency.json",
        ),
        (
            "consistency.json",
            &|_| fork("consistency.json"),
            "another log than the older checkpoint",
        ),
        (
            "older",
            &|_| fork("older"),
            "another log than the older checkpoint",
        ),
        (
            "cosigner",
            &|_| cosigner("node-b", &node()),
            "cosigner: note has no verifiable signatures",
        ),
    ];
    for (name, change, why) in changes {
        let dir = log.shown(200, 7);
        let path = dir.path().join(name);
        let honest = fs::read_to_string(&path).expect("it was written");
        let changed = change(&honest);
        assert_ne!(honest, changed, "{name}: {why}");
        fs::write(&path, changed).expect("the folder can be written");
        let said = verdict(dir.path()).expect_err(name);
        assert!(said.contains(why), "{name}: {said} instead of {why}");
    }
}

/// A log that is rewritten is one whose old checkpoint nothing extends, whatever its key signs.
#[test]
fn gos_verifier_refuses_a_log_that_was_rewritten_and_signed_again() {
    let dir = Log::of(300, "rewritten").shown(200, 7);
    let honest = Log::of(200, "").shown(200, 7);
    fs::copy(honest.path().join("checkpoint"), dir.path().join("older")).expect("it was written");
    let said = verdict(dir.path()).expect_err("it is another log");
    assert!(
        said.contains("another log than the older checkpoint"),
        "{said}"
    );
    // Its controller says that the old root is the honest one: the proof does not lead there.
    let root = Log::of(200, "").tree.root().to_string();
    let path = dir.path().join("consistency.json");
    let said = fs::read_to_string(&path).expect("it was written");
    let lied = edit::<LogConsistency>(&said, |it| it.from_root = root);
    fs::write(&path, lied).expect("the folder can be written");
    let said = verdict(dir.path()).expect_err("it is another log");
    assert!(said.contains("consistency.json"), "{said}");
}

#[test]
fn gos_verifier_proves_an_event_of_a_running_controller() {
    let mut mesh = Mesh::builder().nodes(2).start();
    let nodes = mesh.nodes();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let said = |mesh: &Mesh, arguments: &[&str]| {
        let output = mesh.meshctl(CONTROLLER, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("meshctl prints text")
    };
    let keep = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).expect("the folder can be written");
    };
    let older = said(&mesh, &["log", "checkpoint"]);
    let size: LogStatus = mesh.ask(CONTROLLER, &["log", "checkpoint"]);
    keep("older", &size.checkpoint);
    assert!(older.starts_with(&size.origin), "{older}");

    mesh.evict(&nodes[0]);
    mesh.rotate();
    let from = size.size.to_string();
    let evicted = said(&mesh, &["log", "export", "--after", &from]);
    let evicted = evicted.lines().find(|line| line.contains("evicted"));
    let evicted: serde_json::Value =
        serde_json::from_str(evicted.expect("the eviction is an event")).expect("it is JSON");
    let seq = evicted["seq"].to_string();

    keep("vkey", &said(&mesh, &["log", "key"]));
    keep("checkpoint", &said(&mesh, &["log", "checkpoint"]));
    keep(
        "proof.json",
        &said(&mesh, &["--json", "log", "prove", &seq]),
    );
    keep(
        "consistency.json",
        &said(&mesh, &["--json", "log", "consistency", &from]),
    );
    keep("entries", &said(&mesh, &["log", "export"]));
    let words = verdict(dir.path());
    let wanted = [
        format!("entry {seq} is one of them"),
        format!("extend {from}"),
    ];
    assert!(
        words
            .as_ref()
            .is_ok_and(|words| wanted.iter().all(|it| words.contains(it))),
        "{words:?} instead of {wanted:?}"
    );

    // A node has kept a checkpoint, and signs that it has: whoever trusts it more than the controller asks it.
    mesh.wait_until("a node has kept a checkpoint", |mesh| {
        mesh.node_status(&nodes[1]).log.is_some()
    });
    let word: LogStatus = mesh.ask(&nodes[1], &["log", "checkpoint"]);
    keep("checkpoint", &word.checkpoint);
    keep("cosigner", &word.witness.expect("it is a node's"));
    keep("entries", &said(&mesh, &["log", "export"]));
    let words = verdict(dir.path());
    let wanted = format!("; {} has seen it", nodes[1]);
    assert!(
        words.as_ref().is_ok_and(|words| words.contains(&wanted)),
        "{words:?} instead of {wanted}"
    );

    // One word of the decision changed: its reason, its node, its time, or who asked.
    let entries = fs::read_to_string(dir.path().join("entries")).expect("it was written");
    keep("entries", &entries.replacen(&nodes[0], "other", 1));
    let said = verdict(dir.path()).expect_err("an event was changed");
    assert!(said.contains("entries: their root is"), "{said}");
}

/// A log in memory, with what `meshctl` would print of it.
struct Log {
    tree: Tree,
    tiles: BTreeMap<(u8, u64), Vec<u8>>,
    lines: Vec<String>,
}

impl Nodes for Log {
    type Error = Place;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Place> {
        let place = Place::of(level, index);
        let tile = self.tiles.get(&(place.level, place.index));
        let hashes = tile.map_or(self.tree.edge(place.level), Vec::as_slice);
        place.hash_in(hashes).ok_or(place)
    }
}

impl Log {
    fn of(size: u64, mark: &str) -> Self {
        let mut log = Self {
            tree: Tree::default(),
            tiles: BTreeMap::new(),
            lines: Vec::new(),
        };
        for seq in 1..=size {
            let line =
                format!("{{\"seq\":{seq},\"kind\":\"test\",\"body\":\"entry {seq} {mark}\"}}");
            let tiles = &mut log.tiles;
            let keep = |tile: Tile| drop(tiles.insert((tile.level, tile.index), tile.hashes));
            log.tree.append(Hash::of_entry(line.as_bytes()), keep);
            log.lines.push(line);
        }
        log
    }

    fn root(&self, size: u64) -> Hash {
        proof::root(self, size).expect("the tree has it")
    }

    fn checkpoint(&self, size: u64) -> String {
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root: self.root(size),
            extensions: Vec::new(),
        };
        let mut note = checkpoint.sign(&secret(KEY)).expect("it is one");
        let line = cosign(&note, "node-a", 1_700_000_000, &node()).expect("it is a name");
        note.push(line);
        note.to_string()
    }

    /// A folder as the verifier takes it: the whole log, a proof for one entry, and that it extends an older one.
    /// Every fifth entry but that one is no longer kept, and stands there with its hash.
    fn shown(&self, old: u64, seq: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let keep = |name: &str, text: String| {
            fs::write(dir.path().join(name), text).expect("the folder can be written");
        };
        let size = self.tree.size();
        let texts = |hashes: Vec<Hash>| hashes.iter().map(Hash::to_string).collect();
        let line = &self.lines[usize::try_from(seq - 1).expect("it is small")];
        let (checkpoint, verifier) = (self.checkpoint(size), verifier(KEY).to_string());
        let lines = (1..=size).zip(&self.lines).map(|(n, line)| {
            let leaf = Hash::of_entry(line.as_bytes());
            if n % 5 == 0 && n != seq {
                format!("{{\"seq\":{n},\"leaf\":\"{leaf}\"}}\n")
            } else {
                format!("{line}\n")
            }
        });
        keep("entries", lines.collect());
        keep("vkey", verifier.clone());
        keep("checkpoint", checkpoint.clone());
        keep("older", self.checkpoint(old));
        keep("cosigner", cosigner("node-a", &node()));
        let inclusion = proof::inclusion(self, seq - 1, size).expect("the tree has it");
        let proof = LogProof {
            seq,
            line: Some(line.clone()),
            leaf: Hash::of_entry(line.as_bytes()).to_string(),
            size,
            proof: texts(inclusion),
            checkpoint: checkpoint.clone(),
            verifier: verifier.clone(),
        };
        keep("proof.json", json(&proof));
        let consistency = proof::consistency(self, old, size).expect("the tree has it");
        let consistency = LogConsistency {
            from: old,
            from_root: self.root(old).to_string(),
            to: size,
            to_root: self.root(size).to_string(),
            proof: texts(consistency),
            checkpoint,
            verifier,
        };
        keep("consistency.json", json(&consistency));
        dir
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("it is JSON")
}

/// A form with a change.
fn edit<T: serde::Serialize + serde::de::DeserializeOwned>(
    text: &str,
    change: impl FnOnce(&mut T),
) -> String {
    let mut form = serde_json::from_str(text).expect("it is the form");
    change(&mut form);
    json(&form)
}

fn secret(key: [u8; 32]) -> LogSecret {
    LogSecret::from_base64(&STANDARD.encode(key)).expect("it is a key")
}

fn node() -> NodeSecret {
    NodeSecret::from_base64(&STANDARD.encode([9; 32])).expect("it is a key")
}

fn verifier(key: [u8; 32]) -> Verifier {
    Verifier::new(ORIGIN, secret(key).public()).expect("it is a name")
}

/// A witness's key as C2SP tlog-cosignature prints it.
fn cosigner(name: &str, node: &NodeSecret) -> String {
    let key = node.public().0;
    let witness = Verifier::new(name, LogId(key)).expect("it is a name");
    printed(&witness)
}

/// The words of Go's verifier: what holds, or what does not.
fn verdict(dir: &Path) -> Result<String, String> {
    let output = Command::new(program()).arg(dir).output();
    let output = output.expect("the verifier was built and runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match output.status.code() {
        Some(0) => Ok(text(output.stdout)),
        Some(1) => Err(text(output.stderr)),
        code => panic!("the verifier broke, {code:?}: {}", text(output.stderr)),
    }
}

/// Builds the verifier, once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        crate::stock::require("go");
        assert!(
            Path::new(SUMDB).is_dir(),
            "{SUMDB} is missing: `tests/tools {SUMDB}` installs it or says how"
        );
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = folder.join("verify");
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/verify/main.go"))
            // The library comes with the system: nothing is fetched.
            .envs([("GO111MODULE", "off"), ("GOPATH", GOPATH), ("GOFLAGS", "")])
            .envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local")])
            .env("GOCACHE", folder.join("go"))
            .output();
        let built = built.expect("go is there and runs");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(
            built.status.success(),
            "the verifier does not build: {said}"
        );
        program
    })
}

const GOPATH: &str = "/usr/share/gocode";
const SUMDB: &str = "/usr/share/gocode/src/golang.org/x/mod/sumdb";
