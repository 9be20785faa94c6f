//! `meshctl log`: the event log as a transparency log. Whatever the controller proves is verified here before it
//! is shown; a copy of the log is verified without a controller.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::files;
use clap::Subcommand;
use keys::LogSecret;
use ledger::note::{Note, Verifier};
use ledger::proof::{check_consistency, check_inclusion};
use ledger::{Checkpoint, Hash};
use record::audit::verify_copy;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::admin::{LogConsistency, LogEntries, LogEntry, LogProof, LogStatus};

/// A verb of `meshctl log`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print the newest checkpoint, a signed note. On a node: the newest that it has kept, with its cosignature.
    Checkpoint,
    /// Print the log's public key, as verifiers of signed notes take it; on a node, its own too.
    Key,
    /// Give the log a new key; the checkpoint that begins with it is signed by both.
    RotateKey,
    /// Prove that an event is in the log.
    Prove {
        /// The event's number.
        seq: u64,
        /// The log's public key, kept from an earlier `meshctl log key`; by default, the one that the controller
        /// names.
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
    },
    /// Prove that the log extends the one that it was with fewer events.
    Consistency {
        /// Events in the earlier log.
        from: u64,
        /// Events in the later one; by default, all of them.
        to: Option<u64>,
        /// The log's public key, kept from an earlier `meshctl log key`; by default, the one that the controller
        /// names.
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
    },
    /// Print every entry on a line of its own, as the log's tree is over it.
    Export {
        /// Begin behind this number.
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
    },
    /// Print new entries as they are written, like `export`, until it is interrupted.
    Tail,
    /// Verify all of a copy of the log; needs no daemon, and changes nothing.
    Verify {
        /// The copy: `controller.db`, copied while the controller was stopped.
        path: PathBuf,
        /// The log's public key, from `meshctl log key`; by default, that of the `log.key` beside the copy.
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
    },
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    match verb {
        Verb::Checkpoint => {
            let reply = client.get("/v1/log").await?;
            answer.show(&reply, |log: LogStatus| log.checkpoint)
        }
        Verb::Key => {
            let reply = client.get("/v1/log").await?;
            answer.show(&reply, |log: LogStatus| match log.witness {
                Some(witness) => format!("{}\n{witness}", log.verifier),
                None => log.verifier,
            })
        }
        Verb::RotateKey => {
            let reply = client.post("/v1/log/rotate-key").await?;
            answer.show(&reply, |log: LogStatus| log.verifier)
        }
        Verb::Prove { seq, key } => {
            let reply = client.get(&format!("/v1/log/proof?seq={seq}")).await?;
            let proof: LogProof = reply.form()?;
            let root = verified(&proof, seq, key.as_deref())?;
            answer.show(&reply, |proof: LogProof| shown(&proof, root))
        }
        Verb::Consistency { from, to, key } => {
            let until = to.map_or_else(String::new, |to| format!("&to={to}"));
            let path = format!("/v1/log/consistency?from={from}{until}");
            let reply = client.get(&path).await?;
            consistent(&reply.form()?, (from, to), key.as_deref())?;
            answer.show(&reply, |it: LogConsistency| {
                format!(
                    "The log of {} events extends the one of {}.\n{}  {}\n{}  {}\n{} hashes prove it.",
                    it.to,
                    it.from,
                    it.from,
                    it.from_root,
                    it.to,
                    it.to_root,
                    it.proof.len()
                )
            })
        }
        Verb::Export { after } => export(after, false, client, answer).await,
        Verb::Tail => {
            let log: LogStatus = client.get("/v1/log").await?.form()?;
            export(log.size, true, client, answer).await
        }
        Verb::Verify { path, key } => verify(&path, key.as_deref(), answer),
    }
}

/// The root that the proof leads to, if the checkpoint has it too and it is of the event that was asked for.
fn verified(proof: &LogProof, seq: u64, key: Option<&str>) -> Result<Hash, Failure> {
    let checkpoint = checkpoint(&proof.checkpoint, key.unwrap_or(&proof.verifier))?;
    if proof.seq != seq || proof.size != checkpoint.size {
        return Err(untrue(
            "it is of another event, or of another size of the log",
        ));
    }
    let leaf = hash(&proof.leaf)?;
    if let Some(line) = &proof.line
        && Hash::of_entry(line.as_bytes()) != leaf
    {
        return Err(untrue(
            "the line is not the one that its leaf is the hash of",
        ));
    }
    let hashes = hashes(&proof.proof)?;
    let end = (checkpoint.size, checkpoint.root);
    let index = proof
        .seq
        .checked_sub(1)
        .ok_or_else(|| untrue("there is no event 0"))?;
    check_inclusion(leaf, index, end, &hashes).map_err(|error| untrue(&error.to_string()))?;
    Ok(checkpoint.root)
}

fn consistent(
    it: &LogConsistency,
    (from, to): (u64, Option<u64>),
    key: Option<&str>,
) -> Result<(), Failure> {
    let newest = checkpoint(&it.checkpoint, key.unwrap_or(&it.verifier))?;
    if it.from != from || it.to != to.unwrap_or(newest.size) {
        return Err(untrue("it is of other sizes of the log"));
    }
    let (old, new) = ((it.from, hash(&it.from_root)?), (it.to, hash(&it.to_root)?));
    if new.0 == newest.size && new.1 != newest.root {
        return Err(untrue("its root is not the checkpoint's"));
    }
    let proven = check_consistency(old, new, &hashes(&it.proof)?);
    proven.map_err(|error| untrue(&error.to_string()))
}

fn checkpoint(note: &str, verifier: &str) -> Result<Checkpoint, Failure> {
    let verifier: Verifier = verifier
        .parse()
        .map_err(|error| untrue(&format!("{error}")))?;
    let note = Note::parse(note.as_bytes()).map_err(|error| untrue(&error.to_string()))?;
    Checkpoint::verify(&note, &verifier).map_err(|error| untrue(&error.to_string()))
}

fn hashes(texts: &[String]) -> Result<Vec<Hash>, Failure> {
    texts.iter().map(|text| hash(text)).collect()
}

fn hash(text: &str) -> Result<Hash, Failure> {
    Hash::from_base64(text).ok_or_else(|| untrue("a hash is not 32 bytes in base64"))
}

fn untrue(why: &str) -> Failure {
    Failure::broken(
        format!("the controller's proof does not hold: {why}"),
        "stop the controller and verify a copy of its log: `meshctl log verify`",
    )
}

fn shown(proof: &LogProof, root: Hash) -> String {
    let line = match &proof.line {
        Some(line) => line.clone(),
        None => "It is no longer kept; its hash is.".to_owned(),
    };
    format!(
        "Event {} is in the log of {} events.\nleaf  {}\nroot  {root}\n{} hashes prove it.\n{line}",
        proof.seq,
        proof.size,
        proof.leaf,
        proof.proof.len()
    )
}

async fn export(
    mut after: u64,
    follow: bool,
    client: &Client,
    answer: &Answer,
) -> Result<(), Failure> {
    loop {
        let path = format!("/v1/log/entries?after={after}&limit={PAGE}");
        let page: LogEntries = client.get(&path).await?.form()?;
        for entry in &page.entries {
            after += 1;
            if entry.seq != after {
                return Err(untrue(&format!("event {after} was left out")));
            }
            answer.exact(&line(entry)?)?;
        }
        if page.entries.is_empty() {
            if !follow {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The line of an entry, or its hash in place of one that is no longer kept.
fn line(entry: &LogEntry) -> Result<String, Failure> {
    match &entry.line {
        Some(line) if Hash::of_entry(line.as_bytes()) == hash(&entry.leaf)? => Ok(line.clone()),
        Some(_) => {
            let why = format!(
                "event {} is not the one that its leaf is the hash of",
                entry.seq
            );
            Err(untrue(&why))
        }
        None => {
            let value = serde_json::json!({ "seq": entry.seq, "leaf": entry.leaf });
            Ok(value.to_string())
        }
    }
}

fn verify(path: &Path, key: Option<&str>, answer: &Answer) -> Result<(), Failure> {
    let verifier = verifier(path, key, answer)?;
    let audit = verify_copy(path, &verifier, |_| {}).map_err(|error| {
        Failure::refused(
            format!("{} does not verify: {error}", path.display()),
            "compare it with another copy, and with the checkpoints that nodes and others have kept",
        )
    })?;
    if answer.is_json() {
        return answer.value(&serde_json::json!({
            "origin": audit.origin,
            "verifier": audit.verifier,
            "size": audit.size,
            "root": audit.root.to_string(),
            "pruned": audit.pruned,
            "snapshot": audit.snapshot,
            "checkpoint": audit.checkpoint,
        }));
    }
    answer.text(&format!(
        "The log is whole: every event, the tree over them and the signature of its end.\n\
         log     {}\nevents  {}, of which {} are no longer kept\nroot    {}\nkey     {}",
        audit.origin, audit.size, audit.pruned, audit.root, audit.verifier
    ))
}

/// The key that the copy has to be signed by.
fn verifier(path: &Path, key: Option<&str>, answer: &Answer) -> Result<Verifier, Failure> {
    if let Some(key) = key {
        return key.parse().map_err(|error| {
            Failure::broken(
                format!("--key: {error}"),
                "`meshctl log key` prints the log's",
            )
        });
    }
    let file = path.with_file_name("log.key");
    if !file.exists() {
        return Err(Failure::broken(
            format!("there is no log.key beside {}", path.display()),
            "name the log's public key with --key: `meshctl log key` prints it",
        ));
    }
    let line = files::read_secret(&file, answer)?;
    let secret = LogSecret::from_base64(line.trim()).map_err(|error| {
        Failure::broken(
            format!("{} does not hold a key ({error})", file.display()),
            "name the log's public key with --key",
        )
    })?;
    let origin = record::audit::origin_of(path).map_err(|error| {
        Failure::refused(
            format!("{} is not to be read: {error}", path.display()),
            "copy controller.db while the controller is stopped",
        )
    })?;
    Verifier::new(&origin, secret.public()).map_err(|error| {
        Failure::refused(
            format!("the log's name: {error}"),
            "compare it with another copy",
        )
    })
}

const PAGE: u64 = 500;
const POLL: Duration = Duration::from_secs(1);
