//! The outer headers of datagrams: which address they leave from, and what they say of congestion.

use crate::capture::Capture;
use tests::harness::Mesh;
use tests::harness::transfer::{noise, transfer};

/// node-b has two addresses on its link, and advertises the one that the system would not choose. What
/// comes to node-a from the other is thrown away, as a stateful firewall or a NAT does.
fn two_addresses(second: &str, is_v4: bool) -> Mesh {
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
    let [v4, v6] = mesh.underlay_addresses("node-b");
    for arguments in [
        "add table inet strict",
        "add chain inet strict input { type filter hook input priority 0; }",
        &format!("add rule inet strict input ip saddr {v4} drop"),
        &format!("add rule inet strict input ip6 saddr {v6} drop"),
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

fn answers_leave_from_the_address_that_was_asked(second: &str, is_v4: bool) {
    let mut mesh = two_addresses(second, is_v4);
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
    let length = if is_v4 { "15" } else { "64" };
    let node_b = mesh.namespace("node-b");
    node_b.ip(&format!("addr del {second}/{length} dev eth0"));
    mesh.wait_until("node-b is heard from its other address", |mesh| {
        mesh.all_reach(&["node-a", "node-b"])
    });
}

#[test]
fn answers_leave_from_the_ipv4_address_that_was_asked() {
    answers_leave_from_the_address_that_was_asked("198.18.1.102", true);
}

#[test]
fn answers_leave_from_the_ipv6_address_that_was_asked() {
    answers_leave_from_the_address_that_was_asked("fd00:6d65:7368::1:102", false);
}

/// Both nodes are reached by one family, and congestion is met on the way to node-b: its kernel marks what
/// says that it may be marked before it is delivered.
fn congestion_passes_through_the_tunnel(addresses: [&str; 2], of_ip: &str, fields: [&str; 2]) {
    let advertise = |address| format!("[\"{address}:51820\"]");
    let builder = Mesh::builder().nodes(2).epoch_seconds(3600);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .node_setting("node-a", "advertise", advertise(addresses[0]))
        .node_setting("node-b", "advertise", advertise(addresses[1]))
        .every_node_setting("listen_port", 51_820)
        // A capture ends when nothing passes any more.
        .every_node_setting("probe_seconds", 3600)
        .start();
    for arguments in [
        "add table inet marks",
        "add chain inet marks in { type filter hook prerouting priority mangle; }",
        &format!("add rule inet marks in udp dport 51820 {of_ip} ecn ect0 {of_ip} ecn set ce"),
    ] {
        let done = mesh.exec("node-b", &["nft", arguments]);
        assert!(done.status.success(), "{done:?}");
    }
    let [of_v4, of_v6] = mesh.underlay_addresses("node-b");
    let filter = format!("udp dst port 51820 and (dst host {of_v4} or dst host {of_v6})");
    let outer = Capture::start(&mesh, "node-b", "eth0", &filter);
    let inner = Capture::start(&mesh, "node-b", "meshd0", "");
    // 184 is DSCP EF, and the last two bits are ECT(0).
    for to in mesh.addresses("node-b") {
        let to = to.to_string();
        let ping = ["ping", "-n", "-c", "3", "-i", "0.2", "-Q", "186", &to];
        let done = mesh.exec("node-a", &ping);
        assert!(done.status.success(), "{done:?}");
    }
    // A handshake, for its mark.
    let change = mesh.rotate_now();
    mesh.wait_until("the next session", |mesh| {
        let status = mesh.node_status("node-b");
        status
            .peers
            .values()
            .all(|it| it.session_epoch == Some(change.epoch))
    });
    let outer = outer.stop().fields(&["udp.length", fields[0], fields[1]]);
    let number = |field: &String| {
        let hex = field.strip_prefix("0x");
        hex.map_or_else(|| field.parse(), |hex| u8::from_str_radix(hex, 16))
            .expect("a number")
    };
    // The lengths of an initiation and a response (whitepaper, section 5.4), and the header of UDP.
    let (handshakes, data): (Vec<_>, Vec<_>) = outer
        .iter()
        .partition(|frame| ["156", "100"].contains(&frame[0].as_str()));
    assert!(!handshakes.is_empty(), "{outer:?}");
    assert!(
        handshakes
            .iter()
            .all(|it| (number(&it[1]), number(&it[2])) == (34, 0))
    );
    assert!(data.iter().all(|it| number(&it[1]) == 0), "no DSCP");
    let marked = data.iter().filter(|it| number(&it[2]) == 2).count();
    assert_eq!(marked, 6, "the ECN of the pings: {data:?}");
    let inner = inner
        .stop()
        .fields(&["ip.dsfield", "ipv6.tclass", "icmp.type", "icmpv6.type"]);
    for (at, kind, request) in [(0, 2, "8"), (1, 3, "128")] {
        let requests = inner
            .iter()
            .filter(|it| it[kind] == request && number(&it[at]) != 0);
        let classes: Vec<_> = requests.map(|it| number(&it[at])).collect();
        assert_eq!(classes, [187; 3], "EF, and congestion experienced");
    }
}

#[test]
fn congestion_on_an_ipv4_path_is_told_inside_the_tunnel_and_handshakes_are_marked() {
    let fields = ["ip.dsfield.dscp", "ip.dsfield.ecn"];
    congestion_passes_through_the_tunnel(["198.18.1.1", "198.18.1.2"], "ip", fields);
}

#[test]
fn congestion_on_an_ipv6_path_is_told_inside_the_tunnel_and_handshakes_are_marked() {
    let fields = ["ipv6.tclass.dscp", "ipv6.tclass.ecn"];
    let addresses = ["[fd00:6d65:7368::1:1]", "[fd00:6d65:7368::1:2]"];
    congestion_passes_through_the_tunnel(addresses, "ip6", fields);
}
