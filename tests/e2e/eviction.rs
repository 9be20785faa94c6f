//! An operator's word against a node takes effect at once.

use crate::quiet_mesh;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::time::Duration;
use tests::harness::{CONTROLLER, Mesh, now};
use wire::admin::{Membership, NodeState};

#[test]
fn an_eviction_cuts_a_node_off_at_once_and_the_others_lose_nothing() {
    let mut mesh = quiet_mesh();
    let between = mesh.keep_pinging("node-a", "node-b");
    let from_evicted = mesh.keep_pinging("node-c", "node-a");
    mesh.wait_until("pings pass", |_| from_evicted.answered() > 5);

    let began = now();
    let change = mesh.evict("node-c");
    assert_eq!(change.activates_in_ms, 0, "no lead time");
    assert_eq!(change.members, 2);
    let cut = |mesh: &Mesh| {
        let a = mesh.node_status("node-a");
        let b = mesh.node_status("node-b");
        a.epoch == Some(change.epoch) && b.epoch == Some(change.epoch)
    };
    mesh.wait_up_to(Duration::from_secs(3), "everybody knows", |mesh| cut(mesh));
    let answered = from_evicted.answered();
    assert!(mesh.none_reach("node-c", &["node-a", "node-b"]));
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "this is no lease that ended"
    );
    assert_eq!(from_evicted.answered(), answered, "no answer after that");
    let node = mesh.node("node-c");
    assert_eq!(
        (node.state, node.membership),
        (NodeState::Evicted, Membership::Denied)
    );

    // Good scores do not bring it back; the operator's word does.
    mesh.rotate_now();
    mesh.wait_up_to(Duration::from_secs(5), "the rotation", |mesh| {
        mesh.epoch() > change.epoch
    });
    assert_eq!(mesh.node("node-c").state, NodeState::Evicted);
    mesh.readmit("node-c");
    mesh.rotate_now();
    mesh.wait_until_all_reach_all();
    mesh.wait_until("enough pings", |_| between.answered() > 25);
    let losses = between.stop();
    assert!(losses.sent > 20, "{losses:?}");
    assert_eq!(losses.lost, 0, "{losses:?}");
}

#[test]
fn an_evicted_node_that_does_not_hear_of_it_gets_through_to_nobody_not_even_one_that_slept() {
    let mut mesh = quiet_mesh();
    // node-c does not hear its controller any more, so that it goes on with the keys that it has.
    let (v4, v6) = ("198.18.1.3/32", "fd00:6d65:7368::1:3/128");
    for to_node_c in [v4, v6] {
        let controller = mesh.namespace(CONTROLLER);
        controller.ip(&format!("route add blackhole {to_node_c}"));
    }
    let to_a = mesh.keep_pinging("node-c", "node-a");
    let to_b = mesh.keep_pinging("node-c", "node-b");
    mesh.wait_until("pings pass without the controller", |_| {
        to_a.answered() > 5 && to_b.answered() > 5
    });

    mesh.pause("node-b");
    let change = mesh.evict("node-c");
    mesh.wait_up_to(Duration::from_secs(3), "node-a knows", |mesh| {
        mesh.node_status("node-a").epoch == Some(change.epoch)
    });
    let own = mesh.node_status("node-c");
    assert_eq!(
        own.membership,
        Some(Membership::Allowed),
        "it does not know"
    );
    assert!(own.epoch < Some(change.epoch));
    let answered = to_a.answered();
    mesh.resume("node-b");
    mesh.wait_up_to(Duration::from_secs(10), "node-b knows", |mesh| {
        let own = mesh.try_node_status("node-b");
        own.is_some_and(|own| own.epoch == Some(change.epoch))
    });
    let late = to_b.answered();
    assert!(mesh.none_reach("node-c", &["node-a", "node-b"]));
    assert_eq!(to_a.answered(), answered, "node-a answers nothing any more");
    assert_eq!(to_b.answered(), late, "nor does node-b, since it knows");
    mesh.wait_until("node-a and node-b go on", |mesh| {
        mesh.all_reach(&["node-a", "node-b"])
    });
}

#[test]
fn an_application_that_seeks_nobody_or_somebody_evicted_is_told_at_once() {
    let mut mesh = quiet_mesh();
    let connect = |mesh: &Mesh, from: &str, to: IpAddr| {
        let connect = move || TcpStream::connect_timeout(&(to, 9).into(), Duration::from_secs(30));
        let connecting = mesh.namespace(from).enter(connect);
        connecting
            .join()
            .expect("a thread ends")
            .map_err(|it| it.kind())
    };
    let [evicted, member] = ["node-c", "node-a"].map(|node| mesh.addresses(node));
    for to in evicted {
        let refused = connect(&mesh, "node-a", to).expect_err("nobody listens");
        assert_eq!(refused, ErrorKind::ConnectionRefused, "it is reached");
    }
    let change = mesh.evict("node-c");
    mesh.wait_until("everybody knows", |mesh| {
        let knows = mesh.node_status("node-a").epoch == Some(change.epoch);
        knows && mesh.node_status("node-c").membership == Some(Membership::Denied)
    });
    for to in evicted {
        let refused = connect(&mesh, "node-a", to).expect_err("it is cut off");
        assert_eq!(refused, ErrorKind::HostUnreachable, "{to}");
    }
    for to in member {
        let refused = connect(&mesh, "node-c", to).expect_err("it is cut off");
        assert_eq!(refused, ErrorKind::HostUnreachable, "{to}");
    }
    let unknown = evicted.map(|address| -> IpAddr {
        match address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() ^ 0x80).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() ^ 0x80).into(),
        }
    });
    for to in unknown {
        let refused = connect(&mesh, "node-a", to).expect_err("nobody has it");
        assert_eq!(refused, ErrorKind::HostUnreachable, "{to}");
        let ping = mesh.exec(
            "node-a",
            &["ping", "-n", "-c", "1", "-W", "30", &to.to_string()],
        );
        let said = String::from_utf8_lossy(&ping.stdout);
        let own = member[usize::from(to.is_ipv6())];
        let from = format!("From {own}");
        assert!(
            said.contains(&from) && said.contains("nreachable"),
            "{said}"
        );
    }
}
