//! Segments of one mesh: who is in them, what passes in each, and that nothing passes between them.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;
use tests::harness::mesh::name;
use tests::harness::ping::{self, Pinger};
use tests::harness::{Builder, CONTROLLER, Mesh};
use wire::SegmentName;
use wire::admin::{
    EpochChange, Explanation, HostLine, Membership, NodeSegmentStatus, NodeStatus, PskState,
};

const TRAINING: &str = "training";
const INFERENCE: &str = "inference";

/// An epoch that does not end by itself.
const QUIET: &str = "epoch_seconds = 3600\nmax_benchmark_age = 3600\nprobation_epochs = 0\n";
/// One that ends all the time.
const RESTLESS: &str = "epoch_seconds = 1\nmax_benchmark_age = 3600\nprobation_epochs = 0\n";

/// node-a in training, node-b in both, node-c in inference.
fn mesh_with(training: &str, inference: &str) -> Mesh {
    mesh_of(Mesh::builder().nodes(3), training, inference)
}

fn mesh_of(builder: Builder, training: &str, inference: &str) -> Mesh {
    let mut mesh = builder
        .segment(TRAINING, "10.80.0.0/16", training)
        .segment(INFERENCE, "10.81.0.0/16", inference)
        .node_in("node-a", &[TRAINING])
        .node_in("node-b", &[TRAINING, INFERENCE])
        .node_in("node-c", &[INFERENCE])
        .prepare();
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    mesh.wait_until("each is where it belongs", |mesh| {
        reach(mesh, TRAINING, "node-a", "node-b") && reach(mesh, INFERENCE, "node-c", "node-b")
    });
    mesh
}

fn segment(segment: &str) -> SegmentName {
    segment.parse().expect("the tests' names are names")
}

/// A segment of a node, by the node's own word.
fn try_in(mesh: &Mesh, node: &str, of: &str) -> Option<NodeSegmentStatus> {
    mesh.try_node_status(node)?.segments.remove(&segment(of))
}

fn is_in(mesh: &Mesh, node: &str, of: &str) -> NodeSegmentStatus {
    try_in(mesh, node, of).unwrap_or_else(|| panic!("{node} is not in {of}"))
}

/// Whether two nodes are members of a segment and answer each other there, on both families.
fn reach(mesh: &Mesh, of: &str, one: &str, other: &str) -> bool {
    let both = [one, other].map(|node| try_in(mesh, node, of));
    let [Some(one_in), Some(other_in)] = both else {
        return false;
    };
    let is_member = |it: &NodeSegmentStatus| it.membership == Some(Membership::Allowed);
    let answers = |from: &str, it: &NodeSegmentStatus| {
        let addresses: [IpAddr; 2] = [it.v4.into(), it.v6.into()];
        let from = mesh.namespace(from);
        addresses.iter().all(|to| ping::once(from, *to))
    };
    is_member(&one_in) && is_member(&other_in) && answers(one, &other_in) && answers(other, &one_in)
}

/// Whether `to`'s addresses in a segment answer a node.
fn answers(mesh: &Mesh, from: &str, (to, of): (&str, &str)) -> bool {
    let to = is_in(mesh, to, of);
    let addresses: [IpAddr; 2] = [to.v4.into(), to.v6.into()];
    let from = mesh.namespace(from);
    addresses.iter().any(|to| ping::once(from, *to))
}

#[test]
fn each_segment_is_a_mesh_of_its_own_over_one_port_and_a_node_may_be_in_several() {
    // Without firewall rules, so that the tunnels alone keep the segments apart.
    let builder = Mesh::builder().nodes(3);
    let builder = builder.node_setting("node-b", "firewall", "'off'");
    let mut mesh = mesh_of(builder, QUIET, QUIET);
    let both = [TRAINING, INFERENCE].map(|it| is_in(&mesh, "node-b", it));
    let [training, inference] = &both;
    assert_eq!(training.interface.name, "meshd0");
    assert_eq!(inference.interface.name, "meshd-inference");
    assert_eq!(
        training.interface.listen_port,
        inference.interface.listen_port
    );
    assert_ne!(training.wireguard, inference.wireguard);
    // One number in all segments.
    assert_eq!(training.v4.octets()[2..], inference.v4.octets()[2..]);
    assert_eq!(training.peers.keys().collect::<Vec<_>>(), [&name("node-a")]);
    assert_eq!(
        inference.peers.keys().collect::<Vec<_>>(),
        [&name("node-c")]
    );
    assert!(
        !mesh
            .node_status("node-a")
            .segments
            .contains_key(&segment(INFERENCE))
    );

    // Short names are those of the segment that it enrolled in first.
    let lines: Vec<HostLine> = mesh.ask("node-b", &["hosts"]);
    let names_of = |address: IpAddr| {
        let line = lines.iter().find(|it| it.address == address);
        line.map(|it| it.names.join(" ")).unwrap_or_default()
    };
    let [a, c] = [("node-a", TRAINING), ("node-c", INFERENCE)];
    let [a, c] = [a, c].map(|(node, of)| names_of(is_in(&mesh, node, of).v4.into()));
    let all = "node-a.mesh.internal node-a node-a.training.mesh.internal";
    assert_eq!((&a[..], &c[..]), (all, "node-c.inference.mesh.internal"));

    // Of a node in both, each has its own keys and its own pairs.
    mesh.wait_until("it has reported of both", |mesh| {
        let node = mesh.node("node-b");
        let there = &node.segments[&segment(INFERENCE)];
        !node.observes.is_empty() && !there.observes.is_empty()
    });
    let seen = mesh.node("node-b");
    let there = &seen.segments[&segment(INFERENCE)];
    assert_eq!(seen.observes.keys().collect::<Vec<_>>(), [&name("node-a")]);
    assert_eq!(there.observes.keys().collect::<Vec<_>>(), [&name("node-c")]);
    assert_eq!(
        (seen.psk, there.psk),
        (PskState::Valid, Some(PskState::Valid))
    );
    let export = |of| mesh.meshctl("node-b", &["peer", "export", "node-c", "--segment", of]);
    let config = export(INFERENCE);
    assert!(config.status.success(), "{config:?}");
    let config = String::from_utf8_lossy(&config.stdout).into_owned();
    assert!(config.contains(&inference.v4.to_string()), "its address");
    let refused = export(TRAINING);
    assert!(!refused.status.success());
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.contains("not a member") && refused.contains(TRAINING),
        "{refused}"
    );

    // A machine that forwards whatever it may, and neighbours that send to it what is not for them.
    for node in ["node-a", "node-b", "node-c"] {
        for family in ["ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1"] {
            let set = mesh.exec(node, &["sysctl", "-qw", &format!("net.{family}")]);
            assert!(set.status.success(), "{set:?}");
        }
    }
    for (node, range, interface) in [
        ("node-a", "10.81.0.0/16", "meshd0"),
        ("node-c", "10.80.0.0/16", "meshd0"),
    ] {
        let of_b = is_in(
            &mesh,
            "node-b",
            if node == "node-a" {
                TRAINING
            } else {
                INFERENCE
            },
        );
        let via = of_b.v4.to_string();
        let route = ["ip", "route", "add", range, "via", &via, "dev", interface];
        let added = mesh.exec(node, &route);
        assert!(added.status.success(), "{added:?}");
    }
    assert!(!answers(&mesh, "node-a", ("node-c", INFERENCE)));
    assert!(!answers(&mesh, "node-a", ("node-b", INFERENCE)));
    assert!(!answers(&mesh, "node-c", ("node-a", TRAINING)));
    assert!(!answers(&mesh, "node-c", ("node-b", TRAINING)));
    // A source of the one segment in the other, which node-b can have because both addresses are its own.
    let (from, to) = (inference.v4, is_in(&mesh, "node-a", TRAINING).v4);
    let before = mesh.node_status("node-a").dropped["source_not_allowed"];
    let sent = mesh.namespace("node-b").enter(move || {
        let socket = UdpSocket::bind((from, 0)).expect("it is its own");
        for _ in 0..5 {
            let sent = socket.send_to(b"across", (to, 9));
            sent.expect("nothing keeps it from that");
        }
    });
    sent.join().expect("a thread ends");
    mesh.wait_until("nothing of it is let in", |mesh| {
        mesh.node_status("node-a").dropped["source_not_allowed"] >= before + 5
    });
    assert!(reach(&mesh, TRAINING, "node-a", "node-b"));
    assert!(reach(&mesh, INFERENCE, "node-c", "node-b"));

    // Both are there again after a restart, under the same names and with the same keys.
    assert!(mesh.stop("node-b").success());
    let left = mesh.exec("node-b", &["ip", "-o", "link"]);
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(!left.contains("meshd"), "{left}");
    mesh.start_node("node-b");
    mesh.wait_until("both are there again", |mesh| {
        reach(mesh, TRAINING, "node-a", "node-b") && reach(mesh, INFERENCE, "node-c", "node-b")
    });
    for (of, before) in [(TRAINING, training), (INFERENCE, inference)] {
        let now = is_in(&mesh, "node-b", of);
        assert_eq!(
            (now.wireguard, now.v4),
            (before.wireguard.clone(), before.v4)
        );
        assert_eq!(now.interface.name, before.interface.name);
    }
}

/// Updates of all of them come with one log, at once, and to a node that opens one after the other.
#[test]
fn a_node_in_five_segments_comes_back_to_all_of_them_however_often_it_restarts() {
    let all = ["s-one", "s-two", "s-three", "s-four", "s-five"];
    let mut builder = Mesh::builder().nodes(2);
    for (segment, range) in all.into_iter().zip(80..) {
        builder = builder.segment(segment, &format!("10.{range}.0.0/16"), QUIET);
    }
    for node in ["node-a", "node-b"] {
        builder = builder.node_in(node, &all);
    }
    let mut mesh = builder.prepare();
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    let reaches = |mesh: &mut Mesh| all.iter().all(|of| reach(mesh, of, "node-a", "node-b"));
    mesh.wait_until("both reach each other in all", reaches);
    for _ in 0..3 {
        assert!(mesh.stop("node-b").success());
        for segment in all {
            let _: EpochChange = mesh.ask(CONTROLLER, &["epoch", "rotate", "--segment", segment]);
        }
        mesh.start_node("node-b");
        mesh.wait_until("they do again in all", reaches);
    }
    let log = mesh.log("node-b");
    assert!(!log.contains("rewritten, cut or forked"), "{log}");
    assert_eq!(mesh.node_status("node-b").log_fault, None);
}

#[test]
fn epochs_of_one_segment_cost_the_other_no_packet() {
    let mut mesh = mesh_with(QUIET, RESTLESS);
    let (quiet, restless) = (
        is_in(&mesh, "node-b", TRAINING),
        is_in(&mesh, "node-b", INFERENCE),
    );
    let ping = |from: &str, to: std::net::Ipv4Addr| {
        let from = mesh.namespace(from);
        Pinger::start_with(from, to.into(), mesh.folder(), "0.02", 56)
    };
    let pings = [ping("node-a", quiet.v4), ping("node-c", restless.v4)];
    let goal = restless.epoch.expect("it is a member") + 20;
    mesh.wait_up_to(Duration::from_secs(120), "twenty epochs", |mesh| {
        is_in(mesh, "node-b", INFERENCE).epoch >= Some(goal)
    });
    for ping in pings {
        let losses = ping.stop();
        assert!(losses.sent > 500, "{losses:?}");
        assert_eq!((losses.lost, losses.again), (0, 0), "{losses:?}");
    }
    assert_eq!(is_in(&mesh, "node-b", TRAINING).epoch, quiet.epoch);
}

#[test]
fn a_node_that_fails_one_segment_stays_in_the_other() {
    let strict = format!("{QUIET}threshold = 0.8\nrevoke = 'now'\n");
    let lax = format!("{QUIET}threshold = 0.3\n");
    let mut mesh = mesh_with(&strict, &lax);
    mesh.set_score("node-b", 0.5);
    mesh.wait_until("it is out of the strict one", |mesh| {
        is_in(mesh, "node-b", TRAINING).membership == Some(Membership::Denied)
    });
    assert!(!answers(&mesh, "node-a", ("node-b", TRAINING)));
    assert!(reach(&mesh, INFERENCE, "node-c", "node-b"));
    let seen = mesh.node("node-b").segments;
    assert_eq!(seen[&segment(TRAINING)].membership, Membership::Denied);
    assert_eq!(seen[&segment(INFERENCE)].membership, Membership::Allowed);
    // Held against each policy by itself.
    let explained =
        |of: &str| -> Explanation { mesh.ask(CONTROLLER, &["explain", "node-b", "--segment", of]) };
    assert_eq!(explained(TRAINING).decision.membership, Membership::Denied);
    assert_eq!(
        explained(INFERENCE).decision.membership,
        Membership::Allowed
    );
    mesh.set_score("node-b", 0.9);
    mesh.wait_until("it is good enough again", |mesh| {
        let score = mesh.node("node-b").segments[&segment(TRAINING)].score;
        score.is_some_and(|score| score > 0.8)
    });
    let before = is_in(&mesh, "node-b", INFERENCE).epoch;
    let rotate = ["epoch", "rotate", "--now", "--segment", TRAINING];
    let _: EpochChange = mesh.ask(CONTROLLER, &rotate);
    mesh.wait_until("it is back", |mesh| {
        reach(mesh, TRAINING, "node-a", "node-b")
    });
    assert_eq!(is_in(&mesh, "node-b", INFERENCE).epoch, before);
}

#[test]
fn an_operator_lets_a_node_into_a_segment_and_takes_it_out_while_it_runs() {
    let mut mesh = mesh_with(QUIET, QUIET);
    let to = is_in(&mesh, "node-b", TRAINING).v4;
    for round in 0..2 {
        let pinger = Pinger::start(mesh.namespace("node-a"), to.into(), mesh.folder());
        let _: NodeStatus = mesh.ask(CONTROLLER, &["node", "join", "node-a", INFERENCE]);
        mesh.wait_until("it is in both", |mesh| {
            reach(mesh, INFERENCE, "node-a", "node-c") && reach(mesh, INFERENCE, "node-a", "node-b")
        });
        let interface = is_in(&mesh, "node-a", INFERENCE).interface;
        assert_eq!(interface.name, "meshd-inference");
        if round == 1 {
            // The place that it was let into is its own after a restart.
            assert!(mesh.stop("node-a").success());
            mesh.start_node("node-a");
            mesh.wait_until("it is in both again", |mesh| {
                reach(mesh, INFERENCE, "node-a", "node-c")
                    && reach(mesh, TRAINING, "node-a", "node-b")
            });
        }
        let at = is_in(&mesh, "node-c", INFERENCE).v4;
        let _: EpochChange = mesh.ask(CONTROLLER, &["node", "leave", "node-a", INFERENCE]);
        mesh.wait_until("it is out, and its interface is gone", |mesh| {
            let links = mesh.exec("node-a", &["ip", "-o", "link"]);
            let links = String::from_utf8_lossy(&links.stdout).into_owned();
            try_in(mesh, "node-a", INFERENCE).is_none() && !links.contains("meshd-inference")
        });
        assert!(!ping::once(mesh.namespace("node-a"), at.into()));
        let losses = pinger.stop();
        // In the second round it is started anew in between.
        assert!(round == 1 || losses.lost == 0, "{losses:?}");
        assert!(reach(&mesh, TRAINING, "node-a", "node-b"));
        let table = mesh.exec("node-a", &["nft", "list", "tables"]);
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        assert!(table.contains("meshd-meshd0"), "{table}");
        mesh.wait_until("its rules are gone", |mesh| {
            let tables = mesh.exec("node-a", &["nft", "list", "tables"]);
            !String::from_utf8_lossy(&tables.stdout).contains("meshd-meshd-inference")
        });
    }
    let events = mesh.events();
    let count = |kind: &str| events.iter().filter(|it| it.kind == kind).count();
    assert_eq!(count("node_joined_segment"), 2);
    assert_eq!(count("node_left_segment"), 2);

    // Nothing of one segment leaves by the interface of the other, even if this machine sends it.
    let from = is_in(&mesh, "node-b", INFERENCE).v4;
    let before = mesh.node_status("node-a").dropped["source_not_allowed"];
    let sent = mesh.namespace("node-b").enter(move || {
        let to = UdpSocket::bind((from, 0)).expect("it is its own");
        let at = (std::net::Ipv4Addr::new(10, 80, 0, 1), 9);
        let _ = to.send_to(b"across", at);
    });
    sent.join().expect("a thread ends");
    assert_eq!(
        mesh.node_status("node-a").dropped["source_not_allowed"],
        before
    );

    // A key that a node has for a segment is nobody's to replace: without it the node does not start.
    assert!(mesh.stop("node-b").success());
    let key = mesh.state_dir("node-b").join("wireguard-inference.key");
    let kept = mesh.state_dir("node-b").join("kept");
    std::fs::rename(&key, &kept).expect("it is there");
    let (code, said) = crate::outcome(mesh.daemon_command("node-b"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("wireguard-inference.key"), "{said}");
    std::fs::rename(&kept, &key).expect("it was there");
    mesh.start_node("node-b");
    mesh.wait_until("it is there again", |mesh| {
        reach(mesh, INFERENCE, "node-b", "node-c")
    });
}

#[test]
fn a_segment_that_a_node_may_not_ask_for_is_named_in_its_status_and_in_nothing_else() {
    let mut mesh = Mesh::builder()
        .nodes(2)
        .segment(TRAINING, "10.80.0.0/16", QUIET)
        .segment(INFERENCE, "10.81.0.0/16", QUIET)
        .node_in("node-a", &[TRAINING])
        .node_in("node-b", &[TRAINING])
        .prepare();
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.start_node("node-b");
    mesh.wait_until("both are in training", |mesh| {
        reach(mesh, TRAINING, "node-a", "node-b")
    });
    assert!(mesh.stop("node-a").success());
    mesh.spawn("node-a", &["--segment", "training,inference,nowhere"]);
    mesh.wait_until("it is told why not", |mesh| {
        let status = mesh.try_node_status("node-a");
        status.is_some_and(|it| it.not_placed.len() == 2)
    });
    let refused = mesh.node_status("node-a").not_placed;
    assert!(refused[&segment(INFERENCE)].contains("meshctl node join"));
    assert!(refused[&segment("nowhere")].contains("no segment of this name"));
    mesh.wait_until("it is in training again", |mesh| {
        reach(mesh, TRAINING, "node-a", "node-b")
    });
    // Once an operator has said so, it comes with the key that it has.
    let _: NodeStatus = mesh.ask(CONTROLLER, &["node", "join", "node-a", INFERENCE]);
    mesh.wait_until("it is in", |mesh| {
        try_in(mesh, "node-a", INFERENCE).is_some()
            && mesh.node_status("node-a").not_placed.len() == 1
    });
}
