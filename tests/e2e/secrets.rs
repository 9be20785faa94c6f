//! Secrets stay unsaid: nothing that the daemons show holds one.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tests::harness::{CONTROLLER, Mesh};

#[test]
fn no_secret_shows_in_logs_status_events_or_process_lists() {
    let builder = Mesh::builder()
        .nodes(2)
        .controller_setting("log_level", "\"trace\"");
    let mut mesh = builder.every_node_setting("log_level", "\"trace\"").start();
    let mut secrets = Vec::new();
    for host in mesh.hosts() {
        for (file, text) in private_files(&mesh.state_dir(&host)) {
            if file.ends_with(".key") {
                secrets.push((format!("{host}: {file}"), text.trim().to_owned()));
            }
        }
    }
    assert_eq!(secrets.len(), 7, "two keys each, and the log's");
    for node in mesh.nodes() {
        let token = std::fs::read_to_string(mesh.folder().join(format!("{node}.token")));
        let token = token.expect("it was joined with this");
        let parsed: wire::Token = token.parse().expect("a token is a token");
        let secret = STANDARD.encode(parsed.secret.expose());
        secrets.push((format!("the token of {node}"), secret));
        secrets.push((format!("the token of {node}, whole"), token));
    }
    let shown = process_words(&mesh);
    // Three epochs' PSKs, of which the first is discarded by the end.
    for _ in 0..3 {
        mesh.wait_epochs(1);
        let config = mesh.meshctl("node-a", &["peer", "export", "node-b"]);
        let config = String::from_utf8_lossy(&config.stdout).into_owned();
        let psk = config
            .lines()
            .find_map(|line| line.strip_prefix("PresharedKey = "));
        let psk = psk.unwrap_or_else(|| panic!("no PSK in {} lines", config.lines().count()));
        secrets.push(("a PSK".into(), psk.to_owned()));
    }
    let told = mesh.meshctl("node-a", &["peer", "export", "no-such-node"]);
    assert_eq!(told.status.code(), Some(1));
    let mut seen = vec![
        ("process lists".to_owned(), shown),
        ("process lists".into(), process_words(&mesh)),
    ];
    for host in mesh.hosts() {
        let status = mesh.meshctl(&host, &["--json", "status"]);
        seen.push((
            format!("status of {host}"),
            String::from_utf8_lossy(&status.stdout).into_owned(),
        ));
    }
    let events = serde_json::to_string(&mesh.events()).expect("events are JSON");
    seen.push(("events".into(), events));
    let tokens = mesh.meshctl(CONTROLLER, &["--json", "token", "list"]);
    seen.push((
        "tokens".into(),
        String::from_utf8_lossy(&tokens.stdout).into_owned(),
    ));
    let file = std::fs::read_to_string(mesh.status_file());
    seen.push(("status.json".into(), file.expect("it is there")));
    for host in mesh.hosts() {
        mesh.stop(&host);
        seen.push((format!("log of {host}"), mesh.log(&host)));
    }

    assert!(
        seen.iter().all(|(_, text)| !text.is_empty()),
        "there was something to see"
    );
    for (secret, text) in &secrets {
        assert!(text.len() >= 40, "{secret} is long enough to be looked for");
        for form in forms(text) {
            for (place, shown) in &seen {
                assert!(!shown.contains(&form), "{place} shows {secret}");
            }
        }
    }
    for host in mesh.hosts() {
        // Whoever reads a state directory afterwards finds it as private as before.
        private_files(&mesh.state_dir(&host));
    }
}

/// The files of a state directory, each with its content, none of them readable by others.
fn private_files(dir: &Path) -> Vec<(String, String)> {
    let mode = |path: &Path| {
        let meta = std::fs::metadata(path).expect("it is there");
        meta.permissions().mode() & 0o777
    };
    assert_eq!(mode(dir), 0o700, "{}", dir.display());
    let entries = std::fs::read_dir(dir).expect("it is a directory").flatten();
    entries
        .map(|entry| {
            let path = entry.path();
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
            let content = std::fs::read(&path).expect("it is a file");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, String::from_utf8_lossy(&content).into_owned())
        })
        .collect()
}

/// Arguments and environment of all daemons.
fn process_words(mesh: &Mesh) -> String {
    let mut words = String::new();
    for host in mesh.hosts() {
        for file in ["cmdline", "environ", "comm"] {
            let path = format!("/proc/{}/{file}", mesh.pid(&host));
            let bytes = std::fs::read(path).expect("the daemon runs");
            words.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    words
}

/// A secret as it may look: base64, hexadecimal, and as Rust prints bytes.
pub(crate) fn forms(text: &str) -> Vec<String> {
    let mut forms = vec![text.to_owned()];
    let bytes = STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE_NO_PAD.decode(text));
    if let Ok(bytes) = bytes {
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        forms.push(hex.to_uppercase());
        forms.push(hex);
        let debug = format!("{bytes:?}");
        forms.push(debug.trim_matches(['[', ']']).to_owned());
        forms.push(URL_SAFE_NO_PAD.encode(&bytes));
        forms.push(STANDARD.encode(&bytes));
    }
    forms
}
