//! Where nodes are found: all their addresses, families that two nodes do not share, a neighbour of the
//! controller, and mesh ranges that lie over the addresses in use.

use crate::{outcome, quiet_mesh_of};
use std::net::IpAddr;
use tests::harness::Mesh;
use tests::harness::daemon::Daemon;
use tests::harness::mesh::{CONTROLLER, name};
use tests::harness::programs::program;
use wire::admin::Membership;

/// Throws away all that `host` hears from this address outside, but for the control channel.
fn deaf_to(mesh: &Mesh, host: &str, from: IpAddr) {
    for arguments in [
        "add table inet deaf",
        "add chain inet deaf input { type filter hook input priority 0; }",
        &format!("add rule inet deaf input ip saddr {from} udp dport != 7443 drop"),
    ] {
        let done = mesh.exec(host, &["nft", arguments]);
        assert!(done.status.success(), "{done:?}");
    }
}

/// The controller may not know it yet.
fn wait_until_member(mesh: &mut Mesh, node: &str) {
    mesh.wait_until("it is a member", |mesh| {
        let status = mesh.try_status();
        let found = status.and_then(|mut status| status.nodes.remove(&name(node)));
        found.is_some_and(|it| it.membership == Membership::Allowed && !it.endpoints.is_empty())
    });
}

fn endpoint(mesh: &Mesh, host: &str, peer: &str) -> Option<IpAddr> {
    let status = mesh.try_node_status(host)?;
    let endpoint = status.peers.get(&name(peer))?.endpoint?;
    Some(endpoint.ip())
}

#[test]
fn a_pair_whose_ipv4_path_dies_goes_on_by_ipv6() {
    let mut mesh = quiet_mesh_of(2);
    let docker = mesh.namespace("node-b");
    docker.ip("link add docker0 type bridge");
    docker.ip("addr add 172.17.0.1/16 dev docker0");
    docker.ip("link set docker0 up");
    let [v4, v6] = mesh.underlay_of("node-b");
    let announced = |mesh: &Mesh| -> Vec<IpAddr> {
        let endpoints = mesh.node("node-b").endpoints.into_iter();
        endpoints.map(|at| at.ip()).collect()
    };
    assert_eq!(announced(&mesh), [v4, v6]);
    assert_eq!(endpoint(&mesh, "node-a", "node-b"), Some(v4));
    deaf_to(&mesh, "node-a", v4);
    deaf_to(&mesh, "node-b", mesh.underlay_of("node-a")[0]);
    mesh.wait_until("the pair goes by IPv6", |mesh| {
        endpoint(mesh, "node-a", "node-b") == Some(v6) && mesh.all_reach(&["node-a", "node-b"])
    });
    // One more address is told of at once, and the bridge of containers is not.
    let more = "198.18.9.9";
    mesh.namespace("node-b")
        .ip(&format!("addr add {more}/15 dev eth0"));
    mesh.wait_until("another address is announced", |mesh| {
        announced(mesh).contains(&more.parse().expect("an address"))
    });
    assert!(!announced(&mesh).contains(&IpAddr::from([172, 17, 0, 1])));
    assert_eq!(endpoint(&mesh, "node-a", "node-b"), Some(v6), "no way back");
}

#[test]
fn nodes_without_a_common_address_family_are_told_so() {
    let mut mesh = Mesh::builder().nodes(2).epoch_seconds(3600).prepare();
    let [_, v6] = mesh.underlay_addresses("node-a");
    let [v4, _] = mesh.underlay_addresses("node-b");
    mesh.namespace("node-a")
        .ip(&format!("addr del {v6}/64 dev eth0"));
    mesh.namespace("node-b")
        .ip(&format!("addr del {v4}/15 dev eth0"));
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.start_node("node-b");
    for node in ["node-a", "node-b"] {
        wait_until_member(&mut mesh, node);
    }
    for (node, other) in [("node-a", "node-b"), ("node-b", "node-a")] {
        mesh.wait_until("it is named", |mesh| {
            let status = mesh.try_node_status(node);
            let seen = status.and_then(|mut status| status.peers.remove(&name(other)));
            let named = |text: &String| text.contains("no common address family");
            let is_named = seen.is_some_and(|seen| {
                let cause = seen.ping_v4.and_then(|ping| ping.cause);
                cause.as_ref().is_some_and(named) && seen.faults.iter().any(named)
            });
            let observed = mesh.node(node).observes.remove(&name(other));
            is_named && observed.is_some_and(|it| it.faults.iter().any(named))
        });
        let told = |mesh: &Mesh| mesh.log(node).matches("no tunnel: no common").count();
        mesh.wait_until("the log tells it", |mesh| told(mesh) > 0);
        assert_eq!(told(&mesh), 1, "{}", mesh.log(node));
    }
    // An address of the other family, and they find each other.
    mesh.namespace("node-a")
        .ip(&format!("addr add {v6}/64 dev eth0 nodad"));
    mesh.wait_until("they reach each other", |mesh| {
        mesh.all_reach(&["node-a", "node-b"])
    });
}

#[test]
fn a_node_on_the_controllers_machine_is_found_from_another() {
    let mut mesh = Mesh::builder()
        .nodes(2)
        .epoch_seconds(3600)
        .node_setting("node-b", "controller", "[\"127.0.0.1:7443\"]")
        .prepare();
    mesh.start_controller();
    let token = format!("@{}", mesh.token_file("node-b").display());
    let mut command = mesh.command(CONTROLLER, program("meshd"));
    command.arg("--config").arg(mesh.settings_file("node-b"));
    command.args(["--join", &token]);
    let _daemon = Daemon::start(command, &mesh.folder().join("node-b.log"));
    mesh.start_node("node-a");
    for node in ["node-a", "node-b"] {
        wait_until_member(&mut mesh, node);
    }
    let endpoints = mesh.node("node-b").endpoints;
    let ips: Vec<IpAddr> = endpoints.iter().map(|at| at.ip()).collect();
    assert!(ips.contains(&IpAddr::from([198, 18, 0, 1])), "{ips:?}");
    assert!(!ips.iter().any(IpAddr::is_loopback), "{ips:?}");
    mesh.wait_until("they reach each other", |mesh| {
        mesh.ping("node-a", "node-b")
    });
}

#[test]
fn a_mesh_range_over_a_nodes_address_is_refused_and_the_token_stays_good() {
    let mut mesh = Mesh::builder()
        .nodes(1)
        .epoch_seconds(3600)
        .controller_setting("mesh_v4", "\"198.18.1.0/24\"")
        .prepare();
    mesh.start_controller();
    let token = format!("@{}", mesh.token_file("node-a").display());
    let mut command = mesh.daemon_command("node-a");
    command.args(["--join", &token]);
    let (code, said) = outcome(command);
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert!(
        said.contains("198.18.1.1") && said.contains("inside the mesh's address range"),
        "{said}"
    );
    let host = mesh.namespace("node-a");
    host.ip("addr add 198.18.9.1/15 dev eth0");
    host.ip("addr del 198.18.1.1/15 dev eth0");
    mesh.spawn("node-a", &["--join", &token]);
    wait_until_member(&mut mesh, "node-a");
}

#[test]
fn a_mesh_range_over_the_controllers_own_address_is_refused() {
    let mesh = Mesh::builder()
        .nodes(0)
        .controller_setting("mesh_v4", "\"198.18.0.0/24\"")
        .prepare();
    let (code, said) = outcome(mesh.daemon_command(CONTROLLER));
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert!(
        said.contains("198.18.0.1") && said.contains("198.18.0.0/24"),
        "{said}"
    );
}
