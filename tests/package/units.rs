//! The units: the service manager's own check, and how much each leaves a daemon.

use crate::repository;
use std::fs;
use std::process::Command;

const ROLES: [&str; 2] = ["controller", "node"];

fn unit(role: &str) -> String {
    let path = repository(&format!("crates/meshd/packaging/meshd-{role}.service"));
    fs::read_to_string(path).expect("it is in the repository")
}

fn analyze(arguments: &[&str]) -> (bool, String) {
    let done = Command::new("systemd-analyze").args(arguments).output();
    let done = done.expect("the tests need `systemd-analyze` (systemd)");
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into())
}

#[test]
fn the_units_are_sound_and_leave_a_daemon_little() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    for (role, most) in [("controller", 2.0), ("node", 3.0)] {
        let path = folder.path().join(format!("meshd-{role}.service"));
        // A program that is there.
        let text = unit(role).replace("/usr/bin/meshd", "/bin/true");
        fs::write(&path, text).expect("it is ours");
        let path = path.display().to_string();
        let (is_good, said) = analyze(&["verify", "--man=no", &path]);
        assert!(is_good && said.trim().is_empty(), "{said}");
        let (_, said) = analyze(&["security", "--offline=true", "--no-pager", &path]);
        let level = said.lines().rev().find_map(|line| {
            let rest = line.split_once("Overall exposure level for ")?.1;
            let number = rest.split_once(": ")?.1.split(' ').next()?;
            number.parse::<f64>().ok()
        });
        let level = level.unwrap_or_else(|| panic!("no level in: {said}"));
        assert!(level <= most, "{role}: {level} is over {most}");
    }
}

#[test]
fn the_units_say_what_the_daemon_keeps_to() {
    for role in ROLES {
        let text = unit(role);
        for line in [
            "Type=notify",
            "WatchdogSec=30",
            "Restart=always",
            // `NEVER` in main.rs: after it, another start does not help.
            "RestartPreventExitStatus=2",
            "StartLimitIntervalSec=0",
        ] {
            assert!(text.lines().any(|it| it == line), "{role}: no {line}");
        }
        let start = format!("ExecStart=/usr/bin/meshd --config /etc/meshd/{role}.toml");
        assert!(text.contains(&start), "{role}");
    }
}

#[test]
fn the_documents_show_the_files_and_no_copies_of_them() {
    let text = fs::read_to_string(repository("docs/OPERATIONS.md")).expect("it is there");
    for file in [
        "crates/meshd/packaging/build-deb",
        "crates/meshd/packaging/build-static",
        "crates/meshd/packaging/build-image",
        "crates/meshd/packaging/meshd-controller.service",
        "crates/meshd/packaging/meshd-node.service",
        "crates/meshd/packaging/meshd.sysusers",
        "crates/meshd/packaging/meshd.tmpfiles",
        "crates/meshd/packaging/meshd.polkit.rules",
        "crates/meshd/packaging/image/compose.yaml",
        "docs/provisioning/terraform/tokens",
    ] {
        let named = file.replace("meshd-controller", "meshd-*");
        assert!(text.contains(file) || text.contains(&named), "{file}");
        assert!(repository(file).exists(), "{file}");
    }
    assert!(
        !text.contains("[Service]"),
        "a unit is copied into OPERATIONS"
    );
}
