//! Operators' orders on real daemons: approval, another authority, removal, and going on from an old copy.

use keys::AuthorityId;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use tests::harness::{CONTROLLER, Mesh};
use wire::NodeName;
use wire::admin::{AuthorityRotated, Control, EpochChange, NodeStatus, Recovered, Status};

fn name(node: &str) -> NodeName {
    node.parse().expect("a name")
}

fn approve(mesh: &mut Mesh, node: &str) {
    // A node that has no place yet says what it waits for, and no epoch and no peers.
    mesh.wait_until("the node says that it waits", |mesh| {
        let told = mesh.meshctl(node, &["status"]);
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let hint = format!("`meshctl node approve {node}`");
        told.starts_with("NOT WELL") && told.contains("not enrolled yet") && told.contains(&hint)
    });
    let Status::Node(status) = mesh.ask(node, &["status"]) else {
        panic!("{node} is a node");
    };
    assert_eq!((status.name, status.epoch), (None, None));
    assert_eq!(status.control, Control::Connected);
    mesh.wait_until("the node waits", |mesh| {
        let waiting = mesh.status().waiting;
        let waits = waiting
            .get(&name(node))
            .is_some_and(|it| it.address.is_some());
        waits && mesh.log(node).contains("waits for an operator's approval")
    });
    assert!(
        !mesh.status().nodes.contains_key(&name(node)),
        "no place yet"
    );
    let _: NodeStatus = mesh.ask(CONTROLLER, &["node", "approve", node]);
}

fn rotate_authority(mesh: &Mesh) -> AuthorityRotated {
    mesh.ask(CONTROLLER, &["controller", "rotate", "authority"])
}

/// The authorities that a node remembers.
fn trusted(mesh: &Mesh, node: &str) -> Vec<String> {
    let file = mesh.state_dir(node).join("enrolment.json");
    let text = std::fs::read_to_string(file).expect("it is enrolled");
    let enrolment: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let keys = serde_json::from_value::<Vec<AuthorityId>>(enrolment["authorities"].clone());
    let keys = keys.expect("it has authorities").into_iter();
    keys.map(|key| key.to_string()).collect()
}

#[test]
fn nodes_wait_for_approval_follow_another_authority_and_are_removed_for_good() {
    let builder = Mesh::builder().nodes(2).epoch_seconds(3600);
    let builder = builder.controller_setting("enrolment", "'approve'");
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .prepare();
    mesh.start_controller();
    for node in ["node-a", "node-b"] {
        mesh.start_node(node);
        approve(&mut mesh, node);
    }
    mesh.wait_until_members(&["node-a", "node-b"]);
    mesh.wait_until_all_reach_all();

    // node-b is away for the first change.
    assert!(mesh.stop("node-b").success());
    mesh.wait_until("its controller has noticed", |mesh| {
        mesh.node("node-b").control == Control::Disconnected
    });
    let first = rotate_authority(&mesh);
    let second = rotate_authority(&mesh);
    assert_eq!(first.new, second.old);
    let new = second.new.as_str();
    assert!(!first.old.is_empty() && second.absent == [name("node-b")]);
    mesh.wait_until(
        "a node that was there has followed, and remembers",
        |mesh| {
            let epoch = mesh.node_status("node-a").epoch;
            epoch == Some(second.change.epoch) && trusted(mesh, "node-a") == [new]
        },
    );
    mesh.start_node("node-b");
    mesh.wait_until_members(&["node-a", "node-b"]);
    mesh.wait_until_all_reach_all();
    mesh.wait_until("a node that was away has followed", |mesh| {
        trusted(mesh, "node-b") == [new]
    });

    // The new key is the controller's own across a restart, and private.
    let state = mesh.state_dir(CONTROLLER);
    let key = state.join("authority.key");
    let mode = key.metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!state.join("authority.key.new").exists());
    assert!(mesh.stop(CONTROLLER).success());
    mesh.start_controller();
    let change = mesh.rotate_now();
    mesh.wait_until(
        "the nodes follow the controller that was restarted",
        |mesh| {
            let nodes = ["node-a", "node-b"].into_iter();
            let mut epochs = nodes.map(|node| mesh.node_status(node).epoch);
            epochs.all(|epoch| epoch == Some(change.epoch))
        },
    );
    assert!(mesh.status().alarms.is_empty());

    let [removed, _] = mesh.addresses("node-b").map(|address| address.to_string());
    let change: EpochChange = mesh.ask(CONTROLLER, &["node", "remove", "node-b"]);
    mesh.wait_until("node-a has no such peer", |mesh| {
        mesh.node_status("node-a").epoch == Some(change.epoch)
    });
    let ping = mesh.exec("node-a", &["ping", "-n", "-c", "1", "-W", "2", &removed]);
    assert!(!ping.status.success(), "dark at once");
    assert!(!mesh.status().nodes.contains_key(&name("node-b")));
    mesh.wait_until("the node hears why", |mesh| {
        mesh.log("node-b").contains("removed from the mesh")
    });
    let events = mesh.events();
    for kind in [
        "node_waiting",
        "node_enrolled",
        "authority_rotated",
        "node_removed",
    ] {
        let event = events.iter().rev().find(|event| event.kind == kind);
        let by = &event.expect(kind).by;
        assert_eq!(by.is_some(), kind != "node_waiting", "{kind}: {by:?}");
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp is there").success());
}

#[test]
fn one_command_goes_on_from_an_old_copy_and_the_nodes_follow() {
    let builder = Mesh::builder().nodes(2).epoch_seconds(3600);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .start();
    mesh.wait_until_members(&["node-a", "node-b"]);
    mesh.wait_until_all_reach_all();
    let (state, aside) = (mesh.state_dir(CONTROLLER), mesh.state_dir("copy"));
    assert!(mesh.stop(CONTROLLER).success());
    copy(&state, &aside);
    mesh.start_controller();
    for _ in 0..4 {
        mesh.rotate_now();
    }
    let epoch = mesh.epoch();
    let all_have = |mesh: &mut Mesh, epoch: u64| {
        let mut nodes = ["node-a", "node-b"].into_iter();
        nodes.all(|node| mesh.node_status(node).epoch == Some(epoch))
    };
    mesh.wait_until("the nodes have it", |mesh| all_have(mesh, epoch));
    assert!(mesh.stop(CONTROLLER).success());
    std::fs::remove_dir_all(&state).expect("it is ours");
    copy(&aside, &state);
    mesh.start_controller();
    mesh.wait_until("both nodes have come, and the alarm is raised", |mesh| {
        let status = mesh.status();
        let are_here = status.nodes.values().all(|node| node.heard_utc.is_some());
        are_here
            && status
                .alarms
                .iter()
                .any(|alarm| alarm.contains("controller recover"))
    });
    let done: Recovered = mesh.ask(CONTROLLER, &["controller", "recover"]);
    assert_eq!((done.seen, done.change.epoch), (epoch, epoch + 2));
    mesh.wait_until("the nodes follow", |mesh| all_have(mesh, epoch + 2));
    mesh.wait_until_all_reach_all();
    assert!(mesh.status().alarms.is_empty());
    assert!(mesh.node_status("node-a").log_fault.is_none());
}
