//! An underlay that fails, for longer than the lease.

use std::time::Duration;
use tests::harness::{CONTROLLER, Mesh};
use wire::admin::{Control, Membership};

#[test]
fn nodes_without_their_controller_fail_closed_as_the_lease_ends_and_recover() {
    let mut mesh = Mesh::builder().lease_seconds(6).start();
    mesh.link_down(CONTROLLER);
    assert!(
        mesh.all_reach(&["node-a", "node-b", "node-c"]),
        "the lease holds"
    );
    mesh.wait_up_to(Duration::from_secs(30), "every node is closed", |mesh| {
        let nodes = mesh.nodes();
        nodes.iter().all(|node| {
            let own = mesh.node_status(node);
            own.membership == Some(Membership::Denied)
                && own.reason.is_some_and(|reason| reason.contains("lease"))
        })
    });
    assert!(mesh.none_reach("node-a", &["node-b", "node-c"]));
    assert!(mesh.none_reach("node-b", &["node-c"]));
    mesh.wait_until("every node says that it is cut off", |mesh| {
        let nodes = mesh.nodes();
        nodes.iter().all(|node| {
            let own = mesh.node_status(node);
            own.control == Control::Disconnected && own.control_error.is_some()
        })
    });
    for node in mesh.nodes() {
        let log = mesh.log(&node);
        let said = log
            .matches("the lease is over and no update came: all tunnels closed")
            .count();
        assert_eq!(said, 1, "{node} says so, once");
        let tries = log.matches("control channel down").count();
        assert!(
            (1..=3).contains(&tries),
            "{node} does not log every retry: {tries}"
        );
    }
    mesh.link_up(CONTROLLER);
    mesh.wait_until_all_reach_all();
}

#[test]
fn a_node_that_is_cut_off_is_closed_while_the_others_go_on() {
    let mut mesh = Mesh::builder().lease_seconds(6).start();
    let ping = mesh.keep_pinging("node-a", "node-b");
    mesh.link_down("node-c");
    mesh.wait_up_to(Duration::from_secs(30), "node-c is closed", |mesh| {
        mesh.node_status("node-c").membership == Some(Membership::Denied)
    });
    mesh.wait_until("the controller misses it", |mesh| {
        mesh.node("node-c").control == Control::Disconnected
    });
    mesh.link_up("node-c");
    mesh.wait_until_all_reach_all();
    let losses = ping.stop();
    assert!(losses.sent > 30, "{losses:?}");
    assert_eq!(losses.lost, 0, "{losses:?}");
}
