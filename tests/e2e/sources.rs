//! The outer headers of datagrams: which address they leave from, and what they say of congestion.

use tests::harness::Mesh;
use tests::harness::transfer::{noise, transfer};

/// node-b has two addresses on its link, and advertises the one that the system would not choose. What
/// comes to node-a from the other is thrown away, as a stateful firewall or a NAT does.
fn two_addresses(first: &str, second: &str, family: &str) -> Mesh {
    let is_v4 = family == "ip";
    let advertised = if is_v4 {
        format!("[\"{second}:51820\"]")
    } else {
        format!("[\"[{second}]:51820\"]")
    };
    let builder = Mesh::builder().nodes(2).epoch_seconds(3600);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .node_setting("node-b", "advertise", advertised)
        .node_setting("node-b", "listen_port", 51_820)
        .prepare();
    let length = if is_v4 { "15" } else { "64" };
    let more = if is_v4 { "" } else { "nodad preferred_lft 0" };
    let node_b = mesh.namespace("node-b");
    node_b.ip(&format!("addr add {second}/{length} dev eth0 {more}"));
    let rule = format!("{family} saddr {first} drop");
    for arguments in [
        "add table inet strict",
        "add chain inet strict input { type filter hook input priority 0; }",
        &format!("add rule inet strict input {rule}"),
    ] {
        let done = mesh.exec("node-a", &["nft", arguments]);
        assert!(done.status.success(), "{done:?}");
    }
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    mesh.wait_until_all_reach_all();
    mesh
}

fn answers_leave_from_the_address_that_was_asked(first: &str, second: &str, family: &str) {
    let mut mesh = two_addresses(first, second, family);
    // Batches as well, both ways: nothing of them arrives from another address.
    let bytes = noise(4 << 20, 1);
    for (from, to) in [("node-b", "node-a"), ("node-a", "node-b")] {
        let address = mesh.addresses(to)[0];
        let (from, to) = (mesh.namespace(from), mesh.namespace(to));
        let arrived = transfer(from, to, address, &bytes).expect("it passes");
        assert!(arrived == bytes, "the bytes that were sent");
    }
    let change = mesh.rotate_now();
    mesh.wait_until("the next epoch", |mesh| {
        mesh.node_status("node-a").epoch == Some(change.epoch)
    });
    mesh.wait_until_all_reach_all();
    // The address goes: from there on the system chooses, and node-a follows.
    let undone = mesh.exec("node-a", &["nft", "delete", "table", "inet", "strict"]);
    assert!(undone.status.success(), "{undone:?}");
    let length = if family == "ip" { "15" } else { "64" };
    let node_b = mesh.namespace("node-b");
    node_b.ip(&format!("addr del {second}/{length} dev eth0"));
    mesh.wait_until("node-b is heard from its other address", |mesh| {
        mesh.all_reach(&["node-a", "node-b"])
    });
}

#[test]
fn answers_leave_from_the_ipv4_address_that_was_asked() {
    answers_leave_from_the_address_that_was_asked("198.18.1.2", "198.18.1.102", "ip");
}

#[test]
fn answers_leave_from_the_ipv6_address_that_was_asked() {
    let (first, second) = ("fd00:6d65:7368::1:2", "fd00:6d65:7368::1:102");
    answers_leave_from_the_address_that_was_asked(first, second, "ip6");
}
