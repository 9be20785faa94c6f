//! The first hour of a newcomer: the commands of "First hour" in docs/OPERATIONS.md, as they stand there, on four hosts in
//! namespaces. A fenced block whose first line is ```` ```sh on HOST… ```` runs on each of these hosts in turn, as one script
//! that ends with the first command that fails. Whoever changes the document changes the test.
//!
//! Each host has an /etc, a /var/lib and a /run of its own, so that literal paths work and nothing of this machine is
//! touched. `sudo`, `scp` and `systemctl` are stand-ins: we are root, all hosts share the folder that files are taken to, and
//! no systemd runs in a namespace.

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tests::harness::programs::program;
use tests::harness::{Mesh, poll};

#[test]
fn the_first_hour_of_the_manual_ends_with_members_that_ping_and_one_that_is_cut_off() {
    let blocks = blocks();
    assert!(blocks.len() >= 6, "{blocks:#?}");
    let hosts = Hosts::prepare();
    let mut transcript = String::new();
    for (names, script) in &blocks {
        for host in names {
            let (is_done, said) = hosts.run(host, script);
            transcript.push_str(&format!("--- {host}\n{script}\n{said}\n"));
            assert!(is_done, "{transcript}\n{}", hosts.logs());
        }
    }
    // Members reached each other, and then one was cut off.
    assert!(transcript.contains("node-c is cut off\n"), "{transcript}");
    assert!(!transcript.contains("node-b is cut off\n"), "{transcript}");
    let (_, status) = hosts.run("controller", "meshctl --json status");
    let status: Value = serde_json::from_str(&status).expect("the status is JSON");
    for (node, membership) in [
        ("node-a", "ALLOWED"),
        ("node-b", "ALLOWED"),
        ("node-c", "DENIED"),
    ] {
        assert_eq!(
            status["nodes"][node]["membership"], membership,
            "{node}: {transcript}"
        );
    }
    assert_eq!(status["nodes"]["node-c"]["state"], "QUARANTINED");
    // Everything else that an operator sees was there: WireGuard's own tool, metrics of both roles, the page.
    for words in [
        "meshd_member{segment=\"default\"} 1",
        "meshd_epoch_members{segment=\"default\"} 3",
        "<title>",
    ] {
        assert!(transcript.contains(words), "no `{words}`: {transcript}");
    }
}

/// The marked blocks of the manual: the hosts, and the script.
fn blocks() -> Vec<(Vec<String>, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
    let text = std::fs::read_to_string(path).expect("the manual is there");
    let mut blocks: Vec<(Vec<String>, String)> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        if let Some(hosts) = line.strip_prefix("```sh on ") {
            let hosts = hosts.split_whitespace().map(str::to_owned);
            blocks.push((hosts.collect(), String::new()));
            is_inside = true;
        } else if line.starts_with("```") {
            is_inside = false;
        } else if is_inside {
            let (_, script) = blocks.last_mut().expect("a block has begun");
            script.push_str(line);
            script.push('\n');
        }
    }
    blocks
}

/// Four machines, whose daemons end when this is dropped.
struct Hosts {
    mesh: Mesh,
    folder: PathBuf,
}

impl Hosts {
    fn prepare() -> Self {
        let mesh = Mesh::builder().nodes(3).prepare();
        let folder = mesh.folder().join("first-hour");
        let home = folder.join("home");
        std::fs::create_dir_all(&home).expect("the folder can be written");
        let stand_ins = folder.join("bin");
        std::fs::create_dir(&stand_ins).expect("the folder can be written");
        for (name, text) in [("sudo", SUDO), ("scp", SCP), ("systemctl", SYSTEMCTL)] {
            let path = stand_ins.join(name);
            std::fs::write(&path, text).expect("the folder can be written");
            let mode = PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("it is ours");
        }
        for name in ["meshd", "meshctl"] {
            let link = std::os::unix::fs::symlink(program(name), stand_ins.join(name));
            link.expect("the folder can be written");
        }
        for host in mesh.hosts() {
            let root = folder.join(&host);
            for part in ["var/lib", "run"] {
                std::fs::create_dir_all(root.join(part)).expect("the folder can be written");
            }
            // Files that only another user may read stay behind, and nobody needs them.
            let _ = Command::new("cp").args(["-a", "/etc"]).arg(&root).output();
            let _ = std::fs::remove_dir_all(root.join("etc/meshd"));
            // The package makes this user; here it is another name of root's.
            let passwd = root.join("etc/passwd");
            let mut users = std::fs::read_to_string(&passwd).expect("there are users");
            users = users
                .lines()
                .filter(|it| !it.starts_with("meshd:"))
                .map(|it| format!("{it}\n"))
                .collect();
            users.push_str("meshd:x:0:0::/nonexistent:/usr/sbin/nologin\n");
            std::fs::write(passwd, users).expect("the folder can be written");
        }
        Self { mesh, folder }
    }

    /// Runs a script on a host; whether it succeeded within a minute, and all that it said.
    fn run(&self, host: &str, script: &str) -> (bool, String) {
        let path = std::env::var("PATH").unwrap_or_default();
        let said = self.folder.join("said");
        let out = std::fs::File::create(&said).expect("the folder can be written");
        let errors = out.try_clone().expect("a file can be had twice");
        let mut command = self.mesh.command(host, "unshare");
        let running = command
            .args(["--mount", "--uts", "--", "bash", "-c", ENTER, "bash"])
            .arg(host)
            .arg(&self.folder)
            .arg(format!("set -euo pipefail\n{script}"))
            .env(
                "PATH",
                format!(
                    "{}:{path}:/usr/sbin:/sbin",
                    self.folder.join("bin").display()
                ),
            )
            .stdin(std::process::Stdio::null())
            .stdout(out)
            .stderr(errors)
            .spawn();
        let mut running = running.expect("the tests need `ip` and `unshare`");
        let ended = poll(LIMIT, || running.try_wait().is_ok_and(|it| it.is_some()));
        if !ended {
            let _ = running.kill();
        }
        let status = running.wait().expect("it has ended");
        let said = std::fs::read_to_string(said).unwrap_or_default();
        (ended && status.success(), said)
    }

    fn logs(&self) -> String {
        let hosts = self.mesh.hosts().into_iter();
        let logs = hosts.map(|host| {
            let log = std::fs::read_to_string(self.folder.join(&host).join("run/log"));
            format!("--- log of {host}\n{}", log.unwrap_or_default())
        });
        logs.collect()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in self.mesh.hosts() {
            let pid = std::fs::read_to_string(self.folder.join(host).join("run/pid"));
            let Some(pid) = pid.ok().and_then(|it| it.trim().parse().ok()) else {
                continue;
            };
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Gives the host its name and folders, and runs the script where its files are taken to.
const ENTER: &str = r#"
set -euo pipefail
host=$1 folder=$2 script=$3
echo "$host" >/proc/sys/kernel/hostname
mount --make-rprivate /
for part in etc var/lib run; do mount --bind "$folder/$host/$part" "/$part"; done
cd "$folder/home"
exec bash -c "$script"
"#;
const SUDO: &str = "#!/bin/sh\nexec \"$@\"\n";
const SCP: &str = "#!/bin/sh\ntest -f \"$1\"\n";
/// Starts the daemon of a unit, and waits until it answers, as for a unit of `Type=notify`.
const SYSTEMCTL: &str = r#"#!/bin/bash
set -euo pipefail
[ "$1 $2" = "enable --now" ] || { echo "no stand-in for: systemctl $*" >&2; exit 1; }
role=${3#meshd-}
# The runtime directory of the unit, beside the one that the daemon makes itself.
mkdir -p /run/wireguard
setsid meshd --config "/etc/meshd/$role.toml" </dev/null >>/run/log 2>&1 &
echo $! >/run/pid
for _ in $(seq 300); do
    [ -S "/run/meshd/$role.sock" ] && exit 0
    kill -0 "$(cat /run/pid)" 2>/dev/null || break
    sleep 0.1
done
cat /run/log >&2
exit 1
"#;
/// For one block: the daemons are quick, and the machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);
