//! The event log as a transparency log: what is proved to whom, and a controller that rewrites it.

use std::path::{Path, PathBuf};
use std::process::Command;
use tests::harness::{CONTROLLER, Mesh};
use wire::admin::{EventInfo, LogConsistency, LogProof, LogStatus};

/// A copy with owners and modes.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp is there").success());
}

fn seq_of(mesh: &Mesh, kind: &str) -> u64 {
    let events = mesh.events();
    let mut events = events.iter().rev();
    let found: Option<&EventInfo> = events.find(|event| event.kind == kind);
    found.expect(kind).seq
}

#[test]
fn what_is_in_the_log_is_proved_exported_and_verified_without_the_controller() {
    let mut mesh = Mesh::builder().nodes(2).epoch_seconds(2).start();
    mesh.wait_until_members(&["node-a", "node-b"]);
    let before: LogStatus = mesh.ask(CONTROLLER, &["log", "checkpoint"]);
    mesh.evict("node-b");
    let seq = seq_of(&mesh, "node_evicted");
    let proof: LogProof = mesh.ask(CONTROLLER, &["log", "prove", &seq.to_string()]);
    let line = proof.line.expect("it is kept");
    assert!(
        line.contains(r#""kind":"node_evicted""#) && line.contains("node-b"),
        "{line}"
    );
    let from = before.size.to_string();
    let grown: LogConsistency = mesh.ask(CONTROLLER, &["log", "consistency", &from]);
    assert!(grown.to > before.size && !grown.proof.is_empty());
    let refused = mesh.meshctl(CONTROLLER, &["log", "prove", "999999"]);
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(words.contains("there is no event 999999"), "{words}");

    let exported = mesh.meshctl(CONTROLLER, &["log", "export"]);
    let exported = String::from_utf8(exported.stdout).expect("it is text");
    assert!(exported.lines().any(|it| it == line), "the very line");
    let key = mesh.meshctl(CONTROLLER, &["log", "key"]);
    let key = String::from_utf8(key.stdout).expect("it is text");
    // Another key signs from now on, and nodes follow it, because the authority names it.
    let rotated: LogStatus = mesh.ask(CONTROLLER, &["log", "rotate-key"]);
    assert!(rotated.checkpoint.matches("— ").count() == 2 && rotated.verifier != key.trim());
    let key = rotated.verifier;
    mesh.wait_until("a node has seen a checkpoint by the new key", |mesh| {
        let seen = mesh.node_status("node-a").log;
        seen.is_some_and(|seen| seen.events > rotated.size)
    });
    // A node has kept the end of the same log.
    let seen = mesh.node_status("node-a").log.expect("it has seen one");
    let now: LogConsistency = mesh.ask(
        CONTROLLER,
        &["log", "consistency", &seen.events.to_string()],
    );
    assert_eq!(now.from_root, seen.root);

    // And says so with its own key, for whoever trusts the node more than the controller.
    let word: LogStatus = mesh.ask("node-a", &["log", "checkpoint"]);
    let (note, witness) = (word.checkpoint, word.witness.expect("it is a node's"));
    assert!(
        note.contains("— node-a ") && witness.starts_with("node-a+"),
        "{note}"
    );
    assert!(word.size >= seen.events);

    assert!(mesh.stop(CONTROLLER).success());
    let state = mesh.state_dir(CONTROLLER);
    let aside = mesh.state_dir("copy");
    copy(&state, &aside);
    let database = aside.join("controller.db").display().to_string();
    let verify = |arguments: &[&str]| {
        let output = mesh.meshctl(
            CONTROLLER,
            &[&["log", "verify", &database], arguments].concat(),
        );
        let words = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&words).into_owned(),
        )
    };
    let (whole, words) = verify(&[]);
    assert!(whole && words.contains("The log is whole"), "{words}");
    let (whole, words) = verify(&["--key", key.trim()]);
    assert!(whole, "{words}");
    let (whole, words) = verify(&["--key", "other+00000000+AAAA"]);
    assert!(!whole && words.contains("--key"), "{words}");
    std::fs::remove_file(aside.join("log.key")).expect("it was copied");
    let (whole, words) = verify(&[]);
    assert!(!whole && words.contains("meshctl log key"), "{words}");
    let db = rusqlite::Connection::open(&database).expect("it opens");
    let sql =
        "UPDATE entries SET body = replace(body, 'node-b', 'node-a') WHERE kind = 'node_evicted'";
    assert_eq!(db.execute(sql, []).expect("it is ours"), 1);
    drop(db);
    let (whole, words) = verify(&["--key", key.trim()]);
    assert!(!whole && words.contains("does not verify"), "{words}");
}

#[test]
fn a_controller_whose_log_forked_is_refused_by_every_node_that_saw_the_other_one() {
    let builder = Mesh::builder().nodes(2).epoch_seconds(3600);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .start();
    mesh.wait_until_members(&["node-a", "node-b"]);
    mesh.wait_until("they reach each other", |mesh| {
        mesh.ping("node-a", "node-b")
    });
    let state = mesh.state_dir(CONTROLLER);
    let aside: PathBuf = mesh.state_dir("copy");
    assert!(mesh.stop(CONTROLLER).success());
    copy(&state, &aside);
    mesh.spawn(CONTROLLER, &[]);
    mesh.wait_until("it is back", |mesh| mesh.try_status().is_some());
    mesh.rotate_now();
    let epoch = mesh.epoch();
    mesh.wait_until("the nodes have it", |mesh| {
        ["node-a", "node-b"]
            .iter()
            .all(|node| mesh.node_status(node).epoch == Some(epoch))
    });
    // With its controller gone, what a node has seen stays as it is.
    assert!(mesh.stop(CONTROLLER).success());
    let seen =
        ["node-a", "node-b"].map(|node| mesh.node_status(node).log.expect("it has seen one"));

    // The log goes back, and on from there in another way, until the numbers of epochs give nothing away.
    std::fs::remove_dir_all(&state).expect("it is ours");
    copy(&aside, &state);
    mesh.spawn(CONTROLLER, &[]);
    mesh.wait_until("it is back", |mesh| mesh.try_status().is_some());
    while mesh.epoch() < epoch + 3 {
        mesh.rotate_now();
    }
    for (node, seen) in ["node-a", "node-b"].into_iter().zip(&seen) {
        mesh.wait_until("the node refuses it", |mesh| {
            mesh.node_status(node).log_fault.is_some()
        });
        let status = mesh.node_status(node);
        let fault = status.log_fault.expect("it was there");
        assert!(fault.contains(&seen.root), "{fault}");
        assert!(fault.contains("does not extend"), "{fault}");
        assert_eq!(status.epoch, Some(epoch), "it stays where it was");
        assert_eq!(status.log.as_ref(), Some(seen));
        assert!(mesh.log(node).contains("rewritten, cut or forked"));
    }
    // A restart is no way to forget.
    assert!(mesh.stop("node-a").success());
    mesh.spawn("node-a", &[]);
    mesh.wait_until("it refuses still", |mesh| {
        let status = mesh.try_node_status("node-a");
        status.is_some_and(|status| status.log_fault.is_some())
    });

    // An operator's order, which the authority signs, is the one way back.
    let recovered = mesh.meshctl(CONTROLLER, &["controller", "recover"]);
    let words = String::from_utf8_lossy(&recovered.stderr);
    assert!(recovered.status.success(), "{words}");
    for node in ["node-a", "node-b"] {
        mesh.wait_until("the node goes on with it", |mesh| {
            let status = mesh.node_status(node);
            status.log_fault.is_none() && status.epoch > Some(epoch)
        });
        assert!(mesh.log(node).contains("restored from a copy"));
    }
    mesh.wait_until("they reach each other", |mesh| {
        mesh.ping("node-a", "node-b")
    });
}
