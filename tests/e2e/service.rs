//! The service manager, as a datagram socket in the mesh's folder: what it hears of each role, and what benchmarks do not.

use crate::process::preloaded;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use tests::harness::{CONTROLLER, Mesh};

/// The manager of one daemon.
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn of(mesh: &Mesh, host: &str) -> Self {
        let path = mesh.folder().join(format!("{host}.notify"));
        let socket = UnixDatagram::bind(&path).expect("the folder can be written");
        socket.set_nonblocking(true).expect("it is a socket");
        let heard = Vec::new();
        Self {
            path,
            socket,
            heard,
        }
    }

    /// The environment that systemd would give, with a beat asked for every second.
    fn wrapper(&self) -> [String; 3] {
        let socket = format!("NOTIFY_SOCKET={}", self.path.display());
        ["env".into(), socket, "WATCHDOG_USEC=2000000".into()]
    }

    /// Whether a line like this was said since it was last forgotten.
    fn has(&mut self, line: &str) -> bool {
        self.count(line) > 0
    }

    fn count(&mut self, line: &str) -> usize {
        let mut bytes = [0; 4096];
        while let Ok(read) = self.socket.recv(&mut bytes) {
            let words = String::from_utf8_lossy(&bytes[..read]).into_owned();
            self.heard.extend(words.lines().map(str::to_owned));
        }
        let is_it = |it: &&String| it.contains(line);
        self.heard.iter().filter(is_it).count()
    }

    fn forget(&mut self) {
        self.count("");
        self.heard.clear();
    }
}

fn words(wrapper: &[String]) -> Vec<&str> {
    wrapper.iter().map(String::as_str).collect()
}

#[test]
fn a_service_manager_hears_that_a_daemon_serves_stands_reloads_lives_and_stops() {
    let builder = Mesh::builder().nodes(1).epoch_seconds(3600);
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let seen = folder.path().join("environment");
    let script = format!("env >{}; exit 0", seen.display());
    let mut mesh = builder
        .node_setting("node-a", "emitter", "\"command\"")
        .node_setting("node-a", "benchmark_format", "\"exit-code\"")
        .node_setting(
            "node-a",
            "benchmark_command",
            format!("[\"sh\", \"-c\", {script:?}]"),
        )
        .prepare();
    let (mut of_controller, mut of_node) =
        (Manager::of(&mesh, CONTROLLER), Manager::of(&mesh, "node-a"));
    let stall = mesh.folder().join("stall");
    let mut wrapper = of_controller.wrapper().to_vec();
    wrapper.push(format!("LD_PRELOAD={}", preloaded(&mesh).display()));
    wrapper.push(format!("STALL_WHILE={}", stall.display()));
    mesh.spawn_under(CONTROLLER, &words(&wrapper), &[]);
    mesh.wait_until("the controller serves", |_| of_controller.has("READY=1"));
    assert!(mesh.try_status().is_some(), "it answers from then on");
    let token = format!("@{}", mesh.token_file("node-a").display());
    mesh.kill(CONTROLLER);

    // A node is ready though nobody enrols it. Its log goes to the journal, which notes the time.
    let mut wrapper = of_node.wrapper().to_vec();
    let script = "JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec \"$@\"";
    wrapper.extend(["sh", "-c", script, "sh"].map(str::to_owned));
    mesh.spawn_under("node-a", &words(&wrapper), &["--join", &token]);
    mesh.wait_until("the node serves", |_| {
        of_node.has("READY=1") && of_node.has("STATUS=enrolling")
    });
    of_node.forget();
    mesh.wait_until("it lives while it enrols", |_| {
        of_node.count("WATCHDOG=1") >= 2
    });
    let log = mesh.log("node-a");
    assert!(log.trim_start().starts_with("INFO starting "), "{log}");
    assert!(log.contains("interface meshd0"), "{log}");

    of_controller.forget();
    let mut wrapper = of_controller.wrapper().to_vec();
    wrapper.push(format!(
        "LD_PRELOAD={}",
        mesh.folder().join("stall.so").display()
    ));
    wrapper.push(format!("STALL_WHILE={}", stall.display()));
    mesh.spawn_under(CONTROLLER, &words(&wrapper), &[]);
    mesh.wait_until("both say how they stand", |_| {
        of_controller.has("members: 1; nodes: 1") && of_node.has(", member; controller connected")
    });
    let environment = std::fs::read_to_string(&seen).expect("the benchmark has run");
    assert!(environment.contains("PATH="), "{environment}");
    for name in service::VARIABLES {
        assert!(!environment.contains(&format!("{name}=")), "{environment}");
    }

    for (host, manager) in [(CONTROLLER, &mut of_controller), ("node-a", &mut of_node)] {
        manager.forget();
        let pid = i32::try_from(mesh.pid(host)).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("it has an id"), Signal::HUP).expect("it runs");
        mesh.wait_until("it has read its settings again", |_| {
            manager.has("RELOADING=1") && manager.has("MONOTONIC_USEC=") && manager.has("READY=1")
        });
    }

    // A disk that takes nothing is no reason to be started anew.
    File::create(&stall).expect("the folder can be written");
    mesh.wait_until("the controller says that it is held up", |mesh| {
        let said = mesh.meshctl(CONTROLLER, &["status"]);
        String::from_utf8_lossy(&said.stderr).contains("held up")
    });
    of_controller.forget();
    mesh.wait_until("it lives all the same", |_| {
        of_controller.count("WATCHDOG=1") >= 2
    });
    std::fs::remove_file(&stall).expect("it is there");

    for (host, manager) in [("node-a", &mut of_node), (CONTROLLER, &mut of_controller)] {
        assert!(mesh.stop(host).success(), "{host}");
        assert!(manager.has("STOPPING=1"), "{host}: {:?}", manager.heard);
    }
}

#[test]
fn the_socket_is_given_to_a_group() {
    let mut mesh = Mesh::builder()
        .nodes(0)
        .controller_setting("socket_group", "\"4242\"")
        .prepare();
    mesh.start_controller();
    let meta = mesh.socket(CONTROLLER).metadata().expect("it is there");
    assert_eq!(
        (meta.permissions().mode() & 0o777, meta.gid()),
        (0o660, 4242)
    );
    assert!(mesh.try_status().is_some());
}
