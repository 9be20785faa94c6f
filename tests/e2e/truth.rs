//! Things that have ended are shown with a date, or not at all.

use tests::harness::{CONTROLLER, Mesh};
use wire::admin::{Control, ControllerStatus, NodeStatus, Observation, PskState};

#[test]
fn two_members_whose_udp_is_blocked_are_named_by_the_controller_until_it_passes_again() {
    let mut mesh = crate::quiet_mesh();
    mesh.wait_until_all_reach_all();
    let said = |mesh: &Mesh| {
        let all = mesh.status().attention;
        all.iter()
            .any(|it| it.contains("no echo passes: node-a and node-b;"))
    };
    assert!(!said(&mesh));
    let nft = |mesh: &Mesh, words: &str| {
        let done = mesh.exec("node-a", &["nft", words]);
        assert!(done.status.success(), "{done:?}");
    };
    nft(&mesh, "add table inet wall");
    nft(
        &mesh,
        "add chain inet wall in { type filter hook input priority 0 ; }",
    );
    for from in mesh.underlay_of("node-b") {
        let family = if from.is_ipv4() { "ip" } else { "ip6" };
        nft(
            &mesh,
            &format!("add rule inet wall in {family} saddr {from} udp dport 51820 drop"),
        );
    }
    mesh.wait_until("the controller names them", |mesh| said(mesh));
    assert_eq!(mesh.status().attention.len(), 1, "and nobody else");
    nft(&mesh, "delete table inet wall");
    mesh.wait_until("all is well again", |mesh| {
        mesh.status().attention.is_empty()
    });
}

#[test]
fn what_is_shown_of_a_node_that_died_and_of_a_controller_out_of_reach_is_dated_or_gone() {
    let mut mesh = crate::quiet_mesh();
    mesh.wait_until("all have reported", |mesh| {
        let nodes = mesh.status().nodes;
        // A handshake, and an echo that came back by it.
        let is_measured = |pair: &Observation| {
            let tunnel = pair.tunnel.as_ref();
            tunnel.is_some_and(|it| it.handshake_seconds.is_some() && it.lost < it.echoes)
        };
        let reported = |node: &NodeStatus| {
            let pairs = node.observes.values().filter(|pair| is_measured(pair));
            pairs.count() == 2 && node.observed_utc.is_some()
        };
        nodes
            .values()
            .all(|node| reported(node) && node.psk == PskState::Valid)
    });
    mesh.kill("node-b");
    mesh.link_down("node-c");
    let (mut silent_there, mut silent_here) = (false, false);
    mesh.wait_until(
        "the controller misses both, and node-c the controller",
        |mesh| {
            let [b, c] = ["node-b", "node-c"].map(|node| mesh.node(node));
            let own = mesh.node_status("node-c");
            silent_there |= b.control == Control::Silent;
            silent_here |= own.control == Control::Silent;
            [b.control, c.control, own.control] == [Control::Disconnected; 3]
        },
    );
    assert!(
        silent_there && silent_here,
        "silence shows before it is the end"
    );
    mesh.wait_until("the file says so too", |mesh| {
        let status = file(mesh);
        let gone = |node| shown(&status, node).control == Control::Disconnected;
        gone("node-b") && gone("node-c")
    });
    for status in [mesh.status(), file(&mesh)] {
        for node in ["node-b", "node-c"].map(|node| shown(&status, node)) {
            assert_eq!(node.psk, PskState::Unknown);
            assert_eq!((node.observes.len(), &node.observed_utc), (0, &None));
            let heard = node.heard_utc.as_ref().expect("it was heard");
            assert!(*heard < status.generated_utc, "{heard}");
        }
        let alive = shown(&status, "node-a");
        assert_eq!(
            (alive.psk, alive.control),
            (PskState::Valid, Control::Connected)
        );
    }
    let own = mesh.node_status("node-c");
    assert!(
        own.control_heard_seconds.is_some_and(|it| it >= 7.0),
        "{own:?}"
    );
    let texts = [&["status"][..], &["node", "show", "node-b"]].map(|arguments| {
        let said = mesh.meshctl(CONTROLLER, arguments);
        String::from_utf8_lossy(&said.stdout).into_owned()
    });
    for text in texts {
        assert!(
            text.contains("disconnected, heard") && text.contains("unknown"),
            "{text}"
        );
    }
    // With no word from anybody, a controller that is there says so by the date of its file.
    let before = file(&mesh).generated_utc;
    mesh.wait_until("the file is written anew", |mesh| {
        file(mesh).generated_utc > before
    });
}

fn shown<'s>(status: &'s ControllerStatus, node: &str) -> &'s NodeStatus {
    let mut nodes = status.nodes.iter();
    let found = nodes.find(|(name, _)| name.as_str() == node);
    found.expect("it is enrolled").1
}

fn file(mesh: &Mesh) -> ControllerStatus {
    let text = std::fs::read(mesh.status_file()).expect("it is always there");
    serde_json::from_slice(&text).expect("it is whole")
}
