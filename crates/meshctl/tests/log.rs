//! What a controller says of its log is believed only if it holds, and if it is what was asked for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use daemon::{Daemon, stderr, stdout};
use keys::LogSecret;
use ledger::note::Verifier;
use ledger::{Checkpoint, Hash, Tree};
use serde_json::{Value, json};
use std::process::Output;

const ORIGIN: &str = "meshd/test";

fn secret(key: char) -> LogSecret {
    LogSecret::from_base64(&format!("{}A=", key.to_string().repeat(42))).unwrap()
}

fn verifier(key: char) -> String {
    let verifier = Verifier::new(ORIGIN, secret(key).public());
    verifier.unwrap().to_string()
}

fn line(seq: u64) -> String {
    format!(r#"{{"seq":{seq},"at_unix_ms":5,"kind":"test","body":{{}}}}"#)
}

fn leaf(seq: u64) -> Hash {
    Hash::of_entry(line(seq).as_bytes())
}

/// The log of two events, as the key signs it.
fn checkpoint(key: char) -> String {
    let mut tree = Tree::default();
    tree.append(leaf(1), |_| {});
    tree.append(leaf(2), |_| {});
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size: 2,
        root: tree.root(),
        extensions: Vec::new(),
    };
    checkpoint.sign(&secret(key)).unwrap().to_string()
}

fn proof() -> Value {
    json!({ "seq": 2, "line": line(2), "leaf": leaf(2).to_string(), "size": 2,
        "proof": [leaf(1).to_string()], "checkpoint": checkpoint('B'), "verifier": verifier('B') })
}

fn consistency() -> Value {
    let root = Hash::of_node(&leaf(1), &leaf(2));
    json!({ "from": 1, "from_root": leaf(1).to_string(), "to": 2, "to_root": root.to_string(),
        "proof": [leaf(2).to_string()], "checkpoint": checkpoint('B'), "verifier": verifier('B') })
}

fn changed(mut value: Value, name: &str, to: Value) -> Value {
    value[name] = to;
    value
}

fn ask(answer: &Value, args: &[&str]) -> Output {
    Daemon::with(200, answer).run(&[&["log"], args].concat())
}

fn assert_untrue(output: &Output, why: &str) {
    assert_eq!(output.status.code(), Some(2), "{why}: {output:?}");
    assert_eq!(stdout(output), "", "{why}");
    assert!(stderr(output).contains(why), "{why}: {}", stderr(output));
}

#[test]
fn a_proof_is_shown_if_it_holds_and_is_of_the_event_that_was_asked_for() {
    let shown = stdout(&ask(&proof(), &["prove", "2"]));
    assert!(
        shown.starts_with("Event 2 is in the log of 2 events."),
        "{shown}"
    );
    let kept = ask(&proof(), &["prove", "2", "--key", &verifier('B')]);
    assert_eq!(stdout(&kept), shown);
    assert_untrue(&ask(&proof(), &["prove", "1"]), "another event");
    assert_untrue(
        &ask(&proof(), &["prove", "2", "--key", &verifier('C')]),
        "no signature by",
    );
    assert_untrue(
        &ask(&proof(), &["prove", "2", "--key", "key"]),
        "not a verifier key",
    );
    for (name, to, why) in [
        ("line", json!(line(3)), "the line is not the one"),
        (
            "leaf",
            json!(leaf(3).to_string()),
            "the line is not the one",
        ),
        ("size", json!(3), "another size of the log"),
        ("proof", json!([]), "does not fit the sizes"),
        ("proof", json!([leaf(3).to_string()]), "another root"),
        ("checkpoint", json!(checkpoint('C')), "no signature by"),
        ("verifier", json!(verifier('C')), "no signature by"),
    ] {
        assert_untrue(&ask(&changed(proof(), name, to), &["prove", "2"]), why);
    }
}

#[test]
fn a_log_extends_another_only_by_the_proof_that_was_asked_for() {
    let shown = stdout(&ask(&consistency(), &["consistency", "1"]));
    assert!(
        shown.starts_with("The log of 2 events extends the one of 1."),
        "{shown}"
    );
    let kept = ask(
        &consistency(),
        &["consistency", "1", "2", "--key", &verifier('B')],
    );
    assert_eq!(stdout(&kept), shown);
    let other = ask(
        &consistency(),
        &["consistency", "1", "--key", &verifier('C')],
    );
    assert_untrue(&other, "no signature by");
    // An answer about nothing proves everything.
    let nothing = json!({ "from": 0, "from_root": Hash::of_nothing().to_string(), "proof": [] });
    let mut empty = consistency();
    for (name, value) in nothing.as_object().unwrap() {
        empty[name] = value.clone();
    }
    assert_untrue(&ask(&empty, &["consistency", "1"]), "other sizes");
    let mut same = consistency();
    (same["to"], same["to_root"], same["proof"]) = (json!(1), same["from_root"].clone(), json!([]));
    assert_untrue(&ask(&same, &["consistency", "1"]), "other sizes");
    for (name, to, why) in [
        ("from_root", json!(leaf(3).to_string()), "another root"),
        (
            "to_root",
            json!(leaf(3).to_string()),
            "not the checkpoint's",
        ),
        ("proof", json!([leaf(3).to_string()]), "another root"),
        ("proof", json!([]), "does not fit the sizes"),
    ] {
        assert_untrue(
            &ask(&changed(consistency(), name, to), &["consistency", "1"]),
            why,
        );
    }
}

#[test]
fn an_export_leaves_no_event_out() {
    let entry = |seq| json!({ "seq": seq, "leaf": leaf(seq).to_string(), "line": line(seq) });
    let page = |entries: Vec<Value>| json!({ "entries": entries, "size": 9 }).to_string();
    let export = |entries| {
        let pages = vec![(200, page(entries)), (200, page(Vec::new()))];
        Daemon::answering(pages).run(&["log", "export", "--after", "4"])
    };
    let whole = export(vec![entry(5), entry(6)]);
    assert_eq!(stdout(&whole), format!("{}\n{}\n", line(5), line(6)));
    assert_untrue(&export(vec![entry(6)]), "event 5 was left out");
    assert_untrue(&export(vec![entry(4)]), "event 5 was left out");
    let forged = changed(entry(5), "line", json!(line(6)));
    assert_untrue(&export(vec![forged]), "event 5 is not the one");
}
