//! The package and what else is installed: built by its script from the programs of this test run, installed into a
//! folder by `dpkg`, upgraded under a ping, removed and purged.

mod image;
mod provisioning;
mod units;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::harness::programs::program;
use tests::harness::{CONTROLLER, Mesh, poll};

/// A path of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The content of a YAML file, read by a parser that has nothing to do with those who wrote it.
fn yaml(path: &Path) -> serde_json::Value {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let read = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(path)
        .output();
    let read = read.expect("the tests need `python3`");
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(
        read.status.success(),
        "the tests need python3-yaml, or {}: {said}",
        path.display()
    );
    serde_json::from_slice(&read.stdout).expect("python writes JSON")
}

/// The package of the programs of this test run, as of a version.
fn package(out: &Path, version: &str) -> PathBuf {
    let programs = program("meshd");
    let built = Command::new(repository("crates/meshd/packaging/build-deb"))
        .arg("--bin-dir")
        .arg(programs.parent().expect("it is in a folder"))
        .args(["--version", version, "--out"])
        .arg(out)
        // To be unpacked a moment later.
        .env("DPKG_DEB_COMPRESSOR_TYPE", "none")
        .output()
        .expect("the script is there");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    PathBuf::from(String::from_utf8_lossy(&built.stdout).trim())
}

#[test]
fn a_package_of_static_programs_needs_no_library() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let programs = folder.path().join("bin");
    fs::create_dir(&programs).expect("it is ours");
    // Scripts name no version of a C library, as static programs do not.
    let script = "#!/bin/sh\ncase $1 in\n--version) echo meshd 0.1.0 ;;\nman) : >\"$2/${0##*/}.8\" ;;\nesac\n";
    for name in ["meshd", "meshctl"] {
        let program = programs.join(name);
        fs::write(&program, script).expect("it is ours");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let built = Command::new(repository("crates/meshd/packaging/build-deb"))
        .arg("--bin-dir")
        .arg(&programs)
        .arg("--out")
        .arg(folder.path())
        .output()
        .expect("the script is there");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    let package = String::from_utf8_lossy(&built.stdout);
    let field = Command::new("dpkg-deb")
        .args(["--field", package.trim(), "Depends"])
        .output();
    let field = field.expect("there is dpkg").stdout;
    assert_eq!(String::from_utf8_lossy(&field).trim(), "systemd");
}

/// A folder that is the root of a system to `dpkg`, with a service manager that only writes down what it is told.
struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let root = Self { folder };
        for path in [
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "run/systemd/system",
            "etc",
            "bin",
        ] {
            fs::create_dir_all(root.at(path)).expect("it is ours");
        }
        for file in ["var/lib/dpkg/status", "var/lib/dpkg/available", "told"] {
            fs::write(root.at(file), "").expect("it is ours");
        }
        let manager = format!("#!/bin/sh\necho \"$@\" >>{}\n", root.at("told").display());
        fs::write(root.at("bin/systemctl"), manager).expect("it is ours");
        fs::set_permissions(root.at("bin/systemctl"), fs::Permissions::from_mode(0o755))
            .expect("it is ours");
        root
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// `dpkg` in this root. Its scripts run with the tools of this machine.
    fn dpkg(&self, arguments: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}:/usr/sbin:/sbin", self.at("bin").display());
        let done = Command::new("dpkg")
            .env("PATH", path)
            .arg("--root")
            .arg(self.folder.path())
            .args(["--force-script-chrootless", "--force-depends"])
            .args(arguments)
            .output()
            .expect("the tests need `dpkg`");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "dpkg {arguments:?}: {said}");
        done
    }

    /// The words that the service manager was told since the last time.
    fn told(&self) -> Vec<String> {
        let told = fs::read_to_string(self.at("told")).expect("it is there");
        fs::write(self.at("told"), "").expect("it is ours");
        told.lines().map(str::to_owned).collect()
    }

    fn mode(&self, path: &str) -> u32 {
        let meta = fs::symlink_metadata(self.at(path));
        meta.unwrap_or_else(|error| panic!("{path}: {error}"))
            .permissions()
            .mode()
            & 0o7777
    }
}

const INSTALLED: &[(&str, u32)] = &[
    ("usr/bin/meshd", 0o755),
    ("usr/bin/meshctl", 0o755),
    ("usr/lib/systemd/system/meshd-controller.service", 0o644),
    ("usr/lib/systemd/system/meshd-node.service", 0o644),
    ("usr/lib/sysusers.d/meshd.conf", 0o644),
    ("usr/lib/tmpfiles.d/meshd.conf", 0o644),
    ("usr/share/polkit-1/rules.d/50-meshd.rules", 0o644),
    ("usr/share/bash-completion/completions/meshctl", 0o644),
    ("usr/share/zsh/vendor-completions/_meshd", 0o644),
    ("usr/share/fish/vendor_completions.d/meshctl.fish", 0o644),
    ("usr/share/man/man8/meshd.8.gz", 0o644),
    ("usr/share/man/man1/meshctl.1.gz", 0o644),
    ("usr/share/man/man1/meshctl-node-evict.1.gz", 0o644),
    ("etc/meshd/controller.toml", 0o644),
    ("etc/meshd/node.toml", 0o644),
    ("etc/meshd/policy.toml", 0o644),
];

#[test]
fn a_package_is_installed_upgraded_under_a_ping_removed_and_purged() {
    let mut mesh = Mesh::builder().nodes(2).epoch_seconds(3600).prepare();
    let root = Root::new();
    let first = package(mesh.folder(), "1.0.0-1");
    let second = package(mesh.folder(), "1.0.0-2");
    let (first, second) = (first.display().to_string(), second.display().to_string());

    root.dpkg(&["--install", &first]);
    for (path, mode) in INSTALLED {
        assert_eq!(root.mode(path), *mode, "{path}");
    }
    // The user is there, and nothing was started that was not there.
    let users = fs::read_to_string(root.at("etc/passwd")).expect("systemd-sysusers made it");
    assert!(users.contains("meshd:"), "{users}");
    assert!(root.at("run/meshd").is_dir());
    assert_eq!(root.told(), ["daemon-reload"]);
    for role in ["controller", "node"] {
        let mut check = Command::new(root.at("usr/bin/meshd"));
        let settings = root.at(&format!("etc/meshd/{role}.toml"));
        check.arg("--config").arg(settings).arg("--check");
        check.env("MESHD_STATE_DIR", mesh.folder().join("never"));
        check.env("MESHD_SOCKET", mesh.folder().join("never.sock"));
        let checked = check.output().expect("it is installed");
        let said = String::from_utf8_lossy(&checked.stderr);
        // A node's file as it is has no token, which is all that it lacks.
        let lacks_token = role == "node" && said.contains("token");
        assert!(checked.status.success() || lacks_token, "{role}: {said}");
    }

    // The daemons of the installed tree, as their units start them.
    let script = |role: &str| {
        let unit = root.at(&format!("usr/lib/systemd/system/meshd-{role}.service"));
        let unit = fs::read_to_string(unit).expect("it is installed");
        let start = unit.lines().find_map(|it| it.strip_prefix("ExecStart="));
        let start = start
            .and_then(|it| it.split(' ').next())
            .expect("it starts");
        // The settings are the mesh's.
        format!("exec {}{start} \"$@\"", root.folder.path().display())
    };
    let (controller, node) = (script("controller"), script("node"));
    mesh.spawn_under(CONTROLLER, &["sh", "-c", &controller], &[]);
    mesh.wait_until("the controller answers", |mesh| mesh.try_status().is_some());
    for name in ["node-a", "node-b"] {
        mesh.start_node_under(name, &["sh", "-c", &node]);
    }
    mesh.wait_until_all_reach_all();

    // An upgrade: files are replaced under daemons that run, and then each is started anew.
    fs::write(
        root.at("etc/meshd/node.toml"),
        "role = \"node\"\nname = \"mine\"\n",
    )
    .expect("it is ours");
    let pings = mesh.keep_pinging("node-a", "node-b");
    assert!(poll(tests::harness::PATIENCE, || pings.answered() > 5));
    let before = root.mode("usr/bin/meshd");
    root.dpkg(&["--install", &second]);
    assert_eq!(before, root.mode("usr/bin/meshd"));
    let restart = "try-restart meshd-controller.service meshd-node.service";
    assert_eq!(root.told(), ["daemon-reload", restart]);
    let answered = pings.answered();
    assert!(poll(tests::harness::PATIENCE, || pings.answered() > answered + 5));
    let losses = pings.stop();
    assert_eq!(losses.lost, 0, "the daemons still run: {losses:?}");
    let pings = mesh.keep_pinging("node-a", "node-b");
    assert!(poll(tests::harness::PATIENCE, || pings.answered() > 5));
    for host in [CONTROLLER, "node-b"] {
        assert!(mesh.stop(host).success(), "{host}");
        let of = if host == CONTROLLER {
            &controller
        } else {
            &node
        };
        mesh.spawn_under(host, &["sh", "-c", of], &[]);
    }
    let answered = pings.answered();
    assert!(poll(tests::harness::PATIENCE, || pings.answered() > answered + 5));
    let losses = pings.stop();
    // Five a second: a handshake that is lost is tried again after five seconds.
    assert!(losses.lost <= 5 * 7, "{losses:?}");
    let mine = fs::read_to_string(root.at("etc/meshd/node.toml")).expect("it is there");
    assert!(mine.contains("mine"), "an operator's settings stay");

    root.dpkg(&["--remove", "meshd"]);
    let stop = "disable --now meshd-node.service meshd-controller.service";
    assert_eq!(root.told(), [stop, "daemon-reload"]);
    assert!(!root.at("usr/bin/meshd").exists());
    assert!(root.at("etc/meshd/node.toml").exists(), "settings stay");

    let (state, token) = (root.at("var/lib/meshd/node"), root.at("etc/meshd/token"));
    fs::create_dir_all(&state).expect("it is ours");
    fs::write(state.join("identity.key"), "a key").expect("it is ours");
    fs::write(token, "a token").expect("it is ours");
    root.dpkg(&["--purge", "meshd"]);
    for path in [
        "etc/meshd",
        "var/lib/meshd",
        "run/meshd",
        "usr/share/doc/meshd",
    ] {
        assert!(!root.at(path).exists(), "{path} is left");
    }
}
