//! A disk that is full: what judges nodes stops, what excludes them does not.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::harness::mesh::name;
use tests::harness::{CONTROLLER, Mesh};
use wire::admin::Membership;

#[test]
fn on_a_full_disk_a_node_can_be_evicted_and_epochs_go_on_and_it_heals() {
    let mut mesh = Mesh::builder()
        .epoch_seconds(2)
        .probation_epochs(0)
        .prepare();
    let state = mesh.state_dir(CONTROLLER);
    let disk = Disk::mount(&state);
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    mesh.wait_until_all_reach_all();
    mesh.wait_until("room is held", |_| {
        let reserve = state.join("controller.reserve").metadata();
        reserve.is_ok_and(|reserve| reserve.len() > 1 << 20)
    });
    assert!(mesh.status().alarms.is_empty());

    disk.fill();
    mesh.wait_until("it is noticed", |mesh| {
        let alarms = mesh.status().alarms;
        alarms.iter().any(|alarm| alarm.contains("disk is full"))
    });
    mesh.wait_until("evidence is refused, with the reason", |mesh| {
        let evidence = mesh.node_status("node-a").last_evidence;
        evidence.is_some_and(|evidence| evidence.result.contains("cannot write its log"))
    });
    let epoch = mesh.epoch();
    mesh.evict("node-c");
    mesh.wait_until("the others have dropped it", |mesh| {
        ["node-a", "node-b"].iter().all(|node| {
            let peers = mesh.node_status(node).peers;
            peers[&name("node-c")].membership == Membership::Denied
        })
    });
    assert!(mesh.none_reach("node-c", &["node-a", "node-b"]));
    mesh.wait_until("epochs go on", |mesh| mesh.epoch() >= epoch + 4);
    // The events that were written then are there after a restart, on the full disk.
    mesh.kill(CONTROLLER);
    mesh.start_controller();
    let evicted = mesh
        .events()
        .into_iter()
        .any(|event| event.kind == "node_evicted");
    assert!(evicted && mesh.epoch() >= epoch + 4);

    disk.free();
    mesh.wait_until("all is well again", |mesh| mesh.status().alarms.is_empty());
    mesh.wait_until_members(&["node-a", "node-b"]);
    mesh.stop(CONTROLLER);
}

/// A file system of its own, that can be filled.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).expect("a folder");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs"])
            .arg(at));
        Self { at: at.to_owned() }
    }

    /// To the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("a file");
        for size in [1 << 20, 1 << 12, 1] {
            let bytes = vec![0x5A; size];
            while file.write_all(&bytes).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it is there");
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A daemon that still runs keeps it busy; it goes with the last of them.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

fn run(command: &mut Command) {
    let status = command.status().expect("the tests need `mount`");
    assert!(status.success(), "{command:?}");
}
