//! Somebody else at the mesh's interface and at the routes to its peers: what was changed is put right, and what a
//! daemon may not change is named. No epoch changes in any of it.

use std::net::IpAddr;
use std::time::Duration;
use tests::harness::{Mesh, poll};
use wire::admin::{InterfaceState, InterfaceStatus, NodeState};

/// Every kind of change, one after the other: address, link, MTU, name, route.
#[test]
fn whatever_somebody_changes_at_the_interface_is_put_right() {
    let mut mesh = pair();
    let epoch = mesh.epoch();
    let [v4, v6] = mesh.addresses("node-a");
    let mtu = interface(&mesh, "node-a").mtu;
    let changes = [
        "addr flush dev meshd0".to_owned(),
        format!("addr del {v6}/64 dev meshd0"),
        "link set meshd0 down".to_owned(),
        "link set meshd0 mtu 1300".to_owned(),
        // Too narrow for IPv6, whose addresses the kernel takes away.
        "link set meshd0 mtu 1000".to_owned(),
        "link set meshd0 txqueuelen 3".to_owned(),
        "link set meshd0 name other".to_owned(),
        "route del 10.90.0.0/16 dev meshd0".to_owned(),
    ];
    for change in changes {
        let change = change.replace("10.90.0.0/16", &range(&mesh, "node-a"));
        mesh.namespace("node-a").ip(&change);
        mesh.wait_until(&format!("it is right again after `{change}`"), |mesh| {
            // For a moment there may be none of that name.
            let shown = mesh.exec("node-a", &["ip", "-d", "addr", "show", "dev", "meshd0"]);
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            let has = |text: &str| shown.contains(text);
            has(&format!(" {v4}/"))
                && has(&format!(" {v6}/"))
                && has(&format!("mtu {mtu} "))
                && has("qlen 4000")
                && has(",UP")
                && reaches(mesh)
        });
        mesh.wait_until("it says that all is well", |mesh| {
            let interface = interface(mesh, "node-a");
            interface.state == InterfaceState::Ok && interface.faults.is_empty()
        });
    }
    let log = mesh.log("node-a");
    assert!(
        log.contains("somebody changed the interface: put right"),
        "{log}"
    );
    assert_eq!(mesh.epoch(), epoch, "no epoch had to change for it");
}

/// Deleted, and moved to where this machine's packets do not get: the device is made anew, and the sessions stay.
#[test]
fn an_interface_that_is_deleted_is_made_anew_and_sessions_go_on() {
    let mut mesh = pair();
    let epoch = mesh.epoch();
    let sessions = |mesh: &Mesh| {
        let status = mesh.node_status("node-a");
        let peer = status.peers.values().next().expect("there is one");
        (
            peer.session_epoch,
            peer.handshake_seconds.expect("a session"),
        )
    };
    let (session, age) = sessions(&mesh);
    let elsewhere = mesh.underlay().name().to_owned();
    let removals = [
        "link del meshd0".to_owned(),
        format!("link set meshd0 netns {elsewhere}"),
    ];
    for removal in removals {
        let before = index(&mesh);
        mesh.namespace("node-a").ip(&removal);
        mesh.wait_until(&format!("it is there after `{removal}`"), |mesh| {
            mesh.is_running("node-a") && index(mesh).is_some_and(|it| Some(it) != before)
        });
        mesh.wait_until("packets pass again", reaches);
        mesh.wait_until("it says that all is well", |mesh| {
            let interface = interface(mesh, "node-a");
            interface.state == InterfaceState::Ok && reaches(mesh)
        });
        // The rules speak of the device that is there, as `ip` prints none that is not.
        let rules = mesh.exec("node-a", &["nft", "list", "table", "inet", "meshd-meshd0"]);
        let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
        assert!(rules.contains("iif \"meshd0\" accept"), "{rules}");
    }
    let (session_now, age_now) = sessions(&mesh);
    assert_eq!((session_now, mesh.epoch()), (session, epoch));
    assert!(
        age_now >= age,
        "the session is the one that was there before"
    );
    // Where the name is taken meanwhile, the daemon ends in a way that a service manager answers with a start.
    let namespace = mesh.namespace("node-a");
    // Held up, so that it is not the faster one.
    mesh.pause("node-a");
    namespace.ip("link del meshd0");
    namespace.ip("link add meshd0 type veth peer name other-end");
    mesh.resume("node-a");
    let ended = poll(Duration::from_secs(30), || !mesh.is_running("node-a"));
    assert!(ended, "{}", mesh.log("node-a"));
    let log = mesh.log("node-a");
    assert!(
        log.contains("the interface is gone and cannot be made anew"),
        "{log}"
    );
    assert!(log.contains("meshd0 exists already"), "{log}");
    assert_eq!(mesh.stop("node-a").code(), Some(1));
}

#[test]
fn a_node_without_ipv6_runs_and_takes_its_address_when_ipv6_comes() {
    let builder = Mesh::builder().nodes(2).epoch_seconds(3600);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .prepare();
    set(&mesh, "node-a", "ipv6/conf/default/disable_ipv6", "1");
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    let named = |mesh: &Mesh| {
        let faults = interface(mesh, "node-a").faults;
        faults
            .iter()
            .any(|fault| fault.contains("is missing: IPv4 only, because net.ipv6.conf"))
    };
    mesh.wait_until("it runs with IPv4", |mesh| {
        assert!(mesh.is_running("node-a"), "{}", mesh.log("node-a"));
        mesh.try_node_status("node-a").is_some() && mesh.ping("node-a", "node-b") && named(mesh)
    });
    let said = |mesh: &Mesh| mesh.log("node-a").matches("IPv4 only").count();
    assert_eq!(said(&mesh), 1);
    mesh.wait_until("the controller shows it", |mesh| {
        let faults = mesh.node("node-a").faults;
        faults.iter().any(|fault| fault.contains("IPv4 only"))
    });
    set(&mesh, "node-a", "ipv6/conf/meshd0/disable_ipv6", "0");
    mesh.wait_until("both families pass", |mesh| {
        reaches(mesh) && interface(mesh, "node-a").state == InterfaceState::Ok
    });
    set(&mesh, "node-a", "ipv6/conf/all/disable_ipv6", "1");
    mesh.wait_until("it says that IPv6 is off", |mesh| {
        named(mesh) && mesh.ping("node-a", "node-b")
    });
    set(&mesh, "node-a", "ipv6/conf/all/disable_ipv6", "0");
    mesh.wait_until("both families pass again", |mesh| {
        reaches(mesh) && interface(mesh, "node-a").state == InterfaceState::Ok
    });
    assert_eq!(said(&mesh), 2, "{}", mesh.log("node-a"));
}

/// Routes, addresses and rules that take a peer's address out of the tunnel. The node's own echoes would not notice:
/// they are bound to it.
#[test]
fn a_route_that_takes_a_peer_out_of_the_tunnel_is_named_at_both_ends_and_forgotten_when_it_is_gone()
{
    let mut mesh = pair();
    let [v4, v6] = mesh.addresses("node-b");
    mesh.namespace("node-a")
        .ip("link add aside type veth peer name other-end");
    mesh.namespace("node-a").ip("link set other-end up");
    mesh.namespace("node-a").ip("link set aside up");
    let neighbour = match v4 {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) ^ 0xFF).into()),
        IpAddr::V6(_) => unreachable!("the first is IPv4"),
    };
    let cases = [
        (
            format!("route add {v4}/32 dev aside"),
            format!("route del {v4}/32 dev aside"),
            "aside",
        ),
        (
            format!("route add {v6}/128 dev aside"),
            format!("route del {v6}/128 dev aside"),
            "aside",
        ),
        (
            format!("addr add {neighbour}/24 dev aside"),
            format!("addr del {neighbour}/24 dev aside"),
            "aside",
        ),
        (
            format!("route add blackhole {v4}/32"),
            format!("route del blackhole {v4}/32"),
            "nowhere",
        ),
        (
            format!("rule add to {v4} prohibit"),
            format!("rule del to {v4} prohibit"),
            "nowhere",
        ),
    ];
    for (taken, given_back, word) in cases {
        mesh.namespace("node-a").ip(&taken);
        mesh.wait_until(&format!("it is named after `{taken}`"), |mesh| {
            let status = mesh.node_status("node-a");
            let peer = status.peers.values().next().expect("there is one").clone();
            let failed = [peer.ping_v4, peer.ping_v6]
                .into_iter()
                .flatten()
                .any(|ping| {
                    !ping.ok
                        && ping
                            .cause
                            .is_some_and(|cause| cause.contains("not through the tunnel"))
                });
            let interface = status.interface.expect("it runs");
            interface.state == InterfaceState::Impaired
                && interface.faults.iter().any(|fault| fault.contains(word))
                && peer
                    .faults
                    .iter()
                    .any(|fault| fault.contains("through the tunnel"))
                && failed
        });
        mesh.wait_until("the controller shows the pair as not well", |mesh| {
            let observed = mesh.node("node-a").observes;
            observed.values().any(|pair| {
                !pair.faults.is_empty() && (pair.rtt_v4_ms.is_none() || pair.rtt_v6_ms.is_none())
            })
        });
        mesh.wait_until("the other side names the cause", |mesh| {
            let status = mesh.node_status("node-b");
            let mut faults = status.peers.values().flat_map(|peer| &peer.faults);
            faults.any(|fault| fault.contains("its packets to") && fault.contains(word))
        });
        mesh.namespace("node-a").ip(&given_back);
        mesh.wait_until(&format!("all is well after `{given_back}`"), |mesh| {
            let interface = interface(mesh, "node-a");
            let observed = mesh.node("node-a").observes;
            interface.state == InterfaceState::Ok
                && interface.faults.is_empty()
                && observed.values().all(|pair| pair.faults.is_empty())
                && mesh
                    .node_status("node-b")
                    .peers
                    .values()
                    .all(|peer| peer.faults.is_empty())
                && reaches(mesh)
        });
    }
    let log = mesh.log("node-a");
    let line = format!("{v4} goes by way of aside, not through the tunnel: remove that route");
    assert!(log.contains(&line), "{log}");
    // One line for each, besides those of the echoes.
    let lines = log.lines().filter(|line| !line.contains("PING "));
    let lines = lines.filter(|line| line.contains("not through the tunnel"));
    assert_eq!(lines.count(), 5, "{log}");
}

/// Somebody who goes on does not keep the node busy, and it says how it stands.
#[test]
fn whoever_goes_on_taking_the_address_away_is_answered_ever_more_rarely() {
    let mut mesh = pair();
    let [v4, v6] = mesh.addresses("node-a");
    let namespace = mesh.namespace("node-a");
    for _ in 0..60 {
        for (address, len) in [(v4, 16), (v6, 64)] {
            let delete = format!("addr del {address}/{len} dev meshd0");
            let _ = namespace.command("ip").args(delete.split(' ')).output();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let lines = mesh.log("node-a");
    let repairs = lines.matches("somebody changed the interface").count();
    assert!((1..=12).contains(&repairs), "{repairs} repairs: {lines}");
    mesh.wait_until("it is right in the end", |mesh| {
        interface(mesh, "node-a").state == InterfaceState::Ok && reaches(mesh)
    });
    mesh.wait_until("the controller knows", |mesh| {
        mesh.node("node-a").state != NodeState::Impaired
    });
}

fn pair() -> Mesh {
    let builder = Mesh::builder().nodes(2).epoch_seconds(3600);
    builder
        .controller_setting("max_benchmark_age", 3600)
        .start()
}

fn interface(mesh: &Mesh, node: &str) -> InterfaceStatus {
    let interface = mesh.node_status(node).interface;
    interface.expect("a node that runs has an interface")
}

/// Whether applications, which bind to nothing, reach each other on both families.
fn reaches(mesh: &mut Mesh) -> bool {
    mesh.all_reach(&["node-a", "node-b"])
}

/// The interface's index in the namespace of node-a.
fn index(mesh: &Mesh) -> Option<u32> {
    let shown = mesh.exec("node-a", &["ip", "-o", "link", "show", "dev", "meshd0"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    shown.split_once(':')?.0.parse().ok()
}

/// The mesh's IPv4 range as its route has it.
fn range(mesh: &Mesh, node: &str) -> String {
    let shown = mesh.namespace(node).ip("-4 route show dev meshd0");
    let range = shown.split_whitespace().next();
    range.unwrap_or("10.90.0.0/16").to_owned()
}

/// Sets a variable of a host's network.
fn set(mesh: &Mesh, host: &str, variable: &str, value: &'static str) {
    let path = format!("/proc/sys/net/{variable}");
    let write = mesh
        .namespace(host)
        .enter(move || std::fs::write(path, value));
    let written = write.join().expect("a thread ends");
    written.unwrap_or_else(|error| panic!("{host}: {variable}: {error}"));
}
