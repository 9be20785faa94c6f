//! `meshctl doctor` and `meshctl debug bundle`: what they say of a mesh that is well, of one that is not, and of a daemon
//! that does not run; and that a bundle holds no secret.

use crate::secrets::forms;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use tests::harness::programs::program;
use tests::harness::{CONTROLLER, Mesh};

/// `meshctl` in the network namespace of a host, as an operator of that machine runs it.
fn there(mesh: &Mesh, host: &str, arguments: &[&str]) -> Output {
    let (meshctl, socket) = (program("meshctl"), mesh.socket(host));
    let path = |of: &Path| of.to_str().expect("it is text").to_owned();
    let (meshctl, socket) = (path(&meshctl), path(&socket));
    let mut command = vec![meshctl.as_str(), "--socket", socket.as_str()];
    command.extend(arguments);
    mesh.exec(host, &command)
}

/// Area, state and words of everything that a doctor says, and its exit code.
fn doctor(mesh: &Mesh, host: &str) -> (Option<i32>, Vec<(String, String, String)>) {
    let said = there(mesh, host, &["--json", "doctor"]);
    let answer: Value = serde_json::from_slice(&said.stdout).expect("it is JSON");
    let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let findings = answer["findings"].as_array().expect("a list").iter();
    let findings = findings.map(|it| {
        let words = format!("{} → {}", text(&it["seen"]), text(&it["way_out"]));
        (text(&it["area"]), text(&it["state"]), words)
    });
    (said.status.code(), findings.collect())
}

#[test]
fn a_doctor_tells_a_mesh_that_is_well_from_one_that_is_not() {
    let mut mesh = crate::quiet_mesh_of(2);
    mesh.wait_until("echoes were answered", |mesh| {
        let status = mesh.node_status("node-a");
        status
            .peers
            .values()
            .all(|it| it.ping_v4.as_ref().is_some_and(|it| it.ok))
    });
    for (host, areas) in [
        (
            "node-a",
            &[
                "daemon",
                "controller",
                "clock",
                "membership",
                "interface",
                "mtu",
                "firewall",
                "peers",
                "benchmark",
                "addresses",
                "rights",
                "tun",
                "nft",
                "ipv6",
                "dns",
                "disk",
            ][..],
        ),
        (
            CONTROLLER,
            &[
                "daemon",
                "epoch",
                "nodes",
                "clock",
                "versions",
                "benchmark",
                "addresses",
                "dns",
                "disk",
            ],
        ),
    ] {
        let (code, said) = doctor(&mesh, host);
        let wrong: Vec<_> = said.iter().filter(|it| it.1 == "wrong").collect();
        assert!(code == Some(0) && wrong.is_empty(), "{host}: {wrong:#?}");
        for area in areas {
            assert!(
                said.iter().any(|it| it.0 == *area),
                "{host} says nothing of {area}: {said:#?}"
            );
        }
    }
    let text = there(&mesh, "node-a", &["doctor"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("\nok       controller") && text.contains(" 0 wrong,"),
        "{text}"
    );

    // An address of the mesh on another interface, a peer that UDP does not reach, and a node that is cut off.
    mesh.namespace("node-a")
        .ip("addr add 10.76.9.9/24 dev eth0");
    mesh.evict("node-b");
    mesh.wait_until("node-b is out", |mesh| {
        let own = mesh.try_node_status("node-b");
        own.is_some_and(|own| own.membership == Some(wire::admin::Membership::Denied))
    });
    let says = |host: &str, area: &str, word: &str| {
        let (code, said) = doctor(&mesh, host);
        let found = said
            .iter()
            .any(|it| it.0 == area && it.1 == "wrong" && it.2.contains(word));
        assert!(found && code == Some(1), "{host}, {area}: {said:#?}");
    };
    says("node-a", "addresses", "10.76.9.9");
    says("node-b", "membership", "meshctl explain node-b");

    // Without a daemon the machine is looked at, and the first line says why no more is.
    mesh.stop("node-a");
    let (code, said) = doctor(&mesh, "node-a");
    assert_eq!(
        (code, said[0].0.as_str(), said[0].1.as_str()),
        (Some(1), "daemon", "wrong"),
        "{said:#?}"
    );
    assert!(said[0].2.contains("--check"), "{said:#?}");
    assert!(
        said.iter().any(|it| it.0 == "tun" && it.1 == "ok"),
        "{said:#?}"
    );
}

#[test]
fn a_bundle_for_a_bug_report_holds_what_it_needs_and_no_secret() {
    let mut mesh = crate::quiet(2).prepare();
    mesh.start_controller();
    mesh.start_node("node-a");
    // On the command line, where it should not stand, and yet may.
    let token = mesh.token_file("node-b");
    let token = std::fs::read_to_string(token).expect("it was just made");
    mesh.spawn("node-b", &["--join", token.trim()]);
    mesh.wait_until_all_reach_all();

    let mut secrets = vec![("the token".to_owned(), token.trim().to_owned())];
    let parsed: wire::Token = token.parse().expect("a token is a token");
    secrets.push((
        "the token's secret".into(),
        STANDARD.encode(parsed.secret.expose()),
    ));
    for host in mesh.hosts() {
        for entry in std::fs::read_dir(mesh.state_dir(&host))
            .expect("it is there")
            .flatten()
        {
            if entry.path().extension().is_some_and(|it| it == "key") {
                let key = std::fs::read_to_string(entry.path()).expect("a key is text");
                secrets.push((entry.path().display().to_string(), key.trim().to_owned()));
            }
        }
    }
    let config = mesh.meshctl("node-a", &["peer", "export", "node-b"]);
    let config = String::from_utf8_lossy(&config.stdout).into_owned();
    for name in ["PresharedKey = ", "PrivateKey = "] {
        if let Some(key) = config.lines().find_map(|line| line.strip_prefix(name)) {
            secrets.push((name.to_owned(), key.to_owned()));
        }
    }
    assert!(secrets.len() >= 10, "{}", secrets.len());

    let mut bundles = Vec::new();
    for host in ["node-a", "node-b", CONTROLLER] {
        let file = mesh.folder().join(format!("{host}.tar.gz"));
        let path = file.display().to_string();
        let made = there(&mesh, host, &["debug", "bundle", "--output", &path]);
        assert!(made.status.success(), "{made:?}");
        let mode = std::fs::metadata(&file)
            .expect("it was made")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        // Never over another file.
        let again = there(&mesh, host, &["debug", "bundle", "--output", &path]);
        assert_eq!(again.status.code(), Some(2));
        bundles.push((host, unpacked(&file)));
    }
    for (host, parts) in &bundles {
        let part = |name: &str| {
            let found = parts.iter().find(|it| it.0 == name);
            found.map_or_else(|| panic!("{host} has no {name}"), |it| it.1.as_str())
        };
        assert!(part("manifest.txt").contains("not in it:"));
        assert!(part("status.json").contains("generated_utc"));
        assert!(
            part("settings.toml").contains("role = "),
            "{}",
            part("settings.toml")
        );
        assert!(part("doctor.txt").contains("things looked at"));
        assert!(part("metrics.txt").contains("# HELP meshd_"));
        assert!(part("ip-route.txt").contains("198.18.0.0/15"));
        if *host == CONTROLLER {
            assert!(part("events.jsonl").contains("node_enrolled"));
        } else {
            assert!(part("nft.txt").contains("table inet meshd-meshd0"));
        }
    }
    assert!(
        bundles[1]
            .1
            .iter()
            .any(|it| it.0 == "settings.toml" && it.1.contains("(hidden)"))
    );

    // The secret of the epoch that was in force, which the log's database alone holds.
    mesh.stop(CONTROLLER);
    let database = rusqlite::Connection::open(mesh.state_dir(CONTROLLER).join("controller.db"));
    let database = database.expect("it is a database");
    let mut asked = database
        .prepare("SELECT secret FROM epochs WHERE secret IS NOT NULL")
        .expect("there are epochs");
    let found = asked
        .query_map([], |row| row.get::<_, Vec<u8>>(0))
        .expect("they can be read");
    for secret in found.flatten() {
        secrets.push(("an epoch's secret".into(), STANDARD.encode(secret)));
    }
    for (secret, text) in &secrets {
        assert!(text.len() >= 40, "{secret} is long enough to be looked for");
        for form in forms(text) {
            for (host, parts) in &bundles {
                for (name, shown) in parts {
                    assert!(!shown.contains(&form), "{name} of {host} shows {secret}");
                }
            }
        }
    }
}

/// The parts of a bundle, by name.
fn unpacked(file: &Path) -> Vec<(String, String)> {
    let folder = file.with_extension("d");
    std::fs::create_dir(&folder).expect("the folder can be written");
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(file)
        .arg("-C")
        .arg(&folder)
        .status();
    assert!(unpacked.expect("there is a tar").success());
    let parts = std::fs::read_dir(folder.join("meshd-debug")).expect("it has one folder");
    let parts = parts.flatten().map(|part| {
        let text = std::fs::read(part.path()).expect("a part is a file");
        let name = part.file_name().to_string_lossy().into_owned();
        (name, String::from_utf8_lossy(&text).into_owned())
    });
    parts.collect()
}
