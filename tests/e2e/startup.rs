//! Starting under difficulties: what may still work is waited for.

use crate::refusals::Bench;
use keys::{NodeSecret, WgSecret};
use rand_core::OsRng;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt};
use std::time::Duration;
use tests::harness::{CONTROLLER, Mesh};
use wire::admin::{Control, Membership};
use wire::message::Enrol;
use wire::{ToController, ToNode};

#[test]
fn nodes_that_start_before_their_controller_wait_for_it() {
    let mut mesh = Mesh::builder().nodes(2).prepare();
    mesh.start_controller();
    // Tokens are all that they can have before.
    let tokens = ["node-a", "node-b"].map(|node| mesh.token_file(node).display().to_string());
    mesh.kill(CONTROLLER);
    for (node, token) in ["node-a", "node-b"].iter().zip(&tokens) {
        mesh.spawn(node, &["--join", &format!("@{token}")]);
    }
    mesh.wait_until("both say that they are waiting", |mesh| {
        ["node-a", "node-b"].iter().all(|node| {
            assert!(mesh.is_running(node), "{}", mesh.log(node));
            mesh.log(node)
                .contains("cannot reach the controller to enrol")
        })
    });
    mesh.start_controller();
    mesh.wait_until_all_reach_all();

    // The same for nodes that are enrolled.
    for host in ["node-a", "node-b", CONTROLLER] {
        mesh.kill(host);
    }
    mesh.start_node("node-a");
    mesh.start_node("node-b");
    mesh.wait_until("node-a answers", |mesh| {
        let own = mesh.try_node_status("node-a");
        own.is_some_and(|own| own.control == Control::Disconnected && own.membership.is_none())
    });
    mesh.start_controller();
    mesh.wait_until_all_reach_all();
}

#[test]
fn enrolment_survives_a_controller_that_is_killed_in_the_middle() {
    let mut mesh = Mesh::builder().nodes(8).prepare();
    mesh.start_controller();
    for (round, node) in (0_u64..).zip(mesh.nodes()) {
        mesh.start_node(&node);
        // Another moment each time: before, in and after the exchange.
        std::thread::sleep(Duration::from_millis(round * 12));
        mesh.kill(CONTROLLER);
        mesh.start_controller();
        mesh.wait_until("it is enrolled", |mesh| {
            assert!(mesh.is_running(&node), "{}", mesh.log(&node));
            let status = mesh.status();
            let found = status.nodes.get(&tests::harness::mesh::name(&node));
            found.is_some_and(|found| found.control == Control::Connected)
        });
    }
    mesh.wait_until_all_reach_all();
    let status = mesh.status();
    let members = status.nodes.values();
    assert!(
        members
            .clone()
            .all(|node| node.membership == Membership::Allowed)
    );
    let addresses: std::collections::BTreeSet<_> = members.map(|node| node.v4).collect();
    assert_eq!(addresses.len(), 8, "nobody was enrolled twice");
}

#[test]
fn a_node_whose_answer_was_lost_enrols_with_the_same_token_and_nobody_else_does() {
    let mut mesh = Mesh::builder().nodes(2).prepare();
    mesh.start_controller();
    mesh.start_node("node-a");
    let path = mesh.token_file("node-b");
    let text = std::fs::read_to_string(&path).expect("it was just written");
    let (identity, wg) = (
        NodeSecret::generate(&mut OsRng),
        WgSecret::generate(&mut OsRng),
    );
    let state = mesh.state_dir("node-b");
    let private = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&state);
    private.expect("the folder can be written");
    for (file, key) in [
        ("identity.key", identity.expose_base64()),
        ("wireguard.key", wg.expose_base64()),
    ] {
        let path = state.join(file);
        std::fs::write(&path, &*key).expect("the folder can be written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("it is ours");
    }
    // An enrolment whose answer node-b never sees.
    let public = wg.public();
    let enrolled = mesh.namespace("node-b").enter(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime can be had");
        runtime.block_on(enrol(&identity, &text, public))
    });
    assert!(
        enrolled.join().expect("it is answered"),
        "the token is good"
    );
    mesh.wait_until("both are enrolled", |mesh| mesh.status().nodes.len() == 2);

    // Somebody who found the token.
    mesh.add_host("bench", 50);
    let fresh = format!("@{}", path.display());
    let bench = Bench { mesh: &mesh, fresh };
    let thief = bench.refused(bench.node("thief", &[]), &["token", "used"]);
    assert_eq!(thief.err(), None);

    mesh.spawn("node-b", &["--join", &format!("@{}", path.display())]);
    mesh.wait_until_all_reach_all();
    assert_eq!(mesh.status().nodes.len(), 2);
}

#[test]
fn a_node_enrols_where_its_settings_say_and_not_where_its_token_does() {
    let mut mesh = Mesh::builder().nodes(2).prepare();
    mesh.start_controller();
    mesh.start_node("node-a");
    let path = mesh.token_file("node-b");
    let text = std::fs::read_to_string(&path).expect("it was just written");
    let mut token: wire::Token = text.trim().parse().expect("a token is a token");
    let right = std::mem::replace(&mut token.controllers, vec!["198.51.100.9:7443".into()]);
    std::fs::write(&path, &*token.expose()).expect("it is ours");
    let join = format!("@{}", path.display());
    mesh.spawn("node-b", &["--join", &join, "--controller", &right[0]]);
    mesh.wait_until_all_reach_all();
}

async fn enrol(identity: &NodeSecret, token: &str, wg: keys::WgPublicKey) -> bool {
    let token: wire::Token = token.parse().expect("a token is a token");
    let dialer = quic::Dialer::bind(identity, token.controller).expect("a port is free");
    let address = token.controllers[0].parse().expect("the lab has addresses");
    let connection = dialer.connect(address).await.expect("it is reachable");
    let stream = connection.open_stream::<ToController, ToNode>().await;
    let (mut sender, mut receiver) = stream.expect("a stream can be had");
    let enrol = Enrol {
        token: token.secret,
        name: None,
        segments: vec![wire::Ask::unnamed(wg)],
        addresses: Vec::new(),
    };
    let sent = sender.send(&ToController::Enrol(enrol)).await;
    sent.expect("it takes a message");
    matches!(receiver.recv().await, Ok(Some(ToNode::Enrolled(_))))
}
