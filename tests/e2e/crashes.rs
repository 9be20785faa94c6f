//! Daemons that are killed, and come back by themselves.

use std::time::Duration;
use tests::harness::{CONTROLLER, Mesh};
use wire::admin::{Control, EventInfo, Membership, NodeState};

#[test]
fn a_controller_that_is_killed_takes_up_where_it_was() {
    let mut mesh = Mesh::builder().epoch_seconds(3).start();
    let ping = mesh.keep_pinging("node-a", "node-b");
    let mut newest = mesh.epoch();
    let mut log: Vec<EventInfo> = Vec::new();
    for round in 0..3_u64 {
        mesh.wait_epochs(1);
        // Another moment of the epoch each time: early, before and after the next one is published.
        std::thread::sleep(Duration::from_millis(700 * round));
        let before = mesh.events();
        newest = newest.max(mesh.epoch());
        mesh.kill(CONTROLLER);
        mesh.start_controller();
        let status = mesh.status();
        assert!(status.epoch.id >= newest, "{} < {newest}", status.epoch.id);
        newest = status.epoch.id;

        // It reads and verifies the whole chain as it opens it; what was in it is in it.
        let after = mesh.events();
        assert_eq!(after[..before.len()], before[..]);
        assert!(after.len() >= log.len());
        let numbered = after.iter().zip(1..).all(|(event, seq)| event.seq == seq);
        assert!(numbered, "no number is missing or used twice");
        log = after;

        mesh.wait_until("all nodes reconnect", |mesh| {
            let status = mesh.status();
            let mut nodes = status.nodes.values();
            nodes.all(|node| node.control == Control::Connected)
        });
        mesh.wait_until("an epoch after it is acknowledged", |mesh| {
            let status = mesh.status();
            let mut nodes = status.nodes.values();
            status.epoch.id > newest && nodes.all(|node| node.epoch >= Some(status.epoch.id))
        });
    }
    let losses = ping.stop();
    assert!(losses.sent > 40, "{losses:?}");
    assert!(losses.lost <= 1, "{losses:?}");
    mesh.wait_until_all_reach_all();
}

#[test]
fn a_node_that_is_killed_comes_back_as_the_same_and_its_pairs_heal() {
    let builder = Mesh::builder().probation_epochs(4);
    let mut mesh = builder.mean("node-c", 0.4).start();
    mesh.wait_until_membership("node-c", Membership::Denied);
    let before = mesh.status();
    let ping = mesh.keep_pinging("node-a", "node-b");

    mesh.kill("node-c");
    mesh.start_node("node-c");
    let mut seen = 0;
    mesh.wait_until("node-c is connected again", |mesh| {
        let node = mesh.node("node-c");
        assert_eq!(node.membership, Membership::Denied, "no second probation");
        assert_eq!(node.probation_left, 0);
        let again = node.control == Control::Connected
            && mesh
                .try_node_status("node-c")
                .is_some_and(|own| own.control == Control::Connected);
        seen += usize::from(again);
        seen > 20
    });
    mesh.wait_epochs(2);
    assert_eq!(mesh.node("node-c").membership, Membership::Denied);
    assert!(mesh.none_reach("node-c", &["node-a", "node-b"]));
    assert_eq!(ping.stop().lost, 0, "nobody else noticed");

    mesh.kill("node-b");
    let gone = !mesh
        .exec("node-b", &["ip", "link", "show", "meshd0"])
        .status
        .success();
    assert!(gone, "a killed daemon leaves no interface");
    mesh.start_node("node-b");
    mesh.wait_until_members(&["node-a", "node-b"]);
    let after = mesh.status();
    for (name, node) in &before.nodes {
        let now = &after.nodes[name];
        let same = (&now.node, now.v4, now.v6, &now.wireguard, &now.enrolled_utc);
        let was = (
            &node.node,
            node.v4,
            node.v6,
            &node.wireguard,
            &node.enrolled_utc,
        );
        assert_eq!(same, was, "{name}");
    }
    assert_eq!(mesh.node("node-b").state, NodeState::Active);
}

#[test]
fn a_node_that_stops_as_asked_leaves_nothing_behind() {
    let mut mesh = Mesh::builder().nodes(2).start();
    for host in ["node-b", CONTROLLER] {
        let status = mesh.stop(host);
        assert_eq!(status.code(), Some(0), "{host}");
        assert!(!mesh.socket(host).exists(), "{host} removes its socket");
    }
    assert!(
        !mesh
            .exec("node-b", &["ip", "link", "show", "meshd0"])
            .status
            .success()
    );
    mesh.start_controller();
    mesh.start_node("node-b");
    mesh.wait_until_all_reach_all();
}

#[test]
fn a_controller_that_comes_back_hears_how_far_its_nodes_have_come() {
    let mut mesh = crate::quiet_mesh();
    let all_hold_the_keys = |mesh: &mut Mesh| {
        let epoch = mesh.epoch();
        let nodes = mesh.status().nodes;
        let holds = |node: &wire::admin::NodeStatus| {
            node.psk == wire::admin::PskState::Valid && node.epoch == Some(epoch)
        };
        nodes.len() == 3 && nodes.values().all(holds)
    };
    mesh.wait_until("all have said so", all_hold_the_keys);
    mesh.kill(CONTROLLER);
    mesh.start_controller();
    // No epoch begins within the hour: what they said before is all that there is to say.
    mesh.wait_until("all have said so again", all_hold_the_keys);
}
