//! Metrics as scrapers see them: both roles, over the admin socket and over TCP.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use tests::harness::{CONTROLLER, Mesh};
use tests::metrics::{Described, Scrape, documented};
use wire::admin::Membership;

#[test]
fn a_scraper_sees_what_happens_over_the_socket_and_over_tcp() {
    let builder = Mesh::builder().nodes(2).epoch_seconds(3600);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .controller_setting("metrics_listen", format!("{CONTROLLER_ADDRESS:?}"))
        .every_node_setting("metrics_listen", format!("{NODE_ADDRESS:?}"))
        .start();
    for (host, address, heading) in [
        (CONTROLLER, CONTROLLER_ADDRESS, "Of a controller"),
        ("node-a", NODE_ADDRESS, "Of a node"),
    ] {
        let (socket, tcp) = (scrape(&mesh, host), over_tcp(&mesh, host, address));
        assert_eq!(socket.metrics, tcp.metrics, "{host}");
        promtool_finds_nothing(&mesh, host);
        as_documented(&mesh, &socket, heading);
        let log = mesh.log(host);
        let line = log.lines().find(|line| line.contains("metrics served"));
        assert!(
            line.is_some_and(|line| line.contains(address)),
            "{host}: {log}"
        );
    }

    mesh.wait_until("node-b answers node-a's probes", |mesh| {
        let node = scrape(mesh, "node-a");
        node.at("meshd_probed_peers", Some("both")) == 1.0
    });
    let (controller, node) = (scrape(&mesh, CONTROLLER), scrape(&mesh, "node-a"));
    let status = mesh.status();
    for seen in [&controller, &node] {
        assert_eq!(seen.at("meshd_epoch_current", None), status.epoch.id as f64);
    }
    assert_eq!(controller.at("meshd_epoch_members", None), 2.0);
    assert_eq!(controller.at("meshd_connections", Some("serving")), 2.0);
    assert_eq!(controller.at("meshd_log_writable", None), 1.0);
    assert_eq!(node.at("meshd_peers", Some("current")), 1.0);
    assert_eq!(node.at("meshd_member", None), 1.0);
    assert_eq!(node.at("meshd_control_connected", None), 1.0);
    assert!(node.at("meshd_lease_remaining_seconds", None) > 3600.0);
    assert!(node.at("meshd_evidence_total", Some("accepted")) > 0.0);

    // Traffic that goes nowhere, from within and from without.
    let stray = mesh.exec(
        "node-a",
        &["ping", "-c", "3", "-i", "0.2", "-W", "1", "10.76.9.9"],
    );
    assert!(!stray.status.success(), "nobody has that address");
    let junk = mesh.namespace("node-b").enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        for _ in 0..5 {
            let sent = socket.send_to(&[0xff; 200], "198.18.1.1:51820");
            sent.expect("the underlay takes it");
        }
    });
    junk.join().expect("it is sent");
    let drops = "meshd_tunnel_dropped_packets_total";
    mesh.wait_until("all of it is counted", |mesh| {
        let later = scrape(mesh, "node-a");
        let more = |of: &str, reason| later.at(of, Some(reason)) - node.at(of, Some(reason));
        // Junk is of no segment.
        more(drops, "no_route") >= 3.0 && more(&format!("{drops}@"), "malformed") >= 5.0
    });

    let change = mesh.evict("node-b");
    mesh.wait_until("node-a has dropped node-b", |mesh| {
        let later = over_tcp(mesh, "node-a", NODE_ADDRESS);
        later.at("meshd_epoch_current", None) == change.epoch as f64
            && later.at("meshd_peers", Some("excluded")) == 1.0
    });
    let later = (scrape(&mesh, CONTROLLER), scrape(&mesh, "node-a"));
    assert_eq!(later.1.at("meshd_peers", Some("current")), 0.0);
    for (name, result) in [
        ("meshd_epoch_updates_total", "published"),
        ("meshd_policy_decisions_total", "denied"),
        ("meshd_nodes", "evicted"),
    ] {
        let (before, after) = (
            controller.at(name, Some(result)),
            later.0.at(name, Some(result)),
        );
        assert_eq!(after, before + 1.0, "{name}");
    }
    let accepted = |it: &Scrape| it.at("meshd_epoch_updates_total", Some("accepted"));
    assert_eq!(accepted(&later.1), accepted(&node) + 1.0);
    assert_eq!(controller.fallen(&later.0), Vec::<&_>::new());
    assert_eq!(node.fallen(&later.1), Vec::<&_>::new());
    mesh.wait_until("node-b says that it is out", |mesh| {
        let own = mesh.node_status("node-b").membership;
        let out = scrape(mesh, "node-b").at("meshd_member", None) == 0.0;
        own == Some(Membership::Denied) && out
    });
}

fn scrape(mesh: &Mesh, host: &str) -> Scrape {
    let output = mesh.meshctl(host, &["metrics"]);
    assert!(output.status.success(), "{host}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("it is text");
    Scrape::read(&text).unwrap_or_else(|why| panic!("{host}: {why}\n{text}"))
}

/// From inside the namespace of `host`.
pub(crate) fn over_tcp(mesh: &Mesh, host: &str, address: &'static str) -> Scrape {
    let reply = mesh.namespace(host).enter(move || {
        let mut stream = TcpStream::connect(address).expect("somebody listens");
        let request =
            b"GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text\r\n\r\n";
        stream.write_all(request).expect("it takes a request");
        let mut reply = String::new();
        let read = stream.read_to_string(&mut reply);
        read.map(|_| reply).expect("it answers and closes")
    });
    let reply = reply.join().expect("a scrape");
    let (head, text) = reply.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{host}: {head}");
    assert!(
        text.ends_with("# EOF\n"),
        "{host}: it asked for OpenMetrics"
    );
    Scrape::read(text).unwrap_or_else(|why| panic!("{host}: {why}\n{text}"))
}

/// Prometheus's own linter reads what `meshctl metrics` prints, and has nothing to say.
fn promtool_finds_nothing(mesh: &Mesh, host: &str) {
    let text = mesh.meshctl(host, &["metrics"]).stdout;
    let mut linter = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed: tests/tools promtool");
    let mut stdin = linter.stdin.take().expect("it is piped");
    stdin.write_all(&text).expect("it reads");
    drop(stdin);
    let said = linter.wait_with_output().expect("it ends");
    assert!(
        said.status.success() && said.stderr.is_empty(),
        "{host}: {said:?}"
    );
}

/// Exactly what the table says, with every value of every label.
fn as_documented(mesh: &Mesh, scrape: &Scrape, heading: &str) {
    let rows = documented(heading)
        .into_iter()
        .chain(documented("Of either"));
    let expected = rows.map(|(name, mut row)| {
        if let Some((label, values)) = &mut row.label {
            match label.as_str() {
                "version" => values.extend([mesh.status().version]),
                // The table has these where the status is described.
                "reason" if name == "meshd_tunnel_dropped_packets_total" => {
                    let status = mesh.node_status("node-a").dropped;
                    let of_tunnel = |name: &String| !name.ends_with("_failed");
                    values.extend(status.into_keys().filter(of_tunnel));
                }
                // There are no rules here.
                "rule" => {}
                _ => assert!(values.len() > 1, "{name} has its values in the table"),
            }
        }
        (name, row)
    });
    let expected: BTreeSet<_> = expected.map(comparable).collect();
    let found: BTreeSet<_> = scrape.metrics.clone().into_iter().map(comparable).collect();
    assert_eq!(found, expected);
}

fn comparable((name, it): (String, Described)) -> (String, String, String, Vec<String>) {
    let label = it.label.map(|(key, values)| {
        let values = values.into_iter();
        [key].into_iter().chain(values).collect()
    });
    (name, it.kind, it.help, label.unwrap_or_default())
}

/// The same in every namespace: each has a loopback of its own.
const NODE_ADDRESS: &str = "127.0.0.1:9744";
const CONTROLLER_ADDRESS: &str = "127.0.0.1:9743";
