//! State directories that are not one machine's alone, or not whole.

use crate::refusals::Bench;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
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
