//! State directories that are not one machine's alone, or not whole.

use crate::refusals::Bench;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tests::harness::ping::Pinger;
use tests::harness::{CONTROLLER, Mesh};

#[test]
fn a_controller_that_has_lost_its_log_founds_another_mesh_only_on_purpose() {
    let mut mesh = Mesh::builder().nodes(1).epoch_seconds(3600).prepare();
    mesh.start_controller();
    let id = mesh.status().mesh;
    mesh.add_host("bench", 50);
    assert!(mesh.stop(CONTROLLER).success());
    let database = mesh.state_dir(CONTROLLER).join("controller.db");
    let bench = Bench {
        mesh: &mesh,
        fresh: String::new(),
    };
    let refused = |what: &str, lose: &dyn Fn(&Path), words: &[&str]| {
        let state = mesh.state_dir(what);
        copy(&mesh.state_dir(CONTROLLER), &state);
        lose(&state);
        let command = bench.controller(what, &["--listen", "127.0.0.1:7999"]);
        assert_eq!(bench.refused(command, words).err(), None, "{what}");
    };
    let file =
        |name: &'static str| move |state: &Path| std::fs::remove_file(state.join(name)).unwrap();
    refused(
        "no-log",
        &file("controller.db"),
        &["controller.db is missing", "--new-mesh"],
    );
    refused(
        "no-key",
        &file("connection.key"),
        &["connection.key is missing", "--new-mesh"],
    );
    let open = |state: &Path| {
        let path = state.join("controller.db");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    };
    refused("open", &open, &["controller.db", "0644", "chmod 600"]);

    std::fs::write(&database, "").expect("it is ours");
    mesh.spawn(CONTROLLER, &["--new-mesh"]);
    mesh.wait_until("another mesh is founded", |mesh| {
        mesh.try_status().is_some_and(|status| status.mesh != id)
    });
    let other = mesh.status().mesh;
    assert!(mesh.log(CONTROLLER).contains("old-mesh-"), "it says where");
    assert!(mesh.stop(CONTROLLER).success());
    mesh.spawn(CONTROLLER, &["--new-mesh"]);
    mesh.wait_until("it is the same mesh", |mesh| {
        mesh.try_status().is_some_and(|status| status.mesh == other)
    });
    assert!(mesh.log(CONTROLLER).contains("--new-mesh is ignored"));
}

/// A copy with owners and modes.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp is there").success());
}

#[test]
fn a_copied_state_directory_is_named_by_all_and_takes_nothing_from_the_first() {
    let builder = Mesh::builder().nodes(3).epoch_seconds(3600);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .prepare();
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.start_node("node-b");
    mesh.wait_until_members(&["node-a", "node-b"]);
    mesh.wait_until("they reach each other", |mesh| {
        mesh.ping("node-a", "node-b")
    });
    let to = mesh.addresses("node-b")[0];
    let pinger = Pinger::start(mesh.namespace("node-a"), to, mesh.folder());
    // The third machine is not itself: it is a copy of the second, made while that one runs.
    copy(&mesh.state_dir("node-b"), &mesh.state_dir("node-c"));
    mesh.spawn("node-c", &[]);
    mesh.wait_until("the controller names both", |mesh| {
        mesh.node("node-b").duplicate.is_some()
    });
    for host in ["node-b", "node-c"] {
        mesh.wait_until("each of the two says so", |mesh| {
            mesh.node_status(host).duplicate.is_some()
        });
        assert!(
            mesh.log(host)
                .contains("two machines run with this node's keys")
        );
    }
    let alarms = mesh.status().alarms;
    assert!(
        alarms
            .iter()
            .any(|alarm| alarm.contains("node-b: two machines")),
        "{alarms:?}"
    );
    let (first, other) = (mesh.node_status("node-b"), mesh.node_status("node-c"));
    let named = other.duplicate.expect("it is told");
    let told = first.duplicate.expect("it is told");
    assert_eq!((&told.first, &told.other), (&named.first, &named.other));
    assert_ne!(named.first.address.ip(), named.other.address.ip());
    assert!(
        other.peers.is_empty() && other.membership.is_none(),
        "the copy is dark"
    );
    let answered = pinger.answered();
    mesh.wait_until("pings go on", |_| pinger.answered() >= answered + 5);
    let losses = pinger.stop();
    assert_eq!((losses.lost, losses.again), (0, 0), "{losses:?}");
    let connections = |mesh: &Mesh| {
        let log = mesh.log(CONTROLLER);
        let lines = log.lines().filter(|line| line.contains("node connected"));
        lines.filter(|line| line.contains("node-b")).count()
    };
    assert_eq!(connections(&mesh), 1, "the session never changed hands");
    let events = mesh.events();
    assert_eq!(
        events
            .iter()
            .filter(|it| it.kind == "duplicate_seen")
            .count(),
        1
    );

    // A process that follows the first on its machine is the first, however that one ended.
    mesh.kill("node-b");
    mesh.start_node("node-b");
    mesh.wait_until("it is back", |mesh| connections(mesh) == 2);
    mesh.wait_until("it is reached again", |mesh| mesh.ping("node-a", "node-b"));
    assert!(mesh.node_status("node-c").peers.is_empty());
}
