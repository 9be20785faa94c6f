//! `wg` and an exporter that reads it see of a node: its peers by the WireGuard socket, and no key of its own.

use crate::stock;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;
use tests::harness::Mesh;

#[test]
fn wg_shows_the_peers_and_no_key_of_the_node_and_changes_nothing() {
    stock::require("wg");
    stock::require("prometheus_wireguard_exporter");
    // `wg` looks in one directory for all namespaces.
    let interface = format!("wm{}", std::process::id() % 1_000_000);
    let builder = Mesh::builder().nodes(3).epoch_seconds(3600);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 3600)
        .node_setting(NODE, "wireguard_dir", "\"/var/run/wireguard\"")
        .node_setting(NODE, "interface", format!("{interface:?}"))
        .node_setting(NODE, "persistent_keepalive", 20)
        .start();
    let file = PathBuf::from(format!("/var/run/wireguard/{interface}.sock"));
    let mode = std::fs::metadata(&file).expect("a socket").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let status = mesh.node_status(NODE).interface.expect("an interface");
    let told = status.wireguard_socket.expect("it is told");
    assert_eq!((&told.path, told.fault), (&file, None));

    let (own, peers) = dump(&mesh, &interface);
    let now: jiff::Timestamp = mesh
        .node_status(NODE)
        .generated_utc
        .parse()
        .expect("a time");
    let now = now.as_second();
    let port = status.listen_port.to_string();
    assert_eq!(own, ["(none)", "(none)", &port, "off"]);
    assert_eq!(peers.len(), 2);
    for name in ["node-b", "node-c"] {
        let key = mesh.node_status(name).wireguard;
        let fields = &peers[&key];
        assert_eq!(fields[0], "(none)", "a preshared key");
        let [v4, _] = mesh.underlay_addresses(name);
        let endpoint = fields[1].rsplit_once(':').expect("an endpoint").0;
        assert!(
            endpoint == v4 || endpoint.starts_with("[fd00:"),
            "{endpoint}"
        );
        let [v4, v6] = mesh.addresses(name);
        assert_eq!(fields[2], format!("{v4}/32,{v6}/128"));
        let at: i64 = fields[3].parse().expect("a time");
        let ago = now.abs_diff(at);
        assert!(ago < 600, "a handshake at {at}, {ago} s away");
        let bytes = [&fields[4], &fields[5]].map(|it| it.parse::<u64>().expect("bytes"));
        assert!(bytes.iter().all(|it| *it > 0), "{fields:?}");
        assert_eq!(fields[6], "20");
    }
    let shown = mesh.exec(NODE, &["wg", "show", &interface]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for word in ["latest handshake: ", "transfer: ", "persistent keepalive"] {
        assert_eq!(shown.matches(word).count(), 2, "{word}: {shown}");
    }
    assert!(
        !shown.contains("private key") && !shown.contains("preshared"),
        "{shown}"
    );

    let set = mesh.exec(NODE, &["wg", "set", &interface, "listen-port", "1"]);
    let error = String::from_utf8_lossy(&set.stderr).into_owned();
    assert!(
        !set.status.success() && error.contains("Operation not supported"),
        "{error}"
    );
    assert!(
        mesh.log(NODE)
            .contains("`wg` may not change this interface")
    );

    exports(&mesh, &interface, &peers);

    mesh.evict("node-c");
    let gone = mesh.node_status("node-b").wireguard;
    mesh.wait_until("`wg` shows the one peer that is left", |mesh| {
        let (_, peers) = dump(mesh, &interface);
        peers.len() == 1 && peers.contains_key(&gone)
    });
    // A slow client keeps nobody from another place.
    let stalled: Vec<_> = (0..7)
        .map(|_| std::os::unix::net::UnixStream::connect(&file).expect("it is taken"))
        .collect();
    assert_eq!(dump(&mesh, &interface).1.len(), 1);
    drop(stalled);
    mesh.stop(NODE);
    assert!(!file.exists(), "the socket goes with the interface");
}

/// `wg show INTERFACE dump`: the fields of the interface, and those of the peers by their keys.
fn dump(mesh: &Mesh, interface: &str) -> (Vec<String>, BTreeMap<String, Vec<String>>) {
    let output = mesh.exec(NODE, &["wg", "show", interface, "dump"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let fields = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let mut lines = text.lines().map(fields);
    let own = lines.next().expect("a line of its own");
    let peers = lines.map(|mut line| (line.remove(0), line));
    (own, peers.collect())
}

/// An exporter from the registry has the peers that `wg` shows.
fn exports(mesh: &Mesh, interface: &str, peers: &BTreeMap<String, Vec<String>>) {
    let mut command = mesh.command(NODE, "prometheus_wireguard_exporter");
    command.args(["-l", "127.0.0.1", "-p", "9586", "-i", interface]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null());
    let child = Exporter(child.spawn().expect("the tests need `ip` (iproute2)"));
    let scrape = || {
        let scrape = mesh.namespace(NODE).enter(|| {
            let mut stream = TcpStream::connect("127.0.0.1:9586").ok()?;
            let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        });
        scrape.join().expect("it does not panic")
    };
    let mut page = String::new();
    let has_all = || {
        page = scrape().unwrap_or_default();
        peers.keys().all(|key| {
            let of_peer = |line: &&str| line.contains(key.as_str());
            let received = page.lines().filter(of_peer);
            let mut received =
                received.filter(|it| it.starts_with("wireguard_received_bytes_total{"));
            received.any(|line| line.contains(interface) && !line.ends_with(" 0"))
        })
    };
    let seen = tests::harness::poll(PATIENCE, has_all);
    drop(child);
    assert!(seen, "the exporter does not show the peers: {page}");
}

struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const NODE: &str = "node-a";
const PATIENCE: Duration = Duration::from_secs(30);
