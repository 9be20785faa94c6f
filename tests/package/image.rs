//! The static programs and the image of them: in an empty root, and in the story that the compose file tells. That story is
//! told in namespaces, from the compose file's own settings, and by Docker too where an engine answers.

use crate::{repository, yaml};
use serde_json::Value;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::harness::{CONTROLLER, Mesh, PATIENCE, name, ping, poll};
use wire::admin::{ControllerStatus, Membership};

const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];

/// The folder of the static programs: as the caller built them, or built now.
fn programs() -> PathBuf {
    if let Some(given) = std::env::var_os("MESHTEST_STATIC_DIR") {
        return given.into();
    }
    run(&mut Command::new(repository(
        "crates/meshd/packaging/build-static",
    )))
    .into()
}

/// The folder from which the image is built, with the image's root.
fn context(out: &Path, tag: &[&str]) -> PathBuf {
    let mut build = Command::new(repository("crates/meshd/packaging/build-image"));
    build.arg("--bin-dir").arg(programs()).arg("--out").arg(out);
    run(build.args(tag)).into()
}

/// Runs a command that has to succeed, and returns its words.
fn run(command: &mut Command) -> String {
    let (is_good, said) = outcome(command);
    assert!(is_good, "{command:?}: {said}");
    said.trim().to_owned()
}

fn outcome(command: &mut Command) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = if status.success() { stdout } else { stderr };
    (status.success(), String::from_utf8_lossy(&said).into())
}

#[test]
fn static_programs_run_in_an_empty_root() {
    tests::harness::enter();
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let root = context(&folder.path().join("image"), &[]).join("root");
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("chroot");
        outcome(
            command
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .arg(&root)
                .args(arguments),
        )
    };
    let (is_good, said) = inside(&["/usr/bin/meshd", "--version"]);
    assert!(is_good && said.starts_with("meshd "), "{said}");
    let (is_good, said) = inside(&["/usr/bin/meshctl", "--version"]);
    assert!(is_good && said.starts_with("meshctl "), "{said}");
    let check = [
        "/usr/bin/meshd",
        "--role",
        "controller",
        "--advertise",
        "192.0.2.1:7443",
        "--check",
    ];
    let (is_good, said) = inside(&check);
    assert!(is_good, "{said}");
    // Groups are looked up in a file, without a module of the C library.
    let with_group = [&check[..], &["--socket-group", "operators"]].concat();
    let (is_good, said) = inside(&with_group);
    assert!(!is_good && said.contains("`socket_group`"), "{said}");
    fs::write(root.join("etc/group"), "operators:x:77:\n").expect("it is ours");
    let (is_good, said) = inside(&with_group);
    assert!(is_good, "{said}");
}

/// A machine whose lookups begin with modules of the C library, which a static program cannot load.
#[test]
fn static_programs_look_in_files_whatever_the_machine_names_besides() {
    tests::harness::enter();
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let programs = programs();
    let switch = folder.path().join("nsswitch.conf");
    let modules = "passwd: systemd files\ngroup: systemd files\ninitgroups: systemd files\nhosts: resolve mymachines files dns\n";
    fs::write(&switch, modules).expect("it is ours");
    let state = folder.path().join("state");
    let check = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/nsswitch.conf && exec \"$@\" 2>&1");
        command.arg(&switch).arg(programs.join("meshd"));
        command.args(["--check", "--state-dir"]).arg(&state);
        let output = command.args(arguments).output().expect("unshare runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    let controller = ["--role", "controller", "--advertise", "192.0.2.1:7443"];
    let group = |name| [&controller[..], &["--socket-group", name]].concat();
    assert_eq!(check(&group("daemon")).0, Some(0));
    let (code, said) = check(&group("no-such-group"));
    assert!(
        code == Some(2) && said.contains("no group `no-such-group`"),
        "{code:?} {said}"
    );
    let node = [
        "--role",
        "node",
        "--controller",
        "localhost:7443",
        "--emitter",
        "command",
    ];
    let user = |name| {
        let program = ["--benchmark-command", "/bin/true", "--benchmark-user", name];
        check(&[&node[..], &program].concat())
    };
    let (code, said) = user("daemon");
    assert!(
        code.is_some() && !said.contains("`daemon`"),
        "{code:?} {said}"
    );
    let (code, said) = user("no-such-user");
    assert!(
        code == Some(2) && said.contains("no-such-user"),
        "{code:?} {said}"
    );
}

#[test]
fn the_story_of_the_compose_file_ends_with_one_node_shut_out() {
    let mut mesh = Mesh::builder().nodes(3).prepare();
    let context = context(&mesh.folder().join("image"), &[]);
    let compose = yaml(&repository("crates/meshd/packaging/image/compose.yaml"));
    let containers = Containers::new(&mesh, &context.join("root"), &compose);

    let daemon = |mesh: &mut Mesh, service: &str| {
        let script = containers.script(service, "/usr/bin/meshd", &[]);
        mesh.spawn_under(service, &["sh", "-c", &script], &[]);
    };
    daemon(&mut mesh, CONTROLLER);
    mesh.wait_until("the controller is healthy", |_| {
        containers.status().is_some()
    });
    for (node, token) in NODES.into_iter().zip(["token-a", "token-b", "token-c"]) {
        let service = &compose["services"][token];
        let words = |key: &str| -> Vec<String> {
            let list = service[key].as_array().expect("it is a list");
            list.iter()
                .filter_map(|it| it.as_str().map(str::to_owned))
                .collect()
        };
        let all = [words("entrypoint"), words("command")].concat();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let script = containers.script(CONTROLLER, all[0], &all[1..]);
        run(mesh.command(CONTROLLER, "sh").args(["-c", &script]));
        daemon(&mut mesh, node);
    }
    mesh.wait_until("node-c is shut out", |_| {
        let Some(status) = containers.status() else {
            return false;
        };
        let is = |node: &str, membership| {
            let node = status.nodes.get(&name(node));
            node.is_some_and(|it| it.membership == membership)
        };
        is("node-a", Membership::Allowed)
            && is("node-b", Membership::Allowed)
            && is("node-c", Membership::Denied)
    });
    let status = containers.status().expect("it answers");
    let address = |node: &str| IpAddr::from(status.nodes[&name(node)].v4);
    let reaches = |from: &str, to: &str| ping::once(mesh.namespace(from), address(to));
    assert!(poll(PATIENCE, || reaches("node-a", "node-b")));
    assert!(!reaches("node-a", "node-c") && !reaches("node-c", "node-b"));

    if !outcome(Command::new("sh").args(["-c", "docker info"])).0 {
        eprintln!(
            "no Docker engine answers here: the image's root has told its story in namespaces alone"
        );
        return;
    }
    by_docker();
}

/// The same, with the image itself.
fn by_docker() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    context(folder.path(), &["--tag", "meshd"]);
    let file = repository("crates/meshd/packaging/image/compose.yaml");
    let compose = || {
        let mut command = Command::new("docker");
        command
            .args(["compose", "--project-name", "meshtest", "--file"])
            .arg(&file);
        command
    };
    run(compose().args(["up", "--detach"]));
    let ask = [
        "exec",
        "-T",
        CONTROLLER,
        "/usr/bin/meshctl",
        "--json",
        "status",
    ];
    let is_told = poll(PATIENCE, || {
        let (_, said) = outcome(compose().args(ask));
        let status = serde_json::from_str::<ControllerStatus>(&said);
        status.is_ok_and(|it| {
            let members = it
                .nodes
                .values()
                .filter(|it| it.membership == Membership::Allowed);
            it.nodes.len() == 3 && members.count() == 2
        })
    });
    run(compose().args(["down", "--volumes"]));
    assert!(is_told, "Docker does not tell the story");
}

/// The services of the compose file, each in a root of its own.
struct Containers<'c> {
    folder: PathBuf,
    compose: &'c Value,
}

impl<'c> Containers<'c> {
    fn new(mesh: &Mesh, root: &Path, compose: &'c Value) -> Self {
        let folder = mesh.folder().join("containers");
        fs::create_dir_all(folder.join("tokens")).expect("it is ours");
        for service in [CONTROLLER].iter().chain(&NODES) {
            let own = folder.join(service);
            run(Command::new("cp").arg("--archive").arg(root).arg(&own));
            // These a container engine makes, and it answers for the services' names.
            for made in ["dev", "proc", "tokens"] {
                fs::create_dir(own.join(made)).expect("it is ours");
            }
            let hosts = "198.18.0.1 controller\n127.0.0.1 localhost\n";
            fs::write(own.join("etc/hosts"), hosts).expect("it is ours");
        }
        Self { folder, compose }
    }

    /// A script that becomes a program in a service's root, with the service's environment.
    fn script(&self, service: &str, program: &str, arguments: &[&str]) -> String {
        let root = self.folder.join(service).display().to_string();
        let tokens = self.folder.join("tokens").display().to_string();
        let environment = self.compose["services"][service]["environment"].as_object();
        let environment = environment.expect("the service has one");
        let variables: Vec<String> = environment
            .iter()
            .map(|(name, value)| format!("'{name}={}'", value.as_str().expect("it is a text")))
            .collect();
        let inside = format!(
            "mount --rbind /dev {root}/dev && mount -t proc proc {root}/proc && mount --bind {tokens} {root}/tokens \
             && exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin {} chroot {root} {program} {}",
            variables.join(" "),
            arguments.join(" ")
        );
        format!("exec unshare --mount sh -c \"{inside}\"")
    }

    fn status(&self) -> Option<ControllerStatus> {
        let socket = self
            .folder
            .join(CONTROLLER)
            .join("run/meshd/controller.sock");
        let mut ask = Command::new(tests::harness::programs::program("meshctl"));
        let (is_good, said) = outcome(ask.arg("--socket").arg(socket).args(["--json", "status"]));
        is_good.then(|| serde_json::from_str(&said).ok())?
    }
}
