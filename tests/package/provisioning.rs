//! The Terraform module: it renders settings that the daemon takes and user data that is YAML, and says what is wrong with
//! its input. Terraform itself does that where it is; nothing is fetched, as the module needs no provider.

use crate::{repository, yaml};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

fn terraform(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let done = Command::new("terraform")
        .arg(format!("-chdir={}", folder.display()))
        .args(arguments)
        .env("TF_IN_AUTOMATION", "1")
        .env_remove("TF_CLI_CONFIG_FILE")
        .output();
    let done = done.expect("it was there a moment ago");
    let said = [&done.stdout[..], &done.stderr[..]].concat();
    let said = if done.status.success() {
        done.stdout
    } else {
        said
    };
    (done.status.success(), String::from_utf8_lossy(&said).into())
}

fn input() -> Value {
    json!({
        "nodes": { "node-a": { "advertise": ["192.0.2.1:51820"] }, "node-b": { "segments": ["training"] } },
        "tokens": { "node-a": "token-of-a", "node-b": "token-of-b" },
        "package_url": "https://packages.example/meshd.deb",
        "package_sha256": "ab".repeat(32),
        "settings": {
            "emitter": "command", "benchmark_command": ["/bin/true", "<&>"], "emit_seconds": 5,
            "mtu": null, "accept_routes": true,
        },
    })
}

#[test]
fn a_module_renders_user_data_for_each_node_and_refuses_what_cannot_work() {
    let module = repository("docs/provisioning/terraform");
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let folder = folder.path();
    for file in ["main.tf", "variables.tf", "outputs.tf"] {
        fs::copy(module.join(file), folder.join(file)).expect("it is in the repository");
    }
    if Command::new("terraform").arg("version").output().is_err() {
        eprintln!(
            "there is no `terraform` here: the module's brackets are counted, and nothing is rendered"
        );
        return brackets(folder);
    }
    let give = |input: &Value| {
        fs::write(folder.join("input.auto.tfvars.json"), input.to_string()).expect("it is ours");
    };
    for arguments in [
        &["fmt", "-check"][..],
        &["init", "-input=false"],
        &["validate"],
    ] {
        let (is_good, said) = terraform(folder, arguments);
        assert!(is_good, "{arguments:?}: {said}");
    }
    let apply = ["apply", "-auto-approve", "-input=false", "-no-color"];
    let cases: [(&str, Value, &str); 13] = [
        ("/tokens/node-b", Value::Null, "one word"),
        (
            "/tokens",
            json!({ "node-a": "token-of-a" }),
            "No token for: node-b",
        ),
        (
            "/package_url",
            json!("http://packages.example/x"),
            "https://",
        ),
        ("/package_sha256", json!("abc"), "64 hex digits"),
        ("/settings", json!({ "emit_seconds": 5 }), "no emitter"),
        ("/settings", json!({ "emitter": null }), "no emitter"),
        ("/settings", json!({ "emitter": "magic" }), "mock, command"),
        ("/settings", json!("emitter"), "no emitter"),
        (
            "/settings",
            json!({ "emitter": "mock", "segment": { "a": 1 } }),
            "no tables",
        ),
        (
            "/settings",
            json!({ "emitter": "mock", "benchmark_only": ["a", null] }),
            "list of texts",
        ),
        (
            "/settings",
            json!({ "emitter": "mock", "benchmark_only": ["a", 1] }),
            "list of texts",
        ),
        (
            "/settings",
            json!({ "emitter": "mock", "name": "other", "join": "x" }),
            "role, name or join",
        ),
        (
            "/settings",
            json!({ "emitter": "mock", "a b": 1 }),
            "name of a setting",
        ),
    ];
    for (path, value, cause) in cases {
        let mut wrong = input();
        *wrong.pointer_mut(path).expect("it is there") = value;
        give(&wrong);
        let (is_good, said) = terraform(folder, &apply);
        let said: Vec<&str> = said.split_whitespace().filter(|it| *it != "│").collect();
        assert!(
            !is_good && said.join(" ").contains(cause),
            "{path}: {said:?}"
        );
        let errors = said.iter().filter(|it| **it == "Error:").count();
        assert_eq!(errors, 1, "{path}, the cause alone: {said:?}");
    }
    give(&input());
    let (is_good, said) = terraform(folder, &apply);
    assert!(is_good, "{said}");
    assert!(!said.contains("token-of-"), "tokens are not shown: {said}");
    let (_, said) = terraform(folder, &["output", "-json", "cloud_init"]);
    let rendered: Value = serde_json::from_str(&said).expect("it is JSON");
    for (node, token) in [("node-a", "token-of-a\n"), ("node-b", "token-of-b\n")] {
        let text = rendered[node].as_str().expect("there is one for each node");
        assert!(text.starts_with("#cloud-config\n"), "{text}");
        let path = folder.join(format!("{node}.yaml"));
        fs::write(&path, text).expect("it is ours");
        let user_data = yaml(&path);
        let file = |path: &str| {
            let files = user_data["write_files"].as_array().expect("it is a list");
            let found = files.iter().find(|it| it["path"] == path);
            found.unwrap_or_else(|| panic!("no {path}: {text}")).clone()
        };
        let secret = file("/etc/meshd/token.new");
        assert_eq!(
            (&secret["content"], &secret["permissions"]),
            (&json!(token), &json!("0600"))
        );
        let settings = file("/etc/meshd/node.toml");
        let settings = settings["content"].as_str().expect("it is a text");
        let path = folder.join(format!("{node}.toml"));
        fs::write(&path, settings).expect("it is ours");
        let read = meshd::config::read_file(path).expect("the daemon reads it");
        assert_eq!(read.name.as_deref(), Some(node));
        let words = vec!["/bin/true".to_owned(), "<&>".to_owned()];
        assert_eq!(read.benchmark_command, Some(words));
        assert_eq!((read.mtu, read.accept_routes), (None, Some(true)));
        let script = user_data["runcmd"][0][4].as_str().expect("it is a script");
        let parsed = Command::new("sh").args(["-nc", script]).status();
        assert!(parsed.expect("there is a shell").success(), "{script}");
    }
}

/// That each file is whole, which is all that can be said of it without Terraform.
fn brackets(folder: &Path) {
    for file in ["main.tf", "variables.tf", "outputs.tf"] {
        let text = fs::read_to_string(folder.join(file)).expect("it was copied");
        for (open, close) in [('{', '}'), ('(', ')'), ('[', ']')] {
            // Patterns in quotes have some of their own, in pairs.
            let (opened, closed) = (text.matches(open).count(), text.matches(close).count());
            assert_eq!(opened, closed, "{file}: {open}{close}");
        }
    }
}
